//! What can go wrong with a store, in words for people.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

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
    #[error("{place} was made by a newer version of runner (its migration {migration} is unknown here); update runner")]
    Newer {
        /// The database.
        place: String,
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
    /// Artifacts that a record was to refer to have been collected since they were stored: make them again.
    #[error("{} that this refers to were removed meanwhile ({}, …)", artifacts(.0.len()), short(.0.first()))]
    Vanished(Vec<Digest>),
    /// Somebody took the run for dead: it was paused, or out of reach of its records, for too long.
    #[error(
        "run {0} was taken for dead while it was paused or out of reach of its records; run the pipeline again, which goes on where it stopped"
    )]
    GivenUp(String),
    /// Other records have their artifacts there.
    #[error(
        "the artifacts in {place} belong to other records (store {found}); name another place for them, or remove the object `store` there to take them over"
    )]
    OtherRecords {
        /// The artifact store.
        place: String,
        /// Whose they are.
        found: String,
    },
    /// The text is not the place of a store.
    #[error("`{given}` is no place for {what}: {reason}")]
    Place {
        /// What was given, without a password.
        given: String,
        /// `records` or `artifacts`.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A store cannot be reached or does not let us in.
    #[error("cannot use {place}: {reason}")]
    Connect {
        /// The store, without a password.
        place: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A store is out of reach for the moment.
    #[error("{store}: {reason}")]
    Unavailable {
        /// `records` or `artifacts`.
        store: &'static str,
        /// Why.
        reason: String,
    },
    /// A call took too long.
    #[error("{store}: no answer to `{call}` within {limit:?}")]
    TimedOut {
        /// `records` or `artifacts`.
        store: &'static str,
        /// What was called.
        call: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// There is no room for more.
    #[error("no room left in {place} ({source}); make some, or let `runner gc` remove what no run needs, and run again", place = .place.display())]
    Full {
        /// The folder.
        place: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder of a store cannot be made or written.
    #[error(
        "cannot {action} the store {root}: {source}; name a folder that can be written, for instance with --store",
        root = .root.display()
    )]
    Unwritable {
        /// `create`, `use` or `write to`.
        action: &'static str,
        /// The store.
        root: PathBuf,
        /// What the system says.
        source: io::Error,
    },
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

fn artifacts(n: usize) -> String {
    if n == 1 { "an artifact".to_owned() } else { format!("{n} artifacts") }
}

fn short(digest: Option<&Digest>) -> String {
    digest.map(Digest::short).unwrap_or_default()
}

impl StoreError {
    /// Whether the same call may succeed in a moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::TimedOut { .. } => true,
            Self::Sql(error) => sql_is_transient(error),
            _ => false,
        }
    }

    /// An I/O error of making a store, or of writing what every opener writes.
    pub(crate) fn unwritable(action: &'static str, root: &Path) -> impl FnOnce(io::Error) -> Self {
        let root = root.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { place: root, source }
            }
            _ => Self::Unwritable { action, root, source },
        }
    }

    /// An I/O error of writing to a folder.
    pub(crate) fn writing(place: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let place = place.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { place, source }
            }
            _ => Self::Io { path: place, source },
        }
    }

    /// An I/O error and its file.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

fn sql_is_transient(error: &sqlx::Error) -> bool {
    use sqlx::Error;
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::WorkerCrashed | Error::BeginFailed | Error::Protocol(_) => true,
        Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // SQLite counts, PostgreSQL has five letters. 5 and 6: busy, locked.
            let sqlite = code.parse::<u32>().is_ok_and(|code| code < 10_000 && matches!(code & 0xff, 5 | 6));
            // Connections that break, servers that stop or start or are full, deadlocks, what was cancelled for being slow.
            const POSTGRES: [&str; 10] =
                ["57P01", "57P02", "57P03", "57P05", "57014", "40001", "40P01", "53300", "55P03", "25P03"];
            sqlite || code.starts_with("08") || POSTGRES.contains(&code.as_ref())
        }
        _ => false,
    }
}
