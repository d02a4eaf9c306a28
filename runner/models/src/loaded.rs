//! A model of any kind, and its configuration before it is loaded.

use runner_contract::{Digest, Modality, ModelInfo};
use runner_data::Preprocess;

use crate::{Classifier, ClassifierConfig, Clip, ClipConfig, ModelError, fields::Fields};

/// A model in memory. Shared between threads; using it does not change it.
#[derive(Debug)]
pub enum Loaded {
    /// Embeds pictures and texts into one space.
    Clip(Clip),
    /// Tells pictures apart by classes of its own.
    Classifier(Classifier),
}

impl Loaded {
    /// Turns pictures into the pixels that [`Loaded::encode_images`] takes.
    pub fn preprocess(&self) -> &Preprocess {
        match self {
            Self::Clip(clip) => clip.preprocess(),
            Self::Classifier(classifier) => classifier.preprocess(),
        }
    }

    /// Components of an embedding, or of a classifier's pooled features.
    pub fn dim(&self) -> usize {
        match self {
            Self::Clip(clip) => clip.dim(),
            Self::Classifier(classifier) => classifier.dim(),
        }
    }

    /// Embeds `n` preprocessed pictures, `[n, channels, height, width]`, as `[n, dim]`, not normalised.
    pub fn encode_images(&self, pixels: &[f32], n: usize, threads: usize) -> Result<Vec<f32>, ModelError> {
        match self {
            Self::Clip(clip) => clip.encode_images(pixels, n, threads),
            Self::Classifier(classifier) => classifier.encode_images(pixels, n, threads),
        }
    }

    /// What similarities are multiplied with before the softmax, where the model compares.
    pub fn logit_scale(&self) -> Option<f32> {
        match self {
            Self::Clip(clip) => Some(clip.logit_scale()),
            Self::Classifier(_) => None,
        }
    }

    /// The model as one that reads texts too.
    pub fn clip(&self) -> Result<&Clip, ModelError> {
        match self {
            Self::Clip(clip) => Ok(clip),
            Self::Classifier(classifier) => {
                let name = classifier.config().architecture.name();
                Err(ModelError::Input(format!("a {name} model reads no texts, expected a CLIP model")))
            }
        }
    }

    /// The model as one with classes of its own.
    pub fn classifier(&self) -> Result<&Classifier, ModelError> {
        match self {
            Self::Classifier(classifier) => Ok(classifier),
            Self::Clip(_) => {
                let problem = "a CLIP model has no classes of its own, expected a classifier";
                Err(ModelError::Input(problem.to_owned()))
            }
        }
    }
}

/// The configuration of a model of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// A CLIP model's.
    Clip(ClipConfig),
    /// A classifier's.
    Classifier(ClassifierConfig),
}

impl ModelConfig {
    /// Reads the text of a `config.json`; its `model_type` decides. `file` names it in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, ModelError> {
        let fields = Fields::parse(file, text)?;
        let model_type = fields.get("model_type").and_then(serde_json::Value::as_str);
        if model_type.is_some_and(ClassifierConfig::is_type) {
            return ClassifierConfig::read(&fields).map(Self::Classifier);
        }
        ClipConfig::parse(file, text).map(Self::Clip)
    }

    /// What a model of this configuration offers.
    pub fn describe(&self, identity: Digest) -> ModelInfo {
        match self {
            Self::Clip(config) => ModelInfo {
                identity,
                family: "clip".to_owned(),
                encodes: vec![Modality::Image, Modality::Text],
                dim: Some(config.dim),
                classes: None,
            },
            Self::Classifier(config) => ModelInfo {
                identity,
                family: config.architecture.name().to_owned(),
                encodes: vec![Modality::Image],
                dim: Some(config.architecture.features()),
                classes: Some(config.classes.len()),
            },
        }
    }
}
