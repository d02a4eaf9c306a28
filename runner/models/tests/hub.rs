//! What users see of models that are missing, damaged or hostile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use runner_contract::{Digest, Model, ModelSource, Random};
use runner_models::{
    Hub, ModelError,
    safetensors::{self, Dtype, Reader, Tensor},
};

/// A copy of a golden model to damage.
fn copy(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    fs::create_dir(&folder).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    (dir, folder)
}

fn error(dir: &tempfile::TempDir, folder: &Path) -> String {
    let message = Hub::new(dir.path().to_owned()).open("model").unwrap_err().to_string();
    message.replace(&folder.display().to_string(), "MODEL")
}

fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn references_that_name_nothing_say_what_to_do() {
    let hub = Hub::new(PathBuf::from("/nowhere"));
    let message = |reference: &str| {
        let error = hub.info(reference).unwrap_err();
        format!("{error}; {}", error.hint().unwrap_or_default())
    };
    assert!(message("builtin:clip").contains("no such built-in model; there is builtin:mini-clip"));
    assert!(message("https://example.org/m.safetensors").contains("download it and give its path"));
    assert!(message("models/b32").contains("neither a file nor a folder at /nowhere/models/b32"));
}

#[test]
fn a_wrong_shape_names_file_tensor_expected_and_found() {
    let (dir, folder) = copy("quick_gelu");
    replace(&folder, "config.json", "\"projection_dim\": 20", "\"projection_dim\": 21");
    assert_eq!(
        error(&dir, &folder),
        "MODEL/model.safetensors: tensor `visual_projection.weight`: expected shape [21, 32], found [20, 32]"
    );
}

#[test]
fn a_missing_tensor_is_named() {
    let (dir, folder) = copy("quick_gelu");
    replace(&folder, "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1024");
    assert_eq!(
        error(&dir, &folder),
        "MODEL/model.safetensors: tensor `vision_model.encoder.layers.2.layer_norm1.weight`: missing, expected shape [32]"
    );
}

#[test]
fn an_unknown_activation_and_a_missing_file_are_named() {
    let (dir, folder) = copy("gelu");
    replace(&folder, "config.json", "\"gelu\"", "\"relu\"");
    assert!(error(&dir, &folder).contains("text_config.hidden_act: expected `gelu` or `quick_gelu`, found `\"relu\"`"));
    fs::remove_file(folder.join("config.json")).unwrap();
    assert!(error(&dir, &folder).starts_with("MODEL/config.json: "));
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    let (dir, folder) = copy("gelu");
    replace(&folder, "model.safetensors.index.json", "model-00002-of-00004.safetensors", "../../etc/x.safetensors");
    assert!(
        error(&dir, &folder).contains("expected the name of a safetensors file, found \"../../etc/x.safetensors\"")
    );
}

#[test]
fn a_cut_file_is_refused() {
    let (dir, folder) = copy("quick_gelu");
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let message = error(&dir, &folder);
    assert!(
        message.starts_with("MODEL/model.safetensors: tensor `") && message.contains(" bytes of data"),
        "{message}"
    );
}

#[test]
fn preprocessing_that_does_not_fit_is_refused() {
    let (dir, folder) = copy("quick_gelu");
    replace(&folder, "preprocessor_config.json", "30", "32");
    assert_eq!(error(&dir, &folder), "preprocessing gives 3 × 32 × 32 values, the model takes 3 × 30 × 30");
    fs::remove_file(folder.join("preprocessor_config.json")).unwrap();
    assert!(error(&dir, &folder).contains("neither preprocessor_config.json nor processor_config.json"));
}

#[test]
fn weights_alone_are_no_bundle() {
    let (dir, folder) = copy("quick_gelu");
    let hub = Hub::new(dir.path().to_owned());
    let message = hub.open("model/model.safetensors").unwrap_err().to_string();
    assert!(message.contains("for the weights of a model folder, give the folder"), "{message} {}", folder.display());
}

#[test]
fn the_identity_is_that_of_the_content() {
    let (dir, folder) = copy("quick_gelu");
    let hub = Hub::new(dir.path().to_owned());
    let before = hub.info("model").unwrap();
    assert_eq!(before.dim, Some(20));
    let (other, _) = copy("quick_gelu");
    assert_eq!(Hub::new(other.path().to_owned()).info("model").unwrap(), before);
    replace(&folder, "config.json", "\"eos_token_id\": 2", "\"eos_token_id\": 522");
    let after = hub.info("model").unwrap();
    assert_ne!(before.identity, after.identity);
    let model = Model { identity: before.identity, source: ModelSource::Reference("model".into()) };
    assert!(matches!(hub.load(&model).unwrap_err(), ModelError::Changed { .. }));
}

#[test]
fn a_model_is_loaded_once() {
    let (dir, _) = copy("quick_gelu");
    let hub = Hub::new(dir.path().to_owned());
    let one = hub.open("model").unwrap();
    assert!(std::sync::Arc::ptr_eq(&one, &hub.open("model").unwrap()));
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    fs::write(&path, [255; 40]).unwrap();
    let model = Model { identity: Digest::of(b""), source: ModelSource::File(path) };
    let message = Hub::new(dir.path().to_owned()).load(&model).unwrap_err().to_string();
    assert!(message.contains("m.safetensors: neither safetensors nor a file of PyTorch: expected "), "{message}");
}

