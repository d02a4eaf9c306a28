//! What stands between a picture and a model's image tower: conversion to RGB, resize, centre crop, rescale, normalise.
//!
//! Follows what made a checkpoint's published figures, which is one of three pieces of code ([`Reference`]), each with its own
//! rounding, and which convert to RGB at different moments ([`RgbConversion`]). `transformers` has each processor twice: over
//! Pillow (the only one before version 4.49, now `CLIPImageProcessorPil`) and over torchvision (`CLIPImageProcessorFast`, which
//! version 5 picks where torchvision is installed); their values differ by a step of 8 bits here and there. A config does not
//! say which one it means, so Pillow's is the default; `"backend": "torchvision"` in the config, or the type
//! `CLIPImageProcessorFast`, selects the other.

mod config;
mod open_clip;
mod size;

use runner_contract::ImageRef;

pub use open_clip::{PreprocessCfg, ResizeMode};
pub use size::Size;

use crate::{
    DataError, Limits, Pixels,
    decode::{Kind, Picture, open},
    resize::{Arithmetic, Filter, Raster, Window, resize, resize16},
};

/// OpenAI CLIP's channel means, of values in 0..1.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// OpenAI CLIP's channel standard deviations, of values in 0..1.
#[expect(clippy::excessive_precision, reason = "the digits that every config writes")]
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// Channel means and standard deviations of torchvision's ImageNet classifiers.
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Whose code is followed, with its weights, roundings and borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `transformers`' image processors over Pillow (`CLIPImageProcessorPil`).
    TransformersPil,
    /// `transformers`' image processors over torchvision, on `uint8` tensors (`CLIPImageProcessorFast`).
    TransformersTorchvision,
    /// `torchvision.transforms` on Pillow images: OpenAI's CLIP, open_clip, torchvision's and timm's classifiers.
    TorchvisionPil,
}

impl Reference {
    fn arithmetic(self) -> Arithmetic {
        match self {
            Self::TransformersPil | Self::TorchvisionPil => Arithmetic::Pillow,
            Self::TransformersTorchvision => Arithmetic::Torchvision,
        }
    }
}

/// When pictures become RGB, and what becomes of their transparency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RgbConversion {
    /// At once, as `Image.convert("RGB")` does: alpha is dropped. Loaders of classification datasets do this.
    First,
    /// At once, on a white ground, as `transformers` 5 does for `do_convert_rgb`.
    OnWhite,
    /// After resize and crop, as OpenAI's and open_clip's transforms do: palettes are resized by nearest, alpha weighs colours.
    Last,
}

/// Where a picture's pixels go.
struct Plan {
    /// Rows and columns after the resize.
    resized: (usize, usize),
    /// What the crop leaves of it.
    window: Window,
    /// Rows of border above, columns of border before.
    above: usize,
    before: usize,
    /// Rows and columns of the result.
    target: (usize, usize),
}

/// Makes a model's input of a picture. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    reference: Reference,
    rgb: RgbConversion,
    resize: Option<Size>,
    filter: Filter,
    /// Rows and columns of the centre crop.
    crop: Option<(usize, usize)>,
    /// What surrounds a picture that is smaller than the crop.
    fill: u8,
    rescale: Option<f64>,
    normalize: Option<([f32; 3], [f32; 3])>,
    limits: Limits,
}

impl Preprocess {
    /// `transformers`' `CLIPImageProcessor` over Pillow, for pictures of `size` × `size`.
    pub fn clip(size: usize) -> Self {
        Self {
            reference: Reference::TransformersPil,
            rgb: RgbConversion::OnWhite,
            resize: Some(Size::ShortestEdge(size)),
            filter: Filter::Bicubic,
            crop: Some((size, size)),
            fill: 0,
            rescale: Some(1.0 / 255.0),
            normalize: Some((CLIP_MEAN, CLIP_STD)),
            limits: Limits::default(),
        }
    }

    /// OpenAI's `clip.load`: what belongs to its archives.
    pub fn openai(size: usize) -> Self {
        Self { reference: Reference::TorchvisionPil, rgb: RgbConversion::Last, ..Self::clip(size) }
    }

