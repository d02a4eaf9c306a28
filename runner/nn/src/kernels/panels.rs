//! The matrices of linear maps, arranged in panels in the order in which products read them.

#![expect(unsafe_code, reason = "memory that begins with a cache line is read as numbers")]

use std::{
    alloc::{Layout, alloc_zeroed, handle_alloc_error},
    ops::{Deref, DerefMut},
};

use rayon::prelude::*;

use crate::{
    Isa,
    isa::Level,
    pool::{Buffer, Workers},
};

/// Most outputs of a panel.
pub(super) const MOST_PANEL: usize = 32;
/// Bytes of a large page.
#[cfg(target_os = "linux")]
const LARGE_PAGE: usize = 2 << 20;
/// Numbers of a cache line.
pub(super) const LINE: usize = 16;

/// Outputs of a panel: two vectors.
pub(super) fn panel(isa: Isa) -> usize {
    match isa.level() {
        Level::Scalar => 2,
        Level::Avx2 => 16,
        Level::Avx512 => MOST_PANEL,
    }
}

/// The matrix of a linear map wherever its values lie: that of output o, piece p and input i of the piece is
/// `values[o · strides[0] + p · strides[1] + i · strides[2]]`. The map's inputs are the pieces one after another.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    values: &'a [f32],
    outputs: usize,
    pieces: usize,
    /// Inputs of a piece.
    length: usize,
    strides: [usize; 3],
}

impl<'a> Source<'a> {
    /// Of `[outputs, inputs]`.
    pub(crate) fn rows(values: &'a [f32], inputs: usize) -> Self {
        let outputs = values.len() / inputs.max(1);
        Self { values, outputs, pieces: 1, length: inputs, strides: [inputs, inputs, 1] }
    }

    /// Of `[inputs, outputs]`: the way back through a map.
    pub(crate) fn columns(values: &'a [f32], outputs: usize) -> Self {
        let inputs = values.len() / outputs.max(1);
        Self { values, outputs, pieces: 1, length: inputs, strides: [1, values.len(), outputs] }
    }

    /// Of a convolution's way back: from what its kernel `[from, taps, to]` made, a piece for each tap, to what it read.
    pub(crate) fn back(values: &'a [f32], taps: usize, to: usize) -> Self {
        let spread = taps * to;
        let from = values.len() / spread.max(1);
        Self { values, outputs: to, pieces: taps, length: from, strides: [1, to, spread] }
    }

    /// Of `[outputs, inputs]` with such strides, one of which is 1.
    pub(super) fn strided(values: &'a [f32], [outputs, inputs]: [usize; 2], [output, input]: [usize; 2]) -> Self {
        Self { values, outputs, pieces: 1, length: inputs, strides: [output, 0, input] }
    }

    /// Values of all panels.
    fn room(&self, isa: Isa) -> usize {
        self.outputs.next_multiple_of(panel(isa)) * self.pieces * self.length
    }

    /// Some outputs as a panel; those beyond the last one are 0.
    fn arrange(self, first: usize, panel: usize, to: &mut [f32]) {
        let Self { values, outputs, pieces, length, strides: [output, piece, input] } = self;
        let count = panel.min(outputs - first);
        if count < panel {
            to.fill(0.0);
        }
        for (number, to) in to.chunks_exact_mut((length * panel).max(1)).enumerate().take(pieces) {
            let from = &values[first * output + number * piece..];
            if output == 1 {
                for (i, to) in to.chunks_exact_mut(panel).enumerate() {
                    to[..count].copy_from_slice(&from[i * input..][..count]);
                }
                continue;
            }
            // Some inputs at a time, so that both sides stay in the cache.
            for start in (0..length).step_by(LINE) {
                let some = LINE.min(length - start);
                for lane in 0..count {
                    let from = &from[lane * output + start..][..some];
                    let to = to[start * panel..].iter_mut().skip(lane).step_by(panel);
                    for (to, value) in to.zip(from) {
                        *to = *value;
                    }
                }
            }
        }
    }
}

/// The matrix of a linear map, `[outputs, inputs]`, in panels for one instruction set: `[inputs, panel]` values each. They
/// are the map's own memory, a borrowed buffer, or a view of either.
#[derive(Clone, Copy)]
pub(crate) struct Packed<V = Lines> {
    isa: Isa,
    outputs: usize,
    inputs: usize,
    values: V,
}

