//! From pixels and weights to the points of tiles, and from there back to pixels.
//!
//! The points of small tiles are 0, ±1 and ∞, as in the paper. Those of large ones are 0, ±√½, ±√2 and ∞: with the
//! paper's 0, ±1, ±2 and ∞ rounding errors are four times as large.

use std::{f32::consts::FRAC_1_SQRT_2, f32::consts::SQRT_2, ops::Range};

use super::{Tiles, Way};
use crate::{
    Activation, Isa,
    kernels::{
        activation::activated,
        convolution::Sweep,
        packed::{Added, Finish},
        simd::Simd,
    },
};

/// Points of small tiles, along a side and in all.
const SMALL: (usize, usize) = (4, 16);
/// The same of large ones.
pub(super) const LARGE: (usize, usize) = (6, 36);
/// Of large tiles, the product of the differences of ±√½ and of ±√2 to all other points.
pub(super) const OVER: (f32, f32) = (-1.5, 6.0);

/// A kernel of one output, `[3 · 3, channels]`, at so many points: `[points, channels]`.
pub(super) fn weight_points(isa: Isa, count: usize, way: Way, kernel: &[f32], out: &mut [f32]) {
    if count == SMALL.1 { small_weight(isa, way, kernel, out) } else { large_weight(isa, way, kernel, out) }
}

kernel! { fn small_weight(way: Way, kernel: &[f32], out: &mut [f32]) = weight_body::<_, { SMALL.0 }, { SMALL.1 }>; }
kernel! { fn large_weight(way: Way, kernel: &[f32], out: &mut [f32]) = weight_body::<_, { LARGE.0 }, { LARGE.1 }>; }

#[inline(always)]
fn weight_body<S: Simd, const N: usize, const POINTS: usize>(s: S, way: Way, kernel: &[f32], out: &mut [f32]) {
    let channels = kernel.len() / 9;
    for c in (0..channels).step_by(S::LANES) {
        let mut lines = [[s.splat(0.0); N]; 3];
        for (y, line) in lines.iter_mut().enumerate() {
            let mut taps = [s.splat(0.0); 3];
            for (x, tap) in taps.iter_mut().enumerate() {
                let number = if way == Way::There { 3 * y + x } else { 8 - 3 * y - x };
                *tap = s.at(&kernel[number * channels..][..channels], c, 0.0);
            }
            *line = weights(s, taps);
        }
        for x in 0..N {
            let column: [S::V; N] = weights(s, [lines[0][x], lines[1][x], lines[2][x]]);
            for (y, point) in column.into_iter().enumerate() {
                s.put(point, &mut out[(y * N + x) * channels..][..channels], c);
            }
        }
    }
}

/// Three weights at the points of a line: `G` of the paper.
#[inline(always)]
fn weights<S: Simd, const N: usize>(s: S, [a, b, c]: [S::V; 3]) -> [S::V; N] {
    let mut found = [a; N];
    found[N - 1] = c;
    // Even and odd part at ±x, over the product of the differences to all other points.
    let pair = |x: f32, over: f32| {
        let even = s.mul(s.splat(1.0 / over), s.fma(s.splat(x * x), c, a));
        let odd = s.mul(s.splat(x / over), b);
        [s.add(even, odd), s.sub(even, odd)]
    };
    if N == SMALL.0 {
        [found[1], found[2]] = pair(1.0, 2.0);
    } else {
        [found[1], found[2]] = pair(FRAC_1_SQRT_2, OVER.0);
        [found[3], found[4]] = pair(SQRT_2, OVER.1);
    }
    found
}

/// Brings some channels of what tiles see to the points: for each point a row for each tile, `row` values from the last.
pub(super) fn to_points(
    isa: Isa,
    tiles: Tiles,
    pictures: &[f32],
    channels: Range<usize>,
    some: Range<usize>,
    row: usize,
    out: &mut [f32],
) {
    let there = There { tiles, pictures, channels, some, row };
    if tiles.points() == SMALL.1 { to_small(isa, there, out) } else { to_large(isa, there, out) }
}

/// What [`to_points`] reads.
struct There<'a> {
    tiles: Tiles,
    pictures: &'a [f32],
    channels: Range<usize>,
    some: Range<usize>,
    row: usize,
}

