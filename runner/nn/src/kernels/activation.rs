//! Element-wise kernels: what follows a matrix product.

use super::{convolution::cut, simd::Simd};
use crate::Activation;

kernel! {
    /// `x[r] += row` for each row of `x`.
    pub(crate) fn add_to_rows(x: &mut [f32], row: &[f32]) = add_to_rows_body;
}

#[inline(always)]
fn add_to_rows_body<S: Simd>(s: S, x: &mut [f32], row: &[f32]) {
    for x in x.chunks_exact_mut(row.len().max(1)) {
        add_body(s, x, row);
    }
}

kernel! {
    /// `x += y`.
    pub(crate) fn add(x: &mut [f32], y: &[f32]) = add_body;
}

#[inline(always)]
fn add_body<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    for i in (0..x.len()).step_by(S::LANES) {
        s.put(s.add(s.at(x, i, 0.0), s.at(y, i, 0.0)), x, i);
    }
}

kernel! {
    /// `x *= y`.
    pub(crate) fn multiply(x: &mut [f32], y: &[f32]) = multiply_body;
}

#[inline(always)]
fn multiply_body<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    for i in (0..x.len()).step_by(S::LANES) {
        s.put(s.mul(s.at(x, i, 0.0), s.at(y, i, 0.0)), x, i);
    }
}

kernel! {
    /// `sums += ` the sum of all rows of `x`.
    pub(crate) fn add_columns(sums: &mut [f32], x: &[f32]) = add_columns_body;
}

#[inline(always)]
fn add_columns_body<S: Simd>(s: S, sums: &mut [f32], x: &[f32]) {
    for row in x.chunks_exact(sums.len().max(1)) {
        add_body(s, sums, row);
    }
}

kernel! {
    /// `y = activation(x)`.
    pub(crate) fn activate(activation: Activation, x: &[f32], y: &mut [f32]) = activate_body;
}

#[inline(always)]
fn activate_body<S: Simd>(s: S, activation: Activation, x: &[f32], y: &mut [f32]) {
    for i in (0..x.len()).step_by(S::LANES) {
        s.put(activated(s, activation, s.at(x, i, 0.0)), y, i);
    }
}

/// `activation(x)`.
#[inline(always)]
pub(super) fn activated<S: Simd>(s: S, activation: Activation, x: S::V) -> S::V {
    match activation {
        Activation::None => x,
        Activation::Gelu => gelu(s, x).0,
        Activation::QuickGelu => swish(s, x, QUICK_GELU).0,
        Activation::Silu => swish(s, x, 1.0).0,
        Activation::Relu => cut(s, x, (0.0, f32::INFINITY)),
        Activation::Relu6 => cut(s, x, (0.0, 6.0)),
    }
}

kernel! {
    /// `y = activation(x)`, and `x` becomes the derivative there: both cost one exponential.
    pub(crate) fn activate_backward(activation: Activation, x: &mut [f32], y: &mut [f32]) = activate_backward_body;
}

#[inline(always)]
fn activate_backward_body<S: Simd>(s: S, activation: Activation, x: &mut [f32], y: &mut [f32]) {
    match activation {
        Activation::None => {
            y.copy_from_slice(x);
            x.fill(1.0);
        }
        Activation::Gelu => {
            for i in (0..x.len()).step_by(S::LANES) {
                let (value, derivative) = gelu(s, s.at(x, i, 0.0));
                s.put(value, y, i);
                s.put(derivative, x, i);
            }
        }
        Activation::QuickGelu => swish_backward(s, QUICK_GELU, x, y),
        Activation::Silu => swish_backward(s, 1.0, x, y),
        Activation::Relu => rectify_backward(s, f32::INFINITY, x, y),
        Activation::Relu6 => rectify_backward(s, 6.0, x, y),
    }
}

/// `y = min(max(x, 0), high)`, and `x` becomes 1 where it is between 0 and `high`, else 0.
#[inline(always)]
fn rectify_backward<S: Simd>(s: S, high: f32, x: &mut [f32], y: &mut [f32]) {
    let (zero, one, high_) = (s.splat(0.0), s.splat(1.0), s.splat(high));
    for i in (0..x.len()).step_by(S::LANES) {
        let value = s.at(x, i, 0.0);
        s.put(cut(s, value, (0.0, high)), y, i);
        let below = s.where_negative(s.sub(value, high_), one, zero);
        s.put(s.where_negative(s.sub(zero, value), below, zero), x, i);
    }
}

/// eˣ to 1e-7 relative: 2ⁿ times the Taylor polynomial of degree 7 on |r| ≤ ln 2 / 2. Saturates at e^±87.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.max(x, s.splat(-87.3)), s.splat(88.3));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first short enough for n times it to be exact.
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut sum = s.splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = s.fma(sum, r, s.splat(coefficient));
    }
    s.mul(sum, s.exp2i(n))
}

/// `x·Φ(x)` and its derivative. Φ by Abramowitz and Stegun 7.1.26 in the tail, so that it keeps its relative precision
/// where it is small; absolute error 1e-7.
#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let magnitude = s.max(x, s.sub(s.splat(0.0), x));
    let bell = exp(s, s.mul(s.mul(x, x), s.splat(-0.5)));
    let t = s.div(one, s.fma(magnitude, s.splat(0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2), one));
    let mut sum = s.splat(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        sum = s.fma(sum, t, s.splat(coefficient));
    }
    let tail = s.mul(s.mul(s.mul(sum, t), bell), s.splat(0.5));
    let below = s.where_negative(x, tail, s.sub(one, tail));
    // The density 1/√(2π)·e^(−x²/2).
    let density = s.mul(bell, s.splat(0.398_942_3));
    (s.mul(x, below), s.fma(x, density, below))
}

/// What [`Activation::QuickGelu`] multiplies with before the logistic function.
const QUICK_GELU: f32 = 1.702;

/// `x·σ(factor·x)` and its derivative.
#[inline(always)]
fn swish<S: Simd>(s: S, x: S::V, factor: f32) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let scaled = s.mul(x, s.splat(factor));
    let sigmoid = s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), scaled))));
    let slope = s.fma(scaled, s.sub(one, sigmoid), one);
    (s.mul(x, sigmoid), s.mul(sigmoid, slope))
}

/// `y = x·σ(factor·x)`, and `x` becomes the derivative.
#[inline(always)]
fn swish_backward<S: Simd>(s: S, factor: f32, x: &mut [f32], y: &mut [f32]) {
    for i in (0..x.len()).step_by(S::LANES) {
        let (value, derivative) = swish(s, s.at(x, i, 0.0), factor);
        s.put(value, y, i);
        s.put(derivative, x, i);
    }
}
