//! The first pictures of a column, side by side, as one PNG.

use image::{RgbImage, imageops::FilterType};
use runner_contract::{Batch, ColumnType, ImageRef};

use crate::{DataError, Limits, decode, encode_png};

/// Most pictures shown.
const MOST: usize = 400;
/// Sides of a tile in pixels: what is smaller is enlarged by whole numbers, what is larger is shrunk.
const SMALL: u32 = 48;
const LARGE: u32 = 128;
/// Pixels between tiles.
const GAP: usize = 2;

#[derive(Default)]
pub(super) struct Grid {
    tiles: Vec<RgbImage>,
    seen: usize,
}

impl Grid {
    /// Takes the pictures of the first image column.
    pub(super) fn push(&mut self, rows: &Batch) -> Result<(), DataError> {
        let schema = rows.schema();
        let Some(column) = schema.matching(|kind| *kind == ColumnType::Image).next() else {
            let names = schema.names();
            return Err(DataError::Invalid(format!(
                "a .png shows pictures, and no column holds any: there is {names}"
            )));
        };
        self.seen += rows.len();
        let images = rows.images(&column.name).map_err(|error| DataError::Invalid(error.to_string()))?;
        for image in images.iter().take(MOST - self.tiles.len()) {
            self.tiles.push(tile(*image)?);
        }
        Ok(())
    }

    /// Rows that are not shown.
    pub(super) fn left_out(&self) -> u64 {
        (self.seen - self.tiles.len()) as u64
    }

    /// All of it, as a PNG.
    pub(super) fn picture(&self) -> Result<Vec<u8>, DataError> {
        if self.tiles.is_empty() {
            return Err(DataError::Invalid("there are no rows, so there is no picture".to_owned()));
        }
        let across = (self.tiles.len() as f64).sqrt().ceil() as usize;
        let down = self.tiles.len().div_ceil(across);
        let side = |of: fn(&RgbImage) -> u32| self.tiles.iter().map(of).max().unwrap_or(1) as usize;
        let (tile_width, tile_height) = (side(RgbImage::width), side(RgbImage::height));
        let width = across * (tile_width + GAP) + GAP;
        let height = down * (tile_height + GAP) + GAP;
        let mut data = vec![255; width * height * 3];
        for (i, tile) in self.tiles.iter().enumerate() {
            let (row, column) = (i / across, i % across);
            let left = GAP + column * (tile_width + GAP) + (tile_width - tile.width() as usize) / 2;
            let top = GAP + row * (tile_height + GAP) + (tile_height - tile.height() as usize) / 2;
            for (y, line) in tile.as_raw().chunks_exact(tile.width() as usize * 3).enumerate() {
                let start = ((top + y) * width + left) * 3;
                data[start..start + line.len()].copy_from_slice(line);
            }
        }
        encode_png(ImageRef::Pixels { height, width, channels: 3, data: &data })
    }
}

fn tile(image: ImageRef<'_>) -> Result<RgbImage, DataError> {
    match image {
        ImageRef::Encoded { bytes, path } => {
            let pixels = decode(bytes, path, &Limits::default())?;
            tile(pixels.as_ref())
        }
        ImageRef::Pixels { height, width, channels, data } => {
            let rgb = if channels == 1 { data.iter().flat_map(|&grey| [grey; 3]).collect() } else { data.to_vec() };
            let wrong = || DataError::Invalid(format!("a picture of {height} × {width} × {channels} cannot be shown"));
            let size = |side| u32::try_from(side).ok().filter(|&side| side > 0).ok_or_else(wrong);
            let picture = RgbImage::from_raw(size(width)?, size(height)?, rgb).ok_or_else(wrong)?;
            Ok(fit(picture))
        }
    }
}

fn fit(picture: RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    if longest > LARGE {
        let side = |side: u32| (side * LARGE / longest).max(1);
        image::imageops::resize(&picture, side(width), side(height), FilterType::Triangle)
    } else if longest < SMALL {
        let times = SMALL.div_ceil(longest);
        image::imageops::resize(&picture, width * times, height * times, FilterType::Nearest)
    } else {
        picture
    }
}
