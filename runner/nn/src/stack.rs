//! A transformer stack, forward and backward, as one operation.
//!
//! The batch is cut into shards of whole sequences, by size alone. Each shard goes through all blocks on one thread while
//! its activations are in the cache. Backward, shards are grouped; each group adds up its parameter gradients in
//! order, and the groups are added up in order, so that the sum does not depend on the number of threads.

use rayon::prelude::*;

use crate::{
    Activation, Isa,
    kernels::{self, Added, Finish, Heads, Left, Packed, Pairing, Side, Source},
    pool::{Buffer, Workers},
};

/// The most rows of a shard, so that they fit the cache.
const MOST_ROWS: usize = 400;
/// The fewest rows of a shard, if there are as many, so that a matrix product pays for arranging its operands.
const FEWEST_ROWS: usize = 128;
/// The shards that a small batch is cut into, for as many threads.
const SHARDS: usize = 8;
/// Most groups of shards whose parameter gradients are added up apart: the most threads that backward can use.
const GROUPS: usize = 8;
/// Rows for which a group pays: it costs a copy of all parameters.
const GROUP_ROWS: usize = 1024;
/// Parameter gradients that one thread adds up at a time.
const SUM: usize = 1 << 14;

/// The shape of a stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    /// How rows attend.
    pub(crate) heads: Heads,
    /// Width of the feed-forward parts.
    pub(crate) hidden: usize,
    /// Activation of the feed-forward parts.
    pub(crate) activation: Activation,
}

/// Something for each parameter of a block, in the order: first norm's gain and bias, qkv weight and bias, out weight and
/// bias, second norm's gain and bias, up weight and bias, down weight and bias. A missing bias is empty.
pub(crate) type Parts<T> = [T; 12];

/// The parameters of a block.
#[derive(Clone, Copy)]
pub(crate) struct BlockSlices<'a> {
    /// The values.
    pub(crate) parts: Parts<&'a [f32]>,
    /// The first layer norm's epsilon.
    pub(crate) eps1: f32,
    /// The second layer norm's epsilon.
    pub(crate) eps2: f32,
}

/// The maps of a block, arranged for products: qkv, out, up, down.
type Maps = [Packed<Buffer>; 4];

/// Arranges the weights of all blocks, for the way there or for the way back. They change from step to step.
fn arranged(workers: &Workers, blocks: &[BlockSlices<'_>], source: fn(&[f32], [usize; 2]) -> Source<'_>) -> Vec<Maps> {
    let block = |block: &BlockSlices<'_>| {
        let [gain, _, qkv, _, out, _, _, _, up, _, down, _] = block.parts;
        let (width, hidden) = (gain.len(), up.len() / gain.len().max(1));
        let map = |weight, shape| Packed::borrowed(workers, source(weight, shape));
        [map(qkv, [3 * width, width]), map(out, [width, width]), map(up, [hidden, width]), map(down, [width, hidden])]
    };
    workers.run(|| blocks.par_iter().map(block).collect())
}

/// A weight of this shape for the way there.
fn there(weight: &[f32], [_, inputs]: [usize; 2]) -> Source<'_> {
    Source::rows(weight, inputs)
}

/// And for the way back.
fn back(weight: &[f32], [_, inputs]: [usize; 2]) -> Source<'_> {
    Source::columns(weight, inputs)
}

impl Stack {
    fn width(&self) -> usize {
        self.heads.heads * self.heads.width
    }

    /// Rows of a shard of a batch of `rows`.
    fn shard(&self, rows: usize) -> usize {
        let tokens = self.heads.tokens;
        let even = (rows / tokens).div_ceil(SHARDS);
        // Wide weights do not stay in the cache, and each shard reads them all.
        let fewest = FEWEST_ROWS.max(self.width() / 2);
        even.max(fewest / tokens).min(MOST_ROWS / tokens).max(1) * tokens
    }

    /// Values that a block keeps for each row: its input, qkv, mixed values, the middle of its residual stream, and what
    /// goes into the activation.
    fn kept(&self) -> usize {
        6 * self.width() + self.hidden
    }

    /// Scratch for a shard of `rows`, forward or backward.
    fn scratch(&self, rows: usize) -> usize {
        rows * (6 * self.width() + self.hidden + 2) + kernels::attention_scratch(self.heads)
    }
}

