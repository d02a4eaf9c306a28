//! What happened: runs, their stages, tasks and metrics, and which derived key stands for which artifact.

use std::{
    collections::HashMap,
    fs::File,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Instant,
};

use chrono::{SubsecRound, Utc};
use runner_contract::Digest;
use tokio::sync::OnceCell;

use crate::{
    Artifacts, CancelRequest, Claim, Claimed, Entry, FileRecord, FileStamp, Finish, GateRecord, LiveRun, LogLine,
    Metric, NewRun, Place, RecordsProbe, Run, RunFilter, RunStatus, StageRecord, StoreError, TaskRecord, Time,
    guard::{Guard, Hook},
    place::redacted,
    postgres::Postgres,
    process::{self, Sign},
    sqlite::Sqlite,
};

/// The database's file name in the store's folder.
pub(crate) const DATABASE: &str = "records.sqlite";

/// The records of a store. Cheap to clone.
///
/// Every method is one transaction: it happened whole or not at all, whenever the process dies; each may happen twice, and
/// does where the answer to the first was lost. The methods are asynchronous; a blocking thread calls them through
/// `tokio::runtime::Handle::block_on`.
#[derive(Clone, Debug)]
pub struct Records {
    /// The tables. SQL is written there and nowhere else.
    pub(crate) tables: Tables,
    /// What every call goes through.
    pub(crate) guard: Guard,
    /// Where that lies what the records refer to.
    pub(crate) artifacts: Artifacts,
    /// Whether the artifacts are a part of the same folder, and so belong to whatever records are there.
    own_artifacts: bool,
    /// Done once the artifacts say that they are those of these records.
    marked: Arc<OnceCell<()>>,
    /// Says to other openers that the folder is in use.
    _using: Option<Arc<File>>,
}

/// The tables, wherever they are.
#[derive(Clone, Debug)]
pub(crate) enum Tables {
    /// In a file.
    Sqlite(Sqlite),
    /// On a server.
    Postgres(Postgres),
}

/// A run that somebody has to look after.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) id: String,
    /// See [`process::look`].
    pub(crate) process: String,
    /// When it last beat.
    pub(crate) beat: Option<Time>,
    /// Whether that is too long ago.
    pub(crate) silent: bool,
}

impl Running {
    /// Whether its process is gone, as far as can be seen from here.
    pub(crate) fn is_dead(&self) -> bool {
        match process::look(&self.process, &self.id) {
            Sign::Alive => false,
            Sign::Dead => true,
            Sign::Unknown => self.silent,
        }
    }
}

/// Calls a method of the tables, as often as is needed.
macro_rules! call {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        $self
            .guard
            .call(stringify!($method), move || async move {
                match &$self.tables {
                    Tables::Sqlite(tables) => tables.$method($($argument),*).await,
                    Tables::Postgres(tables) => tables.$method($($argument),*).await,
                }
            })
            .await
    };
}
pub(crate) use call;

impl Records {
    /// Opens the records of a place. Whoever uses its folder holds `using`.
    pub(crate) async fn open(place: &Place, artifacts: Artifacts, using: Arc<File>) -> Result<Self, StoreError> {
        let mut guard = Guard::new("records");
        let tables = match &place.records {
            Some(url) => {
                let tables = Postgres::open(url).await?;
                guard.place = Some(format!("no answer from {}", redacted(url)).into());
                let stuck = tables.clone();
                guard.after_silence = Some(Hook(Arc::new(move || stuck.renew())));
                Tables::Postgres(tables)
            }
            None => {
                guard.folder = Some(place.folder.clone());
                Tables::Sqlite(Sqlite::open(&place.folder.join(DATABASE)).await?)
            }
        };
        Ok(Self {
            tables,
            guard,
            artifacts,
            own_artifacts: place.artifacts.is_none() && place.records.is_none(),
            marked: Arc::default(),
            _using: Some(using),
        })
    }

    /// Says in the artifacts that they belong to these records, or finds out that they belong to others.
    pub(crate) async fn mark(&self) -> Result<(), StoreError> {
        let mark = async || {
            let id = call!(self.id())?;
            self.artifacts.mark(&id, self.own_artifacts).await
        };
        self.marked.get_or_try_init(mark).await.copied()
    }

    pub(crate) async fn close(&self) {
        match &self.tables {
            Tables::Sqlite(tables) => tables.close().await,
            Tables::Postgres(tables) => tables.close().await,
        }
    }

    // ---------------------------------------------------------------------------------------------------- a run's life

    /// Begins a run. It counts as alive as long as the value lives; hand it to [`Records::finish`].
    pub async fn begin(&self, new: &NewRun) -> Result<LiveRun, StoreError> {
        self.mark().await?;
        loop {
            let started = now();
            let id = new_id(started);
            if !process::enter(&id) {
                continue;
            }
            let run = Run {
                id: id.clone(),
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
                environment: new.environment.clone(),
                includes: new.includes.clone(),
            };
            let run = &run;
            match call!(self.insert_run(run, process::own())) {
                Ok(true) => return Ok(LiveRun::start(Self { _using: None, ..self.clone() }, id)),
                Ok(false) => process::leave(&id),
                Err(error) => {
                    process::leave(&id);
                    return Err(error);
                }
            }
        }
    }

