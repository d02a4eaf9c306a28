//! What made a command fail, and how it is told.

use std::{fmt, io, path::Path};

use runner_data::DataError;
use runner_engine::EngineError;
use runner_models::ModelError;
use runner_spec::Diagnostic;
use runner_store::StoreError;
use serde_json::json;

use crate::{Exit, output::Output, redact::redact};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked for something that makes no sense.
    Usage { message: String, hint: Option<String> },
    /// The pipeline is invalid.
    Pipeline(Vec<Diagnostic>),
    /// It did not work.
    Failed { message: String, hint: Option<String> },
    /// Stopped on request.
    Cancelled,
}

impl Failure {
    /// A mistake in how the program was called.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// The same, of a name that was typed and that the data's own code does not know.
    pub(crate) fn misnamed(error: &DataError) -> Self {
        let (message, hint) = told(error);
        Self::Usage { message, hint }
    }

    /// Something did not work.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::Failed { message: message.to_string(), hint: None }
    }

    /// A file could not be read or written.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::failed(format!("cannot {action} {path}: {error}"))
    }

    /// A file that says what to do could not be read: a pipeline, settings.
    pub(crate) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::Usage { message: format!("cannot read {path}: {error}"), hint: None }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// Tells it on stderr, and in the document on stdout where one was asked for.
    pub(crate) fn report(self, output: &Output) -> Exit {
        let (exit, message, hint, diagnostics) = match self {
            Self::Usage { message, hint } => (Exit::Invalid, message, hint, Vec::new()),
            Self::Failed { message, hint } => (Exit::Failed, message, hint, Vec::new()),
            Self::Cancelled => (Exit::Cancelled, "cancelled".to_owned(), None, Vec::new()),
            Self::Pipeline(diagnostics) => {
                let s = if diagnostics.len() == 1 { "" } else { "s" };
                let message = format!("the pipeline is invalid: {} mistake{s}", diagnostics.len());
                (Exit::Invalid, message, None, diagnostics)
            }
        };
        if diagnostics.is_empty() {
            output.error(&message, hint.as_deref());
        } else {
            output.diagnostics(&diagnostics);
        }
        if output.json {
            let error = json!({"message": redact(&message), "hint": hint, "diagnostics": diagnostics});
            // The failure is told already.
            let _ = output.document(&json!({"error": error}));
        }
        exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage { message, .. } | Self::Failed { message, .. } => f.write_str(message),
            Self::Pipeline(diagnostics) => write!(f, "the pipeline is invalid: {} mistakes", diagnostics.len()),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoRun(_) | StoreError::ManyRuns { .. } => {
                Self::Usage { message: error.to_string(), hint: None }
            }
            StoreError::NoRuns => Self::usage(error.to_string(), "runner run pipelines/zero_shot_eval.yaml"),
            error => Self::failed(error),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Cancelled => Self::Cancelled,
            EngineError::Store(error) => error.into(),
            EngineError::Name { problem, hint } => Self::Usage { message: problem, hint },
            error => Self::failed(error),
        }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let (message, hint) = (error.to_string(), error.hint().map(str::to_owned));
        match error {
            ModelError::Name { .. } => Self::Usage { message, hint },
            _ => Self::Failed { message, hint },
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let (message, hint) = told(&error);
        Self::Failed { message, hint }
    }
}

/// The message, and the hint that some of these carry in a line of its own.
fn told(error: &DataError) -> (String, Option<String>) {
    let text = error.to_string();
    match text.split_once("\nhint: ") {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (text, None),
    }
}
