//! Lets datasets remember digests of files in the records of the store, once there is one.

use std::sync::{OnceLock, mpsc};

use runner_contract::Digest;
use runner_data::{FileStamp, Memory};
use runner_store::Records;
use tokio::runtime::Handle;

/// The memory of this call. Until [`StoreMemory::attach`] it knows nothing.
pub(crate) struct StoreMemory {
    records: OnceLock<(Records, Handle)>,
    /// Look again, whatever is remembered.
    rehash: bool,
}

impl StoreMemory {
    pub(crate) fn new(rehash: bool) -> Self {
        Self { records: OnceLock::new(), rehash }
    }

    /// Where to remember from now on. Called within the runtime that the records live in.
    pub(crate) fn attach(&self, records: &Records) {
        self.records.get_or_init(|| (records.clone(), Handle::current()));
    }

    /// Asks the records from whatever thread. They only save work: what fails is as good as not remembered.
    fn ask<T: Send + 'static, F>(&self, question: impl FnOnce(Records) -> F) -> Option<T>
    where
        F: Future<Output = Option<T>> + Send + 'static,
    {
        let (records, handle) = self.records.get()?;
        let (sender, receiver) = mpsc::channel();
        let answer = question(records.clone());
        handle.spawn(async move { sender.send(answer.await) });
        receiver.recv().ok().flatten()
    }
}

impl Memory for StoreMemory {
    fn recall(&self, files: &[FileStamp]) -> Vec<Option<Digest>> {
        let nothing = || vec![None; files.len()];
        if self.rehash || files.is_empty() {
            return nothing();
        }
        let files: Vec<_> = files.iter().map(stamp).collect();
        self.ask(|records| async move { records.memos(&files).await.ok() }).unwrap_or_else(nothing)
    }

    fn remember(&self, files: &[(FileStamp, Digest)]) {
        let files: Vec<_> = files.iter().map(|(file, digest)| (stamp(file), *digest)).collect();
        self.ask(|records| async move { records.set_memos(&files).await.ok() });
    }
}

fn stamp(file: &FileStamp) -> runner_store::FileStamp {
    runner_store::FileStamp { path: file.path.clone(), size: file.size, modified: file.modified }
}
