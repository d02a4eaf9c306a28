//! The built-in stage kinds, one file each.
//!
//! The list below is the registry: a kind is a file with a `kind` function, and its name here. See
//! `docs/adding-a-stage-kind.md`.

#[macro_use]
mod registry;
mod bootstrap;
mod codec;
mod compare;
mod definition;
mod pictures;
mod pixels;
mod surroundings;
#[cfg(test)]
mod testing;
mod vectors;

kinds! {
    dataset,
    texts,
    rows,
    prompts,
    explode,
    encode,
    classify,
    pool,
    score,
    metrics,
    retrieval,
    prompt_gains,
    duplicates,
    filter,
    split,
    rerank,
    captions,
    gallery,
    train,
    #[cfg(test)]
    brightness,
}

use runner_contract::{Batch, Inputs, Problem, StageError};
use runner_models::ModelError;

pub use captions::{Caption, Described, HELD_OUT_TEMPLATES, Measures, Subject, describe, is_held_out};
pub use definition::{Binding, Defined, Definition};
pub use registry::{BuiltinRegistry, Services, registry};
pub use surroundings::Surroundings;

/// Metadata of an embedding column: what its model multiplies cosines by (exponent applied).
const LOGIT_SCALE: &str = "logit_scale";

/// The rows on a port.
fn port<'a>(inputs: &'a Inputs, name: &str) -> Result<&'a Batch, StageError> {
    inputs.get(name).ok_or_else(|| StageError::new(format!("port `{name}` has no rows")))
}

/// A dataset's error as a problem of the language: what follows `hint:` becomes its hint.
fn problem_of(error: impl std::fmt::Display) -> Problem {
    let text = error.to_string();
    let (message, hint) = match text.split_once("\nhint: ") {
        Some((message, hint)) => (message, Some(hint.to_owned())),
        None => (text.as_str(), None),
    };
    Problem { path: Vec::new(), message: message.to_owned(), hint }
}

/// A model's error as a stage's, with its hint.
fn stage_error(error: ModelError) -> StageError {
    match error.hint() {
        Some(hint) => StageError::new(format!("{error}; {hint}")),
        None => StageError::new(error.to_string()),
    }
}
