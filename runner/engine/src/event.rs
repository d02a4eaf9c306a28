//! What an onlooker of a run hears while it goes on.

use std::time::Duration;

use runner_store::{Level, TaskStatus};

use crate::RunReport;

/// Something happened in a run. Events of one task come in order; those of different tasks mix.
#[derive(Clone, Debug)]
pub enum Event {
    /// The run is recorded and begins.
    Started {
        /// The run's id.
        run: String,
        /// What there is to do, by stage in topological order.
        stages: Vec<StagePlan>,
    },
    /// A task began.
    TaskStarted {
        /// Its number.
        task: usize,
        /// The stages that it computes, positions in [`Event::Started`].
        stages: Vec<usize>,
        /// Its shard, if it is of one.
        shard: Option<usize>,
    },
    /// A stage worked off a chunk.
    Rows {
        /// The stage, a position in [`Event::Started`].
        stage: usize,
        /// Rows that it took in.
        rows: u64,
        /// Rows among them that it could not use.
        bad: u64,
    },
    /// A job got on.
    Progress {
        /// The stage.
        stage: usize,
        /// Steps done.
        done: u64,
        /// Steps in all.
        total: u64,
        /// A short note for people.
        note: String,
    },
    /// A value of a job's series.
    Metric {
        /// The stage.
        stage: usize,
        /// The series: `loss`.
        name: String,
        /// The step.
        step: u64,
        /// The value.
        value: f64,
    },
    /// Something that a person should know and that stops nothing.
    Warning {
        /// The stage.
        stage: usize,
        /// What.
        message: String,
    },
    /// A line of the run's log. What is an [`Event::Warning`] too is not said again.
    Log {
        /// The stage that it is about.
        stage: Option<usize>,
        /// The shard that it is about.
        shard: Option<u32>,
        /// How grave.
        level: Level,
        /// What.
        text: String,
    },
    /// An attempt of a task failed, and another follows.
    Retry {
        /// The task's number.
        task: usize,
        /// The stages that it computes.
        stages: Vec<usize>,
        /// Its shard.
        shard: Option<usize>,
        /// Which attempt failed, from 1.
        attempt: u32,
        /// When the next one begins.
        after: Duration,
        /// What went wrong.
        error: String,
    },
    /// A task ended.
    TaskFinished {
        /// Its number.
        task: usize,
        /// The stages that it computed.
        stages: Vec<usize>,
        /// Its shard.
        shard: Option<usize>,
        /// `Done`, `Cached` (another run made it meanwhile), `Failed` or `Cancelled`.
        status: TaskStatus,
        /// What went wrong.
        error: Option<String>,
    },
    /// A stage's last task ended, or all was in the cache (then right after the start), or the run ended (then what was
    /// still open).
    StageFinished {
        /// The stage.
        stage: usize,
        /// `Done`, `Cached`, `Failed` or `Cancelled`.
        status: TaskStatus,
    },
    /// The run ended.
    Finished(Box<RunReport>),
}

/// What a stage has before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePlan {
    /// Its full name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Shards that it works on (1 for a fold's or a job's own result).
    pub shards: usize,
    /// Results that are in the cache.
    pub cached: usize,
    /// Results to compute. 0 and not cached: nobody needs it, or it is recomputed on the way to others.
    pub to_compute: usize,
    /// Rows that pass through it if nothing is dropped; known where a source says so.
    pub rows: Option<u64>,
}
