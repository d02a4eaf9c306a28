//! The gradient of a kernel by tiles: what tiles saw and the gradient of what they made, both brought to the points, are
//! multiplied there and summed over tiles; that is the gradient of the weights at the points, which is brought back to the
//! weights. Each way is the transpose of one of the forward pass.

#![expect(unsafe_code, reason = "the inner loop reads by pointers whose bounds are checked once before it")]

use std::{
    f32::consts::{FRAC_1_SQRT_2, SQRT_2},
    ops::Range,
};

use super::{
    APART, Tiles,
    points::{LARGE, OVER, column, to_points},
};
use crate::{
    Isa,
    isa::Level,
    kernels::{
        gradient::{add_rows, arrange},
        packed::{MOST_ROWS, MOST_ROWS_AVX2, most_rows},
        panels::{LINE, panel},
        simd::Simd,
    },
};

/// Most tiles at a time: the points of so many for a panel of channels stay in the second cache.
const TILES: usize = 64;

/// Values of scratch that [`winograd_gradient`] needs.
pub(crate) fn winograd_gradient_scratch(isa: Isa, tiles: Tiles) -> usize {
    let (to, most, panel) = (tiles.sweep.to.channels, most_rows(isa), panel(isa));
    LARGE.1 * (to + TILES * to.next_multiple_of(most) + TILES * panel + APART + most * panel) + LINE
}

/// Adds the gradient of a kernel `[to, 3 · 3, from]` to `out`, for the pictures `x` that a convolution read and the gradient `dy`
/// of what it made. The tiles must be large ones.
pub(crate) fn winograd_gradient(isa: Isa, tiles: Tiles, x: &[f32], dy: &[f32], out: &mut [f32], scratch: &mut [f32]) {
    let (from, to) = (tiles.sweep.from, tiles.sweep.to);
    let images = x.len() / (from.pixels() * from.channels);
    assert!(tiles.large(), "large tiles");
    assert_eq!(dy.len(), images * to.pixels() * to.channels, "a gradient for each result");
    assert!(out.len() >= to.channels * 9 * from.channels, "room for the gradient of a kernel");
    assert!(scratch.len() >= winograd_gradient_scratch(isa, tiles), "scratch for the gradient of a kernel");
    let all = tiles.lines(images) * tiles.across;
    let parts = all.div_ceil(TILES);
    for part in 0..parts {
        let job = Job { isa, tiles, x, dy, first: all * part / parts, end: all * (part + 1) / parts };
        match isa.level() {
            Level::Avx2 => part6(isa, job, out, scratch),
            _ => part8(isa, job, out, scratch),
        }
    }
}

/// Some tiles.
#[derive(Clone, Copy)]
struct Job<'a> {
    isa: Isa,
    tiles: Tiles,
    x: &'a [f32],
    dy: &'a [f32],
    first: usize,
    end: usize,
}

