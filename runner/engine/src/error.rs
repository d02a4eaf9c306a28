//! What can go wrong in planning and running, in words for people.

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
