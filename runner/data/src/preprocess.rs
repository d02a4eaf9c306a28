//! What stands between a picture and a model's image tower: resize, centre crop, rescale, normalise.
//!
//! Follows `transformers`' `CLIPImageProcessor` as its config says. That class exists twice: over Pillow (the only one before
//! version 4.49, now `CLIPImageProcessorPil`) and over torchvision (`CLIPImageProcessorFast`, which version 5 picks where
//! torchvision is installed); their values differ by a step of 8 bits here and there. The config does not say which one
//! made a checkpoint's published figures: OpenAI's, open_clip's and most others' were made with Pillow, so that is the default;
//! `"backend": "torchvision"` in the config, or the type `CLIPImageProcessorFast`, selects the other.

use std::path::Path;

use runner_contract::ImageRef;
use serde_json::{Map, Value, json};

use crate::{
    DataError, Limits, decode,
    error::read_text,
    resize::{Arithmetic, Filter, Raster, Window, resize},
};

/// OpenAI CLIP's channel means, of values in 0..1.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// OpenAI CLIP's channel standard deviations, of values in 0..1.
#[expect(clippy::excessive_precision, reason = "the digits that every config writes")]
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// To which size pictures are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The short side; the long one follows, rounded down.
    ShortestEdge(usize),
    /// Both sides, whatever the picture's shape.
    Exact {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

impl Size {
    /// The size of a picture of `height` × `width` after the resize.
    fn of(self, height: usize, width: usize) -> (usize, usize) {
        match self {
            Self::Exact { height, width } => (height, width),
            // Python divides integers to the nearest double, as this does below 2⁵³.
            Self::ShortestEdge(edge) if width <= height => (((edge * height) as f64 / width as f64) as usize, edge),
            Self::ShortestEdge(edge) => (edge, ((edge * width) as f64 / height as f64) as usize),
        }
    }
}

/// Makes a model's input of a picture. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    resize: Option<Size>,
    filter: Filter,
    arithmetic: Arithmetic,
    /// Rows and columns of the centre crop.
    crop: Option<(usize, usize)>,
    rescale: Option<f64>,
    normalize: Option<([f32; 3], [f32; 3])>,
    limits: Limits,
}

impl Preprocess {
    /// OpenAI CLIP's, for pictures of `size` × `size`.
    pub fn clip(size: usize) -> Self {
        Self {
            resize: Some(Size::ShortestEdge(size)),
            filter: Filter::Bicubic,
            arithmetic: Arithmetic::Pillow,
            crop: Some((size, size)),
            rescale: Some(1.0 / 255.0),
            normalize: Some((CLIP_MEAN, CLIP_STD)),
            limits: Limits::default(),
        }
    }

    /// Reads the text of a `preprocessor_config.json`, or of a `processor_config.json` that holds one as `image_processor`.
    pub fn from_config(text: &str) -> Result<Self, DataError> {
        let wrong = |message: String| DataError::format("preprocessor_config.json", message);
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let config = value.get("image_processor").unwrap_or(&value);
        let config = config.as_object().ok_or_else(|| wrong("expected an object".to_owned()))?;
        Config(config).read().map_err(wrong)
    }

