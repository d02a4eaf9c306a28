//! Artifacts as objects of an S3 bucket.
//!
//! The server is believed about what it has, not about what it says it did: where an answer is lost or odd the object is
//! looked at. Content is verified by whoever reads it. Every request may be made twice.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::{
    Error, GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    multipart::MultipartStore, path::Path as Location,
};
use runner_contract::Digest;

use super::{
    Stored,
    connect::Connected,
    explain::{Named, chain},
    layout,
    present::{self, Page},
    uploads,
};
use crate::{StoreError, Time, guard::Guard};

/// The size of a part of a multipart upload, in bytes; larger content is stored in parts.
const PART: usize = 8 << 20;
/// How many parts are on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// A bucket, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    connected: Arc<Connected>,
}

impl Bucket {
    pub(super) fn new(connected: Connected) -> Self {
        Self { connected: Arc::new(connected) }
    }

    pub(super) fn named(&self) -> &Named {
        &self.connected.named
    }

    /// For how long a call is tried again.
    pub(super) fn patience(&self) -> Duration {
        self.connected.patience
    }

    fn s3(&self) -> &object_store::aws::AmazonS3 {
        &self.connected.s3
    }

    fn location(&self, digest: &Digest) -> Location {
        self.below(&layout::path(digest))
    }

    fn below(&self, path: &str) -> Location {
        self.connected.prefix.parts().chain(Location::from(path).parts()).collect()
    }

