//! Where runs leave what they made: [`Artifacts`] by content, [`Records`] of what happened.
//!
//! A store is a folder, made on first use: `records.sqlite`, `artifacts/ab/cdef…`, `locks/`. Its records may be in PostgreSQL
//! and its artifacts in S3 instead, each by itself ([`Place`]). Several processes may have it open and write at once, on several
//! machines where it is reached from there; any of them may be killed at any moment.

mod artifacts;
mod claim;
mod collect;
mod error;
mod guard;
mod live;
mod locks;
mod migrations;
mod model;
mod place;
mod postgres;
mod process;
mod records;
mod rows;
mod sqlite;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use artifacts::{Artifacts, BucketFolder, BucketObject, Buckets};
pub use claim::{Claim, Claimed};
pub use collect::{Collect, Collected};
pub use error::StoreError;
pub use guard::{Call, Faults, Moment};
pub use live::LiveRun;
pub use model::{
    BAD_ROWS_KEPT, BadRow, CancelRequest, Entry, FileRecord, FileStamp, Finish, GateRecord, Level, LogLine, Metric,
    NewRun, RecordsProbe, Run, RunFilter, RunStatus, StageRecord, TaskRecord, TaskStatus, Time,
};
pub use place::{ArtifactsPlace, Place, redacted};
pub use records::Records;

/// An opened store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    place: Place,
    artifacts: Artifacts,
    records: Records,
}

impl Store {
    /// Opens the store in the folder `root`, which is made if it is not there: SQLite and files.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_at(&Place::folder(root)).await
    }

    /// Opens a store, which is made if it is not there.
    ///
    /// Runs whose process is gone become `failed` with the reason `interrupted`; what they left half-written is removed.
    /// Fails on a folder of other things, a store of a newer version, or a damaged database, and says which.
    pub async fn open_at(place: &Place) -> Result<Self, StoreError> {
        let root = &place.folder;
        // One opener at a time uses the folder for the first time, makes tables there and cleans up. A server sees to that itself.
        let opening = locks::Opening::start(root).await?;
        let (using, alone) = (opening.using(), opening.alone());
        let opening = if place.records.is_some() { opening.finish().map(|()| None)? } else { Some(opening) };
        let artifacts = match &place.artifacts {
            Some(place) => Artifacts::open(place).await?.with_cache(&root.join("cache"))?,
            None => Artifacts::local(&root.join("artifacts"))?,
        };
        let records = Records::open(place, artifacts.clone(), using).await?;
        let interrupted = records.mark_interrupted().await?;
        if let Some(opening) = opening {
            if interrupted > 0 && alone && place.artifacts.is_none() {
                artifacts.leftovers(chrono::Utc::now(), true).await?;
            }
            opening.finish()?;
        }
        Ok(Self { place: place.clone(), artifacts, records })
    }

    /// Whether a store is there, so that a command that only reads need not make one.
    pub fn exists(root: &Path) -> bool {
        root.join(records::DATABASE).is_file()
    }

    /// Whether a store is there; records elsewhere are taken to be.
    pub fn exists_at(place: &Place) -> bool {
        place.records.is_some() || Self::exists(&place.folder)
    }

    /// The same store, whose calls fail where `faults` says so and are tried again for so long. For tests.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults, patience: Duration) -> Self {
        self.artifacts.guard.faults = Some(faults);
        self.artifacts.guard.patience = patience;
        self.records.guard.faults = self.artifacts.guard.faults.clone();
        self.records.guard.patience = patience;
        self.records.artifacts = self.artifacts.clone();
        self
    }

    /// The same store, whose records have so long for an answer, and so long for another try. The default is 30 s for each.
    #[must_use]
    pub fn with_patience(mut self, answer: Duration, patience: Duration) -> Self {
        self.records.guard.limit = answer;
        self.records.guard.patience = patience;
        self
    }

    /// Waits until nothing is being written any more and gives the database back. Not needed for what is committed.
    pub async fn close(self) {
        self.records.close().await;
    }

    /// The folder of what is not elsewhere.
    pub fn root(&self) -> &Path {
        &self.place.folder
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
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
