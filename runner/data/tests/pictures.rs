//! Pictures of every format and mode become what Pillow, OpenAI's, open_clip's and transformers' code makes of them. Pictures and golden
//! values: `reference/pictures.py`.

#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::{fs, path::Path};

use flate2::Crc;
use runner_contract::ImageRef;
use runner_data::{CLIP_MEAN, CLIP_STD, Limits, Preprocess, PreprocessCfg, Reference, RgbConversion, decode};
use serde_json::{Value, json};

fn crc(bytes: &[u8]) -> u64 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().into()
}

/// The 8-bit steps that values stand for, `[height, width, 3]`.
fn steps(values: &[f32]) -> Vec<u8> {
    let area = values.len() / 3;
    let step = |at: usize, c: usize| (values[c * area + at] * CLIP_STD[c] + CLIP_MEAN[c]) * 255.0;
    (0..area).flat_map(|at| (0..3).map(move |c| step(at, c).round() as u8)).collect()
}

fn processors() -> Vec<(&'static str, Preprocess)> {
    let cfg = |cfg: Value| Preprocess::open_clip(&PreprocessCfg::from_json(&cfg, "test").unwrap());
    let pil = json!({"size": {"shortest_edge": 20}, "crop_size": {"height": 24, "width": 24}});
    let pil = Preprocess::from_config(&pil.to_string()).unwrap();
    vec![
        ("openai", Preprocess::openai(24)),
        ("longest", cfg(json!({"size": 24, "resize_mode": "longest", "fill_color": 90, "interpolation": "bilinear"}))),
        ("squash", cfg(json!({"size": [20, 31], "resize_mode": "squash"}))),
        ("torchvision", pil.clone().with_reference(Reference::TransformersTorchvision)),
        ("pil", pil),
    ]
}

#[test]
fn every_format_and_mode_becomes_what_the_references_make_of_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures");
    let expected: Value = serde_json::from_str(&fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (name, expected) in expected.as_object().unwrap() {
        let bytes = fs::read(folder.join(name)).unwrap();
        let pixels = decode(&bytes, name, &Limits::default()).unwrap();
        let repeat = if pixels.channels == 1 { 3 } else { 1 };
        let rgb: Vec<u8> = pixels.data.iter().flat_map(|value| std::iter::repeat_n(*value, repeat)).collect();
        let mut found = vec![("rgb", crc(&rgb))];
        for (key, preprocess) in processors() {
            let values = preprocess.apply(ImageRef::Encoded { bytes: &bytes, path: name }).unwrap();
            found.push((key, crc(&steps(&values))));
        }
        for (key, crc) in found {
            if expected[key].as_u64() != Some(crc) {
                wrong.push(format!("{name} {key}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn truncated_jpegs_are_refused_as_pillow_refuses_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures");
    for name in ["420.jpg", "444.jpg", "progressive.jpg", "restart.jpg", "grey.jpg", "cmyk-420.jpg"] {
        let bytes = fs::read(folder.join(name)).unwrap();
        for length in [2, 100, bytes.len() / 2, bytes.len() * 3 / 4, bytes.len() - 20] {
            let error = decode(&bytes[..length], name, &Limits::default()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: cannot decode the image: ")), "{error}");
        }
    }
}

#[test]
fn transparency_follows_the_conversion_that_was_asked_for() {
    // A black pixel that cannot be seen: black where alpha is dropped, white on white.
    let pixels = image::RgbaImage::from_pixel(8, 8, image::Rgba([0, 0, 0, 0]));
    let mut png = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let bytes = png.into_inner();
    let first = |rgb| {
        let preprocess = Preprocess::openai(4).with_rgb_conversion(rgb);
        steps(&preprocess.apply(ImageRef::Encoded { bytes: &bytes, path: "clear.png" }).unwrap())[0]
    };
    assert_eq!([RgbConversion::First, RgbConversion::OnWhite, RgbConversion::Last].map(first), [0, 255, 0]);
}
