//! Models saved by transformers give what transformers gives. Values from `reference/clip_models.py`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use runner_models::{Clip, Hub, safetensors::Reader};

const MODELS: [(&str, usize); 3] = [("quick_gelu", 30), ("gelu", 28), ("mixed", 34)];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The largest difference, relative to the largest expected value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
}

/// exp(logit scale) · cosine similarity, `[images, texts]`.
fn logits(clip: &Clip, images: &[f32], texts: &[f32]) -> Vec<f32> {
    let normal = |row: &[f32]| -> Vec<f32> {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        row.iter().map(|value| value / norm).collect()
    };
    let rows = |values: &[f32]| values.chunks(clip.dim()).map(normal).collect::<Vec<_>>();
    let (images, texts) = (rows(images), rows(texts));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    images.iter().flat_map(|a| texts.iter().map(|b| clip.logit_scale() * dot(a, b))).collect()
}

struct Expected {
    reader: Reader,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
}

fn expected(name: &str) -> Expected {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden().join(name).join("expected.json")).unwrap()).unwrap();
    Expected {
        reader: Reader::open(&golden().join(name).join("expected.safetensors")).unwrap(),
        texts: serde_json::from_value(json["texts"].clone()).unwrap(),
        ids: serde_json::from_value(json["ids"].clone()).unwrap(),
    }
}

#[test]
fn embeddings_and_logits_equal_those_of_transformers() {
    let hub = Hub::new(golden());
    for (name, side) in MODELS {
        let (model, expected) = (hub.open(name).unwrap(), expected(name));
        let clip = model.clip().unwrap();
        let tensor = |tensor, shape: &[usize]| expected.reader.tensor(tensor, shape).unwrap();
        let pixels = tensor("pixels", &[3, 3, side, side]);
        let images = clip.encode_images(&pixels, 3, 2).unwrap();
        let texts = clip.encode_texts(&expected.ids, 2).unwrap();
        assert!(difference(&images, &tensor("images", &[3, clip.dim()])) < 1e-5, "{name}");
        assert!(difference(&texts, &tensor("texts", &[6, clip.dim()])) < 1e-5, "{name}");
        let found = logits(clip, &images, &texts);
        assert!(difference(&found, &tensor("logits_per_image", &[3, 6])) < 1e-5, "{name}");
    }
}

#[test]
fn tokens_equal_those_of_the_checkpoint() {
    let hub = Hub::new(golden());
    for (name, _) in MODELS {
        let (model, expected) = (hub.open(name).unwrap(), expected(name));
        let clip = model.clip().unwrap();
        let ids: Vec<_> = expected.texts.iter().map(|text| clip.tokenizer().unwrap().encode(text).unwrap()).collect();
        assert_eq!(ids, expected.ids, "{name}");
    }
}

#[test]
fn embeddings_do_not_depend_on_company_or_threads() {
    let hub = Hub::new(golden());
    let (model, expected) = (hub.open("quick_gelu").unwrap(), expected("quick_gelu"));
    let clip = model.clip().unwrap();
    let pixels = expected.reader.tensor("pixels", &[3, 3, 30, 30]).unwrap();
    let images = clip.encode_images(&pixels, 3, 1).unwrap();
    assert_eq!(images, clip.encode_images(&pixels, 3, 2).unwrap());
    let alone: Vec<f32> = pixels.chunks(2700).flat_map(|image| clip.encode_images(image, 1, 1).unwrap()).collect();
    assert!(difference(&alone, &images) < 1e-6);
    let texts = clip.encode_texts(&expected.ids, 1).unwrap();
    assert_eq!(texts, clip.encode_texts(&expected.ids, 2).unwrap());
    let alone: Vec<f32> =
        expected.ids.iter().flat_map(|ids| clip.encode_texts(std::slice::from_ref(ids), 1).unwrap()).collect();
    assert!(difference(&alone, &texts) < 1e-6);
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let model = Hub::new(golden()).open("quick_gelu").unwrap();
    let clip = model.clip().unwrap();
    let message = |ids: Vec<u32>| clip.encode_texts(&[ids], 1).unwrap_err().to_string();
    assert_eq!(message(vec![]), "a text of 0 tokens, expected 1 to 16");
    assert_eq!(message(vec![1; 17]), "a text of 17 tokens, expected 1 to 16");
    assert_eq!(message(vec![1, 600]), "token id 600 in a text, the model's vocabulary has 523");
    let error = clip.encode_images(&[0.0; 5], 1, 1).unwrap_err();
    assert_eq!(error.to_string(), "5 pixel values, expected 1 × 3 × 30 × 30");
    assert!(clip.encode_images(&[], 0, 1).unwrap().is_empty());
    assert!(clip.encode_texts(&[], 1).unwrap().is_empty());
}
