//! What happened: runs, their stages, tasks and metrics, and which derived key stands for which artifact.

use std::{
    collections::HashMap,
    fs::File,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::Utc;
use runner_contract::Digest;

use crate::{
    Entry, FileRecord, Finish, GateRecord, LiveRun, Metric, NewRun, Run, RunStatus, StageRecord, StoreError,
    TaskRecord, Time, locks, sqlite::Sqlite,
};

/// The database's file name in the store's folder.
pub(crate) const DATABASE: &str = "records.sqlite";

/// The records of a store. Cheap to clone.
///
/// Every method is one transaction: it happened whole or not at all, whenever the process dies. The methods are
/// asynchronous; a blocking thread calls them through `tokio::runtime::Handle::block_on`.
#[derive(Clone, Debug)]
pub struct Records {
    /// The tables. SQL is written there and nowhere else.
    tables: Sqlite,
    /// The store's folder, for the locks of live runs.
    root: PathBuf,
    /// Says to other openers that the store is in use.
    _using: Arc<File>,
}

impl Records {
    pub(crate) async fn open(root: &Path, using: Arc<File>) -> Result<Self, StoreError> {
        Ok(Self { tables: Sqlite::open(&root.join(DATABASE)).await?, root: root.to_owned(), _using: using })
    }

    pub(crate) async fn close(&self) {
        self.tables.close().await;
    }

    // ------------------------------------------------------------------------------------------------------- writing

    /// Begins a run. It counts as alive as long as the value lives; hand it to [`Records::finish`].
    pub async fn begin(&self, new: &NewRun) -> Result<LiveRun, StoreError> {
        loop {
            let started = now();
            let Some(live) = LiveRun::start(&self.root, new_id(started))? else { continue };
            let run = Run {
                id: live.id().to_owned(),
                pipeline: new.pipeline.clone(),
                text: new.text.clone(),
                params: new.params.clone(),
                limit: new.limit,
                command: new.command.clone(),
                folder: std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned(),
                host: host(),
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                status: RunStatus::Running,
                reason: None,
                started,
                ended: None,
                executed: 0,
                cached: 0,
            };
            if self.tables.insert_run(&run).await? {
                return Ok(live);
            }
        }
    }

    /// Adds stages to a run or replaces those of the same names.
    pub async fn put_stages(&self, run: &str, stages: &[StageRecord]) -> Result<(), StoreError> {
        self.tables.put_stages(run, stages).await
    }

    /// Adds tasks to a run or replaces those of the same numbers. Made for batches.
    pub async fn put_tasks(&self, run: &str, tasks: &[TaskRecord]) -> Result<(), StoreError> {
        self.tables.commit(run, tasks, &[]).await
    }

    /// Records finished tasks together with what they made. The artifacts must be stored already.
    pub async fn commit(&self, run: &str, tasks: &[TaskRecord], made: &[Entry]) -> Result<(), StoreError> {
        self.tables.commit(run, tasks, made).await
    }

    /// Records values, replacing those of the same name and step. Made for batches.
    pub async fn put_metrics(&self, run: &str, metrics: &[Metric]) -> Result<(), StoreError> {
        self.tables.put_metrics(run, metrics).await
    }

    /// Records files for people.
    pub async fn put_files(&self, run: &str, files: &[FileRecord]) -> Result<(), StoreError> {
        self.tables.put_files(run, files).await
    }

    /// Ends a run. Tasks and stages that wait or run become cancelled, or failed where the run failed.
    pub async fn finish(&self, live: LiveRun, finish: &Finish) -> Result<(), StoreError> {
        self.tables.finish(live.id(), finish, now()).await?;
        live.end()
    }

    /// Marks runs as `failed`, reason `interrupted`, whose process is gone, and says how many. Opening a store does this.
    pub async fn mark_interrupted(&self) -> Result<usize, StoreError> {
        let interrupted = Finish {
            status: RunStatus::Failed,
            reason: Some("interrupted".to_owned()),
            executed: 0,
            cached: 0,
            gates: Vec::new(),
        };
        let mut marked = 0;
        for id in self.tables.running().await? {
            if locks::is_dead(&self.root, &id)? {
                self.tables.finish(&id, &interrupted, now()).await?;
                marked += 1;
            }
        }
        Ok(marked)
    }

    // --------------------------------------------------------------------------------------------------------- cache

    /// What these keys stand for, as far as it was made. Made for many keys at once.
    pub async fn lookup(&self, keys: &[Digest]) -> Result<HashMap<Digest, Entry>, StoreError> {
        self.tables.lookup(keys).await
    }

    /// Forgets what these keys stand for, for instance because the artifacts are gone.
    pub async fn forget(&self, keys: &[Digest]) -> Result<(), StoreError> {
        self.tables.forget(keys).await
    }

    /// The last checkpoint of the job with this key.
    pub async fn checkpoint(&self, key: &Digest) -> Result<Option<Digest>, StoreError> {
        self.tables.checkpoint(key).await
    }

    /// Sets or (with `None`) removes the checkpoint of the job with this key. Returns the one that it replaces, whose
    /// artifact the caller may delete.
    pub async fn set_checkpoint(
        &self,
        key: &Digest,
        checkpoint: Option<&Digest>,
    ) -> Result<Option<Digest>, StoreError> {
        self.tables.set_checkpoint(key, checkpoint, now()).await
    }

    /// The digest that was remembered for a file, if size and modification time (nanoseconds since 1970) are still those.
    pub async fn memo(&self, path: &str, size: u64, modified: i64) -> Result<Option<Digest>, StoreError> {
        self.tables.memo(path, size, modified).await
    }

    /// Remembers the digest of a file.
    pub async fn set_memo(&self, path: &str, size: u64, modified: i64, digest: &Digest) -> Result<(), StoreError> {
        self.tables.set_memo(path, size, modified, digest).await
    }

    // ------------------------------------------------------------------------------------------------------- reading

    /// The newest runs, newest first.
    pub async fn runs(&self, limit: usize) -> Result<Vec<Run>, StoreError> {
        self.tables.runs(limit).await
    }

    /// One run: `latest`, an id, or the beginning or end of one that is not ambiguous.
    pub async fn run(&self, which: &str) -> Result<Run, StoreError> {
        if which == "latest" {
            return self.tables.runs(1).await?.pop().ok_or(StoreError::NoRuns);
        }
        // Ids are made of these; nothing else can be a part of one, nor mean anything in a pattern.
        let plain = which.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let mut found = if plain && !which.is_empty() { self.tables.runs_like(which).await? } else { Vec::new() };
        match found.len() {
            0 => Err(StoreError::NoRun(which.to_owned())),
            1 => Ok(found.remove(0)),
            _ => {
                let candidates = found.iter().map(|run| run.id.as_str()).collect::<Vec<_>>().join(", ");
                Err(StoreError::ManyRuns { given: which.to_owned(), candidates })
            }
        }
    }

    /// The stages of a run, in order.
    pub async fn stages(&self, run: &str) -> Result<Vec<StageRecord>, StoreError> {
        self.tables.stages(run).await
    }

    /// The tasks of a run, in order.
    pub async fn tasks(&self, run: &str) -> Result<Vec<TaskRecord>, StoreError> {
        self.tables.tasks(run).await
    }

    /// The final values of a run, by name.
    pub async fn metrics(&self, run: &str) -> Result<Vec<Metric>, StoreError> {
        self.tables.metrics(run, false).await
    }

    /// The series of a run, by name and step.
    pub async fn series(&self, run: &str) -> Result<Vec<Metric>, StoreError> {
        self.tables.metrics(run, true).await
    }

    /// The files of a run.
    pub async fn files(&self, run: &str) -> Result<Vec<FileRecord>, StoreError> {
        self.tables.files(run).await
    }

    /// The gates of a run.
    pub async fn gates(&self, run: &str) -> Result<Vec<GateRecord>, StoreError> {
        self.tables.gates(run).await
    }
}

fn now() -> Time {
    Utc::now()
}

/// `20261123-151203-k3f9`. The end is only there to tell apart runs of one second.
fn new_id(started: Time) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let random = RandomState::new().hash_one(started);
    let end: String = (0..4).map(|i| char::from(LETTERS[(random >> (5 * i)) as usize % LETTERS.len()])).collect();
    format!("{}-{end}", started.format("%Y%m%d-%H%M%S"))
}

fn host() -> String {
    let read = |path| std::fs::read_to_string(path).ok();
    read("/proc/sys/kernel/hostname")
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
