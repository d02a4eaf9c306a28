//! Dataset references to datasets.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    Dataset, Objects, Sharded, brace,
    concat::Concat,
    folder::Hints,
    memory::{Memory, Remembered},
    mnist::{Digits, FASHION_CLASSES, digit_names, find_split},
    place::Place,
    recognise::{Recognised, Request, is_split},
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

/// The alias whose folder holds ImageNet: all of its 1,000 classes count, whichever are there.
const IMAGENET: &str = "imagenet";

/// What the files of a dataset do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OpenOptions {
    /// The name of each class, by label.
    pub classes: Option<Vec<String>>,
}

/// Finds datasets: by name, or by path below a root. Opened datasets are remembered, so that one that is named twice is
/// listed, unpacked and hashed once.
pub struct Catalog {
    root: PathBuf,
    cache: PathBuf,
    aliases: BTreeMap<String, PathBuf>,
    remembered: Remembered,
    objects: Option<Arc<dyn Objects>>,
    open: Mutex<HashMap<(String, OpenOptions), Recognised>>,
}

impl Catalog {
    /// A catalogue whose relative paths start at `root`; downloads lie in [`Catalog::default_cache`].
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            cache: Self::default_cache(),
            aliases: BTreeMap::new(),
            remembered: Remembered::default(),
            objects: None,
            open: Mutex::default(),
        }
    }

    /// The same, with digests of files that are remembered.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<dyn Memory>) -> Self {
        self.remembered = Remembered::new(memory);
        self
    }

    /// The same with buckets: `s3://bucket/key` is a place then.
    #[must_use]
    pub fn with_objects(mut self, objects: Arc<dyn Objects>) -> Self {
        self.objects = Some(objects);
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

    /// Opens a dataset: one known by name (`mnist:test`), a name of the user's (`imagenet:val`), or a path or `s3://` URL: a folder
    /// of pictures, ImageNet as it is published, tar files (WebDataset) and Parquet files, with `{000..049}` where there are many,
    /// CIFAR and IDX files, a table; with `:train`, `:val` or `:test` behind where it holds splits.
    pub fn open(&self, reference: &str) -> Result<Arc<dyn Dataset>, DataError> {
        self.open_with(reference, &OpenOptions::default())
    }

    /// The same with what the files do not say.
    pub fn open_with(&self, reference: &str, options: &OpenOptions) -> Result<Arc<dyn Dataset>, DataError> {
        Ok(self.recognise(reference, options)?.0)
    }

    /// The dataset, and a line that says what was recognised.
    pub fn recognise(&self, reference: &str, options: &OpenOptions) -> Result<(Arc<dyn Dataset>, String), DataError> {
        let asked = (reference.to_owned(), options.clone());
        if let Some(open) = self.open.lock().ok().and_then(|open| open.get(&asked).cloned()) {
            return Ok(open);
        }
        let opened = self.open_new(reference, options)?;
        if let Ok(mut open) = self.open.lock() {
            open.insert(asked, opened.clone());
        }
        Ok(opened)
    }

    /// Opens several datasets as one, their rows one after the other. They have the same columns; one may stand there
    /// several times.
    pub fn open_all(&self, references: &[String], options: &OpenOptions) -> Result<Arc<dyn Dataset>, DataError> {
        let open = |reference: &String| self.open_with(reference, options);
        let mut parts = references.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        match (parts.len(), parts.pop()) {
            (1, Some(only)) => Ok(only),
            (_, last) => Ok(Arc::new(Concat::new(parts.into_iter().chain(last).collect())?)),
        }
    }

    /// The names that the user gave to paths, with the paths.
    pub fn aliases(&self) -> &BTreeMap<String, PathBuf> {
        &self.aliases
    }

    /// The path that a name of the user's stands for, split and all.
    fn aliased(&self, reference: &str) -> Option<(String, Option<String>)> {
        let (name, split) = match reference.split_once(':') {
            Some((name, split)) => (name, Some(split.to_owned())),
            None => (reference, None),
        };
        let path = self.aliases.get(name)?;
        let text = path.to_str()?;
        let (path, inner) = split_of(text, |path| self.root.join(path).exists());
        let path = if is_url(path) { path.to_owned() } else { self.root.join(path).to_str()?.to_owned() };
        Some((path, split.or(inner.map(str::to_owned))))
    }

    fn open_new(&self, reference: &str, options: &OpenOptions) -> Result<Recognised, DataError> {
        let unknown = |message: String| DataError::Reference { reference: reference.to_owned(), message };
        let mut hints = Hints { classes: options.classes.clone(), ..Hints::default() };
        let (path, split) = match self.aliased(reference) {
            Some(aliased) => {
                hints.imagenet = reference.split(':').next() == Some(IMAGENET) && options.classes.is_none();
                aliased
            }
            None => {
                if let Some(known) = self.open_known(reference)? {
                    return Ok(known);
                }
                let (path, split) = split_of(reference, |path| self.root.join(path).exists());
                (path.to_owned(), split.map(str::to_owned))
            }
        };
        let place = match path.strip_prefix("s3://") {
            Some(rest) if rest.trim_matches('/').is_empty() => return Err(unknown("write s3://BUCKET/KEY".to_owned())),
            Some(_) => match &self.objects {
                Some(objects) => Place::Bucket(objects.clone(), path.trim_end_matches('/').to_owned()),
                None => return Err(unknown("buckets cannot be read here".to_owned())),
            },
            None if is_url(&path) => return Err(unknown("expected a path or an s3:// URL".to_owned())),
            None => Place::Disk(self.root.join(&path)),
        };
        if let Place::Disk(path) = &place
            && !path.exists()
            && !brace::is_pattern(&path.to_string_lossy())
        {
            if reference.split(':').next() == Some(IMAGENET) && !self.aliases.contains_key(IMAGENET) {
                return Err(unknown("where ImageNet lies is not set\nhint: write [datasets] imagenet = \"/path/to/it\" into runner.toml".to_owned()));
            }
            let known = KNOWN.iter().map(|known| known.reference).collect::<Vec<_>>().join(", ");
            return Err(unknown(format!("{} does not exist, and it is none of {known}", path.display())));
        }
        let name = name_of(&place);
        let request = Request {
            reference: reference.to_owned(),
            place,
            split,
            name,
            hints,
            cache: self.cache.clone(),
            remembered: self.remembered.clone(),
        };
        request.open()
    }

    /// A dataset known by name, or `None` for other references.
    fn open_known(&self, reference: &str) -> Result<Option<Recognised>, DataError> {
        if reference == "mnist:test" {
            let digits = Digits::embedded_test()?;
            return Ok(Some((Arc::new(Sharded::new(digits)), "MNIST's test digits, inside the program".to_owned())));
        }
        let unknown = |message: String| Err(DataError::Reference { reference: reference.to_owned(), message });
        let (name, split) = reference.split_once(':').unwrap_or((reference, ""));
        if KNOWN.iter().all(|known| known.reference != reference) {
            return match name {
                "mnist" | "fashion-mnist" => unknown(format!("expected {name}:train or {name}:test")),
                _ => Ok(None),
            };
        }
        let folder = self.cache.join(name);
        let Some((images, labels)) = find_split(&folder, split) else {
            return unknown(format!("not in {} yet\nhint: runner dataset fetch {name}", folder.display()));
        };
        let classes = match name {
            "mnist" => digit_names(),
            _ => FASHION_CLASSES.map(str::to_owned).to_vec(),
        };
        let digits = Digits::open(&format!("{name}/{split}"), &images, Some(&labels), Some(classes), &self.remembered)?;
        Ok(Some((Arc::new(Sharded::new(digits)), format!("fetched IDX files in {}", folder.display()))))
    }
}

/// Path and split of `path:split`, unless the whole is a path itself.
fn split_of(reference: &str, exists: impl Fn(&str) -> bool) -> (&str, Option<&str>) {
    match reference.rsplit_once(':') {
        Some((path, split)) if !path.is_empty() && is_split(split) && !exists(reference) => (path, Some(split)),
        _ => (reference, None),
    }
}

fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// What a dataset's ids start with: the last part of its path that says something.
fn name_of(place: &Place) -> String {
    let text = place.to_string();
    if !brace::is_pattern(&text) {
        return place.stem();
    }
    let name = text.rsplit('/').next().unwrap_or_default();
    let start = name.split('{').next().unwrap_or_default().trim_end_matches(['-', '_', '.']);
    match (start, place.parent()) {
        ("", Some(parent)) if !brace::is_pattern(&parent.to_string()) => parent.stem(),
        ("", _) => "data".to_owned(),
        (start, _) => start.to_owned(),
    }
}
