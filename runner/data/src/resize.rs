//! Resampling of 8-bit pixels, bit for bit as Pillow (`Image.resize`) or as torchvision (`resize` of a `uint8` tensor).
//!
//! Both filter in two passes with fixed-point weights and rounding to 8 bits after each; the support
//! widens when shrinking (antialias) and not when enlarging. They differ in the weights' precision: 22 bits in Pillow's
//! `Resample.c`, at most 15 in torch's `UpSampleKernel.cpp`, so that they fit 16-bit lanes.

use std::ops::Range;

/// A resampling filter, with Pillow's definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Mean of the covered pixels.
    Box,
    /// Triangle.
    Bilinear,
    /// Hamming window over one pixel.
    Hamming,
    /// Cubic convolution with a = −0.5.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

impl Filter {
    /// Pillow's number for it, which `preprocessor_config.json` calls `resample`.
    pub fn from_pillow(number: u64) -> Option<Self> {
        [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// Pillow's number for it.
    pub fn to_pillow(self) -> u64 {
        match self {
            Self::Nearest => 0,
            Self::Lanczos => 1,
            Self::Bilinear => 2,
            Self::Bicubic => 3,
            Self::Box => 4,
            Self::Hamming => 5,
        }
    }

    /// Half the filter's width, in source pixels when not shrinking.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        use std::f64::consts::PI;
        fn sinc(x: f64) -> f64 {
            if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
        }
        match self {
            Self::Nearest => 0.0,
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => match x.abs() {
                0.0 => 1.0,
                x if x >= 1.0 => 0.0,
                x => (x * PI).sin() / (x * PI) * (0.54 + 0.46 * (x * PI).cos()),
            },
            Self::Bicubic => {
                const A: f64 = -0.5;
                match x.abs() {
                    x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                    x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                    _ => 0.0,
                }
            }
            Self::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

/// Whose arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// Pillow: weights of 22 bits.
    Pillow,
    /// torchvision on `uint8` tensors: weights of as many bits as keep the largest below 2¹⁵.
    Torchvision,
}

/// A part of the resized picture: all that is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// First row.
    pub(crate) top: usize,
    /// First column.
    pub(crate) left: usize,
    /// Rows.
    pub(crate) height: usize,
    /// Columns.
    pub(crate) width: usize,
}

/// 8-bit pixels, `[height, width, channels]`.
#[derive(Clone, Copy)]
pub(crate) struct Raster<'a> {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) data: &'a [u8],
}

/// The `window` of `image` resized to `height` × `width`, `[window.height, window.width, channels]`.
///
/// The window lies within the resized picture, no size is 0, and channels are 1 to 4: the caller sees to that.
pub(crate) fn resize(
    image: Raster<'_>,
    (height, width): (usize, usize),
    window: Window,
    filter: Filter,
    arithmetic: Arithmetic,
) -> Vec<u8> {
    if filter == Filter::Nearest {
        return nearest(image, (height, width), window, arithmetic);
    }
    let channels = image.channels;
    let rows = (height != image.height)
        .then(|| Weights::new(image.height, height, window.top, window.height, filter, arithmetic));
    let columns =
        (width != image.width).then(|| Weights::new(image.width, width, window.left, window.width, filter, arithmetic));
    // The source pixels that are read.
    let (first_row, last_row) = rows.as_ref().map_or((window.top, window.top + window.height), Weights::span);
    let (first_column, last_column) = columns.as_ref().map_or((window.left, window.left + window.width), Weights::span);
    let source = Part {
        stride: image.width * channels,
        bytes: first_column * channels..last_column * channels,
        data: &image.data[first_row * image.width * channels..last_row * image.width * channels],
    };
    let across = |part: Part<'_>, weights: &Weights| match channels {
        1 => horizontal::<1, ROWS>(part, first_column, weights),
        2 => horizontal::<2, { 2 * ROWS }>(part, first_column, weights),
        3 => horizontal::<3, { 3 * ROWS }>(part, first_column, weights),
        _ => horizontal::<4, { 4 * ROWS }>(part, first_column, weights),
    };
    match (&rows, &columns) {
        (None, None) => source.rows().flatten().copied().collect(),
        (Some(rows), None) => vertical(source, first_row, rows),
        (None, Some(columns)) => across(source, columns),
        (Some(rows), Some(columns)) if vertical_first((image.height, image.width), (height, width), arithmetic) => {
            let down = vertical(source, first_row, rows);
            across(Part::whole(&down, (last_column - first_column) * channels), columns)
        }
        (Some(rows), Some(columns)) => {
            let sideways = across(source, columns);
            vertical(Part::whole(&sideways, window.width * channels), first_row, rows)
        }
    }
}

