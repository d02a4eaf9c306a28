//! Kernels of convolutions, arranged for products, and how they are applied: on this thread, or on all.

use std::ops::{Deref, Range};

use rayon::prelude::*;

use crate::{
    kernels::{self, Added, Finish, Left, Lines, Packed, Sweep, Taps, Tiles, Windows, Winograd},
    pool::Workers,
};

/// Values of the points of the tiles that a thread computes at a time, which its own cache holds.
const TILES_VALUES: usize = 192 << 10;
/// Fewest tiles at a time: each time all weights are read.
const FEWEST_TILES: usize = 16;

/// The kernel of a convolution.
pub(crate) enum Kernel<V = Lines> {
    /// Of what a window covers, as of any linear map.
    Direct(Packed<V>),
    /// Of the points of tiles.
    Winograd(Winograd<V>),
}

impl<V> Kernel<V> {
    /// `(outputs, size · size · channels)`
    pub(crate) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Direct(packed) => packed.shape(),
            Self::Winograd(winograd) => winograd.shape(),
        }
    }

    /// The rows that it is applied to, unless they lie side by side.
    pub(crate) fn windows(&self, sweep: Sweep) -> Option<Windows> {
        let direct = matches!(self, Self::Direct(_)) && !sweep.window.is_pixel();
        direct.then(|| Windows::new(&Taps::there(sweep)))
    }
}

impl<V: Deref<Target = [f32]> + Sync> Kernel<V> {
    /// `finish(convolution)` of all pictures, for the windows that [`Kernel::windows`] gives; with `spread`, on all threads.
    pub(crate) fn apply(
        &self,
        workers: &Workers,
        (sweep, windows): (Sweep, Option<&Windows>),
        pictures: &[f32],
        finish: Finish<'_>,
        spread: bool,
        out: &mut [f32],
    ) {
        let weight = match self {
            Self::Direct(weight) => weight,
            Self::Winograd(weight) => return winograd(workers, weight, sweep, pictures, finish, spread, out),
        };
        let left = windows.map_or(Left::Rows(pictures), |windows| Left::Windows(windows, pictures));
        if spread {
            let parts = workers.parts(left.rows(weight.shape().1), weight.panels());
            workers.run(|| kernels::linear_spread(left, weight, 0..weight.panels(), finish, parts, out));
        } else {
            kernels::linear(left, weight, 0..weight.panels(), finish, out);
        }
    }
}

fn winograd<V: Deref<Target = [f32]> + Sync>(
    workers: &Workers,
    weight: &Winograd<V>,
    sweep: Sweep,
    pictures: &[f32],
    finish: Finish<'_>,
    spread: bool,
    out: &mut [f32],
) {
    let (tiles, outputs) = (Tiles::new(sweep), sweep.to.channels);
    let lines = tiles.lines(out.len() / (sweep.to.pixels() * outputs).max(1));
    let fit = (TILES_VALUES / tiles.scratch(1)).max(FEWEST_TILES.div_ceil(tiles.across()));
    let fair = if spread { lines.div_ceil(workers.threads()) } else { lines };
    let part = fair.div_ceil(fair.div_ceil(fit).max(1)).max(1);
    let mut parts = Vec::with_capacity(lines.div_ceil(part));
    let (mut rest, mut done) = (out, 0);
    for first in (0..lines).step_by(part) {
        let some = first..(first + part).min(lines);
        let end = tiles.pixel(some.end) * outputs;
        let (own, after) = rest.split_at_mut(end - done);
        parts.push((some, done, own));
        (rest, done) = (after, end);
    }
    let each = |(lines, first, out): (Range<usize>, usize, &mut [f32])| {
        let added = match finish.added {
            Added::Matrix(added) => Added::Matrix(&added[first..][..out.len()]),
            other => other,
        };
        let mut scratch = workers.buffer(tiles.scratch(lines.len()));
        kernels::winograd(weight, tiles, pictures, lines, Finish { added, ..finish }, &mut scratch, out);
    };
    if spread {
        workers.run(|| parts.into_par_iter().for_each(each));
    } else {
        parts.into_iter().for_each(each);
    }
}
