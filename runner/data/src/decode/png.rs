//! PNG, with palettes and transparency as Pillow's modes keep them.

use std::io::Cursor;

use png::{BitDepth, ColorType, Transformations};

use super::{
    Limits,
    picture::{Kind, Picture},
};

fn reader(bytes: &[u8], limits: usize) -> Result<png::Reader<Cursor<&[u8]>>, String> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: limits });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.ignore_checksums(false);
    decoder.read_info().map_err(|error| error.to_string())
}

/// Rows and columns.
pub(super) fn size(bytes: &[u8]) -> Result<(u64, u64), String> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    let info = decoder.read_header_info().map_err(|error| error.to_string())?;
    Ok((info.height.into(), info.width.into()))
}

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, String> {
    let mut reader = reader(bytes, usize::try_from(limits.pixels.saturating_mul(8)).unwrap_or(usize::MAX))?;
    let length = reader.output_buffer_size().ok_or("too large for this machine")?;
    let mut data = vec![0; length];
    reader.next_frame(&mut data).map_err(|error| error.to_string())?;
    let info = reader.info();
    let (height, width) = (info.height as usize, info.width as usize);
    let picture = |kind, data| Picture::new(height, width, kind, data);
    let key = info.trns.as_deref().unwrap_or_default();
    // The library keeps one byte of each number, below 16 bits.
    let sample = |i: usize| key.get(i).copied();
    Ok(match (info.color_type, info.bit_depth) {
        (ColorType::Grayscale, BitDepth::One) => {
            let grey = unpack(&data, 1, width).map(|bit| bit * 255).collect();
            let transparent = sample(0).map(|value| [if value == 0 { 0 } else { 255 }; 3]);
            Picture { transparent, ..picture(Kind::Grey, grey).bilevel() }
        }
        (ColorType::Grayscale, depth @ (BitDepth::Two | BitDepth::Four | BitDepth::Eight)) => {
            let bits = depth as u8;
            let data = match bits {
                8 => data,
                _ => unpack(&data, bits, width).map(|value| value * if bits == 2 { 85 } else { 17 }).collect(),
            };
            Picture { transparent: sample(0).map(|value| [value; 3]), ..picture(Kind::Grey, data) }
        }
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            data.as_chunks_mut::<2>().0.iter_mut().for_each(|sample| sample.swap(0, 1));
            picture(Kind::Grey16, data)
        }
        (ColorType::Indexed, depth) => {
            let palette = info.palette.as_deref().ok_or("a palette picture without a palette")?;
            let (colours, _) = palette.as_chunks::<3>();
            // Pillow fills palettes up with black.
            let colour = |index: u8| colours.get(usize::from(index)).copied().unwrap_or_default();
            let alpha = |index: u8| key.get(usize::from(index)).copied().unwrap_or(255);
            let indices = unpack(&data, depth as u8, width);
            let picture = if key.is_empty() {
                picture(Kind::Rgb, indices.flat_map(colour).collect())
            } else {
                let pixel = |index| {
                    let [r, g, b] = colour(index);
                    [r, g, b, alpha(index)]
                };
                picture(Kind::Rgba, indices.flat_map(pixel).collect())
            };
            picture.with_palette(colours)
        }
        (ColorType::Rgb, BitDepth::Sixteen) => picture(Kind::Rgb, high_bytes(&data)),
        (ColorType::Rgb, _) => {
            let transparent = sample(0).zip(sample(1)).zip(sample(2)).map(|((r, g), b)| [r, g, b]);
            Picture { transparent, ..picture(Kind::Rgb, data) }
        }
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => picture(Kind::GreyAlpha, high_bytes(&data)),
        (ColorType::GrayscaleAlpha, _) => picture(Kind::GreyAlpha, data),
        (ColorType::Rgba, BitDepth::Sixteen) => picture(Kind::Rgba, high_bytes(&data)),
        (ColorType::Rgba, _) => picture(Kind::Rgba, data),
    })
}

fn high_bytes(data: &[u8]) -> Vec<u8> {
    data.as_chunks::<2>().0.iter().map(|sample| sample[0]).collect()
}

/// Samples of 1, 2, 4 or 8 bits, in rows of whole bytes.
pub(super) fn unpack(data: &[u8], bits: u8, width: usize) -> impl Iterator<Item = u8> {
    let per_byte = usize::from(8 / bits);
    let mask = (0xFFu16 >> (8 - bits)) as u8;
    data.chunks_exact(width.div_ceil(per_byte).max(1)).flat_map(move |row| {
        (0..width).map(move |x| (row[x / per_byte] >> (8 - usize::from(bits) * (x % per_byte + 1))) & mask)
    })
}
