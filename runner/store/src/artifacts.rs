//! Blobs by content.
//!
//! An artifact is visible only when whole. Locally it is written to a file aside (`NAME#1`) and linked under its digest
//! in one step, so that a process killed at any moment leaves at most a file aside, which nobody reads and the next opener
//! of the store removes; on S3 a conditional put does the same. Nothing is forced to disk: a power failure can lose or
//! empty the newest artifacts. Reading verifies the digest, removes what does not match and says so, and the next run
//! makes it again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, aws::AmazonS3Builder, local::LocalFileSystem,
    path::Path as Location, prefix::PrefixStore,
};
use runner_contract::Digest;
use tempfile::TempDir;

use crate::{ArtifactsPlace, StoreError, Time, guard::Guard};

/// Content-addressed blobs, laid out as `ab/cdef…`. Cheap to clone.
///
/// The methods are asynchronous; a blocking thread calls them through `tokio::runtime::Handle::block_on`.
#[derive(Clone, Debug)]
pub struct Artifacts {
    objects: Arc<dyn ObjectStore>,
    place: Place,
    /// What every call goes through.
    pub(crate) guard: Guard,
}

/// A blob as it is found in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    /// When it was put, by the clock of the store.
    pub(crate) modified: Time,
}

/// The object that says whose artifacts these are.
const MARK: &str = "store";

/// Where a local file of an artifact can be had.
#[derive(Clone, Debug)]
enum Place {
    /// The blobs are files in this folder.
    Folder(PathBuf),
    /// The blobs are elsewhere and are copied to this folder when a file is needed.
    Cache(Arc<TempDir>),
}

impl Artifacts {
    /// Blobs wherever the place is.
    pub fn open(place: &ArtifactsPlace) -> Result<Self, StoreError> {
        match place {
            ArtifactsPlace::Folder(folder) => Self::local(folder),
            ArtifactsPlace::S3 { url, options } => {
                let mut builder = AmazonS3Builder::from_env().with_url(url);
                for (name, value) in options {
                    let key = name.parse().map_err(|_| StoreError::Place {
                        given: name.clone(),
                        what: "a setting of S3",
                        reason: "there is none of that name".to_owned(),
                    })?;
                    builder = builder.with_config(key, value);
                }
                let prefix = url.splitn(4, '/').nth(3).unwrap_or_default();
                Self::over(Arc::new(PrefixStore::new(builder.build()?, prefix)))
            }
        }
    }

