//! The gradient of a linear map's weight: products of what the map read and of the gradient of what it made, summed over rows.
//!
//! Both sides are arranged for some rows at a time, so that a register tile reads them from the cache in order; the sums of those
//! rows never leave the registers. Where a window covers padding nothing is read, arranged or multiplied.

#![expect(unsafe_code, reason = "the inner loop reads by pointers whose bounds are checked once before it")]

use std::ops::Range;

use super::{
    packed::{MOST_ROWS, MOST_ROWS_AVX2, most_rows},
    panels::{LINE, panel},
    simd::Simd,
    windows::Taps,
};
use crate::{Isa, isa::Level};

/// Most rows that are arranged at a time: a panel of so many stays in the first cache.
const ROWS: usize = 208;

/// One side of the product: some columns of a row-major matrix.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    values: &'a [f32],
    /// Values of a row.
    stride: usize,
    /// The first column, and how many.
    first: usize,
    width: usize,
}

impl<'a> Side<'a> {
    /// All columns of a matrix of so many.
    pub(crate) fn new(values: &'a [f32], width: usize) -> Self {
        Self { values, stride: width, first: 0, width }
    }

    /// Some of them.
    pub(crate) fn columns(self, first: usize, width: usize) -> Self {
        assert!(first + width <= self.width, "columns of a matrix");
        Self { first: self.first + first, width, ..self }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.stride.max(1)
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride + self.first..][..self.width]
    }

    /// What a tap reads that begins there.
    #[inline(always)]
    fn at(&self, start: usize) -> &'a [f32] {
        &self.values[start + self.first..][..self.width]
    }
}

/// Which rows belong together.
#[derive(Clone, Copy)]
pub(crate) enum Pairing<'a> {
    /// Row by row: `out` is `[left, right]`.
    Rows,
    /// A row on the left and what a tap covers on the right, for each tap: `out` is `[left, taps, right]`.
    There(&'a Taps),
    /// What a tap covers on the left and a row on the right, for each tap: `out` is `[taps, left, right]`.
    Back(&'a Taps),
}

impl<'a> Pairing<'a> {
    fn taps(self) -> Option<&'a Taps> {
        match self {
            Self::Rows => None,
            Self::There(taps) | Self::Back(taps) => Some(taps),
        }
    }
}

/// Values of scratch that [`weight_gradient`] needs for sides of such widths.
pub(crate) fn weight_gradient_scratch(isa: Isa, left: usize, right: usize) -> usize {
    ROWS * (left.next_multiple_of(most_rows(isa)) + right.next_multiple_of(panel(isa))) + LINE
}

/// Adds `Σ left[row, i] · right[row, j]` to `out`, for the rows that a pairing brings together.
pub(crate) fn weight_gradient(
    isa: Isa,
    left: Side<'_>,
    right: Side<'_>,
    pairing: Pairing<'_>,
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let (count, images) = match pairing {
        Pairing::Rows => (1, 1),
        Pairing::There(taps) | Pairing::Back(taps) => {
            let read = if matches!(pairing, Pairing::There(_)) { right } else { left };
            assert!(read.stride == read.width && read.values.len().is_multiple_of(taps.picture()), "whole pictures");
            (taps.count(), read.values.len() / taps.picture())
        }
    };
    let (rows, fixed) = match pairing {
        Pairing::Rows => (left.rows(), right.rows()),
        Pairing::There(taps) => (images * taps.places(), left.rows()),
        Pairing::Back(taps) => (images * taps.places(), right.rows()),
    };
    assert_eq!(rows, fixed, "rows of both sides");
    assert!(out.len() >= left.width * count * right.width, "room for a gradient");
    assert!(scratch.len() >= weight_gradient_scratch(isa, left.width, right.width), "scratch for a gradient");
    // Vectors that begin with a cache line are written in one piece.
    let skip = scratch.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let scratch = &mut scratch[skip..];
    let (row, tap) = match pairing {
        Pairing::There(_) => (count * right.width, right.width),
        _ => (right.width, left.width * right.width),
    };
    let job = Job { left, right, pairing, images, row };
    let chunks = rows.div_ceil(ROWS);
    for chunk in 0..chunks {
        let numbers = (rows * chunk / chunks, rows * (chunk + 1) / chunks);
        for number in 0..count {
            let out = &mut out[number * tap..];
            match isa.level() {
                Level::Avx2 => chunk6(isa, job, numbers, number, out, scratch),
                _ => chunk8(isa, job, numbers, number, out, scratch),
            }
        }
    }
}

/// What is multiplied.
#[derive(Clone, Copy)]
struct Job<'a> {
    left: Side<'a>,
    right: Side<'a>,
    pairing: Pairing<'a>,
    /// Pictures of what taps cover. Rows are numbered place by place, and in each picture by picture, so that those that a tap
    /// pairs lie side by side.
    images: usize,
    /// Values from a row of the result to the next.
    row: usize,
}

