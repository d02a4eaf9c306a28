//! Linear maps whose weights were arranged beforehand: where inference spends its time, and half of training.
//!
//! The weights lie in panels of two vectors of outputs, ordered as they are read. A register tile of a few rows and one panel
//! runs over all inputs, so that no partial sum leaves the registers, and what follows the product happens while the tile
//! is in the cache. Each value is one chain of multiply-adds in the order of the inputs: a row's result does not depend on
//! the rows beside it, nor on how work is split. Padding that a window covers is left out.

#![expect(unsafe_code, reason = "the inner loop reads by pointers whose bounds are checked once before it")]

use std::ops::{Deref, Range};

use rayon::prelude::*;

use super::{
    activation::activated,
    panels::{MOST_PANEL, Packed},
    simd::Simd,
    windows::{Class, Left},
};
use crate::{Activation, Isa, isa::Level};

/// Most rows of a register tile. With two vectors a row, eight fill half the registers of AVX-512; more rows at a power of
/// two of bytes apart would push each other out of the first cache.
pub(super) const MOST_ROWS: usize = 8;
/// The same for the 16 registers of AVX2.
pub(super) const MOST_ROWS_AVX2: usize = 6;

/// Inputs from one test of the inner loop to the next.
const STEPS: usize = 4;
/// Most rows of a register tile.
pub(super) fn most_rows(isa: Isa) -> usize {
    if isa.level() == Level::Avx2 { MOST_ROWS_AVX2 } else { MOST_ROWS }
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
pub(crate) fn linear<V: Deref<Target = [f32]>>(
    left: Left<'_>,
    weight: &Packed<V>,
    panels: Range<usize>,
    finish: Finish<'_>,
    out: &mut [f32],
) {
    let weight = weight.view();
    let rows = checked(left, weight, &panels, finish, out);
    tiles(left, weight, finish, Part { rows: 0..rows, panels }, Target(out.as_mut_ptr()));
}

/// As [`linear`], on all threads of the pool it is called in: each computes `part.0` rows and `part.1` panels at a time.
pub(crate) fn linear_spread<V: Deref<Target = [f32]>>(
    left: Left<'_>,
    weight: &Packed<V>,
    panels: Range<usize>,
    finish: Finish<'_>,
    part: (usize, usize),
    out: &mut [f32],
) {
    let weight = weight.view();
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
fn checked(left: Left<'_>, weight: Packed<&[f32]>, panels: &Range<usize>, finish: Finish<'_>, out: &[f32]) -> usize {
    let (outputs, inputs) = weight.shape();
    left.check(inputs);
    let rows = left.rows(inputs);
    assert!(panels.end <= weight.panels(), "panels of a map");
    assert!(out.len() >= rows * outputs, "room for the result of a map");
    assert!(finish.bias.is_empty() || finish.bias.len() >= outputs, "bias of a map");
    if let Added::Matrix(added) = finish.added {
        assert!(added.len() >= rows * outputs, "what is added to the result of a map");
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
fn tiles(left: Left<'_>, weight: Packed<&[f32]>, finish: Finish<'_>, part: Part, out: Target) {
    let (isa, panel, (outputs, inputs)) = (weight.isa(), weight.panel(), weight.shape());
    let most = most_rows(isa);
    let all = left.classes(part.rows.clone()).map(|(_, rows)| rows.len().div_ceil(most)).sum();
    let size = panel * inputs;
    for number in part.panels.clone() {
        let values = &weight.values()[number * size..][..size];
        let next = weight.values()[(number + 1).min(part.panels.end - 1) * size..].as_ptr();
        let first = number * panel;
        let place = Place { first, columns: panel.min(outputs - first), outputs };
        let column = Column { isa, left, inputs, values, next, all, place, finish, out };
        let mut done = 0;
        for (class, range) in left.classes(part.rows.clone()) {
            let count = range.len().div_ceil(most);
            // The first tiles have a row more than the others.
            let (fewest, longer) = (range.len() / count, range.len() % count);
            let mut row = range.start;
            for (rows, count) in [(fewest + 1, longer), (fewest, count - longer)] {
                let strip = Strip { class, row, count, done };
                match rows {
                    1 => strip1(isa, &column, strip),
                    2 => strip2(isa, &column, strip),
                    3 => strip3(isa, &column, strip),
                    4 => strip4(isa, &column, strip),
                    5 => strip5(isa, &column, strip),
                    6 => strip6(isa, &column, strip),
                    7 => strip7(isa, &column, strip),
                    _ => strip8(isa, &column, strip),
                }
                row += rows * count;
                done += count;
            }
        }
    }
}

/// What all tiles of a panel share.
struct Column<'a> {
    isa: Isa,
    left: Left<'a>,
    /// Values of a row.
    inputs: usize,
    /// The panel.
    values: &'a [f32],
    /// The next panel, of which each tile brings its share into the cache, so that with few rows, where each panel is used but
    /// a few times, the memory works while the sums do.
    next: *const f32,
    /// How many tiles there are.
    all: usize,
    place: Place,
    finish: Finish<'a>,
    out: Target,
}

/// The columns of a panel in the result.
#[derive(Clone, Copy)]
struct Place {
    /// The first one, and how many there are.
    first: usize,
    columns: usize,
    /// Columns of the result.
    outputs: usize,
}

/// Tiles of as many rows each, one below the other.
#[derive(Clone, Copy)]
struct Strip<'a> {
    /// The class of the rows, where they are windows.
    class: Option<&'a Class>,
    /// The first row.
    row: usize,
    /// How many tiles there are, and how many of the panel were computed before.
    count: usize,
    done: usize,
}

// A function of its own for each number of rows: together in one, the compiler keeps the sums in memory.
kernel! { fn strip1(column: &Column<'_>, strip: Strip<'_>) = strip_body::<_, 1>; }
kernel! { fn strip2(column: &Column<'_>, strip: Strip<'_>) = strip_body::<_, 2>; }
kernel! { fn strip3(column: &Column<'_>, strip: Strip<'_>) = strip_body::<_, 3>; }
kernel! { fn strip4(column: &Column<'_>, strip: Strip<'_>) = strip_body::<_, 4>; }
kernel! { fn strip5(column: &Column<'_>, strip: Strip<'_>) = strip_body::<_, 5>; }
kernel! { fn strip6(column: &Column<'_>, strip: Strip<'_>) = strip_body::<_, 6>; }
kernel! { fn strip7(column: &Column<'_>, strip: Strip<'_>) = strip_body::<_, 7>; }
kernel! { fn strip8(column: &Column<'_>, strip: Strip<'_>) = strip_body::<_, 8>; }

/// Tiles of `M` rows.
#[inline(always)]
fn strip_body<S: Simd, const M: usize>(s: S, column: &Column<'_>, strip: Strip<'_>) {
    let Column { isa, left, inputs, values, next, all, place, finish, out } = *column;
    let panel = 2 * S::LANES;
    for tile in 0..strip.count {
        let row = strip.row + tile * M;
        let ahead =
            Ahead { place: next.wrapping_add(values.len() * (strip.done + tile) / all), step: panel.div_ceil(all) };
        let rows = Rows { left, class: strip.class, row, inputs };
        let sums = products::<S, M>(s, rows, values, ahead);
        let mut write = Write { finish, place, rows: [0; MOST_ROWS], out };
        left.results(strip.class, row, &mut write.rows[..M]);
        if finish.activation == Activation::None {
            for v in 0..2 {
                let bias = write.bias(s, v * S::LANES);
                for (i, sums) in sums.iter().enumerate() {
                    write.put(s, i, v * S::LANES, s.add(sums[v], bias), |x| x);
                }
            }
            continue;
        }
        let mut kept = Sums([0.0; MOST_ROWS * MOST_PANEL]);
        for (kept, sums) in kept.0.chunks_exact_mut(panel).zip(sums) {
            s.store(sums[0], kept);
            s.store(sums[1], &mut kept[S::LANES..]);
        }
        activate(isa, write, &kept.0[..M * panel]);
    }
}

/// The sums of a tile.
#[repr(align(64))]
struct Sums([f32; MOST_ROWS * MOST_PANEL]);

/// The rows of a tile.
#[derive(Clone, Copy)]
struct Rows<'a> {
    left: Left<'a>,
    class: Option<&'a Class>,
    row: usize,
    inputs: usize,
}

/// What is brought into the cache while a tile is computed.
#[derive(Clone, Copy)]
struct Ahead {
    place: *const f32,
    /// Values for each input.
    step: usize,
}

/// The products of a tile's rows with a panel; operands were [`checked`].
#[inline(always)]
fn products<S: Simd, const M: usize>(s: S, tile: Rows<'_>, values: &[f32], mut ahead: Ahead) -> [[S::V; 2]; M] {
    let Rows { left, class, row, inputs } = tile;
    let (pictures, picture) = left.pictures();
    let mut sums = [[s.splat(0.0); 2]; M];
    let mut rows = [values.as_ptr(); M];
    match class {
        None => {
            for (i, start) in rows.iter_mut().enumerate() {
                *start = pictures[(row + i) * inputs..][..inputs].as_ptr();
            }
            // SAFETY: each row has so many values.
            unsafe { piece(s, rows, inputs, values, &mut ahead, &mut sums) };
        }
        Some(class) => {
            let count = class.pieces.len();
            let mut own = [(values.as_ptr(), 0); M];
            let mut at = class.place(row);
            for own in &mut own {
                *own = (pictures[at.picture * picture..][..picture].as_ptr(), at.place * count);
                at = class.after(at);
            }
            for (number, (first, length)) in class.pieces.iter().enumerate() {
                for (start, (picture, begin)) in rows.iter_mut().zip(own) {
                    *start = picture.wrapping_add(class.starts[begin + number] as usize);
                }
                let panel = &values[*first as usize * 2 * S::LANES..];
                // SAFETY: each piece has so many values.
                unsafe { piece(s, rows, *length as usize, panel, &mut ahead, &mut sums) };
            }
        }
    }
    sums
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
    let panel = panel[..length * 2 * S::LANES].as_ptr();
    let Ahead { mut place, step } = *ahead;
    let mut sum = *sums;
    let mut p = 0;
    // SAFETY: each row and the panel have so many values.
    unsafe {
        while p + STEPS <= length {
            for q in p..p + STEPS {
                s.prefetch(place);
                place = place.wrapping_add(step);
                one(s, rows, q, panel, &mut sum);
            }
            p += STEPS;
        }
        while p < length {
            s.prefetch(place);
            place = place.wrapping_add(step);
            one(s, rows, p, panel, &mut sum);
            p += 1;
        }
    }
    *sums = sum;
    ahead.place = place;
}

/// Adds the products of value `p` of each row with its pair of vectors. A function, not a closure, which would not be inlined
/// with its vectors.
///
/// # Safety
/// Each row and the panel have that value.
#[inline(always)]
unsafe fn one<S: Simd, const M: usize>(
    s: S,
    rows: [*const f32; M],
    p: usize,
    panel: *const f32,
    sums: &mut [[S::V; 2]; M],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let right = panel.add(p * 2 * S::LANES);
        let right = [
            s.load(std::slice::from_raw_parts(right, S::LANES)),
            s.load(std::slice::from_raw_parts(right.add(S::LANES), S::LANES)),
        ];
        for (sum, row) in sums.iter_mut().zip(rows) {
            let left = s.splat(*row.add(p));
            sum[0] = s.fma(left, right[0], sum[0]);
            sum[1] = s.fma(left, right[1], sum[1]);
        }
    }
}

