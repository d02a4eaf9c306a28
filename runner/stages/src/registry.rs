//! The kinds by name, and what they share.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use runner_contract::{Kind, ModelInfo, Problem, Registry, Resolver};
use runner_data::Catalog;
use runner_models::Hub;

/// What stage kinds are given to work with: the datasets and the models there are.
#[derive(Clone)]
pub struct Services {
    /// Finds datasets.
    pub catalog: Arc<Catalog>,
    /// Finds models.
    pub hub: Arc<Hub>,
}

impl Services {
    /// Datasets and models whose relative paths start at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { catalog: Arc::new(Catalog::new(root.clone())), hub: Arc::new(Hub::new(root)) }
    }
}

impl Resolver for Services {
    fn model(&self, reference: &str) -> Result<ModelInfo, Problem> {
        self.hub.info(reference).map_err(|error| Problem {
            path: Vec::new(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        })
    }

    fn dataset(&self, reference: &str) -> Result<(), Problem> {
        self.catalog.open(reference).map(drop).map_err(crate::problem_of)
    }
}

/// Declares the modules of the kinds and collects them: each module's `kind` function makes one.
macro_rules! kinds {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        $($(#[$attribute])* mod $name;)*

        /// Every built-in kind, in the order of the documentation.
        fn kinds(services: &Services) -> Vec<Box<dyn runner_contract::Kind>> {
            vec![$($(#[$attribute])* Box::new($name::kind(services)),)*]
        }
    };
}

/// The built-in kinds, and any that the caller adds.
pub struct BuiltinRegistry {
    kinds: Vec<Box<dyn Kind>>,
    by_name: BTreeMap<&'static str, usize>,
}

/// The built-in kinds over these datasets and models.
pub fn registry(services: &Services) -> BuiltinRegistry {
    let empty = BuiltinRegistry { kinds: Vec::new(), by_name: BTreeMap::new() };
    crate::kinds(services).into_iter().fold(empty, BuiltinRegistry::with)
}

impl BuiltinRegistry {
    /// Adds a kind; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, kind: Box<dyn Kind>) -> Self {
        let name = kind.info().name;
        match self.by_name.get(name) {
            Some(&i) => self.kinds[i] = kind,
            None => {
                self.by_name.insert(name, self.kinds.len());
                self.kinds.push(kind);
            }
        }
        self
    }
}

impl Registry for BuiltinRegistry {
    fn kind(&self, name: &str) -> Option<&dyn Kind> {
        self.by_name.get(name).and_then(|&i| self.kinds.get(i)).map(AsRef::as_ref)
    }

    fn kinds(&self) -> Vec<&dyn Kind> {
        self.kinds.iter().map(AsRef::as_ref).collect()
    }
}
