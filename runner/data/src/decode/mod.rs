//! Encoded pictures to pixels, as Pillow gives them.
//!
//! [`decode`] is `Image.open(path).convert("RGB")`: alpha is dropped, not blended; palettes become their colours, also behind
//! transparent entries; 16-bit RGB keeps its high byte; 16-bit grey saturates at 255; EXIF orientation is left alone. Grey
//! pictures stay one channel: every later step treats the three equal channels that Pillow would make alike. `open` keeps what
//! Pillow's mode says, for code that converts later. This folder is the one place that chooses decoders.

mod bmp;
mod gif;
mod jpeg;
mod picture;
mod png;
mod tiff;
mod upsample;

use std::io::Cursor;

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, codecs::png::PngEncoder,
};
pub(crate) use picture::{Kind, Picture};
use runner_contract::ImageRef;

use crate::{DataError, contain::contain, error::short};

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

/// Most bytes of a picture's file, wherever it lies.
pub(crate) const MOST_BYTES: u64 = 512 << 20;

/// Begins what stands in an image column for a file that cannot be had; the reason follows.
const NONE: &[u8] = b"\0no picture: ";

/// Stands for a file that cannot be had: whoever decodes it gets the reason, so that it is one unusable row like a damaged
/// file, and not the end of a run.
pub(crate) fn none(reason: &str) -> Vec<u8> {
    [NONE, reason.as_bytes()].concat()
}

/// [`none`] for a file of so many bytes, if these are too many.
pub(crate) fn too_large(size: u64) -> Option<Vec<u8>> {
    (size > MOST_BYTES).then(|| none(&format!("{size} bytes is over the limit of {MOST_BYTES}")))
}

/// Decodes a picture (PNG, JPEG, GIF, BMP, WebP, TIFF, PNM; recognised by content). `path` is for messages.
///
/// Of an animation, the first frame.
pub fn decode(bytes: &[u8], path: &str, limits: &Limits) -> Result<Pixels, DataError> {
    Ok(open(bytes, path, limits)?.into_rgb())
}

/// [`decode`] without the conversion to RGB.
pub(crate) fn open(bytes: &[u8], path: &str, limits: &Limits) -> Result<Picture, DataError> {
    // Libraries quote what a file claims, at any length.
    let fail = |message: String| DataError::image(path, short(&message));
    if bytes.is_empty() {
        return Err(DataError::image(path, "the file is empty"));
    }
    if let Some(reason) = bytes.strip_prefix(NONE) {
        return Err(fail(String::from_utf8_lossy(reason).into_owned()));
    }
    let format = image::guess_format(bytes).map_err(|_| {
        DataError::image(path, "not a PNG, JPEG, GIF, BMP, WebP, TIFF or PNM file (its first bytes match none)")
    })?;
    let (height, width) = match format {
        ImageFormat::Jpeg => contain(|| jpeg::size(bytes, limits)),
        ImageFormat::Png => png::size(bytes),
        ImageFormat::Gif => gif::size(bytes),
        ImageFormat::Tiff => tiff::size(bytes, limits),
        _ => {
            let size = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions();
            size.map(|(width, height)| (height.into(), width.into())).map_err(|error| error.to_string())
        }
    }
    .map_err(fail)?;
    if width.saturating_mul(height) > limits.pixels || width.max(height) > u64::from(limits.side) {
        let Limits { pixels, side } = limits;
        let message = format!("{width}x{height} pixels is over the limit of {pixels} pixels and {side} a side");
        return Err(DataError::image(path, message));
    }
    if width == 0 || height == 0 {
        return Err(DataError::image(path, format!("{width}x{height} pixels: nothing to see")));
    }
    match format {
        ImageFormat::Jpeg => contain(|| jpeg::decode(bytes, limits)),
        ImageFormat::Png => png::decode(bytes, limits),
        ImageFormat::Gif => gif::decode(bytes, limits),
        ImageFormat::Tiff => match tiff::decode(bytes, limits) {
            Ok(None) => others(bytes, format, limits),
            Ok(Some(picture)) => Ok(picture),
            Err(message) => Err(message),
        },
        _ => others(bytes, format, limits),
    }
    .map_err(fail)
}

/// What the image crate decodes as Pillow does.
fn others(bytes: &[u8], format: ImageFormat, limits: &Limits) -> Result<Picture, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut bounds = image::Limits::default();
    (bounds.max_image_width, bounds.max_image_height) = (Some(limits.side), Some(limits.side));
    // Eight bytes a pixel is 16-bit RGBA; as much again for what a decoder keeps beside its output.
    bounds.max_alloc = Some(limits.pixels.saturating_mul(16));
    reader.limits(bounds);
    let decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let bilevel = decoder.original_color_type() == ExtendedColorType::L1;
    let image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let picture = |kind, data| Picture::new(height, width, kind, data);
    let high = |data: Vec<u16>| data.into_iter().map(|sample| (sample >> 8) as u8).collect();
    let picture = match image {
        DynamicImage::ImageLuma8(image) => picture(Kind::Grey, image.into_raw()),
        DynamicImage::ImageLumaA8(image) => picture(Kind::GreyAlpha, image.into_raw()),
        DynamicImage::ImageRgb8(image) => picture(Kind::Rgb, image.into_raw()),
        DynamicImage::ImageRgba8(image) => picture(Kind::Rgba, image.into_raw()),
        DynamicImage::ImageLuma16(image) => {
            picture(Kind::Grey16, image.into_raw().into_iter().flat_map(u16::to_le_bytes).collect())
        }
        DynamicImage::ImageLumaA16(image) => picture(Kind::GreyAlpha, high(image.into_raw())),
        DynamicImage::ImageRgb16(image) => picture(Kind::Rgb, high(image.into_raw())),
        DynamicImage::ImageRgba16(image) => picture(Kind::Rgba, high(image.into_raw())),
        other => picture(Kind::Rgb, other.into_rgb8().into_raw()),
    };
    let palette = if format == ImageFormat::Bmp { bmp::palette(bytes) } else { None };
    Ok(match palette {
        Some(bmp::Palette::Colours(colours)) => picture.with_palette(&colours),
        Some(bmp::Palette::Bilevel) => picture.bilevel(),
        None if bilevel => picture.bilevel(),
        None => picture,
    })
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
