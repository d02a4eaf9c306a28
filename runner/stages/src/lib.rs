//! The built-in stage kinds, one file each.
//!
//! The list below is the registry: a kind is a file with a `kind` function, and its name here. See
//! `docs/adding-a-stage-kind.md`.

#[macro_use]
mod registry;
mod codec;
mod definition;
mod pictures;
#[cfg(test)]
mod testing;
mod vectors;

kinds! {
    texts,
    prompts,
    pool,
    score,
    metrics,
    filter,
    split,
    rerank,
}

use runner_contract::{Batch, Inputs, StageError};

pub use definition::{Binding, Defined, Definition};
pub use registry::{BuiltinRegistry, Services, registry};

/// Metadata of an embedding column: what its model multiplies cosines by (exponent applied).
const LOGIT_SCALE: &str = "logit_scale";

/// The rows on a port.
fn port<'a>(inputs: &'a Inputs, name: &str) -> Result<&'a Batch, StageError> {
    inputs.get(name).ok_or_else(|| StageError::new(format!("port `{name}` has no rows")))
}