    /// Ends a run. Tasks and stages that wait or run become cancelled, or failed where the run failed. Fails if somebody has
    /// taken the run for dead.
    pub async fn finish(&self, live: LiveRun, finish: &Finish) -> Result<(), StoreError> {
        let (run, ended) = (live.id(), now());
        call!(self.finish(run, finish, ended))?;
        live.end();
        Ok(())
    }

    /// Marks runs as `failed`, reason `interrupted`, whose process is gone, and says how many. Opening a store does this.
    pub async fn mark_interrupted(&self) -> Result<usize, StoreError> {
        let mut marked = 0;
        for run in call!(self.running())? {
            if run.is_dead() {
                let (run, ended) = (&run, now());
                marked += usize::from(call!(self.bury(run, ended))?);
            }
        }
        Ok(marked)
    }

    /// Marks one run of this process as interrupted.
    pub(crate) async fn interrupt(&self, run: &str) -> Result<(), StoreError> {
        let ended = now();
        call!(self.interrupt(run, ended))
    }

    /// Looks whether somebody wants the run to stop, and says that it is alive if it `is_beat`.
    pub(crate) async fn pulse(&self, run: &str, is_beat: bool) -> Result<Option<CancelRequest>, StoreError> {
        call!(self.pulse(run, is_beat))
    }

    /// Asks a run to stop, wherever it runs. `false` if it has ended already.
    pub async fn request_cancel(&self, run: &str, how: CancelRequest) -> Result<bool, StoreError> {
        call!(self.request_cancel(run, how))
    }

    // ---------------------------------------------------------------------------------------------------------- leases

    /// Asks for the right to compute what tasks make. What is granted is recorded as running. Of what a dead run held, it
    /// is relieved.
    pub async fn claim(&self, run: &str, claims: &[Claim]) -> Result<Vec<Claimed>, StoreError> {
        call!(self.claim(run, claims))
    }

    /// Gives keys back that were not made.
    pub async fn release(&self, run: &str, keys: &[Digest]) -> Result<(), StoreError> {
        call!(self.release(run, keys))
    }

    /// Records finished tasks together with what they made, and gives back the leases of that. The artifacts must be stored
    /// already. Without a run (`""`) there are no tasks.
    ///
    /// [`StoreError::Vanished`] says that an artifact was collected since the keys were claimed: it is to be made again.
    /// [`StoreError::GivenUp`] says that somebody took the run for dead.
    pub async fn commit(&self, run: &str, tasks: &[TaskRecord], made: &[Entry]) -> Result<(), StoreError> {
        let artifacts = &self.artifacts;
        call!(self.commit(run, tasks, made, artifacts))
    }

    // --------------------------------------------------------------------------------------------------- parts of a run

    /// Adds stages to a run or replaces those of the same names.
    pub async fn put_stages(&self, run: &str, stages: &[StageRecord]) -> Result<(), StoreError> {
        let artifacts = &self.artifacts;
        call!(self.put_stages(run, stages, artifacts))
    }

    /// Adds tasks to a run or replaces those of the same numbers. Made for batches.
    pub async fn put_tasks(&self, run: &str, tasks: &[TaskRecord]) -> Result<(), StoreError> {
        let (none, artifacts) = (&[] as &[Entry], &self.artifacts);
        call!(self.commit(run, tasks, none, artifacts))
    }

    /// Records values, replacing those of the same name and step. Made for batches.
    pub async fn put_metrics(&self, run: &str, metrics: &[Metric]) -> Result<(), StoreError> {
        let artifacts = &self.artifacts;
        call!(self.put_metrics(run, metrics, artifacts))
    }

    /// Records files for people.
    pub async fn put_files(&self, run: &str, files: &[FileRecord]) -> Result<(), StoreError> {
        let artifacts = &self.artifacts;
        call!(self.put_files(run, files, artifacts))
    }

    /// Adds lines to a run's log. A line of a number that is there already is left as it is.
    pub async fn log(&self, run: &str, lines: &[LogLine]) -> Result<(), StoreError> {
        call!(self.log(run, lines))
    }

    /// Lines of a run's log behind number `after` (0: from the beginning), of one stage or all, at most `limit`, in order.
    pub async fn logs(
        &self,
        run: &str,
        stage: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogLine>, StoreError> {
        call!(self.logs(run, stage, after, limit))
    }

    // --------------------------------------------------------------------------------------------------------- cache

    /// What these keys stand for, as far as it was made; they count as used now. Made for many keys at once.
    pub async fn lookup(&self, keys: &[Digest]) -> Result<HashMap<Digest, Entry>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        call!(self.lookup(keys))
    }

