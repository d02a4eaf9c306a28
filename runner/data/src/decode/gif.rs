//! The first frame of a GIF.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::{
    Limits,
    picture::{Kind, Picture},
};

/// Rows and columns.
pub(super) fn size(bytes: &[u8]) -> Result<(u64, u64), String> {
    match bytes.get(6..10) {
        Some(&[w0, w1, h0, h1]) => Ok((u16::from_le_bytes([h0, h1]).into(), u16::from_le_bytes([w0, w1]).into())),
        _ => Err("the file ends in its header".to_owned()),
    }
}

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, String> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let memory = std::num::NonZeroU64::new(limits.pixels.max(1)).ok_or("no memory allowed")?;
    options.set_memory_limit(MemoryLimit::Bytes(memory));
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let (mut height, mut width) = (usize::from(decoder.height()), usize::from(decoder.width()));
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let frame = decoder.read_next_frame().map_err(|error| error.to_string())?.ok_or("no frame")?;
    let (top, left) = (usize::from(frame.top), usize::from(frame.left));
    let (rows, columns) = (usize::from(frame.height), usize::from(frame.width));
    // A frame that is larger than the screen enlarges it.
    (height, width) = (height.max(top + rows), width.max(left + columns));
    if (height as u64).saturating_mul(width as u64) > limits.pixels {
        return Err(format!("a frame of {width}x{height} pixels is over the limit of {}", limits.pixels));
    }
    let grey_ramp: Vec<u8> = (0..=255).flat_map(|value| [value; 3]).collect();
    let palette = frame.palette.clone().or(global).unwrap_or(grey_ramp);
    let (colours, _) = palette.as_chunks::<3>();
    let colour = |index: u8| colours.get(usize::from(index)).copied().unwrap_or_default();
    let mut indices = vec![frame.transparent.unwrap_or(0); height * width];
    if columns > 0 {
        let lines = indices.chunks_exact_mut(width).skip(top);
        for (line, row) in lines.zip(frame.buffer.chunks_exact(columns)) {
            line[left..left + columns].copy_from_slice(row);
        }
    }
    // Pillow takes a palette of greys in order for no palette.
    let is_grey = colours.iter().enumerate().all(|(i, colour)| colour.iter().all(|value| usize::from(*value) == i));
    let transparent = frame.transparent;
    if is_grey {
        let key = transparent.map(|index| [index; 3]);
        return Ok(Picture { transparent: key, ..Picture::new(height, width, Kind::Grey, indices) });
    }
    let (kind, data) = match transparent {
        None => (Kind::Rgb, indices.iter().flat_map(|index| colour(*index)).collect()),
        Some(clear) => {
            let pixel = |index: &u8| {
                let [r, g, b] = colour(*index);
                [r, g, b, if *index == clear { 0 } else { 255 }]
            };
            (Kind::Rgba, indices.iter().flat_map(pixel).collect())
        }
    };
    Ok(Picture::new(height, width, kind, data).with_palette(colours))
}
