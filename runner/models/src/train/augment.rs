//! Random changes to training pictures that leave their texts true.

use runner_contract::Random;
use runner_data::Pixels;
use serde::{Deserialize, Serialize};

/// How far a picture may be turned, stretched, slanted and moved. Each amount is drawn uniformly between its negative and
/// itself; zeros leave pictures as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Rotation, degrees.
    pub rotate: f64,
    /// Logarithm of the factor on height and, drawn apart, on width.
    pub scale: f64,
    /// Sideways shift of a row by its distance from the middle, as a fraction of it.
    pub shear: f64,
    /// Shift in both directions, as a fraction of the picture's size.
    pub translate: f64,
}

impl Augment {
    /// Whether it changes nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// A changed picture of the same size, sampled bilinearly; what comes in from outside is the edge's colour.
    pub fn apply(&self, picture: &Pixels, random: &mut Random) -> Pixels {
        let mut draw = |amount: f64| amount * (2.0 * random.uniform() - 1.0);
        let (sin, cos) = draw(self.rotate).to_radians().sin_cos();
        let (down, across) = (draw(self.scale).exp(), draw(self.scale).exp());
        let shear = draw(self.shear);
        let (height, width) = (picture.height as f64, picture.width as f64);
        let (dy, dx) = (draw(self.translate) * height, draw(self.translate) * width);
        let (middle_y, middle_x) = ((height - 1.0) / 2.0, (width - 1.0) / 2.0);
        let mut data = Vec::with_capacity(picture.data.len());
        for row in 0..picture.height {
            for column in 0..picture.width {
                // Where the value comes from: the inverse of turning, stretching, slanting and moving.
                let (y, x) = (row as f64 - middle_y - dy, column as f64 - middle_x - dx);
                let (y, x) = ((cos * y - sin * x) / down, (sin * y + cos * x) / across);
                sample(picture, y + middle_y, x + shear * y + middle_x, &mut data);
            }
        }
        Pixels { data, ..*picture }
    }
}

/// Appends the colour at a place between pixels.
fn sample(picture: &Pixels, y: f64, x: f64, data: &mut Vec<u8>) {
    let place = |at: f64, size: usize| {
        let at = at.clamp(0.0, size.saturating_sub(1) as f64);
        let first = at.floor() as usize;
        (first, (first + 1).min(size.saturating_sub(1)), at - at.floor())
    };
    let (top, bottom, fy) = place(y, picture.height);
    let (left, right, fx) = place(x, picture.width);
    for channel in 0..picture.channels {
        let at = |row: usize, column: usize| {
            let value = picture.data.get((row * picture.width + column) * picture.channels + channel);
            value.copied().map_or(0.0, f64::from)
        };
        let upper = at(top, left) * (1.0 - fx) + at(top, right) * fx;
        let lower = at(bottom, left) * (1.0 - fx) + at(bottom, right) * fx;
        data.push((upper * (1.0 - fy) + lower * fy).round() as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Pixels {
        let data = (0..5 * 7 * 3).map(|i| (i * 2) as u8).collect();
        Pixels { height: 5, width: 7, channels: 3, data }
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        let changed = Augment::default().apply(&picture(), &mut Random::new(0, "augment", "a"));
        assert_eq!(changed.data, picture().data);
    }

    #[test]
    fn a_picture_keeps_its_size_and_its_key_decides_the_change() {
        let augment = Augment { rotate: 20.0, scale: 0.2, shear: 0.2, translate: 0.1 };
        let changed = |row| augment.apply(&picture(), &mut Random::new(0, "augment", row));
        let one = changed("a");
        assert_eq!((one.height, one.width, one.channels, one.data.len()), (5, 7, 3, 105));
        assert_eq!(one.data, changed("a").data);
        assert_ne!(one.data, changed("b").data);
    }

    #[test]
    fn a_shift_moves_what_is_there() {
        let mut data = vec![0; 9 * 9];
        data[4 * 9 + 4] = 200;
        let dot = Pixels { height: 9, width: 9, channels: 1, data };
        let moved = Augment { translate: 0.3, ..Augment::default() }.apply(&dot, &mut Random::new(1, "augment", "a"));
        let sum: u32 = moved.data.iter().map(|value| u32::from(*value)).sum();
        assert!(sum.abs_diff(200) <= 2 && moved.data[4 * 9 + 4] < 200, "{sum}");
    }

    #[test]
    fn pictures_of_no_size_are_no_trouble() {
        let empty = Pixels { height: 0, width: 3, channels: 1, data: vec![] };
        let augment = Augment { rotate: 9.0, ..Augment::default() };
        assert!(augment.apply(&empty, &mut Random::new(0, "augment", "a")).data.is_empty());
    }
}
