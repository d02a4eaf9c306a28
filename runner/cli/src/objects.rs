//! Lets datasets read from buckets, whatever thread they are on.

use std::{
    ops::Range,
    sync::{Arc, OnceLock, mpsc},
};

use runner_data::{Children, Object, Objects};
use runner_store::{BucketObject, Buckets, StoreError};
use tokio::runtime::{Builder, Runtime};

/// Requests of datasets are made beside everything else, so that whoever waits for one may stand anywhere.
static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();

/// See the module.
pub(crate) struct BucketObjects(Arc<Buckets>);

impl BucketObjects {
    pub(crate) fn new(buckets: Buckets) -> Self {
        Self(Arc::new(buckets))
    }

    fn ask<T: Send + 'static, F>(&self, question: impl FnOnce(Arc<Buckets>) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let runtime = RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().ok());
        let runtime = runtime.as_ref().ok_or("no threads for requests")?;
        let (sender, receiver) = mpsc::channel();
        let answer = question(self.0.clone());
        runtime.spawn(async move { sender.send(answer.await) });
        let answer = receiver.recv().map_err(|_| "a request came to no end".to_owned())?;
        answer.map_err(|error| error.to_string())
    }
}

impl Objects for BucketObjects {
    fn head(&self, url: &str) -> Result<Option<Object>, String> {
        let url = url.to_owned();
        Ok(self.ask(|buckets| async move { buckets.head(&url).await })?.map(object))
    }

    fn list(&self, folder: &str) -> Result<Vec<Object>, String> {
        let folder = folder.to_owned();
        let found = self.ask(|buckets| async move { buckets.list(&folder).await })?;
        Ok(found.into_iter().map(object).collect())
    }

    fn children(&self, folder: &str) -> Result<Children, String> {
        let folder = folder.to_owned();
        let found = self.ask(|buckets| async move { buckets.children(&folder).await })?;
        Ok(Children { files: found.files, folders: found.folders })
    }

    fn read(&self, of: &Object, range: Range<u64>) -> Result<Vec<u8>, String> {
        let of = BucketObject { url: of.url.clone(), size: of.size, tag: of.tag.clone() };
        self.ask(|buckets| async move { buckets.read(&of, range).await }).map(Vec::from)
    }
}

fn object(found: BucketObject) -> Object {
    Object { url: found.url, size: found.size, tag: found.tag }
}
