//! A transformer stack over sequences of any lengths.
//!
//! Many rows are cut into shards of whole sequences, each of which goes through all blocks on one thread while its activations
//! stay in the cache; few rows are spread over the threads operation by operation. Where only some rows of the result
//! are wanted, the last block computes the keys and values of all rows and the rest of these rows alone.

use std::{ops::Range, sync::Arc};

use rayon::prelude::*;

use super::{Fused, Matrix, Values, bias};
use crate::{
    Activation, Attention, Block, Linear,
    kernels::{self, Added, Finish, Heads, Left, Queries},
    pool::{Buffer, Workers},
};

/// Most rows of a shard, so that they fit the cache.
const MOST_ROWS: usize = 400;
/// Fewest rows of a shard: each reads all weights.
const FEWEST_ROWS: usize = 96;

/// What the blocks have in common.
#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    hidden: usize,
    heads: usize,
    causal: bool,
    activation: Activation,
}

/// Who computes a shard.
#[derive(Clone, Copy)]
struct Work<'a> {
    workers: &'a Workers,
    shape: Shape,
    /// On all threads, operation by operation.
    spread: bool,
}

/// Whole sequences, one after another.
struct Shard<'a> {
    rows: usize,
    lengths: &'a [usize],
    /// The wanted rows: which one of all, and its row in the shard.
    wanted: Vec<(usize, usize)>,
}

/// Room for what a block computes.
struct Scratch {
    normal: Buffer,
    stats: Buffer,
    qkv: Buffer,
    mixed: Buffer,
    hidden: Buffer,
}

/// Runs the blocks over sequences of these lengths, and gives all rows, or those that are wanted. `attention.tokens` is not
/// looked at.
pub(super) fn run(
    workers: &Workers,
    x: &Values,
    blocks: &[Block<Fused>],
    lengths: &[usize],
    attention: Attention,
    activation: Activation,
    wanted: Option<&[u32]>,
) -> Values {
    let (rows, width) = (x.0.rows, x.0.width);
    let hidden = blocks.first().map_or(0, |block| block.up.weight.0.shape().0);
    let shape = Shape { width, hidden, heads: attention.heads, causal: attention.causal, activation };
    // Where most rows are wanted, all are computed.
    let few = wanted.filter(|wanted| wanted.len() * 2 <= rows && !blocks.is_empty());
    let shards = cut(lengths, rows, workers.threads());
    let work = Work { workers, shape, spread: shards.len() < workers.threads() };
    let mut all = workers.buffer(rows * width);
    all.copy_from_slice(x);
    let mut parts = Vec::with_capacity(shards.len());
    let mut rest = &mut *all;
    for (first, lengths) in shards {
        let rows = lengths.iter().sum();
        let (own, after) = rest.split_at_mut(rows * width);
        rest = after;
        let inside = first..first + rows;
        let wanted = few.unwrap_or_default().iter().enumerate();
        let wanted = wanted.filter(|(_, row)| inside.contains(&(**row as usize)));
        let wanted = wanted.map(|(place, row)| (place, *row as usize - first)).collect();
        parts.push((Shard { rows, lengths, wanted }, own));
    }
    let each = |(shard, x): &mut (Shard<'_>, &mut [f32])| -> Buffer {
        let (last, before) = match (few, blocks.split_last()) {
            (Some(_), Some((last, before))) => (Some(last), before),
            _ => (None, blocks),
        };
        let mut scratch = work.scratch(shard.rows);
        for block in before {
            work.block(block, shard, x, &mut scratch);
        }
        match last {
            Some(last) => work.last(last, shard, x, &mut scratch),
            None => workers.buffer(0),
        }
    };
    let results: Vec<Buffer> = match work.spread {
        true => workers.run(|| parts.iter_mut().map(each).collect()),
        false => workers.run(|| parts.par_iter_mut().map(each).collect()),
    };
    let picked = match (few, wanted) {
        (Some(wanted), _) => {
            let mut out = workers.buffer(wanted.len() * width);
            for ((shard, _), result) in parts.iter().zip(&results) {
                for ((place, _), row) in shard.wanted.iter().zip(result.chunks_exact(width)) {
                    out[place * width..][..width].copy_from_slice(row);
                }
            }
            out
        }
        (None, Some(wanted)) => {
            let mut out = workers.buffer(wanted.len() * width);
            kernels::gather_rows(&all, width, wanted, &mut out);
            out
        }
        (None, None) => all,
    };
    Values(Arc::new(Matrix { rows: picked.len() / width.max(1), width, values: picked }))
}

