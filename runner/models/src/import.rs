//! Models of any format as bundles in the library, and what was decided on the way.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use runner_contract::{Digest, ModelInfo};
use runner_data::Preprocess;
use serde_json::{Value, json};

use crate::{
    Hub, Loaded, ModelConfig, ModelError, bundle,
    clip::{Activation, ClipConfig, Pooling, VisionConfig},
    hub::{hash_file, is_name},
    parts::Parts,
    safetensors::{Dtype, Planned, write_each},
};

/// Something that a model's file does not have to say, what was taken, and from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What it is about.
    pub about: &'static str,
    /// What was taken.
    pub taken: String,
    /// From what.
    pub from: String,
}

/// A model in the library.
#[derive(Clone, Debug)]
pub struct Imported {
    /// `imported:NAME`
    pub reference: String,
    /// The bundle.
    pub path: PathBuf,
    /// What it offers.
    pub info: ModelInfo,
    /// What was decided.
    pub decisions: Vec<Decision>,
}

impl Hub {
    /// What a model is taken to be, and from what.
    pub fn decisions(&self, reference: &str) -> Result<Vec<Decision>, ModelError> {
        self.decided(reference, &Parts::open(&self.place(reference)?)?)
    }

    fn decided(&self, reference: &str, parts: &Parts) -> Result<Vec<Decision>, ModelError> {
        let mut found = decisions(parts);
        if let Some(commit) = self.commit(reference)? {
            found.insert(0, Decision { about: "commit", taken: commit, from: "the hub".to_owned() });
        }
        Ok(found)
    }

