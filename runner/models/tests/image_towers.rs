//! Convolutional image towers give what their reference implementations give. Values from `reference/image_towers.py`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use runner_models::{ClassifierConfig, Hub, Loaded, ModelConfig, safetensors::Reader};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A tensor of a model's expected values.
fn expected(name: &str, tensor: &str) -> Vec<f32> {
    let reader = Reader::open(&golden().join(name).join("expected.safetensors")).unwrap();
    let shape = reader.shape(tensor).unwrap().to_vec();
    reader.tensor(tensor, &shape).unwrap()
}

/// Fails unless values are close, relative to the largest expected one.
fn close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
    assert!(worst < 1e-5, "{what}: {worst}");
}

#[test]
fn clips_modified_resnet_embeds_as_openais_code_does() {
    let name = "modified_resnet";
    let model = Hub::new(golden()).open(name).unwrap();
    let clip = model.clip().unwrap();
    let pixels = expected(name, "pixels");
    let images = clip.encode_images(&pixels, 2, 2).unwrap();
    close("images", &images, &expected(name, "images"));
    let json = std::fs::read(golden().join(name).join("expected.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let texts: Vec<String> = serde_json::from_value(json["texts"].clone()).unwrap();
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| clip.tokenizer().unwrap().encode(text).unwrap()).collect();
    assert_eq!(ids, serde_json::from_value::<Vec<Vec<u32>>>(json["ids"].clone()).unwrap());
    close("texts", &clip.encode_texts(&ids, 2).unwrap(), &expected(name, "texts"));
    assert_eq!(model.logit_scale(), Some(3.0f32.exp()));
}

#[test]
fn classifiers_compute_the_features_and_logits_of_their_packages() {
    for name in ["resnet_basic", "resnet_bottleneck", "efficientnet_lite"] {
        let model = Hub::new(golden()).open(name).unwrap();
        let classifier = model.classifier().unwrap();
        let pixels = expected(name, "pixels");
        close(name, &classifier.logits(&pixels, 2, 2).unwrap(), &expected(name, "logits"));
        close(name, &model.encode_images(&pixels, 2, 2).unwrap(), &expected(name, "features"));
    }
}

#[test]
fn results_do_not_depend_on_threads_and_hardly_on_company() {
    for name in ["modified_resnet", "resnet_basic", "resnet_bottleneck", "efficientnet_lite"] {
        let model = Hub::new(golden()).open(name).unwrap();
        let pixels = expected(name, "pixels").repeat(9);
        let all = model.encode_images(&pixels, 18, 1).unwrap();
        for threads in [2, 3] {
            assert_eq!(all, model.encode_images(&pixels, 18, threads).unwrap(), "{name}");
        }
        let alone = pixels.chunks(pixels.len() / 18).take(2);
        let alone: Vec<f32> = alone.flat_map(|pixels| model.encode_images(pixels, 1, 1).unwrap()).collect();
        close(name, &alone, &all[..alone.len()]);
        assert!(model.encode_images(&[], 0, 1).unwrap().is_empty());
        assert!(
            model.encode_images(&pixels[1..], 18, 1).unwrap_err().to_string().contains("pixel values, expected 18 ×")
        );
    }
}

#[test]
fn a_classifier_knows_its_classes_and_reads_no_texts() {
    let hub = Hub::new(golden());
    let info = hub.info("resnet_basic").unwrap();
    assert_eq!((info.family.as_str(), info.dim, info.classes), ("torchvision_resnet", Some(32), Some(5)));
    let model = hub.open("resnet_basic").unwrap();
    assert_eq!(model.classifier().unwrap().classes(), ["cat", "dog", "cup", "car", "sky"]);
    let message = model.clip().unwrap_err().to_string();
    assert_eq!(message, "a torchvision_resnet model reads no texts, expected a CLIP model");
    assert!(matches!(*hub.open("modified_resnet").unwrap(), Loaded::Clip(_)));
}

#[test]
fn a_checkpoint_of_another_shape_is_refused_with_the_tensor() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        std::fs::copy(golden().join("efficientnet_lite").join(file), dir.path().join(file)).unwrap();
    }
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let message = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        std::fs::write(&config, text.replace(from, to)).unwrap();
        Hub::new(dir.path().to_owned()).open(".").unwrap_err().to_string()
    };
    assert!(message("\"num_labels\": 7", "\"num_labels\": 8").contains("tensor `_fc.weight`: expected shape [8, 160]"));
    let channels = message("[2, 3, 5,", "[2, 4, 5,");
    assert!(channels.contains("`_blocks.1._project_conv.weight`: expected shape [4, 12, 1, 1]"), "{channels}");
    assert!(message("[2, 3, 5,", "[0, 3, 5,").contains("channels: expected 7 whole numbers from 1 to 4096"));
    assert!(message("\"image_size\": 50", "\"image_size\": 9999").contains("a whole number from 1 to 8192"));
}

#[test]
fn a_classifiers_architecture_follows_from_its_tensors() {
    for name in ["resnet_basic", "resnet_bottleneck", "efficientnet_lite"] {
        let reader = Reader::open(&golden().join(name).join("model.safetensors")).unwrap();
        let derived = ClassifierConfig::derive(&|tensor| reader.shape(tensor).map(<[usize]>::to_vec)).unwrap();
        let text = std::fs::read_to_string(golden().join(name).join("config.json")).unwrap();
        let ModelConfig::Classifier(config) = ModelConfig::parse("config.json", &text).unwrap() else {
            panic!("{name}")
        };
        assert_eq!(
            (derived.architecture, derived.classes.len()),
            (config.architecture, config.classes.len()),
            "{name}"
        );
        let again = ModelConfig::parse("config.json", &config.to_json().to_string()).unwrap();
        assert_eq!(again, ModelConfig::Classifier(config));
    }
    let reader = Reader::open(&golden().join("modified_resnet/model.safetensors")).unwrap();
    assert_eq!(ClassifierConfig::derive(&|tensor| reader.shape(tensor).map(<[usize]>::to_vec)), None);
}

#[test]
fn what_a_configuration_leaves_out_is_the_published_models() {
    let parsed = |text: &str| match ModelConfig::parse("config.json", text).unwrap() {
        ModelConfig::Classifier(config) => config,
        ModelConfig::Clip(_) => panic!("{text}"),
    };
    // Multiplications and additions: 4.09 billion and 0.39 billion.
    let resnet = parsed(r#"{"model_type": "torchvision_resnet"}"#);
    assert_eq!((resnet.image_flops() / 20_000_000, resnet.classes.len()), (408, 1000));
    assert_eq!(resnet.classes[967], "espresso");
    let lite = parsed(r#"{"model_type": "efficientnet_lite"}"#);
    assert_eq!((lite.image_flops() / 20_000_000, lite.image_size), (38, 224));
    let message = |text: &str| ModelConfig::parse("config.json", text).unwrap_err().to_string();
    let names = message(r#"{"model_type": "efficientnet_lite", "id2label": {"0": "a", "2": "b"}}"#);
    assert!(names.contains("id2label: expected an object of names by number"), "{names}");
    let count = message(r#"{"model_type": "efficientnet_lite", "id2label": {"0": "a"}, "num_labels": 2}"#);
    assert_eq!(count, "config.json: num_labels: 2, but id2label has 1");
    assert!(message(r#"{"model_type": "torchvision_resnet", "block": "c"}"#).contains("`basic` or `bottleneck`"));
}
