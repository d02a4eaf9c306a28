//! The texts beside a model's weights: read only where they are files, and no further than a sound one is long.
//!
//! A file may come from anybody. JSON takes many times its length in memory, so its values are counted before they are made.

use std::path::Path;

use runner_data::file;

use crate::{ModelError, safetensors};

/// A kind of text, which says how long one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A configuration. Two lists of 22,000 classes take one and a half million bytes.
    Config,
    /// An index of the files that hold the weights.
    Index,
}

impl Kind {
    /// The most bytes.
    fn bytes(self) -> usize {
        match self {
            Self::Config => 8 << 20,
            Self::Index => 64 << 20,
        }
    }

    /// The most values of the JSON.
    fn values(self) -> usize {
        match self {
            Self::Config => 1 << 18,
            Self::Index => safetensors::MAX_VALUES,
        }
    }
}

/// Reads a text part of a model.
pub(crate) fn read(path: &Path, kind: Kind) -> Result<String, ModelError> {
    let text = file::read_text(path, kind.bytes() as u64).map_err(ModelError::io(path))?;
    check(&path.display().to_string(), text.as_bytes(), kind)?;
    Ok(text)
}

/// Fails on a text that is longer than a sound one, or has more values.
pub(crate) fn check(file: &str, text: &[u8], kind: Kind) -> Result<(), ModelError> {
    let problem = if text.len() > kind.bytes() {
        format!("longer than {} MiB, the most that is read of such a file", kind.bytes() >> 20)
    } else if safetensors::values(text) > kind.values() {
        format!("more than {} values of JSON, the most that are read of such a file", kind.values())
    } else {
        return Ok(());
    };
    Err(ModelError::file(file, problem))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn refused(path: &Path, kind: Kind) -> String {
        read(path, kind).unwrap_err().to_string()
    }

    #[test]
    fn a_text_is_read_up_to_its_limits_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, "{\"a\": [1, 2]}").unwrap();
        assert_eq!(read(&path, Kind::Config).unwrap(), "{\"a\": [1, 2]}");
        File::create(&path).unwrap().set_len(3 << 30).unwrap();
        assert!(
            refused(&path, Kind::Config)
                .ends_with("config.json: longer than 8 MiB, the most that is read of such a file")
        );
        fs::write(&path, format!("[{}1]", "1,".repeat(1 << 18))).unwrap();
        assert!(refused(&path, Kind::Config).contains("config.json: more than 262144 values of JSON"));
        assert!(read(&path, Kind::Index).is_ok());
    }
}
