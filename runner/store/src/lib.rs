//! Where runs leave what they made: [`Artifacts`] by content, [`Records`] of what happened.
//!
//! A store is a folder, made on first use: `records.sqlite`, `artifacts/ab/cdef…`, `locks/`. Several processes may have it
//! open and write at once; any of them may be killed at any moment.

mod artifacts;
mod error;
mod locks;
mod migrations;
mod model;
mod records;
mod sqlite;

use std::path::{Path, PathBuf};

pub use artifacts::Artifacts;
pub use error::StoreError;
pub use locks::LiveRun;
pub use model::{
    BAD_ROWS_KEPT, BadRow, Entry, FileRecord, Finish, GateRecord, Metric, NewRun, Run, RunStatus, StageRecord,
    TaskRecord, TaskStatus, Time,
};
pub use records::Records;

/// An opened store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    artifacts: Artifacts,
    records: Records,
}

impl Store {
    /// Opens the store in the folder `root`, which is made if it is not there.
    ///
    /// Runs whose process is gone become `failed` with the reason `interrupted`; what they left half-written is removed.
    /// Fails on a folder of other things, a store of a newer version, or a damaged database, and says which.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        // One opener at a time makes tables, marks dead runs and cleans up.
        let opening = locks::Opening::start(&root)?;
        let artifacts = Artifacts::local(&root.join("artifacts"))?;
        let records = Records::open(&root, opening.using()).await?;
        let interrupted = records.mark_interrupted().await?;
        if interrupted > 0 && opening.alone() {
            artifacts.remove_leftovers()?;
        }
        opening.finish()?;
        Ok(Self { root, artifacts, records })
    }

    /// Whether a store is there, so that a command that only reads need not make one.
    pub fn exists(root: &Path) -> bool {
        root.join(records::DATABASE).is_file()
    }

    /// Waits until nothing is being written any more and gives the database back. Not needed for what is committed.
    pub async fn close(self) {
        self.records.close().await;
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The blobs.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The tables.
    pub fn records(&self) -> &Records {
        &self.records
    }
}
