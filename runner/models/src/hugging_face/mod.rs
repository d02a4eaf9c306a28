//! Models by name from the Hugging Face hub, kept where Hugging Face's own library keeps them.
//!
//! `hf:org/name@revision`. What a branch or tag named when it was first fetched is written down (`refs/`) and stays: the same
//! reference gives the same weights until somebody fetches anew. So what is in the cache needs no network.

mod client;

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use client::{Client, Failed};

use crate::{
    ModelError,
    layout::{self, Layout},
    texts, weights,
};

/// Takes a line for a person.
pub type Notes = Arc<dyn Fn(&str) + Send + Sync>;

/// Where the hub is, and where what it gives is kept.
#[derive(Clone)]
pub struct HuggingFace {
    /// The folder of `models--ORG--NAME`.
    pub cache: PathBuf,
    /// The hub's address, without a slash at the end.
    pub endpoint: String,
    /// What proves who asks.
    pub token: Option<String>,
    /// Whether the network is not to be used.
    pub offline: bool,
    /// Gets a line for every file that is fetched.
    pub notes: Option<Notes>,
}

impl std::fmt::Debug for HuggingFace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cache, endpoint, offline, .. } = self;
        f.debug_struct("HuggingFace")
            .field("cache", cache)
            .field("endpoint", endpoint)
            .field("offline", offline)
            .finish_non_exhaustive()
    }
}

/// `org/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    repository: String,
    revision: String,
}

impl Name {
    /// Reads what stands behind `hf:`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let fine = |part: &str, more: &str| {
            (1..=96).contains(&part.len())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
                && !part.starts_with(['.', '-'])
                && !part.contains("..")
        };
        let parts: Vec<_> = repository.split('/').collect();
        let named = parts.len() <= 2 && parts.iter().all(|part| fine(part, "._-"));
        let revised = revision.split('/').all(|part| fine(part, "._-+"));
        (named && revised).then(|| Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }

    /// Whether the revision is a commit, which never moves.
    fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// A model's files in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) folder: PathBuf,
    pub(crate) commit: String,
}

impl HuggingFace {
    /// As the environment says: `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, as Hugging Face's library does.
    pub fn from_env() -> Self {
        let said = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| said(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| said(name).map(PathBuf::from);
        let caches = || path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
        let home = home.unwrap_or_else(|| PathBuf::from(".cache/huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN").or_else(|| fs::read_to_string(token_file).ok());
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()));
        Self {
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline,
            notes: None,
        }
    }

    /// The model's files: those in the cache if they are all there, else fetched.
    pub(crate) fn snapshot(&self, name: &Name) -> Result<Snapshot, ModelError> {
        let folder = self.cache.join(format!("models--{}", name.repository.replace('/', "--")));
        if let Some(snapshot) = cached(&folder, name) {
            return Ok(snapshot);
        }
        if self.offline {
            return Err(self.failed(name, "it is not in the cache, and HF_HUB_OFFLINE says to stay offline"));
        }
        self.fetch(name, &folder)
    }

    /// Fetches what the revision names now, whatever is in the cache.
    fn fetch(&self, name: &Name, folder: &Path) -> Result<Snapshot, ModelError> {
        let client = Client::new(self);
        let failed = |error: Failed| match error {
            Failed::Said(problem) => self.failed(name, &problem),
            Failed::Local(error) => error,
        };
        let (commit, files) = client.files(&name.repository, &name.revision).map_err(failed)?;
        if !is_commit(&commit) || name.is_pinned() && commit != name.revision {
            return Err(self.failed(name, &format!("the hub answers with commit `{}`", commit.escape_debug())));
        }
        let has = |file: &str| files.iter().any(|found| found == file);
        let snapshot = Snapshot { folder: folder.join("snapshots").join(&commit), commit };
        let get = |file: &str| client.fetch(&name.repository, &snapshot.commit, file, folder).map_err(failed);
        let layout = layout::of(&has);
        for file in layout.parts().iter().filter(|file| has(file)) {
            get(file)?;
        }
        let Some(weights) = layout.weights(&has) else {
            let problem = "it has no weights that are read here: expected model.safetensors, pytorch_model.bin or open_clip's files";
            return Err(self.failed(name, problem));
        };
        get(weights)?;
        if let Some(ending) = layout::listed_by(weights) {
            for part in listed(&snapshot.folder.join(weights), ending)? {
                get(&part)?;
            }
        }
        if !name.is_pinned() {
            put(&folder.join("refs").join(&name.revision), snapshot.commit.as_bytes())?;
        }
        Ok(snapshot)
    }

    fn failed(&self, name: &Name, problem: &str) -> ModelError {
        let Name { repository, revision } = name;
        ModelError::Reference {
            reference: format!("hf:{repository}@{revision}"),
            problem: problem.to_owned(),
            hint: Some(format!(
                "on a machine with network: hf download {repository} --revision {revision}; then bring models--{} into {}",
                repository.replace('/', "--"),
                self.cache.display()
            )),
        }
    }
}

/// What the cache holds of a revision, if it is whole.
fn cached(folder: &Path, name: &Name) -> Option<Snapshot> {
    let commit = match name.is_pinned() {
        true => name.revision.clone(),
        false => texts::read(&folder.join("refs").join(&name.revision), texts::Kind::Config).ok()?.trim().to_owned(),
    };
    let snapshot = Snapshot { folder: folder.join("snapshots").join(&commit), commit };
    let has = |file: &str| snapshot.folder.join(file).is_file();
    let layout = layout::of(&has);
    let whole = match layout {
        Layout::HuggingFace => {
            has("config.json")
                && weights::files(&snapshot.folder).is_ok_and(|files| files.iter().all(|file| file.is_file()))
        }
        Layout::OpenClip => true,
    };
    (is_commit(&snapshot.commit) && whole).then_some(snapshot)
}

fn listed(index: &Path, ending: &str) -> Result<std::collections::BTreeSet<String>, ModelError> {
    let text = texts::read(index, texts::Kind::Index)?;
    weights::listed(&index.display().to_string(), &text, ending)
}

/// Writes a small file that appears whole.
fn put(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let aside = path.with_extension(format!("part{}", std::process::id()));
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::File::create(&aside)?.write_all(bytes)?;
        fs::rename(&aside, path)
    };
    write().map_err(ModelError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_out_of_the_cache() {
        let name = Name::parse("laion/CLIP-ViT-B-32-laion2B-s34B-b79K@refs/pr/3").unwrap();
        assert_eq!(
            (name.repository.as_str(), name.revision.as_str()),
            ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "refs/pr/3")
        );
        assert_eq!(Name::parse("gpt2").unwrap().revision, "main");
        for bad in
            ["", "a/b/c", "../x", "a/..", "a/b@../../x", "a/b@", "a b/c", "/a", "a/", "a/b?x", "-a/b", "a/b@/etc"]
        {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }
}
