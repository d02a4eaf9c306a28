//! What a model may ask of the machine: the operations of [`Backend`], and the parameter groups they take.
//!
//! A backend overrides what it can do faster (a whole [`Backend::transformer`] stack as one operation) and keeps
//! weights the way it likes them (packed, on a device). Training is a backend as well: its tensors record what was
//! done to them, and the session that owns the record computes the gradients. Models do not see it.

use crate::{Error, Layer, Size, Window, error::check, shapes};

/// What follows the product in a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `x·Φ(x)` with the exact Gaussian distribution function (`gelu` in Hugging Face configs).
    Gelu,
    /// `x·σ(1.702·x)`, which OpenAI's CLIP weights use (`quick_gelu`).
    QuickGelu,
    /// `x·σ(x)`, also called swish.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
}

/// Image geometry of a patch embedding: square patches that tile the image without overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patches {
    /// Channels of the image.
    pub channels: usize,
    /// Image height in pixels, a multiple of `size`.
    pub height: usize,
    /// Image width in pixels, a multiple of `size`.
    pub width: usize,
    /// Side of a patch in pixels.
    pub size: usize,
}

impl Patches {
    /// Patches in an image.
    pub fn count(&self) -> usize {
        (self.height / self.size) * (self.width / self.size)
    }

    /// Values in an image: `channels · height · width`.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Values in a patch, ordered channel, row, column: the inputs of the patch weight.
    pub fn patch_len(&self) -> usize {
        self.channels * self.size * self.size
    }
}

/// How the rows of a matrix attend to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Rows of one sequence; the matrix holds whole sequences one after another.
    pub tokens: usize,
    /// Attention heads; divides the width.
    pub heads: usize,
    /// Whether a row sees only itself and the rows before it.
    pub causal: bool,
}

/// A parameter, which knows its shape.
pub trait Shaped {
    /// `(rows, width)`; of the matrix of a linear map `(outputs, inputs)`.
    fn shape(&self) -> (usize, usize);
}

/// A linear map `x ↦ x·Wᵀ + b`.
pub struct Linear<B: Backend> {
    /// `[outputs, inputs]`.
    pub weight: B::Weight,
    /// `[1, outputs]`.
    pub bias: Option<B::Param>,
}

/// Layer normalisation over the width: `(x − mean)/√(variance + eps)·gain + bias`.
pub struct LayerNorm<B: Backend> {
    /// `[1, width]`.
    pub gain: B::Param,
    /// `[1, width]`.
    pub bias: B::Param,
    /// Added to the variance (1e-5 in CLIP).
    pub eps: f32,
}

/// A pre-norm transformer block: `x += out(attention(qkv(norm1 x)))`, then `x += down(activation(up(norm2 x)))`.
pub struct Block<B: Backend> {
    /// Before attention.
    pub norm1: LayerNorm<B>,
    /// `[3·width, width]`: the rows of the query, key and value projections, one after another.
    pub qkv: Linear<B>,
    /// `[width, width]`.
    pub out: Linear<B>,
    /// Before the feed-forward part.
    pub norm2: LayerNorm<B>,
    /// `[hidden, width]`.
    pub up: Linear<B>,
    /// `[width, hidden]`.
    pub down: Linear<B>,
}

/// What a linear map does to the product besides the weight, in this order.
pub struct Epilogue<'a, B: Backend> {
    /// Added to each row, `[1, outputs]`.
    pub bias: Option<&'a B::Param>,
    /// Applied to the sum.
    pub activation: Activation,
    /// Added last, `[rows, outputs]`.
    pub residual: Option<&'a B::Tensor>,
}

impl<B: Backend> Epilogue<'_, B> {
    /// The bare product.
    pub const NONE: Self = Self { bias: None, activation: Activation::None, residual: None };
}

/// What [`Backend::quantize`] makes of vectors.
pub struct Quantized<T> {
    /// For each row the nearest row of the codebook.
    pub codes: Vec<u32>,
    /// Those rows. In training their gradient goes to the vectors that were quantised, as if nothing had been done to them.
    pub values: T,
    /// `mean (e − z)² + commitment · mean (z − e)²`, `[1, 1]`: the first term trains the codebook, the second the encoder.
    pub loss: T,
}

