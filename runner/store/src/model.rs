//! What is recorded, as Rust types. Names and meanings are those of the tables in `migrations/`.

use std::{collections::BTreeMap, fmt};

use runner_contract::Digest;
use serde::{Deserialize, Serialize};

/// A moment, UTC.
pub type Time = chrono::DateTime<chrono::Utc>;

/// How many bad rows of an entry are kept with their reasons; the rest is only counted.
pub const BAD_ROWS_KEPT: usize = 100;

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The word in tables and JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The state that a word of a table names.
            pub(crate) fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

states! {
    /// Where a run stands.
    RunStatus {
        /// Its process lives.
        Running = "running",
        /// All stages done, all gates met.
        Succeeded = "succeeded",
        /// A stage failed, a gate was not met, or the process died (`reason`).
        Failed = "failed",
        /// Stopped on request.
        Cancelled = "cancelled",
    }
}

states! {
    /// Where a task or a stage stands.
    TaskStatus {
        /// Not begun.
        Waiting = "waiting",
        /// At work.
        Running = "running",
        /// Computed in this run.
        Done = "done",
        /// Found in the cache.
        Cached = "cached",
        /// Failed (`error`).
        Failed = "failed",
        /// Not done because the run ended.
        Cancelled = "cancelled",
    }
}

states! {
    /// How a run is asked to stop.
    CancelRequest {
        /// Nothing new starts; what is in flight ends and is recorded.
        Finish = "finish",
        /// Tasks stop at the next chunk or step.
        Now = "now",
    }
}

states! {
    /// How grave a line of a log is.
    Level {
        /// What happens.
        Info = "info",
        /// What somebody should look at.
        Warning = "warning",
        /// What failed.
        Error = "error",
    }
}

/// A run to begin. Id, folder, host, process, version and time are filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRun {
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline's text.
    pub text: String,
    /// The params that it runs with, a JSON object.
    pub params: serde_json::Value,
    /// How many rows each source is cut to.
    pub limit: Option<u64>,
    /// The command line, program first.
    pub command: Vec<String>,
    /// What it ran with, so that it can be repeated: versions, machine, models, sources. JSON.
    pub environment: serde_json::Value,
    /// The files that the pipeline includes, by name: their text.
    pub includes: BTreeMap<String, String>,
}

/// A recorded run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Short, sortable by start, typeable: `20261123-151203-k3f9` (UTC).
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline's text.
    pub text: String,
    /// The params it ran with.
    pub params: serde_json::Value,
    /// How many rows each source was cut to.
    pub limit: Option<u64>,
    /// The command line.
    pub command: Vec<String>,
    /// Where it was run: relative paths start there.
    pub folder: String,
    /// The machine.
    pub host: String,
    /// The process on it.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// Where it stands.
    pub status: RunStatus,
    /// Why it did not succeed.
    pub reason: Option<String>,
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub ended: Option<Time>,
    /// Tasks computed.
    pub executed: u64,
    /// Tasks found in the cache.
    pub cached: u64,
    /// What it ran with: versions, machine, models, sources.
    pub environment: serde_json::Value,
    /// The text of each file that the pipeline includes.
    pub includes: BTreeMap<String, String>,
}

/// A stage of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct StageRecord {
    /// Its place in the pipeline, from 0.
    pub position: u32,
    /// Its name, unique in the run.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Tasks computed.
    pub executed: u64,
    /// Tasks found in the cache.
    pub cached: u64,
    /// Rows that came out.
    pub rows: u64,
    /// Rows left out as unusable.
    pub bad: u64,
    /// Time spent in it, summed over threads, in seconds.
    pub seconds: f64,
    /// Time during which at least one of its tasks was at work, in seconds; 0 where it is only recomputed for others.
    pub wall: f64,
    /// The manifest of its dataset, or of its results, when it is done and stored.
    pub manifest: Option<Digest>,
    /// What went wrong.
    pub error: Option<String>,
}

/// A task of a run: some stages on one shard, or one fold or job.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRecord {
    /// Its number in the run.
    pub task: u64,
    /// The stages that it computes.
    pub stages: Vec<String>,
    /// The shard, if it is of one.
    pub shard: Option<u32>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Where it stands.
    pub status: TaskStatus,
    /// Rows read.
    pub rows: u64,
    /// Rows left out as unusable.
    pub bad: u64,
    /// When it began.
    pub started: Option<Time>,
    /// When it ended.
    pub ended: Option<Time>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Something computed: what a derived key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The derived key.
    pub key: Digest,
    /// The artifact.
    pub digest: Digest,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Rows left out as unusable.
    pub bad: u64,
    /// The first [`BAD_ROWS_KEPT`] of those.
    pub bad_rows: Vec<BadRow>,
    /// Artifacts that the artifact names: they stay as long as it does.
    pub holds: Vec<Digest>,
}

/// A row that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// A number of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// `STAGE.NAME`.
    pub name: String,
    /// The step of a series; `None` for a final value.
    pub step: Option<u64>,
    /// The value; NaN is kept, infinities too.
    pub value: f64,
    /// Rows that it was computed from, where that means something.
    pub n: Option<u64>,
    /// Rows left out as unusable, there or before.
    pub n_bad: Option<u64>,
}

/// A file for people that a stage made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// The stage.
    pub stage: String,
    /// The file's name, with extension.
    pub name: String,
    /// Its content.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// A gate and how it came out.
#[derive(Clone, Debug, PartialEq)]
pub struct GateRecord {
    /// Its name.
    pub name: String,
    /// The metric that it looks at.
    pub metric: String,
    /// What the metric was; `None` if the run has none of that name.
    pub value: Option<f64>,
    /// The least that passes.
    pub min: Option<f64>,
    /// The most that passes.
    pub max: Option<f64>,
    /// Whether it was met.
    pub passed: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// Not [`RunStatus::Running`].
    pub status: RunStatus,
    /// Why it did not succeed.
    pub reason: Option<String>,
    /// Tasks computed.
    pub executed: u64,
    /// Tasks found in the cache.
    pub cached: u64,
    /// The gates, as far as they were looked at.
    pub gates: Vec<GateRecord>,
}

/// A line of a run's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Set by the writer, unique in the run, ascending.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// The stage that it is about.
    pub stage: Option<String>,
    /// The shard that it is about.
    pub shard: Option<u32>,
    /// How grave.
    pub level: Level,
    /// What.
    pub text: String,
}

/// Which runs to find. The default finds none: `limit` is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of the pipeline of this name.
    pub pipeline: Option<String>,
    /// That stand so.
    pub status: Option<RunStatus>,
    /// That began then or later.
    pub since: Option<Time>,
    /// At most so many.
    pub limit: usize,
}

/// A file as it was when its digest was taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// The absolute path.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was changed, in nanoseconds since 1970.
    pub modified: i64,
}

/// What keeps the records and how it does.
#[derive(Debug)]
pub struct RecordsProbe {
    /// Program and version: `SQLite 3.50.4`, `PostgreSQL 15.8`.
    pub backend: String,
    /// Migrations that were applied.
    pub migrations: u32,
    /// The time of a small query, there and back.
    pub latency: std::time::Duration,
    /// Whether it can be written to; nothing was.
    pub writable: Result<(), crate::StoreError>,
}