/// Runs the stack over `x`, `[rows, width]`, into `out`. With `keep`, returns what [`backward`] needs.
pub(crate) fn forward(
    workers: &Workers,
    stack: Stack,
    blocks: &[BlockSlices<'_>],
    x: &[f32],
    out: &mut [f32],
    keep: bool,
) -> Option<Buffer> {
    let width = stack.width();
    let rows = x.len() / width;
    let shard = stack.shard(rows);
    let shards = x.par_chunks(shard * width).zip(out.par_chunks_mut(shard * width));
    let maps = arranged(workers, blocks, there);
    if keep {
        let mut kept = workers.buffer(rows * blocks.len() * stack.kept());
        let shards = shards.zip(kept.par_chunks_mut(shard * blocks.len() * stack.kept()));
        workers.run(|| {
            shards.for_each(|((x, out), kept)| {
                let mut scratch = workers.buffer(stack.scratch(shard));
                let rows = x.len() / width;
                out.copy_from_slice(x);
                let blocks = blocks.iter().zip(&maps);
                for ((block, maps), kept) in blocks.zip(kept.chunks_exact_mut(rows * stack.kept())) {
                    Pass { workers, stack, block, maps, spread: false }.forward(out, kept, &mut scratch);
                }
            });
        });
        return Some(kept);
    }
    let spread = rows <= shard;
    workers.run(|| {
        shards.for_each(|(x, out)| {
            let mut scratch = workers.buffer(stack.scratch(shard));
            let mut kept = workers.buffer(x.len() / width * stack.kept());
            out.copy_from_slice(x);
            for (block, maps) in blocks.iter().zip(&maps) {
                Pass { workers, stack, block, maps, spread }.forward(out, &mut kept, &mut scratch);
            }
        });
    });
    None
}

/// One block over one shard.
struct Pass<'a> {
    workers: &'a Workers,
    stack: Stack,
    block: &'a BlockSlices<'a>,
    maps: &'a Maps,
    /// On all threads, product by product.
    spread: bool,
}

impl Pass<'_> {
    fn forward(&self, x: &mut [f32], kept: &mut [f32], scratch: &mut [f32]) {
        let (isa, stack, block) = (self.workers.isa(), self.stack, self.block);
        let width = stack.width();
        let rows = x.len() / width;
        let [gain1, bias1, _, qkv_bias, _, out_bias, gain2, bias2, _, up_bias, _, down_bias] = block.parts;
        let [input, qkv, mixed, middle, up] =
            split(kept, [rows * width, rows * 3 * width, rows * width, rows * width, rows * stack.hidden]);
        let [normal, stats, active, attention] =
            split(scratch, [rows * width, rows * 2, rows * stack.hidden, kernels::attention_scratch(stack.heads)]);
        let [qkv_map, out_map, up_map, down_map] = self.maps;
        input.copy_from_slice(x);
        kernels::layer_norm(isa, x, gain1, bias1, block.eps1, normal, stats);
        self.linear(normal, qkv_map, qkv_bias, Added::Nothing, qkv);
        kernels::attention(isa, stack.heads, qkv, mixed, attention);
        self.linear(mixed, out_map, out_bias, Added::Matrix(x), middle);
        kernels::layer_norm(isa, middle, gain2, bias2, block.eps2, normal, stats);
        self.linear(normal, up_map, up_bias, Added::Nothing, up);
        kernels::activate(isa, stack.activation, up, active);
        self.linear(active, down_map, down_bias, Added::Matrix(middle), x);
    }

    fn linear(&self, x: &[f32], map: &Packed<Buffer>, bias: &[f32], added: Added<'_>, out: &mut [f32]) {
        let (left, finish) = (Left::Rows(x), Finish { bias, added, activation: Activation::None });
        let (rows, panels) = (left.rows(map.shape().1), 0..map.panels());
        match self.spread {
            true => {
                kernels::linear_spread(left, map, panels.clone(), finish, self.workers.parts(rows, panels.end), out)
            }
            false => kernels::linear(left, map, panels, finish, out),
        }
    }

    /// `out = dy·w`
    fn product(&self, dy: &[f32], map: &Packed<Buffer>, out: &mut [f32]) {
        kernels::linear(Left::Rows(dy), map, 0..map.panels(), Finish::NOTHING, out);
    }
}

