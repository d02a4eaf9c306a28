//! The operations of the CPU, one by one.

use std::sync::{Arc, PoisonError, RwLock};

use dfdx::prelude::{CpuError, Gradients, OwnedTape, PutTape, Tape, TensorFrom};
use dfdx::tensor_ops::Backward;
use rayon::prelude::*;

use super::{
    Activations, Cpu, Device, Host, Parameter, Tensors, failed, give, give_parameters, gradient, parameter_gradient,
    stack, values,
};
use crate::{
    Activation, Attention, Backend, Block, Error, Layer, Quantized, Shaped, Size,
    autograd::Operations,
    kernels::{self, Heads},
    pool::{Buffer, Workers},
};

/// Rows that one thread takes at a time.
pub(super) const ROWS: usize = 512;

impl Operations for Cpu {
    type Device = Device;
    type Tensor = Activations;
    type Storage = Host;

    fn new(threads: usize) -> Result<Self, Error> {
        Ok(Self::over(Workers::new(threads)?))
    }

    fn tensor(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Activations, Error> {
        Ok(Activations { values: Arc::new(self.workers.hold(values)), rows, width, gradient: None })
    }

    fn values(&self, tensor: &Activations) -> Vec<f32> {
        tensor.to_vec()
    }

    fn shape(&self, tensor: &Activations) -> (usize, usize) {
        (tensor.rows, tensor.width)
    }

    fn store(&self, _: usize, _: usize, values: Vec<f32>) -> Result<Host, Error> {
        Ok(Host { values: RwLock::new(values), gradient: self.handle()? })
    }

    fn read(&self, parameter: &Parameter<Self>) -> Vec<f32> {
        values(parameter).clone()
    }

    fn update(&self, parameters: &[&Parameter<Self>], change: &mut (dyn FnMut(&mut [&mut [f32]]) + Send)) {
        let lock = |parameter: &&Parameter<Self>| {
            let storage = Arc::clone(parameter.storage());
            std::mem::take(&mut *storage.values.write().unwrap_or_else(PoisonError::into_inner))
        };
        let mut all: Vec<Vec<f32>> = parameters.iter().map(lock).collect();
        let mut slices: Vec<&mut [f32]> = all.iter_mut().map(Vec::as_mut_slice).collect();
        self.workers.run(|| change(&mut slices));
        for (parameter, values) in parameters.iter().zip(all) {
            *parameter.storage().values.write().unwrap_or_else(PoisonError::into_inner) = values;
        }
    }

    fn backward(&self, mut tape: OwnedTape<f32, Device>, loss: &Activations) -> Result<Tensors, Error> {
        let (workers, handle) = (self.workers.clone(), loss.gradient.clone());
        tape.add_backward_op(move |tensors| match handle {
            Some(handle) => gradient(&workers, tensors, &handle, 1).map(|gradient| gradient.fill(1.0)),
            None => Ok(()),
        });
        self.device.tensor(0.0f32).put_tape(tape).try_backward().map_err(failed)
    }

    fn take_gradient(
        &self,
        parameter: &Parameter<Self>,
        gradients: &mut Gradients<f32, Device>,
    ) -> Result<Vec<f32>, Error> {
        Ok(std::mem::take(parameter_gradient(&self.workers, gradients, parameter).map_err(failed)?))
    }

    fn recycle(&self, gradients: Vec<Vec<f32>>) {
        gradients.into_iter().for_each(|gradient| drop(self.workers.adopt(gradient)));
    }

    fn linear<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Activations,
        weight: &Parameter<Self>,
        bias: Option<&Parameter<Self>>,
        activation: Activation,
        residual: Option<&Activations>,
    ) -> Result<Activations, Error> {
        self.map(tape, x, weight, bias, activation, residual)
    }

