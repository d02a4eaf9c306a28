//! Blobs by content.
//!
//! An artifact is visible only when whole. In a folder it is written to a file aside (`NAME#…`) and linked under its digest
//! in one step, so that a process killed at any moment leaves at most a file aside, which nobody reads and which is removed
//! later; on S3 a conditional put does the same. Nothing is forced to disk: a power failure can lose or
//! empty the newest artifacts. Reading verifies the digest, removes what does not match and says so, and the next run
//! makes it again.

mod bucket;
mod buckets;
mod cache;
mod connect;
mod explain;
mod folder;
mod layout;
mod present;
#[cfg(test)]
mod tests;
mod uploads;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use runner_contract::Digest;

pub use self::buckets::{BucketFolder, BucketObject, Buckets};
use self::{bucket::Bucket, cache::Cache, folder::Folder};
use crate::{ArtifactsPlace, StoreError, Time, guard::Guard};

/// How long to knock at a server that was never there before.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
/// How long one attempt of a call may take. S3 has its own, shorter limit on silence, and no disk is that slow.
const CALL: Duration = Duration::from_secs(60 * 60);

/// Content-addressed blobs, laid out as `ab/cdef…`. Cheap to clone.
///
/// The methods are asynchronous; a blocking thread calls them through `tokio::runtime::Handle::block_on`.
#[derive(Clone, Debug)]
pub struct Artifacts {
    kind: Kind,
    /// What every call goes through.
    pub(crate) guard: Guard,
}

#[derive(Clone, Debug)]
enum Kind {
    Folder(Folder),
    /// Copied to the cache when a file is needed.
    Bucket(Bucket, Cache),
}

/// A blob that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its name.
    pub(crate) digest: Digest,
    /// Its size.
    pub(crate) bytes: u64,
    /// When it was stored.
    pub(crate) modified: Time,
}

