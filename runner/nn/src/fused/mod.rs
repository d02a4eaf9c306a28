//! CPU inference: weights arranged once, everything else fused round the matrix products, buffers reused.
//!
//! A row of a result depends on its own sequence or picture alone, down to the last bit: not on what is computed beside it,
//! nor on the number of threads.

mod convolution;
mod stack;

use std::{ops::Deref, sync::Arc};

use crate::{
    Activation, Attention, Backend, Block, Epilogue, Error, Layer, LayerNorm, Linear, Patches, Shaped, Size, Window,
    error::check,
    kernel::Kernel,
    kernels::{self, Added, Finish, Left, Lines, Packed, Taps, Windows, Winograd},
    pool::{Buffer, Workers},
    shapes,
};

/// Values that one thread takes at a time where each is little work.
const VALUES: usize = 1 << 15;

/// Inference on the CPU.
pub struct Fused {
    workers: Workers,
    /// Parameters are taken by their shapes alone.
    outline: bool,
}

/// An activation of [`Fused`]; clones share its values.
#[derive(Clone)]
pub struct Values(Arc<Matrix>);

struct Matrix {
    rows: usize,
    width: usize,
    values: Buffer,
}

/// The matrix of a linear map of [`Fused`]; clones share it.
#[derive(Clone)]
pub struct PackedWeight(Arc<Packed>);

/// The matrix of a convolution of [`Fused`]; clones share it.
#[derive(Clone)]
pub struct PackedKernel(Arc<Kernel>);

/// A parameter of [`Fused`] that is read as it is; clones share its values.
#[derive(Clone)]
pub struct PlainParam {
    rows: usize,
    width: usize,
    values: Arc<Vec<f32>>,
}

impl Fused {
    /// With at most `threads` threads.
    pub fn new(threads: usize) -> Result<Self, Error> {
        Ok(Self::over(Workers::new(threads)?))
    }

    /// On the given threads. Weights fit only backends of the same instruction set.
    pub fn over(workers: Workers) -> Self {
        Self { workers, outline: false }
    }

    /// Where it computes.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Takes parameters by their shapes alone, whatever their values: to see what a network is made of before values are
    /// read. Such a network computes nothing.
    pub fn outline() -> Result<Self, Error> {
        Ok(Self { outline: true, ..Self::new(1)? })
    }

    fn result(&self, rows: usize, width: usize, values: Buffer) -> Values {
        Values(Arc::new(Matrix { rows, width, values }))
    }

    /// `finish(left · weightᵀ)` on all threads.
    fn product(&self, left: Left<'_>, weight: &PackedWeight, finish: Finish<'_>) -> Values {
        let weight = &*weight.0;
        let (outputs, inputs) = weight.shape();
        let rows = left.rows(inputs);
        let mut out = self.workers.buffer(rows * outputs);
        let parts = self.workers.parts(rows, weight.panels());
        self.workers.run(|| kernels::linear_spread(left, weight, 0..weight.panels(), finish, parts, &mut out));
        self.result(rows, outputs, out)
    }
}

impl Shaped for PackedWeight {
    fn shape(&self) -> (usize, usize) {
        self.0.shape()
    }
}

impl Shaped for PackedKernel {
    fn shape(&self) -> (usize, usize) {
        self.0.shape()
    }
}

impl Shaped for PlainParam {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.width)
    }
}

impl Deref for PlainParam {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl Deref for Values {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0.values
    }
}

/// A bias, or nothing.
fn bias(bias: Option<&PlainParam>) -> &[f32] {
    bias.map_or(&[], |bias| bias)
}

impl Backend for Fused {
    type Tensor = Values;
    type Weight = PackedWeight;
    type Kernel = PackedKernel;
    type Param = PlainParam;

