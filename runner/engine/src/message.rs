//! What the loop of a run hears from those who work for it.

use runner_store::{Entry, StoreError};

use crate::EngineError;

/// What came of a task.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// By stage.
    pub(crate) entries: Vec<(usize, Entry)>,
    /// Rows that the task read.
    pub(crate) rows: u64,
    pub(crate) bad: u64,
}

/// What tasks tell while they work, and what the store answers.
#[derive(Debug)]
pub(crate) enum Message {
    /// A stage worked off rows.
    Rows { task: usize, stage: usize, rows: u64, bad: u64, nanos: u64 },
    /// A job got on.
    Progress { stage: usize, done: u64, total: u64, note: String },
    /// A value of a series.
    Metric { stage: usize, name: String, step: u64, value: f64 },
    /// Something for people: shown where it is a warning, else only in the log.
    Said { stage: usize, shard: Option<usize>, warning: bool, text: String },
    /// A task's attempt ended. The last that is heard of it.
    Ended { task: usize, turn: u32, result: Result<Made, EngineError> },
    /// Nobody works on the task any more, and nobody told how it ended.
    Gone { task: usize, turn: u32 },
    /// The answer to a claim.
    Asked { task: usize, turn: u32, answer: Reply },
    /// The answer to a record.
    Recorded { task: usize, turn: u32, result: Result<(), Vanished> },
    /// The store does not take what is to be recorded.
    Broken(StoreError),
}

/// What was made is in the store no more.
#[derive(Debug)]
pub(crate) struct Vanished(pub(crate) StoreError);

/// The answer to a claim.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To be made, but for what is there.
    Yours(Vec<Entry>),
    /// All there.
    Made(Vec<Entry>),
    /// The run of this id makes it.
    Held(String),
}
