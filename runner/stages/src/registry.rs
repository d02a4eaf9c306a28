//! The kinds by name, and what they share.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

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
    /// Where relative paths of included files start.
    pub folder: PathBuf,
}

impl Services {
    /// Datasets and models whose relative paths start at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { catalog: Arc::new(Catalog::new(root.clone())), hub: Arc::new(Hub::new(root.clone())), folder: root }
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
        std::env::var(name).ok()
    }

    fn secret(&self, name: &str) -> Option<String> {
        secret(name, &|name| std::env::var_os(name))
    }

    fn include(&self, from: &str, path: &str) -> Result<(String, Vec<u8>), String> {
        include(&self.folder, from, path)
    }
}

/// More bytes of a file than this are not read: no pipeline may have them.
const MAX_INCLUDED: u64 = (1 << 20) + 1;

/// A secret: an environment variable, or the file that `NAME_FILE` names, as containers have it.
fn secret(name: &str, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<String> {
    let text = match variable(name) {
        Some(value) => value.into_string().ok()?,
        None => {
            let file = fs::File::open(variable(&format!("{name}_FILE"))?).ok()?;
            let mut text = String::new();
            file.take(MAX_INCLUDED).read_to_string(&mut text).ok()?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            line.strip_suffix('\r').unwrap_or(line).to_owned()
        }
    };
    Some(text).filter(|text| !text.is_empty())
}

/// The name and the bytes of an included file.
fn include(folder: &Path, from: &str, path: &str) -> Result<(String, Vec<u8>), String> {
    let beside = Path::new(from).parent().unwrap_or(Path::new(""));
    let path = clean(&beside.join(path));
    let name = if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() };
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file `{name}`"),
        io::ErrorKind::PermissionDenied => format!("`{name}` may not be read"),
        _ => format!("cannot read `{name}`: {error}"),
    };
    let file = folder.join(&path);
    let kind = fs::metadata(&file).map_err(cannot)?;
    if kind.is_dir() {
        return Err(format!("`{name}` is a folder"));
    }
    if !kind.is_file() {
        return Err(format!("`{name}` is no file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(&file).and_then(|file| file.take(MAX_INCLUDED).read_to_end(&mut bytes)).map_err(cannot)?;
    Ok((name, bytes))
}

/// A path without `.`, and without `..` behind a folder, so that a file has one name.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(clean.components().next_back(), Some(Component::Normal(_))) => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
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
                "encode",
                "pool",
                "score",
                "metrics",
                "filter",
                "split",
                "rerank",
                "captions",
                "train",
                "brightness"
            ]
        );
        assert!(names.iter().all(|name| registry.kind(name).is_some_and(|kind| kind.info().name == *name)));
        assert!(registry.kind("encoed").is_none());
    }

    #[test]
    fn included_files_are_read_beside_those_that_include_them() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/x.yaml"), "stages: {}").unwrap();
        let read = |from, path| include(root.path(), from, path);
        for (from, path) in [("a/p.yaml", "x.yaml"), ("p.yaml", "./a/x.yaml"), ("a/b/p.yaml", "../x.yaml")] {
            assert_eq!(read(from, path), Ok(("a/x.yaml".to_owned(), b"stages: {}".to_vec())), "{from} {path}");
        }
        let absolute = root.path().join("a/x.yaml");
        assert!(read("p.yaml", absolute.to_str().unwrap()).is_ok());
        assert_eq!(read("p.yaml", "a/b"), Err("`a/b` is a folder".to_owned()));
        assert_eq!(read("a/p.yaml", "no.yaml"), Err("there is no file `a/no.yaml`".to_owned()));
        fs::write(root.path().join("big"), vec![b' '; 3 << 20]).unwrap();
        assert_eq!(read("p.yaml", "big").unwrap().1.len() as u64, MAX_INCLUDED);
    }

    #[test]
    fn secrets_come_from_variables_or_from_the_files_that_they_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("token");
        fs::write(&path, "from file\r\n").unwrap();
        let variable = |name: &str| match name {
            "SET" | "BOTH" => Some("from variable".into()),
            "FILED_FILE" | "BOTH_FILE" => Some(path.clone().into_os_string()),
            "LOST_FILE" => Some(root.path().join("lost").into_os_string()),
            "EMPTY" => Some("".into()),
            _ => None,
        };
        let found = ["SET", "BOTH", "FILED", "LOST", "EMPTY", "UNSET"].map(|name| secret(name, &variable));
        let [set, both, filed, none @ ..] = found.map(|value| value.unwrap_or_default());
        assert_eq!((set.as_str(), both.as_str(), filed.as_str()), ("from variable", "from variable", "from file"));
        assert_eq!(none, [""; 3]);
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
