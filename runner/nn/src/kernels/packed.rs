//! Linear maps whose weights were arranged beforehand: where inference spends its time.
//!
//! The weights lie in panels of two vectors of outputs, ordered as they are read. A register tile of a few rows and one panel
//! runs over all inputs, so that no partial sum leaves the registers, and what follows the product happens while the tile
//! is in the cache. Each value is one chain of multiply-adds in the order of the inputs: a row's result does not depend on
//! the rows beside it, nor on how work is split.

#![expect(unsafe_code, reason = "the inner loop reads by pointers whose bounds are checked once before it")]

use std::{
    alloc::{Layout, alloc_zeroed, handle_alloc_error},
    ops::Range,
};

use rayon::prelude::*;

use super::{activation::activated, simd::Simd};
use crate::{Activation, Isa, isa::Level};

/// Most rows of a register tile. With two vectors a row, eight fill half the registers of AVX-512; more rows at a power of
/// two of bytes apart would push each other out of the first cache.
const MOST_ROWS: usize = 8;
/// The same for the 16 registers of AVX2.
const MOST_ROWS_AVX2: usize = 6;
/// Most outputs of a panel.
const MOST_PANEL: usize = 32;
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
    /// Arranges a row-major matrix of `outputs · inputs` values, on all threads of the pool it is called in.
    pub(crate) fn new(isa: Isa, outputs: usize, inputs: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), outputs * inputs, "values of a matrix");
        let mut packed = Self::outline(isa, outputs, inputs);
        let panel = panel(isa);
        packed.lines = zeroed((packed.panels() * inputs * panel).div_ceil(LINE));
        let length = (panel * inputs).max(1);
        let panels = packed.values_mut().par_chunks_mut(length).zip(values.par_chunks(length));
        panels.for_each(|(to, from)| arrange(from, inputs, panel, to));
        packed
    }

    /// A matrix of a shape, without values.
    pub(crate) fn outline(isa: Isa, outputs: usize, inputs: usize) -> Self {
        Self { isa, outputs, inputs, lines: Vec::new() }
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

/// So many lines of zeros; the system has them ready, so that threads may be the first to touch them.
fn zeroed(lines: usize) -> Vec<Line> {
    let Ok(layout) = Layout::array::<Line>(lines) else { panic!("{lines} cache lines, more than there is memory") };
    if layout.size() == 0 {
        return Vec::new();
    }
    // SAFETY: the layout has a size, is that of a vector of so many lines, and all bits 0 are a line.
    unsafe {
        let start = alloc_zeroed(layout);
        if start.is_null() {
            handle_alloc_error(layout);
        }
        Vec::from_raw_parts(start.cast(), lines, lines)
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

    /// The picture of a row, and which of `starts` are its pieces'. The row must be one of those there are.
    #[inline(always)]
    fn row(&self, row: usize) -> (*const f32, usize) {
        let rows = self.starts.len() / self.count;
        (self.pictures.as_ptr().wrapping_add(row / rows * self.picture), row % rows * self.count)
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
    tiles(left, weight, finish, Part { rows: 0..rows, panels }, Target(out.as_mut_ptr()));
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
        tiles(left, weight, finish, part, target);
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

/// Some rows and panels of the result; operands were [`checked`] and nobody else uses those values.
fn tiles(left: Left<'_>, weight: &Packed, finish: Finish<'_>, part: Part, out: Target) {
    let (isa, panel) = (weight.isa, weight.panel());
    let most = if isa.level() == Level::Avx2 { MOST_ROWS_AVX2 } else { MOST_ROWS };
    let count = part.rows.len();
    let tiles = count.div_ceil(most);
    let (_, length) = left.pieces(weight.inputs);
    let mut sums = Sums([0.0; MOST_ROWS * MOST_PANEL]);
    for number in part.panels.clone() {
        let size = panel * weight.inputs;
        let values = &weight.values()[number * size..][..size];
        let next = weight.values()[(number + 1).min(part.panels.end - 1) * size..].as_ptr();
        let first = number * panel;
        let columns = panel.min(weight.outputs - first);
        for tile in 0..tiles {
            let row = part.rows.start + count * tile / tiles;
            let rows = part.rows.start + count * (tile + 1) / tiles - row;
            let ahead = Ahead { place: next.wrapping_add(size * tile / tiles), step: panel.div_ceil(tiles) };
            let tile = Tile { left, length, values, row, ahead };
            let sums = &mut sums.0[..rows * panel];
            match rows {
                1 => tile1(isa, tile, sums),
                2 => tile2(isa, tile, sums),
                3 => tile3(isa, tile, sums),
                4 => tile4(isa, tile, sums),
                5 => tile5(isa, tile, sums),
                6 => tile6(isa, tile, sums),
                7 => tile7(isa, tile, sums),
                _ => tile8(isa, tile, sums),
            }
            let place = Place { start: row * weight.outputs + first, stride: weight.outputs, first, columns };
            write(isa, finish, sums, place, out);
        }
    }
}

/// The sums of a tile.
#[repr(align(64))]
struct Sums([f32; MOST_ROWS * MOST_PANEL]);

/// Some rows of the result and the columns of one panel.
#[derive(Clone, Copy)]
struct Tile<'a> {
    left: Left<'a>,
    /// Values of a piece of a row.
    length: usize,
    /// The panel.
    values: &'a [f32],
    row: usize,
    ahead: Ahead,
}

/// What is brought into the cache while a tile is computed: its share of the next panel, so that with few rows, where each
/// panel is used but a few times, the memory works while the sums do.
#[derive(Clone, Copy)]
struct Ahead {
    place: *const f32,
    /// Values for each input.
    step: usize,
}

// A function of its own for each number of rows: together in one, the compiler keeps the sums in memory.
kernel! { fn tile1(tile: Tile<'_>, sums: &mut [f32]) = tile_body::<_, 1>; }
kernel! { fn tile2(tile: Tile<'_>, sums: &mut [f32]) = tile_body::<_, 2>; }
kernel! { fn tile3(tile: Tile<'_>, sums: &mut [f32]) = tile_body::<_, 3>; }
kernel! { fn tile4(tile: Tile<'_>, sums: &mut [f32]) = tile_body::<_, 4>; }
kernel! { fn tile5(tile: Tile<'_>, sums: &mut [f32]) = tile_body::<_, 5>; }
kernel! { fn tile6(tile: Tile<'_>, sums: &mut [f32]) = tile_body::<_, 6>; }
kernel! { fn tile7(tile: Tile<'_>, sums: &mut [f32]) = tile_body::<_, 7>; }
kernel! { fn tile8(tile: Tile<'_>, sums: &mut [f32]) = tile_body::<_, 8>; }

/// The products of `M` rows from `row` on with a panel; operands were [`checked`].
#[inline(always)]
fn tile_body<S: Simd, const M: usize>(s: S, tile: Tile<'_>, out: &mut [f32]) {
    let Tile { left, length, values, row, mut ahead } = tile;
    let mut sums = [[s.splat(0.0); 2]; M];
    let mut rows = [values.as_ptr(); M];
    match left {
        Left::Rows(left) => {
            for (i, start) in rows.iter_mut().enumerate() {
                *start = left[(row + i) * length..][..length].as_ptr();
            }
            // SAFETY: each row has `length` values.
            unsafe { piece(s, rows, length, values, &mut ahead, &mut sums) };
        }
        Left::Pieces(pieces) => {
            let mut own = [(values.as_ptr(), 0); M];
            for (i, own) in own.iter_mut().enumerate() {
                *own = pieces.row(row + i);
            }
            for number in 0..pieces.count {
                for (start, (picture, first)) in rows.iter_mut().zip(own) {
                    *start = match pieces.starts[first + number] {
                        Pieces::NOTHING => pieces.zeros.as_ptr(),
                        place => picture.wrapping_add(place as usize),
                    };
                }
                // SAFETY: each piece has `length` values.
                unsafe { piece(s, rows, length, &values[number * length * 2 * S::LANES..], &mut ahead, &mut sums) };
            }
        }
    }
    for (out, sums) in out.chunks_exact_mut(2 * S::LANES).zip(sums) {
        s.store(sums[0], out);
        s.store(sums[1], &mut out[S::LANES..]);
    }
}

/// Adds the products of `length` values of each row with as many pairs of vectors of a panel.
///
/// # Safety
/// Each row has `length` values.
#[inline(always)]
unsafe fn piece<S: Simd, const M: usize>(
    s: S,
    rows: [*const f32; M],
    length: usize,
    panel: &[f32],
    ahead: &mut Ahead,
    sums: &mut [[S::V; 2]; M],
) {
    let panel = &panel[..length * 2 * S::LANES];
    let Ahead { mut place, step } = *ahead;
    let mut sum = *sums;
    for (p, right) in panel.chunks_exact(2 * S::LANES).enumerate() {
        let right = [s.load(right), s.load(&right[S::LANES..])];
        s.prefetch(place);
        place = place.wrapping_add(step);
        for (sum, row) in sum.iter_mut().zip(rows) {
            // SAFETY: p < length.
            let left = s.splat(unsafe { *row.add(p) });
            sum[0] = s.fma(left, right[0], sum[0]);
            sum[1] = s.fma(left, right[1], sum[1]);
        }
    }
    *sums = sum;
    ahead.place = place;
}

/// Where a tile stands in the result.
#[derive(Clone, Copy)]
struct Place {
    /// The place of its first value.
    start: usize,
    /// Values from one row to the next.
    stride: usize,
    /// Its first column, and how many it has.
    first: usize,
    columns: usize,
}

kernel! {
    /// Writes a tile with what follows the product. The result has its rows and columns, and nobody else uses them.
    fn write(finish: Finish<'_>, sums: &[f32], place: Place, out: Target) = write_body;
}

#[inline(always)]
fn write_body<S: Simd>(s: S, finish: Finish<'_>, sums: &[f32], place: Place, out: Target) {
    let Finish { bias, added, activation } = finish;
    let rows = Written { s, bias, added, sums, place, out };
    match activation {
        Activation::None => rows.write(|x| x),
        Activation::Gelu => rows.write(|x| activated(s, Activation::Gelu, x)),
        Activation::QuickGelu => rows.write(|x| activated(s, Activation::QuickGelu, x)),
        other => rows.write(|x| activated(s, other, x)),
    }
}

/// A tile that is written.
struct Written<'a, S> {
    s: S,
    bias: &'a [f32],
    added: Added<'a>,
    sums: &'a [f32],
    place: Place,
    out: Target,
}

impl<S: Simd> Written<'_, S> {
    #[inline(always)]
    fn write(&self, activation: impl Fn(S::V) -> S::V) {
        let Place { start, stride, first, columns } = self.place;
        let (s, zero) = (self.s, self.s.splat(0.0));
        let bias = if self.bias.is_empty() { self.bias } else { &self.bias[first..][..columns] };
        for i in (0..columns).step_by(S::LANES) {
            let bias = if bias.is_empty() { zero } else { s.at(bias, i, 0.0) };
            for (row, sums) in self.sums.chunks_exact(2 * S::LANES).enumerate() {
                let at = start + row * stride;
                // SAFETY: the row and the columns are inside of the result, and nobody else uses them.
                let out = unsafe { std::slice::from_raw_parts_mut(self.out.0.add(at), columns) };
                let sum = s.add(s.load(&sums[i..]), bias);
                let sum = match self.added {
                    Added::Nothing => sum,
                    Added::Result => s.add(sum, s.at(out, i, 0.0)),
                    Added::Matrix(added) => s.add(sum, s.at(&added[at..][..columns], i, 0.0)),
                };
                s.put(activation(sum), out, i);
            }
        }
    }
}
