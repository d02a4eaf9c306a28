//! Artifacts as files of a folder.

use std::{
    fs::{self, Metadata, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::Bytes;
use runner_contract::Digest;
use tokio::task::spawn_blocking;

use super::{Stored, layout};
use crate::{StoreError, Time};

/// How often a file that is being written may be taken for a leftover of somebody who was killed.
const SWEPT: u32 = 20;
/// Stands in the name of a file that is being written.
const ASIDE: char = '#';

/// A folder, `ab/cdef…`.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder is made if it is not there.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io(root))?;
        Ok(Self { root: fs::canonicalize(root).map_err(StoreError::io(root))? })
    }

    /// Where an artifact is, if it is stored.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(layout::path(digest))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) async fn put(&self, digest: Digest, content: Bytes) -> Result<(), StoreError> {
        let path = self.path(&digest);
        // A look costs less than to have another thread look.
        let found = size(&path)?;
        if found == Some(content.len() as u64) {
            return Ok(());
        }
        blocking(move || {
            // One of another size is what a power failure left.
            let damaged = found.is_some();
            for _ in 0..SWEPT {
                match write_aside(&path, &content, damaged) {
                    Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    result => return result,
                }
            }
            write_aside(&path, &content, damaged)
        })
        .await
    }

    pub(super) async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(digest);
        blocking(move || match fs::read(&path) {
            Ok(content) => Ok(Some(content.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(&path)(error)),
        })
        .await
    }

    /// The sizes of those that are stored, in the same order.
    pub(super) async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, StoreError> {
        let paths: Vec<_> = digests.iter().map(|digest| self.path(digest)).collect();
        blocking(move || paths.iter().map(|path| size(path)).collect()).await
    }

    pub(super) async fn delete(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let paths: Vec<_> = digests.iter().map(|digest| self.path(digest)).collect();
        blocking(move || paths.iter().try_for_each(|path| remove(path))).await
    }

    pub(super) async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        let root = self.root.clone();
        blocking(move || {
            let mut all = Vec::new();
            each_file(&root, |path, about| {
                let place = path.strip_prefix(&root).ok().and_then(Path::to_str);
                if let Some(digest) = place.and_then(layout::digest) {
                    let modified = about.modified().map_or_else(|_| Time::default(), Time::from);
                    all.push(Stored { digest, bytes: about.len(), modified });
                }
                Ok(())
            })?;
            Ok(all)
        })
        .await
    }

    /// Finds files that killed writers left aside before that time, and removes them if that is wanted.
    pub(super) async fn leftovers(&self, before: SystemTime, remove_them: bool) -> Result<u64, StoreError> {
        let root = self.root.clone();
        blocking(move || {
            let mut found = 0;
            each_file(&root, |path, about| {
                let aside = path.file_name().is_some_and(|name| name.to_string_lossy().contains(ASIDE));
                if aside && about.modified().is_ok_and(|modified| modified < before) {
                    found += 1;
                    if remove_them {
                        remove(path)?;
                    }
                }
                Ok(())
            })?;
            Ok(found)
        })
        .await
    }

    /// The content of the marker, after it was made or replaced with this content if need be.
    pub(super) async fn mark(&self, content: &str, replace: bool) -> Result<String, StoreError> {
        let (path, content) = (self.root.join(layout::MARKER), content.to_owned());
        blocking(move || {
            let found = match fs::read(&path) {
                Ok(found) => Some(String::from_utf8_lossy(&found).into_owned()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(StoreError::io(&path)(error)),
            };
            if let Some(found) = found
                && (found == content || !replace)
            {
                return Ok(found);
            }
            write_aside(&path, content.as_bytes(), replace)?;
            fs::read_to_string(&path).map_err(StoreError::io(&path))
        })
        .await
    }
}

/// Writes a file aside and gives it its name when it is whole. Somebody else's of that name stays unless it is to be replaced.
fn write_aside(path: &Path, content: &[u8], replace: bool) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let full = |error: io::Error| StoreError::writing(folder)(error);
    fs::create_dir_all(folder).map_err(full)?;
    // Readable for whom the umask allows: a team may share the folder. It goes if anything fails.
    let mut aside = tempfile::Builder::new()
        .prefix(&format!("{name}{ASIDE}"))
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(full)?;
    aside.write_all(content).map_err(full)?;
    if replace {
        return aside.persist(path).map(drop).map_err(|error| full(error.error));
    }
    match aside.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // Somebody else was faster, with the same content.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(full(error.error)),
    }
}

fn size(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(about) => Ok(about.is_file().then_some(about.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(error)),
        _ => Ok(()),
    }
}

/// Calls `visit` for every file one folder deep.
fn each_file(root: &Path, mut visit: impl FnMut(&Path, &Metadata) -> Result<(), StoreError>) -> Result<(), StoreError> {
    for folder in entries(root)? {
        if !folder.is_dir() {
            continue;
        }
        for file in entries(&folder)? {
            match fs::metadata(&file) {
                Ok(about) if about.is_file() => visit(&file, &about)?,
                // Gone since it was listed, or no file.
                _ => {}
            }
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(folder).map_err(StoreError::io(folder))?;
    entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(StoreError::io(folder))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let failed = |error: tokio::task::JoinError| StoreError::io("artifacts")(io::Error::other(error));
    spawn_blocking(work).await.map_err(failed)?
}
