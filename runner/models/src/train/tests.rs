//! Gradients as PyTorch computes them; training that learns, and goes on exactly where it stopped.

use std::path::{Path, PathBuf};

use runner_contract::Random;
use runner_data::{ClipTokenizer, Preprocess};
#[cfg(not(feature = "cuda"))]
use runner_nn::{Session, gpu::GpuOperations};

use super::{ClipTrainer, TrainBatch, TrainOptions, TrainSetup};
use crate::{
    ClipConfig, Hub,
    safetensors::Reader,
    weights::{Weights, files},
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A trainer of a golden model's architecture.
fn setup(folder: &Path, options: TrainOptions) -> TrainSetup {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    TrainSetup {
        config: ClipConfig::parse("config.json", &read("config.json")).unwrap(),
        options,
        tokenizer: ClipTokenizer::from_folder(folder, None).unwrap(),
        preprocess: Preprocess::from_config(&read("preprocessor_config.json")).unwrap(),
        seed: 3,
    }
}

/// The gradients of a golden model, against those of `reference/clip_gradients.py`: `(largest difference relative to the
/// parameter's largest gradient, its name)`.
fn worst_gradient(name: &str, threads: usize) -> (f32, String) {
    const PAIRS: usize = 5;
    let folder = golden(name);
    let reader = Reader::open(&folder.join("gradients.safetensors")).unwrap();
    let weights = Weights::open(&files(&folder).unwrap()).unwrap();
    let setup = setup(&folder, TrainOptions::default());
    let side = setup.config.vision.image_size();
    let trainer =
        ClipTrainer::with_weights(setup, threads, None, &mut |name, shape| weights.tensor(name, shape)).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let texts: Vec<Vec<u32>> = serde_json::from_value(json["ids"].clone()).unwrap();
    let pixels = reader.tensor("pixels", &[PAIRS, 3, side, side]).unwrap();
    let true_pairs: Vec<bool> =
        reader.tensor("true_pairs", &[PAIRS, PAIRS]).unwrap().iter().map(|value| *value == 1.0).collect();
    let batch = TrainBatch { pixels: &pixels, texts: &texts[..PAIRS], true_pairs: Some(&true_pairs) };
    let (loss, gradients) = trainer.gradients(&batch).unwrap();
    let expected = reader.tensor("loss", &[]).unwrap()[0];
    assert!((loss - expected).abs() < 1e-5 * expected, "loss {loss}, expected {expected}");

    let mut worst = (0.0, String::new());
    for (parameter, gradient) in trainer.parameters.iter().zip(&gradients) {
        let mut rest = gradient.as_slice();
        for (name, shape) in &parameter.parts {
            let expected = reader.tensor(name, shape).unwrap();
            let (found, after) = rest.split_at(expected.len());
            rest = after;
            let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // A key bias moves every attention logit of a query alike, so its gradient is zero and has no scale.
            let least = if name.ends_with("k_proj.bias") { 1e-2 } else { 0.0 };
            let scale = expected.iter().fold(least, |max: f32, value| max.max(value.abs()));
            if difference / scale > worst.0 {
                worst = (difference / scale, name.clone());
            }
        }
    }
    worst
}

#[test]
fn gradients_through_both_towers_equal_those_of_pytorch() {
    for name in ["quick_gelu", "mixed"] {
        let worst = worst_gradient(name, 2);
        assert!(worst.0 < 1e-4, "{name}: {worst:?}");
    }
}

/// Noisy pictures with one bright band out of four, and texts that name the band.
fn batch(seed: u64, side: usize) -> (Vec<f32>, Vec<Vec<u32>>) {
    let mut random = Random::new(seed, "test batch", "");
    let (mut pixels, mut texts) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let class = random.below(4);
        let bright = |i: usize| f32::from(u8::from(i / side % side * 4 / side == class));
        pixels.extend((0..3 * side * side).map(|i| bright(i) + 0.1 * random.normal() as f32));
        texts.push(vec![521, 40 + class as u32, 522]);
    }
    (pixels, texts)
}

fn train(trainer: &mut ClipTrainer, steps: std::ops::Range<u64>) -> f32 {
    let mut loss = f32::NAN;
    for step in steps {
        let (pixels, texts) = batch(step, 28);
        loss = trainer.step(&TrainBatch { pixels: &pixels, texts: &texts, true_pairs: None }).unwrap().loss;
    }
    loss
}

fn small(threads: usize) -> ClipTrainer {
    let options = TrainOptions { steps: 60, warmup: 5, ..TrainOptions::default() };
    ClipTrainer::new(setup(&golden("gelu"), options), threads, None).unwrap()
}

