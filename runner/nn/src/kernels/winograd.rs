//! Convolutions of 3 × 3 pixels without stride, with 4/9 of the products: F(2 × 2, 3 × 3) of Lavin and Gray, "Fast Algorithms
//! for Convolutional Neural Networks" (2016), section 4.1.
//!
//! A tile of 2 × 2 results is computed from the 4 × 4 pixels that it sees. Pixels and weights are brought to 16 points, at each
//! of which the convolution is a linear map of the channels, and the 16 results of the maps back to the 4 pixels.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    activation::activated,
    convolution::Sweep,
    packed::{Finish, Left, Packed, linear},
    simd::Simd,
};
use crate::{Activation, Isa, Window};

/// Points of a tile.
const POINTS: usize = 16;
/// Fewest channels that are worth it: the maps must be more work than the ways there and back.
const CHANNELS: usize = 16;
/// Values between the results of two points, so that they do not fall on the same places of the cache.
const APART: usize = 16;

/// The weights of a convolution at each point.
pub(crate) struct Winograd {
    isa: Isa,
    points: Vec<Packed>,
}

impl Winograd {
    /// Whether convolutions over such a window are computed so.
    pub(crate) fn suits(window: Window, channels: usize, outputs: usize) -> bool {
        Self::fits(window) && channels.min(outputs) >= CHANNELS
    }

    /// Whether convolutions over such a window can be computed so.
    fn fits(window: Window) -> bool {
        (window.size, window.stride) == (3, 1)
    }

    /// Brings `[outputs, 3 · 3 · channels]` to the points, on all threads of the pool it is called in.
    pub(crate) fn new(isa: Isa, outputs: usize, channels: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), outputs * 9 * channels, "values of a kernel");
        // Numbers of lines with weights 1, 0, 0; ½, ½, ½; ½, −½, ½; 0, 0, 1.
        let at = |point: usize, [a, b, c]: [f32; 3]| match point {
            0 => a,
            1 => (a + c + b) * 0.5,
            2 => (a + c - b) * 0.5,
            _ => c,
        };
        let point = |number: usize| {
            let mut map = vec![0.0; outputs * channels];
            for (map, kernel) in map.chunks_exact_mut(channels).zip(values.chunks_exact(9 * channels)) {
                for (i, value) in map.iter_mut().enumerate() {
                    let line = |y: usize| {
                        let x = |x: usize| kernel[(3 * y + x) * channels + i];
                        at(number % 4, [x(0), x(1), x(2)])
                    };
                    *value = at(number / 4, [line(0), line(1), line(2)]);
                }
            }
            Packed::new(isa, outputs, channels, &map)
        };
        Self { isa, points: (0..POINTS).into_par_iter().map(point).collect() }
    }

    /// `(outputs, 9 · channels)`, as of the convolution.
    pub(crate) fn shape(&self) -> (usize, usize) {
        self.points.first().map_or((0, 0), |point| (point.shape().0, 9 * point.shape().1))
    }
}

/// Tiles of a picture, and lines of them.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    sweep: Sweep,
    /// Tiles in a line of them.
    across: usize,
    /// Lines of tiles in a picture.
    down: usize,
}

impl Tiles {
    pub(crate) fn new(sweep: Sweep) -> Self {
        Self { sweep, across: sweep.to.width.div_ceil(2), down: sweep.to.height.div_ceil(2) }
    }

    /// Tiles in a line.
    pub(crate) fn across(&self) -> usize {
        self.across
    }

    /// Lines of so many pictures.
    pub(crate) fn lines(&self, pictures: usize) -> usize {
        pictures * self.down
    }

    /// The first pixel of a line of tiles, counted over all pictures.
    pub(crate) fn pixel(&self, line: usize) -> usize {
        line / self.down * self.sweep.to.pixels() + 2 * (line % self.down) * self.sweep.to.width
    }

    /// Picture, line and column of the first pixel of a tile.
    fn corner(&self, tile: usize) -> (usize, usize, usize) {
        let line = tile / self.across;
        (line / self.down, 2 * (line % self.down), 2 * (tile % self.across))
    }

    /// Values that [`winograd`] needs for so many lines.
    pub(crate) fn scratch(&self, lines: usize) -> usize {
        POINTS * (lines * self.across * (self.sweep.from.channels + self.sweep.to.channels) + 2 * APART)
    }
}

/// `finish(convolution)` of some lines of tiles, on this thread. `out` begins with the first pixel of the first of them, as does
/// what `added` holds.
pub(crate) fn winograd(
    weight: &Winograd,
    tiles: Tiles,
    pictures: &[f32],
    lines: Range<usize>,
    finish: (&[f32], &[f32], Activation),
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let Sweep { from, to, .. } = tiles.sweep;
    let some = lines.start * tiles.across..lines.end * tiles.across;
    let (there, back) = scratch.split_at_mut(POINTS * (some.len() * from.channels + APART));
    let (before, after) = (there.len() / POINTS, some.len() * to.channels + APART);
    to_points(weight.isa, tiles, pictures, some.clone(), there);
    let each = there.chunks_exact(before).zip(back.chunks_exact_mut(after));
    for (map, (there, back)) in weight.points.iter().zip(each) {
        let left = Left::Rows(&there[..some.len() * from.channels]);
        linear(left, map, 0..map.panels(), Finish::NOTHING, back);
    }
    from_points(weight.isa, tiles, &back[..POINTS * after], some, finish, out);
}

