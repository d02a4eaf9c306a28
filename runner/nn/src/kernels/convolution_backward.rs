//! Gradients of what windows do to pictures, and the layers that enlarge.

use super::{convolution::Sweep, simd::Simd};
use crate::Size;

kernel! {
    /// Adds row i of `rows` to what the window covers at output pixel `first + i`: the gradient of
    /// [`window_rows`](super::window_rows), and the last step of a transposed convolution.
    pub(crate) fn add_window_rows(sweep: Sweep, rows: &[f32], first: usize, pictures: &mut [f32]) = add_window_rows_body;
}

#[inline(always)]
fn add_window_rows_body<S: Simd>(s: S, sweep: Sweep, rows: &[f32], first: usize, pictures: &mut [f32]) {
    let (channels, size) = (sweep.from.channels, sweep.window.size);
    for (place, row) in (first..).zip(rows.chunks_exact(sweep.covered())) {
        let cover = sweep.cover(place);
        let (start, len) = (cover.columns.start * channels, cover.columns.len() * channels);
        if len == 0 {
            continue;
        }
        for line in cover.lines.clone() {
            let row = &row[line * size * channels + start..][..len];
            let to = sweep.pixel(&cover, line, cover.columns.start);
            let to = &mut pictures[to..to + len];
            for i in (0..len).step_by(S::LANES) {
                s.put(s.add(s.at(to, i, 0.0), s.at(row, i, 0.0)), to, i);
            }
        }
    }
}

kernel! {
    /// Sets `dy` to 0 where `y` is not strictly between the bounds that it was cut to.
    pub(crate) fn cut_backward(y: &[f32], bounds: (f32, f32), dy: &mut [f32]) = cut_backward_body;
}

#[inline(always)]
fn cut_backward_body<S: Simd>(s: S, y: &[f32], (low, high): (f32, f32), dy: &mut [f32]) {
    let zero = s.splat(0.0);
    if high == f32::INFINITY {
        for i in (0..dy.len()).step_by(S::LANES) {
            let above = s.where_negative(s.sub(s.splat(low), s.at(y, i, 0.0)), s.at(dy, i, 0.0), zero);
            s.put(above, dy, i);
        }
        return;
    }
    for i in (0..dy.len()).step_by(S::LANES) {
        let value = s.at(y, i, 0.0);
        let below = s.where_negative(s.sub(value, s.splat(high)), s.at(dy, i, 0.0), zero);
        s.put(s.where_negative(s.sub(s.splat(low), value), below, zero), dy, i);
    }
}

kernel! {
    /// The gradients of [`depthwise`](super::depthwise) before its bounds, added to `dx` and `dweight`.
    pub(crate) fn depthwise_backward(
        sweep: Sweep, x: &[f32], weight: &[f32], dy: &[f32], dx: &mut [f32], dweight: &mut [f32],
    ) = depthwise_backward_body;
}

#[inline(always)]
fn depthwise_backward_body<S: Simd>(
    s: S,
    sweep: Sweep,
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let channels = sweep.from.channels;
    for (place, dy) in dy.chunks_exact(channels).enumerate() {
        let cover = sweep.cover(place);
        for line in cover.lines.clone() {
            for column in cover.columns.clone() {
                let at = sweep.pixel(&cover, line, column);
                let tap = (line * sweep.window.size + column) * channels;
                let (x, dx) = (&x[at..at + channels], &mut dx[at..at + channels]);
                let (weight, dweight) = (&weight[tap..tap + channels], &mut dweight[tap..tap + channels]);
                for i in (0..channels).step_by(S::LANES) {
                    let dy = s.at(dy, i, 0.0);
                    s.put(s.fma(dy, s.at(weight, i, 0.0), s.at(dx, i, 0.0)), dx, i);
                    s.put(s.fma(dy, s.at(x, i, 0.0), s.at(dweight, i, 0.0)), dweight, i);
                }
            }
        }
    }
}

/// The gradient of [`max_pool`](super::max_pool) with result `y`, added to `dx`; the first of equals gets it. `dy` is used up.
pub(crate) fn max_pool_backward(sweep: Sweep, x: &[f32], y: &[f32], dy: &mut [f32], dx: &mut [f32]) {
    let channels = sweep.from.channels;
    for (place, (y, dy)) in y.chunks_exact(channels).zip(dy.chunks_exact_mut(channels)).enumerate() {
        let cover = sweep.cover(place);
        for line in cover.lines.clone() {
            for column in cover.columns.clone() {
                let at = sweep.pixel(&cover, line, column);
                let pixel = x[at..at + channels].iter().zip(&mut dx[at..at + channels]);
                for ((x, dx), (y, dy)) in pixel.zip(y.iter().zip(dy.iter_mut())) {
                    let own = if x == y { *dy } else { 0.0 };
                    *dx += own;
                    *dy -= own;
                }
            }
        }
    }
}

kernel! {
    /// Adds `factor` times each pixel of `dy` to all that the window covers at its place: the gradient of means.
    pub(crate) fn mean_pool_backward(sweep: Sweep, dy: &[f32], factor: f32, dx: &mut [f32]) = mean_pool_backward_body;
}

#[inline(always)]
fn mean_pool_backward_body<S: Simd>(s: S, sweep: Sweep, dy: &[f32], factor: f32, dx: &mut [f32]) {
    let channels = sweep.from.channels;
    for (place, dy) in dy.chunks_exact(channels).enumerate() {
        let cover = sweep.cover(place);
        for line in cover.lines.clone() {
            for column in cover.columns.clone() {
                let at = sweep.pixel(&cover, line, column);
                let dx = &mut dx[at..at + channels];
                for i in (0..channels).step_by(S::LANES) {
                    s.put(s.fma(s.at(dy, i, 0.0), s.splat(factor), s.at(dx, i, 0.0)), dx, i);
                }
            }
        }
    }
}

/// Output pixels from `first` on of pictures enlarged `factor` times in both directions, each pixel repeated.
pub(crate) fn upsample(from: Size, factor: usize, pictures: &[f32], first: usize, out: &mut [f32]) {
    let (width, pixels) = (from.width * factor, from.pixels() * factor * factor);
    for (place, out) in (first..).zip(out.chunks_exact_mut(from.channels)) {
        let (image, pixel) = (place / pixels, place % pixels);
        let row = (image * from.height + pixel / width / factor) * from.width + pixel % width / factor;
        out.copy_from_slice(&pictures[row * from.channels..][..from.channels]);
    }
}

kernel! {
    /// The gradient of [`upsample`], added to `dx`.
    pub(crate) fn upsample_backward(from: Size, factor: usize, dy: &[f32], dx: &mut [f32]) = upsample_backward_body;
}

#[inline(always)]
fn upsample_backward_body<S: Simd>(s: S, from: Size, factor: usize, dy: &[f32], dx: &mut [f32]) {
    let width = from.width * factor;
    for (place, dy) in dy.chunks_exact(from.channels).enumerate() {
        // Lines of enlarged pictures follow each other, and so do those of small ones.
        let row = place / width / factor * from.width + place % width / factor;
        let dx = &mut dx[row * from.channels..][..from.channels];
        for i in (0..from.channels).step_by(S::LANES) {
            s.put(s.add(s.at(dx, i, 0.0), s.at(dy, i, 0.0)), dx, i);
        }
    }
}
