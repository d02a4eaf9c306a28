//! The same numbers as CLIP_benchmark, scikit-learn and PyTorch on the same features: `reference/metrics.py` made them.

use std::collections::BTreeMap;

use runner_contract::{Batch, ColumnData, Digest};
use serde::Deserialize;
use serde_json::json;

use crate::testing::{fold, job, try_apply};

#[derive(Deserialize)]
struct Golden {
    classification: Vec<Classification>,
    retrieval: Vec<Retrieval>,
}

#[derive(Deserialize)]
struct Classification {
    rows: usize,
    classes: usize,
    dim: usize,
    templates: usize,
    metrics: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Retrieval {
    images: usize,
    captions: Vec<usize>,
    dim: usize,
    metrics: BTreeMap<String, f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/metrics.json")).unwrap()
}

/// `noise` of the script.
fn noise(rows: usize, dim: usize, salt: u64) -> Vec<f32> {
    let value = |i: u64| {
        let mut x = (i + salt * 1_000_003).wrapping_mul(2_654_435_761) & 0xffff_ffff;
        x ^= x >> 15;
        x = x.wrapping_mul(2_246_822_519) & 0xffff_ffff;
        x ^= x >> 13;
        ((x % 2048) as f32 - 1024.0) / 1024.0
    };
    (0..(rows * dim) as u64).map(value).collect()
}

fn embedded(ids: impl Iterator<Item = String>, values: Vec<f32>, dim: usize) -> Batch {
    let metadata = BTreeMap::from([(crate::LOGIT_SCALE.to_owned(), "100".to_owned())]);
    let data = ColumnData::Embeddings(values, dim, Digest::of(b"m"));
    Batch::new(ids.collect()).with_metadata("embedding", data, metadata).unwrap()
}

/// Rows of `centres` by the places given, scaled, plus noise.
fn near(centres: &[f32], places: &[usize], scale: f32, noise: &[f32], dim: usize) -> Vec<f32> {
    let centre = |i: usize| &centres[places[i] * dim..][..dim];
    (0..places.len() * dim).map(|i| centre(i / dim)[i % dim] * scale + noise[i]).collect()
}

fn close(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>, names: &[(&str, &str)]) {
    for (theirs, value) in expected {
        let ours = names.iter().find(|(name, _)| name == theirs).map_or(theirs.as_str(), |(_, ours)| ours);
        let found = found.get(ours).unwrap_or_else(|| panic!("no {ours} for {theirs} among {found:?}"));
        assert!((found - value).abs() < 5e-5, "{ours} is {found}, expected {value}");
    }
}

#[test]
fn zero_shot_metrics_are_those_of_clip_benchmark() {
    for Classification { rows, classes, dim, templates, metrics } in golden().classification {
        let centres = noise(classes, dim, 1);
        let labels: Vec<usize> = (0..rows).map(|i| i * 7 % classes).collect();
        let images = near(&centres, &labels, 0.5, &noise(rows, dim, 2), dim);
        let images = embedded((0..rows).map(|i| format!("{i}")), images, dim)
            .with("label", ColumnData::Labels(labels.iter().map(|&label| label as i64).collect()))
            .unwrap();
        let of: Vec<usize> = (0..classes * templates).map(|i| i / templates).collect();
        let texts = near(&centres, &of, 0.5, &noise(classes * templates, dim, 3), dim);
        let prompts = embedded((0..classes * templates).map(|i| format!("{i}")), texts, dim)
            .with("label", ColumnData::Labels(of.iter().map(|&label| label as i64).collect()))
            .unwrap();
        let pooled = fold("pool", json!({}), &[vec![prompts]]).unwrap().rows.remove("rows").unwrap();
        let chunks: Vec<Batch> = (0..rows).step_by(64).map(|i| images.slice(i, 64)).collect();
        let scored = chunks.into_iter().map(|chunk| {
            try_apply("score", json!({}), &[("queries", chunk)], &[("candidates", pooled.clone())])
                .unwrap()
                .remove("rows")
                .unwrap()
        });
        let scored: Vec<Vec<Batch>> = scored.map(|chunk| vec![chunk]).collect();
        let found = fold("metrics", json!({"task": "classification"}), &scored).unwrap().metrics;
        close(&found, &metrics, &[("acc1", "top1"), ("acc5", "top5")]);
        assert_eq!(found.contains_key("top5"), metrics.contains_key("acc5"), "{classes} classes");
    }
}

#[test]
fn retrieval_metrics_are_those_of_clip_benchmark() {
    for Retrieval { images, captions, dim, metrics } in golden().retrieval {
        let owners: Vec<usize> =
            (0..images).flat_map(|image| std::iter::repeat_n(image, captions[image % captions.len()])).collect();
        let pictures = noise(images, dim, 4);
        let texts = near(&pictures, &owners, 0.5, &noise(owners.len(), dim, 5), dim);
        let pictures = embedded((0..images).map(|i| format!("i{i}")), pictures, dim);
        let texts = embedded((0..owners.len()).map(|i| format!("t{i}")), texts, dim)
            .with("parent", ColumnData::Text(owners.iter().map(|owner| format!("i{owner}")).collect()))
            .unwrap();
        let found = job("retrieval", json!({}), &[("images", pictures), ("captions", texts)]).unwrap().metrics;
        close(&found, &metrics, &[]);
    }
}