/// A machine that computes models.
///
/// Every activation is an f32 matrix `[rows, width]` in row-major order. Operations check shapes and indices and never
/// panic on them. A backend is cheap to make; parameters outlive it and may be shared between threads.
pub trait Backend: Sized {
    /// An activation; cloning shares the values.
    type Tensor: Clone;
    /// The matrix of a linear map, prepared as the backend likes it.
    type Weight: Shaped + Clone;
    /// The matrix of a convolution, prepared for its window.
    type Kernel: Shaped + Clone;
    /// Any other parameter: a bias, a gain, an embedding table, a scalar.
    type Param: Shaped + Clone;

    /// Takes the matrix of a linear map, `[outputs, inputs]`; `name` as in the checkpoint.
    ///
    /// A training session learns its parameters, in order, from this, [`Backend::kernel`] and [`Backend::param`].
    fn weight(&self, name: &str, outputs: usize, inputs: usize, values: Vec<f32>) -> Result<Self::Weight, Error>;

    /// Takes the matrix of a convolution over pictures of `channels`, `[outputs, size · size · channels]`, for this window only.
    fn kernel(
        &self,
        name: &str,
        window: Window,
        outputs: usize,
        channels: usize,
        values: Vec<f32>,
    ) -> Result<Self::Kernel, Error>;

    /// Takes another parameter, `[rows, width]` (vectors are one row).
    fn param(&self, name: &str, rows: usize, width: usize, values: Vec<f32>) -> Result<Self::Param, Error>;

    /// An activation from values, at least one in a row; no gradient flows into it.
    fn tensor(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Self::Tensor, Error>;

    /// The values of an activation, row after row.
    fn values(&self, tensor: &Self::Tensor) -> Result<Vec<f32>, Error>;

    /// `(rows, width)` of an activation.
    fn shape(&self, tensor: &Self::Tensor) -> (usize, usize);

    /// `activation(x·Wᵀ + bias) + residual`: `[rows, inputs] → [rows, outputs]`.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Weight,
        epilogue: Epilogue<'_, Self>,
    ) -> Result<Self::Tensor, Error>;

    /// Normalises each row, see [`LayerNorm`].
    fn layer_norm(&self, x: &Self::Tensor, norm: &LayerNorm<Self>) -> Result<Self::Tensor, Error>;

    /// Rows of an embedding table: `[ids.len(), width]`.
    fn embed(&self, table: &Self::Param, ids: &[u32]) -> Result<Self::Tensor, Error>;

    /// Linear map of each patch of `[images, channels, height, width]` pixels: `[images · patches.count(), outputs]`,
    /// patches row by row. Equal to a convolution whose stride is its kernel, weight `[outputs, channels·size·size]`.
    fn patch_embed(
        &self,
        pixels: &[f32],
        patches: Patches,
        weight: &Self::Weight,
        bias: Option<&Self::Param>,
    ) -> Result<Self::Tensor, Error>;

    /// Puts the `[1, width]` row `class`, if any, before each sequence, then adds to row t of each sequence row t of
    /// `positions`. `x` holds `sequences` sequences of equal length; `positions` may have rows to spare.
    fn add_positions(
        &self,
        x: &Self::Tensor,
        sequences: usize,
        class: Option<&Self::Param>,
        positions: &Self::Param,
    ) -> Result<Self::Tensor, Error>;

    /// Multi-head attention, softmax(q·kᵀ/√(head width))·v: `[rows, 3·width] → [rows, width]`, columns q, k, v.
    fn attention(&self, qkv: &Self::Tensor, attention: Attention) -> Result<Self::Tensor, Error>;

    /// Some rows of the attention of `qkv·x`, in that order. A backend may leave out what they do not need.
    fn attention_rows(
        &self,
        x: &Self::Tensor,
        qkv: &Linear<Self>,
        attention: Attention,
        rows: &[u32],
    ) -> Result<Self::Tensor, Error> {
        self.rows(&self.attention(&qkv.apply(self, x)?, attention)?, rows)
    }

    /// The given rows, in that order (class tokens, end-of-text positions).
    fn rows(&self, x: &Self::Tensor, rows: &[u32]) -> Result<Self::Tensor, Error>;

