//! Windows over pictures whose channels come last: what they cover as rows, one channel at a time, pooled.

use std::ops::Range;

use super::simd::Simd;
use crate::{Activation, Size, Window};

/// A window over pictures of one size.
#[derive(Clone, Copy)]
pub(crate) struct Sweep {
    pub(crate) window: Window,
    /// The pictures.
    pub(crate) from: Size,
    /// What comes out.
    pub(crate) to: Size,
}

/// What a window covers of a picture: a range of its own lines and columns, and the pixel under its first one.
pub(super) struct Cover {
    pub(super) lines: Range<usize>,
    pub(super) columns: Range<usize>,
    /// The row of the matrix with the picture's first pixel.
    start: usize,
    /// The picture's line and column under the window's first pixel; in the padding they are below 0.
    top: isize,
    left: isize,
}

impl Sweep {
    /// The window of output pixel `place`, counted over all pictures.
    #[inline(always)]
    pub(super) fn cover(&self, place: usize) -> Cover {
        let (image, pixel) = (place / self.to.pixels(), place % self.to.pixels());
        let corner = |place: usize| (place * self.window.stride) as isize - self.window.before as isize;
        let (top, left) = (corner(pixel / self.to.width), corner(pixel % self.to.width));
        let inside = |corner: isize, side: usize| {
            let end = (side as isize - corner).clamp(0, self.window.size as isize) as usize;
            ((-corner).max(0) as usize).min(end)..end
        };
        Cover {
            lines: inside(top, self.from.height),
            columns: inside(left, self.from.width),
            start: image * self.from.pixels(),
            top,
            left,
        }
    }

    /// The place in the matrix of the covered pixel at a line and a column of the window.
    #[inline(always)]
    pub(super) fn pixel(&self, cover: &Cover, line: usize, column: usize) -> usize {
        let (y, x) = (cover.top + line as isize, cover.left + column as isize);
        (cover.start + y as usize * self.from.width + x as usize) * self.from.channels
    }

    /// Values that the window covers.
    pub(crate) fn covered(&self) -> usize {
        self.window.size * self.window.size * self.from.channels
    }
}

/// Row i of `out` becomes what the window covers at output pixel `first + i`, ordered line, column, channel.
pub(crate) fn window_rows(sweep: Sweep, pictures: &[f32], first: usize, out: &mut [f32]) {
    let (channels, size) = (sweep.from.channels, sweep.window.size);
    for (place, row) in (first..).zip(out.chunks_exact_mut(sweep.covered())) {
        let cover = sweep.cover(place);
        let inside = cover.columns.start * channels..cover.columns.end * channels;
        for (line, out) in row.chunks_exact_mut(size * channels).enumerate() {
            if cover.lines.contains(&line) && !inside.is_empty() {
                let from = sweep.pixel(&cover, line, cover.columns.start);
                out[..inside.start].fill(0.0);
                out[inside.clone()].copy_from_slice(&pictures[from..from + inside.len()]);
                out[inside.end..].fill(0.0);
            } else {
                out.fill(0.0);
            }
        }
    }
}

/// The range that an activation cuts its argument to; `None` for those that do more.
pub(crate) fn bounds(activation: Activation) -> Option<(f32, f32)> {
    match activation {
        Activation::None => Some((f32::NEG_INFINITY, f32::INFINITY)),
        Activation::Relu => Some((0.0, f32::INFINITY)),
        Activation::Relu6 => Some((0.0, 6.0)),
        Activation::Gelu | Activation::QuickGelu | Activation::Silu => None,
    }
}

/// `x` cut to a range; what is no number stays.
#[inline(always)]
pub(super) fn cut<S: Simd>(s: S, x: S::V, (low, high): (f32, f32)) -> S::V {
    s.min(s.splat(high), s.max(s.splat(low), x))
}

kernel! {
    /// Adds `bias` to each row of `x`, then cuts to `bounds`.
    pub(crate) fn finish(x: &mut [f32], bias: &[f32], bounds: (f32, f32)) = finish_body;
}

#[inline(always)]
fn finish_body<S: Simd>(s: S, x: &mut [f32], bias: &[f32], bounds: (f32, f32)) {
    let width = bias.len().max(1);
    for x in x.chunks_exact_mut(width) {
        for i in (0..width).step_by(S::LANES) {
            s.put(cut(s, s.add(s.at(x, i, 0.0), s.at(bias, i, 0.0)), bounds), x, i);
        }
    }
}

