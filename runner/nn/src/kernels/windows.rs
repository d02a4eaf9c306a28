//! What windows cover: rows of matrices that are put together from pieces of pictures, without copying them.

use std::ops::Range;

use super::convolution::Sweep;
use crate::Patches;

/// Where each tap of a window reads, for each place of a picture.
pub(crate) struct Taps {
    /// Values of a picture that is read.
    picture: usize,
    /// Taps of a window.
    count: usize,
    /// Values that a tap reads.
    length: usize,
    /// For each place and tap, where it begins in its picture, or [`NOTHING`].
    starts: Vec<u32>,
}

/// The start of a tap that reads padding.
const NOTHING: u32 = u32::MAX;

impl Taps {
    fn new(picture: usize, count: usize, length: usize, starts: Vec<u32>) -> Self {
        assert!(count > 0 && length > 0 && starts.len().is_multiple_of(count), "whole windows");
        let inside = |start: &u32| *start == NOTHING || *start as usize + length <= picture;
        assert!(starts.iter().all(inside), "taps inside of their picture");
        Self { picture, count, length, starts }
    }

    /// What a window covers at each place that it comes to, tap by tap: line, then column.
    pub(crate) fn there(sweep: Sweep) -> Self {
        let (size, from) = (sweep.window.size, sweep.from);
        let mut starts = Vec::with_capacity(sweep.to.pixels() * size * size);
        for place in 0..sweep.to.pixels() {
            let cover = sweep.cover(place);
            for (line, column) in (0..size * size).map(|tap| (tap / size, tap % size)) {
                let inside = cover.lines.contains(&line) && cover.columns.contains(&column);
                starts.push(if inside { sweep.pixel(&cover, line, column) as u32 } else { NOTHING });
            }
        }
        Self::new(from.pixels() * from.channels, size * size, from.channels, starts)
    }

    /// The other way round: for each pixel that the window moves over, the place at which each of its taps covers it.
    pub(crate) fn back(sweep: Sweep) -> Self {
        let (size, stride, before, to) = (sweep.window.size, sweep.window.stride, sweep.window.before, sweep.to);
        // The place along a side at which a tap covers a pixel.
        let place = |pixel: usize, tap: usize, places: usize| {
            let corner = (pixel + before).checked_sub(tap)?;
            (corner.is_multiple_of(stride) && corner / stride < places).then_some(corner / stride)
        };
        let mut starts = Vec::with_capacity(sweep.from.pixels() * size * size);
        for pixel in 0..sweep.from.pixels() {
            let (y, x) = (pixel / sweep.from.width, pixel % sweep.from.width);
            for (line, column) in (0..size * size).map(|tap| (tap / size, tap % size)) {
                let at = place(y, line, to.height).zip(place(x, column, to.width));
                starts.push(at.map_or(NOTHING, |(y, x)| ((y * to.width + x) * to.channels) as u32));
            }
        }
        Self::new(to.pixels() * to.channels, size * size, to.channels, starts)
    }

    /// The lines of each patch of an image of `[channels, height, width]` pixels.
    pub(crate) fn patches(patches: Patches) -> Self {
        let Patches { channels, height, width, size } = patches;
        let across = width / size;
        let mut starts = Vec::with_capacity(patches.count() * channels * size);
        for patch in 0..patches.count() {
            let corner = (patch / across) * size * width + (patch % across) * size;
            for line in 0..channels * size {
                starts.push((line / size * height * width + line % size * width + corner) as u32);
            }
        }
        Self::new(patches.image_len(), channels * size, size, starts)
    }

    /// Places of a picture.
    pub(super) fn places(&self) -> usize {
        self.starts.len() / self.count
    }

    /// Taps of a window.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Values of a picture that is read.
    pub(super) fn picture(&self) -> usize {
        self.picture
    }

    /// Where a tap begins at a place, unless it reads padding.
    #[inline(always)]
    pub(super) fn start(&self, place: usize, tap: usize) -> Option<usize> {
        let start = self.starts[place * self.count + tap];
        (start != NOTHING).then_some(start as usize)
    }

    /// The taps of a place as pieces: the first input, how many follow it side by side, and where they begin.
    fn pieces(&self, place: usize) -> impl Iterator<Item = (u32, u32, u32)> {
        let length = self.length as u32;
        let taps = &self.starts[place * self.count..][..self.count];
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = next + taps[next..].iter().position(|start| *start != NOTHING)?;
            next = first + 1;
            while taps.get(next).is_some_and(|start| *start != NOTHING && *start == taps[next - 1] + length) {
                next += 1;
            }
            Some((first as u32 * length, (next - first) as u32 * length, taps[first]))
        })
    }
}