/// Pillow from version 13 on shrinks the height first where that drops more than twice as many rows as the other pass drops
/// columns; before, and in torchvision, the width always comes first. The order moves roundings, by a step of 8 bits.
pub(crate) fn vertical_first(from: (usize, usize), to: (usize, usize), arithmetic: Arithmetic) -> bool {
    let (rows, columns) = (from.0.saturating_sub(to.0), from.1.saturating_sub(to.1));
    arithmetic == Arithmetic::Pillow && rows > 2 * columns
}

/// A part of every row of `data`.
struct Part<'a> {
    /// Bytes from row to row.
    stride: usize,
    /// The part.
    bytes: Range<usize>,
    data: &'a [u8],
}

impl<'a> Part<'a> {
    fn whole(data: &'a [u8], stride: usize) -> Self {
        Self { stride, bytes: 0..stride, data }
    }

    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes.clone();
        self.data.chunks_exact(self.stride).map(move |row| &row[bytes.clone()])
    }
}

/// Most source pixels of an output pixel.
fn taps(source: usize, target: usize, filter: Filter) -> usize {
    (filter.support() * (source as f64 / target as f64).max(1.0)).ceil() as usize * 2 + 1
}

/// First source pixel and weights of an output pixel.
fn exact_row(source: usize, target: usize, filter: Filter) -> impl Fn(usize) -> (usize, Vec<f64>) {
    let scale = source as f64 / target as f64;
    let widened = scale.max(1.0);
    let support = filter.support() * widened;
    let inverse = 1.0 / widened;
    move |i| {
        let centre = (i as f64 + 0.5) * scale;
        // A cast truncates towards zero and stops at zero, as the reference does.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(source);
        let mut weights: Vec<f64> = (first..end).map(|x| filter.weight((x as f64 - centre + 0.5) * inverse)).collect();
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        (first, weights)
    }
}

/// First source pixel and weights of the output pixels `start..start + count`.
pub(crate) fn exact_weights(
    source: usize,
    target: usize,
    start: usize,
    count: usize,
    filter: Filter,
) -> Vec<(usize, Vec<f64>)> {
    (start..start + count).map(exact_row(source, target, filter)).collect()
}

/// Fixed-point weights of every output pixel of one dimension.
struct Weights {
    /// First source pixel and number of taps, by output pixel.
    bounds: Vec<(usize, usize)>,
    /// `taps` weights an output pixel; the unused are 0.
    weights: Vec<i32>,
    taps: usize,
    /// Bits behind the binary point.
    bits: u32,
}

impl Weights {
    /// For output pixels `start..start + count` of `target`, from `source` pixels.
    fn new(source: usize, target: usize, start: usize, count: usize, filter: Filter, arithmetic: Arithmetic) -> Self {
        let row = exact_row(source, target, filter);
        let taps = taps(source, target, filter);
        let bits = match arithmetic {
            Arithmetic::Pillow => 22,
            Arithmetic::Torchvision => {
                // Of the whole dimension, whatever part of it is asked for.
                let largest = (0..target).flat_map(|i| row(i).1).fold(0.0, f64::max);
                let fits = |bits: &u32| ((0.5 + largest * f64::from(1u32 << (bits + 1))) as i64) < 1 << 15;
                (0..22).find(|bits| !fits(bits)).unwrap_or(22)
            }
        };
        let one = f64::from(1u32 << bits);
        let mut weights = vec![0; count * taps];
        let mut bounds = Vec::with_capacity(count);
        for (i, fixed) in weights.chunks_exact_mut(taps).enumerate() {
            let (first, exact) = row(start + i);
            for (fixed, exact) in fixed.iter_mut().zip(&exact) {
                *fixed = (exact * one + 0.5f64.copysign(*exact)) as i32;
            }
            bounds.push((first, exact.len().min(taps)));
        }
        Self { bounds, weights, taps, bits }
    }

    /// The source pixels that are read, as a range.
    fn span(&self) -> (usize, usize) {
        let first = self.bounds.iter().map(|bound| bound.0).min().unwrap_or(0);
        let last = self.bounds.iter().map(|bound| bound.0 + bound.1).max().unwrap_or(0);
        (first, last)
    }