impl<'a> Job<'a> {
    /// The rows of some numbers of a side, which a tap moves or not; nothing for padding.
    #[inline(always)]
    fn rows(&self, side: Side<'a>, numbers: Range<usize>, tap: Option<usize>) -> Rows<'a> {
        let (place, picture) = (numbers.start / self.images, numbers.start % self.images);
        Rows { side, taps: self.pairing.taps(), tap, images: self.images, place, picture, left: numbers.len() }
    }

    /// The runs of some numbers for a tap, and how many there are.
    #[inline(always)]
    fn runs(&self, numbers: Range<usize>, tap: usize) -> ([Run; ROWS], usize) {
        let mut runs = [Run::default(); ROWS];
        let Some(taps) = self.pairing.taps() else {
            runs[0].length = numbers.len();
            return (runs, 1);
        };
        let (mut count, mut plain, mut moved) = (0, 0, 0);
        let mut place = numbers.start / self.images;
        while plain < numbers.len() {
            let length = ((place + 1) * self.images - numbers.start).min(numbers.len()) - plain;
            if taps.start(place, tap).is_some() {
                if count > 0 && runs[count - 1].plain + runs[count - 1].length == plain {
                    runs[count - 1].length += length;
                } else {
                    runs[count] = Run { plain, moved, length };
                    count += 1;
                }
                moved += length;
            }
            plain += length;
            place += 1;
        }
        (runs, count)
    }
}

/// Rows of one side, in the order of their numbers.
struct Rows<'a> {
    side: Side<'a>,
    taps: Option<&'a Taps>,
    tap: Option<usize>,
    images: usize,
    /// The next row's.
    place: usize,
    picture: usize,
    /// How many are left.
    left: usize,
}

impl<'a> Rows<'a> {
    /// The next one. Not an iterator, whose adapters would not be inlined.
    #[inline(always)]
    fn following(&mut self) -> Option<&'a [f32]> {
        while self.left > 0 {
            let (place, picture) = (self.place, self.picture);
            self.left -= 1;
            self.picture += 1;
            if self.picture == self.images {
                (self.place, self.picture) = (place + 1, 0);
            }
            match (self.taps, self.tap) {
                (None, _) => return Some(self.side.row(place)),
                (Some(taps), None) => return Some(self.side.row(picture * taps.places() + place)),
                (Some(taps), Some(tap)) => {
                    if let Some(start) = taps.start(place, tap) {
                        return Some(self.side.at(picture * taps.picture() + start));
                    }
                }
            }
        }
        None
    }
}

/// Rows that are multiplied one after another: where they begin on the side that taps move and on the other one, and how many.
#[derive(Clone, Copy, Default)]
struct Run {
    plain: usize,
    moved: usize,
    length: usize,
}

