//! Checkpoints in the formats that people have give what their reference implementations give. Values from
//! `reference/checkpoints.py`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use runner_models::{Activation, Hub, Loaded};

/// How far features may be off, relative to the largest.
const TOLERANCE: f32 = 1e-4;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A hub over the golden models, with a library of its own.
fn hub(dir: &tempfile::TempDir) -> Hub {
    Hub::new(golden()).with_library(dir.path().join("library"))
}

fn check(hub: &Hub, reference: &str, expected: &str) {
    let found = hub.verify(reference, Some(&golden().join(expected)), 2, None).unwrap();
    assert_eq!(found.differences.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["images", "texts"], "{reference}");
    assert!(found.differences.iter().all(|(_, difference)| *difference < TOLERANCE), "{reference}: {found:?}");
}

const MODELS: [(&str, &str); 4] = [
    ("openai_vit.pt", "openai_vit.expected.safetensors"),
    ("openai_resnet.pt", "openai_resnet.expected.safetensors"),
    ("open_clip_vit", "open_clip_vit/expected.safetensors"),
    ("open_clip_custom", "open_clip_custom/expected.safetensors"),
];

#[test]
fn features_equal_those_of_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    for (model, expected) in MODELS {
        check(&hub(&dir), model, expected);
    }
}

#[test]
fn an_imported_model_computes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(&dir);
    for (model, expected) in MODELS {
        let imported = hub.import(model, &Hub::default_name(model)).unwrap();
        assert_eq!(hub.info(&imported.reference).unwrap(), imported.info);
        check(&hub, &imported.reference, expected);
    }
    let names = ["open_clip_custom", "open_clip_vit", "openai_resnet", "openai_vit"];
    assert_eq!(hub.imported().unwrap(), names.map(|name| format!("imported:{name}")));
    // Its tokenizer cleans up as before, and its preprocessing is what the configuration said.
    let tokens = |reference: &str| {
        let loaded = hub.open(reference).unwrap();
        let clip = loaded.clip().unwrap();
        (clip.tokenizer().unwrap().encode("  A &amp;amp; B").unwrap(), clip.preprocess().clone())
    };
    assert_eq!(tokens("imported:open_clip_vit"), tokens("open_clip_vit"));
    let again = hub.import("open_clip_vit", "again").unwrap();
    let first = fs::read(dir.path().join("library/open_clip_vit.safetensors")).unwrap();
    assert_eq!(fs::read(again.path).unwrap(), first, "equal models give equal bundles");
}

#[test]
fn the_import_says_what_was_decided_and_from_what() {
    let dir = tempfile::tempdir().unwrap();
    let decisions = |model: &str| -> Vec<String> {
        let decisions = hub(&dir).decisions(model).unwrap();
        decisions.into_iter().map(|it| format!("{}: {} ({})", it.about, it.taken, it.from)).collect()
    };
    assert_eq!(
        decisions("openai_resnet.pt"),
        [
            "image tower: modified ResNet, 1, 2, 1, 1 blocks, width 2, 64 × 64 pixels (the tensors' shapes)",
            "text tower: 1 layers, width 64, 1 heads (the tensors' shapes)",
            "activation: quick GELU (class QuickGELU in the archive)",
            "pooling: texts are read at the largest id (the tensors' shapes)",
            "context: 12 tokens (the tensors' shapes)",
            "tokenizer: 48 tokens (inside the program)",
            "preprocessing: bicubic to 64 × 64, centre crop, mean 0.481, 0.458, 0.408, deviation 0.269, 0.261, 0.276 \
             (OpenAI's models)",
        ]
    );
    let of_open_clip = decisions("open_clip_custom");
    assert!(of_open_clip.contains(&"activation: GELU (open_clip_config.json)".to_owned()), "{of_open_clip:?}");
    assert!(of_open_clip.iter().any(|it| it.contains("bicubic to 64 × 64, mean 0.500")), "{of_open_clip:?}");
}

/// A copy of a golden model with other files for its weights.
fn with_weights(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    fs::create_dir(&folder).unwrap();
    for name in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        fs::copy(golden().join("mixed").join(name), folder.join(name)).unwrap();
    }
    for (from, to) in files {
        fs::copy(golden().join(from), folder.join(to)).unwrap();
    }
    dir
}

