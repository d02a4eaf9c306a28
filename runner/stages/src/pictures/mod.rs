//! Pictures for people: confusion matrices, grids of images, curves. Equal data gives equal bytes; the font is embedded.

mod confusion;
mod curves;
mod grid;
mod reliability;
mod thumbnail;

pub(crate) use runner_report::grouped;
use std::sync::Once;

use plotters::{
    backend::{BitMapBackend, DrawingBackend, SVGBackend},
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    style::{
        Color, FontDesc, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};
use runner_contract::{ImageRef, StageError};

pub(crate) use confusion::Confusion;
pub(crate) use curves::{Chart, Series, thinned};
pub(crate) use grid::{Grid, Tile};
pub(crate) use reliability::Reliability;
pub(crate) use thumbnail::thumbnail;

/// A drawing surface of any backend.
type Area<B> = DrawingArea<B, Shift>;
/// What drawing gives.
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

const INK: RGBColor = RGBColor(31, 41, 51);
const FAINT: RGBColor = RGBColor(123, 135, 148);
const LINE: RGBColor = RGBColor(221, 226, 232);
const PAPER: RGBColor = RGBColor(255, 255, 255);
const BLUE: RGBColor = RGBColor(33, 97, 173);
const ORANGE: RGBColor = RGBColor(208, 86, 20);

/// A DejaVu Sans of the characters that the pictures need; its licence stands beside it.
const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");
/// What plotters knows it as; in an SVG the viewer's own DejaVu Sans or sans-serif.
const FAMILY: &str = "DejaVu Sans, sans-serif";

/// A picture that any backend can draw.
pub(crate) trait Picture {
    /// Width and height, in pixels.
    fn size(&self) -> (u32, u32);
    /// Draws it on an area of that size.
    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B>;

    /// As a PNG file.
    fn png(&self) -> Result<Vec<u8>, StageError> {
        register();
        let (width, height) = self.size();
        let mut pixels = vec![0; width as usize * height as usize * 3];
        {
            let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
            self.draw(&area).and_then(|()| area.present()).map_err(failed)?;
        }
        let image = ImageRef::Pixels { height: height as usize, width: width as usize, channels: 3, data: &pixels };
        runner_data::encode_png(image).map_err(failed)
    }

    /// As an SVG file.
    fn svg(&self) -> Result<Vec<u8>, StageError> {
        register();
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, self.size()).into_drawing_area();
            self.draw(&area).and_then(|()| area.present()).map_err(failed)?;
        }
        Ok(text.into_bytes())
    }
}

fn failed(error: impl std::fmt::Display) -> StageError {
    StageError::because("a picture cannot be drawn", error)
}

fn register() {
    static ONCE: Once = Once::new();
    // A font that cannot be read shows in every picture's error; the tests draw with it.
    ONCE.call_once(|| drop(register_font(FAMILY, FontStyle::Normal, FONT)));
}

/// Text of that height in pixels, placed by its `anchor`.
fn text(size: u32, color: RGBColor, anchor: (HPos, VPos)) -> TextStyle<'static> {
    styled((FAMILY, size).into_font(), color, anchor)
}

/// The same, read from bottom to top.
fn upright(size: u32, color: RGBColor, anchor: (HPos, VPos)) -> TextStyle<'static> {
    styled((FAMILY, size).into_font().transform(FontTransform::Rotate270), color, anchor)
}

fn styled(font: FontDesc<'static>, color: RGBColor, (h, v): (HPos, VPos)) -> TextStyle<'static> {
    TextStyle { font, color: color.to_backend_color(), pos: Pos::new(h, v) }
}

fn filled(color: RGBColor) -> ShapeStyle {
    color.filled()
}

/// Width of a text, in pixels.
fn text_width(text: &str, size: u32) -> u32 {
    let (width, _) = (FAMILY, size).into_font().box_size(text).unwrap_or((0, 0));
    width
}

/// A text cut so that it fits into `width` pixels, with an ellipsis where it was cut.
fn fitted(text: &str, size: u32, width: u32) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let characters: Vec<_> = text.chars().collect();
    (1..characters.len())
        .rev()
        .map(|n| format!("{}…", characters[..n].iter().collect::<String>().trim_end()))
        .find(|cut| text_width(cut, size) <= width)
        .unwrap_or_else(|| "…".to_owned())
}

/// A colour between two, `t` from 0 to 1.
fn mix(from: RGBColor, to: RGBColor, t: f64) -> RGBColor {
    let t = t.clamp(0.0, 1.0);
    let channel = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * t).round() as u8;
    RGBColor(channel(from.0, to.0), channel(from.1, to.1), channel(from.2, to.2))
}

/// A text as a cell of a CSV table, quoted where it must be (RFC 4180).
pub(crate) fn csv_cell(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_their_width() {
        register();
        assert_eq!(fitted("cat", 14, 200), "cat");
        let cut = fitted("a very long class name indeed", 14, 80);
        assert!(cut.ends_with('…') && text_width(&cut, 14) <= 80, "{cut}");
    }
}
