//! Convolutions of 3 × 3 pixels without stride, with a quarter of the products or 4/9 of them: F(4 × 4, 3 × 3) and F(2 × 2, 3 × 3)
//! of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.
//!
//! A tile of results is computed from the pixels that it sees, two more in each direction. Pixels and weights are brought to as
//! many points, at each of which the convolution is a linear map of the channels, and the results of the maps back to pixels.

mod gradient;
mod points;

use std::ops::{Deref, DerefMut, Range};

use rayon::prelude::*;

pub(crate) use self::gradient::{winograd_gradient, winograd_gradient_scratch};
use self::points::{from_points, to_points, weight_points};
use super::{
    convolution::Sweep,
    packed::{Finish, linear},
    panels::{Lines, Packed, Source},
    windows::Left,
};
use crate::{
    Isa, Window,
    pool::{Buffer, Workers},
};

/// Fewest channels that are worth it: the maps must be more work than the ways there and back.
const CHANNELS: usize = 16;
/// Most weights at a point of large tiles: more are read from memory, which takes longer than what is saved.
const LARGE: usize = 1 << 17;
/// Values between the results of two points, so that they do not fall on the same places of the cache.
const APART: usize = 16;

/// The weights of a convolution at each point.
pub(crate) struct Winograd<V = Lines> {
    points: Vec<Packed<V>>,
}

/// Which way a kernel is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    There,
    /// From the gradient of what a convolution made to that of what it read: a convolution with the kernel turned round.
    Back,
}

impl Winograd {
    /// Brings a kernel `[outputs, 3 · 3 · channels]` to the points, on all threads of the pool it is called in.
    pub(crate) fn new(isa: Isa, outputs: usize, channels: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), outputs * 9 * channels, "values of a kernel");
        let make = |source: Source<'_>| Packed::owned(isa, source);
        let mut maps = vec![0.0; outputs * points(outputs, channels) * channels];
        Self::over(isa, channels, values, Way::There, &mut maps, make)
    }
}

impl Winograd<Buffer> {
    /// The same in borrowed buffers: for weights that change.
    pub(crate) fn borrowed(workers: &Workers, channels: usize, values: &[f32], way: Way) -> Self {
        let outputs = values.len() / (9 * channels).max(1);
        let mut maps = workers.buffer(outputs * points(outputs, channels) * channels);
        let make = |source: Source<'_>| Packed::borrowed(workers, source);
        Self::over(workers.isa(), channels, values, way, &mut maps, make)
    }
}

impl<V: DerefMut<Target = [f32]> + Send> Winograd<V> {
    fn over(
        isa: Isa,
        channels: usize,
        values: &[f32],
        way: Way,
        maps: &mut [f32],
        make: impl Fn(Source<'_>) -> Packed<V> + Sync,
    ) -> Self {
        let outputs = values.len() / (9 * channels).max(1);
        let count = points(outputs, channels);
        // For each output the weights at all points.
        let each = count * channels;
        let kernels = maps.par_chunks_exact_mut(each.max(1)).zip(values.par_chunks_exact((9 * channels).max(1)));
        kernels.for_each(|(maps, kernel)| weight_points(isa, count, way, kernel, maps));
        let maps = &*maps;
        let point = |number: usize| {
            let values = &maps[number * channels..];
            make(match way {
                Way::There => Source::strided(values, [outputs, channels], [each, 1]),
                Way::Back => Source::strided(values, [channels, outputs], [1, each]),
            })
        };
        Self { points: (0..count).into_par_iter().map(point).collect() }
    }
}

impl<V> Winograd<V> {
    /// Whether convolutions over such a window are computed so.
    pub(crate) fn suits(window: Window, channels: usize, outputs: usize) -> bool {
        (window.size, window.stride) == (3, 1) && window.before <= 2 && channels.min(outputs) >= CHANNELS
    }

    /// `(outputs, 9 · channels)`, as of the convolution.
    pub(crate) fn shape(&self) -> (usize, usize) {
        self.points.first().map_or((0, 0), |point| (point.shape().0, 9 * point.shape().1))
    }
}

/// Lines of results in the tiles of a convolution.
fn side(outputs: usize, channels: usize) -> usize {
    if outputs * channels <= LARGE { 4 } else { 2 }
}

/// Points of its tiles.
fn points(outputs: usize, channels: usize) -> usize {
    (side(outputs, channels) + 2).pow(2)
}

/// Tiles of a picture, and lines of them.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    sweep: Sweep,
    /// Lines of results in a tile.
    side: usize,
    /// Tiles in a line of them.
    across: usize,
    /// Lines of tiles in a picture.
    down: usize,
}

impl Tiles {
    /// The tiles of what comes out of a convolution that [`Winograd::suits`].
    pub(crate) fn new(sweep: Sweep) -> Self {
        let side = side(sweep.to.channels, sweep.from.channels);
        Self { sweep, side, across: sweep.to.width.div_ceil(side), down: sweep.to.height.div_ceil(side) }
    }

    /// Whether they are large ones.
    pub(crate) fn large(&self) -> bool {
        self.side == 4
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
        line / self.down * self.sweep.to.pixels() + self.side * (line % self.down) * self.sweep.to.width
    }

    /// Picture, line and column of the first pixel of a tile.
    fn corner(&self, tile: usize) -> (usize, usize, usize) {
        let line = tile / self.across;
        (line / self.down, self.side * (line % self.down), self.side * (tile % self.across))
    }

    fn points(&self) -> usize {
        (self.side + 2).pow(2)
    }

    /// Values that [`winograd`] needs for so many lines.
    pub(crate) fn scratch(&self, lines: usize) -> usize {
        self.points() * (lines * self.across * (self.sweep.from.channels + self.sweep.to.channels) + 2 * APART)
    }
}

/// `finish(convolution)` of some lines of tiles, on this thread. `out` begins with the first pixel of the first of them, as does
/// what is added.
pub(crate) fn winograd<V: Deref<Target = [f32]>>(
    weight: &Winograd<V>,
    tiles: Tiles,
    pictures: &[f32],
    lines: Range<usize>,
    finish: Finish<'_>,
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let Some(isa) = weight.points.first().map(Packed::isa) else { return };
    let (Sweep { from, to, .. }, count) = (tiles.sweep, tiles.points());
    assert_eq!(weight.points.len(), count, "points of the tiles of a convolution");
    let some = lines.start * tiles.across..lines.end * tiles.across;
    let (there, back) = scratch.split_at_mut(count * (some.len() * from.channels + APART));
    let (before, after) = (there.len() / count, some.len() * to.channels + APART);
    to_points(isa, tiles, pictures, 0..from.channels, some.clone(), from.channels, there);
    let each = there.chunks_exact(before).zip(back.chunks_exact_mut(after));
    for (map, (there, back)) in weight.points.iter().zip(each) {
        let left = Left::Rows(&there[..some.len() * from.channels]);
        linear(left, map, 0..map.panels(), Finish::NOTHING, back);
    }
    from_points(isa, tiles, &back[..count * after], some, finish, out);
}
