//! Layer normalisation and division of rows by their length.

use super::simd::Simd;

kernel! {
    /// Layer normalisation of each row of `x` into `y`; `stats` gets each row's mean and 1/√(variance + eps).
    pub(crate) fn layer_norm(
        x: &[f32], gain: &[f32], bias: &[f32], eps: f32, y: &mut [f32], stats: &mut [f32],
    ) = layer_norm_body;
}

#[inline(always)]
fn layer_norm_body<S: Simd>(s: S, x: &[f32], gain: &[f32], bias: &[f32], eps: f32, y: &mut [f32], stats: &mut [f32]) {
    let width = gain.len().max(1);
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(stats.chunks_exact_mut(2));
    for ((x, y), stats) in rows {
        let mut total = s.splat(0.0);
        for i in (0..width).step_by(S::LANES) {
            total = s.add(total, s.at(x, i, 0.0));
        }
        let mean = s.sum(total) / width as f32;
        let middle = s.splat(mean);
        let mut total = s.splat(0.0);
        for i in (0..width).step_by(S::LANES) {
            let off = s.sub(s.at(x, i, mean), middle);
            total = s.fma(off, off, total);
        }
        let scale = 1.0 / (s.sum(total) / width as f32 + eps).sqrt();
        let factor = s.splat(scale);
        for i in (0..width).step_by(S::LANES) {
            let normal = s.mul(s.sub(s.at(x, i, 0.0), middle), factor);
            s.put(s.fma(normal, s.at(gain, i, 0.0), s.at(bias, i, 0.0)), y, i);
        }
        stats[0] = mean;
        stats[1] = scale;
    }
}

kernel! {
    /// The gradients of [`layer_norm`] for `dy`, added to `dx`, `dgain` and `dbias`.
    #[expect(clippy::too_many_arguments, reason = "one argument for each operand and gradient")]
    pub(crate) fn layer_norm_backward(
        x: &[f32], stats: &[f32], gain: &[f32], dy: &[f32], dx: &mut [f32], dgain: &mut [f32], dbias: &mut [f32],
    ) = layer_norm_backward_body;
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one argument for each operand and gradient")]
fn layer_norm_backward_body<S: Simd>(
    s: S,
    x: &[f32],
    stats: &[f32],
    gain: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
    dbias: &mut [f32],
) {
    let width = gain.len().max(1);
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for (((x, dy), dx), stats) in rows.zip(stats.chunks_exact(2)) {
        let (middle, factor) = (s.splat(stats[0]), s.splat(stats[1]));
        let mut total = s.splat(0.0);
        let mut along = s.splat(0.0);
        for i in (0..width).step_by(S::LANES) {
            let dy = s.at(dy, i, 0.0);
            let normal = s.mul(s.sub(s.at(x, i, stats[0]), middle), factor);
            let inner = s.mul(dy, s.at(gain, i, 0.0));
            total = s.add(total, inner);
            along = s.fma(inner, normal, along);
            s.put(s.fma(dy, normal, s.at(dgain, i, 0.0)), dgain, i);
            s.put(s.add(dy, s.at(dbias, i, 0.0)), dbias, i);
        }
        let total = s.splat(s.sum(total) / width as f32);
        let along = s.splat(s.sum(along) / width as f32);
        for i in (0..width).step_by(S::LANES) {
            let normal = s.mul(s.sub(s.at(x, i, 0.0), middle), factor);
            let inner = s.mul(s.at(dy, i, 0.0), s.at(gain, i, 0.0));
            let inner = s.sub(s.sub(inner, total), s.mul(normal, along));
            s.put(s.fma(inner, factor, s.at(dx, i, 0.0)), dx, i);
        }
    }
}

kernel! {
    /// Each row of `x` divided by its length, into `y`; `lengths` gets the lengths. Rows of zeros stay.
    pub(crate) fn l2_normalize(x: &[f32], y: &mut [f32], lengths: &mut [f32]) = l2_normalize_body;
}

#[inline(always)]
fn l2_normalize_body<S: Simd>(s: S, x: &[f32], y: &mut [f32], lengths: &mut [f32]) {
    let width = (x.len() / lengths.len().max(1)).max(1);
    for ((x, y), length) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(lengths) {
        *length = dot(s, x, x).sqrt();
        let factor = s.splat(if *length > 0.0 { 1.0 / *length } else { 0.0 });
        for i in (0..width).step_by(S::LANES) {
            s.put(s.mul(s.at(x, i, 0.0), factor), y, i);
        }
    }
}

kernel! {
    /// The gradient of [`l2_normalize`] for `dy`, from its result `y` and `lengths`, added to `dx`.
    pub(crate) fn l2_normalize_backward(y: &[f32], lengths: &[f32], dy: &[f32], dx: &mut [f32]) =
        l2_normalize_backward_body;
}

#[inline(always)]
fn l2_normalize_backward_body<S: Simd>(s: S, y: &[f32], lengths: &[f32], dy: &[f32], dx: &mut [f32]) {
    let width = (y.len() / lengths.len().max(1)).max(1);
    let rows = y.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for (((y, dy), dx), length) in rows.zip(lengths) {
        let along = s.splat(dot(s, y, dy));
        let factor = s.splat(if *length > 0.0 { 1.0 / *length } else { 0.0 });
        for i in (0..width).step_by(S::LANES) {
            let across = s.sub(s.at(dy, i, 0.0), s.mul(s.at(y, i, 0.0), along));
            s.put(s.fma(across, factor, s.at(dx, i, 0.0)), dx, i);
        }
    }
}

/// `Σ x·y`.
#[inline(always)]
pub(super) fn dot<S: Simd>(s: S, x: &[f32], y: &[f32]) -> f32 {
    let mut total = s.splat(0.0);
    for i in (0..x.len()).step_by(S::LANES) {
        total = s.fma(s.at(x, i, 0.0), s.at(y, i, 0.0), total);
    }
    s.sum(total)
}
