//! What can go wrong in planning and running, in words for people.

use std::{collections::BTreeSet, time::Duration};

use runner_contract::StageError;
use runner_store::StoreError;

/// A pipeline could not be planned or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stage failed.
    #[error("stage `{stage}`{}: {source}", shard_suffix(*.shard))]
    Stage {
        /// Its full name.
        stage: String,
        /// The shard that it worked on, from 0.
        shard: Option<usize>,
        /// What it said.
        source: StageError,
    },
    /// A stage's code panicked.
    #[error("stage `{stage}`{}: panicked: {what}; this is a mistake in the kind `{kind}`", shard_suffix(*.shard))]
    Panicked {
        /// The stage's full name.
        stage: String,
        /// The shard that it worked on, from 0.
        shard: Option<usize>,
        /// Its kind.
        kind: String,
        /// What the panic said.
        what: String,
    },
    /// An attempt took longer than the stage's `timeout`.
    #[error(
        "stage `{stage}`{}: took longer than its `timeout` of {limit:?}{}",
        shard_suffix(*.shard),
        if *.deaf { " and did not react to being stopped" } else { "" }
    )]
    TimedOut {
        /// The stage's full name.
        stage: String,
        /// The shard that it worked on, from 0.
        shard: Option<usize>,
        /// Its `timeout`.
        limit: Duration,
        /// It went on though it was told to stop, and was given up on.
        deaf: bool,
    },
    /// More rows could not be used than the stage's `max_bad` allows.
    #[error("stage `{stage}`: {bad} of {rows} rows could not be used, more than its `max_bad` of {limit}: {first}")]
    TooManyBad {
        /// The stage's full name.
        stage: String,
        /// Rows that could not be used.
        bad: u64,
        /// Rows in all.
        rows: u64,
        /// Its `max_bad`.
        limit: String,
        /// The first of them, with reasons.
        first: String,
    },
    /// A stage or a column was named that the pipeline does not have: a mistake of whoever named it.
    #[error("{problem}{}", hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default())]
    Name {
        /// What is not there.
        problem: String,
        /// What there is.
        hint: Option<String>,
    },
    /// The pipeline asks for what cannot be done here.
    #[error("{0}")]
    Invalid(String),
    /// Stored rows are not what their stage made: damaged, or of another version.
    #[error(
        "stored rows of stage `{stage}` cannot be used: {reason}; run with `cache: false` on it, or remove the store"
    )]
    Stored {
        /// The stage's full name.
        stage: String,
        /// What is wrong.
        reason: String,
    },
    /// The run was stopped on request.
    #[error("cancelled")]
    Cancelled,
}

fn shard_suffix(shard: Option<usize>) -> String {
    shard.map(|shard| format!(", shard {shard}")).unwrap_or_default()
}

impl EngineError {
    /// A stage's error, with its name. A stage that stops because the run stops is no failure.
    pub(crate) fn stage(stage: &str, shard: Option<usize>, source: StageError) -> Self {
        match source {
            StageError::Cancelled => Self::Cancelled,
            source => Self::Stage { stage: stage.to_owned(), shard, source },
        }
    }

    /// The stage that it names.
    pub(crate) fn stage_name(&self) -> Option<&str> {
        match self {
            Self::Stage { stage, .. }
            | Self::Panicked { stage, .. }
            | Self::TimedOut { stage, .. }
            | Self::TooManyBad { stage, .. }
            | Self::Stored { stage, .. } => Some(stage),
            Self::Store(_) | Self::Name { .. } | Self::Invalid(_) | Self::Cancelled => None,
        }
    }

    /// Whether another attempt may do better: a stage failed in words of its own or for want of time, or the store was out
    /// of reach. A panic, a batch without what a stage reads, and what the pipeline asks for stay as they are.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Stage { source, .. } => matches!(source, StageError::Failed(_)),
            Self::TimedOut { .. } => true,
            Self::Store(error) => {
                error.is_transient() || matches!(error, StoreError::Io { .. } | StoreError::Object(_))
            }
            Self::Panicked { .. }
            | Self::TooManyBad { .. }
            | Self::Name { .. }
            | Self::Invalid(_)
            | Self::Stored { .. }
            | Self::Cancelled => false,
        }
    }

    /// What is not there, and the names that are: each once, sorted.
    pub(crate) fn name<'a>(problem: String, there: &str, names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.collect::<BTreeSet<_>>().into_iter().collect();
        Self::Name { problem, hint: Some(format!("{there} {}", names.join(", "))) }
    }

    pub(crate) fn stored(stage: &str, reason: impl std::fmt::Display) -> Self {
        Self::Stored { stage: stage.to_owned(), reason: reason.to_string() }
    }

    /// For a stage that reads through the engine ([`runner_contract::Access`]): what stopped the reading.
    pub(crate) fn into_stage_error(self) -> StageError {
        match self {
            Self::Cancelled => StageError::Cancelled,
            other => StageError::new(other.to_string()),
        }
    }
}
