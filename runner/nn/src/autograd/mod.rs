//! Backends over dfdx: its tensors, its tape, and on the CPU our kernels as operations on that tape.

mod cpu;
mod operations;
mod session;
mod stock;

use std::{fmt::Display, sync::Arc};

pub use cpu::{Activations, Cpu, Host};
use dfdx::prelude::{NoneTape, Tape, Tensor};
pub use operations::Operations;
pub use session::{ParameterInfo, Recorded, Session, Step};
pub use stock::Stock;

use crate::{
    Activation, Attention, Backend, Block, Epilogue, Error, Layer, LayerNorm, Patches, Quantized, Size, Window,
    backend::Shaped, error::check, gpu, shapes,
};

/// A matrix of dfdx.
pub type Matrix<D, T = NoneTape> = Tensor<(usize, usize), f32, D, T>;

/// Models on dfdx: by `O`'s operations, recorded or not as `R` says.
///
/// On the CPU the operations are [`Cpu`]: our kernels, a whole transformer stack at a time.
pub struct Dfdx<O: Operations, R = Unrecorded> {
    /// Computes.
    operations: O,
    /// Has the tape and, in training, the parameters.
    record: R,
}

/// A parameter on a device; clones share its values.
pub struct Parameter<O: Operations> {
    rows: usize,
    width: usize,
    storage: Arc<O::Storage>,
}

impl<O: Operations> Clone for Parameter<O> {
    fn clone(&self) -> Self {
        Self { rows: self.rows, width: self.width, storage: Arc::clone(&self.storage) }
    }
}

impl<O: Operations> Shaped for Parameter<O> {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.width)
    }
}

impl<O: Operations> Parameter<O> {
    /// The device's form of it.
    pub fn storage(&self) -> &Arc<O::Storage> {
        &self.storage
    }
}

/// Where operations leave what backward needs.
pub trait Record<O: Operations> {
    /// The tape of dfdx.
    type Tape: Tape<f32, O::Device>;

    /// Lends the tape to an operation.
    fn with<T>(&self, operation: impl FnOnce(&mut Self::Tape) -> T) -> T;

    /// Takes note of a new parameter.
    fn learn(&self, name: &str, parameter: &Parameter<O>);
}

/// Inference: nothing is recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unrecorded;

impl<O: Operations> Record<O> for Unrecorded {
    type Tape = NoneTape;

    fn with<T>(&self, operation: impl FnOnce(&mut NoneTape) -> T) -> T {
        operation(&mut NoneTape)
    }

    fn learn(&self, _: &str, _: &Parameter<O>) {}
}

impl<O: Operations> Dfdx<O> {
    /// A backend for inference with at most `threads` threads.
    pub fn inference(threads: usize) -> Result<Self, Error> {
        Ok(Self { operations: O::new(threads)?, record: Unrecorded })
    }

    /// As [`Dfdx::inference`], over operations that were made otherwise.
    pub fn inference_over(operations: O) -> Self {
        Self { operations, record: Unrecorded }
    }
}

/// A failure of the device as ours.
pub(crate) fn failed<E: Display + 'static>(error: E) -> Error {
    if gpu::is_full(&error) { Error::OutOfMemory } else { Error::Device(error.to_string()) }
}

impl<O: Operations, R: Record<O>> Backend for Dfdx<O, R> {
    type Tensor = O::Tensor;
    type Weight = Parameter<O>;
    type Kernel = Parameter<O>;
    type Param = Parameter<O>;

    fn weight(&self, name: &str, outputs: usize, inputs: usize, values: Vec<f32>) -> Result<Parameter<O>, Error> {
        self.param(name, outputs, inputs, values)
    }

    fn kernel(
        &self,
        name: &str,
        window: Window,
        outputs: usize,
        channels: usize,
        values: Vec<f32>,
    ) -> Result<Parameter<O>, Error> {
        self.param(name, outputs, window.size * window.size * channels, values)
    }

    fn param(&self, name: &str, rows: usize, width: usize, values: Vec<f32>) -> Result<Parameter<O>, Error> {
        if values.len() != rows * width || values.is_empty() {
            return Err(Error::ParameterSize { name: name.to_owned(), rows, width, found: values.len() });
        }
        let storage = Arc::new(self.operations.store(rows, width, values)?);
        let parameter = Parameter { rows, width, storage };
        self.record.learn(name, &parameter);
        Ok(parameter)
    }

    fn tensor(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Self::Tensor, Error> {
        check("tensor", "width", width, width.max(1))?;
        check("tensor", "number of values", values.len(), rows * width)?;
        self.operations.tensor(rows, width, values)
    }

    fn values(&self, tensor: &Self::Tensor) -> Result<Vec<f32>, Error> {
        Ok(self.operations.values(tensor))
    }

    fn shape(&self, tensor: &Self::Tensor) -> (usize, usize) {
        self.operations.shape(tensor)
    }

    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Parameter<O>,
        epilogue: Epilogue<'_, Self>,
    ) -> Result<Self::Tensor, Error> {
        shapes::linear(self.shape(x), weight, &epilogue, self)?;
        let Epilogue { bias, activation, residual } = epilogue;
        self.record.with(|tape| self.operations.linear(tape, x, weight, bias, activation, residual))
    }

