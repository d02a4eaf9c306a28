//! What can be measured of a picture of one bright thing on a dark ground.

use runner_contract::ImageRef;

/// Brightness above which a pixel belongs to the thing, for its extent.
const EXTENT: f64 = 0.2;
/// The same for its brightness: also its dark parts.
const PART: f64 = 0.1;

/// Measures of a picture, all 0 for a black one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// Mean width of strokes in pixels: twice the ink over the length of its outline (the total variation).
    pub stroke: f64,
    /// How far strokes lean to the right: columns a row, from second moments.
    pub slant: f64,
    /// The geometric mean of the height and width of the box round it, relative to the picture's.
    pub size: f64,
    /// Mean brightness where there is anything, 0 to 1.
    pub brightness: f64,
    /// Height over width of the box round it.
    pub aspect: f64,
}

impl Measures {
    /// Measures pixels, grey or RGB; `None` for files and for pictures without pixels.
    pub fn of(image: ImageRef<'_>) -> Option<Self> {
        let ImageRef::Pixels { height, width, channels, data } = image else { return None };
        if height == 0 || width == 0 || channels == 0 || data.len() != height * width * channels {
            return None;
        }
        let grey: Vec<f64> = data
            .chunks_exact(channels)
            .map(|pixel| pixel.iter().map(|&value| f64::from(value)).sum::<f64>() / (255.0 * channels as f64))
            .collect();
        let at =
            |row: usize, column: usize| if row < height && column < width { grey[row * width + column] } else { 0.0 };
        let ink: f64 = grey.iter().sum();
        if ink <= 0.0 {
            return Some(Self::default());
        }
        let (slant, outline) = (slant(&grey, width, ink), outline(height, width, at));
        let bright = |row: usize, column: usize| at(row, column) > EXTENT;
        let rows: Vec<_> = (0..height).filter(|&row| (0..width).any(|column| bright(row, column))).collect();
        let columns: Vec<_> = (0..width).filter(|&column| (0..height).any(|row| bright(row, column))).collect();
        let span = |places: &[usize]| match (places.first(), places.last()) {
            (Some(first), Some(last)) => (last - first + 1) as f64,
            _ => 0.0,
        };
        let (tall, wide) = (span(&rows), span(&columns));
        let parts: Vec<_> = grey.iter().filter(|&&value| value > PART).collect();
        Some(Self {
            stroke: 2.0 * ink / outline,
            slant,
            size: (tall * wide / (height * width) as f64).sqrt(),
            brightness: parts.iter().copied().sum::<f64>() / parts.len().max(1) as f64,
            aspect: tall / wide.max(1.0),
        })
    }
}

/// −μ₁₁/μ₀₂: the shear that would make it upright.
fn slant(grey: &[f64], width: usize, ink: f64) -> f64 {
    let mean = |of: &dyn Fn(usize) -> f64| grey.iter().enumerate().map(|(i, value)| value * of(i)).sum::<f64>() / ink;
    let (x, y) = (|i: usize| (i % width) as f64, |i: usize| (i / width) as f64);
    let (middle_x, middle_y) = (mean(&x), mean(&y));
    let mixed = mean(&|i| (x(i) - middle_x) * (y(i) - middle_y));
    let vertical = mean(&|i| (y(i) - middle_y).powi(2));
    if vertical > 0.0 { -mixed / vertical } else { 0.0 }
}

/// Total variation with forward differences, the frame counted as black.
fn outline(height: usize, width: usize, at: impl Fn(usize, usize) -> f64) -> f64 {
    // Places are shifted by one, so that the frame's upper and left edges count too.
    let value = |row: usize, column: usize| if row == 0 || column == 0 { 0.0 } else { at(row - 1, column - 1) };
    let mut sum = 0.0;
    for row in 0..=height {
        for column in 0..=width {
            let here = value(row, column);
            let (down, right) = (value(row + 1, column) - here, value(row, column + 1) - here);
            sum += (down * down + right * right).sqrt();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(ink: impl Fn(i32, i32) -> bool, value: u8) -> Measures {
        let data: Vec<u8> = (0..28 * 28).map(|i| if ink(i % 28, i / 28) { value } else { 0 }).collect();
        Measures::of(ImageRef::Pixels { height: 28, width: 28, channels: 1, data: &data }).unwrap()
    }

    #[test]
    fn a_stroke_is_as_wide_as_it_was_drawn() {
        // Its two ends count as outline too, which makes it seem a little thinner.
        for wide in [1, 2, 3, 5] {
            let measures = draw(|x, y| (10..10 + wide).contains(&x) && (2..26).contains(&y), 255);
            let ratio = measures.stroke / f64::from(wide);
            assert!((0.8..1.0).contains(&ratio), "{wide}: {measures:?}");
            assert!(measures.slant.abs() < 1e-9);
        }
    }

    #[test]
    fn a_line_leaning_to_the_right_has_a_positive_slant() {
        let right = draw(|x, y| (x - (20 - y / 2)).abs() < 2, 255);
        assert!((right.slant - 0.5).abs() < 0.1, "{right:?}");
        let left = draw(|x, y| (x - (8 + y / 2)).abs() < 2, 255);
        assert!((left.slant + 0.5).abs() < 0.1, "{left:?}");
    }

    #[test]
    fn size_aspect_and_brightness_are_of_the_thing() {
        let measures = draw(|x, y| (7..14).contains(&x) && (0..28).contains(&y), 102);
        assert!((measures.size - 0.5).abs() < 1e-9 && (measures.aspect - 4.0).abs() < 1e-9, "{measures:?}");
        assert!((measures.brightness - 0.4).abs() < 1e-9, "{measures:?}");
    }

    #[test]
    fn a_black_picture_and_one_without_pixels_are_no_trouble() {
        assert_eq!(draw(|_, _| false, 0), Measures::default());
        assert_eq!(Measures::of(ImageRef::Pixels { height: 0, width: 0, channels: 1, data: &[] }), None);
    }
}