    /// Reads `preprocessor_config.json` of a checkpoint folder, else `processor_config.json`; OpenAI CLIP's for 224 pixels
    /// where there is neither.
    pub fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let files = ["preprocessor_config.json", "processor_config.json"].map(|name| folder.join(name));
        let Some(file) = files.iter().find(|file| file.is_file()) else { return Ok(Self::clip(224)) };
        Self::from_config(&read_text(file)?).map_err(|error| match error {
            DataError::Format { place, message, .. } => {
                DataError::Format { file: file.display().to_string(), place, message }
            }
            other => other,
        })
    }

    /// Rows and columns of what comes out.
    pub fn size(&self) -> (usize, usize) {
        match (self.crop, self.resize) {
            (Some(size), _) => size,
            (None, Some(Size::Exact { height, width })) => (height, width),
            (None, Some(Size::ShortestEdge(edge))) => (edge, edge),
            (None, None) => (0, 0),
        }
    }

    /// The same with other limits on the size of pictures.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same with other arithmetic.
    #[must_use]
    pub fn with_arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        self.arithmetic = arithmetic;
        self
    }

    /// The model's input for one picture: `[3, height, width]`.
    pub fn apply(&self, image: ImageRef<'_>) -> Result<Vec<f32>, DataError> {
        let (height, width) = self.size();
        let mut out = vec![0.0; 3 * height * width];
        self.apply_into(image, &mut out)?;
        Ok(out)
    }

    /// [`Preprocess::apply`] into a slice of `3 · height · width`.
    pub fn apply_into(&self, image: ImageRef<'_>, out: &mut [f32]) -> Result<(), DataError> {
        let decoded;
        let (image, path) = match image {
            ImageRef::Pixels { height, width, channels, data } => (Raster { height, width, channels, data }, "pixels"),
            ImageRef::Encoded { bytes, path } => {
                decoded = decode(bytes, path, &self.limits)?;
                let (height, width, channels) = (decoded.height, decoded.width, decoded.channels);
                (Raster { height, width, channels, data: &decoded.data }, path)
            }
        };
        let Raster { height, width, channels, data } = image;
        if !matches!(channels, 1 | 3) || data.is_empty() || data.len() != height * width * channels {
            let message = format!("{} bytes are not {height}x{width} pixels of 1 or 3 channels", data.len());
            return Err(DataError::image(path, message));
        }
        let resized = self.resize.map_or((height, width), |size| size.of(height, width));
        self.check(path, (height, width), resized)?;
        let (target_height, target_width) = self.crop.unwrap_or(resized);
        if (target_height, target_width) != self.size() || out.len() != 3 * target_height * target_width {
            let (h, w) = self.size();
            let message = format!(
                "it becomes {target_height}x{target_width} pixels, the model takes {h}x{w}: the config has no centre crop"
            );
            return Err(DataError::image(path, message));
        }
        let (top, above, rows) = self.place(resized.0, target_height);
        let (left, before, columns) = self.place(resized.1, target_width);
        let window = Window { top, left, height: rows, width: columns };
        let pixels = resize(image, resized, window, self.filter, self.arithmetic);
        let values = self.values();
        if (rows, columns) != (target_height, target_width) {
            for (plane, values) in out.chunks_exact_mut(target_height * target_width).zip(&values) {
                plane.fill(values[0]);
            }
        }
        for (channel, (plane, values)) in out.chunks_exact_mut(target_height * target_width).zip(&values).enumerate() {
            let offset = channel.min(channels - 1);
            let lines = plane.chunks_exact_mut(target_width).skip(above);
            for (line, row) in lines.zip(pixels.chunks_exact(columns * channels)) {
                for (value, pixel) in line[before..before + columns].iter_mut().zip(row.chunks_exact(channels)) {
                    *value = values[usize::from(pixel[offset])];
                }
            }
        }
        Ok(())
    }

    /// A picture thousands of times longer than wide would fill the memory on its way to a small square.
    fn check(&self, path: &str, from: (usize, usize), to: (usize, usize)) -> Result<(), DataError> {
        let pixels = to.0 as u64 * to.1 as u64;
        if pixels > self.limits.pixels || to.0 == 0 || to.1 == 0 {
            let message = format!("{}x{} pixels would be resized to {}x{}", from.1, from.0, to.1, to.0);
            return Err(DataError::image(path, message));
        }
        Ok(())
    }

    /// Where the crop starts in the picture, where the picture starts in the crop, and how much of it is there.
    fn place(&self, size: usize, target: usize) -> (usize, usize, usize) {
        match size.checked_sub(target) {
            Some(more) => (more / 2, 0, target),
            None => {
                let missing = target - size;
                let before = match self.arithmetic {
                    Arithmetic::Pillow => missing.div_ceil(2),
                    Arithmetic::Torchvision => missing / 2,
                };
                (0, before, size)
            }
        }
    }

    /// The value of every byte, by channel.
    fn values(&self) -> [[f32; 256]; 3] {
        let mut values = [[0.0; 256]; 3];
        for (channel, values) in values.iter_mut().enumerate() {
            for (byte, value) in (0u8..=255).zip(values.iter_mut()) {
                *value = match (self.arithmetic, self.rescale, self.normalize) {
                    (Arithmetic::Torchvision, Some(scale), Some((mean, std))) => {
                        let whole = (1.0 / scale) as f32;
                        (f32::from(byte) - mean[channel] * whole) / (std[channel] * whole)
                    }
                    (Arithmetic::Torchvision, Some(scale), None) => f32::from(byte) * scale as f32,
                    (_, scale, normalize) => {
                        let value = scale.map_or(f32::from(byte), |scale| (f64::from(byte) * scale) as f32);
                        normalize.map_or(value, |(mean, std)| (value - mean[channel]) / std[channel])
                    }
                };
            }
        }
        values
    }

    /// The text of a `preprocessor_config.json` that gives this back.
    pub fn to_json(&self) -> String {
        let size = match self.resize {
            Some(Size::ShortestEdge(edge)) => json!({"shortest_edge": edge}),
            Some(Size::Exact { height, width }) => json!({"height": height, "width": width}),
            None => Value::Null,
        };
        let (mean, std) = self.normalize.unwrap_or((CLIP_MEAN, CLIP_STD));
        let mut config = json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": true,
            "do_resize": self.resize.is_some(),
            "size": size,
            "resample": self.filter.to_pillow(),
            "do_center_crop": self.crop.is_some(),
            "crop_size": self.crop.map(|(height, width)| json!({"height": height, "width": width})),
            "do_rescale": self.rescale.is_some(),
            "rescale_factor": self.rescale.unwrap_or(1.0 / 255.0),
            "do_normalize": self.normalize.is_some(),
            "image_mean": mean.map(shortest),
            "image_std": std.map(shortest),
        });
        if self.arithmetic == Arithmetic::Torchvision {
            config["backend"] = json!("torchvision");
        }
        config.to_string()
    }
}

