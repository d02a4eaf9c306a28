//! Rows of tables to what they mean.

use runner_contract::Digest;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{Row, postgres::PgRow};

use crate::{
    Entry, FileRecord, FileStamp, GateRecord, Level, LogLine, Metric, Run, RunStatus, StageRecord, StoreError,
    TaskRecord, TaskStatus, collect::Held, records::Running,
};

pub(super) fn run(row: &PgRow) -> Result<Run, StoreError> {
    Ok(Run {
        id: row.try_get("id")?,
        pipeline: row.try_get("pipeline")?,
        text: row.try_get("text")?,
        params: json(row, "params", "runs.params")?,
        limit: row.try_get::<Option<i64>, _>("row_limit")?.map(natural),
        folder: row.try_get("folder")?,
        command: json(row, "command", "runs.command")?,
        host: row.try_get("host")?,
        pid: unsigned(row, "pid")?,
        version: row.try_get("version")?,
        status: parsed(row, "status", "runs.status", RunStatus::parse)?,
        reason: row.try_get("reason")?,
        started: row.try_get("started")?,
        ended: row.try_get("ended")?,
        executed: natural(row.try_get("executed")?),
        cached: natural(row.try_get("cached")?),
        environment: json(row, "environment", "runs.environment")?,
        includes: json(row, "includes", "runs.includes")?,
    })
}

/// A run that was not ended, from the columns `holder`, `process`, `beat` and `silent`.
pub(super) fn running(row: &PgRow) -> Result<Running, StoreError> {
    Ok(Running {
        id: row.try_get("holder")?,
        process: row.try_get("process")?,
        beat: row.try_get("beat")?,
        silent: row.try_get("silent")?,
    })
}

pub(super) fn line(row: &PgRow) -> Result<LogLine, StoreError> {
    Ok(LogLine {
        seq: natural(row.try_get("seq")?),
        time: row.try_get("time")?,
        stage: row.try_get("stage")?,
        shard: row.try_get::<Option<i64>, _>("shard")?.map(|shard| u32::try_from(shard).unwrap_or(0)),
        level: parsed(row, "level", "logs.level", Level::parse)?,
        text: row.try_get("text")?,
    })
}

pub(super) fn memo(row: &PgRow) -> Result<(FileStamp, Digest), StoreError> {
    let (path, modified) = (row.try_get("path")?, row.try_get("modified")?);
    Ok((FileStamp { path, size: natural(row.try_get("size")?), modified }, digest(row, "digest")?))
}

pub(super) fn stage(row: &PgRow) -> Result<StageRecord, StoreError> {
    Ok(StageRecord {
        position: unsigned(row, "position")?,
        name: row.try_get("name")?,
        kind: row.try_get("kind")?,
        status: parsed(row, "status", "stages.status", TaskStatus::parse)?,
        executed: natural(row.try_get("executed")?),
        cached: natural(row.try_get("cached")?),
        rows: natural(row.try_get("rows")?),
        bad: natural(row.try_get("bad")?),
        seconds: row.try_get("seconds")?,
        wall: row.try_get("wall")?,
        manifest: optional(row, "manifest", "stages.manifest", |text| text.parse().ok())?,
        error: row.try_get("error")?,
    })
}

pub(super) fn task(row: &PgRow) -> Result<TaskRecord, StoreError> {
    Ok(TaskRecord {
        task: natural(row.try_get("task")?),
        stages: json(row, "stages", "tasks.stages")?,
        shard: row.try_get::<Option<i64>, _>("shard")?.map(|shard| u32::try_from(shard).unwrap_or(0)),
        attempt: unsigned(row, "attempt")?,
        status: parsed(row, "status", "tasks.status", TaskStatus::parse)?,
        rows: natural(row.try_get("rows")?),
        bad: natural(row.try_get("bad")?),
        started: row.try_get("started")?,
        ended: row.try_get("ended")?,
        error: row.try_get("error")?,
    })
}

pub(super) fn entry(row: &PgRow) -> Result<Entry, StoreError> {
    Ok(Entry {
        key: digest(row, "key")?,
        digest: digest(row, "digest")?,
        rows: natural(row.try_get("rows")?),
        bytes: natural(row.try_get("bytes")?),
        bad: natural(row.try_get("bad")?),
        bad_rows: json(row, "bad_rows", "artifacts.bad_rows")?,
        holds: json(row, "holds", "artifacts.holds")?,
    })
}

pub(super) fn held(row: &PgRow) -> Result<Held, StoreError> {
    Ok(Held {
        key: digest(row, "key")?,
        digest: digest(row, "digest")?,
        holds: Some(json(row, "holds", "artifacts.holds")?),
        used: row.try_get("used")?,
    })
}

pub(super) fn metric(row: &PgRow) -> Result<Metric, StoreError> {
    Ok(Metric {
        name: row.try_get("name")?,
        step: row.try_get::<Option<i64>, _>("step")?.map(natural),
        value: row.try_get("value")?,
        n: row.try_get::<Option<i64>, _>("n")?.map(natural),
        n_bad: row.try_get::<Option<i64>, _>("n_bad")?.map(natural),
    })
}

pub(super) fn file(row: &PgRow) -> Result<FileRecord, StoreError> {
    Ok(FileRecord {
        stage: row.try_get("stage")?,
        name: row.try_get("name")?,
        digest: digest(row, "digest")?,
        bytes: natural(row.try_get("bytes")?),
    })
}

pub(super) fn gate(row: &PgRow) -> Result<GateRecord, StoreError> {
    Ok(GateRecord {
        name: row.try_get("name")?,
        metric: row.try_get("metric")?,
        value: row.try_get("value")?,
        min: row.try_get("min")?,
        max: row.try_get("max")?,
        passed: row.try_get("passed")?,
    })
}

pub(super) fn digest(row: &PgRow, column: &'static str) -> Result<Digest, StoreError> {
    parsed(row, column, column, |text| text.parse().ok())
}

fn parsed<T>(
    row: &PgRow,
    column: &str,
    what: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    parse(&text).ok_or(StoreError::Value { what, value: text })
}

fn optional<T>(
    row: &PgRow,
    column: &str,
    what: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| parse(&text).ok_or(StoreError::Value { what, value: text })).transpose()
}

/// A column of JSON.
fn json<T: DeserializeOwned>(row: &PgRow, column: &str, what: &'static str) -> Result<T, StoreError> {
    let value: Value = row.try_get(column)?;
    serde_json::from_value(value.clone()).map_err(|_| StoreError::Value { what, value: value.to_string() })
}

fn unsigned(row: &PgRow, column: &str) -> Result<u32, StoreError> {
    Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

fn natural(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
