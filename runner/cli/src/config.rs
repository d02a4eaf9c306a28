//! Settings from files: `runner.toml`, nearest upwards to the repository's root, over the user's file.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::failure::Failure;

const FILE: &str = "runner.toml";

/// What a file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    store: Option<PathBuf>,
    threads: Option<usize>,
    data: Option<PathBuf>,
    #[serde(default)]
    datasets: BTreeMap<String, PathBuf>,
}

/// What the files say, paths made absolute by the folder of their file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The files read, the strongest first.
    pub(crate) files: Vec<PathBuf>,
    /// The store's folder.
    pub(crate) store: Option<PathBuf>,
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
                config.weaker(&path, file);
            }
        }
        Ok(config)
    }

    /// Takes from a file what is not said yet.
    fn weaker(&mut self, path: &Path, file: File) {
        let folder = path.parent().unwrap_or(Path::new(""));
        let absolute = |path: PathBuf| folder.join(path);
        self.store = self.store.take().or(file.store.map(absolute));
        self.data = self.data.take().or(file.data.map(absolute));
        self.threads = self.threads.or(file.threads);
        for (name, path) in file.datasets {
            self.datasets.entry(name).or_insert_with(|| absolute(path));
        }
        self.files.push(path.to_owned());
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
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", path)(error)),
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let message = format!("{}: {}", path.display(), error.to_string().trim_end());
        Failure::usage(message, "the keys are store, threads, data and the table [datasets]")
    })?;
    if file.threads == Some(0) {
        return Err(Failure::usage(format!("{}: threads is 0", path.display()), "leave it out to use all"));
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
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
        config.weaker(&path, parse(&path).unwrap().unwrap());
        config.weaker(Path::new("/home/x/runner.toml"), File { store: Some("other".into()), ..File::default() });
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
