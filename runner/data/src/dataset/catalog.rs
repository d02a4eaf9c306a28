//! Dataset references to datasets.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    Dataset, Sharded,
    concat::Concat,
    folder::Folder,
    memory::{Memory, Remembered},
    mnist::{Digits, FASHION_CLASSES, digit_names},
    table,
};
use crate::DataError;

/// A dataset known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// How pipelines call it: `mnist:test`.
    pub reference: &'static str,
    /// What `fetch` calls it: `mnist`.
    pub fetch: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Rows.
    pub rows: usize,
    /// Inside the program: nothing to fetch.
    pub embedded: bool,
}

const KNOWN: &[Known] = &[
    Known {
        reference: "mnist:test",
        fetch: "mnist",
        summary: "handwritten digits, test split",
        rows: 10_000,
        embedded: true,
    },
    Known {
        reference: "mnist:train",
        fetch: "mnist",
        summary: "handwritten digits, training split",
        rows: 60_000,
        embedded: false,
    },
    Known {
        reference: "fashion-mnist:test",
        fetch: "fashion-mnist",
        summary: "small pictures of clothes, test split",
        rows: 10_000,
        embedded: false,
    },
    Known {
        reference: "fashion-mnist:train",
        fetch: "fashion-mnist",
        summary: "small pictures of clothes, training split",
        rows: 60_000,
        embedded: false,
    },
];

/// Finds datasets: by name, or by path below a root. Opened datasets are remembered, so that one that is named twice is
/// listed, unpacked and hashed once.
pub struct Catalog {
    root: PathBuf,
    cache: PathBuf,
    aliases: BTreeMap<String, PathBuf>,
    remembered: Remembered,
    open: Mutex<HashMap<String, Arc<dyn Dataset>>>,
}

