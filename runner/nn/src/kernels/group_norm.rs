//! Group normalisation of pictures whose channels come last.

use super::simd::Simd;

kernel! {
    /// Normalises one picture, `[pixels, channels]`, into `y`: see [`Operation::GroupNorm`](crate::Operation::GroupNorm). `stats`
    /// gets each channel's mean and 1/√(variance + eps), which are those of its group: all means, then all scales.
    #[expect(clippy::too_many_arguments, reason = "one argument for each operand and result")]
    pub(crate) fn group_norm(
        x: &[f32], gain: &[f32], bias: &[f32], groups: usize, eps: f32, y: &mut [f32], stats: &mut [f32],
    ) = group_norm_body;
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one argument for each operand and result")]
fn group_norm_body<S: Simd>(
    s: S,
    x: &[f32],
    gain: &[f32],
    bias: &[f32],
    groups: usize,
    eps: f32,
    y: &mut [f32],
    stats: &mut [f32],
) {
    let channels = gain.len();
    let count = (x.len() / groups.max(1)) as f64;
    let (means, scales) = stats.split_at_mut(channels);
    sums(s, channels, x, means, |x, _| x);
    share(groups, means, |sum| sum / count);
    let middle: &[f32] = means;
    sums(s, channels, x, scales, |x, i| {
        let off = s.sub(x, s.at(middle, i, 0.0));
        s.mul(off, off)
    });
    share(groups, scales, |sum| 1.0 / (sum / count + f64::from(eps)).sqrt());
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
        for i in (0..channels).step_by(S::LANES) {
            let normal = s.mul(s.sub(s.at(x, i, 0.0), s.at(means, i, 0.0)), s.at(scales, i, 0.0));
            s.put(s.fma(normal, s.at(gain, i, 0.0), s.at(bias, i, 0.0)), y, i);
        }
    }
}

/// Pixels whose values are added up in f32, one after another.
const RUN: usize = 256;

/// The sum over all pixels of `f(x, channel)`, for each channel.
#[inline(always)]
fn sums<S: Simd>(s: S, channels: usize, x: &[f32], out: &mut [f32], f: impl Fn(S::V, usize) -> S::V) {
    out.fill(0.0);
    for run in x.chunks(RUN * channels) {
        for i in (0..channels).step_by(S::LANES) {
            let mut total = s.splat(0.0);
            for x in run.chunks_exact(channels) {
                total = s.add(total, f(s.at(x, i, 0.0), i));
            }
            s.put(s.add(s.at(out, i, 0.0), total), out, i);
        }
    }
}

/// Replaces the values of each group of channels by `f` of their sum.
fn share(groups: usize, x: &mut [f32], f: impl Fn(f64) -> f64) {
    let each = x.len() / groups.max(1);
    for group in x.chunks_exact_mut(each.max(1)) {
        let sum = group.iter().copied().map(f64::from).sum::<f64>();
        group.fill(f(sum) as f32);
    }
}

kernel! {
    /// The gradients of [`group_norm`] for one picture: `dy` becomes that of `x`; those of gain and bias are added to.
    /// `scratch` has two values for each channel.
    #[expect(clippy::too_many_arguments, reason = "one argument for each operand and gradient")]
    pub(crate) fn group_norm_backward(
        x: &[f32],
        stats: &[f32],
        gain: &[f32],
        groups: usize,
        dy: &mut [f32],
        dgain: &mut [f32],
        dbias: &mut [f32],
        scratch: &mut [f32],
    ) = group_norm_backward_body;
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one argument for each operand and gradient")]
fn group_norm_backward_body<S: Simd>(
    s: S,
    x: &[f32],
    stats: &[f32],
    gain: &[f32],
    groups: usize,
    dy: &mut [f32],
    dgain: &mut [f32],
    dbias: &mut [f32],
    scratch: &mut [f32],
) {
    let channels = gain.len();
    let count = (x.len() / groups.max(1)) as f64;
    let (means, scales) = stats.split_at(channels);
    let (total, along) = scratch.split_at_mut(channels);
    let along = &mut along[..channels];
    total.fill(0.0);
    along.fill(0.0);
    for (x, dy) in x.chunks(RUN * channels).zip(dy.chunks(RUN * channels)) {
        for i in (0..channels).step_by(S::LANES) {
            let (middle, factor) = (s.at(means, i, 0.0), s.at(scales, i, 0.0));
            let (mut sum, mut product) = (s.splat(0.0), s.splat(0.0));
            for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                let dy = s.at(dy, i, 0.0);
                sum = s.add(sum, dy);
                product = s.fma(dy, s.mul(s.sub(s.at(x, i, 0.0), middle), factor), product);
            }
            s.put(s.add(s.at(total, i, 0.0), sum), total, i);
            s.put(s.add(s.at(along, i, 0.0), product), along, i);
        }
    }
    for i in (0..channels).step_by(S::LANES) {
        let gain = s.at(gain, i, 0.0);
        s.put(s.add(s.at(dgain, i, 0.0), s.at(along, i, 0.0)), dgain, i);
        s.put(s.add(s.at(dbias, i, 0.0), s.at(total, i, 0.0)), dbias, i);
        s.put(s.mul(s.at(total, i, 0.0), gain), total, i);
        s.put(s.mul(s.at(along, i, 0.0), gain), along, i);
    }
    share(groups, total, |sum| sum / count);
    share(groups, along, |sum| sum / count);
    for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact_mut(channels)) {
        for i in (0..channels).step_by(S::LANES) {
            let factor = s.at(scales, i, 0.0);
            let normal = s.mul(s.sub(s.at(x, i, 0.0), s.at(means, i, 0.0)), factor);
            let inner = s.sub(s.mul(s.at(dy, i, 0.0), s.at(gain, i, 0.0)), s.at(total, i, 0.0));
            s.put(s.mul(s.sub(inner, s.mul(normal, s.at(along, i, 0.0))), factor), dy, i);
        }
    }
}
