//! What can go wrong with a store, in words for people.

use std::{io, path::PathBuf};

use runner_contract::Digest;

/// A store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder holds something else.
    #[error("{path} is not a store: it holds {found} and no {expected}; name an empty or new folder", path = .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
        /// What a store has.
        expected: &'static str,
    },
    /// A newer program made it.
    #[error("{path} was made by a newer version of runner (its migration {migration} is unknown here); update runner", path = .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The first migration that this program does not know.
        migration: i64,
    },
    /// The database cannot be read.
    #[error("{path} is damaged: {reason}; move it away to begin anew (artifacts stay, the records are lost)", path = .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// A value in the database is not what this program writes.
    #[error("the records hold an unexpected value: {what} is `{value}`")]
    Value {
        /// Table and column.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// An artifact that the records name is gone.
    #[error("artifact {0} is not in the store; run the pipeline again to make it anew")]
    Missing(Digest),
    /// An artifact's content is not what its name says.
    #[error(
        "artifact {digest} was damaged (its content has the digest {found}) and has been removed; run the pipeline again to make it anew"
    )]
    Corrupt {
        /// Its name.
        digest: Digest,
        /// What it holds.
        found: Digest,
    },
    /// No such run.
    #[error("no run `{0}`; `runner runs` lists them")]
    NoRun(String),
    /// Several runs begin like that.
    #[error("`{given}` could be {candidates}; write more of it")]
    ManyRuns {
        /// What was asked for.
        given: String,
        /// Ids that begin so.
        candidates: String,
    },
    /// No run yet.
    #[error("no run is recorded yet")]
    NoRuns,
    /// A file could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The artifact store failed.
    #[error("artifact store: {0}")]
    Object(#[from] object_store::Error),
    /// The database failed.
    #[error("records: {0}")]
    Sql(#[from] sqlx::Error),
}

impl StoreError {
    /// An I/O error and its file.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