/// What is done with a tile. The result has its rows and columns, and nobody else uses them.
#[derive(Clone, Copy)]
struct Write<'a> {
    finish: Finish<'a>,
    place: Place,
    /// Each row's place in the result.
    rows: [usize; MOST_ROWS],
    out: Target,
}

impl Write<'_> {
    /// The bias of a vector of columns, where there are any.
    #[inline(always)]
    fn bias<S: Simd>(&self, s: S, column: usize) -> S::V {
        let Place { first, columns, .. } = self.place;
        if self.finish.bias.is_empty() || column >= columns {
            return s.splat(0.0);
        }
        s.at(&self.finish.bias[first..][..columns], column, 0.0)
    }

    /// Writes a vector of columns of a row, where there are any.
    #[inline(always)]
    fn put<S: Simd>(&self, s: S, row: usize, column: usize, sum: S::V, activation: impl Fn(S::V) -> S::V) {
        let Place { first, columns, outputs } = self.place;
        let at = self.rows[row] * outputs + first;
        if column >= columns {
            return;
        }
        // SAFETY: the row and the columns are inside of the result, and nobody else uses them.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.0.add(at), columns) };
        let sum = match self.finish.added {
            Added::Nothing => sum,
            Added::Result => s.add(sum, s.at(out, column, 0.0)),
            Added::Matrix(added) => s.add(sum, s.at(&added[at..][..columns], column, 0.0)),
        };
        s.put(activation(sum), out, column);
    }
}

kernel! {
    /// Writes the sums of a tile with what follows the product.
    fn activate(write: Write<'_>, sums: &[f32]) = activate_body;
}

#[inline(always)]
fn activate_body<S: Simd>(s: S, write: Write<'_>, sums: &[f32]) {
    match write.finish.activation {
        Activation::Gelu => activate_with(s, write, sums, |x| activated(s, Activation::Gelu, x)),
        Activation::QuickGelu => activate_with(s, write, sums, |x| activated(s, Activation::QuickGelu, x)),
        other => activate_with(s, write, sums, |x| activated(s, other, x)),
    }
}

#[inline(always)]
fn activate_with<S: Simd>(s: S, write: Write<'_>, sums: &[f32], activation: impl Fn(S::V) -> S::V) {
    for column in [0, S::LANES] {
        let bias = write.bias(s, column);
        for (row, sums) in sums.chunks_exact(2 * S::LANES).enumerate() {
            write.put(s, row, column, s.add(s.load(&sums[column..]), bias), &activation);
        }
    }
}
