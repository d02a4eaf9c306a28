//! Rows of tables to what they mean, whatever database they come from.

use runner_contract::Digest;
use serde::de::DeserializeOwned;

use crate::{
    Entry, FileRecord, FileStamp, GateRecord, Level, LogLine, Metric, Run, RunStatus, StageRecord, StoreError,
    TaskRecord, TaskStatus, Time, collect::Held, records::Running,
};

/// The columns of a row, by name. Each database keeps times and JSON in its own way.
pub(crate) trait Columns {
    fn text(&self, column: &str) -> Result<Option<String>, StoreError>;
    fn integer(&self, column: &str) -> Result<Option<i64>, StoreError>;
    fn real(&self, column: &str) -> Result<Option<f64>, StoreError>;
    fn boolean(&self, column: &str) -> Result<bool, StoreError>;
    fn time(&self, column: &'static str) -> Result<Option<Time>, StoreError>;
    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError>;
}

/// What [`Columns`] say in the same words for every database.
macro_rules! plain_columns {
    () => {
        fn text(&self, column: &str) -> Result<Option<String>, StoreError> {
            Ok(self.try_get(column)?)
        }
        fn integer(&self, column: &str) -> Result<Option<i64>, StoreError> {
            Ok(self.try_get(column)?)
        }
        fn real(&self, column: &str) -> Result<Option<f64>, StoreError> {
            Ok(self.try_get(column)?)
        }
        fn boolean(&self, column: &str) -> Result<bool, StoreError> {
            Ok(self.try_get(column)?)
        }
    };
}
pub(crate) use plain_columns;

pub(crate) fn run(row: &impl Columns) -> Result<Run, StoreError> {
    Ok(Run {
        id: text(row, "id")?,
        pipeline: text(row, "pipeline")?,
        text: text(row, "text")?,
        params: json(row, "params")?,
        limit: row.integer("row_limit")?.map(natural),
        folder: text(row, "folder")?,
        command: json(row, "command")?,
        host: text(row, "host")?,
        pid: small(row, "pid")?,
        version: text(row, "version")?,
        status: parsed(row, "status", "runs.status", RunStatus::parse)?,
        reason: row.text("reason")?,
        started: time(row, "started")?,
        ended: row.time("ended")?,
        executed: count(row, "executed")?,
        cached: count(row, "cached")?,
        environment: json(row, "environment")?,
        includes: json(row, "includes")?,
    })
}

/// A run that was not ended, from the columns `holder`, `process`, `beat` and `silent`.
pub(crate) fn running(row: &impl Columns) -> Result<Running, StoreError> {
    Ok(Running {
        id: text(row, "holder")?,
        process: text(row, "process")?,
        beat: row.time("beat")?,
        silent: row.boolean("silent")?,
    })
}

pub(crate) fn line(row: &impl Columns) -> Result<LogLine, StoreError> {
    Ok(LogLine {
        seq: count(row, "seq")?,
        time: time(row, "time")?,
        stage: row.text("stage")?,
        shard: shard(row)?,
        level: parsed(row, "level", "logs.level", Level::parse)?,
        text: text(row, "text")?,
    })
}

pub(crate) fn memo(row: &impl Columns) -> Result<(FileStamp, Digest), StoreError> {
    let modified = some(row.integer("modified")?, "modified")?;
    let stamp = FileStamp { path: text(row, "path")?, size: count(row, "size")?, modified };
    Ok((stamp, digest(row, "digest")?))
}

pub(crate) fn stage(row: &impl Columns) -> Result<StageRecord, StoreError> {
    Ok(StageRecord {
        position: small(row, "position")?,
        name: text(row, "name")?,
        kind: text(row, "kind")?,
        status: parsed(row, "status", "stages.status", TaskStatus::parse)?,
        executed: count(row, "executed")?,
        cached: count(row, "cached")?,
        rows: count(row, "rows")?,
        bad: count(row, "bad")?,
        seconds: some(row.real("seconds")?, "seconds")?,
        wall: some(row.real("wall")?, "wall")?,
        manifest: optional_digest(row, "manifest")?,
        error: row.text("error")?,
    })
}

pub(crate) fn task(row: &impl Columns) -> Result<TaskRecord, StoreError> {
    Ok(TaskRecord {
        task: count(row, "task")?,
        stages: json(row, "stages")?,
        shard: shard(row)?,
        attempt: small(row, "attempt")?,
        status: parsed(row, "status", "tasks.status", TaskStatus::parse)?,
        rows: count(row, "rows")?,
        bad: count(row, "bad")?,
        started: row.time("started")?,
        ended: row.time("ended")?,
        error: row.text("error")?,
    })
}

pub(crate) fn entry(row: &impl Columns) -> Result<Entry, StoreError> {
    Ok(Entry {
        key: digest(row, "key")?,
        digest: digest(row, "digest")?,
        rows: count(row, "rows")?,
        bytes: count(row, "bytes")?,
        bad: count(row, "bad")?,
        bad_rows: json(row, "bad_rows")?,
        holds: row.json("holds")?.unwrap_or_default(),
    })
}

pub(crate) fn held(row: &impl Columns) -> Result<Held, StoreError> {
    Ok(Held {
        key: digest(row, "key")?,
        digest: digest(row, "digest")?,
        holds: row.json("holds")?,
        used: time(row, "used")?,
    })
}

pub(crate) fn metric(row: &impl Columns) -> Result<Metric, StoreError> {
    Ok(Metric {
        name: text(row, "name")?,
        step: row.integer("step")?.map(natural),
        // SQLite has no number that is none.
        value: row.real("value")?.unwrap_or(f64::NAN),
        n: row.integer("n")?.map(natural),
        n_bad: row.integer("n_bad")?.map(natural),
    })
}

pub(crate) fn file(row: &impl Columns) -> Result<FileRecord, StoreError> {
    Ok(FileRecord {
        stage: text(row, "stage")?,
        name: text(row, "name")?,
        digest: digest(row, "digest")?,
        bytes: count(row, "bytes")?,
    })
}

pub(crate) fn gate(row: &impl Columns) -> Result<GateRecord, StoreError> {
    Ok(GateRecord {
        name: text(row, "name")?,
        metric: text(row, "metric")?,
        value: row.real("value")?,
        min: row.real("min")?,
        max: row.real("max")?,
        passed: row.boolean("passed")?,
    })
}

pub(crate) fn digest(row: &impl Columns, column: &'static str) -> Result<Digest, StoreError> {
    some(optional_digest(row, column)?, column)
}

fn optional_digest(row: &impl Columns, column: &'static str) -> Result<Option<Digest>, StoreError> {
    let text = row.text(column)?;
    text.map(|text| text.parse().map_err(|_| StoreError::Value { what: column, value: text })).transpose()
}

fn some<T>(value: Option<T>, what: &'static str) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::Value { what, value: "NULL".to_owned() })
}

fn text(row: &impl Columns, column: &'static str) -> Result<String, StoreError> {
    some(row.text(column)?, column)
}

fn time(row: &impl Columns, column: &'static str) -> Result<Time, StoreError> {
    some(row.time(column)?, column)
}

fn json<T: DeserializeOwned>(row: &impl Columns, column: &'static str) -> Result<T, StoreError> {
    some(row.json(column)?, column)
}

fn parsed<T>(
    row: &impl Columns,
    column: &'static str,
    what: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let text = text(row, column)?;
    parse(&text).ok_or(StoreError::Value { what, value: text })
}

fn count(row: &impl Columns, column: &'static str) -> Result<u64, StoreError> {
    Ok(natural(some(row.integer(column)?, column)?))
}

fn shard(row: &impl Columns) -> Result<Option<u32>, StoreError> {
    row.integer("shard")?.map(|value| narrow(value, "shard")).transpose()
}

fn small(row: &impl Columns, column: &'static str) -> Result<u32, StoreError> {
    narrow(some(row.integer(column)?, column)?, column)
}

fn narrow(value: i64, what: &'static str) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::Value { what, value: value.to_string() })
}

fn natural(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
