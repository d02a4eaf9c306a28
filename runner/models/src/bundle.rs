//! Bundles: a model as one safetensors file, the other files of its folder being texts in the metadata.

use std::collections::BTreeMap;

use crate::safetensors::{Dtype, Reader, Tensor, write};

/// The metadata entry with the model card: JSON for people and tools.
pub(crate) const CARD: &str = "model_card.json";

/// Whether a safetensors file is a bundle.
pub(crate) fn is_bundle(reader: &Reader) -> bool {
    reader.metadata().contains_key("config.json")
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
