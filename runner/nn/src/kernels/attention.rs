//! Multi-head attention over whole sequences, a tile of queries at a time; scores are never kept.

use std::ops::Range;

use super::{
    activation::exp,
    norm::dot,
    simd::Simd,
    tile::{Left, Rows, small_product},
};

/// Queries whose scores are held at once.
const TILE: usize = 48;

/// The shape of a multi-head attention: matrices are `[sequences · tokens, 3 · heads · width]` (queries, keys, values) and
/// `[sequences · tokens, heads · width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Rows of a sequence.
    pub(crate) tokens: usize,
    /// Number of heads.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) width: usize,
    /// Whether a row sees only itself and earlier ones.
    pub(crate) causal: bool,
}

impl Heads {
    /// Tokens rounded up, so that rows of scores start alike.
    fn padded(&self) -> usize {
        self.tokens.next_multiple_of(16)
    }
}

/// How much scratch [`attention`] and [`attention_backward`] want.
pub(crate) fn attention_scratch(shape: Heads) -> usize {
    2 * shape.padded() * (shape.width + TILE)
}

kernel! {
    /// `softmax(q·kᵀ/√width)·v` for each sequence and head of `qkv`, into `out`.
    pub(crate) fn attention(shape: Heads, qkv: &[f32], out: &mut [f32], scratch: &mut [f32]) = attention_body;
}

#[inline(always)]
fn attention_body<S: Simd>(s: S, shape: Heads, qkv: &[f32], out: &mut [f32], scratch: &mut [f32]) {
    let Heads { tokens, heads, width, .. } = shape;
    let model = heads * width;
    for (qkv, out) in qkv.chunks_exact(tokens * 3 * model).zip(out.chunks_exact_mut(tokens * model)) {
        let queries = Queries { values: qkv, stride: 3 * model, first: 0, count: tokens };
        attend_body(s, shape, 0..heads, queries, qkv, out, scratch);
    }
}

/// Some of a sequence's queries: those of the tokens from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    /// Row i is the query of token `first + i`, all heads.
    pub(crate) values: &'a [f32],
    /// Values from one row to the next.
    pub(crate) stride: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

kernel! {
    /// Some heads of [`attention`] for some queries of one sequence, `[tokens, 3 · heads · width]`. `out` becomes
    /// `[queries, some heads · width]`.
    pub(crate) fn attend(
        shape: Heads, heads: Range<usize>, queries: Queries<'_>, qkv: &[f32], out: &mut [f32], scratch: &mut [f32],
    ) = attend_body;
}

#[inline(always)]
fn attend_body<S: Simd>(
    s: S,
    shape: Heads,
    heads: Range<usize>,
    queries: Queries<'_>,
    qkv: &[f32],
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let Heads { width, .. } = shape;
    let (model, stride) = (shape.heads * width, heads.len() * width);
    let (keys, scratch) = scratch.split_at_mut(width * shape.padded());
    let scores = &mut scratch[..TILE * shape.padded()];
    for (place, head) in heads.enumerate() {
        transpose(shape, &qkv[model + head * width..], keys);
        for start in (0..queries.count).step_by(TILE) {
            let rows = TILE.min(queries.count - start);
            let first = queries.first + start;
            let seen = if shape.causal { first + rows } else { shape.tokens };
            let tile = Left {
                values: &queries.values[start * queries.stride + head * width..],
                row: queries.stride,
                column: 1,
            };
            probabilities(s, shape, first, rows, tile, keys, scores);
            small_product(
                s,
                (rows, width, seen),
                Left { values: scores, row: shape.padded(), column: 1 },
                Rows { values: &qkv[2 * model + head * width..], row: 3 * model },
                &mut out[start * stride + place * width..],
                stride,
                false,
            );
        }
    }
}

kernel! {
    /// The gradient of [`attention`] for `dout`; `dqkv` is overwritten.
    pub(crate) fn attention_backward(
        shape: Heads, qkv: &[f32], dout: &[f32], dqkv: &mut [f32], scratch: &mut [f32],
    ) = attention_backward_body;
}