kernel! { fn part6(job: Job<'_>, out: &mut [f32], scratch: &mut [f32]) = part_body::<_, MOST_ROWS_AVX2>; }
kernel! { fn part8(job: Job<'_>, out: &mut [f32], scratch: &mut [f32]) = part_body::<_, MOST_ROWS>; }

/// The points of what the tiles made are arranged in panels of `M` channels for all of them; those of what they saw for a panel
/// of two vectors at a time. The sums of a panel of each at all points stay in the cache until they are weights.
#[inline(always)]
fn part_body<S: Simd, const M: usize>(s: S, job: Job<'_>, out: &mut [f32], scratch: &mut [f32]) {
    let Job { isa, tiles, x, dy, first, end } = job;
    let (from, to) = (tiles.sweep.from.channels, tiles.sweep.to.channels);
    let (count, panel) = (end - first, 2 * S::LANES);
    // Vectors that begin with a cache line are read in one piece.
    let skip = scratch.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let (sums, rest) = scratch[skip..].split_at_mut(LARGE.1 * M * panel);
    let (right, rest) = rest.split_at_mut(LARGE.1 * (count * panel + APART));
    let apart = (count * to.next_multiple_of(M), count * panel + APART);
    let (left, row) = rest.split_at_mut(LARGE.1 * apart.0);
    for k in 0..count {
        made(s, tiles, dy, first + k, &mut row[..LARGE.1 * to]);
        for (point, row) in row[..LARGE.1 * to].chunks_exact(to).enumerate() {
            arrange::<M>(row, k, count, &mut left[point * apart.0..][..apart.0]);
        }
    }
    for j in (0..from).step_by(panel) {
        let channels = j..(j + panel).min(from);
        to_points(isa, tiles, x, channels.clone(), first..end, panel, right);
        for i in (0..to).step_by(M) {
            for (point, sums) in sums.chunks_exact_mut(M * panel).enumerate() {
                let (left, right) = (&left[point * apart.0 + i * count..], &right[point * apart.1..]);
                let (left, right) = (&left[..M * count], &right[..count * panel]);
                let mut found = [[s.splat(0.0); 2]; M];
                // SAFETY: both sides have so many rows.
                unsafe { add_rows(s, left.as_ptr(), right.as_ptr(), count, &mut found) };
                for (sums, found) in sums.chunks_exact_mut(panel).zip(found) {
                    s.store(found[0], sums);
                    s.store(found[1], &mut sums[S::LANES..]);
                }
            }
            for (row, output) in (i..to.min(i + M)).enumerate() {
                let kernel = &mut out[output * 9 * from..][..9 * from];
                to_weights(s, &sums[row * panel..], M * panel, channels.clone(), from, kernel);
            }
        }
    }
}

/// Brings the gradient of what a tile made to the points: for each point all channels.
#[inline(always)]
fn made<S: Simd>(s: S, tiles: Tiles, pictures: &[f32], tile: usize, out: &mut [f32]) {
    const N: usize = LARGE.0;
    let to = tiles.sweep.to;
    let channels = to.channels;
    let (picture, y, x) = tiles.corner(tile);
    // Pixels of the tile that the picture has.
    let (height, width) = ((to.height - y).min(4), (to.width - x).min(4));
    let first = picture * to.pixels() + y * to.width + x;
    for c in (0..channels).step_by(S::LANES) {
        let mut lines = [[s.splat(0.0); N]; 4];
        for y in 0..height {
            let mut pixels = [s.splat(0.0); 4];
            for (x, pixel) in pixels.iter_mut().enumerate().take(width) {
                *pixel = s.at(&pictures[(first + y * to.width + x) * channels..][..channels], c, 0.0);
            }
            lines[y] = made_line(s, pixels);
        }
        for x in 0..N {
            let points = made_line(s, column(&lines, x));
            for (y, point) in points.into_iter().enumerate() {
                s.put(point, &mut out[(y * N + x) * channels..][..channels], c);
            }
        }
    }
}

/// Gradients of a tile's line at its points: `A` of the paper.
#[inline(always)]
fn made_line<S: Simd>(s: S, d: [S::V; 4]) -> [S::V; LARGE.0] {
    let (near, far) = (made_pair(s, FRAC_1_SQRT_2, d), made_pair(s, SQRT_2, d));
    [d[0], near[0], near[1], far[0], far[1], d[3]]
}

/// At ±x. Functions, not closures, which would not be inlined with their vectors.
#[inline(always)]
fn made_pair<S: Simd>(s: S, x: f32, d: [S::V; 4]) -> [S::V; 2] {
    let even = s.fma(s.splat(x * x), d[2], d[0]);
    let odd = s.mul(s.splat(x), s.fma(s.splat(x * x), d[3], d[1]));
    [s.add(even, odd), s.sub(even, odd)]
}

/// Adds what the gradients of some channels' weights at the points, each `apart` from the last, give for the weights of a kernel.
#[inline(always)]
fn to_weights<S: Simd>(s: S, points: &[f32], apart: usize, channels: Range<usize>, all: usize, kernel: &mut [f32]) {
    const N: usize = LARGE.0;
    for c in (0..channels.len()).step_by(S::LANES) {
        let mut lines = [[s.splat(0.0); 3]; N];
        for y in 0..N {
            let mut seen = [s.splat(0.0); N];
            for (x, seen) in seen.iter_mut().enumerate() {
                *seen = s.load(&points[(y * N + x) * apart + c..]);
            }
            lines[y] = weights_line(s, seen);
        }
        for x in 0..3 {
            for (y, tap) in weights_line(s, column(&lines, x)).into_iter().enumerate() {
                let kernel = &mut kernel[(3 * y + x) * all..][channels.clone()];
                s.put(s.add(s.at(kernel, c, 0.0), tap), kernel, c);
            }
        }
    }
}

/// The points of a line back to its three weights: `Gᵀ` of the paper.
#[inline(always)]
fn weights_line<S: Simd>(s: S, g: [S::V; LARGE.0]) -> [S::V; 3] {
    let (near, far) = (s.splat(1.0 / OVER.0), s.splat(1.0 / OVER.1));
    let (near_even, near_odd) = (s.mul(near, s.add(g[1], g[2])), s.mul(near, s.sub(g[1], g[2])));
    let (far_even, far_odd) = (s.mul(far, s.add(g[3], g[4])), s.mul(far, s.sub(g[3], g[4])));
    [
        s.add(g[0], s.add(near_even, far_even)),
        s.fma(s.splat(FRAC_1_SQRT_2), near_odd, s.mul(s.splat(SQRT_2), far_odd)),
        s.add(g[5], s.fma(s.splat(0.5), near_even, s.mul(s.splat(2.0), far_even))),
    ]
}
