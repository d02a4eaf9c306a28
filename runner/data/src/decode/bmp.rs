//! What Pillow's mode of a BMP file is; the pixels are the image crate's.

/// What stands in a file of at most 256 colours.
pub(super) enum Palette {
    /// Black and white: mode `1`.
    Bilevel,
    /// Mode `P`.
    Colours(Vec<[u8; 3]>),
}

/// The palette, unless it holds greys in order, which Pillow opens in mode `L`.
pub(super) fn palette(bytes: &[u8]) -> Option<Palette> {
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = bytes.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let header = number(14, 4)?;
    let (bits, entry) = if header == 12 { (number(24, 2)?, 3) } else { (number(28, 2)?, 4) };
    if !matches!(bits, 1 | 2 | 4 | 8) {
        return None;
    }
    let count = if header == 12 { 0 } else { number(46, 4)? };
    let count = if count == 0 { 1 << bits } else { count.min(256) };
    let table = bytes.get(14usize.checked_add(header)?..)?;
    let colours: Vec<[u8; 3]> = table.chunks_exact(entry).take(count).map(|c| [c[2], c[1], c[0]]).collect();
    let grey = |i: usize| if count == 2 { i * 255 } else { i };
    let greys = colours.iter().enumerate().all(|(i, colour)| colour.iter().all(|value| usize::from(*value) == grey(i)));
    match (greys, count) {
        (true, 2) => Some(Palette::Bilevel),
        (true, _) => None,
        (false, _) => Some(Palette::Colours(colours)),
    }
}
