//! The CPU: our kernels as operations on dfdx's tape.
//!
//! Activations and parameters are ours; dfdx keeps the tape and, under a handle for each, the gradients. So nothing is
//! copied on the way in or out of an operation.

mod convolution;
mod linear;
mod losses;
mod operations;
mod stack;

use std::{
    ops::Deref,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use dfdx::prelude::{CpuError, Gradients, Tape, Tensor, TensorFromVec};

use super::{Parameter, failed};
use crate::{
    Error, Shaped, kernels,
    pool::{Buffer, Workers},
};

/// The device of dfdx.
type Device = dfdx::prelude::Cpu;
/// The gradients of dfdx.
type Tensors = Gradients<f32, Device>;
/// Names a gradient on the tape. It has no values: a gradient that nothing has been added to yet is empty.
type Handle = Tensor<(usize,), f32, Device>;

/// Kernels on the CPU; see [`Operations`](super::Operations).
pub struct Cpu {
    workers: Workers,
    device: Device,
}

/// A parameter in memory, once: kernels read it where it lies.
pub struct Host {
    values: RwLock<Vec<f32>>,
    gradient: Handle,
}

/// An activation in memory; clones share it.
#[derive(Clone)]
pub struct Activations {
    values: Arc<Buffer>,
    rows: usize,
    width: usize,
    /// None where no gradient is wanted: for what is given, and in inference.
    gradient: Option<Handle>,
}

impl Deref for Activations {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl Cpu {
    /// Kernels on the given threads.
    pub fn over(workers: Workers) -> Self {
        Self { workers, device: Device::default() }
    }

    fn handle(&self) -> Result<Handle, Error> {
        self.device.try_tensor_from_vec(Vec::new(), (0,)).map_err(failed)
    }

    /// Makes the result of an operation, a matrix of the given width, and leaves its `backward`, which gets the result's
    /// gradient, on the tape.
    fn record<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        rows: usize,
        width: usize,
        values: Buffer,
        backward: impl FnOnce(Buffer, &mut Tensors) -> Result<(), CpuError> + 'static,
    ) -> Result<Activations, Error> {
        let values = Arc::new(values);
        if !T::OWNS_TAPE {
            return Ok(Activations { values, rows, width, gradient: None });
        }
        let (workers, gradient, len) = (self.workers.clone(), self.handle()?, values.len());
        let handle = gradient.clone();
        tape.add_backward_op(move |tensors| {
            let dy = std::mem::take(&mut **tensors.get_or_alloc_mut(&handle)?);
            // Nothing that the loss is made of.
            if dy.len() != len || len == 0 {
                return Ok(());
            }
            backward(workers.adopt(dy), tensors)
        });
        Ok(Activations { values, rows, width, gradient: Some(gradient) })
    }
}

/// A parameter's values.
fn values(parameter: &Parameter<Cpu>) -> RwLockReadGuard<'_, Vec<f32>> {
    parameter.storage().values.read().unwrap_or_else(PoisonError::into_inner)
}

/// Adds to the gradient behind a handle.
fn give(tensors: &mut Tensors, handle: &Handle, own: Buffer) -> Result<(), CpuError> {
    let gradient = &mut **tensors.get_or_alloc_mut(handle)?;
    if gradient.is_empty() {
        *gradient = own.into_vec();
    } else {
        kernels::add(own.workers().isa(), gradient, &own);
    }
    Ok(())
}

/// The gradient behind a handle, of `len` values, to be added to.
fn gradient<'a>(
    workers: &Workers,
    tensors: &'a mut Tensors,
    handle: &Handle,
    len: usize,
) -> Result<&'a mut Vec<f32>, CpuError> {
    let gradient = &mut **tensors.get_or_alloc_mut(handle)?;
    if gradient.len() != len {
        *gradient = workers.zeros(len).into_vec();
    }
    Ok(gradient)
}

/// The gradient of a parameter, to be added to.
fn parameter_gradient<'a>(
    workers: &Workers,
    tensors: &'a mut Tensors,
    parameter: &Parameter<Cpu>,
) -> Result<&'a mut Vec<f32>, CpuError> {
    let (rows, width) = parameter.shape();
    gradient(workers, tensors, &parameter.storage().gradient, rows * width)
}

/// Adds gradients that lie one after another to those of the parameters; a missing parameter has none.
fn give_parameters<'a>(
    workers: &Workers,
    tensors: &mut Tensors,
    parameters: impl IntoIterator<Item = Option<&'a Parameter<Cpu>>>,
    own: &[f32],
) -> Result<(), CpuError> {
    let mut rest = own;
    for parameter in parameters.into_iter().flatten() {
        let (rows, width) = parameter.shape();
        let (own, after) = rest.split_at(rows * width);
        let gradient = &mut **tensors.get_or_alloc_mut(&parameter.storage().gradient)?;
        if gradient.is_empty() {
            let mut copy = workers.buffer(own.len());
            copy.copy_from_slice(own);
            *gradient = copy.into_vec();
        } else {
            kernels::add(workers.isa(), gradient, own);
        }
        rest = after;
    }
    Ok(())
}
