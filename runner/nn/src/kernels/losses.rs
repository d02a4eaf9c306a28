//! Losses over rows, and the nearest rows of a codebook.

use std::ops::Deref;

use super::{
    contrastive::soften,
    norm::dot,
    packed::{Finish, linear},
    panels::Packed,
    simd::Simd,
    windows::Left,
};
use crate::Isa;

/// The sum of weighted cross-entropies, in nats; `logits` become its gradient. A row's weight is `even` where there are no
/// weights. Targets are in range.
pub(crate) fn cross_entropy(isa: Isa, logits: &mut [f32], targets: &[u32], weights: Option<&[f32]>, even: f32) -> f64 {
    let classes = logits.len() / targets.len().max(1);
    let mut loss = 0.0;
    for (row, (logits, target)) in logits.chunks_exact_mut(classes.max(1)).zip(targets).enumerate() {
        let weight = weights.map_or(even, |weights| weights[row]);
        let target = *target as usize;
        let right = logits[target];
        let total = soften(isa, logits);
        // A row without weight counts for nothing, even where its loss is infinite.
        if weight != 0.0 {
            loss += f64::from(weight) * (f64::from(total) - f64::from(right));
        }
        logits[target] -= 1.0;
        scale(isa, logits, weight);
    }
    loss
}

/// The squared length of each row.
pub(crate) fn row_squares(isa: Isa, x: &[f32], width: usize) -> Vec<f32> {
    x.chunks_exact(width.max(1)).map(|row| squares(isa, row)).collect()
}

/// For each row of `z` the row e of `table` with the smallest `‖z‖² + ‖e‖² − 2·z·e`, the first of equals; `squares` are the
/// `‖e‖²`. `scratch` has a value for each pair.
pub(crate) fn nearest<V: Deref<Target = [f32]>>(
    isa: Isa,
    z: &[f32],
    table: &Packed<V>,
    squares: &[f32],
    codes: &mut [u32],
    scratch: &mut [f32],
) {
    let width = table.shape().1.max(1);
    linear(Left::Rows(z), table, 0..table.panels(), Finish::NOTHING, scratch);
    let rows = z.chunks_exact(width).zip(scratch.chunks_exact(squares.len().max(1)));
    for ((z, along), code) in rows.zip(codes) {
        let own = self::squares(isa, z);
        let mut best = f32::INFINITY;
        *code = 0;
        for (i, (along, square)) in along.iter().zip(squares).enumerate() {
            let distance = own + square - 2.0 * along;
            if distance < best {
                best = distance;
                *code = i as u32;
            }
        }
    }
}

kernel! {
    /// `Σ x²`.
    pub(crate) fn squares(x: &[f32]) -> f32 = squares_body;
}

#[inline(always)]
fn squares_body<S: Simd>(s: S, x: &[f32]) -> f32 {
    dot(s, x, x)
}

kernel! {
    /// `x *= factor`.
    pub(crate) fn scale(x: &mut [f32], factor: f32) = scale_body;
}

#[inline(always)]
fn scale_body<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    for i in (0..x.len()).step_by(S::LANES) {
        s.put(s.mul(s.at(x, i, 0.0), s.splat(factor)), x, i);
    }
}

kernel! {
    /// `x += factor · y`.
    pub(crate) fn add_scaled(x: &mut [f32], y: &[f32], factor: f32) = add_scaled_body;
}

#[inline(always)]
fn add_scaled_body<S: Simd>(s: S, x: &mut [f32], y: &[f32], factor: f32) {
    for i in (0..x.len()).step_by(S::LANES) {
        s.put(s.fma(s.at(y, i, 0.0), s.splat(factor), s.at(x, i, 0.0)), x, i);
    }
}
