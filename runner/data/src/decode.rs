//! Encoded pictures to pixels, as Pillow's `Image.open(path).convert("RGB")` gives them.
//!
//! Alpha is dropped, not blended; palettes become their colours, also behind transparent entries; 16-bit RGB keeps its
//! high byte; 16-bit grey saturates at 255, as Pillow's does; EXIF orientation is left alone. Grey pictures stay one channel:
//! every later step treats the three equal channels that Pillow would make alike. This file is the one place that
//! chooses decoders.

use std::io::Cursor;

use image::{
    DynamicImage, ImageBuffer, ImageEncoder, ImageFormat, ImageReader, ImageResult, Luma, codecs::png::PngEncoder,
};
use runner_contract::ImageRef;

use crate::DataError;

/// Decoded pixels, u8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `[height, width, channels]`, row-major.
    pub data: Vec<u8>,
}

impl Pixels {
    /// The same pixels, borrowed, as an image column takes them.
    pub fn as_ref(&self) -> ImageRef<'_> {
        ImageRef::Pixels { height: self.height, width: self.width, channels: self.channels, data: &self.data }
    }
}

/// How large a picture may be, so that a small file cannot fill the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels (height × width).
    pub pixels: u64,
    /// Longest side in pixels.
    pub side: u32,
}

impl Default for Limits {
    /// Twice Pillow's `MAX_IMAGE_PIXELS`, where Pillow too refuses.
    fn default() -> Self {
        Self { pixels: 178_956_970, side: 65_535 }
    }
}

/// Decodes a picture (PNG, JPEG, GIF, BMP, WebP, TIFF, PNM; recognised by content). `path` is for messages.
///
/// Of an animation, the first frame.
pub fn decode(bytes: &[u8], path: &str, limits: &Limits) -> Result<Pixels, DataError> {
    let fail = |error: image::ImageError| DataError::image(path, error.to_string());
    if bytes.is_empty() {
        return Err(DataError::image(path, "the file is empty"));
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|error| DataError::image(path, error.to_string()))?;
    let format = reader.format().ok_or_else(|| {
        DataError::image(path, "not a PNG, JPEG, GIF, BMP, WebP, TIFF or PNM file (its first bytes match none)")
    })?;
    let (width, height) = dimensions(bytes, format).map_err(fail)?;
    let too_large = u64::from(width) * u64::from(height) > limits.pixels || width.max(height) > limits.side;
    if too_large {
        let Limits { pixels, side } = limits;
        let message = format!("{width}x{height} pixels is over the limit of {pixels} pixels and {side} a side");
        return Err(DataError::image(path, message));
    }
    if width == 0 || height == 0 {
        return Err(DataError::image(path, format!("{width}x{height} pixels: nothing to see")));
    }
    let mut reader = reader;
    let mut bounds = image::Limits::default();
    (bounds.max_image_width, bounds.max_image_height) = (Some(limits.side), Some(limits.side));
    // Eight bytes a pixel is 16-bit RGBA; as much again for what a decoder keeps beside its output.
    bounds.max_alloc = Some(limits.pixels.saturating_mul(16));
    reader.limits(bounds);
    let decoded = reader.decode().map_err(fail)?;
    Ok(to_pixels(decoded, format))
}

fn dimensions(bytes: &[u8], format: ImageFormat) -> ImageResult<(u32, u32)> {
    ImageReader::with_format(Cursor::new(bytes), format).into_dimensions()
}

fn to_pixels(image: DynamicImage, format: ImageFormat) -> Pixels {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let grey = |data| Pixels { height, width, channels: 1, data };
    let rgb = |data| Pixels { height, width, channels: 3, data };
    /// The first `keep` of every `of` samples.
    fn drop_alpha(data: Vec<u8>, keep: usize, of: usize) -> Vec<u8> {
        data.chunks_exact(of).flat_map(|pixel| &pixel[..keep]).copied().collect()
    }
    fn high_bytes(data: &[u16], keep: usize, of: usize) -> Vec<u8> {
        data.chunks_exact(of).flat_map(|pixel| &pixel[..keep]).map(|sample| (sample >> 8) as u8).collect()
    }
    match image {
        DynamicImage::ImageLuma8(image) => grey(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => grey(drop_alpha(image.into_raw(), 1, 2)),
        DynamicImage::ImageRgb8(image) => rgb(image.into_raw()),
        DynamicImage::ImageRgba8(image) => rgb(drop_alpha(image.into_raw(), 3, 4)),
        DynamicImage::ImageLuma16(image) => grey(saturate(&image, format)),
        DynamicImage::ImageLumaA16(image) => grey(high_bytes(&image.into_raw(), 1, 2)),
        DynamicImage::ImageRgb16(image) => rgb(high_bytes(&image.into_raw(), 3, 3)),
        DynamicImage::ImageRgba16(image) => rgb(high_bytes(&image.into_raw(), 3, 4)),
        other => rgb(other.into_rgb8().into_raw()),
    }
}

/// 16-bit grey as Pillow's mode `I;16` converts: values over 255 are 255. Other formats' 16-bit grey keeps its high byte.
fn saturate(image: &ImageBuffer<Luma<u16>, Vec<u16>>, format: ImageFormat) -> Vec<u8> {
    let saturates = matches!(format, ImageFormat::Png | ImageFormat::Tiff);
    image.as_raw().iter().map(|&v| if saturates { v.min(255) as u8 } else { (v >> 8) as u8 }).collect()
}

/// A picture as a PNG file: pixels are encoded; a file that is PNG already is copied, any other is decoded first.
pub fn encode_png(image: ImageRef<'_>) -> Result<Vec<u8>, DataError> {
    let decoded;
    let (height, width, channels, data) = match image {
        ImageRef::Encoded { bytes, .. } if bytes.starts_with(b"\x89PNG\r\n\x1a\n") => return Ok(bytes.to_vec()),
        ImageRef::Encoded { bytes, path } => {
            decoded = decode(bytes, path, &Limits::default())?;
            (decoded.height, decoded.width, decoded.channels, &decoded.data[..])
        }
        ImageRef::Pixels { height, width, channels, data } => (height, width, channels, data),
    };
    let color = match channels {
        1 => image::ExtendedColorType::L8,
        3 => image::ExtendedColorType::Rgb8,
        _ => return Err(DataError::Invalid(format!("pixels of {channels} channels: expected 1 or 3"))),
    };
    let too_large = || DataError::Invalid(format!("{width}x{height} pixels do not fit a PNG file"));
    let (w, h) = (u32::try_from(width).map_err(|_| too_large())?, u32::try_from(height).map_err(|_| too_large())?);
    if data.len() != height * width * channels {
        return Err(DataError::Invalid(format!("{} bytes are not {width}x{height}x{channels} pixels", data.len())));
    }
    let mut out = Vec::new();
    let encoded = PngEncoder::new(&mut out).write_image(data, w, h, color);
    encoded.map_err(|error| DataError::Invalid(format!("cannot encode {width}x{height} pixels as PNG: {error}")))?;
    Ok(out)
}