#[test]
fn training_lowers_the_loss() {
    let mut trainer = small(2);
    let before = train(&mut trainer, 0..1);
    let after = train(&mut trainer, 1..60);
    assert!(before > 1.0 && after < 0.2, "{before} to {after}");
}

/// What a GPU computes, computed by the same operations of dfdx on the processor.
#[cfg(not(feature = "cuda"))]
#[test]
fn training_with_the_operations_of_a_gpu_goes_the_same_way() {
    let (mut here, mut there) = (small(1), small(1));
    let mut tensors = there.tensors().into_iter();
    let session = Session::over(GpuOperations::default());
    let mut next = |_: &str, _: &[usize]| Ok(tensors.next().unwrap().2);
    there.compute = super::compute::on(session, there.config, &mut next).unwrap().0;
    for step in 0..6 {
        let (one, other) = (train(&mut here, step..step + 1), train(&mut there, step..step + 1));
        assert!((one - other).abs() < 1e-3 * one, "step {step}: {one} {other}");
    }
    let error = ClipTrainer::load(here.save(), 1, Some(0)).err().unwrap().to_string();
    assert!(error.starts_with("this program was built without CUDA"), "{error}");
}

#[test]
fn a_resumed_training_ends_with_the_same_bits_for_any_number_of_threads() {
    let mut whole = small(1);
    train(&mut whole, 0..8);
    for stop in [0, 5] {
        let mut first = small(2);
        train(&mut first, 0..stop);
        let mut second = ClipTrainer::load(first.save(), 2, None).unwrap();
        assert_eq!(second.steps_done(), stop);
        assert_eq!(first.save(), second.save());
        train(&mut second, stop..8);
        assert!(whole.save() == second.save(), "stopped at {stop}");
    }
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let bytes = small(1).save();
    assert!(ClipTrainer::load(bytes[..bytes.len() - 1].to_vec(), 1, None).is_err());
    let text = String::from_utf8_lossy(&bytes).replacen("\\\"version\\\":1", "\\\"version\\\":2", 1);
    assert_ne!(text.as_bytes(), bytes);
    let error = ClipTrainer::load(crate::safetensors::write(&[], super::Dtype::F32, &Default::default()), 1, None);
    assert_eq!(error.err().unwrap().to_string(), "training checkpoint: no `training.json`");
}

#[test]
fn the_exported_bundle_encodes_as_the_trained_model() {
    let mut trainer = small(1);
    train(&mut trainer, 0..3);
    let dir = tempfile::tempdir().unwrap();
    let card = r#"{"name":"test"}"#;
    std::fs::write(dir.path().join("m.safetensors"), trainer.export(super::Dtype::F32, Some(card.into()))).unwrap();
    let hub = Hub::new(dir.path().to_owned());
    let (clip, loaded) = (trainer.clip().unwrap(), hub.open("m.safetensors").unwrap());
    let (pixels, texts) = batch(9, 28);
    assert_eq!(clip.encode_images(&pixels, 12, 1).unwrap(), loaded.encode_images(&pixels, 12, 1).unwrap());
    let loaded = loaded.clip().unwrap();
    assert_eq!(clip.encode_texts(&texts, 1).unwrap(), loaded.encode_texts(&texts, 1).unwrap());
    assert_eq!(
        clip.tokenizer().unwrap().encode("the cat").unwrap(),
        loaded.tokenizer().unwrap().encode("the cat").unwrap()
    );
    assert_eq!(clip.logit_scale(), loaded.logit_scale());
    assert_eq!(hub.card("m.safetensors").unwrap().as_deref(), Some(card));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let options = TrainOptions::default();
    let folder = golden("gelu");
    let with = |change: fn(&mut TrainSetup)| {
        let mut setup = setup(&folder, options);
        change(&mut setup);
        ClipTrainer::new(setup, 1, None).err().unwrap().to_string()
    };
    assert_eq!(
        with(|setup| {
            if let crate::VisionConfig::Vit(vit) = &mut setup.config.vision {
                vit.image_size = 42;
            }
        }),
        "preprocessing gives 3 × 28 × 28 values, the model takes 3 × 42 × 42"
    );
    assert_eq!(with(|setup| setup.config.text.vocab = 9), "the tokenizer has 523 tokens, the model's vocabulary 9");
    let trainer = &mut small(1);
    let error = trainer.step(&TrainBatch { pixels: &[], texts: &[], true_pairs: None }).unwrap_err();
    assert_eq!(error.to_string(), "a batch of 0 texts and 0 pixel values, expected as many of 3 × 28 × 28");
}
