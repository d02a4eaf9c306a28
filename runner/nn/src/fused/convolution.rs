//! Convolutional networks: layer by layer over all pictures, windows read where they lie.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Fused, Matrix, VALUES, Values};
use crate::{
    Error, Layer, Operation, Shaped, Size,
    error::check,
    kernel::Kernel,
    kernels::{self, Added, Finish, Left, Sweep},
    pool::Buffer,
};

/// Bytes of the weights of the layers that are run picture by picture: those of a cache that threads share.
const SHARED_BYTES: usize = 8 << 20;

/// Runs the layers over pictures of `sizes[0]`; `sizes[i + 1]` is what layer i makes.
///
/// The first layers have few weights and large results, so each thread runs them over one picture while its results are in the
/// cache; the others have it the other way round, and run over all pictures at once.
pub(super) fn run(backend: &Fused, x: &Values, layers: &[Layer<Fused>], sizes: &[Size]) -> Result<Values, Error> {
    for layer in layers {
        if let Operation::Convolution { weight, .. } = &layer.operation
            && matches!(&*weight.0, Kernel::Winograd(_))
        {
            check("convolution", "side of the window that a kernel is for", layer.window.size, 3)?;
            check("convolution", "stride of the window that a kernel is for", layer.window.stride, 1)?;
        }
    }
    let workers = &backend.workers;
    let values = |size: &Size| size.pixels() * size.channels;
    let images = x.0.rows / sizes[0].pixels().max(1);
    let alone = if images < workers.threads() { 0 } else { alone(layers) };
    let mut middle = workers.buffer(0);
    if alone > 0 {
        middle = workers.buffer(images * values(&sizes[alone]));
        let each = |(picture, out): (&[f32], &mut [f32])| -> Result<(), Error> {
            out.copy_from_slice(&over(backend, picture, 1, &layers[..alone], &sizes[..=alone], 0, false)?);
            Ok(())
        };
        let pictures = x.par_chunks(values(&sizes[0])).zip(middle.par_chunks_mut(values(&sizes[alone])));
        workers.run(|| pictures.map(each).collect::<Result<(), _>>())?;
    }
    let x = if alone > 0 { &*middle } else { &**x };
    let out = over(backend, x, images, &layers[alone..], &sizes[alone..], alone, true)?;
    let to = sizes[sizes.len() - 1];
    Ok(Values(Arc::new(Matrix { rows: images * to.pixels(), width: to.channels, values: out })))
}

/// How many of the first layers are run picture by picture: no later one reads a result before that of the last of them.
fn alone(layers: &[Layer<Fused>]) -> usize {
    let (mut bytes, mut alone) = (0, 0);
    for (i, layer) in layers.iter().enumerate() {
        bytes += match &layer.operation {
            Operation::Convolution { weight, .. } => 4 * weight.shape().0 * weight.shape().1,
            _ => 0,
        };
        if bytes > SHARED_BYTES {
            break;
        }
        let reads = |later: &Layer<Fused>| later.input.min(later.residual().unwrap_or(usize::MAX));
        if layers[i + 1..].iter().all(|later| reads(later) > i) {
            alone = i + 1;
        }
    }
    alone
}

/// Runs layers of which the first is layer `first` of the network, whose input is `pictures`. What no later layer reads is
/// given back at once. With `spread`, on all threads, layer by layer.
fn over(
    backend: &Fused,
    pictures: &[f32],
    images: usize,
    layers: &[Layer<Fused>],
    sizes: &[Size],
    first: usize,
    spread: bool,
) -> Result<Buffer, Error> {
    let workers = &backend.workers;
    let last = last_reads(layers, first);
    let mut results: Vec<Option<Buffer>> = vec![None];
    for (i, layer) in layers.iter().enumerate() {
        let (from, to) = (sizes[layer.input - first], sizes[i + 1]);
        let read = |result: usize| -> Result<&[f32], Error> {
            let gone = || Error::Device(format!("layer {} reads a result that was given back", first + i));
            if result == first { Ok(pictures) } else { results[result - first].as_deref().ok_or_else(gone) }
        };
        let mut out = workers.buffer(images * to.pixels() * to.channels);
        let sweep = Sweep { window: layer.window, from, to };
        let (input, added) = (read(layer.input)?, layer.residual().map(read).transpose()?);
        layer_over(backend, layer, sweep, input, added, spread, &mut out);
        results.push(Some(out));
        for (result, last) in results.iter_mut().zip(&last) {
            if *last == Some(i) {
                *result = None;
            }
        }
    }
    let result = results.pop().flatten();
    Ok(result.unwrap_or_else(|| {
        let mut same = workers.buffer(pictures.len());
        same.copy_from_slice(pictures);
        same
    }))
}

