//! A whole convolutional network as one operation: forward only, for now.
//!
//! Layer by layer over all pictures. A layer's work is cut into parts by sizes alone, so results do not depend on the
//! number of threads. What no later layer reads is given back at once.

use rayon::prelude::*;

use super::{Cpu, Parameter, cpu::values};
use crate::{
    Activation, Backend, Error, Layer, Operation, Size, kernels,
    kernels::{Sweep, View},
    pool::{Buffer, Workers},
};

/// Values of the windows' rows that one thread holds at a time: with its weights they should stay in its cache.
const COVERED: usize = 1 << 20;
/// Fewest and most output pixels that one thread computes at a time.
const PIXELS: (usize, usize) = (128, 2048);
/// Output channels that one thread computes at a time, where the work is cut by channels.
const CHANNELS: usize = 128;
/// Values of a pooling's or a depthwise convolution's result that one thread computes at a time.
const VALUES: usize = 1 << 15;

impl Cpu {
    /// Runs the layers over pictures of `sizes[0]`; `sizes[i + 1]` is what layer i makes. At least one layer.
    pub(super) fn layers<B: Backend<Weight = Parameter<Self>, Param = Parameter<Self>>>(
        &self,
        pictures: Buffer,
        layers: &[Layer<B>],
        sizes: &[Size],
    ) -> Result<Vec<f32>, Error> {
        let workers = self.workers();
        let images = pictures.len() / (sizes[0].pixels() * sizes[0].channels).max(1);
        let last = last_reads(layers);
        let mut results: Vec<Option<Buffer>> = vec![Some(pictures)];
        for (i, layer) in layers.iter().enumerate() {
            let (from, to) = (sizes[layer.input], sizes[i + 1]);
            let read = |result: usize| {
                let gone = || Error::Device(format!("layer {i} reads a result that was given back"));
                results[result].as_deref().ok_or_else(gone)
            };
            let mut out = workers.buffer(images * to.pixels() * to.channels);
            let sweep = Sweep { window: layer.window, from, to };
            run(workers, layer, sweep, read(layer.input)?, residual(layer).map(read).transpose()?, &mut out);
            results.push(Some(out));
            for (result, last) in results.iter_mut().zip(&last) {
                if *last == Some(i) {
                    *result = None;
                }
            }
        }
        Ok(results.pop().flatten().map(|result| result.to_vec()).unwrap_or_default())
    }
}

/// The result that a layer adds.
fn residual<B: Backend>(layer: &Layer<B>) -> Option<usize> {
    match layer.operation {
        Operation::Convolution { residual, .. } => residual,
        _ => None,
    }
}

/// For each result, the last layer that reads it.
fn last_reads<B: Backend>(layers: &[Layer<B>]) -> Vec<Option<usize>> {
    let mut last = vec![None; layers.len() + 1];
    for (i, layer) in layers.iter().enumerate() {
        last[layer.input] = Some(i);
        if let Some(residual) = residual(layer) {
            last[residual] = Some(i);
        }
    }
    last
}

fn run<B: Backend<Weight = Parameter<Cpu>, Param = Parameter<Cpu>>>(
    workers: &Workers,
    layer: &Layer<B>,
    sweep: Sweep,
    pictures: &[f32],
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    let isa = workers.isa();
    let part = (VALUES / sweep.to.channels).max(1);
    // Calls `pixels` with the first output pixel and the values of each part.
    let parts = |out: &mut [f32], pixels: &(dyn Fn(usize, &mut [f32]) + Sync)| {
        let chunks = out.par_chunks_mut(part * sweep.to.channels).enumerate();
        workers.run(|| chunks.for_each(|(i, out)| pixels(i * part, out)));
    };
    match &layer.operation {
        Operation::MaxPool => parts(out, &|first, out| kernels::max_pool(isa, sweep, pictures, first, out)),
        Operation::MeanPool => parts(out, &|first, out| kernels::mean_pool(isa, sweep, pictures, first, out)),
        Operation::Depthwise { weight, bias, activation } => {
            let (weight, bias) = (&*values(weight), &*values(bias));
            parts(out, &|first, out| {
                let bounds = kernels::bounds(*activation).unwrap_or(WHOLE);
                kernels::depthwise(isa, sweep, pictures, weight, bias, bounds, first, out);
                curve(workers, *activation, out);
            });
        }
        Operation::Convolution { weight, bias, activation, .. } => {
            let (weight, bias) = (&*values(weight), &*values(bias));
            convolve(workers, sweep, pictures, weight, bias, residual.unwrap_or_default(), *activation, out);
        }
    }
}

/// No bounds.
const WHOLE: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

/// Applies an activation that is more than bounds.
fn curve(workers: &Workers, activation: Activation, x: &mut [f32]) {
    if kernels::bounds(activation).is_none() {
        let mut before = workers.buffer(x.len());
        before.copy_from_slice(x);
        kernels::activate(workers.isa(), activation, &before, x);
    }
}

#[expect(clippy::too_many_arguments, reason = "the operands of a convolution")]
fn convolve(
    workers: &Workers,
    sweep: Sweep,
    pictures: &[f32],
    weight: &[f32],
    bias: &[f32],
    residual: &[f32],
    activation: Activation,
    out: &mut [f32],
) {
    let (isa, covered, outputs) = (workers.isa(), sweep.covered(), sweep.to.channels);
    let rows = out.len() / outputs;
    let weight = View::new(weight, covered).transposed();
    let bounds = kernels::bounds(activation).unwrap_or(WHOLE);
    let finish = |first: usize, out: &mut [f32]| {
        let residual = if residual.is_empty() { residual } else { &residual[first * outputs..][..out.len()] };
        kernels::finish(isa, out, bias, residual, bounds);
        curve(workers, activation, out);
    };
    if rows <= outputs {
        // Fewer pixels than channels: by channels, so that every thread packs its own weights once.
        let mut patches = workers.buffer(if sweep.window.is_pixel() { 0 } else { rows * covered });
        workers.run(|| {
            patches.par_chunks_mut(PIXELS.0 / 2 * covered).enumerate().for_each(|(i, patches)| {
                kernels::window_rows(sweep, pictures, i * PIXELS.0 / 2, patches);
            });
            let patches = if sweep.window.is_pixel() { pictures } else { &patches };
            kernels::product_spread(View::new(patches, covered), weight, out, CHANNELS);
        });
        finish(0, out);
        return;
    }
    let most = (COVERED / covered).clamp(PIXELS.0, PIXELS.1);
    // An even number of parts of one size, so that two threads end together.
    let part = rows.div_ceil(rows.div_ceil(most).next_multiple_of(2));
    workers.run(|| {
        out.par_chunks_mut(part * outputs).enumerate().for_each(|(i, out)| {
            let (first, count) = (i * part, out.len() / outputs);
            if sweep.window.is_pixel() {
                let patches = &pictures[first * covered..][..count * covered];
                kernels::product(View::new(patches, covered), weight, out, false);
            } else {
                let mut patches = workers.buffer(count * covered);
                kernels::window_rows(sweep, pictures, first, &mut patches);
                kernels::product(View::new(&patches, covered), weight, out, false);
            }
            finish(first, out);
        });
    });
}