    /// Each row divided by its Euclidean length; a row of zeros stays.
    fn l2_normalize(&self, x: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// CLIP's symmetric cross-entropy over all pairs of a batch, `[1, 1]`: the mean of `image → text` and
    /// `text → image`. `image` and `text` are `[n, width]`, normalised, row i of one belongs to row i of the other;
    /// `log_scale` is the `[1, 1]` logarithm of the factor on the similarities.
    ///
    /// `true_pairs`, `[n, n]` images by texts, says which texts are true of which images: off the diagonal such a pair is
    /// no negative and is left out of both softmaxes. Without it all n² − n other pairs are negatives.
    fn contrastive_loss(
        &self,
        image: &Self::Tensor,
        text: &Self::Tensor,
        log_scale: &Self::Param,
        true_pairs: Option<&[bool]>,
    ) -> Result<Self::Tensor, Error>;

    /// `Σ weightᵢ · (log Σ exp(logitsᵢ) − logitsᵢ[targetᵢ])` over the rows of `logits`, `[1, 1]`. Without weights each row has
    /// the same, and they sum to 1.
    fn cross_entropy(
        &self,
        _logits: &Self::Tensor,
        _targets: &[u32],
        _weights: Option<&[f32]>,
    ) -> Result<Self::Tensor, Error> {
        Err(Error::Unsupported { operation: "cross-entropy" })
    }

    /// The mean of `(x − target)²` over all values, `[1, 1]`; no gradient flows into the target.
    fn mean_squared_error(&self, _x: &Self::Tensor, _target: &[f32]) -> Result<Self::Tensor, Error> {
        Err(Error::Unsupported { operation: "mean squared error" })
    }

    /// The sum of tensors of one shape, each times its factor: for the terms of a loss.
    fn sum(&self, _terms: &[(&Self::Tensor, f32)]) -> Result<Self::Tensor, Error> {
        Err(Error::Unsupported { operation: "sum" })
    }

    /// Replaces each row of `z` by the nearest row of `codebook`, `[codes, width]`: the one with the smallest
    /// `‖z‖² + ‖e‖² − 2·z·e`, the first of equals (van den Oord et al. 2017, equations 1 to 3).
    fn quantize(
        &self,
        _z: &Self::Tensor,
        _codebook: &Self::Param,
        _commitment: f32,
    ) -> Result<Quantized<Self::Tensor>, Error> {
        Err(Error::Unsupported { operation: "quantisation" })
    }

    /// Runs a convolutional network over pictures, `[images · size.pixels(), size.channels]`, and gives its last layer's
    /// result, a row a pixel.
    fn convolutions(&self, x: &Self::Tensor, size: Size, layers: &[Layer<Self>]) -> Result<Self::Tensor, Error>;

    /// Puts the mean of each sequence's rows before it: `[sequences · t, width] → [sequences · (t + 1), width]`.
    fn prepend_mean(&self, x: &Self::Tensor, sequences: usize) -> Result<Self::Tensor, Error>;

    /// A stack of pre-norm blocks; `activation` is that of the feed-forward parts.
    fn transformer(
        &self,
        x: &Self::Tensor,
        blocks: &[Block<Self>],
        attention: Attention,
        activation: Activation,
    ) -> Result<Self::Tensor, Error> {
        blocks.iter().try_fold(x.clone(), |x, block| self.block(&x, block, attention, activation))
    }

    /// Some rows of what [`Backend::transformer`] gives, in that order. Where they are few, the last block computes no others
    /// behind its attention.
    fn transformer_rows(
        &self,
        x: &Self::Tensor,
        blocks: &[Block<Self>],
        attention: Attention,
        activation: Activation,
        rows: &[u32],
    ) -> Result<Self::Tensor, Error> {
        let Some((last, blocks)) = blocks.split_last().filter(|_| 2 * rows.len() <= self.shape(x).0) else {
            return self.rows(&self.transformer(x, blocks, attention, activation)?, rows);
        };
        let x = self.transformer(x, blocks, attention, activation)?;
        let mixed = self.attention_rows(&self.layer_norm(&x, &last.norm1)?, &last.qkv, attention, rows)?;
        self.finish_block(&mixed, &self.rows(&x, rows)?, last, activation)
    }

    /// Embeds sequences of the given lengths, one after another in `ids`: to row t of each is added row t of `positions`.
    fn embed_sequences(
        &self,
        table: &Self::Param,
        positions: &Self::Param,
        ids: &[u32],
        lengths: &[usize],
    ) -> Result<Self::Tensor, Error> {
        shapes::sequences(ids.len(), lengths)?;
        let padding = Padding::new(lengths);
        let padded: Vec<u32> = padding.padded.iter().map(|row| ids[*row as usize]).collect();
        let x = self.add_positions(&self.embed(table, &padded)?, lengths.len(), None, positions)?;
        if padding.is_needed { self.rows(&x, &padding.own) } else { Ok(x) }
    }

    /// As [`Backend::transformer_rows`], for sequences of the given lengths whose rows see only themselves and those before
    /// them.
    fn causal_transformer(
        &self,
        x: &Self::Tensor,
        lengths: &[usize],
        blocks: &[Block<Self>],
        heads: usize,
        activation: Activation,
        rows: &[u32],
    ) -> Result<Self::Tensor, Error> {
        shapes::sequences(self.shape(x).0, lengths)?;
        shapes::indices("rows", rows, self.shape(x).0)?;
        let padding = Padding::new(lengths);
        let attention = Attention { tokens: padding.tokens, heads, causal: true };
        if !padding.is_needed {
            return self.transformer_rows(x, blocks, attention, activation, rows);
        }
        let rows: Vec<u32> = rows.iter().map(|row| padding.own[*row as usize]).collect();
        self.transformer_rows(&self.rows(x, &padding.padded)?, blocks, attention, activation, &rows)
    }

    /// One block of [`Backend::transformer`].
    fn block(
        &self,
        x: &Self::Tensor,
        block: &Block<Self>,
        attention: Attention,
        activation: Activation,
    ) -> Result<Self::Tensor, Error> {
        let qkv = self.layer_norm(x, &block.norm1)?;
        let qkv = self.linear(&qkv, &block.qkv.weight, block.qkv.epilogue(Activation::None, None))?;
        self.finish_block(&self.attention(&qkv, attention)?, x, block, activation)
    }

    /// What a block does behind the attention: `mixed` is its result and `x` what the block read.
    fn finish_block(
        &self,
        mixed: &Self::Tensor,
        x: &Self::Tensor,
        block: &Block<Self>,
        activation: Activation,
    ) -> Result<Self::Tensor, Error> {
        let x = self.linear(mixed, &block.out.weight, block.out.epilogue(Activation::None, Some(x)))?;
        let hidden = self.layer_norm(&x, &block.norm2)?;
        let hidden = self.linear(&hidden, &block.up.weight, block.up.epilogue(activation, None))?;
        self.linear(&hidden, &block.down.weight, block.down.epilogue(Activation::None, Some(&x)))
    }
}

/// Sequences of different lengths, filled up to the longest with copies of their first row.
struct Padding {
    /// Rows of each sequence.
    tokens: usize,
    /// For each row of the padded sequences, which one it is of the others.
    padded: Vec<u32>,
    /// For each row of the others, its place among the padded ones.
    own: Vec<u32>,
    /// Whether the lengths differ.
    is_needed: bool,
}

impl Padding {
    fn new(lengths: &[usize]) -> Self {
        let tokens = lengths.iter().copied().max().unwrap_or(1);
        let is_needed = lengths.iter().any(|length| *length != tokens);
        let (mut padded, mut own, mut first) = (Vec::new(), Vec::new(), 0u32);
        for length in lengths {
            own.extend((0..*length).map(|token| (padded.len() + token) as u32));
            padded.extend((0..tokens).map(|token| first + if token < *length { token as u32 } else { 0 }));
            first += *length as u32;
        }
        Self { tokens, padded, own, is_needed }
    }
}

impl<B: Backend> Linear<B> {
    /// This map's bias with an activation and a residual.
    pub fn epilogue<'a>(&'a self, activation: Activation, residual: Option<&'a B::Tensor>) -> Epilogue<'a, B> {
        Epilogue { bias: self.bias.as_ref(), activation, residual }
    }

    /// The map alone: `[rows, inputs] → [rows, outputs]`.
    pub fn apply(&self, backend: &B, x: &B::Tensor) -> Result<B::Tensor, Error> {
        backend.linear(x, &self.weight, self.epilogue(Activation::None, None))
    }
}

impl Attention {
    /// The width of one head; fails where heads or tokens do not divide.
    pub(crate) fn head_width(&self, rows: usize, width: usize) -> Result<usize, Error> {
        check("attention", "remainder of rows by tokens", rows.checked_rem(self.tokens).unwrap_or(1), 0)?;
        check("attention", "remainder of width by heads", width.checked_rem(self.heads).unwrap_or(1), 0)?;
        Ok(width / self.heads)
    }
}
