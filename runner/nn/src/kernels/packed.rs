//! Linear maps whose weights were arranged beforehand: where inference spends its time.
//!
//! The weights lie in panels of two vectors of outputs, ordered as they are read. A register tile of a few rows and one panel
//! runs over all inputs, so that no partial sum leaves the registers, and what follows the product happens while the tile
//! is in the cache. Each value is one chain of multiply-adds in the order of the inputs: a row's result does not depend on
//! the rows beside it, nor on how work is split.

#![expect(unsafe_code, reason = "the inner loop reads by pointers whose bounds are checked once before it")]

use std::ops::Range;

use rayon::prelude::*;

use super::{activation::activated, simd::Simd};
use crate::{Activation, Isa, isa::Level};

/// Most rows of a register tile. With two vectors a row, eight fill half the registers of AVX-512; more rows at a power of
/// two of bytes apart would push each other out of the first cache.
const MOST_ROWS: usize = 8;
/// The same for the 16 registers of AVX2.
const MOST_ROWS_AVX2: usize = 6;
/// Numbers of a cache line.
const LINE: usize = 16;

/// A cache line of numbers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// The matrix of a linear map, `[outputs, inputs]`, in panels for one instruction set.
pub(crate) struct Packed {
    isa: Isa,
    outputs: usize,
    inputs: usize,
    /// Panels of `[inputs, panel]` values; outputs beyond the last one are 0.
    lines: Vec<Line>,
}

impl Packed {
    /// Arranges a row-major matrix of `outputs · inputs` values.
    pub(crate) fn new(isa: Isa, outputs: usize, inputs: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), outputs * inputs, "values of a matrix");
        let panel = panel(isa);
        let mut packed = Self { isa, outputs, inputs, lines: Vec::new() };
        packed.lines = vec![Line([0.0; LINE]); (packed.panels() * inputs * panel).div_ceil(LINE)];
        let rows = values.chunks_exact((panel * inputs).max(1));
        let rest = rows.remainder();
        let rest = (!rest.is_empty()).then_some(rest);
        for (to, from) in packed.values_mut().chunks_exact_mut((panel * inputs).max(1)).zip(rows.chain(rest)) {
            arrange(from, inputs, panel, to);
        }
        packed
    }

    /// `(outputs, inputs)`.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    /// Outputs of a panel.
    pub(crate) fn panel(&self) -> usize {
        panel(self.isa)
    }

    /// How many panels there are.
    pub(crate) fn panels(&self) -> usize {
        self.outputs.div_ceil(self.panel())
    }

    fn values(&self) -> &[f32] {
        // SAFETY: lines are arrays of numbers without gaps.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * LINE) }
    }

    fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * LINE) }
    }
}

/// Outputs of a panel: two vectors.
fn panel(isa: Isa) -> usize {
    match isa.level() {
        Level::Scalar => 2,
        Level::Avx2 => 16,
        Level::Avx512 => 32,
    }
}

/// Rows of a matrix as a panel, some columns at a time so that both sides stay in the cache.
fn arrange(from: &[f32], inputs: usize, panel: usize, to: &mut [f32]) {
    for first in (0..inputs).step_by(LINE) {
        let columns = LINE.min(inputs - first);
        for (output, row) in from.chunks_exact(inputs).enumerate() {
            let to = to[first * panel..].iter_mut().skip(output).step_by(panel);
            for (to, value) in to.zip(&row[first..first + columns]) {
                *to = *value;
            }
        }
    }
}

/// The rows that a map takes.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Rows of as many values as there are inputs, one after another.
    Rows(&'a [f32]),
    /// Rows in pieces that lie about in pictures: what windows cover.
    Pieces(Pieces<'a>),
}

/// Rows put together from pieces of pictures, the same of every picture.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'a> {
    pictures: &'a [f32],
    /// Values of a picture.
    picture: usize,
    /// For each row of a picture, where its pieces begin there, or [`Pieces::NOTHING`].
    starts: &'a [u32],
    /// Pieces of a row.
    count: usize,
    /// Values of a piece.
    length: usize,
    /// As many zeros.
    zeros: &'a [f32],
}

impl<'a> Pieces<'a> {
    /// The start of a piece that lies in the padding: zeros.
    pub(crate) const NOTHING: u32 = u32::MAX;

    /// Rows of `count` pieces of `length` values; `starts` has those of each row of a picture.
    pub(crate) fn new(
        pictures: &'a [f32],
        picture: usize,
        starts: &'a [u32],
        (count, length): (usize, usize),
        zeros: &'a [f32],
    ) -> Self {
        assert!(count > 0 && length > 0 && starts.len().is_multiple_of(count), "whole rows of pieces");
        assert!(picture > 0 && pictures.len().is_multiple_of(picture), "whole pictures");
        assert!(zeros.len() >= length, "zeros for the padding");
        let inside = |start: &u32| *start == Self::NOTHING || *start as usize + length <= picture;
        assert!(starts.iter().all(inside), "pieces inside of their picture");
        Self { pictures, picture, starts, count, length, zeros }
    }