impl Artifacts {
    /// Blobs in a folder, which is made if it is not there, or in a bucket, which has to be there.
    pub async fn open(place: &ArtifactsPlace) -> Result<Self, StoreError> {
        let (url, settings) = match place {
            ArtifactsPlace::Folder(folder) => return Self::local(folder),
            ArtifactsPlace::S3 { url, options } => (url, options),
        };
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let pair = (name.into_string().ok()?, value.into_string().ok()?);
            Some(pair)
        });
        let bucket = Bucket::new(connect::connect(url, settings, environment)?);
        let patience = bucket.patience();
        guard(FIRST_PATIENCE.min(patience)).call("list", || bucket.check()).await?;
        Ok(Self { kind: Kind::Bucket(bucket, Cache::passing()?), guard: guard(patience) })
    }

    /// Blobs in a folder, which is made if it is not there.
    pub fn local(folder: &Path) -> Result<Self, StoreError> {
        Ok(Self { kind: Kind::Folder(Folder::open(folder)?), guard: guard(Guard::new("artifacts").patience) })
    }

    /// Keeps copies of a bucket's artifacts in this folder, for [`Self::path`]; else they go with the last clone.
    pub fn with_cache(self, folder: &Path) -> Result<Self, StoreError> {
        let kind = match self.kind {
            Kind::Bucket(bucket, _) => Kind::Bucket(bucket, Cache::kept(folder)?),
            kind => kind,
        };
        Ok(Self { kind, ..self })
    }

    /// Stores `content` and returns its digest. What is there already is not written again.
    pub async fn put(&self, content: impl Into<Bytes>) -> Result<Digest, StoreError> {
        let content = content.into();
        let digest = Digest::of(&content);
        match &self.kind {
            Kind::Folder(folder) => self.guard.call("put", || folder.put(digest, content.clone())).await?,
            Kind::Bucket(bucket, _) => bucket.put(&self.guard, &digest, content).await?,
        }
        Ok(digest)
    }

    /// The content of an artifact, verified.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let mut wrong = None;
        loop {
            let content = match &self.kind {
                Kind::Folder(folder) => self.guard.call("get", || folder.get(digest)).await?,
                Kind::Bucket(bucket, _) => self.guard.call("get", || bucket.get(digest)).await?,
            };
            let content = content.ok_or(StoreError::Missing(*digest))?;
            let found = Digest::of(&content);
            if found == *digest {
                return Ok(content);
            }
            self.wrong(digest, found, &mut wrong).await?;
        }
    }

    /// A local file with the content, not to be changed. Read from a bucket it is verified; a file of a folder is not.
    pub async fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let (bucket, cache) = match &self.kind {
            Kind::Folder(folder) => {
                let path = folder.path(digest);
                return if path.is_file() { Ok(path) } else { Err(StoreError::Missing(*digest)) };
            }
            Kind::Bucket(bucket, cache) => (bucket, cache),
        };
        if let Some(path) = cache.find(digest) {
            return Ok(path);
        }
        let mut wrong = None;
        let fetch = || async {
            let found = bucket.open(digest).await?.ok_or(StoreError::Missing(*digest))?;
            cache.fill(digest, found.into_stream(), |error| bucket.named().explain("reading an artifact", error)).await
        };
        loop {
            match self.guard.call("get", fetch).await? {
                Ok(path) => return Ok(path),
                Err(found) => self.wrong(digest, found, &mut wrong).await?,
            }
        }
    }

    /// The content was not what its name says. What was wrong the same way twice is not the network's fault and is removed.
    async fn wrong(&self, digest: &Digest, found: Digest, before: &mut Option<Digest>) -> Result<(), StoreError> {
        if matches!(self.kind, Kind::Bucket(..)) && before.replace(found) != Some(found) {
            return Ok(());
        }
        self.delete(digest).await?;
        Err(StoreError::Corrupt { digest: *digest, found })
    }

    /// Whether it is stored.
    pub async fn exists(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.size(digest).await?.is_some())
    }

    /// Those of these that are stored.
    pub async fn exists_all(&self, digests: &[Digest]) -> Result<HashSet<Digest>, StoreError> {
        match &self.kind {
            Kind::Folder(folder) => {
                let sizes = self.guard.call("size", || folder.sizes(digests)).await?;
                Ok(digests.iter().zip(sizes).filter_map(|(digest, size)| size.map(|_| *digest)).collect())
            }
            Kind::Bucket(bucket, _) => bucket.present(&self.guard, digests).await,
        }
    }

    /// Fails with [`StoreError::Vanished`] if one of them is not stored.
    pub(crate) async fn verify(&self, digests: &[Digest]) -> Result<(), StoreError> {
        if digests.is_empty() {
            return Ok(());
        }
        let found = self.exists_all(digests).await?;
        let gone: Vec<_> = digests.iter().filter(|digest| !found.contains(digest)).copied().collect();
        if gone.is_empty() { Ok(()) } else { Err(StoreError::Vanished(gone)) }
    }

    /// Its size in bytes, if it is stored.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        match &self.kind {
            Kind::Folder(folder) => {
                let sizes = self.guard.call("size", || folder.sizes(std::slice::from_ref(digest))).await?;
                Ok(sizes.into_iter().next().flatten())
            }
            Kind::Bucket(bucket, _) => self.guard.call("size", || bucket.size(digest)).await,
        }
    }

    /// Removes it, if it is stored.
    pub async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.delete_all(std::slice::from_ref(digest)).await
    }

    /// Removes those of them that are stored.
    pub(crate) async fn delete_all(&self, digests: &[Digest]) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Folder(folder) => self.guard.call("delete", || folder.delete(digests)).await,
            Kind::Bucket(bucket, _) => self.guard.call("delete", || bucket.delete(digests)).await,
        }
    }

    /// Everything that is stored, with its size in bytes, by digest. What is no artifact is passed over.
    pub async fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let mut all: Vec<_> = self.stored().await?.into_iter().map(|stored| (stored.digest, stored.bytes)).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Everything that is stored, in any order. What is no artifact is passed over.
    pub(crate) async fn stored(&self) -> Result<Vec<Stored>, StoreError> {
        match &self.kind {
            Kind::Folder(folder) => self.guard.call("list", || folder.list()).await,
            Kind::Bucket(bucket, _) => self.guard.call("list", || bucket.list()).await,
        }
    }

    /// Finds what killed writers left half-written before that time, and removes it if that is wanted.
    pub(crate) async fn leftovers(&self, before: Time, remove: bool) -> Result<u64, StoreError> {
        let before = before.into();
        match &self.kind {
            Kind::Folder(folder) => self.guard.call("delete", || folder.leftovers(before, remove)).await,
            Kind::Bucket(bucket, _) => self.guard.call("delete", || bucket.leftovers(before, remove)).await,
        }
    }

    /// Says that these artifacts belong to the records with this id; fails if they belong to others, unless they are taken over.
    pub(crate) async fn mark(&self, id: &str, take_over: bool) -> Result<(), StoreError> {
        let mut found = self.marker(id, take_over).await?;
        if found != id && id.starts_with(&found) {
            // Cut short by a failure, it can only have been ours.
            found = self.marker(id, true).await?;
        }
        if found == id {
            return Ok(());
        }
        let place = match &self.kind {
            Kind::Folder(folder) => folder.root().display().to_string(),
            Kind::Bucket(bucket, _) => bucket.named().place(),
        };
        let found = found.chars().take(64).collect();
        Err(StoreError::OtherRecords { place, found })
    }

    async fn marker(&self, id: &str, replace: bool) -> Result<String, StoreError> {
        match &self.kind {
            Kind::Folder(folder) => self.guard.call("mark", || folder.mark(id, replace)).await,
            Kind::Bucket(bucket, _) => self.guard.call("mark", || bucket.mark(id, replace)).await,
        }
    }
}

fn guard(patience: Duration) -> Guard {
    let mut guard = Guard::new("artifacts");
    guard.limit = CALL;
    guard.patience = patience;
    guard
}