/// The gradient of [`forward`]: `dx` holds the gradient of its result and gets that of its input. Returns the gradients
/// of all parameters, block after block, in the order of [`Parts`]. What was kept is used up.
pub(crate) fn backward(
    workers: &Workers,
    stack: Stack,
    blocks: &[BlockSlices<'_>],
    mut kept: Buffer,
    dx: &mut [f32],
) -> Buffer {
    let (isa, width) = (workers.isa(), stack.width());
    let maps = arranged(workers, blocks, back);
    let total: usize = blocks.iter().flat_map(|block| block.parts).map(<[f32]>::len).sum();
    let rows = dx.len() / width;
    let shard = stack.shard(rows);
    let shards = rows.div_ceil(shard);
    let groups = (rows / GROUP_ROWS).next_power_of_two().clamp(2, GROUPS);
    let group = shard * shards.div_ceil(groups).max(1);
    let mut sums = workers.buffer(total);
    workers.run(|| {
        let groups = dx.par_chunks_mut(group * width).zip(kept.par_chunks_mut(group * blocks.len() * stack.kept()));
        let partial: Vec<Buffer> = groups
            .map(|(dx, kept)| {
                let mut gradients = workers.zeros(total);
                let mut scratch = workers.buffer(stack.scratch(shard));
                let shards = dx.chunks_mut(shard * width).zip(kept.chunks_mut(shard * blocks.len() * stack.kept()));
                for (dx, kept) in shards {
                    shard_backward(workers, stack, (blocks, &maps), dx, kept, &mut gradients, &mut scratch);
                }
                gradients
            })
            .collect();
        sums.par_chunks_mut(SUM).enumerate().for_each(|(i, sums)| {
            add_up(isa, &partial, i * SUM, sums);
        });
    });
    sums
}

/// `sums` become the sum of the buffers' values from `first` on, in the buffers' order.
pub(crate) fn add_up(isa: Isa, buffers: &[Buffer], first: usize, sums: &mut [f32]) {
    let len = sums.len();
    let mut parts = buffers.iter().map(|buffer| &buffer[first..][..len]);
    match parts.next() {
        Some(part) => sums.copy_from_slice(part),
        None => sums.fill(0.0),
    }
    for part in parts {
        kernels::add(isa, sums, part);
    }
}

/// All blocks over one shard, last block first.
fn shard_backward(
    workers: &Workers,
    stack: Stack,
    (blocks, maps): (&[BlockSlices<'_>], &[Maps]),
    dx: &mut [f32],
    kept: &mut [f32],
    gradients: &mut [f32],
    scratch: &mut [f32],
) {
    let rows = dx.len() / stack.width();
    let mut rest = gradients;
    let blocks = blocks.iter().zip(maps);
    for ((block, maps), kept) in blocks.zip(kept.chunks_exact_mut(rows * stack.kept())).rev() {
        let len = block.parts.iter().map(|part| part.len()).sum::<usize>();
        let (before, own) = rest.split_at_mut(rest.len() - len);
        rest = before;
        Pass { workers, stack, block, maps, spread: false }.backward(dx, kept, own, scratch);
    }
}

impl Pass<'_> {
    /// One block over one shard; `gradients` are those of its parameters, one after another.
    fn backward(&self, dx: &mut [f32], kept: &mut [f32], gradients: &mut [f32], scratch: &mut [f32]) {
        let (workers, isa, stack, block) = (self.workers, self.workers.isa(), self.stack, self.block);
        let (width, hidden) = (stack.width(), stack.hidden);
        let rows = dx.len() / width;
        let [gain1, bias1, _, _, _, _, gain2, bias2, ..] = block.parts;
        let [qkv_map, out_map, up_map, down_map] = self.maps;
        let lengths = block.parts.map(<[f32]>::len);
        let [
            dgain1,
            dbias1,
            dqkv_weight,
            dqkv_bias,
            dout_weight,
            dout_bias,
            dgain2,
            dbias2,
            dup_weight,
            dup_bias,
            ddown_weight,
            ddown_bias,
        ] = split(gradients, lengths);
        let [input, qkv, mixed, middle, up] =
            split(kept, [rows * width, rows * 3 * width, rows * width, rows * width, rows * hidden]);
        let [normal, stats, active, dnormal, dqkv, attention] = split(
            scratch,
            [
                rows * width,
                rows * 2,
                rows * hidden,
                rows * width,
                rows * 3 * width,
                kernels::attention_scratch(stack.heads),
            ],
        );

        kernels::activate_backward(isa, stack.activation, up, active);
        linear_gradients(workers, rows, active, dx, ddown_weight, ddown_bias);
        let dactive = active;
        self.product(dx, down_map, dactive);
        kernels::multiply(isa, dactive, up);
        kernels::layer_norm(isa, middle, gain2, bias2, block.eps2, normal, stats);
        linear_gradients(workers, rows, normal, dactive, dup_weight, dup_bias);
        self.product(dactive, up_map, dnormal);
        kernels::layer_norm_backward(isa, middle, stats, gain2, dnormal, dx, dgain2, dbias2);

        linear_gradients(workers, rows, mixed, dx, dout_weight, dout_bias);
        let dmixed = &mut *dnormal;
        self.product(dx, out_map, dmixed);
        kernels::attention_backward(isa, stack.heads, qkv, dmixed, dqkv, attention);
        kernels::layer_norm(isa, input, gain1, bias1, block.eps1, normal, stats);
        linear_gradients(workers, rows, normal, dqkv, dqkv_weight, dqkv_bias);
        self.product(dqkv, qkv_map, dnormal);
        kernels::layer_norm_backward(isa, input, stats, gain1, dnormal, dx, dgain1, dbias1);
    }
}

/// Adds the gradients of a linear map's weight and bias, for its input `x` of `rows` rows and the gradient `dy` of its
/// result.
pub(crate) fn linear_gradients(
    workers: &Workers,
    rows: usize,
    x: &[f32],
    dy: &[f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let (isa, inputs, outputs) = (workers.isa(), x.len() / rows, dy.len() / rows);
    let mut scratch = workers.buffer(kernels::weight_gradient_scratch(isa, outputs, inputs));
    let (left, right) = (Side::new(dy, outputs), Side::new(x, inputs));
    kernels::weight_gradient(isa, left, right, Pairing::Rows, dweight, &mut scratch);
    if !dbias.is_empty() {
        kernels::add_columns(isa, dbias, dy);
    }
}

/// Cuts pieces of the given lengths off the start of `values`.
fn split<const N: usize>(values: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = values;
    lengths.map(|length| {
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(length);
        rest = after;
        piece
    })
}
