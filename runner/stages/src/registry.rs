//! The kinds by name, and what they share.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use runner_contract::{Kind, ModelInfo, Problem, Registry, Resolver};
use runner_data::Catalog;
use runner_models::Hub;

use crate::Surroundings;

/// What stage kinds are given to work with: the datasets and the models there are.
#[derive(Clone)]
pub struct Services {
    /// Finds datasets.
    pub catalog: Arc<Catalog>,
    /// Finds models.
    pub hub: Arc<Hub>,
    /// Where relative paths start.
    pub folder: PathBuf,
    /// Finds what pipelines take from the environment and from other files.
    pub surroundings: Surroundings,
}

impl Services {
    /// Datasets and models whose relative paths start at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let surroundings = Surroundings::new(root.clone());
        let (catalog, hub) = (Arc::new(Catalog::new(root.clone())), Arc::new(Hub::new(root.clone())));
        Self { catalog, hub, folder: root, surroundings }
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

    fn environment(&self, name: &str) -> Option<String> {
        self.surroundings.environment(name)
    }

    fn secret(&self, name: &str) -> Option<String> {
        self.surroundings.secret(name)
    }

    fn include(&self, from: &str, path: &str) -> Result<(String, Vec<u8>), String> {
        self.surroundings.include(from, path)
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use runner_contract::{Batch, ColumnData, ImageForm, ImageRef, ImagesBuilder};
    use serde_json::json;

    use super::*;
    use crate::testing::apply;

    #[test]
    fn kinds_are_found_by_name_and_listed_once() {
        let registry = registry(&Services::new("."));
        let names: Vec<_> = registry.kinds().iter().map(|kind| kind.info().name).collect();
        assert_eq!(
            names,
            [
                "dataset",
                "texts",
                "rows",
                "prompts",
                "explode",
                "encode",
                "classify",
                "pool",
                "score",
                "metrics",
                "retrieval",
                "prompt_gains",
                "duplicates",
                "filter",
                "split",
                "rerank",
                "captions",
                "gallery",
                "train",
                "brightness"
            ]
        );
        assert!(names.iter().all(|name| registry.kind(name).is_some_and(|kind| kind.info().name == *name)));
        assert!(registry.kind("encoed").is_none());
    }

    #[test]
    fn every_setting_is_explained() {
        for kind in registry(&Services::new(".")).kinds() {
            let info = kind.info();
            let properties = info.settings["properties"].as_object().cloned().unwrap_or_default();
            for (name, property) in properties {
                assert!(property.get("description").is_some(), "{}: `{name}` has no description", info.name);
            }
            assert_eq!(info.settings["additionalProperties"], false, "{}", info.name);
        }
    }

    #[test]
    fn the_page_on_adding_a_kind_is_true() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap().replace("\r\n", "\n");
        let (page, file) = (read("../../docs/adding-a-stage-kind.md"), read("src/brightness.rs"));
        assert!(page.contains(&format!("```rust\n{file}```\n")), "the page shows another file than src/brightness.rs");

        // One file and one line: nothing else of the crate names it, this test aside.
        let mut lines = Vec::new();
        for entry in fs::read_dir(root.join("src")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_file() && !["brightness.rs", "registry.rs"].contains(&name.as_str()) {
                let text = fs::read_to_string(&path).unwrap();
                lines.extend(
                    text.lines().filter(|line| line.trim() == "brightness,").map(|line| format!("{name}: {line}")),
                );
            }
        }
        assert_eq!(lines, ["lib.rs:     brightness,"]);

        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        images.push(ImageRef::Pixels { height: 1, width: 2, channels: 1, data: &[0, 255] }).unwrap();
        let rows = Batch::new(vec!["a".into()]).with("image", ColumnData::Images(images)).unwrap();
        assert_eq!(apply("brightness", json!({}), &[("rows", rows)])["rows"].numbers("brightness").unwrap(), [0.5]);
    }
}