impl Packed {
    /// Arranges a row-major matrix of `outputs · inputs` values, on all threads of the pool it is called in.
    pub(crate) fn new(isa: Isa, outputs: usize, inputs: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), outputs * inputs, "values of a matrix");
        Self::owned(isa, Source { outputs, ..Source::rows(values, inputs) })
    }

    /// Arranges a matrix in memory of its own, on all threads of the pool it is called in.
    pub(super) fn owned(isa: Isa, source: Source<'_>) -> Self {
        Self::fill(isa, source, Lines::zeros(source.room(isa)))
    }

    /// A matrix of a shape, without values.
    pub(crate) fn outline(isa: Isa, outputs: usize, inputs: usize) -> Self {
        Self { isa, outputs, inputs, values: Lines(Vec::new()) }
    }
}

impl Packed<Buffer> {
    /// Arranges a matrix in a borrowed buffer, on all threads of the pool it is called in: for weights that change.
    pub(crate) fn borrowed(workers: &Workers, source: Source<'_>) -> Self {
        Self::fill(workers.isa(), source, workers.buffer(source.room(workers.isa())))
    }
}

impl<V: Deref<Target = [f32]>> Packed<V> {
    /// The same values, borrowed.
    pub(crate) fn view(&self) -> Packed<&[f32]> {
        let Self { isa, outputs, inputs, values } = self;
        Packed { isa: *isa, outputs: *outputs, inputs: *inputs, values }
    }
}

impl<V: DerefMut<Target = [f32]>> Packed<V> {
    fn fill(isa: Isa, source: Source<'_>, mut values: V) -> Self {
        let Source { outputs, pieces, length, .. } = source;
        let (inputs, panel) = (pieces * length, panel(isa));
        let panels = outputs.div_ceil(panel);
        values[..panels * inputs * panel].par_chunks_mut((panel * inputs).max(1)).enumerate().for_each(|(i, to)| {
            source.arrange(i * panel, panel, to);
        });
        Self { isa, outputs, inputs, values }
    }
}

impl<V> Packed<V> {
    /// `(outputs, inputs)`.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Outputs of a panel.
    pub(crate) fn panel(&self) -> usize {
        panel(self.isa)
    }

    /// How many panels there are.
    pub(crate) fn panels(&self) -> usize {
        self.outputs.div_ceil(self.panel())
    }
}

impl<'a> Packed<&'a [f32]> {
    /// All panels.
    pub(super) fn values(self) -> &'a [f32] {
        self.values
    }
}

/// Numbers that begin with a cache line.
pub(crate) struct Lines(Vec<Line>);

/// A cache line of numbers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

impl Lines {
    /// At least so many zeros; the system has them ready, so that threads may be the first to touch them.
    fn zeros(count: usize) -> Self {
        let lines = count.div_ceil(LINE);
        let Ok(layout) = Layout::array::<Line>(lines) else { panic!("{lines} cache lines, more than there is memory") };
        if layout.size() == 0 {
            return Self(Vec::new());
        }
        // SAFETY: the layout has a size, is that of a vector of so many lines, and all bits 0 are a line.
        unsafe {
            let start = alloc_zeroed(layout);
            if start.is_null() {
                handle_alloc_error(layout);
            }
            in_large_pages(start, layout.size());
            Self(Vec::from_raw_parts(start.cast(), lines, lines))
        }
    }
}

/// Asks for large pages, where the system gives them only to those who ask: weights are read from end to end again and again, and
/// new memory is cleared in a third of the time. Without them nothing else is different.
fn in_large_pages(start: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    {
        let skip = start.align_offset(LARGE_PAGE);
        if let Some(rest) = size.checked_sub(skip).filter(|rest| *rest >= LARGE_PAGE) {
            // SAFETY: the range is inside of an allocation of ours, and the advice changes no value in it.
            unsafe { libc::madvise(start.add(skip).cast(), rest / LARGE_PAGE * LARGE_PAGE, libc::MADV_HUGEPAGE) };
        }
    }
}

impl Deref for Lines {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: lines are arrays of numbers without gaps.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LINE) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * LINE) }
    }
}
