//! open_clip's `preprocess_cfg`.

use serde_json::Value;

use super::{CLIP_MEAN, CLIP_STD};
use crate::{DataError, Filter};

/// How open_clip brings a picture to the model's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// The short side to the size, then a centre crop.
    Shortest,
    /// The long side to the size, then a border of the fill colour.
    Longest,
    /// Both sides to the size.
    Squash,
}

/// open_clip's `PreprocessCfg`, as `preprocess_cfg` in `open_clip_config.json` and the tables of its pretrained models have it.
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessCfg {
    /// Rows and columns. open_clip takes them from the model's `image_size`, whatever the file says.
    pub size: (usize, usize),
    /// Channel means of values in 0..1.
    pub mean: [f32; 3],
    /// Channel standard deviations of values in 0..1.
    pub std: [f32; 3],
    /// Bicubic or bilinear.
    pub interpolation: Filter,
    /// Crop, border or neither.
    pub resize_mode: ResizeMode,
    /// The border's value in [`ResizeMode::Longest`].
    pub fill_color: u8,
}

impl Default for PreprocessCfg {
    fn default() -> Self {
        Self {
            size: (224, 224),
            mean: CLIP_MEAN,
            std: CLIP_STD,
            interpolation: Filter::Bicubic,
            resize_mode: ResizeMode::Shortest,
            fill_color: 0,
        }
    }
}

impl PreprocessCfg {
    /// Reads the object `preprocess_cfg`; what it leaves out, or is null, has open_clip's defaults. `file` is for messages.
    pub fn from_json(value: &Value, file: &str) -> Result<Self, DataError> {
        Self::read(value).map_err(|message| DataError::format_at(file, "preprocess_cfg", message))
    }

    fn read(value: &Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("expected an object")?;
        let get = |key: &str| object.get(key).filter(|value| !value.is_null());
        let default = Self::default();
        if let Some(mode) = get("mode").filter(|mode| mode.as_str() != Some("RGB")) {
            return Err(format!("`mode` is {mode}, expected \"RGB\""));
        }
        let interpolation = match get("interpolation").map(|value| value.as_str().unwrap_or_default()) {
            // open_clip takes `random` as bicubic outside training.
            None | Some("bicubic" | "random") => Filter::Bicubic,
            Some("bilinear") => Filter::Bilinear,
            Some(other) => return Err(format!("`interpolation` is {other:?}, expected \"bicubic\" or \"bilinear\"")),
        };
        let resize_mode = match get("resize_mode").map(|value| value.as_str().unwrap_or_default()) {
            None | Some("shortest") => ResizeMode::Shortest,
            Some("longest") => ResizeMode::Longest,
            Some("squash") => ResizeMode::Squash,
            Some(other) => {
                return Err(format!("`resize_mode` is {other:?}, expected \"shortest\", \"longest\" or \"squash\""));
            }
        };
        let fill_color = match get("fill_color") {
            None => default.fill_color,
            Some(value) => (value.as_u64().and_then(|value| u8::try_from(value).ok()))
                .ok_or_else(|| format!("`fill_color` is {value}, expected 0 to 255"))?,
        };
        let mean = get("mean").map_or(Ok(CLIP_MEAN), |value| channels("mean", value))?;
        let std = get("std").map_or(Ok(CLIP_STD), |value| channels("std", value))?;
        if std.contains(&0.0) {
            return Err("`std` holds a 0".into());
        }
        let size = get("size").map_or(Ok(default.size), sides)?;
        Ok(Self { size, mean, std, interpolation, resize_mode, fill_color })
    }
}

/// `224`, `[224]` or `[height, width]`.
fn sides(value: &Value) -> Result<(usize, usize), String> {
    let wrong = || format!("`size` is {value}, expected a number or [height, width] of 1 to 16384");
    let side = |value: &Value| value.as_u64().filter(|side| (1..=16_384).contains(side)).map(|side| side as usize);
    let sides = match value.as_array().map(Vec::as_slice) {
        None => side(value).map(|side| (side, side)),
        Some([both]) => side(both).map(|side| (side, side)),
        Some([height, width]) => side(height).zip(side(width)),
        Some(_) => None,
    };
    sides.ok_or_else(wrong)
}

/// One number for all channels, or three.
pub(super) fn channels(key: &str, value: &Value) -> Result<[f32; 3], String> {
    let wrong = || format!("`{key}` is {value}, expected three numbers");
    let finite = |number: &Value| number.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
    if let Some(number) = finite(value) {
        return Ok([number; 3]);
    }
    let numbers = value.as_array().ok_or_else(wrong)?.iter().map(finite);
    numbers.collect::<Option<Vec<_>>>().and_then(|numbers| numbers.try_into().ok()).ok_or_else(wrong)
}