    /// Where a piece of a row begins. The row must be one of those there are.
    #[inline(always)]
    fn start(&self, row: usize, piece: usize) -> *const f32 {
        let rows = self.starts.len() / self.count;
        match self.starts[row % rows * self.count + piece] {
            Self::NOTHING => self.zeros.as_ptr(),
            start => self.pictures.as_ptr().wrapping_add(row / rows * self.picture + start as usize),
        }
    }
}

impl Left<'_> {
    /// Rows for a map of so many inputs.
    pub(crate) fn rows(&self, inputs: usize) -> usize {
        match self {
            Self::Rows(values) => values.len() / inputs.max(1),
            Self::Pieces(pieces) => pieces.pictures.len() / pieces.picture * (pieces.starts.len() / pieces.count),
        }
    }

    /// Pieces of a row and their length.
    fn pieces(&self, inputs: usize) -> (usize, usize) {
        match self {
            Self::Rows(_) => (1, inputs),
            Self::Pieces(pieces) => (pieces.count, pieces.length),
        }
    }
}

/// What follows the product: `activation(product + bias + added)`.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// One for each output, or empty.
    pub(crate) bias: &'a [f32],
    pub(crate) added: Added<'a>,
    pub(crate) activation: Activation,
}

/// What is added to a product besides its bias.
#[derive(Clone, Copy)]
pub(crate) enum Added<'a> {
    Nothing,
    /// What stands where the result goes.
    Result,
    /// A matrix of the result's shape.
    Matrix(&'a [f32]),
}

impl Finish<'_> {
    /// The bare product.
    pub(crate) const NOTHING: Self = Self { bias: &[], added: Added::Nothing, activation: Activation::None };
}

/// A part of a result, by rows and panels.
#[derive(Clone)]
struct Part {
    rows: Range<usize>,
    panels: Range<usize>,
}

/// `out = finish(left · weightᵀ)` on this thread, for some panels: other columns of `out` stay as they are.
pub(crate) fn linear(left: Left<'_>, weight: &Packed, panels: Range<usize>, finish: Finish<'_>, out: &mut [f32]) {
    let rows = checked(left, weight, &panels, finish, out);
    tiles(weight.isa, left, weight, finish, Part { rows: 0..rows, panels }, Target(out.as_mut_ptr()));
}

/// As [`linear`], on all threads of the pool it is called in: each computes `part.0` rows and `part.1` panels at a time.
pub(crate) fn linear_spread(
    left: Left<'_>,
    weight: &Packed,
    panels: Range<usize>,
    finish: Finish<'_>,
    part: (usize, usize),
    out: &mut [f32],
) {
    let all = checked(left, weight, &panels, finish, out);
    let target = Target(out.as_mut_ptr());
    let (rows, columns) = (part.0.max(1), part.1.max(1));
    let across = panels.len().div_ceil(columns);
    (0..all.div_ceil(rows) * across).into_par_iter().for_each(|part| {
        let (row, panel) = (part / across * rows, panels.start + part % across * columns);
        let part = Part { rows: row..(row + rows).min(all), panels: panel..(panel + columns).min(panels.end) };
        // No two parts share a value.
        tiles(weight.isa, left, weight, finish, part, target);
    });
}

/// Fails on operands that do not fit; gives the number of rows.
fn checked(left: Left<'_>, weight: &Packed, panels: &Range<usize>, finish: Finish<'_>, out: &[f32]) -> usize {
    let rows = left.rows(weight.inputs);
    let (count, length) = left.pieces(weight.inputs);
    assert_eq!(count * length, weight.inputs, "inputs of a map");
    assert!(panels.end <= weight.panels(), "panels of a map");
    assert!(out.len() >= rows * weight.outputs, "room for the result of a map");
    assert!(finish.bias.is_empty() || finish.bias.len() >= weight.outputs, "bias of a map");
    if let Added::Matrix(added) = finish.added {
        assert!(added.len() >= rows * weight.outputs, "what is added to the result of a map");
    }
    rows
}

/// The start of a result.
#[derive(Clone, Copy)]
struct Target(*mut f32);

// SAFETY: threads write to different values, see `linear_spread`.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

kernel! {
    /// Some rows and panels of the result; operands were [`checked`] and nobody else uses those values.
    fn tiles(left: Left<'_>, weight: &Packed, finish: Finish<'_>, part: Part, out: Target) = tiles_body;
}