/// Some rows of the attention of `qkv·x`, spread over the threads.
pub(super) fn attention_rows(
    workers: &Workers,
    x: &Values,
    qkv: &Linear<Fused>,
    attention: Attention,
    rows: &[u32],
) -> Values {
    let (width, Attention { tokens, heads, causal }) = (x.0.width, attention);
    let shape = Shape { width, hidden: 0, heads, causal, activation: Activation::None };
    let lengths = vec![tokens; x.0.rows / tokens];
    let wanted = rows.iter().map(|row| *row as usize).enumerate().collect();
    let shard = Shard { rows: x.0.rows, lengths: &lengths, wanted };
    let mut room = workers.buffer(x.0.rows * 3 * width);
    let work = Work { workers, shape, spread: true };
    let values = workers.run(|| work.attend_wanted(x, qkv, &shard, &mut room));
    Values(Arc::new(Matrix { rows: rows.len(), width, values }))
}

/// Cuts sequences into shards of about even size, for so many threads; each with the rows before it.
fn cut(lengths: &[usize], rows: usize, threads: usize) -> Vec<(usize, &[usize])> {
    let fit = rows / FEWEST_ROWS;
    let count = rows.div_ceil(MOST_ROWS).next_multiple_of(threads).min(fit).max(1);
    let mut shards = Vec::with_capacity(count);
    let (mut first, mut begun, mut row) = (0, 0, 0);
    for (i, length) in lengths.iter().enumerate() {
        row += length;
        // The end of a shard is where the even cut is nearest.
        let even = rows * (shards.len() + 1) / count;
        let next = lengths.get(i + 1).map_or(usize::MAX, |next| row + next);
        if row.abs_diff(even) <= next.abs_diff(even) || i + 1 == lengths.len() {
            shards.push((first, &lengths[begun..=i]));
            (first, begun) = (row, i + 1);
        }
    }
    shards
}

impl Shape {
    fn heads(&self, tokens: usize) -> Heads {
        Heads { tokens, heads: self.heads, width: self.width / self.heads, causal: self.causal }
    }
}

