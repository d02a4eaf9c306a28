//! TIFF files that the image crate does not read as Pillow does: palettes and CMYK. The rest is the image crate's.

use std::io::Cursor;

use tiff::{
    ColorType,
    decoder::{Decoder, DecodingResult, Limits as TiffLimits},
    tags::Tag,
};

use super::{
    Limits,
    picture::{Kind, Picture},
    png::unpack,
};

/// `PhotometricInterpretation`, its values for indices into a palette and for grey from black.
const PHOTOMETRIC: u16 = 262;
const PALETTE: u16 = 3;
const GREY: u16 = 1;

fn decoder<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Decoder<Cursor<&'a [u8]>>, String> {
    let mut bounds = TiffLimits::default();
    let most = usize::try_from(limits.pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    (bounds.decoding_buffer_size, bounds.intermediate_buffer_size) = (most, most);
    let decoder = Decoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    Ok(decoder.with_limits(bounds))
}

/// Rows and columns.
pub(super) fn size(bytes: &[u8], limits: &Limits) -> Result<(u64, u64), String> {
    let (width, height) = decoder(bytes, limits)?.dimensions().map_err(|error| error.to_string())?;
    Ok((height.into(), width.into()))
}

/// The picture, where it is of these kinds.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Option<Picture>, String> {
    let palette = match photometric(bytes) {
        Some((at, PALETTE, little)) => {
            // The library refuses palettes, so it is told that these are greys.
            let mut grey = bytes.to_vec();
            let value = if little { GREY.to_le_bytes() } else { GREY.to_be_bytes() };
            grey[at..at + 2].copy_from_slice(&value);
            Some(grey)
        }
        _ => None,
    };
    let mut decoder = decoder(palette.as_deref().unwrap_or(bytes), limits)?;
    let colour = match decoder.colortype() {
        Ok(colour) => colour,
        // The image crate says what is wrong.
        Err(_) if palette.is_none() => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (width, height) = decoder.dimensions().map_err(|error| error.to_string())?;
    let (width, height) = (width as usize, height as usize);
    let kind = match (colour, palette.is_some()) {
        (ColorType::CMYK(8), false) => Kind::Cmyk,
        (ColorType::Gray(1 | 2 | 4 | 8), true) => Kind::Rgb,
        (_, true) => return Err("a palette of more than 256 colours".to_owned()),
        (_, false) => return Ok(None),
    };
    let colours = match kind {
        Kind::Rgb => decoder.get_tag_u16_vec(Tag::ColorMap).map_err(|error| error.to_string())?,
        _ => Vec::new(),
    };
    let DecodingResult::U8(data) = decoder.read_image().map_err(|error| error.to_string())? else {
        return Err("samples that are no bytes".to_owned());
    };
    if kind == Kind::Cmyk {
        let whole = data.len() == height * width * 4;
        return whole.then(|| Some(Picture::new(height, width, kind, data))).ok_or("planes that are apart".to_owned());
    }
    let bits = colour.bit_depth();
    let (third, colour) = (colours.len() / 3, |i: usize| colours.get(i).map_or(0, |value| (value >> 8) as u8));
    let palette: Vec<[u8; 3]> = (0..third).map(|i| [colour(i), colour(third + i), colour(2 * third + i)]).collect();
    let rgb = |index: u8| palette.get(usize::from(index)).copied().unwrap_or_default();
    let pixels: Vec<u8> = unpack(&data, bits, width).flat_map(rgb).collect();
    if pixels.len() != height * width * 3 {
        return Err("the picture ends early".to_owned());
    }
    Ok(Some(Picture::new(height, width, Kind::Rgb, pixels).with_palette(&palette)))
}

/// Where the first directory has the interpretation, what it is, and whether numbers are little-endian. Classic TIFF only.
fn photometric(bytes: &[u8]) -> Option<(usize, u16, bool)> {
    let little = match bytes.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let offset: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let directory = if little { u32::from_le_bytes(offset) } else { u32::from_be_bytes(offset) } as usize;
    let entries = short(directory)?;
    let mut places = (0..usize::from(entries)).map(|i| directory + 2 + 12 * i);
    let at = places.find(|at| short(*at) == Some(PHOTOMETRIC))? + 8;
    Some((at, short(at)?, little))
}
