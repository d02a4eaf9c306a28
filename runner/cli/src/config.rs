//! Settings from files: `runner.toml`, nearest upwards to the repository's root, over the user's file.

use std::{
    collections::BTreeMap,
    env, io,
    path::{Path, PathBuf},
};

use runner_data::file;
use serde::Deserialize;

use crate::{failure::Failure, files::MAX_SETTINGS};

const FILE: &str = "runner.toml";
/// Most threads to compute with: more than processors have.
const MOST_THREADS: usize = 1024;

const KEYS: &str = "the keys are store, records, artifacts, threads, data, cache_quota, secrets_file and the tables [s3] and [datasets]";

/// What a file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    store: Option<PathBuf>,
    records: Option<String>,
    artifacts: Option<String>,
    threads: Option<usize>,
    data: Option<PathBuf>,
    cache_quota: Option<String>,
    secrets_file: Option<PathBuf>,
    #[serde(default)]
    s3: BTreeMap<String, toml::Value>,
    #[serde(default)]
    datasets: BTreeMap<String, PathBuf>,
}

/// A text that may name variables of the environment, and who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// As it was written.
    pub(crate) text: String,
    /// For messages: `--records`, `/etc/runner.toml: records`.
    pub(crate) from: String,
    /// Where its relative paths start.
    pub(crate) folder: PathBuf,
}

/// What the files say, paths made absolute by the folder of their file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The files read, the strongest first.
    pub(crate) files: Vec<PathBuf>,
    /// The store's folder.
    pub(crate) store: Option<PathBuf>,
    /// Where records are, if not in that folder.
    pub(crate) records: Option<Said>,
    /// Where artifacts are, if not in that folder.
    pub(crate) artifacts: Option<Said>,
    /// The table `[s3]`: how an S3 server is reached, beyond what the environment's `AWS_…` say.
    pub(crate) s3: BTreeMap<String, Said>,
    /// How many bytes of artifacts to keep after a run.
    pub(crate) cache_quota: Option<u64>,
    /// A file of `NAME=VALUE` lines for `${{ secrets.NAME }}`.
    pub(crate) secrets_file: Option<PathBuf>,
    /// Threads to compute with.
    pub(crate) threads: Option<usize>,
    /// The folder of fetched datasets.
    pub(crate) data: Option<PathBuf>,
    /// Datasets by a name of one's own.
    pub(crate) datasets: BTreeMap<String, PathBuf>,
    /// The folder of the nearest `runner.toml`.
    pub(crate) project: Option<PathBuf>,
}

impl Config {
    /// Reads what there is for somebody working in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let project = nearest(folder);
        let mut config =
            Self { project: project.as_deref().and_then(Path::parent).map(Path::to_owned), ..Self::default() };
        for path in project.into_iter().chain(users()) {
            if let Some(file) = parse(&path)? {
                config.weaker(&path, file)?;
            }
        }
        Ok(config)
    }

    /// Takes from a file what is not said yet.
    fn weaker(&mut self, path: &Path, file: File) -> Result<(), Failure> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let absolute = |path: PathBuf| folder.join(path);
        let said = |key: &str, text: Option<String>| {
            let from = format!("{}: {key}", path.display());
            text.map(|text| Said { text, from, folder: folder.to_owned() })
        };
        // A stronger file that names a folder means a store there.
        if self.store.is_none() {
            self.records = self.records.take().or(said("records", file.records));
            self.artifacts = self.artifacts.take().or(said("artifacts", file.artifacts));
        }
        for (name, value) in file.s3 {
            let text = match value {
                toml::Value::String(text) => text,
                other => other.to_string(),
            };
            let from = format!("{}: s3.{name}", path.display());
            self.s3.entry(name).or_insert_with(|| Said { text, from, folder: folder.to_owned() });
        }
        if let (None, Some(text)) = (self.cache_quota, &file.cache_quota) {
            let bytes: bytesize::ByteSize = text.parse().map_err(|_| {
                let message = format!("{}: cache_quota is `{text}`", path.display());
                Failure::usage(message, "expected a size such as \"50 GB\"")
            })?;
            self.cache_quota = Some(bytes.as_u64());
        }
        self.secrets_file = self.secrets_file.take().or(file.secrets_file.map(absolute));
        self.store = self.store.take().or(file.store.map(absolute));
        self.data = self.data.take().or(file.data.map(absolute));
        self.threads = self.threads.or(file.threads);
        for (name, path) in file.datasets {
            let is_url = path.to_str().is_some_and(|path| path.contains("://"));
            self.datasets.entry(name).or_insert_with(|| if is_url { path } else { absolute(path) });
        }
        self.files.push(path.to_owned());
        Ok(())
    }
}

/// The nearest `runner.toml`, from `folder` upwards, no farther than a repository's root.
fn nearest(folder: &Path) -> Option<PathBuf> {
    for folder in folder.ancestors() {
        let path = folder.join(FILE);
        if path.is_file() {
            return Some(path);
        }
        if folder.join(".git").exists() {
            return None;
        }
    }
    None
}

fn users() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(folder.join("runner").join(FILE))
}

fn parse(path: &Path) -> Result<Option<File>, Failure> {
    let text = match file::read_text(path, MAX_SETTINGS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Failure::unreadable(path))?,
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let message = format!("{}: {}", path.display(), error.to_string().trim_end());
        Failure::usage(message, KEYS)
    })?;
    if let Some(threads) = file.threads {
        check_threads(&format!("{}: threads", path.display()), threads)?;
    }
    Ok(Some(file))
}

/// Fails on numbers of threads that no machine computes with.
pub(crate) fn check_threads(what: &str, threads: usize) -> Result<(), Failure> {
    if (1..=MOST_THREADS).contains(&threads) {
        return Ok(());
    }
    let message = format!("{what} is {threads}, expected 1 to {MOST_THREADS}");
    Err(Failure::usage(message, "leave it out to use all"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_file_counts_and_its_paths_start_at_it() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(folder.path().join(".git")).unwrap();
        assert_eq!(nearest(&deep), None);
        let path = folder.path().join(FILE);
        fs::write(&path, "store = \"state\"\nthreads = 2\n[datasets]\nmine = \"/data/mine\"\n").unwrap();
        assert_eq!(nearest(&deep), Some(path.clone()));
        let mut config = Config::default();
        config.weaker(&path, parse(&path).unwrap().unwrap()).unwrap();
        let users = File { store: Some("other".into()), records: Some("postgres://a/b".into()), ..File::default() };
        config.weaker(Path::new("/home/x/runner.toml"), users).unwrap();
        assert_eq!(config.records, None, "the stronger file named a folder for both");
        assert_eq!(config.store, Some(folder.path().join("state")));
        assert_eq!((config.threads, &config.datasets["mine"]), (Some(2), &PathBuf::from("/data/mine")));
    }

    #[test]
    fn an_unknown_key_is_shown_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, "threads = 2\nstroe = \"x\"\n").unwrap();
        let Err(Failure::Usage { message, .. }) = parse(&path) else { panic!() };
        assert!(message.contains("line 2") && message.contains("stroe"), "{message}");
    }
}
