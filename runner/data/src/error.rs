//! What can go wrong with data, in words that name the file, the place and the way out.

use std::{
    io,
    path::{Path, PathBuf},
};

use runner_contract::StageError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, `list`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not hold what its format says.
    #[error("{file}{}: {message}", place.as_deref().map(|place| format!(", {place}")).unwrap_or_default())]
    Format {
        /// The file, or what the bytes came from.
        file: String,
        /// The row, line or byte.
        place: Option<String>,
        /// What was found and what was expected.
        message: String,
    },
    /// A picture cannot be decoded.
    #[error("{path}: cannot decode the image: {message}")]
    Image {
        /// The picture's path or name.
        path: String,
        /// Why.
        message: String,
    },
    /// A dataset reference that means nothing.
    #[error("no dataset `{reference}`: {message}")]
    Reference {
        /// What was asked for.
        reference: String,
        /// Why it is none, and what to do.
        message: String,
    },
    /// A download failed.
    #[error("cannot download {url}: {message}\nhint: {hint}")]
    Download {
        /// Where from.
        url: String,
        /// Why.
        message: String,
        /// What to do instead.
        hint: String,
    },
    /// Settings, a tokenizer or a call that makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl DataError {
    /// An I/O error at `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// A file that is not what it should be.
    pub(crate) fn format(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Format { file: file.into(), place: None, message: message.into() }
    }

    /// The same, at a place: `row 7`, `line 12`.
    pub(crate) fn format_at(file: impl Into<String>, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Format { file: file.into(), place: Some(place.into()), message: message.into() }
    }

    /// A picture that cannot be decoded.
    pub(crate) fn image(path: &str, message: impl Into<String>) -> Self {
        Self::Image { path: path.to_owned(), message: message.into() }
    }
}

impl From<DataError> for StageError {
    fn from(error: DataError) -> Self {
        Self::new(error.to_string())
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(DataError::io("read", path))
}

/// Reads a whole text file.
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    String::from_utf8(read(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        DataError::format_at(path.display().to_string(), format!("byte {at}"), "not UTF-8 text")
    })
}
