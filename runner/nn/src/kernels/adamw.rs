//! The update of AdamW.

use super::simd::Simd;

/// What [`adamw`] does to each value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adam {
    /// Decay of the first moment.
    pub(crate) beta1: f32,
    /// Decay of the second moment.
    pub(crate) beta2: f32,
    /// Added to the root of the second moment.
    pub(crate) eps: f32,
    /// On the gradient.
    pub(crate) factor: f32,
    /// On the value, before the step.
    pub(crate) shrink: f32,
    /// Learning rate by the bias of the first moment.
    pub(crate) size: f32,
    /// Root of the bias of the second moment.
    pub(crate) root: f32,
}

kernel! {
    /// Updates values and their moments.
    pub(crate) fn adamw(adam: Adam, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) =
        adamw_body;
}

#[inline(always)]
fn adamw_body<S: Simd>(s: S, adam: Adam, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    let [beta1, beta2, eps, factor, shrink, size] =
        [adam.beta1, adam.beta2, adam.eps, adam.factor, adam.shrink, adam.size].map(|x| s.splat(x));
    let (new1, new2, unroot) = (s.splat(1.0 - adam.beta1), s.splat(1.0 - adam.beta2), s.splat(1.0 / adam.root));
    for i in (0..values.len()).step_by(S::LANES) {
        let gradient = s.mul(s.at(gradient, i, 0.0), factor);
        let mean = s.fma(beta1, s.at(first, i, 0.0), s.mul(new1, gradient));
        let square = s.fma(beta2, s.at(second, i, 0.0), s.mul(new2, s.mul(gradient, gradient)));
        let step = s.div(s.mul(size, mean), s.fma(s.sqrt(square), unroot, eps));
        s.put(mean, first, i);
        s.put(square, second, i);
        s.put(s.sub(s.mul(shrink, s.at(values, i, 0.0)), step), values, i);
    }
}