/// For each result, the last layer that reads it.
fn last_reads(layers: &[Layer<Fused>], first: usize) -> Vec<Option<usize>> {
    let mut last = vec![None; layers.len() + 1];
    for (i, layer) in layers.iter().enumerate() {
        last[layer.input - first] = Some(i);
        if let Some(residual) = layer.residual() {
            last[residual - first] = Some(i);
        }
    }
    last
}

fn layer_over(
    backend: &Fused,
    layer: &Layer<Fused>,
    sweep: Sweep,
    pictures: &[f32],
    residual: Option<&[f32]>,
    spread: bool,
    out: &mut [f32],
) {
    let (workers, isa) = (&backend.workers, backend.workers.isa());
    let part = if spread { VALUES / sweep.to.channels } else { out.len() / sweep.to.channels }.max(1);
    let chunk = part * sweep.to.channels;
    match &layer.operation {
        Operation::MaxPool => {
            workers.chunks(out, chunk, |i, out| kernels::max_pool(isa, sweep, pictures, i * part, out));
        }
        Operation::MeanPool => {
            workers.chunks(out, chunk, |i, out| kernels::mean_pool(isa, sweep, pictures, i * part, out));
        }
        Operation::Depthwise { weight, bias, activation } => workers.chunks(out, chunk, |i, out| {
            let bounds = kernels::bounds(*activation);
            let whole = (f32::NEG_INFINITY, f32::INFINITY);
            kernels::depthwise(isa, sweep, pictures, weight, bias, bounds.unwrap_or(whole), i * part, out);
            if bounds.is_none() {
                let mut before = workers.buffer(out.len());
                before.copy_from_slice(out);
                kernels::activate(isa, *activation, &before, out);
            }
        }),
        Operation::Activate(activation) => workers.chunks(out, chunk, |i, out| {
            kernels::activate(isa, *activation, &pictures[i * chunk..][..out.len()], out);
        }),
        Operation::Upsample => workers.chunks(out, chunk, |i, out| {
            kernels::upsample(sweep.from, sweep.window.size, pictures, i * part, out);
        }),
        Operation::GroupNorm { gain, bias, groups, eps, activation } => {
            let picture = sweep.to.pixels() * sweep.to.channels;
            workers.chunks(out, picture, |i, out| {
                let x = &pictures[i * picture..][..out.len()];
                let (mut stats, mut normal) = (workers.buffer(2 * sweep.to.channels), workers.buffer(out.len()));
                kernels::group_norm(isa, x, gain, bias, *groups, *eps, &mut normal, &mut stats);
                kernels::activate(isa, *activation, &normal, out);
            });
        }
        Operation::Transposed { weight, bias, activation } => {
            let weight = &*weight.0;
            let (small, large) = (sweep.from.pixels() * sweep.from.channels, sweep.to.pixels() * sweep.to.channels);
            let sweep = Sweep { from: sweep.to, to: sweep.from, ..sweep };
            let mut spread = workers.buffer(sweep.to.pixels() * sweep.covered());
            for (x, out) in pictures.chunks_exact(small).zip(out.chunks_exact_mut(large)) {
                let left = Left::Rows(x);
                let parts = workers.parts(left.rows(weight.shape().1), weight.panels());
                workers.run(|| {
                    kernels::linear_spread(left, weight, 0..weight.panels(), Finish::NOTHING, parts, &mut spread);
                });
                out.fill(0.0);
                kernels::add_window_rows(isa, sweep, &spread, 0, out);
                kernels::add_to_rows(isa, out, bias);
                let mut before = workers.buffer(out.len());
                before.copy_from_slice(out);
                kernels::activate(isa, *activation, &before, out);
            }
        }
        Operation::Convolution { weight, bias, activation, .. } => {
            let added = residual.map_or(Added::Nothing, Added::Matrix);
            let (windows, finish) = (weight.0.windows(sweep), Finish { bias, added, activation: *activation });
            weight.0.apply(workers, (sweep, windows.as_ref()), pictures, finish, spread, out);
        }
    }
}
