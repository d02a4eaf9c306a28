//! Pipelines.

use std::{path::PathBuf, sync::LazyLock};

use runner_contract::{ModelInfo, Problem, Resolver};
use runner_stages::{BuiltinRegistry, Services, registry};

/// Knows nothing: every reference is a mistake, which is reported.
struct Nothing;

impl Resolver for Nothing {
    fn model(&self, reference: &str) -> Result<ModelInfo, Problem> {
        Err(Problem { path: Vec::new(), message: format!("no model {reference}"), hint: None })
    }

    fn dataset(&self, _: &str) -> Result<(), Problem> {
        Ok(())
    }
}

static REGISTRY: LazyLock<BuiltinRegistry> = LazyLock::new(|| registry(&Services::new(PathBuf::from("/"))));

/// A pipeline or its mistakes, each with a place in the text.
pub fn pipeline(bytes: &[u8]) {
    if let Err(mistakes) = runner_spec::load("fuzzed.yaml", bytes, &[], &*REGISTRY, &Nothing) {
        assert!(!mistakes.is_empty());
    }
}