/// The rows of windows, those side by side that read in the same way: they leave out the same padding.
pub(crate) struct Windows {
    /// Values of a picture that is read, and of a window.
    picture: usize,
    inputs: usize,
    /// Places of a picture.
    places: usize,
    classes: Vec<Class>,
}

/// Places at which windows cover pieces of the same lengths.
pub(super) struct Class {
    /// The first input of each piece and how many there are.
    pub(super) pieces: Vec<(u32, u32)>,
    /// The places.
    pub(super) places: Vec<u32>,
    /// For each place, where its pieces begin.
    pub(super) starts: Vec<u32>,
}

/// Where a row of a class reads: which picture, and which of the class's places.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) picture: usize,
    pub(super) place: usize,
}

impl Class {
    #[inline(always)]
    pub(super) fn place(&self, row: usize) -> At {
        At { picture: row / self.places.len(), place: row % self.places.len() }
    }

    /// Where the next row reads.
    #[inline(always)]
    pub(super) fn after(&self, at: At) -> At {
        let place = at.place + 1;
        if place == self.places.len() { At { picture: at.picture + 1, place: 0 } } else { At { place, ..at } }
    }
}

impl Windows {
    pub(crate) fn new(taps: &Taps) -> Self {
        let mut classes: Vec<Class> = Vec::new();
        let mut last = 0;
        for place in 0..taps.places() {
            let own = || taps.pieces(place).map(|(first, count, _)| (first, count));
            let same = |class: &Class| class.pieces.iter().copied().eq(own());
            if !classes.get(last).is_some_and(same) {
                last = classes.iter().position(same).unwrap_or_else(|| {
                    classes.push(Class { pieces: own().collect(), places: Vec::new(), starts: Vec::new() });
                    classes.len() - 1
                });
            }
            classes[last].places.push(place as u32);
            classes[last].starts.extend(taps.pieces(place).map(|(_, _, start)| start));
        }
        Self { picture: taps.picture, inputs: taps.count * taps.length, places: taps.places(), classes }
    }
}

/// The rows that a map takes. They are numbered in the order in which they are computed.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Rows of as many values as there are inputs, one after another.
    Rows(&'a [f32]),
    /// What windows cover of pictures.
    Windows(&'a Windows, &'a [f32]),
}

impl<'a> Left<'a> {
    /// Rows for a map of so many inputs.
    pub(crate) fn rows(self, inputs: usize) -> usize {
        match self {
            Self::Rows(values) => values.len() / inputs.max(1),
            Self::Windows(windows, pictures) => pictures.len() / windows.picture * windows.places,
        }
    }

    /// Fails where rows have another length than the inputs of a map.
    pub(super) fn check(self, inputs: usize) {
        if let Self::Windows(windows, pictures) = self {
            assert_eq!(windows.inputs, inputs, "inputs of a map");
            assert!(pictures.len().is_multiple_of(windows.picture), "whole pictures");
        }
    }

    /// The classes of some rows, with each one's own rows among them.
    pub(super) fn classes(self, rows: Range<usize>) -> impl Iterator<Item = (Option<&'a Class>, Range<usize>)> {
        let (classes, images) = match self {
            Self::Rows(_) => (&[][..], 0),
            Self::Windows(windows, pictures) => (&windows.classes[..], pictures.len() / windows.picture),
        };
        let plain = (matches!(self, Self::Rows(_)) && !rows.is_empty()).then(|| (None, rows.clone()));
        let mut before = 0;
        let cut = move |class: &'a Class| {
            let (first, count) = (before, images * class.places.len());
            before += count;
            let own = rows.start.clamp(first, before) - first..rows.end.clamp(first, before) - first;
            (Some(class), own)
        };
        plain.into_iter().chain(classes.iter().map(cut).filter(|(_, own)| !own.is_empty()))
    }

    /// The row of the result that belongs to a row of no class or to the first of some rows of one, and to those after it.
    #[inline(always)]
    pub(super) fn results(self, class: Option<&Class>, row: usize, to: &mut [usize]) {
        if let (Self::Windows(windows, _), Some(class)) = (self, class) {
            let mut at = class.place(row);
            for to in to {
                *to = at.picture * windows.places + class.places[at.place] as usize;
                at = class.after(at);
            }
            return;
        }
        for (i, to) in to.iter_mut().enumerate() {
            *to = row + i;
        }
    }

    /// The pictures and the values of one of them; rows that lie side by side are one.
    #[inline(always)]
    pub(super) fn pictures(self) -> (&'a [f32], usize) {
        match self {
            Self::Rows(values) => (values, values.len()),
            Self::Windows(windows, pictures) => (pictures, windows.picture),
        }
    }
}
