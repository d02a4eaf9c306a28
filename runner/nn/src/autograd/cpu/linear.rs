//! A linear map as one operation on dfdx's tape.

use dfdx::prelude::Tape;
use rayon::prelude::*;

use super::{Activations, Cpu, Device, Parameter, give, give_parameters, operations::ROWS, values};
use crate::{
    Activation, Error, Shaped,
    kernels::{self, Added, Finish, Left, Packed, Pairing, Side, Source},
    pool::{Buffer, Workers},
    stack::linear_gradients,
};

/// Parts of the rows whose share of a weight's gradient is summed up apart.
const GROUPS: usize = 8;
/// Outputs of a map whose gradient one thread computes at a time, where the work is cut by outputs.
const OUTPUTS: usize = 256;
/// Weights of which a copy for each group of rows is too much.
const LARGE: usize = 1 << 18;

impl Cpu {
    /// `activation(x·wᵀ + bias) + residual`.
    pub(super) fn map<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Activations,
        weight: &Parameter<Self>,
        bias: Option<&Parameter<Self>>,
        activation: Activation,
        residual: Option<&Activations>,
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (rows, (outputs, inputs)) = (x.rows, weight.shape());
        let mut out = workers.buffer(rows * outputs);
        let curved = activation != Activation::None;
        let mut before = workers.buffer(if curved { out.len() } else { 0 });
        {
            let (weight, bias) = (values(weight), bias.map(values));
            let bias = bias.as_deref().map_or(&[][..], Vec::as_slice);
            let added = residual.filter(|_| !curved).map_or(Added::Nothing, |residual| Added::Matrix(residual));
            let finish = Finish { bias, added, activation: Activation::None };
            product(&workers, x, Source::rows(&weight, inputs), finish, &mut out);
            workers.run(|| {
                let parts = before.par_chunks_mut(ROWS * outputs).zip(out.par_chunks_mut(ROWS * outputs));
                parts.for_each(|(before, out)| {
                    before.copy_from_slice(out);
                    kernels::activate(isa, activation, before, out);
                });
            });
        }
        if let Some(residual) = residual.filter(|_| curved) {
            kernels::add(isa, &mut out, residual);
        }
        let dresidual = residual.and_then(|residual| residual.gradient.clone());
        let (x, weight, bias) = (x.clone(), weight.clone(), bias.cloned());
        self.record(tape, rows, outputs, out, move |mut dy, tensors| {
            if let Some(dresidual) = dresidual {
                let mut copy = workers.buffer(dy.len());
                copy.copy_from_slice(&dy);
                give(tensors, &dresidual, copy)?;
            }
            if curved {
                let mut after = workers.buffer(dy.len());
                workers.run(|| {
                    let parts = before.par_chunks_mut(ROWS * outputs).zip(after.par_chunks_mut(ROWS * outputs));
                    parts.zip(dy.par_chunks_mut(ROWS * outputs)).for_each(|((before, after), dy)| {
                        kernels::activate_backward(isa, activation, before, after);
                        kernels::multiply(isa, dy, before);
                    });
                });
            }
            let own = weight_gradients(&workers, rows, &x, &dy, bias.is_some());
            give_parameters(&workers, tensors, [Some(&weight), bias.as_ref()], &own)?;
            let Some(gradient) = &x.gradient else { return Ok(()) };
            let mut dx = workers.buffer(rows * inputs);
            product(&workers, &dy, Source::columns(&values(&weight), inputs), Finish::NOTHING, &mut dx);
            give(tensors, gradient, dx)
        })
    }
}

/// `out = finish(x·w)` on all threads.
fn product(workers: &Workers, x: &[f32], source: Source<'_>, finish: Finish<'_>, out: &mut [f32]) {
    workers.run(|| {
        let map = Packed::borrowed(workers, source);
        let (left, panels) = (Left::Rows(x), map.panels());
        let parts = workers.parts(left.rows(map.shape().1), panels);
        kernels::linear_spread(left, &map, 0..panels, finish, parts, out);
    });
}

/// The gradients of a linear map's weight and, behind it, of its bias, for its input and the gradient of its result.
fn weight_gradients(workers: &Workers, rows: usize, x: &[f32], dy: &[f32], bias: bool) -> Buffer {
    let isa = workers.isa();
    let (inputs, outputs) = (x.len() / rows, dy.len() / rows);
    let len = outputs * (inputs + usize::from(bias));
    if outputs * inputs >= LARGE {
        // A large weight: by its outputs, because a copy for each group of rows would cost more than the product.
        let mut own = workers.zeros(len);
        let (dweight, dbias) = own.split_at_mut(outputs * inputs);
        workers.run(|| {
            dweight.par_chunks_mut(OUTPUTS * inputs).enumerate().for_each(|(i, dweight)| {
                let left = Side::new(dy, outputs).columns(i * OUTPUTS, dweight.len() / inputs);
                let mut scratch = workers.buffer(kernels::weight_gradient_scratch(isa, OUTPUTS, inputs));
                kernels::weight_gradient(isa, left, Side::new(x, inputs), Pairing::Rows, dweight, &mut scratch);
            });
        });
        if bias {
            kernels::add_columns(isa, dbias, dy);
        }
        return own;
    }
    let part = rows.div_ceil(GROUPS).max(ROWS);
    let parts: Vec<Buffer> = workers.run(|| {
        let parts = x.par_chunks(part * inputs).zip(dy.par_chunks(part * outputs));
        let gradients = parts.map(|(x, dy)| {
            let mut own = workers.zeros(len);
            let (dweight, dbias) = own.split_at_mut(outputs * inputs);
            linear_gradients(workers, dy.len() / outputs, x, dy, dweight, dbias);
            own
        });
        gradients.collect()
    });
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_else(|| workers.zeros(len));
    parts.for_each(|own| kernels::add(isa, &mut sum, &own));
    sum
}