    /// Whether the bucket is there and lets us in: lists what comes after all artifacts, since only answers with a body say
    /// why not.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let first = self.s3().list_with_offset(Some(&self.connected.prefix), &self.below("zz")).next().await;
        first.transpose().map(drop).map_err(|error| self.named().explain("opening", error))
    }

    /// Stores content that is not there yet, whole or not at all.
    pub(super) async fn put(&self, guard: &Guard, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        let length = content.len() as u64;
        if content.len() <= PART {
            return guard.call("put", || self.put_small(digest, content.clone(), PutMode::Create)).await;
        }
        // A look costs less than sending it for nothing.
        if guard.call("size", || self.size(digest)).await? != Some(length) {
            self.put_large(guard, digest, content).await?;
        }
        Ok(())
    }

    async fn put_small(&self, digest: &Digest, content: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let location = self.location(digest);
        let options = |mode| PutOptions { mode, ..PutOptions::default() };
        let length = content.len() as u64;
        let payload = PutPayload::from_bytes(content);
        match self.s3().put_opts(&location, payload.clone(), options(mode)).await {
            Ok(_) => return Ok(()),
            // It was there before, or an answer was lost. Either way what is there has to be it.
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(self.named().explain("storing an artifact", error)),
        }
        match self.size(digest).await? {
            Some(found) if found == length => Ok(()),
            // Somebody removes it just now.
            None => Err(self.named().odd("storing an artifact", "it is there and it is not")),
            Some(_) => {
                let replaced = self.s3().put_opts(&location, payload, options(PutMode::Overwrite)).await;
                replaced.map(drop).map_err(|error| self.named().explain("replacing a damaged artifact", error))
            }
        }
    }

    async fn put_large(&self, guard: &Guard, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        let location = &self.location(digest);
        let failed = |error| self.named().explain("storing a large artifact", error);
        let begin = || async { self.s3().create_multipart(location).await.map_err(failed) };
        let id = &guard.call("put", begin).await?;
        let stored = async {
            let parts = (0..content.len().div_ceil(PART)).map(|index| {
                let part = content.slice(index * PART..content.len().min((index + 1) * PART));
                async move {
                    let send = || async {
                        let payload = PutPayload::from_bytes(part.clone());
                        self.s3().put_part(location, id, index, payload).await.map_err(failed)
                    };
                    guard.call("put", send).await
                }
            });
            let parts: Vec<_> = stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await?;
            let complete = || async {
                match self.s3().complete_multipart(location, id, parts.clone()).await {
                    Ok(_) => Ok(()),
                    // Either it was completed and the answer was lost, or somebody has cleaned up.
                    Err(Error::NotFound { .. }) if self.size(digest).await? == Some(content.len() as u64) => Ok(()),
                    Err(Error::NotFound { .. }) => Err(StoreError::Vanished(vec![*digest])),
                    Err(error) => Err(failed(error)),
                }
            };
            guard.call("put", complete).await
        };
        let stored = stored.await;
        if stored.is_err() {
            // What cannot be removed now is removed with the leftovers.
            drop(self.s3().abort_multipart(location, id).await);
        }
        stored
    }

    /// The content, unverified.
    pub(super) async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let Some(found) = self.open(digest).await? else { return Ok(None) };
        let content = found.bytes().await.map_err(|error| self.named().explain("reading an artifact", error))?;
        Ok(Some(content))
    }

    /// The content as it arrives, unverified.
    pub(super) async fn open(&self, digest: &Digest) -> Result<Option<GetResult>, StoreError> {
        match self.s3().get_opts(&self.location(digest), GetOptions::default()).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.named().explain("reading an artifact", error)),
        }
    }

    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        match self.s3().head(&self.location(digest)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.named().explain("looking for an artifact", error)),
        }
    }

    /// Those of these that are stored.
    pub(super) async fn present(&self, guard: &Guard, digests: &[Digest]) -> Result<HashSet<Digest>, StoreError> {
        let look =
            |digest: Digest| async move { Ok(guard.call("size", || self.size(&digest)).await?.is_some()) }.boxed();
        let page = |after: String| {
            async move {
                let after = self.below(&after);
                guard.call("list", || self.page(&after)).await
            }
            .boxed()
        };
        present::present(digests, look, page).await
    }

    /// The next objects after a place.
    async fn page(&self, after: &Location) -> Result<Page, StoreError> {
        let listed = self.s3().list_with_offset(Some(&self.connected.prefix), after).take(present::PAGE);
        let listed: Vec<_> = listed.try_collect().await.map_err(|error| self.named().explain("listing", error))?;
        let last = listed.last().filter(|_| listed.len() == present::PAGE);
        let until = last.and_then(|object| self.path_of(object)).map(str::to_owned);
        Ok(Page { digests: listed.iter().filter_map(|object| self.digest(object)).collect(), until })
    }

    /// Removes them; those that are not there are no mistake.
    pub(super) async fn delete(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let locations: Vec<_> = digests.iter().map(|digest| Ok(self.location(digest))).collect();
        let deleted = self.s3().delete_stream(stream::iter(locations).boxed());
        let outcomes = deleted.filter(|outcome| {
            let missing = matches!(outcome, Err(error) if is_missing(error));
            std::future::ready(!missing)
        });
        let all: Result<Vec<_>, _> = outcomes.try_collect().await;
        all.map(drop).map_err(|error| self.named().explain("removing artifacts", error))
    }

    /// Everything, page by page.
    pub(super) async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        let listed = self.s3().list(Some(&self.connected.prefix));
        let stored = listed.try_filter_map(|object| {
            let digest = self.digest(&object);
            let stored = digest.map(|digest| Stored { digest, bytes: object.size, modified: object.last_modified });
            std::future::ready(Ok(stored))
        });
        stored.try_collect().await.map_err(|error| self.named().explain("listing artifacts", error))
    }

    /// Finds uploads that were begun before that time and never finished, and ends them if that is wanted.
    pub(super) async fn leftovers(&self, before: SystemTime, end_them: bool) -> Result<u64, StoreError> {
        let unfinished = uploads::unfinished(&self.connected).await?;
        let mut found = 0;
        for upload in unfinished.into_iter().filter(|upload| upload.began < Time::from(before)) {
            found += 1;
            if !end_them {
                continue;
            }
            match self.s3().abort_multipart(&upload.location, &upload.id).await {
                Err(error) if !is_missing(&error) => {
                    return Err(self.named().explain("ending an unfinished upload", error));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The content of the marker, after it was made or replaced with this content if need be.
    pub(super) async fn mark(&self, content: &str, replace: bool) -> Result<String, StoreError> {
        let found = self.marker().await?;
        if found.as_deref().is_some_and(|found| found == content || !replace) {
            return Ok(found.unwrap_or_default());
        }
        let mode = if found.is_some() { PutMode::Overwrite } else { PutMode::Create };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.s3().put_opts(&self.below(layout::MARKER), content.to_owned().into(), options).await {
            // Somebody was faster; who, is to be seen now.
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(self.marker().await?.unwrap_or_default()),
            Err(error) => Err(self.named().explain("marking the bucket as ours", error)),
        }
    }

    async fn marker(&self) -> Result<Option<String>, StoreError> {
        let failed = |error| self.named().explain("looking for whose the bucket is", error);
        match self.s3().get(&self.below(layout::MARKER)).await {
            Ok(found) => Ok(Some(String::from_utf8_lossy(&found.bytes().await.map_err(failed)?).into_owned())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn digest(&self, object: &ObjectMeta) -> Option<Digest> {
        layout::digest(self.path_of(object)?)
    }

    /// Below the prefix.
    fn path_of<'a>(&self, object: &'a ObjectMeta) -> Option<&'a str> {
        let path = object.location.as_ref().strip_prefix(self.connected.prefix.as_ref())?;
        Some(path.trim_start_matches('/'))
    }
}

/// `404`, unless it is the bucket that is missing.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && !chain(error).contains("NoSuchBucket")
}
