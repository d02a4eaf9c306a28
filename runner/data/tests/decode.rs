//! Decoding gives the pixels of Pillow's `convert("RGB")`, and an error for everything that is no picture.

#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};
use libjpeg_turbo_rs::{PixelFormat, Subsampling};
use proptest::prelude::*;
use runner_data::{Limits, Pixels, decode, encode_png};

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn jpeg() -> Vec<u8> {
    libjpeg_turbo_rs::compress(&sample().into_raw(), 7, 5, PixelFormat::Rgb, 90, Subsampling::S420).unwrap()
}

fn gif() -> Vec<u8> {
    let mut bytes = Vec::new();
    let palette: Vec<u8> = (0..35u8).flat_map(|i| [i * 7, i, 255 - i]).collect();
    let mut encoder = gif::Encoder::new(&mut bytes, 7, 5, &palette).unwrap();
    encoder.write_frame(&gif::Frame::from_indexed_pixels(7, 5, (0..35).collect::<Vec<u8>>(), None)).unwrap();
    drop(encoder);
    bytes
}

fn read(bytes: &[u8]) -> Pixels {
    decode(bytes, "test", &Limits::default()).unwrap()
}

fn sample() -> ImageBuffer<Rgb<u8>, Vec<u8>> {
    ImageBuffer::from_fn(7, 5, |x, y| Rgb([(x * 30) as u8, (y * 50) as u8, (x * y * 7) as u8]))
}

#[test]
fn lossless_formats_give_their_pixels() {
    let expected = Pixels { height: 5, width: 7, channels: 3, data: sample().into_raw() };
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP, ImageFormat::Pnm] {
        assert_eq!(read(&encode(sample(), format)), expected, "{format:?}");
    }
    let gif = read(&gif());
    assert_eq!((gif.height, gif.width, gif.channels, &gif.data[3..6]), (5, 7, 3, &[7, 1, 254][..]));
    let jpeg = read(&jpeg());
    assert_eq!((jpeg.height, jpeg.width, jpeg.channels), (5, 7, 3));
}

#[test]
fn alpha_is_dropped_not_blended_and_16_bits_become_8_as_in_pillow() {
    let rgba = ImageBuffer::from_pixel(1, 1, Rgba([10u8, 20, 30, 0]));
    assert_eq!(read(&encode(rgba, ImageFormat::Png)).data, [10, 20, 30]);
    let grey_alpha = ImageBuffer::from_pixel(1, 1, LumaA([77u8, 3]));
    assert_eq!(read(&encode(grey_alpha, ImageFormat::Png)).data, [77]);
    // High byte, not rounded.
    let deep = ImageBuffer::from_pixel(1, 1, Rgb([0x12FFu16, 0xFF00, 0x00FF]));
    assert_eq!(read(&encode(deep, ImageFormat::Png)).data, [0x12, 0xFF, 0]);
    // Pillow's mode I;16 saturates.
    let deep = ImageBuffer::from_fn(3, 1, |x, _| Luma([[7u16, 255, 256][x as usize]]));
    assert_eq!(read(&encode(deep, ImageFormat::Png)).data, [7, 255, 255]);
}

#[test]
fn png_round_trips() {
    let pixels = Pixels { height: 5, width: 7, channels: 3, data: sample().into_raw() };
    assert_eq!(read(&encode_png(pixels.as_ref()).unwrap()), pixels);
    let grey = Pixels { height: 2, width: 1, channels: 1, data: vec![1, 2] };
    assert_eq!(read(&encode_png(grey.as_ref()).unwrap()), grey);
}

#[test]
fn what_is_no_picture_is_named() {
    let error = |bytes: &[u8]| decode(bytes, "cats/1.png", &Limits::default()).unwrap_err().to_string();
    assert_eq!(error(b""), "cats/1.png: cannot decode the image: the file is empty");
    assert!(error(b"hello").starts_with("cats/1.png: cannot decode the image: not a PNG, JPEG"));
    let png = encode(sample(), ImageFormat::Png);
    assert!(error(&png[..png.len() / 2]).starts_with("cats/1.png: cannot decode the image"));
    assert!(error(b"\x89PNG\r\n\x1a\n").starts_with("cats/1.png: cannot decode the image"));
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    // A PNG header that promises 60,000 x 60,000 pixels.
    let mut png = encode(sample(), ImageFormat::Png);
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let error = decode(&png, "bomb.png", &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("60000x60000 pixels is over the limit of 178956970 pixels"), "{error}");
    let small = Limits { pixels: 20, side: 100 };
    assert!(decode(&encode(sample(), ImageFormat::Png), "x", &small).is_err());
}

#[test]
fn a_message_does_not_repeat_all_that_a_file_claims() {
    // A TIFF file of 65,535 samples a pixel, each of 8 bits.
    let mut tiff = b"II*\0\x08\0\0\0\x08\0".to_vec();
    let entries = [
        (256, 1, 1),
        (257, 1, 1),
        (258, 65_535, 110),
        (259, 1, 1),
        (262, 1, 2),
        (273, 1, 110),
        (277, 1, 65_535),
        (279, 1, 1),
    ];
    for (tag, count, value) in entries {
        tiff.extend([u16::to_le_bytes(tag), u16::to_le_bytes(3)].concat());
        tiff.extend([u32::to_le_bytes(count), u32::to_le_bytes(value)].concat());
    }
    tiff.extend([0; 4]);
    tiff.extend([8, 0].repeat(65_535));
    let error = decode(&tiff, "x.tif", &Limits::default()).unwrap_err().to_string();
    assert!(error.starts_with("x.tif: cannot decode the image: ") && error.ends_with('…'), "{error}");
    assert!(error.chars().count() < 300, "{error}");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), format in 0usize..8) {
        let starts: [&[u8]; 8] = [b"", b"\x89PNG\r\n\x1a\n", b"\xFF\xD8\xFF\xE0", b"GIF89a", b"BM", b"RIFF\x40\0\0\0WEBPVP8 ", b"II*\0\x08\0\0\0", b"P6 3 3 255 "];
        let bytes = [starts[format], &bytes].concat();
        let _ = decode(&bytes, "x", &Limits { pixels: 1 << 16, side: 1 << 10 });
    }

    #[test]
    fn damaged_pictures_never_panic(at in 0usize..400, value in any::<u8>(), cut in 0usize..400, format in 0usize..5) {
        let rgba = || DynamicImage::from(sample()).to_rgba8();
        let mut bytes = match format {
            0 => encode(rgba(), ImageFormat::Png),
            1 => jpeg(),
            2 => gif(),
            3 => encode(rgba(), ImageFormat::WebP),
            _ => encode(rgba(), ImageFormat::Tiff),
        };
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut % bytes.len() / 2);
        if let Ok(pixels) = decode(&bytes, "x", &Limits { pixels: 1 << 16, side: 1 << 10 }) {
            prop_assert_eq!(pixels.data.len(), pixels.height * pixels.width * pixels.channels);
        }
    }
}