    fn layer_norm<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Activations,
        gain: &Parameter<Self>,
        bias: &Parameter<Self>,
        eps: f32,
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (rows, width) = (x.rows, x.width);
        let (mut out, mut stats) = (workers.buffer(rows * width), workers.buffer(2 * rows));
        {
            let (gain, bias) = (values(gain), values(bias));
            workers.run(|| {
                let parts = x.par_chunks(ROWS * width).zip(out.par_chunks_mut(ROWS * width));
                parts.zip(stats.par_chunks_mut(2 * ROWS)).for_each(|((x, y), stats)| {
                    kernels::layer_norm(isa, x, &gain, &bias, eps, y, stats);
                });
            });
        }
        let (x, gain, bias) = (x.clone(), gain.clone(), bias.clone());
        self.record(tape, rows, width, out, move |dy, tensors| {
            let mut dx = workers.zeros(rows * width);
            let sums: Vec<Vec<f32>> = workers.run(|| {
                let gains = values(&gain);
                let parts = x.par_chunks(ROWS * width).zip(stats.par_chunks(2 * ROWS));
                let parts = parts.zip(dy.par_chunks(ROWS * width)).zip(dx.par_chunks_mut(ROWS * width));
                parts
                    .map(|(((x, stats), dy), dx)| {
                        let mut sums = vec![0.0; 2 * width];
                        let (dgain, dbias) = sums.split_at_mut(width);
                        kernels::layer_norm_backward(isa, x, stats, &gains, dy, dx, dgain, dbias);
                        sums
                    })
                    .collect()
            });
            for sums in sums {
                give_parameters(&workers, tensors, [Some(&gain), Some(&bias)], &sums)?;
            }
            give_to(tensors, &x, dx)
        })
    }

    fn embed<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        table: &Parameter<Self>,
        ids: &[u32],
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let (isa, (_, width)) = (workers.isa(), table.shape());
        let mut out = workers.buffer(ids.len() * width);
        kernels::gather_rows(&values(table), width, ids, &mut out);
        let (table, ids) = (table.clone(), ids.to_vec());
        self.record(tape, ids.len(), width, out, move |dy, tensors| {
            kernels::scatter_rows(isa, parameter_gradient(&workers, tensors, &table)?, width, &ids, &dy);
            Ok(())
        })
    }

    fn add_positions<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Activations,
        sequences: usize,
        class: Option<&Parameter<Self>>,
        positions: &Parameter<Self>,
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let width = x.width;
        let own = x.rows / sequences.max(1) * width;
        let before = if class.is_some() { width } else { 0 };
        let whole = (own + before).max(1);
        let mut out = workers.buffer(sequences * (own + before));
        {
            let (class, positions) = (class.map(values), values(positions));
            let (class, positions) = (class.as_deref(), &positions[..own + before]);
            workers.run(|| {
                out.par_chunks_exact_mut(whole).zip(x.par_chunks_exact(own.max(1))).for_each(|(out, x)| {
                    if let Some(class) = class {
                        out[..width].copy_from_slice(class);
                    }
                    out[before..].copy_from_slice(x);
                    kernels::add(isa, out, positions);
                });
            });
        }
        let (x, class, positions) = (x.clone(), class.cloned(), positions.clone());
        let rows = out.len() / width;
        self.record(tape, rows, width, out, move |dy, tensors| {
            let sum = &mut parameter_gradient(&workers, tensors, &positions)?[..own + before];
            let mut dclass = workers.zeros(before);
            for dy in dy.chunks_exact(whole) {
                kernels::add(isa, sum, dy);
                kernels::add(isa, &mut dclass, &dy[..before]);
            }
            give_parameters(&workers, tensors, [class.as_ref()], &dclass)?;
            if x.gradient.is_none() || before == 0 {
                return give_to(tensors, &x, dy);
            }
            let mut dx = workers.buffer(x.len());
            for (dx, dy) in dx.chunks_exact_mut(own.max(1)).zip(dy.chunks_exact(whole)) {
                dx.copy_from_slice(&dy[before..]);
            }
            give_to(tensors, &x, dx)
        })
    }

    fn attention<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        qkv: &Activations,
        attention: Attention,
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (rows, width) = (qkv.rows, qkv.width / 3);
        let heads = heads(attention, width);
        let part = (ROWS / heads.tokens).max(1) * heads.tokens;
        let mut out = workers.buffer(rows * width);
        workers.run(|| {
            let parts = qkv.par_chunks(part * 3 * width).zip(out.par_chunks_mut(part * width));
            parts.for_each(|(qkv, out)| {
                let mut scratch = workers.buffer(kernels::attention_scratch(heads));
                kernels::attention(isa, heads, qkv, out, &mut scratch);
            });
        });
        let qkv = qkv.clone();
        self.record(tape, rows, width, out, move |dy, tensors| {
            let mut gradient = workers.buffer(rows * 3 * width);
            workers.run(|| {
                let parts = qkv.par_chunks(part * 3 * width).zip(dy.par_chunks(part * width));
                parts.zip(gradient.par_chunks_mut(part * 3 * width)).for_each(|((qkv, dy), gradient)| {
                    let mut scratch = workers.buffer(kernels::attention_scratch(heads));
                    kernels::attention_backward(isa, heads, qkv, dy, gradient, &mut scratch);
                });
            });
            give_to(tensors, &qkv, gradient)
        })
    }

    fn rows<T: Tape<f32, Device>>(&self, tape: &mut T, x: &Activations, rows: &[u32]) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let (isa, width) = (workers.isa(), x.width);
        let mut out = workers.buffer(rows.len() * width);
        kernels::gather_rows(x, width, rows, &mut out);
        let (x, rows) = (x.clone(), rows.to_vec());
        self.record(tape, rows.len(), width, out, move |dy, tensors| {
            let Some(handle) = &x.gradient else { return Ok(()) };
            kernels::scatter_rows(isa, gradient(&workers, tensors, handle, x.len())?, width, &rows, &dy);
            Ok(())
        })
    }

    fn l2_normalize<T: Tape<f32, Device>>(&self, tape: &mut T, x: &Activations) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (mut out, mut lengths) = (workers.buffer(x.len()), workers.buffer(x.rows));
        kernels::l2_normalize(isa, x, &mut out, &mut lengths);
        let x = x.clone();
        let (rows, width) = (x.rows, x.width);
        self.record(tape, rows, width, out, move |dy, tensors| {
            let (mut y, mut dx) = (workers.buffer(dy.len()), workers.zeros(dy.len()));
            kernels::l2_normalize(isa, &x, &mut y, &mut lengths);
            kernels::l2_normalize_backward(isa, &y, &lengths, &dy, &mut dx);
            give_to(tensors, &x, dx)
        })
    }

    fn contrastive_loss<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        image: &Activations,
        text: &Activations,
        log_scale: &Parameter<Self>,
        true_pairs: Option<&[bool]>,
    ) -> Result<Activations, Error> {
        self.contrastive(tape, image, text, log_scale, true_pairs)
    }

    fn cross_entropy<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        logits: &Activations,
        targets: &[u32],
        weights: Option<&[f32]>,
    ) -> Result<Activations, Error> {
        self.softmax_cross_entropy(tape, logits, targets, weights)
    }

    fn mean_squared_error<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Activations,
        target: &[f32],
    ) -> Result<Activations, Error> {
        self.squared_error(tape, x, target)
    }

    fn sum<T: Tape<f32, Device>>(&self, tape: &mut T, terms: &[(&Activations, f32)]) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let Some((first, _)) = terms.first() else { return Err(Error::Unsupported { operation: "a sum of nothing" }) };
        let (rows, width) = (first.rows, first.width);
        let mut out = workers.zeros(first.len());
        for (x, factor) in terms {
            kernels::add_scaled(workers.isa(), &mut out, x, *factor);
        }
        let terms: Vec<_> = terms.iter().map(|(x, factor)| (x.gradient.clone(), *factor)).collect();
        self.record(tape, rows, width, out, move |dy, tensors| {
            for (handle, factor) in terms {
                let Some(handle) = handle else { continue };
                let gradient = gradient(&workers, tensors, &handle, dy.len())?;
                kernels::add_scaled(workers.isa(), gradient, &dy, factor);
            }
            Ok(())
        })
    }

    fn quantize<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        z: &Activations,
        codebook: &Parameter<Self>,
        commitment: f32,
    ) -> Result<Quantized<Activations>, Error> {
        self.nearest_codes(tape, z, codebook, commitment)
    }

    fn convolutions<T, B>(
        &self,
        tape: &mut T,
        x: &Activations,
        layers: &[Layer<B>],
        sizes: &[Size],
    ) -> Result<Activations, Error>
    where
        T: Tape<f32, Device>,
        B: Backend<Weight = Parameter<Self>, Kernel = Parameter<Self>, Param = Parameter<Self>>,
    {
        self.network(tape, x, layers, sizes)
    }

    fn prepend_mean<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Activations,
        sequences: usize,
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let width = x.width;
        let own = x.rows / sequences.max(1) * width;
        let share = width as f32 / own as f32;
        let mut out = workers.zeros(sequences * (own + width));
        for (out, x) in out.chunks_exact_mut((own + width).max(1)).zip(x.chunks_exact(own.max(1))) {
            let (mean, after) = out.split_at_mut(width);
            kernels::add_columns(isa, mean, x);
            mean.iter_mut().for_each(|sum| *sum *= share);
            after.copy_from_slice(x);
        }
        let x = x.clone();
        self.record(tape, x.rows + sequences, width, out, move |mut dy, tensors| {
            let mut dx = workers.buffer(x.len());
            for (dx, dy) in dx.chunks_exact_mut(own.max(1)).zip(dy.chunks_exact_mut((own + width).max(1))) {
                let (mean, after) = dy.split_at_mut(width);
                mean.iter_mut().for_each(|value| *value *= share);
                dx.copy_from_slice(after);
                kernels::add_to_rows(isa, dx, mean);
            }
            give_to(tensors, &x, dx)
        })
    }

    fn transformer<T, B>(
        &self,
        tape: &mut T,
        x: &Activations,
        blocks: &[Block<B>],
        attention: Attention,
        activation: Activation,
    ) -> Option<Result<Activations, Error>>
    where
        T: Tape<f32, Device>,
        B: Backend<Weight = Parameter<Self>, Param = Parameter<Self>>,
    {
        let parameters: Arc<[_]> = blocks.iter().map(stack::BlockParameters::new).collect();
        Some(self.stack(tape, x, parameters, attention, activation))
    }
}

/// The attention of kernels.
pub(super) fn heads(attention: Attention, width: usize) -> Heads {
    let Attention { tokens, heads, causal } = attention;
    Heads { tokens, heads, width: width / heads, causal }
}

/// Adds to an activation's gradient, if one is wanted.
pub(super) fn give_to(tensors: &mut Tensors, x: &Activations, own: Buffer) -> Result<(), CpuError> {
    match &x.gradient {
        Some(handle) => give(tensors, handle, own),
        None => Ok(()),
    }
}