kernel! { fn to_small(there: There<'_>, out: &mut [f32]) = to_body::<_, { SMALL.0 }, { SMALL.1 }>; }
kernel! { fn to_large(there: There<'_>, out: &mut [f32]) = to_body::<_, { LARGE.0 }, { LARGE.1 }>; }

#[inline(always)]
fn to_body<S: Simd, const N: usize, const POINTS: usize>(s: S, read: There<'_>, out: &mut [f32]) {
    let There { tiles, pictures, channels: own, some, row } = read;
    let Sweep { window, from, .. } = tiles.sweep;
    let (channels, apart) = (own.len(), out.len() / POINTS);
    for (i, tile) in some.enumerate() {
        let (picture, y, x) = tiles.corner(tile);
        let (lines, columns) = (seen::<N>(y, window.before, from.height), seen::<N>(x, window.before, from.width));
        let mut pixels: [&[f32]; POINTS] = [&[]; POINTS];
        let mut inside = [0.0; POINTS];
        for (number, (pixel, inside)) in pixels.iter_mut().zip(&mut inside).enumerate() {
            let (line, column) = (lines[number / N], columns[number % N]);
            let start = picture * from.pixels() + line.0 * from.width + column.0;
            *pixel = &pictures[start * from.channels..][own.clone()];
            *inside = line.1 * column.1;
        }
        for c in (0..channels).step_by(S::LANES) {
            let mut lines = [[s.splat(0.0); N]; N];
            for (y, line) in lines.iter_mut().enumerate() {
                let mut seen = [s.splat(0.0); N];
                for (x, seen) in seen.iter_mut().enumerate() {
                    let number = y * N + x;
                    *seen = s.mul(s.at(pixels[number], c, 0.0), s.splat(inside[number]));
                }
                *line = there(s, seen);
            }
            for x in 0..N {
                for (y, point) in there(s, column(&lines, x)).into_iter().enumerate() {
                    s.put(point, &mut out[(y * N + x) * apart + i * row..][..channels], c);
                }
            }
        }
    }
}

/// The pixels that a tile sees along a side, and 1 for each that the picture has; for others, 0 and the nearest that it has: to
/// multiply takes less time than to guess wrong.
#[inline(always)]
fn seen<const N: usize>(corner: usize, before: usize, side: usize) -> [(usize, f32); N] {
    let mut found = [(0, 0.0); N];
    for (i, found) in found.iter_mut().enumerate() {
        let pixel = (corner + i).saturating_sub(before).min(side - 1);
        *found = (pixel, if pixel + before == corner + i { 1.0 } else { 0.0 });
    }
    found
}

/// A column of lines.
#[inline(always)]
pub(super) fn column<V: Copy, const N: usize, const M: usize>(lines: &[[V; M]; N], x: usize) -> [V; N] {
    let mut found = [lines[0][x]; N];
    let mut y = 1;
    while y < N {
        found[y] = lines[y][x];
        y += 1;
    }
    found
}

/// Pixels at the points of a line: `Bᵀ` of the paper. A function, not a closure, which would not be inlined with its vectors.
#[inline(always)]
fn there<S: Simd, const N: usize>(s: S, d: [S::V; N]) -> [S::V; N] {
    let mut found = d;
    if N == SMALL.0 {
        found[0] = s.sub(d[0], d[2]);
        [found[1], found[2]] = [s.add(d[1], d[2]), s.sub(d[2], d[1])];
        found[3] = s.sub(d[1], d[3]);
        // The signs of the paper's last line, with `back`.
        return found;
    }
    let middle = s.splat(-2.5);
    found[0] = s.add(s.fma(middle, d[2], d[0]), d[4]);
    found[5] = s.add(s.fma(middle, d[3], d[1]), d[5]);
    let (even, odd) = (s.fma(s.splat(-2.0), d[2], d[4]), s.fma(s.splat(-2.0), d[1], d[3]));
    let odd = s.mul(s.splat(FRAC_1_SQRT_2), odd);
    [found[1], found[2]] = [s.add(even, odd), s.sub(even, odd)];
    let (even, odd) = (s.fma(s.splat(-0.5), d[2], d[4]), s.fma(s.splat(-0.5), d[1], d[3]));
    let odd = s.mul(s.splat(SQRT_2), odd);
    [found[3], found[4]] = [s.add(even, odd), s.sub(even, odd)];
    found
}

/// The points of a line back to pixels, of which small tiles have two: `Aᵀ` of the paper.
#[inline(always)]
fn back<S: Simd, const N: usize>(s: S, m: [S::V; N]) -> [S::V; 4] {
    if N == SMALL.0 {
        return [s.add(s.add(m[0], m[1]), m[2]), s.sub(s.sub(m[1], m[2]), m[3]), m[0], m[0]];
    }
    let (near, far) = (s.add(m[1], m[2]), s.add(m[3], m[4]));
    let (near_odd, far_odd) = (s.sub(m[1], m[2]), s.sub(m[3], m[4]));
    let odd = |a: f32, b: f32| s.fma(s.splat(a), near_odd, s.mul(s.splat(b), far_odd));
    [
        s.add(m[0], s.add(near, far)),
        odd(FRAC_1_SQRT_2, SQRT_2),
        s.fma(s.splat(0.5), near, s.mul(s.splat(2.0), far)),
        s.add(odd(0.5 * FRAC_1_SQRT_2, 2.0 * SQRT_2), m[5]),
    ]
}

/// Brings the results of the points back to pixels, with what follows the product.
pub(super) fn from_points(
    isa: Isa,
    tiles: Tiles,
    points: &[f32],
    some: Range<usize>,
    finish: Finish<'_>,
    out: &mut [f32],
) {
    if tiles.points() == SMALL.1 {
        from_small(isa, tiles, points, some, finish, out);
    } else {
        from_large(isa, tiles, points, some, finish, out);
    }
}

kernel! {
    fn from_small(tiles: Tiles, points: &[f32], some: Range<usize>, finish: Finish<'_>, out: &mut [f32]) =
        from_body::<_, { SMALL.0 }, { SMALL.1 }>;
}
kernel! {
    fn from_large(tiles: Tiles, points: &[f32], some: Range<usize>, finish: Finish<'_>, out: &mut [f32]) =
        from_body::<_, { LARGE.0 }, { LARGE.1 }>;
}

#[inline(always)]
fn from_body<S: Simd, const N: usize, const POINTS: usize>(
    s: S,
    tiles: Tiles,
    points: &[f32],
    some: Range<usize>,
    finish: Finish<'_>,
    out: &mut [f32],
) {
    let back = Back { s, tiles, points, some, finish };
    match finish.activation {
        Activation::None => back.write::<N, POINTS>(out, |x| x),
        Activation::Relu => back.write::<N, POINTS>(out, |x| activated(s, Activation::Relu, x)),
        other => back.write::<N, POINTS>(out, |x| activated(s, other, x)),
    }
}

/// What [`from_points`] reads.
struct Back<'a, S> {
    s: S,
    tiles: Tiles,
    points: &'a [f32],
    some: Range<usize>,
    finish: Finish<'a>,
}

impl<S: Simd> Back<'_, S> {
    #[inline(always)]
    fn write<const N: usize, const POINTS: usize>(&self, out: &mut [f32], activation: impl Fn(S::V) -> S::V) {
        let (s, to, zero) = (self.s, self.tiles.sweep.to, self.s.splat(0.0));
        let Finish { bias, added, .. } = self.finish;
        let apart = self.points.len() / POINTS;
        let first = self.tiles.pixel(self.some.start / self.tiles.across);
        for (i, tile) in self.some.clone().enumerate() {
            let (picture, y, x) = self.tiles.corner(tile);
            for c in (0..to.channels).step_by(S::LANES) {
                let mut lines = [[zero; 4]; N];
                for (number, line) in lines.iter_mut().enumerate() {
                    let mut points = [zero; N];
                    for (x, point) in points.iter_mut().enumerate() {
                        let place = (number * N + x) * apart + i * to.channels;
                        *point = s.at(&self.points[place..][..to.channels], c, 0.0);
                    }
                    *line = back(s, points);
                }
                let bias = if bias.is_empty() { zero } else { s.at(bias, c, 0.0) };
                for (number, x) in (0..self.tiles.side).zip(x..to.width) {
                    for (pixel, y) in
                        back(s, column(&lines, number)).into_iter().take(self.tiles.side).zip(y..to.height)
                    {
                        let place = (picture * to.pixels() + y * to.width + x - first) * to.channels;
                        let out = &mut out[place..][..to.channels];
                        let sum = s.add(pixel, bias);
                        let sum = match added {
                            Added::Nothing => sum,
                            Added::Result => s.add(sum, s.at(out, c, 0.0)),
                            Added::Matrix(added) => s.add(sum, s.at(&added[place..][..to.channels], c, 0.0)),
                        };
                        s.put(activation(sum), out, c);
                    }
                }
            }
        }
    }
}
