//! A bundle as a folder in Hugging Face's layout, for other programs.

use std::{fs, path::Path};

use crate::{Hub, ModelError, hub::Place};

impl Hub {
    /// Writes a model as a new folder that `transformers` opens: weights, configuration, tokenizer, preprocessing, card.
    ///
    /// The weights file stays a bundle, which is a safetensors file like any other.
    pub fn export(&self, reference: &str, folder: &Path) -> Result<(), ModelError> {
        let refused = |problem: &str| Err(ModelError::file(folder.display().to_string(), problem.to_owned()));
        let place = self.place(reference)?;
        let Some(reader) = place.bundle()? else {
            return refused(match place {
                Place::Folder(..) => "the model is a folder already; copy it",
                _ => "the model is not a bundle yet: runner model import it, then export imported:NAME",
            });
        };
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return refused("there is something in this folder; name a new one");
        }
        fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let texts = reader.metadata().iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
        let texts = texts.filter(|(name, _)| name.ends_with(".json") && !name.contains(['/', '\\']));
        for (name, content) in texts {
            let path = folder.join(name);
            fs::write(&path, content).map_err(ModelError::io(&path))?;
        }
        let path = folder.join("model.safetensors");
        let copied = match &place {
            Place::Builtin(_, bytes) => fs::write(&path, bytes),
            Place::File(from, _) | Place::Folder(from, _) => fs::copy(from, &path).map(|_| ()),
        };
        copied.map_err(ModelError::io(&path))?;
        Ok(())
    }
}
