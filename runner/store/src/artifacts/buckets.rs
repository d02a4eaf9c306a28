//! Objects of any bucket that the store's settings reach, for datasets that live there. Only read, and in ranges.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path as Location};

use super::{
    bucket::is_missing,
    connect::{Connected, connect},
    guard,
};
use crate::{StoreError, guard::Guard};

/// An object of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketObject {
    /// `s3://bucket/key`
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// Its ETag: another content has another one.
    pub tag: String,
}

/// What lies right in a folder of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketFolder {
    /// Names of objects.
    pub files: Vec<String>,
    /// Names of folders.
    pub folders: Vec<String>,
}

/// Buckets to read from, by the settings and credentials that artifacts are stored with. Connections are kept.
#[derive(Default)]
pub struct Buckets {
    options: BTreeMap<String, String>,
    open: Mutex<HashMap<String, Arc<Connected>>>,
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").finish_non_exhaustive()
    }
}

impl Buckets {
    /// With settings as in [`crate::ArtifactsPlace::S3`]; they come before the environment's `AWS_…`.
    pub fn new(options: BTreeMap<String, String>) -> Self {
        Self { options, open: Mutex::default() }
    }

    /// The bucket of a URL, and the key in it.
    fn find(&self, url: &str) -> Result<(Arc<Connected>, Guard, Location), StoreError> {
        let rest = url.strip_prefix("s3://").unwrap_or(url);
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = match open.get(bucket) {
            Some(connected) => connected.clone(),
            None => {
                let connected = Arc::new(connect(&format!("s3://{bucket}"), &self.options, std::env::vars())?);
                open.entry(bucket.to_owned()).or_insert(connected).clone()
            }
        };
        let key = Location::parse(key.trim_end_matches('/')).map_err(|error| StoreError::Place {
            given: url.to_owned(),
            what: "a dataset",
            reason: error.to_string(),
        })?;
        let guard = guard(connected.patience);
        Ok((connected, guard, key))
    }

    /// The object of that URL, if there is one.
    pub async fn head(&self, url: &str) -> Result<Option<BucketObject>, StoreError> {
        let (at, guard, key) = self.find(url)?;
        let look = || async {
            match at.s3.head(&key).await {
                Ok(found) => Ok(Some(object(&at, found))),
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(at.named.explain("looking for an object", error)),
            }
        };
        guard.call("size", look).await
    }

    /// All objects in a folder and in those below it.
    pub async fn list(&self, folder: &str) -> Result<Vec<BucketObject>, StoreError> {
        let (at, guard, key) = self.find(folder)?;
        let list = || async {
            let listed: Result<Vec<_>, _> = at.s3.list(Some(&key)).try_collect().await;
            let listed = listed.map_err(|error| at.named.explain("listing", error))?;
            Ok(listed.into_iter().map(|found| object(&at, found)).collect())
        };
        guard.call("list", list).await
    }

    /// What lies right in a folder.
    pub async fn children(&self, folder: &str) -> Result<BucketFolder, StoreError> {
        let (at, guard, key) = self.find(folder)?;
        let name = |location: &Location| location.filename().map(str::to_owned);
        let list = || async {
            let listed = at.s3.list_with_delimiter(Some(&key)).await;
            let listed = listed.map_err(|error| at.named.explain("listing", error))?;
            Ok(BucketFolder {
                files: listed.objects.iter().filter_map(|found| name(&found.location)).collect(),
                folders: listed.common_prefixes.iter().filter_map(name).collect(),
            })
        };
        guard.call("list", list).await
    }

    /// Bytes of an object; an error if it has another content by now.
    pub async fn read(&self, of: &BucketObject, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (at, guard, key) = self.find(&of.url)?;
        let refused =
            |reason: &str| StoreError::Place { given: of.url.clone(), what: "a dataset", reason: reason.to_owned() };
        let read = || async {
            let options = GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                if_match: (!of.tag.is_empty()).then(|| of.tag.clone()),
                ..GetOptions::default()
            };
            let found = match at.s3.get_opts(&key, options).await {
                Ok(found) => found,
                Err(Error::Precondition { .. }) => return Err(refused("it was changed while it was read")),
                Err(error) if is_missing(&error) => return Err(refused("it is not there any more")),
                Err(error) => return Err(at.named.explain("reading an object", error)),
            };
            if !of.tag.is_empty() && found.meta.e_tag.as_deref().is_some_and(|tag| tag != of.tag) {
                return Err(refused("it was changed while it was read"));
            }
            let bytes = found.bytes().await.map_err(|error| at.named.explain("reading an object", error))?;
            if bytes.len() as u64 != range.end - range.start {
                return Err(at.named.odd("reading an object", "another number of bytes than asked for"));
            }
            Ok(bytes)
        };
        guard.call("get", read).await
    }
}

fn object(at: &Connected, found: ObjectMeta) -> BucketObject {
    let url = format!("s3://{}/{}", at.named.bucket, found.location);
    BucketObject { url, size: found.size, tag: found.e_tag.unwrap_or_default() }
}