impl Catalog {
    /// A catalogue whose relative paths start at `root`; downloads lie in [`Catalog::default_cache`].
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            cache: Self::default_cache(),
            aliases: BTreeMap::new(),
            remembered: Remembered::default(),
            open: Mutex::default(),
        }
    }

    /// The same, with digests of files that are remembered.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<dyn Memory>) -> Self {
        self.remembered = Remembered::new(memory);
        self
    }

    /// The same with another folder of downloads.
    #[must_use]
    pub fn with_cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.cache = cache.into();
        self
    }

    /// The same with names for paths: `mine` for a folder or file, `mine:train` for a split in it. They come before paths.
    #[must_use]
    pub fn with_aliases(mut self, aliases: BTreeMap<String, PathBuf>) -> Self {
        self.aliases = aliases;
        self
    }

    /// `$RUNNER_DATA`, else `$XDG_CACHE_HOME/runner/datasets`, else `~/.cache/runner/datasets`.
    pub fn default_cache() -> PathBuf {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = || {
            Some(variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?.join("runner/datasets"))
        };
        variable("RUNNER_DATA").or_else(cache).unwrap_or_else(|| PathBuf::from(".runner/datasets"))
    }

    /// The folder of downloads.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The datasets known by name.
    pub fn known() -> &'static [Known] {
        KNOWN
    }

    /// Whether the files of a known dataset are there.
    pub fn is_available(&self, known: &Known) -> bool {
        let (name, split) = known.reference.split_once(':').unwrap_or((known.reference, ""));
        known.embedded || find_split(&self.cache.join(name), split).is_some()
    }

    /// Opens a dataset: `mnist:test`, `mnist:train`, `fashion-mnist:test`, `fashion-mnist:train`, or the path of an image folder, a
    /// `.csv`, `.tsv` or `.jsonl` file, or IDX files (a folder of them, with `:train` or `:test` behind where it holds both).
    pub fn open(&self, reference: &str) -> Result<Arc<dyn Dataset>, DataError> {
        if let Some(open) = self.open.lock().ok().and_then(|open| open.get(reference).cloned()) {
            return Ok(open);
        }
        let dataset = self.open_new(reference)?;
        if let Ok(mut open) = self.open.lock() {
            open.insert(reference.to_owned(), dataset.clone());
        }
        Ok(dataset)
    }

    /// Opens several datasets as one, their rows one after the other. They have the same columns; one may stand there
    /// several times.
    pub fn open_all(&self, references: &[String]) -> Result<Arc<dyn Dataset>, DataError> {
        let mut parts = references.iter().map(|reference| self.open(reference)).collect::<Result<Vec<_>, _>>()?;
        match (parts.len(), parts.pop()) {
            (1, Some(only)) => Ok(only),
            (_, last) => Ok(Arc::new(Concat::new(parts.into_iter().chain(last).collect())?)),
        }
    }

    /// The path that a name of the user's stands for, split and all. Absolute, so that it is no such name itself.
    fn aliased(&self, reference: &str) -> Option<String> {
        let (name, split) = match reference.split_once(':') {
            Some((name, split)) => (name, format!(":{split}")),
            None => (reference, String::new()),
        };
        let path = self.root.join(self.aliases.get(name)?);
        path.is_absolute().then(|| format!("{}{split}", path.display()))
    }

    fn open_new(&self, reference: &str) -> Result<Arc<dyn Dataset>, DataError> {
        if let Some(path) = self.aliased(reference) {
            return self.open_new(&path);
        }
        if reference == "mnist:test" {
            return Ok(Arc::new(Sharded::new(Digits::embedded_test()?)));
        }
        let unknown = |message: String| Err(DataError::Reference { reference: reference.to_owned(), message });
        if let Some(known) = KNOWN.iter().find(|known| known.reference == reference) {
            let (name, split) = reference.split_once(':').unwrap_or((reference, ""));
            let folder = self.cache.join(name);
            let Some((images, labels)) = find_split(&folder, split) else {
                let (name, folder) = (known.fetch, folder.display());
                return unknown(format!("not in {folder} yet\nhint: runner dataset fetch {name}"));
            };
            let classes = match name {
                "mnist" => digit_names(),
                _ => FASHION_CLASSES.map(str::to_owned).to_vec(),
            };
            let digits =
                Digits::open(&format!("{name}/{split}"), &images, Some(&labels), Some(classes), &self.remembered)?;
            return Ok(Arc::new(Sharded::new(digits)));
        }
        if let Some((name @ ("mnist" | "fashion-mnist"), _)) =
            Some(reference.split_once(':').unwrap_or((reference, "")))
        {
            return unknown(format!("expected {name}:train or {name}:test"));
        }
        let (path, split) = match reference.rsplit_once(':') {
            Some((path, split @ ("train" | "test"))) if !self.root.join(reference).exists() => (path, Some(split)),
            _ => (reference, None),
        };
        let path = self.root.join(path);
        let Ok(metadata) = fs::metadata(&path) else {
            let known = KNOWN.iter().map(|known| known.reference).collect::<Vec<_>>().join(", ");
            return unknown(format!("{} does not exist, and it is none of {known}", path.display()));
        };
        let stem = path.canonicalize().unwrap_or_else(|_| path.clone());
        let stem = stem.file_stem().and_then(|stem| stem.to_str()).unwrap_or("data").to_owned();
        if metadata.is_dir() {
            return self.open_folder(reference, &path, split, &stem);
        }
        let extension =
            path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "csv" | "tsv" | "jsonl" | "ndjson" => {
                Ok(Arc::new(Sharded::new(table::open(&stem, &path, &extension, self.remembered.clone())?)))
            }
            _ if idx_role(&path).is_some() => {
                let labels = labels_beside(&path);
                Ok(Arc::new(Sharded::new(Digits::open(&stem, &path, labels.as_deref(), None, &self.remembered)?)))
            }
            _ => unknown(format!(
                "{} is not a dataset: expected a folder of pictures, a .csv, .tsv or .jsonl file, or IDX files (…-images-idx3-ubyte)",
                path.display()
            )),
        }
    }

    fn open_folder(
        &self,
        reference: &str,
        path: &Path,
        split: Option<&str>,
        name: &str,
    ) -> Result<Arc<dyn Dataset>, DataError> {
        let splits: Vec<_> =
            ["train", "test"].into_iter().filter_map(|split| Some((split, find_split(path, split)?))).collect();
        let wrong = |message: String| Err(DataError::Reference { reference: reference.to_owned(), message });
        match (split, splits.as_slice()) {
            (None, []) => Ok(Arc::new(Sharded::new(Folder::open(name, path, self.remembered.clone())?))),
            (None, [_, _, ..]) => wrong(format!("it holds two splits: write {reference}:train or {reference}:test")),
            (split, splits) => {
                let found = splits.iter().find(|(name, _)| split.is_none_or(|split| split == *name));
                let Some((split, (images, labels))) = found else {
                    return wrong(format!("no IDX files of that split in {}", path.display()));
                };
                Ok(Arc::new(Sharded::new(Digits::open(
                    &format!("{name}/{split}"),
                    images,
                    Some(labels),
                    None,
                    &self.remembered,
                )?)))
            }
        }
    }
}

/// The images and labels of a split among the files of a folder, plain or packed.
fn find_split(folder: &Path, split: &str) -> Option<(PathBuf, PathBuf)> {
    let stem = match split {
        "test" => "t10k",
        other => other,
    };
    let find = |what: &str| {
        let names = [format!("{stem}-{what}-ubyte"), format!("{stem}-{}-ubyte", what.replacen("-idx", ".idx", 1))];
        let candidates = names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]);
        candidates.into_iter().find(|path| path.is_file())
    };
    Some((find("images-idx3")?, find("labels-idx1")?))
}

/// Whether a file is named as IDX files are.
fn idx_role(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    (name.ends_with("idx3-ubyte") || name.ends_with(".idx3") || name.ends_with("idx4-ubyte")).then_some(name)
}

/// The labels of an images file: the same name with `labels` and `idx1`.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?.replace("images", "labels").replace("idx3", "idx1");
    let plain = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
    let packed = format!("{plain}.gz");
    [plain, packed].into_iter().map(|name| images.with_file_name(name)).find(|path| path != images && path.is_file())
}
