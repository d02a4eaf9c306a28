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
    #[error("cannot {action} {}: {source}", shown(&path.display().to_string()))]
    Io {
        /// `read`, `write`, `list`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not hold what its format says.
    #[error("{}{}: {message}", shown(file), place.as_deref().map(|place| format!(", {place}")).unwrap_or_default())]
    Format {
        /// The file, or what the bytes came from.
        file: String,
        /// The row, line or byte.
        place: Option<String>,
        /// What was found and what was expected.
        message: String,
    },
    /// A picture cannot be decoded.
    #[error("{}: cannot decode the image: {message}", shown(path))]
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

/// Most characters of a file, or of what a library says of it, that a message quotes.
const MOST_QUOTED: usize = 200;

/// Most characters of a path: names that a table holds may be longer than any file's.
const MOST_SHOWN: usize = 1024;

/// Text to quote in a message: its beginning, without the control characters that would write elsewhere on a terminal.
pub(crate) fn short(text: &str) -> String {
    beginning(text, MOST_QUOTED)
}

/// The same for a path, which is of use only as a whole.
pub(crate) fn shown(path: &str) -> String {
    beginning(path, MOST_SHOWN)
}

fn beginning(text: &str, most: usize) -> String {
    let mut quoted = String::new();
    for (i, character) in text.chars().enumerate() {
        match character {
            _ if i == most => {
                quoted.push('…');
                break;
            }
            character if character.is_control() => quoted.extend(character.escape_debug()),
            character => quoted.push(character),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_short_and_has_no_control_characters() {
        assert_eq!(short("a\u{1b}[2J é\n"), "a\\u{1b}[2J é\\n");
        assert_eq!(short(&"x".repeat(200)).chars().count(), 200);
        assert_eq!(short(&"x".repeat(20_000)), format!("{}…", "x".repeat(200)));
    }
}
