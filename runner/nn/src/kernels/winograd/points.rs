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
const LARGE: (usize, usize) = (6, 36);

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
        [found[1], found[2]] = pair(FRAC_1_SQRT_2, -1.5);
        [found[3], found[4]] = pair(SQRT_2, 6.0);
    }
    found
}

/// Brings what tiles see to the points: for each point a row of all channels for each tile.
pub(super) fn to_points(isa: Isa, tiles: Tiles, pictures: &[f32], some: Range<usize>, out: &mut [f32]) {
    if tiles.points() == SMALL.1 {
        to_small(isa, tiles, pictures, some, out);
    } else {
        to_large(isa, tiles, pictures, some, out);
    }
}

kernel! {
    fn to_small(tiles: Tiles, pictures: &[f32], some: Range<usize>, out: &mut [f32]) =
        to_body::<_, { SMALL.0 }, { SMALL.1 }>;
}
kernel! {
    fn to_large(tiles: Tiles, pictures: &[f32], some: Range<usize>, out: &mut [f32]) =
        to_body::<_, { LARGE.0 }, { LARGE.1 }>;
}

#[inline(always)]
fn to_body<S: Simd, const N: usize, const POINTS: usize>(
    s: S,
    tiles: Tiles,
    pictures: &[f32],
    some: Range<usize>,
    out: &mut [f32],
) {
    let Sweep { window, from, .. } = tiles.sweep;
    let (channels, apart) = (from.channels, out.len() / POINTS);
    for (i, tile) in some.enumerate() {
        let (picture, y, x) = tiles.corner(tile);
        // Those outside of the picture are empty.
        let mut pixels: [&[f32]; POINTS] = [&[]; POINTS];
        for (number, pixel) in pixels.iter_mut().enumerate() {
            let inside = |at: usize, side: usize| at.checked_sub(window.before).filter(|at| *at < side);
            let place = inside(y + number / N, from.height).zip(inside(x + number % N, from.width));
            if let Some((y, x)) = place {
                let start = picture * from.pixels() + y * from.width + x;
                *pixel = &pictures[start * channels..][..channels];
            }
        }
        for c in (0..channels).step_by(S::LANES) {
            let mut lines = [[s.splat(0.0); N]; N];
            for y in 0..N {
                let mut seen = [s.splat(0.0); N];
                for (x, seen) in seen.iter_mut().enumerate() {
                    let pixel = pixels[y * N + x];
                    if !pixel.is_empty() {
                        *seen = s.at(pixel, c, 0.0);
                    }
                }
                lines[y] = there(s, seen);
            }
            for x in 0..N {
                let mut column = [s.splat(0.0); N];
                for (value, line) in column.iter_mut().zip(&lines) {
                    *value = line[x];
                }
                for (y, point) in there(s, column).into_iter().enumerate() {
                    s.put(point, &mut out[(y * N + x) * apart + i * channels..][..channels], c);
                }
            }
        }
    }
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
                for (column, x) in (0..self.tiles.side).zip(x..to.width) {
                    let mut points = [zero; N];
                    for (point, line) in points.iter_mut().zip(&lines) {
                        *point = line[column];
                    }
                    for (pixel, y) in back(s, points).into_iter().take(self.tiles.side).zip(y..to.height) {
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