impl Work<'_> {
    fn scratch(&self, rows: usize) -> Scratch {
        let (workers, Shape { width, hidden, .. }) = (self.workers, self.shape);
        Scratch {
            normal: workers.buffer(rows * width),
            stats: workers.buffer(rows * 2),
            qkv: workers.buffer(rows * 3 * width),
            mixed: workers.buffer(rows * width),
            hidden: workers.buffer(rows * hidden),
        }
    }

    /// One block over one shard.
    fn block(&self, block: &Block<Fused>, shard: &Shard<'_>, x: &mut [f32], scratch: &mut Scratch) {
        let isa = self.workers.isa();
        let Scratch { normal, stats, qkv, mixed, hidden } = scratch;
        kernels::layer_norm(isa, x, &block.norm1.gain, &block.norm1.bias, block.norm1.eps, normal, stats);
        self.linear(normal, &block.qkv, Added::Nothing, Activation::None, qkv);
        self.attention(shard.lengths, qkv, mixed);
        self.linear(mixed, &block.out, Added::Result, Activation::None, x);
        self.feed_forward(block, x, normal, stats, hidden);
    }

    /// The second half of a block, over any rows.
    fn feed_forward(
        &self,
        block: &Block<Fused>,
        x: &mut [f32],
        normal: &mut [f32],
        stats: &mut [f32],
        hidden: &mut [f32],
    ) {
        let isa = self.workers.isa();
        kernels::layer_norm(isa, x, &block.norm2.gain, &block.norm2.bias, block.norm2.eps, normal, stats);
        self.linear(normal, &block.up, Added::Nothing, self.shape.activation, hidden);
        self.linear(hidden, &block.down, Added::Result, Activation::None, x);
    }

    /// The wanted rows of the last block: the keys and values of all rows, the rest of those alone.
    fn last(&self, block: &Block<Fused>, shard: &Shard<'_>, x: &mut [f32], scratch: &mut Scratch) -> Buffer {
        let (isa, workers, Shape { width, hidden, .. }) = (self.workers.isa(), self.workers, self.shape);
        let Scratch { normal, stats, qkv, .. } = scratch;
        let count = shard.wanted.len();
        kernels::layer_norm(isa, x, &block.norm1.gain, &block.norm1.bias, block.norm1.eps, normal, stats);
        let mixed = self.attend_wanted(normal, &block.qkv, shard, qkv);
        let mut x = self.pick(x, shard);
        self.linear(&mixed, &block.out, Added::Result, Activation::None, &mut x);
        let mut up = workers.buffer(count * hidden);
        self.feed_forward(block, &mut x, &mut normal[..count * width], &mut stats[..2 * count], &mut up);
        x
    }

    /// The attention of the wanted rows of `qkv·x`: keys and values of all rows, queries of those.
    fn attend_wanted(&self, x: &[f32], map: &Linear<Fused>, shard: &Shard<'_>, qkv: &mut [f32]) -> Buffer {
        let (isa, workers, width) = (self.workers.isa(), self.workers, self.shape.width);
        let weight = &*map.weight.0;
        let finish = Finish { bias: bias(map.bias.as_ref()), ..Finish::NOTHING };
        // Panels that hold a key or a value, and those that hold a query.
        let (others, own) = (width / weight.panel()..weight.panels(), 0..width.div_ceil(weight.panel()));
        self.panels(Left::Rows(x), weight, others, finish, qkv);
        let count = shard.wanted.len();
        let mut queries = workers.buffer(count * 3 * width);
        self.panels(Left::Rows(&self.pick(x, shard)), weight, own, finish, &mut queries);
        let mut mixed = workers.buffer(count * width);
        let rows = mixed.chunks_exact_mut(width).zip(queries.chunks_exact(3 * width));
        for ((_, row), (out, query)) in shard.wanted.iter().zip(rows) {
            let sequence = sequence(shard.lengths, *row);
            let shape = self.shape.heads(sequence.len());
            let mut scratch = workers.buffer(kernels::attention_scratch(shape));
            let queries = Queries { values: query, stride: 3 * width, first: row - sequence.start, count: 1 };
            let qkv = &qkv[sequence.start * 3 * width..sequence.end * 3 * width];
            kernels::attend(isa, shape, 0..shape.heads, queries, qkv, out, &mut scratch);
        }
        mixed
    }

    /// The wanted rows.
    fn pick(&self, x: &[f32], shard: &Shard<'_>) -> Buffer {
        let width = self.shape.width;
        let mut picked = self.workers.buffer(shard.wanted.len() * width);
        for ((_, row), to) in shard.wanted.iter().zip(picked.chunks_exact_mut(width)) {
            to.copy_from_slice(&x[row * width..][..width]);
        }
        picked
    }

    fn linear(&self, x: &[f32], map: &Linear<Fused>, added: Added<'_>, activation: Activation, out: &mut [f32]) {
        let weight = &*map.weight.0;
        let finish = Finish { bias: bias(map.bias.as_ref()), added, activation };
        self.panels(Left::Rows(x), weight, 0..weight.panels(), finish, out);
    }

    fn panels(
        &self,
        left: Left<'_>,
        weight: &kernels::Packed,
        panels: Range<usize>,
        finish: Finish<'_>,
        out: &mut [f32],
    ) {
        match self.spread {
            true => {
                let rows = left.rows(weight.shape().1);
                kernels::linear_spread(
                    left,
                    weight,
                    panels.clone(),
                    finish,
                    self.workers.parts(rows, panels.len()),
                    out,
                );
            }
            false => kernels::linear(left, weight, panels, finish, out),
        }
    }

    fn attention(&self, lengths: &[usize], qkv: &[f32], mixed: &mut [f32]) {
        let (isa, width) = (self.workers.isa(), self.shape.width);
        let mut sequences = Vec::with_capacity(lengths.len());
        let (mut qkv, mut mixed) = (qkv, mixed);
        for &length in lengths {
            let (own, rest) = qkv.split_at(length * 3 * width);
            let (out, after) = std::mem::take(&mut mixed).split_at_mut(length * width);
            sequences.push((self.shape.heads(length), own, out));
            (qkv, mixed) = (rest, after);
        }
        let each = |(shape, qkv, out): (Heads, &[f32], &mut [f32])| {
            let mut scratch = self.workers.buffer(kernels::attention_scratch(shape));
            kernels::attention(isa, shape, qkv, out, &mut scratch);
        };
        match (self.spread, sequences.len()) {
            (false, _) => sequences.into_iter().for_each(each),
            (true, 2..) => sequences.into_par_iter().for_each(each),
            (true, _) => sequences.into_iter().for_each(|(shape, qkv, out)| self.by_heads(shape, qkv, out)),
        }
    }

    /// Attention of one sequence, some heads on each thread.
    fn by_heads(&self, shape: Heads, qkv: &[f32], out: &mut [f32]) {
        let (isa, workers, model) = (self.workers.isa(), self.workers, self.shape.width);
        let some = shape.heads.div_ceil(2 * workers.threads());
        let mut apart = workers.buffer(out.len());
        let size = some * shape.width * shape.tokens;
        apart.par_chunks_mut(size).enumerate().for_each(|(i, apart)| {
            let mut scratch = workers.buffer(kernels::attention_scratch(shape));
            let queries = Queries { values: qkv, stride: 3 * model, first: 0, count: shape.tokens };
            let heads = i * some..((i + 1) * some).min(shape.heads);
            kernels::attend(isa, shape, heads, queries, qkv, apart, &mut scratch);
        });
        for (i, apart) in apart.chunks(size).enumerate() {
            let columns = apart.len() / shape.tokens;
            for (out, row) in out.chunks_exact_mut(model).zip(apart.chunks_exact(columns)) {
                out[i * some * shape.width..][..columns].copy_from_slice(row);
            }
        }
    }
}

/// The rows of the sequence that a row belongs to.
fn sequence(lengths: &[usize], row: usize) -> Range<usize> {
    let mut first = 0;
    for length in lengths {
        if row < first + length {
            return first..first + length;
        }
        first += length;
    }
    first..first
}
