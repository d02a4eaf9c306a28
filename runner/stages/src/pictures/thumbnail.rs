//! Small pictures for pages.

use runner_contract::ImageRef;

use super::Tile;

/// The longer side of a thumbnail, at most, in pixels.
const SIDE: usize = 112;

/// A picture made small, as PNG in base64; `None` for files and for pictures without pixels. Small ones stay as they are.
pub(crate) fn thumbnail(image: ImageRef<'_>) -> Option<String> {
    let tile = Tile::new(image, String::new(), String::new())?;
    let scale = (tile.height.max(tile.width) as f64 / SIDE as f64).max(1.0);
    let side = |pixels: usize| ((pixels as f64 / scale).round() as usize).max(1);
    let (height, width) = (side(tile.height), side(tile.width));
    let mut data = Vec::with_capacity(height * width * 3);
    for y in 0..height as u32 {
        for x in 0..width as u32 {
            let color = tile.sample(x, y, scale);
            data.extend([color.0, color.1, color.2]);
        }
    }
    let grey = data.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
    let (channels, data) = if grey { (1, data.into_iter().step_by(3).collect()) } else { (3, data) };
    let png = runner_data::encode_png(ImageRef::Pixels { height, width, channels, data: &data }).ok()?;
    Some(base64(&png))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().zip([16, 8, 0]).fold(0u32, |word, (&byte, shift)| word | u32::from(byte) << shift);
        for (i, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS[(word >> shift & 63) as usize];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn large_pictures_are_made_small_and_small_ones_stay() {
        for (height, width, to) in [(28, 28, (28, 28)), (1120, 560, (112, 56)), (1, 5000, (1, 112))] {
            let data = vec![7; height * width];
            let text = thumbnail(ImageRef::Pixels { height, width, channels: 1, data: &data }).unwrap();
            // Width and height stand at bytes 16 to 24 of a PNG: characters 21 to 32 hold them.
            assert!(text.starts_with("iVBORw0KGgo"));
            let expected = [(to.1 as u32).to_be_bytes(), (to.0 as u32).to_be_bytes()].concat();
            let padded = [&[0x52], expected.as_slice()].concat();
            assert_eq!(&text[20..32], base64(&padded), "{height}×{width}");
        }
    }
}