    fn weight(&self, name: &str, outputs: usize, inputs: usize, values: Vec<f32>) -> Result<PackedWeight, Error> {
        let isa = self.workers.isa();
        if self.outline {
            return Ok(PackedWeight(Arc::new(Packed::outline(isa, outputs, inputs))));
        }
        check_parameter(name, outputs, inputs, values.len())?;
        Ok(PackedWeight(Arc::new(self.workers.run(|| Packed::new(isa, outputs, inputs, &values)))))
    }

    fn kernel(
        &self,
        name: &str,
        window: Window,
        outputs: usize,
        channels: usize,
        values: Vec<f32>,
    ) -> Result<PackedKernel, Error> {
        let (isa, inputs) = (self.workers.isa(), window.size * window.size * channels);
        if self.outline {
            return Ok(PackedKernel(Arc::new(Kernel::Direct(Packed::outline(isa, outputs, inputs)))));
        }
        check_parameter(name, outputs, inputs, values.len())?;
        let kernel = self.workers.run(|| match Winograd::<Lines>::suits(window, channels, outputs) {
            true => Kernel::Winograd(Winograd::new(isa, outputs, channels, &values)),
            false => Kernel::Direct(Packed::new(isa, outputs, inputs, &values)),
        });
        Ok(PackedKernel(Arc::new(kernel)))
    }

    fn param(&self, name: &str, rows: usize, width: usize, values: Vec<f32>) -> Result<PlainParam, Error> {
        if !self.outline {
            check_parameter(name, rows, width, values.len())?;
        }
        Ok(PlainParam { rows, width, values: Arc::new(values) })
    }