kernel! {
    /// Brings what tiles see to the points: for each point a row of all channels for each tile.
    fn to_points(tiles: Tiles, pictures: &[f32], some: Range<usize>, out: &mut [f32]) = to_points_body;
}

#[inline(always)]
fn to_points_body<S: Simd>(s: S, tiles: Tiles, pictures: &[f32], some: Range<usize>, out: &mut [f32]) {
    let Sweep { window, from, .. } = tiles.sweep;
    let (channels, apart) = (from.channels, out.len() / POINTS);
    for (i, tile) in some.enumerate() {
        let (picture, y, x) = tiles.corner(tile);
        // Those outside of the picture are empty.
        let mut pixels: [&[f32]; POINTS] = [&[]; POINTS];
        for (number, pixel) in pixels.iter_mut().enumerate() {
            let inside = |at: usize, side: usize| at.checked_sub(window.before).filter(|at| *at < side);
            let place = inside(y + number / 4, from.height).zip(inside(x + number % 4, from.width));
            if let Some((y, x)) = place {
                let start = picture * from.pixels() + y * from.width + x;
                *pixel = &pictures[start * channels..][..channels];
            }
        }
        for c in (0..channels).step_by(S::LANES) {
            let mut seen = [s.splat(0.0); POINTS];
            for (seen, pixel) in seen.iter_mut().zip(pixels) {
                if !pixel.is_empty() {
                    *seen = s.at(pixel, c, 0.0);
                }
            }
            for column in 0..4 {
                there(s, &mut seen, [column, 4 + column, 8 + column, 12 + column]);
            }
            for line in 0..4 {
                there(s, &mut seen, [4 * line, 4 * line + 1, 4 * line + 2, 4 * line + 3]);
            }
            for (number, point) in seen.into_iter().enumerate() {
                s.put(point, &mut out[number * apart + i * channels..][..channels], c);
            }
        }
    }
}

/// `Bᵀ` of the paper times four of the values. Functions, not closures, which would not be inlined with their vectors.
#[inline(always)]
fn there<S: Simd>(s: S, d: &mut [S::V; POINTS], places: [usize; 4]) {
    let [a, b, c, e] = places;
    let found = [s.sub(d[a], d[c]), s.add(d[b], d[c]), s.sub(d[c], d[b]), s.sub(d[b], d[e])];
    [d[a], d[b], d[c], d[e]] = found;
}

/// `Aᵀ` of the paper times four values.
#[inline(always)]
fn back<S: Simd>(s: S, [a, b, c, d]: [S::V; 4]) -> [S::V; 2] {
    [s.add(s.add(a, b), c), s.sub(s.sub(b, c), d)]
}

kernel! {
    /// Brings the results of the points back to pixels, with the bias, what is added and the activation.
    fn from_points(
        tiles: Tiles,
        points: &[f32],
        some: Range<usize>,
        finish: (&[f32], &[f32], Activation),
        out: &mut [f32],
    ) = from_points_body;
}

#[inline(always)]
fn from_points_body<S: Simd>(
    s: S,
    tiles: Tiles,
    points: &[f32],
    some: Range<usize>,
    (bias, added, activation): (&[f32], &[f32], Activation),
    out: &mut [f32],
) {
    let back = Back { s, tiles, points, some, bias, added };
    match activation {
        Activation::None => back.write(out, |x| x),
        Activation::Relu => back.write(out, |x| activated(s, Activation::Relu, x)),
        other => back.write(out, |x| activated(s, other, x)),
    }
}

/// What [`from_points`] reads.
struct Back<'a, S> {
    s: S,
    tiles: Tiles,
    points: &'a [f32],
    some: Range<usize>,
    bias: &'a [f32],
    added: &'a [f32],
}

impl<S: Simd> Back<'_, S> {
    #[inline(always)]
    fn write(&self, out: &mut [f32], activation: impl Fn(S::V) -> S::V) {
        let (s, to, zero) = (self.s, self.tiles.sweep.to, self.s.splat(0.0));
        let apart = self.points.len() / POINTS;
        let first = self.tiles.pixel(self.some.start / self.tiles.across);
        for (i, tile) in self.some.clone().enumerate() {
            let (picture, y, x) = self.tiles.corner(tile);
            for c in (0..to.channels).step_by(S::LANES) {
                let mut points = [zero; POINTS];
                for (number, point) in points.iter_mut().enumerate() {
                    *point = s.at(&self.points[number * apart + i * to.channels..][..to.channels], c, 0.0);
                }
                let [mut upper, mut lower] = [[zero; 4]; 2];
                for column in 0..4 {
                    let four = [points[column], points[4 + column], points[8 + column], points[12 + column]];
                    [upper[column], lower[column]] = back(s, four);
                }
                let bias = s.at(self.bias, c, 0.0);
                for (line, y) in [upper, lower].into_iter().zip(y..to.height) {
                    for (pixel, x) in back(s, line).into_iter().zip(x..to.width) {
                        let place = (picture * to.pixels() + y * to.width + x - first) * to.channels;
                        let mut sum = s.add(pixel, bias);
                        if !self.added.is_empty() {
                            sum = s.add(sum, s.at(&self.added[place..][..to.channels], c, 0.0));
                        }
                        s.put(activation(sum), &mut out[place..][..to.channels], c);
                    }
                }
            }
        }
    }
}
