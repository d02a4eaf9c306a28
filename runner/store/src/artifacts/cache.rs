//! Local copies of artifacts that are elsewhere, for whoever needs a file. Bounded; several processes may share it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{Stream, StreamExt};
use runner_contract::Digest;
use tempfile::{NamedTempFile, TempDir};

use crate::StoreError;

/// How much is kept, in bytes.
const ROOM: u64 = 8 << 30;
/// What was asked for so recently may be in use.
const IN_USE: Duration = Duration::from_secs(60 * 60);

/// A folder of copies, by digest.
#[derive(Clone, Debug)]
pub(super) enum Cache {
    /// A folder that stays.
    Kept(PathBuf),
    /// One that goes with the last clone.
    Passing(Arc<TempDir>),
}

impl Cache {
    pub(super) fn passing() -> Result<Self, StoreError> {
        let folder = tempfile::Builder::new().prefix("runner-").tempdir();
        Ok(Self::Passing(Arc::new(folder.map_err(StoreError::io(std::env::temp_dir()))?)))
    }

    pub(super) fn kept(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::io(folder))?;
        Ok(Self::Kept(folder.to_owned()))
    }

    fn folder(&self) -> &Path {
        match self {
            Self::Kept(folder) => folder,
            Self::Passing(folder) => folder.path(),
        }
    }

    /// The copy, if there is one, which from now on counts as used.
    pub(super) fn find(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.folder().join(digest.to_string());
        let file = File::options().append(true).open(&path).ok()?;
        // Where that fails it only goes the sooner.
        drop(file.set_modified(SystemTime::now()));
        Some(path)
    }

    /// Keeps a copy of what `content` brings, if that is the artifact; else tells what it is.
    pub(super) async fn fill<E>(
        &self,
        digest: &Digest,
        mut content: impl Stream<Item = Result<bytes::Bytes, E>> + Unpin,
        failed: impl Fn(E) -> StoreError,
    ) -> Result<Result<PathBuf, Digest>, StoreError> {
        let folder = self.folder();
        let full = |error: io::Error| StoreError::writing(folder)(error);
        let mut aside = NamedTempFile::new_in(folder).map_err(full)?;
        let mut hasher = blake3::Hasher::new();
        while let Some(bytes) = content.next().await {
            let bytes = bytes.map_err(&failed)?;
            hasher.update(&bytes);
            aside.write_all(&bytes).map_err(full)?;
        }
        let found = Digest::from(hasher.finalize());
        if found != *digest {
            return Ok(Err(found));
        }
        // A copy is not verified again, so a power failure must not shorten it.
        aside.as_file().sync_all().map_err(full)?;
        self.make_room(aside.as_file().metadata().map_or(0, |about| about.len()))?;
        let path = folder.join(digest.to_string());
        aside.persist(&path).map_err(|error| full(error.error))?;
        Ok(Ok(path))
    }

    /// Removes what was not used for longest, until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        let folder = self.folder();
        let entries = fs::read_dir(folder).map_err(StoreError::io(folder))?;
        let mut copies: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let about = entry.metadata().ok()?;
                Some((about.modified().ok()?, about.len(), entry.path()))
            })
            .collect();
        copies.sort_unstable();
        let mut total = bytes + copies.iter().map(|(_, size, _)| size).sum::<u64>();
        let now = SystemTime::now();
        for (used, size, path) in copies {
            if total <= ROOM || now.duration_since(used).is_ok_and(|ago| ago < IN_USE) {
                break;
            }
            // Another process may have removed it.
            if fs::remove_file(path).is_ok() {
                total -= size;
            }
        }
        Ok(())
    }
}