    /// The name that a model gets in the library where nobody gives one: that of its file, folder or repository.
    pub fn default_name(reference: &str) -> String {
        let path = reference.rsplit_once('=').map_or(reference, |(_, path)| path);
        let name =
            path.split('@').next().unwrap_or(path).trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or(path);
        let name =
            [".safetensors", ".pt", ".pth", ".bin"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
    }

    /// Writes a model as a bundle into the library, in the number formats that it has. One of that name is replaced.
    pub fn import(&self, reference: &str, name: &str) -> Result<Imported, ModelError> {
        if !is_name(name) {
            return Err(ModelError::Name {
                reference: format!("imported:{name}"),
                problem: "not a name for a model".to_owned(),
                hint: "use letters, digits, `.`, `_` and `-`, a letter or digit first".to_owned(),
            });
        }
        let place = self.place(reference)?;
        let (tensors, mut metadata) = survey(Parts::open(&place)?)?;
        let parts = Parts::open(&place)?;
        let decisions = self.decided(reference, &parts)?;
        let identity = self.info(reference)?.identity;
        metadata.insert(bundle::CARD.to_owned(), card(reference, &identity, &decisions));
        let library = self.library();
        fs::create_dir_all(library).map_err(ModelError::io(library))?;
        let path = library.join(format!("{name}.safetensors"));
        let aside = library.join(format!(".{name}.part{}", std::process::id()));
        let written = write(&aside, &tensors, &metadata, &parts);
        if let Err(error) = written.and_then(|()| fs::rename(&aside, &path).map_err(ModelError::io(&path))) {
            // What is left of a failed write is only in the way; the error to tell is the first one.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        let info = parts.config.describe(hash_file(&path)?);
        Ok(Imported { reference: format!("imported:{name}"), path, info, decisions })
    }
}

/// The tensors that the network takes, which loading it tells and checks, and the texts of the bundle.
fn survey(parts: Parts) -> Result<(Vec<Planned>, BTreeMap<String, String>), ModelError> {
    let mut tensors = Vec::new();
    let loaded = parts.load_noting(None, &mut |name, shape, dtype| {
        let dtype = if dtype == Some(Dtype::F64) { None } else { dtype };
        tensors.push(Planned { name: name.to_owned(), shape: shape.to_vec(), dtype: dtype.unwrap_or(Dtype::F32) });
    })?;
    let mut texts = vec![("format", "pt".to_owned()), ("preprocessor_config.json", loaded.preprocess().to_json())];
    match &loaded {
        Loaded::Clip(clip) => {
            let tokenizer = clip.tokenizer()?;
            let json = tokenizer.to_json().map_err(|error| ModelError::Input(error.to_string()))?;
            texts.push(("config.json", clip.config().to_json(Some((tokenizer.start(), tokenizer.end()))).to_string()));
            texts.push(("tokenizer.json", json));
            texts.push(("tokenizer_config.json", tokenizer.config_json()));
        }
        Loaded::Classifier(classifier) => texts.push(("config.json", classifier.config().to_json().to_string())),
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((tensors, texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()))
}

fn write(
    path: &Path,
    tensors: &[Planned],
    metadata: &BTreeMap<String, String>,
    parts: &Parts,
) -> Result<(), ModelError> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(ModelError::io(path))?);
    let mut values = |tensor: &Planned| parts.weights.tensor(&tensor.name, &tensor.shape);
    write_each(tensors, metadata, &mut values, &mut |bytes| out.write_all(bytes).map_err(ModelError::io(path)))?;
    out.flush().and_then(|()| out.get_ref().sync_all()).map_err(ModelError::io(path))
}

/// Where a bundle came from. It names no path of this machine: equal models give equal bundles.
fn card(reference: &str, identity: &Digest, decisions: &[Decision]) -> String {
    let source = match reference.starts_with("hf:") || reference.starts_with("builtin:") {
        true => reference.to_owned(),
        false => Hub::default_name(reference),
    };
    let decisions: serde_json::Map<_, _> = decisions
        .iter()
        .map(|Decision { about, taken, from }| ((*about).to_owned(), Value::from(format!("{taken} ({from})"))))
        .collect();
    json!({"imported from": source, "identity": identity, "decisions": decisions}).to_string()
}

fn decisions(parts: &Parts) -> Vec<Decision> {
    let origins = &parts.origins;
    let mut found = Vec::new();
    let mut add = |about, taken: String, from: &str| found.push(Decision { about, taken, from: from.to_owned() });
    match &parts.config {
        ModelConfig::Clip(config) => {
            add("image tower", image_tower(config), &origins.architecture);
            let text = &config.text;
            let tower = format!("{} layers, width {}, {} heads", text.tower.layers, text.tower.width, text.tower.heads);
            add("text tower", tower, &origins.architecture);
            add("activation", activations(config), &origins.activation);
            let pooling = match text.pooling {
                Pooling::LargestId => "texts are read at the largest id".to_owned(),
                Pooling::Token(id) => format!("texts are read at token {id}"),
            };
            add("pooling", pooling, &origins.architecture);
            add("context", format!("{} tokens", text.positions), &origins.architecture);
            add("tokenizer", format!("{} tokens", text.vocab), &origins.tokenizer);
        }
        ModelConfig::Classifier(config) => {
            let network = format!("{}, {} classes", config.architecture.name(), config.classes.len());
            add("network", network, &origins.architecture);
        }
    }
    add("preprocessing", preprocessing(&parts.preprocess), &origins.preprocessing);
    found
}

fn image_tower(config: &ClipConfig) -> String {
    let side = config.vision.image_size();
    match &config.vision {
        VisionConfig::Vit(vit) => format!(
            "vision transformer, {} layers, width {}, {} heads, patches of {}, {side} × {side} pixels",
            vit.tower.layers, vit.tower.width, vit.tower.heads, vit.patch_size
        ),
        VisionConfig::ResNet(resnet) => {
            let layers = resnet.layers.map(|layers| layers.to_string()).join(", ");
            format!("modified ResNet, {layers} blocks, width {}, {side} × {side} pixels", resnet.width)
        }
    }
}

fn activations(config: &ClipConfig) -> String {
    let name = |activation| match activation {
        Activation::Gelu => "GELU",
        Activation::QuickGelu => "quick GELU",
    };
    let text = name(config.text.tower.activation);
    match &config.vision {
        VisionConfig::Vit(vit) if vit.tower.activation != config.text.tower.activation => {
            format!("{} for images, {text} for texts", name(vit.tower.activation))
        }
        _ => text.to_owned(),
    }
}

/// What happens to a picture, in a line.
fn preprocessing(preprocess: &Preprocess) -> String {
    let config: Value = serde_json::from_str(&preprocess.to_json()).unwrap_or_default();
    let filter = match config["resample"].as_u64() {
        Some(1) => "lanczos",
        Some(2) => "bilinear",
        Some(3) => "bicubic",
        _ => "another filter",
    };
    let list = |name: &str| {
        let numbers = config[name].as_array().cloned().unwrap_or_default();
        numbers
            .iter()
            .map(|number| format!("{:.3}", number.as_f64().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (height, width) = preprocess.size();
    let crop = if config["do_center_crop"] == true { ", centre crop" } else { "" };
    format!("{filter} to {height} × {width}{crop}, mean {}, deviation {}", list("image_mean"), list("image_std"))
}
