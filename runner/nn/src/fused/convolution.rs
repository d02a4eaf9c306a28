//! Convolutional networks: layer by layer over all pictures, windows read where they lie.

use std::sync::Arc;

use super::{Fused, Matrix, VALUES, Values};
use crate::{
    Error, Layer, Operation, Size,
    kernels::{self, Added, Finish, Left, Pieces, Sweep},
    pool::Buffer,
};

/// Runs the layers over pictures of `sizes[0]`; `sizes[i + 1]` is what layer i makes. What no later layer reads is given
/// back at once.
pub(super) fn run(backend: &Fused, x: &Values, layers: &[Layer<Fused>], sizes: &[Size]) -> Result<Values, Error> {
    let images = x.0.rows / sizes[0].pixels().max(1);
    let last = last_reads(layers);
    let mut results: Vec<Option<Buffer>> = vec![None];
    for (i, layer) in layers.iter().enumerate() {
        let (from, to) = (sizes[layer.input], sizes[i + 1]);
        let read = |result: usize| -> Result<&[f32], Error> {
            let gone = || Error::Device(format!("layer {i} reads a result that was given back"));
            if result == 0 { Ok(x) } else { results[result].as_deref().ok_or_else(gone) }
        };
        let mut out = backend.workers.buffer(images * to.pixels() * to.channels);
        let sweep = Sweep { window: layer.window, from, to };
        layer_over(backend, layer, sweep, read(layer.input)?, residual(layer).map(read).transpose()?, &mut out);
        results.push(Some(out));
        for (result, last) in results.iter_mut().zip(&last) {
            if *last == Some(i) {
                *result = None;
            }
        }
    }
    let Some((values, to)) = results.pop().flatten().zip(sizes.last()) else { return Ok(x.clone()) };
    Ok(Values(Arc::new(Matrix { rows: images * to.pixels(), width: to.channels, values })))
}

/// The result that a layer adds.
fn residual(layer: &Layer<Fused>) -> Option<usize> {
    match layer.operation {
        Operation::Convolution { residual, .. } => residual,
        _ => None,
    }
}

/// For each result, the last layer that reads it.
fn last_reads(layers: &[Layer<Fused>]) -> Vec<Option<usize>> {
    let mut last = vec![None; layers.len() + 1];
    for (i, layer) in layers.iter().enumerate() {
        last[layer.input] = Some(i);
        if let Some(residual) = residual(layer) {
            last[residual] = Some(i);
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
    out: &mut [f32],
) {
    let (workers, isa) = (&backend.workers, backend.workers.isa());
    let part = (VALUES / sweep.to.channels).max(1);
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
            let weight = &*weight.0;
            let added = residual.map_or(Added::Nothing, Added::Matrix);
            let finish = Finish { bias, added, activation: *activation };
            let (starts, zeros);
            let left = if sweep.window.is_pixel() {
                Left::Rows(pictures)
            } else {
                let (area, channels) = (sweep.window.size * sweep.window.size, sweep.from.channels);
                (starts, zeros) = (kernels::window_starts(sweep), vec![0.0; channels]);
                let picture = sweep.from.pixels() * channels;
                Left::Pieces(Pieces::new(pictures, picture, &starts, (area, channels), &zeros))
            };
            let parts = workers.parts(left.rows(weight.shape().1), weight.panels());
            workers.run(|| kernels::linear_spread(left, weight, 0..weight.panels(), finish, parts, out));
        }
    }
}
