//! JPEG, bit for bit as libjpeg-turbo decodes it with its defaults, which are Pillow's: the accurate integer transform, "fancy"
//! upsampling, no scaling.

use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, PixelFormat};

use super::{
    Limits,
    picture::{Kind, Picture},
    upsample::upsample,
};

/// Bytes a pixel that decoding may take: coefficients of four components of a progressive file, and the picture.
const BYTES_A_PIXEL: u64 = 16;

/// Most scans. Real files have up to about twenty; each costs a pass over the whole picture.
const SCANS: usize = 100;

fn limits(limits: &Limits) -> DecodeLimits {
    DecodeLimits {
        max_width: limits.side as usize,
        max_height: limits.side as usize,
        max_pixels: limits.pixels,
        max_scans: SCANS,
        max_memory: Some(limits.pixels.saturating_mul(BYTES_A_PIXEL)),
    }
}

/// Rows and columns.
pub(super) fn size(bytes: &[u8], bounds: &Limits) -> Result<(u64, u64), String> {
    // The caller judges the size, with better words.
    let open = DecodeLimits { max_width: 65_535, max_height: 65_535, max_pixels: u64::MAX, ..limits(bounds) };
    let decoder = Decoder::new_header_only(bytes, open).map_err(|error| error.to_string())?;
    Ok((decoder.header().height.into(), decoder.header().width.into()))
}

pub(super) fn decode(bytes: &[u8], bounds: &Limits) -> Result<Picture, String> {
    let decoder = Decoder::new_with_limits(bytes, limits(bounds)).map_err(|error| error.to_string())?;
    let frame = decoder.header();
    if frame.precision != 8 {
        return Err(format!("{} bits a sample: only 8 are supported", frame.precision));
    }
    let (height, width) = (usize::from(frame.height), usize::from(frame.width));
    let sampling: Vec<(usize, usize)> =
        frame.components.iter().map(|c| (c.vertical_sampling.into(), c.horizontal_sampling.into())).collect();
    let (format, kind) = match sampling.len() {
        1 => (PixelFormat::Grayscale, Kind::Grey),
        3 => (PixelFormat::Rgb, Kind::Rgb),
        4 => (PixelFormat::Cmyk, Kind::Cmyk),
        other => return Err(format!("{other} components: expected 1, 3 or 4")),
    };
    let mut data = if kind == Kind::Cmyk && sampling.iter().any(|factors| *factors != sampling[0]) {
        subsampled_cmyk(decoder, &sampling, (height, width))?
    } else {
        decoder.with_output_format(format).decode_image().map_err(|error| error.to_string())?.data
    };
    if data.len() != height * width * kind.bytes() {
        return Err(format!("{} bytes came out of {width}x{height} pixels", data.len()));
    }
    if kind == Kind::Cmyk && adobe(bytes) {
        // Adobe's files hold paper, not ink.
        data.iter_mut().for_each(|value| *value = 255 - *value);
    }
    Ok(Picture::new(height, width, kind, data))
}

/// Four components of different sizes, which the library decodes apart but does not join.
fn subsampled_cmyk(
    decoder: Decoder<'_>,
    sampling: &[(usize, usize)],
    (height, width): (usize, usize),
) -> Result<Vec<u8>, String> {
    let inks_as_colours = decoder.jpeg_color_space() == ColorSpace::Ycck;
    let raw = decoder.decode_raw().map_err(|error| error.to_string())?;
    let most = |side: fn(&(usize, usize)) -> usize| sampling.iter().map(side).max().unwrap_or(1);
    let (rows, columns) = (most(|factors| factors.0), most(|factors| factors.1));
    let mut planes = Vec::with_capacity(4);
    for (i, (v, h)) in sampling.iter().enumerate() {
        let (Some(plane), Some(&stride)) = (raw.planes.get(i), raw.plane_widths.get(i)) else {
            return Err(format!("component {i} is missing"));
        };
        let part = (height.saturating_mul(*v).div_ceil(rows), width.saturating_mul(*h).div_ceil(columns));
        if rows % v != 0 || columns % h != 0 || stride < part.1 || plane.len() < stride * part.0 {
            return Err("sampling factors that do not divide each other".to_owned());
        }
        planes.push(upsample(plane, stride, part, (rows / v, columns / h), (height, width)));
    }
    let [mut first, mut second, mut third, fourth] =
        <[Vec<u8>; 4]>::try_from(planes).map_err(|_| "expected 4 components".to_owned())?;
    if inks_as_colours {
        for ((y, cb), cr) in first.iter_mut().zip(&mut second).zip(&mut third) {
            [*y, *cb, *cr] = ycc_to_ink(*y, *cb, *cr);
        }
    }
    let rows = first.iter().zip(&second).zip(third.iter().zip(&fourth));
    Ok(rows.flat_map(|((c, m), (y, k))| [*c, *m, *y, *k]).collect())
}

/// libjpeg's `ycck_cmyk_convert`: ITU-R BT.601 in 16-bit fixed point, and the complement.
fn ycc_to_ink(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let fixed = |value: f64| (value * 65536.0 + 0.5) as i32;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((fixed(1.402) * cr + HALF) >> 16);
    let green = y + ((-fixed(0.34414) * cb - fixed(0.71414) * cr + HALF) >> 16);
    let blue = y + ((fixed(1.772) * cb + HALF) >> 16);
    [red, green, blue].map(|value| (255 - value).clamp(0, 255) as u8)
}

/// Whether the file has Adobe's marker.
fn adobe(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xFF, marker, high, low, ..] = rest {
        match marker {
            0xFF => {
                rest = &rest[1..];
                continue;
            }
            0xDA | 0xD9 => return false,
            0xEE if rest.get(4..9) == Some(b"Adobe") => return true,
            _ => {}
        }
        let length = 2 + usize::from(u16::from_be_bytes([*high, *low]));
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}
