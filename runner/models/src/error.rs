//! What can go wrong with a model: where it is, what was expected, what to do.

use std::path::{Path, PathBuf};

/// A model cannot be found, read or used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The reference names nothing that can be loaded.
    #[error("model `{reference}`: {problem}")]
    Reference {
        /// The reference as it was written.
        reference: String,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// The reference is written in no way that is known, or names a built-in or imported model that there is not: a mistake of
    /// whoever wrote it, whatever is on this machine.
    #[error("model `{reference}`: {problem}")]
    Name {
        /// The reference as it was written.
        reference: String,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        hint: String,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{file}: {problem}")]
    File {
        /// The file, or the part of a bundle.
        file: String,
        /// What is wrong: field, expected, found.
        problem: String,
    },
    /// A pickle names what no checkpoint of tensors needs.
    #[error(
        "{file}: refused: its pickle asks for `{what}`, and only tensors are read from a pickle; nothing of it was run"
    )]
    Refused {
        /// The file.
        file: String,
        /// The function or class.
        what: String,
    },
    /// A tensor is missing, or not of the shape that the configuration says.
    #[error("{file}: tensor `{tensor}`: {problem}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong: expected and found.
        problem: String,
    },
    /// The weights changed after the model's identity was taken.
    #[error("model `{reference}` changed on disk while it was in use")]
    Changed {
        /// The reference.
        reference: String,
    },
    /// What a model was given does not fit it.
    #[error("{0}")]
    Input(String),
    /// A computation failed.
    #[error(transparent)]
    Compute(#[from] runner_nn::Error),
}

impl ModelError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Reference { hint, .. } => hint.as_deref(),
            Self::Name { hint, .. } => Some(hint),
            Self::Changed { .. } => Some("run again"),
            Self::Refused { .. } => Some(
                "take the weights as safetensors, or save the state dict alone: torch.save(model.state_dict(), \"weights.pt\")",
            ),
            _ => None,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn file(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::File { file: file.into(), problem: problem.into() }
    }

    pub(crate) fn tensor(file: impl Into<String>, tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor { file: file.into(), tensor: tensor.to_owned(), problem: problem.into() }
    }
}