    /// Blobs in a folder, which is made if it is not there.
    pub fn local(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::io(folder))?;
        let folder = fs::canonicalize(folder).map_err(StoreError::io(folder))?;
        let objects = LocalFileSystem::new_with_prefix(&folder)?;
        Ok(Self { objects: Arc::new(objects), place: Place::Folder(folder), guard: Guard::new("artifacts") })
    }

    /// Blobs in any object store. Files are copied to a folder that goes with the last clone.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Result<Self, StoreError> {
        let cache =
            tempfile::Builder::new().prefix("runner-").tempdir().map_err(StoreError::io(std::env::temp_dir()))?;
        Ok(Self { objects, place: Place::Cache(Arc::new(cache)), guard: Guard::new("artifacts") })
    }

    /// Stores `content` and returns its digest. What is there already is not written again.
    pub async fn put(&self, content: impl Into<Bytes>) -> Result<Digest, StoreError> {
        let content = content.into();
        let digest = Digest::of(&content);
        if self.exists(&digest).await? {
            return Ok(digest);
        }
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&location(&digest), PutPayload::from_bytes(content), create).await {
            // Someone else was faster, with the same content.
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(digest),
            Err(error) => Err(error.into()),
        }
    }

    /// The content of an artifact, verified.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let content = match self.objects.get(&location(digest)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Err(StoreError::Missing(*digest)),
            Err(error) => return Err(error.into()),
        };
        let found = Digest::of(&content);
        if found != *digest {
            self.delete(digest).await?;
            return Err(StoreError::Corrupt { digest: *digest, found });
        }
        Ok(content)
    }

    /// A local file with the content, not to be changed. Read from elsewhere it is verified; a file of this folder is not.
    pub async fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        match &self.place {
            Place::Folder(folder) => {
                let path = folder.join(location(digest).as_ref());
                if path.is_file() { Ok(path) } else { Err(StoreError::Missing(*digest)) }
            }
            Place::Cache(folder) => {
                let path = folder.path().join(digest.to_string());
                if !path.is_file() {
                    let content = self.get(digest).await?;
                    let aside =
                        tempfile::NamedTempFile::new_in(folder.path()).map_err(StoreError::io(folder.path()))?;
                    fs::write(aside.path(), &content).map_err(StoreError::io(aside.path()))?;
                    aside.persist(&path).map_err(|error| StoreError::io(&path)(error.error))?;
                }
                Ok(path)
            }
        }
    }

    /// Whether it is stored.
    pub async fn exists(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.size(digest).await?.is_some())
    }

    /// Its size in bytes, if it is stored.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&location(digest)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes it, if it is stored.
    pub async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.objects.delete(&location(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything that is stored, with its size in bytes, by digest. Files that are no artifacts are passed over.
    pub async fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let mut all: Vec<_> = self
            .objects
            .list(None)
            .try_filter_map(async |object| Ok(digest_of(&object.location).map(|digest| (digest, object.size))))
            .try_collect()
            .await?;
        all.sort_unstable();
        Ok(all)
    }

    /// Everything that is stored, with its size and age, by digest.
    pub(crate) async fn stored(&self) -> Result<Vec<Stored>, StoreError> {
        let mut all: Vec<Stored> = self
            .objects
            .list(None)
            .try_filter_map(async |object| {
                let (bytes, modified) = (object.size, object.last_modified);
                Ok(digest_of(&object.location).map(|digest| Stored { digest, bytes, modified }))
            })
            .try_collect()
            .await?;
        all.sort_unstable_by_key(|stored| stored.digest);
        Ok(all)
    }

    /// Fails with [`StoreError::Vanished`] if one of them is not stored.
    pub(crate) async fn verify(&self, digests: impl Iterator<Item = Digest>) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for digest in digests {
            if !self.exists(&digest).await? {
                gone.push(digest);
            }
        }
        if gone.is_empty() { Ok(()) } else { Err(StoreError::Vanished(gone)) }
    }

    /// Removes blobs, as far as they are stored.
    pub(crate) async fn delete_all(&self, digests: &[Digest]) -> Result<(), StoreError> {
        for digest in digests {
            self.delete(digest).await?;
        }
        Ok(())
    }

    /// Says whose artifacts these are, or finds out that they are of other records. With `take_over` they are ours anyway.
    pub(crate) async fn mark(&self, id: &str, take_over: bool) -> Result<(), StoreError> {
        let mark = Location::from(MARK);
        match self.objects.get(&mark).await {
            Ok(found) => {
                let found = found.bytes().await?;
                if found == id.as_bytes() {
                    return Ok(());
                }
                if !take_over {
                    let found = String::from_utf8_lossy(&found).chars().take(64).collect();
                    return Err(StoreError::OtherRecords { place: self.objects.to_string(), found });
                }
                self.objects.put(&mark, PutPayload::from(id.to_owned())).await?;
            }
            Err(object_store::Error::NotFound { .. }) => {
                let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                match self.objects.put_opts(&mark, PutPayload::from(id.to_owned()), create).await {
                    Ok(_) => {}
                    // Somebody else was faster; who, is to be seen now.
                    Err(object_store::Error::AlreadyExists { .. }) => {
                        return Box::pin(self.mark(id, take_over)).await;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Counts, and on request removes, what killed writers left aside before a moment.
    pub(crate) async fn leftovers(&self, before: Time, remove: bool) -> Result<u64, StoreError> {
        let Place::Folder(folder) = &self.place else { return Ok(0) };
        let mut count = 0;
        for entry in read_dir(folder)? {
            if !entry.is_dir() {
                continue;
            }
            for file in read_dir(&entry)? {
                if !file.file_name().unwrap_or_default().to_string_lossy().contains('#') {
                    continue;
                }
                let modified = fs::metadata(&file).and_then(|file| file.modified());
                if modified.is_ok_and(|modified| Time::from(modified) < before) {
                    count += 1;
                    if remove {
                        let _ = fs::remove_file(&file);
                    }
                }
            }
        }
        Ok(count)
    }
}

fn read_dir(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(folder).map_err(StoreError::io(folder))?;
    entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(StoreError::io(folder))
}

fn location(digest: &Digest) -> Location {
    let text = digest.to_string();
    let (folder, name) = text.split_at(2);
    Location::from_iter([folder, name])
}

fn digest_of(location: &Location) -> Option<Digest> {
    let (folder, name) = location.as_ref().split_once('/')?;
    if folder.len() != 2 {
        return None;
    }
    format!("{folder}{name}").parse().ok()
}
