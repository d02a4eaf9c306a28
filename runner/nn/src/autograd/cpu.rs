//! The CPU: our kernels as operations on dfdx's tape.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dfdx::prelude::{CpuError, Gradients, Tape, Tensor, TensorFromVec};
use rayon::prelude::*;

use super::{
    Matrix, Operations, Parameter, cpu_stack, failed,
    operations::{matrix, shape},
};
use crate::{
    Activation, Attention, Backend, Block, Error, Layer, Shaped, Size, kernels,
    kernels::{Heads, View},
    pool::{Buffer, Workers},
    stack::{linear, linear_gradients},
};

/// Rows that one thread takes at a time.
const ROWS: usize = 512;
/// Columns of a weight's gradient that one thread computes at a time.
const COLUMNS: usize = 256;

/// The device of dfdx.
type Device = dfdx::prelude::Cpu;
/// The gradients of dfdx.
pub(super) type Tensors = Gradients<f32, Device>;

/// Kernels on the CPU; see [`Operations`].
pub struct Cpu {
    workers: Workers,
    device: Device,
}

/// A parameter in memory, once: kernels read it where it lies.
pub struct Host {
    values: RwLock<Vec<f32>>,
    /// Names its gradient on the tape. Its own single value is of no use.
    handle: Tensor<(usize,), f32, Device>,
}

impl Cpu {
    /// Kernels on the given threads.
    pub fn over(workers: Workers) -> Self {
        Self { workers, device: Device::default() }
    }

    pub(super) fn workers(&self) -> &Workers {
        &self.workers
    }

    /// The values of a tensor.
    pub(super) fn copy(&self, x: &Matrix<Device>) -> Buffer {
        let (rows, width) = shape(x);
        let mut values = self.workers.buffer(rows * width);
        x.copy_into(&mut values);
        values
    }

    /// Makes the result of an operation and leaves its `backward`, which gets the result's gradient, on the tape.
    pub(super) fn record<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        width: usize,
        values: Vec<f32>,
        backward: impl FnOnce(Vec<f32>, &mut Tensors) -> Result<(), CpuError> + 'static,
    ) -> Result<Matrix<Device>, Error> {
        let result = matrix(&self.device, values.len() / width.max(1), width, values)?;
        let gradient = slot(&result);
        tape.add_backward_op(move |tensors| {
            let dy = std::mem::take(gradient(tensors)?);
            backward(dy, tensors)
        });
        Ok(result)
    }
}

/// A parameter's values.
pub(super) fn values(parameter: &Parameter<Cpu>) -> RwLockReadGuard<'_, Vec<f32>> {
    parameter.storage().values.read().unwrap_or_else(PoisonError::into_inner)
}

/// The gradient of an activation.
pub(super) fn slot(x: &Matrix<Device>) -> impl Fn(&mut Tensors) -> Result<&mut Vec<f32>, CpuError> + 'static {
    let ghost = x.ghost();
    move |tensors| Ok(&mut **tensors.get_or_alloc_mut(&ghost)?)
}

/// The gradient of a parameter.
pub(super) fn parameter_slot<'a>(
    tensors: &'a mut Tensors,
    parameter: &Parameter<Cpu>,
) -> Result<&'a mut Vec<f32>, CpuError> {
    let (rows, width) = parameter.shape();
    let gradient = &mut **tensors.get_or_alloc_mut(&parameter.storage().handle)?;
    if gradient.len() != rows * width {
        *gradient = vec![0.0; rows * width];
    }
    Ok(gradient)
}

impl Operations for Cpu {
    type Device = Device;
    type Storage = Host;