    /// open_clip's `image_transform_v2` outside training.
    pub fn open_clip(cfg: &PreprocessCfg) -> Self {
        let (height, width) = cfg.size;
        let resize = match cfg.resize_mode {
            ResizeMode::Shortest if height == width => Size::ShortestEdge(height),
            ResizeMode::Shortest => Size::Cover { height, width },
            ResizeMode::Longest => Size::Contain { height, width },
            ResizeMode::Squash => Size::Exact { height, width },
        };
        Self {
            resize: Some(resize),
            // Where sides differ and the short one counts, open_clip forgets the interpolation.
            filter: if matches!(resize, Size::Cover { .. }) { Filter::Bicubic } else { cfg.interpolation },
            crop: (cfg.resize_mode != ResizeMode::Squash).then_some(cfg.size),
            fill: if cfg.resize_mode == ResizeMode::Longest { cfg.fill_color } else { 0 },
            normalize: Some((cfg.mean, cfg.std)),
            ..Self::openai(height)
        }
    }

    /// torchvision's `ImageClassification(crop_size=224)`, on pictures that its folder datasets made RGB: short side 256,
    /// bilinear, crop 224.
    pub fn torchvision_classifier() -> Self {
        Self {
            rgb: RgbConversion::First,
            resize: Some(Size::ShortestEdge(256)),
            filter: Filter::Bilinear,
            normalize: Some(IMAGENET),
            ..Self::openai(224)
        }
    }

    /// EfficientNet-Lite's: bicubic, crop `size` (224 for Lite0) of a short side of `size + 32`, (x − 127) / 128.
    pub fn efficientnet_lite(size: usize) -> Self {
        Self {
            rgb: RgbConversion::First,
            resize: Some(Size::ShortestEdge(size + 32)),
            normalize: Some(([127.0 / 255.0; 3], [128.0 / 255.0; 3])),
            ..Self::openai(size)
        }
    }

    /// Rows and columns of what comes out.
    pub fn size(&self) -> (usize, usize) {
        match (self.crop, self.resize) {
            (Some(size), _) => size,
            (None, Some(Size::ShortestEdge(edge))) => (edge, edge),
            (
                None,
                Some(Size::Exact { height, width } | Size::Cover { height, width } | Size::Contain { height, width }),
            ) => (height, width),
            (None, None) => (0, 0),
        }
    }

    /// Whose code is followed.
    pub fn reference(&self) -> Reference {
        self.reference
    }

    /// When pictures become RGB.
    pub fn rgb_conversion(&self) -> RgbConversion {
        self.rgb
    }

    /// The same with another conversion to RGB.
    #[must_use]
    pub fn with_rgb_conversion(mut self, rgb: RgbConversion) -> Self {
        self.rgb = rgb;
        self
    }

    /// The same following other code.
    #[must_use]
    pub fn with_reference(mut self, reference: Reference) -> Self {
        self.reference = reference;
        self
    }