#[test]
fn a_pickle_that_is_too_old_is_told_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("old.pt"), "(dp0\nVw\np1\nF1.0\ns.").unwrap();
    fs::write(dir.path().join("short.pt"), "").unwrap();
    for name in ["old.pt", "short.pt"] {
        let message = Hub::new(dir.path().to_owned()).open(name).unwrap_err().to_string();
        assert!(message.contains("a pickle of protocol 2 or later, as torch.save writes them"), "{message}");
    }
}

#[test]
fn texts_of_a_model_are_not_read_without_end() {
    for (name, limit) in [
        ("config.json", "8 MiB"),
        ("preprocessor_config.json", "8 MiB"),
        ("tokenizer_config.json", "8 MiB"),
        ("model.safetensors.index.json", "64 MiB"),
    ] {
        let (dir, folder) = copy("gelu");
        fs::File::create(folder.join(name)).unwrap().set_len(3 << 30).unwrap();
        assert_eq!(
            error(&dir, &folder),
            format!("MODEL/{name}: longer than {limit}, the most that is read of such a file")
        );
    }
    let (dir, folder) = copy("gelu");
    fs::write(folder.join("config.json"), format!("{{\"a\": [{}1]}}", "1,".repeat(1 << 20))).unwrap();
    assert!(error(&dir, &folder).starts_with("MODEL/config.json: more than 262144 values of JSON"));
}

#[cfg(unix)]
#[test]
fn weights_that_are_a_pipe_are_refused_and_not_waited_for() {
    let (dir, folder) = copy("quick_gelu");
    let path = folder.join("model.safetensors");
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let message = Hub::new(dir.path().to_owned()).open("model/model.safetensors").unwrap_err().to_string();
    assert!(message.ends_with("model.safetensors: expected a regular file"), "{message}");
}

#[test]
fn texts_of_a_bundle_have_the_same_limits() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[{}1]", "1,".repeat(1 << 20));
    let metadata = BTreeMap::from([("config.json".to_owned(), config)]);
    fs::write(dir.path().join("b.safetensors"), safetensors::write(&[], Dtype::F32, &metadata)).unwrap();
    let message = Hub::new(dir.path().to_owned()).open("b.safetensors").unwrap_err().to_string();
    assert!(message.contains("b.safetensors, config.json: more than 262144 values of JSON"), "{message}");
}

/// A golden model as a bundle.
fn bundle() -> Vec<u8> {
    let (dir, folder) = copy("quick_gelu");
    let reader = Reader::open(&folder.join("model.safetensors")).unwrap();
    let parts = ["config.json", "tokenizer.json", "preprocessor_config.json"];
    let metadata = parts.map(|name| (name.to_owned(), fs::read_to_string(folder.join(name)).unwrap()));
    let tensors: Vec<_> = reader
        .names()
        .map(|name| {
            let shape = reader.shape(name).unwrap();
            (name, shape, reader.tensor(name, shape).unwrap())
        })
        .collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect();
    drop(dir);
    safetensors::write(&tensors, Dtype::F32, &BTreeMap::from(metadata))
}

#[test]
fn a_bundle_is_the_folder_in_one_file() {
    let (dir, _) = copy("quick_gelu");
    fs::write(dir.path().join("m.safetensors"), bundle()).unwrap();
    let hub = Hub::new(dir.path().to_owned());
    let (folder, bundle) = (hub.open("model").unwrap(), hub.open("m.safetensors").unwrap());
    let (folder, bundle) = (folder.clip().unwrap(), bundle.clip().unwrap());
    let ids = vec![folder.tokenizer().unwrap().encode("a cat").unwrap()];
    assert_eq!(folder.encode_texts(&ids, 1).unwrap(), bundle.encode_texts(&ids, 1).unwrap());
}

/// Damages a bundle: in its header, where most can go wrong.
fn damaged(mut bytes: Vec<u8>, damage: &[(usize, u8)]) -> Vec<u8> {
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    for (place, value) in damage {
        bytes[place % header] = *value;
    }
    bytes
}

#[test]
fn a_damaged_bundle_is_refused_or_loads_but_never_panics() {
    let (bytes, dir) = (bundle(), tempfile::tempdir().unwrap());
    let path = dir.path().join("m.safetensors");
    let mut random = Random::new(0, "damage", "");
    for round in 0..200u64 {
        let damage: Vec<_> = (0..1 + round % 3).map(|_| (random.below(1 << 20), random.below(128) as u8)).collect();
        fs::write(&path, damaged(bytes.clone(), &damage)).unwrap();
        let model = Model { identity: Digest::of(&round.to_le_bytes()), source: ModelSource::File(path.clone()) };
        let hub = Hub::new(dir.path().to_owned());
        if let Ok(loaded) = hub.load(&model)
            && let Ok(clip) = loaded.clip()
            && let Ok(tokenizer) = clip.tokenizer()
        {
            let _ = tokenizer.encode("a cat").map(|ids| clip.encode_texts(&[ids], 1));
        }
    }
}
