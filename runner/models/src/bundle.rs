//! Bundles: a model as one safetensors file, the other files of its folder being texts in the metadata.

use std::collections::BTreeMap;

use runner_data::{ClipTokenizer, Preprocess};

use crate::{
    Classifier, Clip, Loaded, ModelConfig, ModelError,
    safetensors::{Dtype, Reader, Tensor, write},
    weights::Weights,
};

/// The metadata entry with the model card: JSON for people and tools.
pub(crate) const CARD: &str = "model_card.json";

/// A part of a bundle, and its name for messages.
pub(crate) fn part<'a>(reader: &'a Reader, name: &str) -> Result<(String, &'a str), ModelError> {
    let text = reader.metadata().get(name).ok_or_else(|| {
        let problem = format!(
            "no `{name}` in the metadata, so this is no bundle; for the weights of a model folder, give the folder"
        );
        ModelError::file(reader.name(), problem)
    })?;
    Ok((format!("{}, {name}", reader.name()), text))
}

/// The configuration in a bundle.
pub(crate) fn config(reader: &Reader) -> Result<ModelConfig, ModelError> {
    let (file, text) = part(reader, "config.json")?;
    ModelConfig::parse(&file, text)
}

pub(crate) fn load(reader: Reader) -> Result<Loaded, ModelError> {
    let config = config(&reader)?;
    let (file, text) = part(&reader, "preprocessor_config.json")?;
    let preprocess = Preprocess::from_config(text).map_err(|error| ModelError::file(file, error.to_string()))?;
    let config = match config {
        ModelConfig::Clip(config) => config,
        ModelConfig::Classifier(config) => {
            let weights = Weights::single(reader);
            let values = &mut |name: &str, shape: &[usize]| weights.tensor(name, shape);
            return Classifier::new(config, values, preprocess).map(Loaded::Classifier);
        }
    };
    let (file, text) = part(&reader, "tokenizer.json")?;
    let settings = reader.metadata().get("tokenizer_config.json").map(String::as_str);
    let tokenizer =
        ClipTokenizer::from_json(text, settings).map_err(|error| ModelError::file(file, error.to_string()))?;
    let weights = Weights::single(reader);
    Clip::new(config, &mut |name, shape| weights.tensor(name, shape), tokenizer, preprocess).map(Loaded::Clip)
}

/// The texts that go with a model's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleTexts {
    /// `config.json`
    pub config: String,
    /// `tokenizer.json`
    pub tokenizer: String,
    /// `tokenizer_config.json`: context length and special tokens.
    pub tokenizer_config: String,
    /// `preprocessor_config.json`
    pub preprocessor: String,
    /// The model card, JSON: how it was made, what it is good for.
    pub card: Option<String>,
}

/// Writes a bundle, with other metadata beside the model's texts.
pub(crate) fn save(tensors: &[Tensor<'_>], dtype: Dtype, texts: &BundleTexts, more: &[(&str, &str)]) -> Vec<u8> {
    let mut metadata = BTreeMap::from([
        ("config.json".to_owned(), texts.config.clone()),
        ("format".to_owned(), "pt".to_owned()),
        ("preprocessor_config.json".to_owned(), texts.preprocessor.clone()),
        ("tokenizer.json".to_owned(), texts.tokenizer.clone()),
        ("tokenizer_config.json".to_owned(), texts.tokenizer_config.clone()),
    ]);
    metadata.extend(more.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    if let Some(card) = &texts.card {
        metadata.insert(CARD.to_owned(), card.clone());
    }
    write(tensors, dtype, &metadata)
}
