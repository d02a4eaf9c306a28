//! What the built-in model promises.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use runner_contract::Batch;
use runner_data::Catalog;
use runner_models::{Clip, Hub};

const BUILTIN: &str = "builtin:mini-clip";

fn hub() -> Hub {
    Hub::new(std::env::temp_dir())
}

/// `[n, dim]` with rows of length one.
fn normal(rows: &[f32], dim: usize) -> Vec<f32> {
    let length = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
    rows.chunks(dim).flat_map(|row| row.iter().map(move |value| value / length(row))).collect()
}

/// The text that each picture is most like.
fn best(clip: &Clip, pixels: &[f32], texts: &[&str]) -> Vec<usize> {
    let ids: Vec<_> = texts.iter().map(|text| clip.tokenizer().unwrap().encode(text).unwrap()).collect();
    let texts = normal(&clip.encode_texts(&ids, 2).unwrap(), clip.dim());
    let n = pixels.len() / (3 * 28 * 28);
    let images = clip.encode_images(pixels, n, 2).unwrap();
    let likeness = |image: &[f32], text: &[f32]| image.iter().zip(text).map(|(a, b)| a * b).sum::<f32>();
    let place = |image: &[f32]| {
        let scores = texts.chunks(clip.dim()).map(|text| likeness(image, text)).enumerate();
        scores.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0
    };
    images.chunks(clip.dim()).map(place).collect()
}

/// The first digits of MNIST's test split: pixels and labels.
fn digits(clip: &Clip, count: usize) -> (Vec<f32>, Vec<usize>) {
    let data = Catalog::new(".").open("mnist:test").unwrap();
    let columns = ["image", "label"].map(str::to_owned);
    let batches: Vec<Batch> = data.read(0, Some(count), &columns).unwrap().map(Result::unwrap).collect();
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for batch in &batches {
        for image in batch.images("image").unwrap() {
            pixels.extend(clip.preprocess().apply(image).unwrap());
        }
        labels.extend(batch.integers("label").unwrap().iter().map(|label| *label as usize));
    }
    (pixels, labels)
}

#[test]
fn it_is_small() {
    let model = hub().open(BUILTIN).unwrap();
    let clip = model.clip().unwrap();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("builtin/mini-clip.safetensors");
    assert!(std::fs::metadata(file).unwrap().len() <= 4_000_000);
    assert!(clip.tokenizer().unwrap().vocab_size() <= 2_048);
    assert!(clip.config().image_flops() < 20_000_000, "{}", clip.config().image_flops());
}

#[test]
fn it_reads_digits_from_prompts_alone() {
    let model = hub().open(BUILTIN).unwrap();
    let clip = model.clip().unwrap();
    let (pixels, labels) = digits(clip, 512);
    let prompts: Vec<String> = (0..10).map(|digit| format!("a photo of the number: \"{digit}\".")).collect();
    let found = best(clip, &pixels, &prompts.iter().map(String::as_str).collect::<Vec<_>>());
    let right = found.iter().zip(&labels).filter(|(a, b)| a == b).count();
    assert!(right * 100 >= labels.len() * 97, "{right} of {}", labels.len());
}

#[test]
fn it_understands_other_words() {
    let model = hub().open(BUILTIN).unwrap();
    let clip = model.clip().unwrap();
    let (pixels, labels) = digits(clip, 256);
    let words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let prompts = words.map(|word| format!("someone drew the digit {word}"));
    let found = best(clip, &pixels, &prompts.each_ref().map(String::as_str));
    let right = found.iter().zip(&labels).filter(|(a, b)| a == b).count();
    assert!(right * 100 >= labels.len() * 95, "{right} of {}", labels.len());
}

#[test]
fn it_has_a_card() {
    let card = hub().card(BUILTIN).unwrap().unwrap();
    let card: serde_json::Value = serde_json::from_str(&card).unwrap();
    assert!(card["trained_on"]["steps"].as_u64().unwrap() > 0, "{card}");
    assert!(card["settings"]["seed"].is_u64(), "{card}");
}