    fn new(threads: usize) -> Result<Self, Error> {
        Ok(Self::over(Workers::new(threads)?))
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn store(&self, _: usize, _: usize, values: Vec<f32>) -> Result<Host, Error> {
        let handle = self.device.try_tensor_from_vec(vec![0.0], (1,)).map_err(failed)?;
        Ok(Host { values: RwLock::new(values), handle })
    }

    fn read(&self, parameter: &Parameter<Self>) -> Vec<f32> {
        values(parameter).clone()
    }

    fn update(&self, parameter: &Parameter<Self>, change: &mut dyn FnMut(&mut [f32])) {
        change(&mut parameter.storage().values.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn take_gradient(&self, parameter: &Parameter<Self>, gradients: &mut Tensors) -> Result<Vec<f32>, Error> {
        Ok(std::mem::take(parameter_slot(gradients, parameter).map_err(failed)?))
    }

    fn linear<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Device>,
        weight: &Parameter<Self>,
        bias: Option<&Parameter<Self>>,
        activation: Activation,
        residual: Option<&Matrix<Device>>,
    ) -> Result<Matrix<Device>, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let ((rows, inputs), (outputs, _)) = (shape(x), weight.shape());
        let input = self.copy(x);
        let mut out = vec![0.0; rows * outputs];
        {
            let (weight, bias) = (values(weight), bias.map(values));
            let bias = bias.as_deref().map_or(&[][..], Vec::as_slice);
            workers.run(|| {
                let parts = out.par_chunks_mut(ROWS * outputs).zip(input.par_chunks(ROWS * inputs));
                parts.for_each(|(out, input)| linear(isa, input, &weight, bias, inputs, out, rows <= ROWS));
            });
        }
        let mut before = workers.buffer(if activation == Activation::None { 0 } else { out.len() });
        if activation != Activation::None {
            before.copy_from_slice(&out);
            kernels::activate(isa, activation, &before, &mut out);
        }
        if let Some(residual) = residual {
            kernels::add(isa, &mut out, &self.copy(residual));
        }
        let (dx, dresidual) = (slot(x), residual.map(slot));
        let (weight, bias) = (weight.clone(), bias.cloned());
        self.record(tape, outputs, out, move |mut dy, tensors| {
            if let Some(dresidual) = dresidual {
                kernels::add(isa, dresidual(tensors)?, &dy);
            }
            if activation != Activation::None {
                let mut after = workers.buffer(dy.len());
                kernels::activate_backward(isa, activation, &mut before, &mut after);
                kernels::multiply(isa, &mut dy, &before);
            }
            let mut dweight = std::mem::take(parameter_slot(tensors, &weight)?);
            let mut dbias = match &bias {
                Some(bias) => std::mem::take(parameter_slot(tensors, bias)?),
                None => Vec::new(),
            };
            linear_gradients(isa, rows, &input, &dy, &mut dweight, &mut dbias);
            *parameter_slot(tensors, &weight)? = dweight;
            if let Some(bias) = &bias {
                *parameter_slot(tensors, bias)? = dbias;
            }
            let mut part = workers.buffer(rows * inputs);
            let weight = values(&weight);
            let (dy, weight) = (View::new(&dy, outputs), View::new(&weight, inputs));
            workers.run(|| kernels::product_spread(dy, weight, &mut part, COLUMNS));
            kernels::add(isa, dx(tensors)?, &part);
            Ok(())
        })
    }

    fn layer_norm<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Device>,
        gain: &Parameter<Self>,
        bias: &Parameter<Self>,
        eps: f32,
    ) -> Result<Matrix<Device>, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (rows, width) = shape(x);
        let input = self.copy(x);
        let (mut out, mut stats) = (vec![0.0; rows * width], workers.buffer(2 * rows));
        {
            let (gain, bias) = (values(gain), values(bias));
            workers.run(|| {
                let parts = input.par_chunks(ROWS * width).zip(out.par_chunks_mut(ROWS * width));
                parts.zip(stats.par_chunks_mut(2 * ROWS)).for_each(|((x, y), stats)| {
                    kernels::layer_norm(isa, x, &gain, &bias, eps, y, stats);
                });
            });
        }
        let (dx, gain, bias) = (slot(x), gain.clone(), bias.clone());
        self.record(tape, width, out, move |dy, tensors| {
            let dx = dx(tensors)?;
            let gains = values(&gain);
            let sums: Vec<(Vec<f32>, Vec<f32>)> = workers.run(|| {
                let parts = input.par_chunks(ROWS * width).zip(stats.par_chunks(2 * ROWS));
                let parts = parts.zip(dy.par_chunks(ROWS * width)).zip(dx.par_chunks_mut(ROWS * width));
                parts
                    .map(|(((x, stats), dy), dx)| {
                        let (mut dgain, mut dbias) = (vec![0.0; width], vec![0.0; width]);
                        kernels::layer_norm_backward(isa, x, stats, &gains, dy, dx, &mut dgain, &mut dbias);
                        (dgain, dbias)
                    })
                    .collect()
            });
            for (dgain, dbias) in sums {
                kernels::add(isa, parameter_slot(tensors, &gain)?, &dgain);
                kernels::add(isa, parameter_slot(tensors, &bias)?, &dbias);
            }
            Ok(())
        })
    }

    fn embed<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        table: &Parameter<Self>,
        ids: &[u32],
    ) -> Result<Matrix<Device>, Error> {
        let (isa, (_, width)) = (self.workers.isa(), table.shape());
        let mut out = vec![0.0; ids.len() * width];
        kernels::gather_rows(&values(table), width, ids, &mut out);
        let (table, ids) = (table.clone(), ids.to_vec());
        self.record(tape, width, out, move |dy, tensors| {
            kernels::scatter_rows(isa, parameter_slot(tensors, &table)?, width, &ids, &dy);
            Ok(())
        })
    }

    fn add_positions<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Device>,
        sequences: usize,
        class: Option<&Parameter<Self>>,
        positions: &Parameter<Self>,
    ) -> Result<Matrix<Device>, Error> {
        let isa = self.workers.isa();
        let (rows, width) = shape(x);
        let own = rows / sequences.max(1) * width;
        let before = if class.is_some() { width } else { 0 };
        let input = self.copy(x);
        let mut out = vec![0.0; sequences * (own + before)];
        {
            let (class, positions) = (class.map(values), values(positions));
            for (out, x) in out.chunks_exact_mut((own + before).max(1)).zip(input.chunks_exact(own.max(1))) {
                if let Some(class) = &class {
                    out[..width].copy_from_slice(class);
                }
                out[before..].copy_from_slice(x);
                kernels::add(isa, out, &positions[..own + before]);
            }
        }
        let (dx, class, positions) = (slot(x), class.cloned(), positions.clone());
        self.record(tape, width, out, move |dy, tensors| {
            for dy in dy.chunks_exact((own + before).max(1)) {
                kernels::add(isa, &mut parameter_slot(tensors, &positions)?[..own + before], dy);
                if let Some(class) = &class {
                    kernels::add(isa, parameter_slot(tensors, class)?, &dy[..width]);
                }
            }
            let dx = dx(tensors)?.chunks_exact_mut(own.max(1));
            for (dx, dy) in dx.zip(dy.chunks_exact((own + before).max(1))) {
                kernels::add(isa, dx, &dy[before..]);
            }
            Ok(())
        })
    }

    fn attention<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        qkv: &Matrix<Device>,
        attention: Attention,
    ) -> Result<Matrix<Device>, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (rows, columns) = shape(qkv);
        let width = columns / 3;
        let heads = heads(attention, width);
        let part = (ROWS / heads.tokens).max(1) * heads.tokens;
        let input = self.copy(qkv);
        let mut out = vec![0.0; rows * width];
        workers.run(|| {
            let parts = input.par_chunks(part * 3 * width).zip(out.par_chunks_mut(part * width));
            parts.for_each(|(qkv, out)| {
                let mut scratch = workers.buffer(kernels::attention_scratch(heads));
                kernels::attention(isa, heads, qkv, out, &mut scratch);
            });
        });
        let dqkv = slot(qkv);
        self.record(tape, width, out, move |dy, tensors| {
            let mut gradient = workers.buffer(rows * 3 * width);
            workers.run(|| {
                let parts = input.par_chunks(part * 3 * width).zip(dy.par_chunks(part * width));
                parts.zip(gradient.par_chunks_mut(part * 3 * width)).for_each(|((qkv, dy), gradient)| {
                    let mut scratch = workers.buffer(kernels::attention_scratch(heads));
                    kernels::attention_backward(isa, heads, qkv, dy, gradient, &mut scratch);
                });
            });
            kernels::add(isa, dqkv(tensors)?, &gradient);
            Ok(())
        })
    }

    fn rows<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Device>,
        rows: &[u32],
    ) -> Result<Matrix<Device>, Error> {
        let (isa, (_, width)) = (self.workers.isa(), shape(x));
        let mut out = vec![0.0; rows.len() * width];
        kernels::gather_rows(&self.copy(x), width, rows, &mut out);
        let (dx, rows) = (slot(x), rows.to_vec());
        self.record(tape, width, out, move |dy, tensors| {
            kernels::scatter_rows(isa, dx(tensors)?, width, &rows, &dy);
            Ok(())
        })
    }

    fn l2_normalize<T: Tape<f32, Device>>(&self, tape: &mut T, x: &Matrix<Device>) -> Result<Matrix<Device>, Error> {
        let isa = self.workers.isa();
        let (rows, width) = shape(x);
        let (mut out, mut lengths) = (vec![0.0; rows * width], self.workers.buffer(rows));
        kernels::l2_normalize(isa, &self.copy(x), &mut out, &mut lengths);
        let mut kept = self.workers.buffer(out.len());
        kept.copy_from_slice(&out);
        let dx = slot(x);
        self.record(tape, width, out, move |dy, tensors| {
            kernels::l2_normalize_backward(isa, &kept, &lengths, &dy, dx(tensors)?);
            Ok(())
        })
    }

    fn contrastive_loss<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        image: &Matrix<Device>,
        text: &Matrix<Device>,
        log_scale: &Parameter<Self>,
        true_pairs: Option<&[bool]>,
    ) -> Result<Matrix<Device>, Error> {
        let workers = &self.workers;
        let isa = workers.isa();
        let (n, width) = shape(image);
        let (mut dimage, mut dtext) = (workers.buffer(n * width), workers.buffer(n * width));
        let gradients = T::OWNS_TAPE.then_some((&mut *dimage, &mut *dtext));
        let mut scratch = workers.buffer(kernels::contrastive_scratch(n));
        let scale = values(log_scale)[0];
        let (images, texts) = (self.copy(image), self.copy(text));
        let found = kernels::contrastive(isa, &images, &texts, n, scale, true_pairs, gradients, &mut scratch);
        let (image, text, log_scale) = (slot(image), slot(text), log_scale.clone());
        self.record(tape, 1, vec![found.loss], move |dy, tensors| {
            let factor = dy[0];
            add_scaled(image(tensors)?, &dimage, factor);
            add_scaled(text(tensors)?, &dtext, factor);
            parameter_slot(tensors, &log_scale)?[0] += factor * found.dlog_scale;
            Ok(())
        })
    }

    fn convolutions<T, B>(
        &self,
        _: &mut T,
        x: &Matrix<Device>,
        layers: &[Layer<B>],
        sizes: &[Size],
    ) -> Result<Matrix<Device>, Error>
    where
        T: Tape<f32, Device>,
        B: Backend<Weight = Parameter<Self>, Param = Parameter<Self>>,
    {
        if T::OWNS_TAPE {
            return Err(Error::NoGradient { operation: "convolution" });
        }
        let Some(to) = sizes.last().filter(|_| !layers.is_empty()) else { return Ok(x.clone()) };
        let values = self.layers(self.copy(x), layers, sizes)?;
        matrix(&self.device, values.len() / to.channels, to.channels, values)
    }

    fn prepend_mean<T: Tape<f32, Device>>(
        &self,
        _: &mut T,
        x: &Matrix<Device>,
        sequences: usize,
    ) -> Result<Matrix<Device>, Error> {
        if T::OWNS_TAPE {
            return Err(Error::NoGradient { operation: "mean of sequences" });
        }
        let isa = self.workers.isa();
        let (rows, width) = shape(x);
        let own = rows / sequences.max(1) * width;
        let mut out = vec![0.0; sequences * (own + width)];
        for (out, x) in out.chunks_exact_mut((own + width).max(1)).zip(self.copy(x).chunks_exact(own.max(1))) {
            let (mean, after) = out.split_at_mut(width);
            kernels::add_columns(isa, mean, x);
            mean.iter_mut().for_each(|sum| *sum /= (own / width) as f32);
            after.copy_from_slice(x);
        }
        matrix(&self.device, out.len() / width, width, out)
    }

    fn transformer<T, B>(
        &self,
        tape: &mut T,
        x: &Matrix<Device>,
        blocks: &[Block<B>],
        attention: Attention,
        activation: Activation,
    ) -> Option<Result<Matrix<Device>, Error>>
    where
        T: Tape<f32, Device>,
        B: Backend<Weight = Parameter<Self>, Param = Parameter<Self>>,
    {
        let parameters: Arc<[_]> = blocks.iter().map(cpu_stack::BlockParameters::new).collect();
        Some(self.stack(tape, x, parameters, attention, activation))
    }
}

/// The attention of kernels.
pub(super) fn heads(attention: Attention, width: usize) -> Heads {
    let Attention { tokens, heads, causal } = attention;
    Heads { tokens, heads, width: width / heads, causal }
}

/// `x += factor·y`.
fn add_scaled(x: &mut [f32], y: &[f32], factor: f32) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += factor * y;
    }
}
