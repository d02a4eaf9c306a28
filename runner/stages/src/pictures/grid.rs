//! A grid of images with two lines of text each.

use plotters::{
    backend::DrawingBackend,
    element::{Rectangle, Text},
    style::{
        RGBColor,
        text_anchor::{HPos, VPos},
    },
};
use runner_contract::ImageRef;

use super::{Area, Drawn, FAINT, INK, ORANGE, PAPER, Picture, filled, fitted, text};

const COLUMNS: usize = 8;
const SIDE: u32 = 120;
const GAP: u32 = 16;
const CAPTION: u32 = 46;
const MARGIN: u32 = 24;
const HEAD: u32 = 78;
const CARD: RGBColor = RGBColor(240, 243, 246);

/// An image and what stands below it.
pub(crate) struct Tile {
    /// `[height, width, 3]` u8.
    pub(crate) pixels: Vec<u8>,
    /// Rows of pixels.
    pub(crate) height: usize,
    /// Columns of pixels.
    pub(crate) width: usize,
    /// The upper line.
    pub(crate) above: String,
    /// The lower line, which stands out.
    pub(crate) below: String,
}

impl Tile {
    /// A tile of decoded pixels, grey or RGB; `None` for files and for pictures without pixels.
    pub(crate) fn new(image: ImageRef<'_>, above: String, below: String) -> Option<Self> {
        let ImageRef::Pixels { height, width, channels, data } = image else { return None };
        if height == 0 || width == 0 || channels == 0 || data.len() != height * width * channels {
            return None;
        }
        let rgb = |pixel: &[u8]| if let &[r, g, b, ..] = pixel { [r, g, b] } else { [pixel[0]; 3] };
        let pixels = data.chunks_exact(channels).flat_map(rgb).collect();
        Some(Self { pixels, height, width, above, below })
    }

    /// The mean colour of source pixels under one pixel of the tile; the nearest one when enlarging.
    pub(super) fn sample(&self, x: u32, y: u32, scale: f64) -> RGBColor {
        let span = |at: u32, size: usize| {
            let start = ((f64::from(at) * scale) as usize).min(size - 1);
            let end = (f64::from(at + 1) * scale).ceil() as usize;
            if scale > 1.0 { start..end.clamp(start + 1, size) } else { start..start + 1 }
        };
        let (rows, columns) = (span(y, self.height), span(x, self.width));
        let count = (rows.len() * columns.len()) as u64;
        let mut sum = [0u64; 3];
        for row in rows {
            for column in columns.clone() {
                let at = (row * self.width + column) * 3;
                sum.iter_mut().zip(&self.pixels[at..at + 3]).for_each(|(sum, &value)| *sum += u64::from(value));
            }
        }
        let [r, g, b] = sum.map(|sum| ((sum + count / 2) / count) as u8);
        RGBColor(r, g, b)
    }
}

/// A titled grid of tiles.
pub(crate) struct Grid {
    /// The heading.
    pub(crate) title: String,
    /// Below it.
    pub(crate) subtitle: String,
    /// The images, row by row.
    pub(crate) tiles: Vec<Tile>,
}

impl Picture for Grid {
    fn size(&self) -> (u32, u32) {
        let columns = self.tiles.len().clamp(4, COLUMNS) as u32;
        let rows = self.tiles.len().div_ceil(COLUMNS) as u32;
        (2 * MARGIN + columns * (SIDE + GAP) - GAP, HEAD + MARGIN + rows * (SIDE + CAPTION + GAP))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let (width, _) = self.size();
        area.fill(&PAPER)?;
        let heading = (HPos::Left, VPos::Top);
        let at = MARGIN as i32;
        area.draw(&Text::new(self.title.clone(), (at, at - 4), text(24, INK, heading)))?;
        let subtitle = fitted(&self.subtitle, 15, width - 2 * MARGIN);
        area.draw(&Text::new(subtitle, (at, at + 28), text(15, FAINT, heading)))?;
        for (i, tile) in self.tiles.iter().enumerate() {
            let x = MARGIN + (i % COLUMNS) as u32 * (SIDE + GAP);
            let y = HEAD + (i / COLUMNS) as u32 * (SIDE + CAPTION + GAP);
            draw_tile(area, tile, x as i32, y as i32)?;
        }
        Ok(())
    }
}

fn draw_tile<B: DrawingBackend>(area: &Area<B>, tile: &Tile, x: i32, y: i32) -> Drawn<B> {
    let side = SIDE as i32;
    area.draw(&Rectangle::new([(x, y), (x + side, y + side)], filled(CARD)))?;
    let scale = tile.height.max(tile.width) as f64 / f64::from(SIDE);
    let (height, width) =
        ((tile.height as f64 / scale).round().max(1.0) as u32, (tile.width as f64 / scale).round().max(1.0) as u32);
    let (left, top) = (x + (SIDE.saturating_sub(width) / 2) as i32, y + (SIDE.saturating_sub(height) / 2) as i32);
    for row in 0..height.min(SIDE) {
        for column in 0..width.min(SIDE) {
            let color = tile.sample(column, row, scale);
            area.draw_pixel((left + column as i32, top + row as i32), &color)?;
        }
    }
    let centered = (HPos::Center, VPos::Top);
    let middle = x + side / 2;
    area.draw(&Text::new(fitted(&tile.above, 15, SIDE), (middle, y + side + 6), text(15, INK, centered)))?;
    area.draw(&Text::new(fitted(&tile.below, 15, SIDE), (middle, y + side + 25), text(15, ORANGE, centered)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_picture_is_enlarged_by_nearest_and_a_large_one_averaged() {
        let small = Tile::new(
            ImageRef::Pixels { height: 1, width: 2, channels: 1, data: &[0, 200] },
            String::new(),
            String::new(),
        )
        .unwrap();
        assert_eq!(small.sample(0, 0, 2.0 / 120.0), RGBColor(0, 0, 0));
        assert_eq!(small.sample(119, 0, 2.0 / 120.0), RGBColor(200, 200, 200));
        assert_eq!(small.sample(0, 0, 2.0), RGBColor(100, 100, 100));
    }

    #[test]
    fn pictures_of_any_shape_fit() {
        let tile = |height: usize, width: usize| {
            let data = vec![128; height * width * 3];
            let image = ImageRef::Pixels { height, width, channels: 3, data: &data };
            Tile::new(image, "a long true name of a class".into(), "predicted".into()).unwrap()
        };
        let tiles = vec![tile(1, 500), tile(500, 1), tile(28, 28), tile(333, 251)];
        let grid = Grid { title: "mistakes".into(), subtitle: "the worst first".into(), tiles };
        assert!(grid.png().unwrap().len() > 100);
        assert!(Tile::new(ImageRef::Encoded { bytes: &[], path: "" }, String::new(), String::new()).is_none());
    }
}