    /// First source pixel and weights, by output pixel.
    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.bounds
            .iter()
            .zip(self.weights.chunks_exact(self.taps))
            .map(|(&(first, n), weights)| (first, &weights[..n]))
    }

    #[inline(always)]
    fn half(&self) -> i32 {
        1 << (self.bits - 1)
    }
}

// Inlined by force, as below: without link-time optimisation a call in the inner loops costs five times as much.
#[inline(always)]
fn to_byte(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}

/// Rows that are filtered together, sideways: a pixel of all of them fills vector registers.
const ROWS: usize = 8;

/// The first pixel of the part is the source's pixel `first`. `C` channels, `L = ROWS · C` lanes.
fn horizontal<const C: usize, const L: usize>(part: Part<'_>, first: usize, weights: &Weights) -> Vec<u8> {
    let rows: Vec<&[u8]> = part.rows().collect();
    let width = weights.bounds.len() * C;
    let mut out = vec![0; rows.len() * width];
    let mut tile = vec![[0; L]; part.bytes.len() / C];
    for (rows, out) in rows.chunks(ROWS).zip(out.chunks_mut(ROWS * width)) {
        // Pixels that stand above each other, side by side.
        for (i, row) in rows.iter().enumerate() {
            for (pixels, pixel) in tile.iter_mut().zip(row.as_chunks::<C>().0) {
                if let Some(place) = pixels[i * C..].first_chunk_mut::<C>() {
                    *place = *pixel;
                }
            }
        }
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (at, (start, weights_here)) in weights.rows().enumerate() {
                    let mut sums = [weights.half(); L];
                    for (pixels, &weight) in tile[start - first..].iter().zip(weights_here) {
                        for (sum, &value) in sums.iter_mut().zip(pixels) {
                            *sum += i32::from(value) * weight;
                        }
                    }
                    let bytes = sums.map(|sum| to_byte(sum, weights.bits));
                    for (row, pixel) in out.chunks_exact_mut(width).zip(bytes.as_chunks::<C>().0) {
                        if let Some(place) = row[at * C..].first_chunk_mut::<C>() {
                            *place = *pixel;
                        }
                    }
                }
            },
        );
    }
    out
}

/// The first row of the part is the source's row `first`.
fn vertical(part: Part<'_>, first: usize, weights: &Weights) -> Vec<u8> {
    let width = part.bytes.len();
    let mut out = Vec::with_capacity(width * weights.bounds.len());
    let mut sums = vec![0i32; width];
    for (start, weights_here) in weights.rows() {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                sums.fill(weights.half());
                for (row, &weight) in part.rows().skip(start - first).zip(weights_here) {
                    for (sum, &value) in sums.iter_mut().zip(row) {
                        *sum += i32::from(value) * weight;
                    }
                }
                out.extend(sums.iter().map(|&sum| to_byte(sum, weights.bits)));
            },
        );
    }
    out
}

fn nearest(image: Raster<'_>, (height, width): (usize, usize), window: Window, arithmetic: Arithmetic) -> Vec<u8> {
    let positions = |source: usize, target: usize| -> Vec<usize> {
        let position: Vec<f64> = match arithmetic {
            // Pillow's `ImagingScaleAffine` adds the step up, from the middle of the first pixel.
            Arithmetic::Pillow => {
                let step = source as f64 / target as f64;
                std::iter::successors(Some(step * 0.5), |position| Some(position + step)).take(target).collect()
            }
            // torch's `nearest` takes the pixel at the left edge, in single precision.
            Arithmetic::Torchvision => {
                let step = source as f32 / target as f32;
                (0..target).map(|i| f64::from((i as f32 * step).floor())).collect()
            }
        };
        position.into_iter().map(|position| (position as usize).min(source - 1)).collect()
    };
    let (rows, columns) = (positions(image.height, height), positions(image.width, width));
    let rows = &rows[window.top..window.top + window.height];
    let columns = &columns[window.left..window.left + window.width];
    let mut out = Vec::with_capacity(rows.len() * columns.len() * image.channels);
    for row in rows {
        for column in columns {
            let at = (row * image.width + column) * image.channels;
            out.extend_from_slice(&image.data[at..at + image.channels]);
        }
    }
    out
}