/// The shortest decimal that reads back as this f32: `0.48145466`, not its double.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// A `preprocessor_config.json`, with `CLIPImageProcessor`'s defaults for what it leaves out.
struct Config<'a>(&'a Map<String, Value>);

impl Config<'_> {
    fn read(&self) -> Result<Preprocess, String> {
        let default = Preprocess::clip(224);
        let name = ["image_processor_type", "feature_extractor_type"].iter().find_map(|key| self.0.get(*key)?.as_str());
        // CLIP's processor takes a bare number as the short side, the others as both sides.
        let square = name.is_some_and(|name| !name.contains("CLIP"));
        let resize = match (self.flag("do_resize")?, self.get("size")) {
            (false, _) => None,
            (true, None) => default.resize,
            (true, Some(value)) => Some(size(value, square)?),
        };
        let crop = match (self.flag("do_center_crop")?, self.get("crop_size")) {
            (false, _) => None,
            (true, None) => default.crop,
            (true, Some(value)) => match size(value, true).map_err(|message| message.replace("size", "crop_size"))? {
                Size::Exact { height, width } => Some((height, width)),
                Size::ShortestEdge(edge) => Some((edge, edge)),
            },
        };
        if resize.is_none() && crop.is_none() {
            return Err("`do_resize` and `do_center_crop` are both false: pictures would have no common size".into());
        }
        let filter = match self.get("resample") {
            None => default.filter,
            Some(value) => value.as_u64().and_then(Filter::from_pillow).ok_or_else(|| {
                format!("`resample` is {value}, expected 0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box) or 5 (hamming)")
            })?,
        };
        let scale = match self.get("rescale_factor") {
            None => 1.0 / 255.0,
            Some(value) => value.as_f64().ok_or_else(|| format!("`rescale_factor` is {value}, expected a number"))?,
        };
        let (mean, std) = (self.channels("image_mean", CLIP_MEAN)?, self.channels("image_std", CLIP_STD)?);
        if std.contains(&0.0) {
            return Err("`image_std` holds a 0".into());
        }
        let torchvision = match self.get("backend").map(|value| value.as_str().unwrap_or_default()) {
            Some("torchvision") => true,
            Some("pil") => false,
            Some(other) => return Err(format!("`backend` is {other:?}, expected \"pil\" or \"torchvision\"")),
            None => name.is_some_and(|name| name.ends_with("Fast")),
        };
        Ok(Preprocess {
            resize,
            filter,
            arithmetic: if torchvision { Arithmetic::Torchvision } else { Arithmetic::Pillow },
            crop,
            rescale: self.flag("do_rescale")?.then_some(scale),
            normalize: self.flag("do_normalize")?.then_some((mean, std)),
            limits: default.limits,
        })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        let value = self
            .get(key)
            .map(|value| value.as_bool().ok_or_else(|| format!("`{key}` is {value}, expected true or false")));
        value.unwrap_or(Ok(true))
    }

    fn channels(&self, key: &str, default: [f32; 3]) -> Result<[f32; 3], String> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let wrong = || format!("`{key}` is {value}, expected three numbers");
        if let Some(number) = value.as_f64() {
            return Ok([number as f32; 3]);
        }
        let numbers =
            value.as_array().ok_or_else(wrong)?.iter().map(|number| number.as_f64().map(|number| number as f32));
        numbers.collect::<Option<Vec<_>>>().and_then(|numbers| numbers.try_into().ok()).ok_or_else(wrong)
    }
}

/// A size as the config has it: `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`.
fn size(value: &Value, square: bool) -> Result<Size, String> {
    let wrong = || {
        format!(
            "`size` is {value}, expected a number, {{\"shortest_edge\": n}} or {{\"height\": n, \"width\": n}} of 1 to 16384"
        )
    };
    let side = |value: &Value| value.as_u64().filter(|side| (1..=16_384).contains(side)).map(|side| side as usize);
    let part = |key: &str| value.get(key).filter(|value| !value.is_null());
    if value.is_number() {
        let side = side(value).ok_or_else(wrong)?;
        return Ok(if square { Size::Exact { height: side, width: side } } else { Size::ShortestEdge(side) });
    }
    match (part("shortest_edge"), part("height"), part("width"), part("longest_edge")) {
        (Some(edge), None, None, None) => side(edge).map(Size::ShortestEdge).ok_or_else(wrong),
        (None, Some(height), Some(width), None) => match (side(height), side(width)) {
            (Some(height), Some(width)) => Ok(Size::Exact { height, width }),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}
