//! Resampling of 8-bit pixels, bit for bit as Pillow (`Image.resize`) or as torchvision (`resize` of a `uint8` tensor).
//!
//! Both filter in two passes with fixed-point weights and rounding to 8 bits after each; the support
//! widens when shrinking (antialias) and not when enlarging. They differ in the weights' precision: 22 bits in Pillow's
//! `Resample.c`, at most 15 in torch's `UpSampleKernel.cpp`, so that they fit 16-bit lanes.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod filter;
mod passes;
mod sixteen;
mod weights;

pub use filter::Filter;
use passes::{Part, down, sideways};
pub(crate) use sixteen::resize16;
pub(crate) use weights::Arithmetic;
use weights::Weights;

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
    let across = |part: &Part<'_>, weights: &Weights| sideways(part, channels, first_column, weights);
    match (&rows, &columns) {
        (None, None) => source.rows().flatten().copied().collect(),
        (Some(rows), None) => down(&source, first_row, rows),
        (None, Some(columns)) => across(&source, columns),
        (Some(rows), Some(columns)) if vertical_first((image.height, image.width), (height, width), arithmetic) => {
            let shrunk = down(&source, first_row, rows);
            across(&Part::whole(&shrunk, (last_column - first_column) * channels), columns)
        }
        (Some(rows), Some(columns)) => {
            let narrowed = across(&source, columns);
            down(&Part::whole(&narrowed, window.width * channels), first_row, rows)
        }
    }
}

/// Pillow from version 13 on shrinks the height first where that drops more than twice as many rows as the other pass drops
/// columns; before, and in torchvision, the width always comes first. The order moves roundings, by a step of 8 bits.
fn vertical_first(from: (usize, usize), to: (usize, usize), arithmetic: Arithmetic) -> bool {
    let (rows, columns) = (from.0.saturating_sub(to.0), from.1.saturating_sub(to.1));
    arithmetic == Arithmetic::Pillow && rows > 2 * columns
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
