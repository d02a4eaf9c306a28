//! Digests of files that are remembered by path, size and time, so that what did not change is not read again.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rayon::prelude::*;
use runner_contract::Digest;

use crate::DataError;

/// A file changed so lately may change again within one tick of its clock, and look the same.
const SETTLES: Duration = Duration::from_secs(2);

/// A file as it was seen: while all three stay, so does its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Its absolute path, and behind a `#` which part of it is meant where it is not the whole.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified: i64,
}

/// Remembers digests from one run of the program to the next. It may forget; it must not mix up.
pub trait Memory: Send + Sync {
    /// What is remembered of each of these files, in their order.
    fn recall(&self, files: &[FileStamp]) -> Vec<Option<Digest>>;
    /// Remembers these.
    fn remember(&self, files: &[(FileStamp, Digest)]);
}

impl FileStamp {
    /// The file as it is now; `None` where the system does not say enough, or the path is not UTF-8.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let found = fs::metadata(path)?;
        let size = found.len();
        modified(&found).map_or(Ok(None), |modified| Self::at(path, size, modified))
    }

    /// A file of which size and time are known.
    pub(super) fn at(path: &Path, size: u64, modified: i64) -> io::Result<Option<Self>> {
        let path = std::path::absolute(path)?;
        Ok(path.to_str().map(|path| Self { path: path.to_owned(), size, modified }))
    }

    /// A part of the file.
    pub(super) fn part(&self, what: &str) -> Self {
        Self { path: format!("{}#{what}", self.path), ..self.clone() }
    }

    /// Whether it was changed long enough ago that a further change would show.
    fn settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i128::from(self.modified) + SETTLES.as_nanos() as i128 <= now.as_nanos() as i128
    }
}

/// When a file was last changed, in nanoseconds since 1970.
fn modified(found: &fs::Metadata) -> Option<i64> {
    let since = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_nanos()).ok()
}

/// A file's size, and when it was last changed (nanoseconds since 1970), where the system says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) size: u64,
    pub(super) modified: Option<i64>,
}

impl Seen {
    pub(super) fn of(found: &fs::Metadata) -> Self {
        Self { size: found.len(), modified: modified(found) }
    }
}

/// A file whose digest somebody wants: the picture of a row.
pub(super) struct Wanted {
    pub(super) row: usize,
    pub(super) path: PathBuf,
    /// Size and time of the last change, where they are known already.
    pub(super) seen: Option<(u64, i64)>,
}

/// A memory, or none. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Remembered(Option<Arc<dyn Memory>>);

impl Remembered {
    pub(super) fn new(memory: Arc<dyn Memory>) -> Self {
        Self(Some(memory))
    }

    /// The digests of parts of a file, if every one is remembered.
    pub(super) fn parts(&self, file: &FileStamp, parts: &[String]) -> Option<Vec<Digest>> {
        let memory = self.0.as_ref()?;
        let stamps: Vec<_> = parts.iter().map(|part| file.part(part)).collect();
        let found: Option<Vec<_>> = memory.recall(&stamps).into_iter().collect();
        found.filter(|found| found.len() == parts.len())
    }

    /// Remembers the digests of parts of `file`, which was read from `path` after that stamp was taken.
    pub(super) fn keep(&self, file: &FileStamp, path: &Path, parts: impl IntoIterator<Item = (String, Digest)>) {
        let Some(memory) = &self.0 else { return };
        // What changed while it was read stands for neither content.
        if file.settled() && FileStamp::of(path).ok().flatten().as_ref() == Some(file) {
            let parts: Vec<_> = parts.into_iter().map(|(part, digest)| (file.part(&part), digest)).collect();
            memory.remember(&parts);
        }
    }
}

/// Digests of whole files, by row: each file is read at most once for them, however often shards are keyed.
#[derive(Default)]
pub(super) struct Digests {
    known: Mutex<HashMap<usize, Digest>>,
    remembered: Remembered,
}

impl Digests {
    pub(super) fn new(remembered: Remembered) -> Self {
        Self { known: Mutex::default(), remembered }
    }

    /// The digests of the content of these files.
    pub(super) fn of(&self, files: &[Wanted]) -> Result<Vec<Digest>, DataError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<_> = files.iter().filter(|file| !known.contains_key(&file.row)).collect();
        let mut stamps = Vec::new();
        let mut recalled = Vec::new();
        if let Some(memory) = &self.remembered.0 {
            for Wanted { path, seen, .. } in &open {
                let stamp = seen.map_or_else(|| FileStamp::of(path), |(size, time)| FileStamp::at(path, size, time));
                stamps.push(stamp.map_err(DataError::io("read", path))?);
            }
            let asked: Vec<_> = stamps.iter().flatten().cloned().collect();
            let mut answers = memory.recall(&asked).into_iter();
            recalled = stamps.iter().map(|stamp| stamp.as_ref().and_then(|_| answers.next().flatten())).collect();
        }
        let hashed: Vec<(usize, Digest, Option<FileStamp>)> = open
            .into_par_iter()
            .enumerate()
            .map(|(i, Wanted { row, path, .. })| {
                if let Some(digest) = recalled.get(i).copied().flatten() {
                    return Ok((*row, digest, None));
                }
                let digest = hash(path)?;
                let stamp = stamps
                    .get(i)
                    .and_then(Option::as_ref)
                    .filter(|stamp| stamp.settled() && FileStamp::of(path).ok().flatten().as_ref() == Some(*stamp));
                Ok((*row, digest, stamp.cloned()))
            })
            .collect::<Result<_, DataError>>()?;
        let mut fresh = Vec::new();
        for (row, digest, stamp) in hashed {
            known.insert(row, digest);
            fresh.extend(stamp.map(|stamp| (stamp, digest)));
        }
        if let Some(memory) = self.remembered.0.as_ref().filter(|_| !fresh.is_empty()) {
            memory.remember(&fresh);
        }
        files.iter().map(|file| known.get(&file.row).copied().map_or_else(|| hash(&file.path), Ok)).collect()
    }
}

/// The digest of a file's content.
fn hash(path: &Path) -> Result<Digest, DataError> {
    let file = fs::File::open(path).map_err(DataError::io("read", path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(DataError::io("read", path))?;
    Ok(hasher.finalize().into())
}