#[test]
fn pickled_weights_of_transformers_are_those_of_safetensors() {
    const INDEX: &str = "pytorch_model.bin.index.json";
    const PARTS: [&str; 2] = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
    let ids = vec![vec![1, 5, 7]];
    let texts =
        |hub: &Hub, reference: &str| hub.open(reference).unwrap().clip().unwrap().encode_texts(&ids, 1).unwrap();
    let expected = texts(&Hub::new(golden()), "mixed");
    let parts = PARTS.map(|part| format!("pytorch_shards/{part}"));
    let index = format!("pytorch_shards/{INDEX}");
    for dir in [
        with_weights(&[("pytorch_legacy.bin", "pytorch_model.bin")]),
        with_weights(&[(&index, INDEX), (&parts[0], PARTS[0]), (&parts[1], PARTS[1])]),
    ] {
        assert_eq!(texts(&Hub::new(dir.path().to_owned()), "model"), expected);
    }
}

#[test]
fn weights_that_do_not_say_what_they_are_are_refused_with_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    fs::copy(golden().join("open_clip_custom/open_clip_pytorch_model.bin"), &path).unwrap();
    let hub = Hub::new(dir.path().to_owned());
    let error = hub.open("model.bin").unwrap_err();
    assert!(error.to_string().contains("does not say whether its activation is GELU or quick GELU"), "{error}");
    assert_eq!(
        error.hint().unwrap(),
        "give open_clip's name, open_clip:NAME=PATH or open_clip:NAME-quickgelu=PATH; of OpenAI's code, openai:PATH"
    );
    // Named, they are checked against the name.
    let error = hub.open("open_clip:RN50=model.bin").unwrap_err().to_string();
    assert!(
        error.ends_with("tensor `visual.conv1.weight`: expected shape [32, 3, 3, 3], found [1, 3, 3, 3]"),
        "{error}"
    );
    let error = hub.open("open_clip:ViT-B-32-SigLIP=model.bin").unwrap_err();
    assert!(error.hint().unwrap().contains("there is ViT-S-32, "), "{error}");
    assert!(hub.open("open_clip:ViT-B-32").unwrap_err().to_string().contains("expected open_clip:NAME=PATH"));
    // What a reference says is part of the identity.
    let hub = Hub::new(golden());
    let quick = hub.info("openai:open_clip_vit/open_clip_model.safetensors").unwrap_err().to_string();
    assert!(quick.contains("expected 32 columns, a multiple of 64"), "{quick}");
}

#[test]
fn the_name_of_a_configuration_is_part_of_the_identity() {
    let hub = Hub::new(golden());
    let identity = |reference: &str| hub.info(reference).unwrap().identity;
    let path = "openai_vit.pt";
    let named = identity(&format!("open_clip:ViT-B-32={path}"));
    assert_ne!(named, identity(&format!("open_clip:ViT-B-32-quickgelu={path}")));
    assert_ne!(named, identity(&format!("openai:{path}")));
    assert_ne!(named, identity(path));
}

#[test]
fn names_of_imported_models_stay_in_the_library() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(&dir);
    for name in ["../x", "", ".x", "a/b", "-x", "a b"] {
        assert!(hub.import("open_clip_vit", name).unwrap_err().to_string().contains("not a name"), "{name}");
        assert!(hub.open(&format!("imported:{name}")).unwrap_err().to_string().contains("no such model"), "{name}");
    }
    assert_eq!(hub.open("imported:x").unwrap_err().hint().unwrap(), "runner model import MODEL --name x");
    assert_eq!(Hub::default_name("hf:laion/CLIP-ViT-B-32@main"), "CLIP-ViT-B-32");
    assert_eq!(Hub::default_name("open_clip:ViT-B-32=/a/epoch 3.pt"), "epoch-3");
    assert_eq!(Hub::default_name("models/b32/"), "b32");
}

#[test]
fn activations_are_those_of_the_checkpoint() {
    let hub = Hub::new(golden());
    let activation = |model: &str| match hub.open(model).unwrap().as_ref() {
        Loaded::Clip(clip) => clip.config().text.tower.activation,
        Loaded::Classifier(_) => panic!("{model} is a classifier"),
    };
    assert_eq!(activation("openai_vit.pt"), Activation::QuickGelu);
    assert_eq!(activation("open_clip_vit"), Activation::QuickGelu);
    assert_eq!(activation("open_clip_custom"), Activation::Gelu);
}