#[inline(always)]
fn attention_backward_body<S: Simd>(
    s: S,
    shape: Heads,
    qkv: &[f32],
    dout: &[f32],
    dqkv: &mut [f32],
    scratch: &mut [f32],
) {
    let Heads { tokens, heads, width, .. } = shape;
    let (model, padded) = (heads * width, shape.padded());
    let (keys, scratch) = scratch.split_at_mut(width * padded);
    let (values, scratch) = scratch.split_at_mut(width * padded);
    let (scores, scratch) = scratch.split_at_mut(TILE * padded);
    let dscores = &mut scratch[..TILE * padded];
    let scale = 1.0 / (width as f32).sqrt();
    dqkv.fill(0.0);
    let sequences = qkv.chunks_exact(tokens * 3 * model).zip(dout.chunks_exact(tokens * model));
    for ((qkv, dout), dqkv) in sequences.zip(dqkv.chunks_exact_mut(tokens * 3 * model)) {
        for head in 0..heads {
            let (q, k, v) = (head * width, model + head * width, 2 * model + head * width);
            transpose(shape, &qkv[k..], keys);
            transpose(shape, &qkv[v..], values);
            for first in (0..tokens).step_by(TILE) {
                let rows = TILE.min(tokens - first);
                let seen = if shape.causal { first + rows } else { tokens };
                let (top, dtop) = (first * 3 * model, first * model + head * width);
                let queries = Left { values: &qkv[top + q..], row: 3 * model, column: 1 };
                probabilities(s, shape, first, rows, queries, keys, scores);
                let dout = Rows { values: &dout[dtop..], row: model };
                // dv += pᵀ·dout
                small_product(
                    s,
                    (seen, width, rows),
                    Left { values: scores, row: 1, column: padded },
                    dout,
                    &mut dqkv[v..],
                    3 * model,
                    true,
                );
                // dp = dout·vᵀ
                small_product(
                    s,
                    (rows, seen.next_multiple_of(S::LANES), width),
                    Left { values: dout.values, row: model, column: 1 },
                    Rows { values, row: padded },
                    dscores,
                    padded,
                    false,
                );
                for (p, dp) in scores.chunks_exact(padded).zip(dscores.chunks_exact_mut(padded)).take(rows) {
                    softmax_backward(s, &p[..seen], &mut dp[..seen], scale);
                }
                // dq = ds·k
                small_product(
                    s,
                    (rows, width, seen),
                    Left { values: dscores, row: padded, column: 1 },
                    Rows { values: &qkv[k..], row: 3 * model },
                    &mut dqkv[top + q..],
                    3 * model,
                    false,
                );
                // dk += dsᵀ·q
                small_product(
                    s,
                    (seen, width, rows),
                    Left { values: dscores, row: 1, column: padded },
                    Rows { values: &qkv[top + q..], row: 3 * model },
                    &mut dqkv[k..],
                    3 * model,
                    true,
                );
            }
        }
    }
}

/// Copies one head's `[tokens, width]` out of `[tokens, 3 · model]` as `[width, padded]`.
#[inline(always)]
fn transpose(shape: Heads, from: &[f32], to: &mut [f32]) {
    let stride = 3 * shape.heads * shape.width;
    let (tokens, padded) = (shape.tokens, shape.padded());
    let from = &from[..(tokens - 1) * stride + shape.width];
    for (column, to) in to.chunks_exact_mut(padded).enumerate().take(shape.width) {
        // Eight at a time, so that they are written together.
        let (eights, rest) = to[..tokens].as_chunks_mut::<8>();
        let done = tokens - rest.len();
        for (i, eight) in eights.iter_mut().enumerate() {
            let from = &from[8 * i * stride + column..][..7 * stride + 1];
            *eight = [
                from[0],
                from[stride],
                from[2 * stride],
                from[3 * stride],
                from[4 * stride],
                from[5 * stride],
                from[6 * stride],
                from[7 * stride],
            ];
        }
        for (token, to) in rest.iter_mut().enumerate() {
            *to = from[(done + token) * stride + column];
        }
    }
}

/// The attention probabilities of `rows` queries from `first` on; what a row does not see becomes 0. Whole vectors of keys are
/// used, of which those behind the last token are anything, as are their scores.
#[inline(always)]
fn probabilities<S: Simd>(
    s: S,
    shape: Heads,
    first: usize,
    rows: usize,
    queries: Left<'_>,
    keys: &[f32],
    scores: &mut [f32],
) {
    let padded = shape.padded();
    let seen = if shape.causal { first + rows } else { shape.tokens };
    let size = (rows, seen.next_multiple_of(S::LANES), shape.width);
    small_product(s, size, queries, Rows { values: keys, row: padded }, scores, padded, false);
    let scale = 1.0 / (shape.width as f32).sqrt();
    for (row, scores) in scores.chunks_exact_mut(padded).take(rows).enumerate() {
        let visible = if shape.causal { first + row + 1 } else { shape.tokens };
        softmax(s, &mut scores[..visible.next_multiple_of(S::LANES)], visible, scale);
        scores[visible..seen].fill(0.0);
    }
}

/// `x = softmax(scale · x)` for the first `visible` values of whole vectors; the others become next to nothing.
#[inline(always)]
fn softmax<S: Simd>(s: S, x: &mut [f32], visible: usize, scale: f32) {
    x[visible..].fill(f32::NEG_INFINITY);
    let mut largest = s.splat(f32::NEG_INFINITY);
    for i in (0..x.len()).step_by(S::LANES) {
        largest = s.max(largest, s.load(&x[i..]));
    }
    let (largest, factor) = (s.splat(s.largest(largest)), s.splat(scale));
    let mut total = s.splat(0.0);
    for i in (0..x.len()).step_by(S::LANES) {
        let power = exp(s, s.mul(s.sub(s.load(&x[i..]), largest), factor));
        s.store(power, &mut x[i..]);
        total = s.add(total, power);
    }
    let factor = s.splat(1.0 / s.sum(total));
    for i in (0..x.len()).step_by(S::LANES) {
        s.store(s.mul(s.load(&x[i..]), factor), &mut x[i..]);
    }
}

/// `dp = scale · p·(dp − Σ p·dp)`: the gradient through [`softmax`].
#[inline(always)]
fn softmax_backward<S: Simd>(s: S, p: &[f32], dp: &mut [f32], scale: f32) {
    let along = s.splat(dot(s, p, dp));
    let factor = s.splat(scale);
    for i in (0..p.len()).step_by(S::LANES) {
        let off = s.sub(s.at(dp, i, 0.0), along);
        s.put(s.mul(s.mul(s.at(p, i, 0.0), factor), off), dp, i);
    }
}
