//! The tensors of a checkpoint, in one safetensors file or in several.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{ModelError, safetensors::Reader};

/// A checkpoint's tensors.
#[derive(Debug)]
pub(crate) struct Weights {
    /// What a missing tensor is missing from.
    name: String,
    readers: Vec<Reader>,
}

impl Weights {
    pub(crate) fn single(reader: Reader) -> Self {
        Self { name: reader.name().to_owned(), readers: vec![reader] }
    }

    /// Opens the files of a model folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, ModelError> {
        let mut files = files(folder)?;
        if let [file] = files.as_slice() {
            return Ok(Self::single(Reader::open(file)?));
        }
        let index = files.remove(0);
        let readers = files.iter().map(|file| Reader::open(file)).collect::<Result<_, _>>()?;
        Ok(Self { name: index.display().to_string(), readers })
    }

    /// Reads a tensor of this shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let reader = self.readers.iter().find(|reader| reader.shape(name).is_some());
        let missing = || ModelError::tensor(&self.name, name, format!("missing, expected shape {shape:?}"));
        reader.ok_or_else(missing)?.tensor(name, shape)
    }
}

/// The files that hold a folder's weights: `model.safetensors`, or an index and what it lists.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        let bad = |problem: &str| ModelError::file(index.display().to_string(), problem);
        let text = std::fs::read_to_string(&index).map_err(ModelError::io(&index))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| bad(&format!("not JSON: {error}")))?;
        let map = value.get("weight_map").and_then(Value::as_object).ok_or_else(|| bad("no object `weight_map`"))?;
        let names = map.values().map(|name| {
            let plain = |name: &&str| name.ends_with(".safetensors") && !name.contains(['/', '\\', ':']);
            name.as_str()
                .filter(plain)
                .ok_or_else(|| bad(&format!("weight_map: expected the name of a safetensors file, found {name}")))
        });
        let names: BTreeSet<&str> = names.collect::<Result<_, _>>()?;
        let listed: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
        return Ok([index].into_iter().chain(listed).collect());
    }
    let problem = if folder.join("pytorch_model.bin").is_file() {
        "holds pytorch_model.bin only, expected model.safetensors; save it again with `save_pretrained`, which writes it"
    } else {
        "no model.safetensors and no model.safetensors.index.json"
    };
    Err(ModelError::file(folder.display().to_string(), problem))
}