kernel! {
    /// Output pixels from `first` on: the sum over the window of `weight`, `[size · size, channels]`, times what is there,
    /// plus `bias`, cut to `bounds`.
    #[expect(clippy::too_many_arguments, reason = "one argument for each operand")]
    pub(crate) fn depthwise(
        sweep: Sweep,
        pictures: &[f32],
        weight: &[f32],
        bias: &[f32],
        bounds: (f32, f32),
        first: usize,
        out: &mut [f32],
    ) = depthwise_body;
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one argument for each operand")]
fn depthwise_body<S: Simd>(
    s: S,
    sweep: Sweep,
    pictures: &[f32],
    weight: &[f32],
    bias: &[f32],
    bounds: (f32, f32),
    first: usize,
    out: &mut [f32],
) {
    let channels = sweep.from.channels;
    for (place, out) in (first..).zip(out.chunks_exact_mut(channels)) {
        let cover = sweep.cover(place);
        let taps = |sums: &mut [S::V], channel: usize| {
            for line in cover.lines.clone() {
                for column in cover.columns.clone() {
                    let from = sweep.pixel(&cover, line, column);
                    let pixel = &pictures[from..from + channels][channel..];
                    let own = &weight[(line * sweep.window.size + column) * channels..][..channels][channel..];
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(s.at(pixel, i * S::LANES, 0.0), s.at(own, i * S::LANES, 0.0), *sum);
                    }
                }
            }
        };
        let mut channel = 0;
        while channel + 4 * S::LANES <= channels {
            let mut sums = [0, 1, 2, 3].map(|i| s.at(bias, channel + i * S::LANES, 0.0));
            taps(&mut sums, channel);
            for (i, sum) in sums.into_iter().enumerate() {
                s.put(cut(s, sum, bounds), out, channel + i * S::LANES);
            }
            channel += 4 * S::LANES;
        }
        while channel < channels {
            let mut sums = [s.at(bias, channel, 0.0)];
            taps(&mut sums, channel);
            s.put(cut(s, sums[0], bounds), out, channel);
            channel += S::LANES;
        }
    }
}

kernel! {
    /// Output pixels from `first` on: the largest value of each channel in the window.
    pub(crate) fn max_pool(sweep: Sweep, pictures: &[f32], first: usize, out: &mut [f32]) = max_pool_body;
}

#[inline(always)]
fn max_pool_body<S: Simd>(s: S, sweep: Sweep, pictures: &[f32], first: usize, out: &mut [f32]) {
    pool(s, sweep, pictures, first, out, f32::NEG_INFINITY, |largest, x| s.max(largest, x));
}

kernel! {
    /// Output pixels from `first` on: the mean of each channel in the window, padding being 0.
    pub(crate) fn mean_pool(sweep: Sweep, pictures: &[f32], first: usize, out: &mut [f32]) = mean_pool_body;
}

#[inline(always)]
fn mean_pool_body<S: Simd>(s: S, sweep: Sweep, pictures: &[f32], first: usize, out: &mut [f32]) {
    pool(s, sweep, pictures, first, out, 0.0, |sum, x| s.add(sum, x));
    let share = s.splat(1.0 / (sweep.window.size * sweep.window.size) as f32);
    for i in (0..out.len()).step_by(S::LANES) {
        s.put(s.mul(s.at(out, i, 0.0), share), out, i);
    }
}

/// Combines what the window covers, channel by channel, beginning with `start`.
#[inline(always)]
fn pool<S: Simd>(
    s: S,
    sweep: Sweep,
    pictures: &[f32],
    first: usize,
    out: &mut [f32],
    start: f32,
    combine: impl Fn(S::V, S::V) -> S::V,
) {
    let channels = sweep.from.channels;
    for (place, out) in (first..).zip(out.chunks_exact_mut(channels)) {
        let cover = sweep.cover(place);
        out.fill(start);
        for line in cover.lines.clone() {
            for column in cover.columns.clone() {
                let pixel = &pictures[sweep.pixel(&cover, line, column)..][..channels];
                for i in (0..channels).step_by(S::LANES) {
                    s.put(combine(s.at(out, i, 0.0), s.at(pixel, i, 0.0)), out, i);
                }
            }
        }
    }
}