kernel! {
    fn chunk6(job: Job<'_>, numbers: (usize, usize), tap: usize, out: &mut [f32], scratch: &mut [f32]) =
        chunk_body::<_, MOST_ROWS_AVX2>;
}
kernel! {
    fn chunk8(job: Job<'_>, numbers: (usize, usize), tap: usize, out: &mut [f32], scratch: &mut [f32]) =
        chunk_body::<_, MOST_ROWS>;
}

/// One tap of some rows. The side that no tap moves is arranged with the first tap and read again with the others.
#[inline(always)]
fn chunk_body<S: Simd, const M: usize>(
    s: S,
    job: Job<'_>,
    (first, end): (usize, usize),
    tap: usize,
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let Job { left, right, pairing, .. } = job;
    let panel = 2 * S::LANES;
    let (lefts, rights) = scratch.split_at_mut(ROWS * left.width.next_multiple_of(M));
    let numbers = first..end;
    let (runs, count) = job.runs(numbers.clone(), tap);
    let (left_tap, right_tap) = match pairing {
        Pairing::Rows => (None, None),
        Pairing::There(_) => (None, Some(tap)),
        Pairing::Back(_) => (Some(tap), None),
    };
    if tap == 0 || left_tap.is_some() {
        arrange_left::<M>(job.rows(left, numbers.clone(), left_tap), lefts);
    }
    if tap == 0 || right_tap.is_some() {
        arrange_right(s, job.rows(right, numbers, right_tap), right.width, rights);
    }
    for (j, rights) in rights.chunks_exact(ROWS * panel).enumerate().take(right.width.div_ceil(panel)) {
        for (i, lefts) in lefts.chunks_exact(ROWS * M).enumerate() {
            let tile = Tile {
                lefts,
                rights,
                runs: &runs[..count],
                moved_left: left_tap.is_some(),
                start: i * M * job.row + j * panel,
                stride: job.row,
                rows: M.min(left.width - i * M),
                columns: panel.min(right.width - j * panel),
            };
            tile_body::<S, M>(s, tile, out);
        }
    }
}

/// Rows in panels of `M` columns; columns beyond the last one are 0.
#[inline(always)]
fn arrange_left<const M: usize>(mut rows: Rows<'_>, to: &mut [f32]) {
    let mut k = 0;
    while let Some(row) = rows.following() {
        arrange::<M>(row, k, ROWS, to);
        k += 1;
    }
}

/// A row as row `k` of panels of `M` columns that have so many rows.
#[inline(always)]
pub(super) fn arrange<const M: usize>(row: &[f32], k: usize, rows: usize, to: &mut [f32]) {
    let (pieces, rest) = row.as_chunks::<M>();
    let to = to.as_chunks_mut::<M>().0;
    // By numbers: iterators of two slices are not inlined here, and lose the vectors.
    for number in 0..pieces.len() {
        to[number * rows + k] = pieces[number];
    }
    if !rest.is_empty() {
        let mut last = [0.0; M];
        last[..rest.len()].copy_from_slice(rest);
        to[pieces.len() * rows + k] = last;
    }
}

/// Rows in panels of two vectors of columns; columns beyond the last one are 0.
#[inline(always)]
fn arrange_right<S: Simd>(s: S, mut rows: Rows<'_>, width: usize, to: &mut [f32]) {
    let panel = 2 * S::LANES;
    let mut k = 0;
    while let Some(row) = rows.following() {
        let mut j = 0;
        while j < width {
            let to = &mut to[j * ROWS + k * panel..][..panel];
            s.store(s.at(row, j, 0.0), to);
            let second = if j + S::LANES < width { s.at(row, j + S::LANES, 0.0) } else { s.splat(0.0) };
            s.store(second, &mut to[S::LANES..]);
            j += panel;
        }
        k += 1;
    }
}

/// Some rows of the result and the columns of one panel.
struct Tile<'a> {
    lefts: &'a [f32],
    rights: &'a [f32],
    runs: &'a [Run],
    /// Whether it is the left side that taps move.
    moved_left: bool,
    /// The place of its first value in the result, and values from one row to the next.
    start: usize,
    stride: usize,
    rows: usize,
    columns: usize,
}

#[inline(always)]
fn tile_body<S: Simd, const M: usize>(s: S, tile: Tile<'_>, out: &mut [f32]) {
    let Tile { lefts, rights, runs, moved_left, start, stride, rows, columns } = tile;
    for i in 0..rows {
        let place = out[start + i * stride..].as_ptr();
        s.prefetch(place);
        s.prefetch(place.wrapping_add(S::LANES));
    }
    let mut sums = [[s.splat(0.0); 2]; M];
    for run in runs {
        let Run { plain, moved, length } = *run;
        let (left, right) = if moved_left { (moved, plain) } else { (plain, moved) };
        assert!((left + length) * M <= lefts.len() && (right + length) * 2 * S::LANES <= rights.len(), "arranged rows");
        let (left, right) = (lefts[left * M..].as_ptr(), rights[right * 2 * S::LANES..].as_ptr());
        // SAFETY: both sides have rows for the whole run.
        unsafe { add_rows(s, left, right, length, &mut sums) };
    }
    for (i, sum) in sums.into_iter().enumerate() {
        if i < rows {
            let out = &mut out[start + i * stride..][..columns];
            s.put(s.add(s.at(out, 0, 0.0), sum[0]), out, 0);
            if columns > S::LANES {
                s.put(s.add(s.at(out, S::LANES, 0.0), sum[1]), out, S::LANES);
            }
        }
    }
}

/// Adds the products of arranged rows: each is `M` values on the left and two vectors on the right.
///
/// # Safety
/// Both sides have so many rows.
#[inline(always)]
pub(super) unsafe fn add_rows<S: Simd, const M: usize>(
    s: S,
    mut left: *const f32,
    mut right: *const f32,
    rows: usize,
    sums: &mut [[S::V; 2]; M],
) {
    let mut sum = *sums;
    for _ in 0..rows {
        // SAFETY: the row is one of so many.
        unsafe {
            let vectors = [
                s.load(std::slice::from_raw_parts(right, S::LANES)),
                s.load(std::slice::from_raw_parts(right.add(S::LANES), S::LANES)),
            ];
            for (i, sum) in sum.iter_mut().enumerate() {
                let value = s.splat(*left.add(i));
                sum[0] = s.fma(value, vectors[0], sum[0]);
                sum[1] = s.fma(value, vectors[1], sum[1]);
            }
            left = left.wrapping_add(M);
            right = right.wrapping_add(2 * S::LANES);
        }
    }
    *sums = sum;
}