#[inline(always)]
fn tiles_body<S: Simd>(s: S, left: Left<'_>, weight: &Packed, finish: Finish<'_>, part: Part, out: Target) {
    let most = if S::LANES == 8 { MOST_ROWS_AVX2 } else { MOST_ROWS };
    let count = part.rows.len();
    let tiles = count.div_ceil(most);
    let (_, length) = left.pieces(weight.inputs);
    let panel = 2 * S::LANES;
    for number in part.panels {
        let values = &weight.values()[number * panel * weight.inputs..][..panel * weight.inputs];
        let first = number * panel;
        let columns = panel.min(weight.outputs - first);
        for tile in 0..tiles {
            let row = part.rows.start + count * tile / tiles;
            let rows = part.rows.start + count * (tile + 1) / tiles - row;
            let tile = Tile { left, length, values, finish, first, columns, outputs: weight.outputs, row };
            // SAFETY: the rows and columns are inside of the operands, which were checked.
            unsafe {
                match rows {
                    1 => tile.run::<S, 1>(s, out),
                    2 => tile.run::<S, 2>(s, out),
                    3 => tile.run::<S, 3>(s, out),
                    4 => tile.run::<S, 4>(s, out),
                    5 => tile.run::<S, 5>(s, out),
                    6 => tile.run::<S, 6>(s, out),
                    7 => tile.run::<S, 7>(s, out),
                    _ => tile.run::<S, MOST_ROWS>(s, out),
                }
            }
        }
    }
}

/// Some rows of the result and the columns of one panel.
struct Tile<'a> {
    left: Left<'a>,
    /// Values of a piece of a row.
    length: usize,
    /// The panel.
    values: &'a [f32],
    finish: Finish<'a>,
    first: usize,
    columns: usize,
    /// Columns of the whole result.
    outputs: usize,
    row: usize,
}

impl Tile<'_> {
    /// # Safety
    /// The left operand has `M` rows from `row` on; the result has those rows and `columns` columns from `first` on, and
    /// nobody else uses them.
    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize>(&self, s: S, out: Target) {
        let mut sums = [[s.splat(0.0); 2]; M];
        match self.left {
            Left::Rows(values) => {
                let rows = std::array::from_fn(|i| values[(self.row + i) * self.length..][..self.length].as_ptr());
                // SAFETY: each row has `length` values, and so many pairs of vectors has the panel.
                unsafe { self.piece(s, rows, 0, &mut sums) };
            }
            Left::Pieces(pieces) => {
                for piece in 0..pieces.count {
                    let rows = std::array::from_fn(|i| pieces.start(self.row + i, piece));
                    // SAFETY: each piece has `length` values, and all pieces as many as the panel has pairs of vectors.
                    unsafe { self.piece(s, rows, piece * self.length, &mut sums) };
                }
            }
        }
        let mut raw = [[0.0f32; 32]; M];
        for (raw, sums) in raw.iter_mut().zip(sums) {
            s.store(sums[0], &mut raw[..S::LANES]);
            s.store(sums[1], &mut raw[S::LANES..]);
        }
        for (i, raw) in raw.iter().enumerate() {
            let start = (self.row + i) * self.outputs + self.first;
            // SAFETY: as the caller promises.
            let out = unsafe { std::slice::from_raw_parts_mut(out.0.add(start), self.columns) };
            self.write(s, &raw[..self.columns], start, out);
        }
    }

    /// Adds the product of one piece of each row with the panel's part from input `first` on.
    ///
    /// # Safety
    /// Each piece has `length` values; the panel has `first + length` inputs.
    #[inline(always)]
    unsafe fn piece<S: Simd, const M: usize>(
        &self,
        s: S,
        rows: [*const f32; M],
        first: usize,
        sums: &mut [[S::V; 2]; M],
    ) {
        let mut sum = *sums;
        let panel = self.values[first * 2 * S::LANES..].as_ptr();
        for p in 0..self.length {
            // SAFETY: input p < length of the panel and of each row.
            unsafe {
                let right = std::slice::from_raw_parts(panel.add(p * 2 * S::LANES), 2 * S::LANES);
                let right = [s.load(right), s.load(&right[S::LANES..])];
                for (sum, row) in sum.iter_mut().zip(rows) {
                    let left = s.splat(*row.add(p));
                    sum[0] = s.fma(left, right[0], sum[0]);
                    sum[1] = s.fma(left, right[1], sum[1]);
                }
            }
        }
        *sums = sum;
    }

    /// Writes a row of the tile with what follows the product; `start` is its place in the result.
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, raw: &[f32], start: usize, out: &mut [f32]) {
        for i in (0..raw.len()).step_by(S::LANES) {
            let mut x = s.at(raw, i, 0.0);
            if !self.finish.bias.is_empty() {
                x = s.add(x, s.at(&self.finish.bias[self.first..][..raw.len()], i, 0.0));
            }
            match self.finish.added {
                Added::Nothing => {}
                Added::Result => x = s.add(x, s.at(out, i, 0.0)),
                Added::Matrix(added) => x = s.add(x, s.at(&added[start..][..raw.len()], i, 0.0)),
            }
            s.put(activated(s, self.finish.activation, x), out, i);
        }
    }
}