    fn tensor(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Values, Error> {
        check("tensor", "width", width, width.max(1))?;
        check("tensor", "number of values", values.len(), rows * width)?;
        let mut own = self.workers.buffer(values.len());
        own.copy_from_slice(&values);
        Ok(self.result(rows, width, own))
    }

    fn values(&self, tensor: &Values) -> Result<Vec<f32>, Error> {
        Ok(tensor.to_vec())
    }

    fn shape(&self, tensor: &Values) -> (usize, usize) {
        (tensor.0.rows, tensor.0.width)
    }

    fn linear(&self, x: &Values, weight: &PackedWeight, epilogue: Epilogue<'_, Self>) -> Result<Values, Error> {
        shapes::linear(self.shape(x), weight, &epilogue, self)?;
        let Epilogue { bias: own, activation, residual } = epilogue;
        // The kernel adds before the activation, which is the same only where there is none.
        let (inside, behind) = if activation == Activation::None { (residual, None) } else { (None, residual) };
        let added = inside.map_or(Added::Nothing, |residual| Added::Matrix(residual));
        let product = self.product(Left::Rows(x), weight, Finish { bias: bias(own), added, activation });
        let Some(behind) = behind else { return Ok(product) };
        let mut out = self.workers.buffer(product.len());
        out.copy_from_slice(&product);
        kernels::add(self.workers.isa(), &mut out, behind);
        Ok(self.result(product.0.rows, product.0.width, out))
    }

    fn layer_norm(&self, x: &Values, norm: &LayerNorm<Self>) -> Result<Values, Error> {
        let (rows, width) = self.shape(x);
        shapes::layer_norm("layer norm", width, norm)?;
        let (isa, part) = (self.workers.isa(), (VALUES / width).max(1));
        let mut out = self.workers.buffer(rows * width);
        self.workers.chunks(&mut out, part * width, |i, out| {
            let mut stats = self.workers.buffer(2 * out.len() / width);
            let x = &x[i * part * width..][..out.len()];
            kernels::layer_norm(isa, x, &norm.gain, &norm.bias, norm.eps, out, &mut stats);
        });
        Ok(self.result(rows, width, out))
    }

    fn embed(&self, table: &PlainParam, ids: &[u32]) -> Result<Values, Error> {
        shapes::indices("embedding", ids, table.rows)?;
        let mut out = self.workers.buffer(ids.len() * table.width);
        kernels::gather_rows(table, table.width, ids, &mut out);
        Ok(self.result(ids.len(), table.width, out))
    }

    fn patch_embed(
        &self,
        pixels: &[f32],
        patches: Patches,
        weight: &PackedWeight,
        bias_: Option<&PlainParam>,
    ) -> Result<Values, Error> {
        shapes::patch_embed::<Self>(pixels, patches, weight, bias_)?;
        let windows = Windows::new(&Taps::patches(patches));
        Ok(self.product(Left::Windows(&windows, pixels), weight, Finish { bias: bias(bias_), ..Finish::NOTHING }))
    }

    fn add_positions(
        &self,
        x: &Values,
        sequences: usize,
        class: Option<&PlainParam>,
        positions: &PlainParam,
    ) -> Result<Values, Error> {
        shapes::add_positions(self.shape(x), sequences, class, positions)?;
        let (rows, width) = self.shape(x);
        let own = rows / sequences.max(1) * width;
        let whole = own + class.map_or(0, |class| class.len());
        let mut out = self.workers.buffer(sequences * whole);
        for (out, x) in out.chunks_exact_mut(whole.max(1)).zip(x.chunks_exact(own.max(1))) {
            let (first, rest) = out.split_at_mut(whole - own);
            first.copy_from_slice(class.map_or(&[], |class| class));
            rest.copy_from_slice(x);
            kernels::add(self.workers.isa(), out, &positions[..whole]);
        }
        Ok(self.result(out.len() / width, width, out))
    }

    fn embed_sequences(
        &self,
        table: &PlainParam,
        positions: &PlainParam,
        ids: &[u32],
        lengths: &[usize],
    ) -> Result<Values, Error> {
        shapes::sequences(ids.len(), lengths)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        shapes::add_positions((longest, table.width), 1, None, positions)?;
        let x = self.embed(table, ids)?;
        let mut out = self.workers.buffer(x.len());
        out.copy_from_slice(&x);
        let mut rest = &mut *out;
        for length in lengths {
            let (own, after) = rest.split_at_mut(length * table.width);
            kernels::add(self.workers.isa(), own, &positions[..own.len()]);
            rest = after;
        }
        Ok(self.result(ids.len(), table.width, out))
    }

    fn attention(&self, qkv: &Values, attention: Attention) -> Result<Values, Error> {
        shapes::attention(self.shape(qkv), attention)?;
        let (rows, width) = (qkv.0.rows, qkv.0.width / 3);
        let Attention { tokens, heads, causal } = attention;
        let shape = kernels::Heads { tokens, heads, width: width / heads, causal };
        let mut out = self.workers.buffer(rows * width);
        self.workers.chunks(&mut out, tokens * width, |i, out| {
            let mut scratch = self.workers.buffer(kernels::attention_scratch(shape));
            kernels::attention(
                self.workers.isa(),
                shape,
                &qkv[i * tokens * 3 * width..][..3 * out.len()],
                out,
                &mut scratch,
            );
        });
        Ok(self.result(rows, width, out))
    }

    fn attention_rows(
        &self,
        x: &Values,
        qkv: &Linear<Self>,
        attention: Attention,
        rows: &[u32],
    ) -> Result<Values, Error> {
        shapes::linear(self.shape(x), &qkv.weight, &qkv.epilogue(Activation::None, None), self)?;
        shapes::attention((x.0.rows, qkv.weight.shape().0), attention)?;
        shapes::indices("rows", rows, x.0.rows)?;
        check("attention", "width of the queries", qkv.weight.shape().0 / 3, x.0.width)?;
        Ok(stack::attention_rows(&self.workers, x, qkv, attention, rows))
    }

    fn rows(&self, x: &Values, rows: &[u32]) -> Result<Values, Error> {
        shapes::indices("rows", rows, x.0.rows)?;
        let mut out = self.workers.buffer(rows.len() * x.0.width);
        kernels::gather_rows(x, x.0.width, rows, &mut out);
        Ok(self.result(rows.len(), x.0.width, out))
    }

    fn l2_normalize(&self, x: &Values) -> Result<Values, Error> {
        let (mut out, mut lengths) = (self.workers.buffer(x.len()), self.workers.buffer(x.0.rows));
        kernels::l2_normalize(self.workers.isa(), x, &mut out, &mut lengths);
        Ok(self.result(x.0.rows, x.0.width, out))
    }

    fn contrastive_loss(
        &self,
        image: &Values,
        text: &Values,
        log_scale: &PlainParam,
        true_pairs: Option<&[bool]>,
    ) -> Result<Values, Error> {
        shapes::contrastive_loss(self.shape(image), self.shape(text), log_scale, true_pairs)?;
        let (isa, n) = (self.workers.isa(), image.0.rows);
        let mut scratch = self.workers.buffer(kernels::contrastive_scratch(n));
        let found = kernels::contrastive(isa, image, text, n, log_scale[0], true_pairs, None, &mut scratch);
        self.tensor(1, 1, vec![found.loss])
    }

    fn convolutions(&self, x: &Values, size: Size, layers: &[Layer<Self>]) -> Result<Values, Error> {
        let sizes = shapes::convolutions(self.shape(x), size, layers)?;
        convolution::run(self, x, layers, &sizes)
    }

    fn prepend_mean(&self, x: &Values, sequences: usize) -> Result<Values, Error> {
        shapes::prepend_mean(x.0.rows, sequences)?;
        let width = x.0.width;
        let own = x.0.rows / sequences.max(1) * width;
        let mut out = self.workers.buffer(sequences * (own + width));
        for (out, x) in out.chunks_exact_mut((own + width).max(1)).zip(x.chunks_exact(own.max(1))) {
            let (mean, after) = out.split_at_mut(width);
            mean.fill(0.0);
            kernels::add_columns(self.workers.isa(), mean, x);
            mean.iter_mut().for_each(|sum| *sum /= (own / width) as f32);
            after.copy_from_slice(x);
        }
        Ok(self.result(out.len() / width, width, out))
    }

    fn transformer(
        &self,
        x: &Values,
        blocks: &[Block<Self>],
        attention: Attention,
        activation: Activation,
    ) -> Result<Values, Error> {
        shapes::transformer(self.shape(x), blocks, attention)?;
        let lengths = vec![attention.tokens; x.0.rows / attention.tokens];
        Ok(stack::run(&self.workers, x, blocks, &lengths, attention, activation, None))
    }

    fn transformer_rows(
        &self,
        x: &Values,
        blocks: &[Block<Self>],
        attention: Attention,
        activation: Activation,
        rows: &[u32],
    ) -> Result<Values, Error> {
        shapes::transformer(self.shape(x), blocks, attention)?;
        shapes::indices("rows", rows, x.0.rows)?;
        let lengths = vec![attention.tokens; x.0.rows / attention.tokens];
        Ok(stack::run(&self.workers, x, blocks, &lengths, attention, activation, Some(rows)))
    }

    fn causal_transformer(
        &self,
        x: &Values,
        lengths: &[usize],
        blocks: &[Block<Self>],
        heads: usize,
        activation: Activation,
        rows: &[u32],
    ) -> Result<Values, Error> {
        shapes::sequences(x.0.rows, lengths)?;
        shapes::indices("rows", rows, x.0.rows)?;
        let attention = Attention { tokens: 1, heads, causal: true };
        shapes::transformer(self.shape(x), blocks, attention)?;
        Ok(stack::run(&self.workers, x, blocks, lengths, attention, activation, Some(rows)))
    }
}

fn check_parameter(name: &str, rows: usize, width: usize, found: usize) -> Result<(), Error> {
    if found != rows * width || found == 0 {
        return Err(Error::ParameterSize { name: name.to_owned(), rows, width, found });
    }
    Ok(())
}
