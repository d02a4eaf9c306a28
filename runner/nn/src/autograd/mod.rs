//! Backends over dfdx: its tensors, its tape, and on the CPU our kernels as operations on that tape.

mod cpu;
mod cpu_convolution;
mod cpu_stack;
mod operations;
mod session;
mod stock;

use std::{fmt::Display, sync::Arc};

pub use cpu::{Cpu, Host};
use dfdx::prelude::{NoneTape, Tape, Tensor};
pub use operations::Operations;
pub use session::{ParameterInfo, Recorded, Session, Step};
pub use stock::Stock;

use crate::{
    Activation, Attention, Backend, Block, Epilogue, Error, Layer, LayerNorm, Operation, Patches, Size, error::check,
};

/// The same models on a GPU, by dfdx's stock operations.
#[cfg(feature = "cuda")]
pub type Cuda = Stock<dfdx::prelude::Cuda>;

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

impl<O: Operations> Parameter<O> {
    /// `(rows, width)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.width)
    }

    /// The device's form of it.
    pub fn storage(&self) -> &Arc<O::Storage> {
        &self.storage
    }

    /// Fails unless this is one row of `width`.
    fn check_row(&self, operation: &'static str, width: usize) -> Result<(), Error> {
        check(operation, "rows of a parameter", self.rows, 1)?;
        check(operation, "width of a parameter", self.width, width)
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
pub(crate) fn failed(error: impl Display) -> Error {
    Error::Device(error.to_string())
}

/// Every index must be below `rows`.
fn check_indices(operation: &'static str, indices: &[u32], rows: usize) -> Result<(), Error> {
    match indices.iter().find(|index| **index as usize >= rows) {
        Some(index) => Err(Error::Index { operation, index: *index as usize, rows }),
        None => Ok(()),
    }
}

impl<O: Operations, R: Record<O>> Backend for Dfdx<O, R> {
    type Tensor = Matrix<O::Device>;
    type Weight = Parameter<O>;
    type Param = Parameter<O>;

    fn weight(&self, name: &str, outputs: usize, inputs: usize, values: Vec<f32>) -> Result<Parameter<O>, Error> {
        self.param(name, outputs, inputs, values)
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
        operations::matrix(self.operations.device(), rows, width, values)
    }

    fn values(&self, tensor: &Self::Tensor) -> Result<Vec<f32>, Error> {
        let mut values = vec![0.0; tensor_len(tensor)];
        tensor.copy_into(&mut values);
        Ok(values)
    }

    fn shape(&self, tensor: &Self::Tensor) -> (usize, usize) {
        operations::shape(tensor)
    }

    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Parameter<O>,
        epilogue: Epilogue<'_, Self>,
    ) -> Result<Self::Tensor, Error> {
        let (rows, inputs) = self.shape(x);
        check("linear", "width of the input", inputs, weight.width)?;
        if let Some(bias) = epilogue.bias {
            bias.check_row("linear", weight.rows)?;
        }
        if let Some(residual) = epilogue.residual {
            check("linear", "rows of the residual", self.shape(residual).0, rows)?;
            check("linear", "width of the residual", self.shape(residual).1, weight.rows)?;
        }
        let Epilogue { bias, activation, residual } = epilogue;
        self.record.with(|tape| self.operations.linear(tape, x, weight, bias, activation, residual))
    }

    fn layer_norm(&self, x: &Self::Tensor, norm: &LayerNorm<Self>) -> Result<Self::Tensor, Error> {
        let (_, width) = self.shape(x);
        norm.gain.check_row("layer norm", width)?;
        norm.bias.check_row("layer norm", width)?;
        self.record.with(|tape| self.operations.layer_norm(tape, x, &norm.gain, &norm.bias, norm.eps))
    }

    fn embed(&self, table: &Parameter<O>, ids: &[u32]) -> Result<Self::Tensor, Error> {
        check_indices("embedding", ids, table.rows)?;
        self.record.with(|tape| self.operations.embed(tape, table, ids))
    }

    fn patch_embed(
        &self,
        pixels: &[f32],
        patches: Patches,
        weight: &Parameter<O>,
        bias: Option<&Parameter<O>>,
    ) -> Result<Self::Tensor, Error> {
        let remainder = |side: usize| side.checked_rem(patches.size).unwrap_or(1);
        check("patch embedding", "remainder of the height by the patch size", remainder(patches.height), 0)?;
        check("patch embedding", "remainder of the width by the patch size", remainder(patches.width), 0)?;
        check("patch embedding", "inputs of the weight", weight.width, patches.patch_len())?;
        let remainder = pixels.len().checked_rem(patches.image_len()).unwrap_or(1);
        check("patch embedding", "remainder of the pixels by the image size", remainder, 0)?;
        if let Some(bias) = bias {
            bias.check_row("patch embedding", weight.rows)?;
        }
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
        let (rows, width) = self.shape(x);
        check("positions", "remainder of rows by sequences", rows.checked_rem(sequences).unwrap_or(rows), 0)?;
        check("positions", "width of the positions", positions.width, width)?;
        if let Some(class) = class {
            class.check_row("positions", width)?;
        }
        let tokens = rows.checked_div(sequences).unwrap_or(0) + usize::from(class.is_some());
        if tokens > positions.rows {
            return Err(Error::Index { operation: "positions", index: tokens - 1, rows: positions.rows });
        }
        self.record.with(|tape| self.operations.add_positions(tape, x, sequences, class, positions))
    }

    fn attention(&self, qkv: &Self::Tensor, attention: Attention) -> Result<Self::Tensor, Error> {
        let (rows, width) = self.shape(qkv);
        check("attention", "remainder of the width by 3", width % 3, 0)?;
        attention.head_width(rows, width / 3)?;
        self.record.with(|tape| self.operations.attention(tape, qkv, attention))
    }

    fn rows(&self, x: &Self::Tensor, rows: &[u32]) -> Result<Self::Tensor, Error> {
        check_indices("rows", rows, self.shape(x).0)?;
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
        let (n, width) = self.shape(image);
        check("contrastive loss", "rows of the text embeddings", self.shape(text).0, n)?;
        check("contrastive loss", "width of the text embeddings", self.shape(text).1, width)?;
        check("contrastive loss", "number of pairs", true_pairs.map_or(n * n, <[bool]>::len), n * n)?;
        log_scale.check_row("contrastive loss", 1)?;
        self.record.with(|tape| self.operations.contrastive_loss(tape, image, text, log_scale, true_pairs))
    }

    fn convolutions(&self, x: &Self::Tensor, size: Size, layers: &[Layer<Self>]) -> Result<Self::Tensor, Error> {
        let (rows, width) = self.shape(x);
        check("convolution", "channels of the pictures", width, size.channels)?;
        let remainder = rows.checked_rem(size.pixels()).unwrap_or(1);
        check("convolution", "remainder of rows by pixels of a picture", remainder, 0)?;
        let sizes = sizes(size, layers)?;
        self.record.with(|tape| self.operations.convolutions(tape, x, layers, &sizes))
    }

    fn prepend_mean(&self, x: &Self::Tensor, sequences: usize) -> Result<Self::Tensor, Error> {
        let (rows, _) = self.shape(x);
        check("mean of sequences", "remainder of rows by sequences", rows.checked_rem(sequences).unwrap_or(rows), 0)?;
        check("mean of sequences", "sequences without rows", if rows == 0 { sequences } else { 0 }, 0)?;
        self.record.with(|tape| self.operations.prepend_mean(tape, x, sequences))
    }

    fn transformer(
        &self,
        x: &Self::Tensor,
        blocks: &[Block<Self>],
        attention: Attention,
        activation: Activation,
    ) -> Result<Self::Tensor, Error> {
        let (rows, width) = self.shape(x);
        attention.head_width(rows, width)?;
        let hidden = blocks.first().map_or(0, |block| block.up.weight.rows);
        for block in blocks {
            check_block(block, width, hidden)?;
        }
        let whole = self.record.with(|tape| self.operations.transformer(tape, x, blocks, attention, activation));
        match whole {
            Some(whole) => whole,
            None => blocks.iter().try_fold(x.clone(), |x, block| self.block(&x, block, attention, activation)),
        }
    }
}