    fn layer_norm(&self, x: &Self::Tensor, norm: &LayerNorm<Self>) -> Result<Self::Tensor, Error> {
        shapes::layer_norm("layer norm", self.shape(x).1, norm)?;
        self.record.with(|tape| self.operations.layer_norm(tape, x, &norm.gain, &norm.bias, norm.eps))
    }

    fn embed(&self, table: &Parameter<O>, ids: &[u32]) -> Result<Self::Tensor, Error> {
        shapes::indices("embedding", ids, table.rows)?;
        self.record.with(|tape| self.operations.embed(tape, table, ids))
    }

    fn patch_embed(
        &self,
        pixels: &[f32],
        patches: Patches,
        weight: &Parameter<O>,
        bias: Option<&Parameter<O>>,
    ) -> Result<Self::Tensor, Error> {
        shapes::patch_embed::<Self>(pixels, patches, weight, bias)?;
        let mut rows = vec![0.0; pixels.len()];
        crate::kernels::patch_rows(pixels, patches, &mut rows);
        let rows = self.tensor(pixels.len() / patches.patch_len(), patches.patch_len(), rows)?;
        self.record.with(|tape| self.operations.linear(tape, &rows, weight, bias, Activation::None, None))
    }

    fn add_positions(
        &self,
        x: &Self::Tensor,
        sequences: usize,
        class: Option<&Parameter<O>>,
        positions: &Parameter<O>,
    ) -> Result<Self::Tensor, Error> {
        shapes::add_positions(self.shape(x), sequences, class, positions)?;
        self.record.with(|tape| self.operations.add_positions(tape, x, sequences, class, positions))
    }

    fn attention(&self, qkv: &Self::Tensor, attention: Attention) -> Result<Self::Tensor, Error> {
        shapes::attention(self.shape(qkv), attention)?;
        self.record.with(|tape| self.operations.attention(tape, qkv, attention))
    }

    fn rows(&self, x: &Self::Tensor, rows: &[u32]) -> Result<Self::Tensor, Error> {
        shapes::indices("rows", rows, self.shape(x).0)?;
        self.record.with(|tape| self.operations.rows(tape, x, rows))
    }

    fn l2_normalize(&self, x: &Self::Tensor) -> Result<Self::Tensor, Error> {
        self.record.with(|tape| self.operations.l2_normalize(tape, x))
    }

    fn contrastive_loss(
        &self,
        image: &Self::Tensor,
        text: &Self::Tensor,
        log_scale: &Parameter<O>,
        true_pairs: Option<&[bool]>,
    ) -> Result<Self::Tensor, Error> {
        shapes::contrastive_loss(self.shape(image), self.shape(text), log_scale, true_pairs)?;
        self.record.with(|tape| self.operations.contrastive_loss(tape, image, text, log_scale, true_pairs))
    }

    fn cross_entropy(
        &self,
        logits: &Self::Tensor,
        targets: &[u32],
        weights: Option<&[f32]>,
    ) -> Result<Self::Tensor, Error> {
        shapes::cross_entropy(self.shape(logits), targets, weights)?;
        self.record.with(|tape| self.operations.cross_entropy(tape, logits, targets, weights))
    }

    fn mean_squared_error(&self, x: &Self::Tensor, target: &[f32]) -> Result<Self::Tensor, Error> {
        let (rows, width) = self.shape(x);
        check("mean squared error", "number of values of the target", target.len(), rows * width)?;
        self.record.with(|tape| self.operations.mean_squared_error(tape, x, target))
    }

    fn sum(&self, terms: &[(&Self::Tensor, f32)]) -> Result<Self::Tensor, Error> {
        shapes::sum(&terms.iter().map(|(term, _)| self.shape(term)).collect::<Vec<_>>())?;
        self.record.with(|tape| self.operations.sum(tape, terms))
    }

    fn quantize(
        &self,
        z: &Self::Tensor,
        codebook: &Parameter<O>,
        commitment: f32,
    ) -> Result<Quantized<Self::Tensor>, Error> {
        check("quantisation", "width of the codebook", codebook.width, self.shape(z).1)?;
        self.record.with(|tape| self.operations.quantize(tape, z, codebook, commitment))
    }

    fn convolutions(&self, x: &Self::Tensor, size: Size, layers: &[Layer<Self>]) -> Result<Self::Tensor, Error> {
        let sizes = shapes::convolutions(self.shape(x), size, layers)?;
        self.record.with(|tape| self.operations.convolutions(tape, x, layers, &sizes))
    }

    fn prepend_mean(&self, x: &Self::Tensor, sequences: usize) -> Result<Self::Tensor, Error> {
        shapes::prepend_mean(self.shape(x).0, sequences)?;
        self.record.with(|tape| self.operations.prepend_mean(tape, x, sequences))
    }

    fn transformer(
        &self,
        x: &Self::Tensor,
        blocks: &[Block<Self>],
        attention: Attention,
        activation: Activation,
    ) -> Result<Self::Tensor, Error> {
        shapes::transformer(self.shape(x), blocks, attention)?;
        let whole = self.record.with(|tape| self.operations.transformer(tape, x, blocks, attention, activation));
        match whole {
            Some(whole) => whole,
            None => blocks.iter().try_fold(x.clone(), |x, block| self.block(&x, block, attention, activation)),
        }
    }
}