    /// Forgets what these keys stand for, for instance because the artifacts are gone.
    pub async fn forget(&self, keys: &[Digest]) -> Result<(), StoreError> {
        call!(self.forget(keys))
    }

    /// The last checkpoint of the job with this key.
    pub async fn checkpoint(&self, key: &Digest) -> Result<Option<Digest>, StoreError> {
        call!(self.checkpoint(key))
    }

    /// Sets or (with `None`) removes the checkpoint of the job with this key. Returns the one that it replaces, whose
    /// artifact the caller may delete. [`StoreError::Vanished`] if the artifact is not there.
    pub async fn set_checkpoint(
        &self,
        key: &Digest,
        checkpoint: Option<&Digest>,
    ) -> Result<Option<Digest>, StoreError> {
        let artifacts = &self.artifacts;
        call!(self.set_checkpoint(key, checkpoint, artifacts))
    }

    /// The digests that were remembered for files that are still as they were, in the order of the question.
    pub async fn memos(&self, files: &[FileStamp]) -> Result<Vec<Option<Digest>>, StoreError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let found = call!(self.memos(files))?;
        Ok(files.iter().map(|file| found.get(file).copied()).collect())
    }

    /// Remembers the digests of files.
    pub async fn set_memos(&self, files: &[(FileStamp, Digest)]) -> Result<(), StoreError> {
        call!(self.set_memos(files))
    }

    // ------------------------------------------------------------------------------------------------------- reading

    /// The newest runs, newest first.
    pub async fn runs(&self, limit: usize) -> Result<Vec<Run>, StoreError> {
        self.find(&RunFilter { limit, ..RunFilter::default() }).await
    }

    /// Runs, newest first.
    pub async fn find(&self, filter: &RunFilter) -> Result<Vec<Run>, StoreError> {
        call!(self.find(filter))
    }

    /// The last `n` runs of a pipeline that succeeded, newest first, with their stages: what to expect of the next one.
    pub async fn history(&self, pipeline: &str, n: usize) -> Result<Vec<(Run, Vec<StageRecord>)>, StoreError> {
        let filter = RunFilter {
            pipeline: Some(pipeline.to_owned()),
            status: Some(RunStatus::Succeeded),
            since: None,
            limit: n,
        };
        let mut history = Vec::new();
        for run in self.find(&filter).await? {
            let stages = self.stages(&run.id).await?;
            history.push((run, stages));
        }
        Ok(history)
    }

    /// One run: `latest`, an id, or the beginning or end of one that is not ambiguous.
    pub async fn run(&self, which: &str) -> Result<Run, StoreError> {
        if which == "latest" {
            return self.runs(1).await?.pop().ok_or(StoreError::NoRuns);
        }
        // Ids are made of these; nothing else can be a part of one, nor mean anything in a pattern.
        let plain = which.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let mut found = if plain && !which.is_empty() { call!(self.runs_like(which))? } else { Vec::new() };
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
        call!(self.stages(run))
    }

    /// The tasks of a run, in order.
    pub async fn tasks(&self, run: &str) -> Result<Vec<TaskRecord>, StoreError> {
        call!(self.tasks(run))
    }

    /// The final values of a run, by name.
    pub async fn metrics(&self, run: &str) -> Result<Vec<Metric>, StoreError> {
        call!(self.metrics(run, false))
    }

    /// The series of a run, by name and step.
    pub async fn series(&self, run: &str) -> Result<Vec<Metric>, StoreError> {
        call!(self.metrics(run, true))
    }

    /// The files of a run.
    pub async fn files(&self, run: &str) -> Result<Vec<FileRecord>, StoreError> {
        call!(self.files(run))
    }

    /// The gates of a run.
    pub async fn gates(&self, run: &str) -> Result<Vec<GateRecord>, StoreError> {
        call!(self.gates(run))
    }

    /// Looks whether the records work, and how fast.
    pub async fn probe(&self) -> Result<RecordsProbe, StoreError> {
        let (backend, migrations) = call!(self.version())?;
        let begun = Instant::now();
        call!(self.version())?;
        let latency = begun.elapsed();
        let writable = call!(self.write_nothing());
        Ok(RecordsProbe { backend, migrations, latency, writable })
    }
}

/// The time, as exact as it is recorded.
pub(crate) fn now() -> Time {
    Utc::now().trunc_subsecs(3)
}

/// `20261123-151203-k3f9`. The end is only there to tell apart runs of one second.
fn new_id(started: Time) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let random = RandomState::new().hash_one(started);
    let end: String = (0..4).map(|i| char::from(LETTERS[(random >> (5 * i)) as usize % LETTERS.len()])).collect();
    format!("{}-{end}", started.format("%Y%m%d-%H%M%S"))
}

pub(crate) fn host() -> String {
    let read = |path| std::fs::read_to_string(path).ok();
    read("/proc/sys/kernel/hostname")
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
