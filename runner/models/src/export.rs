//! A bundle as a folder in Hugging Face's layout, for other programs.

use std::{fs, path::Path};

use crate::{
    Hub, ModelError,
    hub::{Place, builtin},
    safetensors::Reader,
};

impl Hub {
    /// Writes a model as a new folder that `transformers` opens: weights, configuration, tokenizer, preprocessing, card.
    ///
    /// The weights file stays a bundle, which is a safetensors file like any other.
    pub fn export(&self, reference: &str, folder: &Path) -> Result<(), ModelError> {
        let refused = |problem: &str| Err(ModelError::file(folder.display().to_string(), problem.to_owned()));
        let (reader, bytes) = match self.place(reference)? {
            Place::Builtin(name, bytes) => (builtin(name, bytes)?, bytes.to_vec()),
            Place::Bundle(path) => (Reader::open(&path)?, fs::read(&path).map_err(ModelError::io(&path))?),
            Place::Folder(_) => return refused("the model is such a folder already; copy it"),
        };
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return refused("there is something in this folder; name a new one");
        }
        fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let texts = reader.metadata().iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
        let texts = texts.filter(|(name, _)| name.ends_with(".json") && !name.contains(['/', '\\']));
        for (name, content) in texts.chain([("model.safetensors", bytes.as_slice())]) {
            let path = folder.join(name);
            fs::write(&path, content).map_err(ModelError::io(&path))?;
        }
        Ok(())
    }
}