/// The sizes of the pictures and of each layer's result, whose parameters must fit.
fn sizes<O: Operations, R: Record<O>>(size: Size, layers: &[Layer<Dfdx<O, R>>]) -> Result<Vec<Size>, Error> {
    let mut sizes = vec![size];
    for layer in layers {
        let known = |result: usize| {
            let unknown = Error::Index { operation: "convolution", index: result, rows: sizes.len() };
            sizes.get(result).copied().ok_or(unknown)
        };
        let from = known(layer.input)?;
        let area = layer.window.size * layer.window.size;
        let after = match &layer.operation {
            Operation::Convolution { weight, bias, residual, .. } => {
                check("convolution", "inputs of a weight", weight.width, area * from.channels)?;
                bias.check_row("convolution", weight.rows)?;
                let after = from.after(layer.window, weight.rows)?;
                if let Some(residual) = residual {
                    known(*residual)?.check("size of a residual", after)?;
                }
                after
            }
            Operation::Depthwise { weight, bias, .. } => {
                check("convolution", "rows of a depthwise weight", weight.rows, area)?;
                check("convolution", "width of a depthwise weight", weight.width, from.channels)?;
                bias.check_row("convolution", from.channels)?;
                from.after(layer.window, from.channels)?
            }
            Operation::MaxPool | Operation::MeanPool => from.after(layer.window, from.channels)?,
        };
        sizes.push(after);
    }
    Ok(sizes)
}

/// The parameters of a block must fit its width and each other.
fn check_block<O: Operations, R: Record<O>>(
    block: &Block<Dfdx<O, R>>,
    width: usize,
    hidden: usize,
) -> Result<(), Error> {
    for norm in [&block.norm1, &block.norm2] {
        norm.gain.check_row("transformer", width)?;
        norm.bias.check_row("transformer", width)?;
    }
    let maps = [
        (&block.qkv, 3 * width, width),
        (&block.out, width, width),
        (&block.up, hidden, width),
        (&block.down, width, hidden),
    ];
    for (map, outputs, inputs) in maps {
        check("transformer", "outputs of a weight", map.weight.rows, outputs)?;
        check("transformer", "inputs of a weight", map.weight.width, inputs)?;
        if let Some(bias) = &map.bias {
            bias.check_row("transformer", outputs)?;
        }
    }
    Ok(())
}

/// Values in a matrix.
fn tensor_len<D: dfdx::prelude::Storage<f32>>(tensor: &Matrix<D>) -> usize {
    let (rows, width) = operations::shape(tensor);
    rows * width
}