    /// The same with other limits on the size of pictures.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
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
        match image {
            ImageRef::Pixels { height, width, channels, data } => {
                if !matches!(channels, 1 | 3) || data.is_empty() || data.len() != height * width * channels {
                    let message = format!("{} bytes are not {height}x{width} pixels of 1 or 3 channels", data.len());
                    return Err(DataError::image("pixels", message));
                }
                self.process(Raster { height, width, channels, data }, "pixels", out)
            }
            ImageRef::Encoded { bytes, path } => {
                let picture = open(bytes, path, &self.limits)?;
                let plain = matches!(picture.kind, Kind::Grey | Kind::Rgb) && picture.palette.is_none();
                let pixels = match self.rgb {
                    RgbConversion::Last if !plain => return self.process_in_mode(picture, path, out),
                    RgbConversion::Last | RgbConversion::First => picture.into_rgb(),
                    RgbConversion::OnWhite => picture.into_rgb_on_white(),
                };
                let Pixels { height, width, channels, data } = &pixels;
                self.process(Raster { height: *height, width: *width, channels: *channels, data }, path, out)
            }
        }
    }

    /// Of grey or RGB pixels.
    fn process(&self, image: Raster<'_>, path: &str, out: &mut [f32]) -> Result<(), DataError> {
        let plan = self.plan((image.height, image.width), path, out.len())?;
        let pixels = resize(image, plan.resized, plan.window, self.filter, self.reference.arithmetic());
        self.write(&pixels, image.channels, [self.fill; 3], &plan, out);
        Ok(())
    }

    /// Of a picture in another mode of Pillow's, which becomes RGB after the resize.
    fn process_in_mode(&self, mut picture: Picture, path: &str, out: &mut [f32]) -> Result<(), DataError> {
        let from = (picture.height, picture.width);
        let plan = self.plan(from, path, out.len())?;
        let Plan { resized, window, .. } = plan;
        let filter = if picture.palette.is_some() { Filter::Nearest } else { self.filter };
        // What Pillow resizes by nearest, or not at all, it does not multiply by alpha.
        let blended = filter != Filter::Nearest && from != resized;
        if blended {
            picture.premultiply();
        }
        let kind = picture.kind;
        let data = if kind == Kind::Grey16 && filter != Filter::Nearest {
            resize16(&picture.data, from, resized, window, filter)
        } else {
            let image = Raster { height: from.0, width: from.1, channels: kind.bytes(), data: &picture.data };
            resize(image, resized, window, filter, self.reference.arithmetic())
        };
        let mut cut = Picture::new(window.height, window.width, kind, data);
        if blended {
            cut.unpremultiply();
        }
        let border = picture.border(self.fill);
        let pixels = cut.into_rgb();
        self.write(&pixels.data, pixels.channels, border, &plan, out);
        Ok(())
    }

    /// Where everything goes for a picture of `from` rows and columns.
    fn plan(&self, from: (usize, usize), path: &str, length: usize) -> Result<Plan, DataError> {
        let resized = self.resize.map_or(from, |size| size.of(from.0, from.1));
        self.check(path, from, resized)?;
        let target = self.crop.unwrap_or(resized);
        if target != self.size() || length != 3 * target.0 * target.1 {
            let (h, w) = self.size();
            let message = format!(
                "it becomes {}x{} pixels, the model takes {h}x{w}: the config has no centre crop",
                target.0, target.1
            );
            return Err(DataError::image(path, message));
        }
        let (top, above, height) = self.place(resized.0, target.0);
        let (left, before, width) = self.place(resized.1, target.1);
        Ok(Plan { resized, window: Window { top, left, height, width }, above, before, target })
    }

    /// Rescaled and normalised planes of the window's `pixels`, in a border where they are smaller than the target.
    fn write(&self, pixels: &[u8], channels: usize, border: [u8; 3], plan: &Plan, out: &mut [f32]) {
        let (height, width) = plan.target;
        let values = self.values();
        let bordered = (plan.window.height, plan.window.width) != plan.target;
        for (channel, (plane, values)) in out.chunks_exact_mut(height * width).zip(&values).enumerate() {
            if bordered {
                plane.fill(values[usize::from(border[channel])]);
            }
            let offset = channel.min(channels - 1);
            let lines = plane.chunks_exact_mut(width).skip(plan.above);
            for (line, row) in lines.zip(pixels.chunks_exact(plan.window.width * channels)) {
                let line = &mut line[plan.before..plan.before + plan.window.width];
                match channels {
                    1 => look_up::<1>(row, offset, values, line),
                    _ => look_up::<3>(row, offset, values, line),
                }
            }
        }
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
            Some(more) => {
                let before = match self.reference {
                    // Half, and halves to even.
                    Reference::TorchvisionPil => more / 2 + usize::from(more % 4 == 3),
                    Reference::TransformersPil | Reference::TransformersTorchvision => more / 2,
                };
                (before, 0, target)
            }
            None => {
                let missing = target - size;
                let before = match self.reference {
                    Reference::TransformersPil => missing.div_ceil(2),
                    Reference::TransformersTorchvision | Reference::TorchvisionPil => missing / 2,
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
                *value = match (self.reference, self.rescale, self.normalize) {
                    (Reference::TransformersTorchvision, Some(scale), Some((mean, std))) => {
                        let whole = (1.0 / scale) as f32;
                        (f32::from(byte) - mean[channel] * whole) / (std[channel] * whole)
                    }
                    (Reference::TransformersTorchvision, Some(scale), None) => f32::from(byte) * scale as f32,
                    (_, scale, normalize) => {
                        let value = scale.map_or(f32::from(byte), |scale| (f64::from(byte) * scale) as f32);
                        normalize.map_or(value, |(mean, std)| (value - mean[channel]) / std[channel])
                    }
                };
            }
        }
        values
    }
}

/// The values of one channel of a row of pixels.
fn look_up<const C: usize>(row: &[u8], channel: usize, values: &[f32; 256], line: &mut [f32]) {
    let (pixels, _) = row.as_chunks::<C>();
    for (value, pixel) in line.iter_mut().zip(pixels) {
        *value = values[usize::from(pixel[channel])];
    }
}
