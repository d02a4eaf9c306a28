//! Rows of tables to what they mean.

use runner_contract::Digest;
use sqlx::{Row, sqlite::SqliteRow};

use crate::{
    Entry, FileRecord, FileStamp, GateRecord, Level, LogLine, Metric, Run, RunStatus, StageRecord, StoreError,
    TaskRecord, TaskStatus, Time, collect::Held, records::Running,
};

pub(super) fn run(row: &SqliteRow) -> Result<Run, StoreError> {
    Ok(Run {
        id: row.try_get("id")?,
        pipeline: row.try_get("pipeline")?,
        text: row.try_get("text")?,
        params: parsed(row, "params", "runs.params", |text| serde_json::from_str(text).ok())?,
        limit: row.try_get::<Option<i64>, _>("row_limit")?.map(natural),
        folder: row.try_get("folder")?,
        command: parsed(row, "command", "runs.command", |text| serde_json::from_str(text).ok())?,
        host: row.try_get("host")?,
        pid: row.try_get("pid")?,
        version: row.try_get("version")?,
        status: parsed(row, "status", "runs.status", RunStatus::parse)?,
        reason: row.try_get("reason")?,
        started: parsed(row, "started", "runs.started", time)?,
        ended: optional(row, "ended", "runs.ended", time)?,
        executed: natural(row.try_get("executed")?),
        cached: natural(row.try_get("cached")?),
        environment: parsed(row, "environment", "runs.environment", |text| serde_json::from_str(text).ok())?,
        includes: parsed(row, "includes", "runs.includes", |text| serde_json::from_str(text).ok())?,
    })
}

/// A run that was not ended, from the columns `holder`, `process` and `beat`; one that has not beaten since then is silent.
pub(super) fn running(row: &SqliteRow, since: Time) -> Result<Running, StoreError> {
    let beat = optional(row, "beat", "runs.beat", time)?;
    Ok(Running {
        id: row.try_get("holder")?,
        process: row.try_get("process")?,
        beat,
        silent: beat.is_none_or(|beat| beat < since),
    })
}

pub(super) fn line(row: &SqliteRow) -> Result<LogLine, StoreError> {
    Ok(LogLine {
        seq: natural(row.try_get("seq")?),
        time: parsed(row, "time", "logs.time", time)?,
        stage: row.try_get("stage")?,
        shard: row.try_get("shard")?,
        level: parsed(row, "level", "logs.level", Level::parse)?,
        text: row.try_get("text")?,
    })
}

pub(super) fn memo(row: &SqliteRow) -> Result<(FileStamp, Digest), StoreError> {
    let (path, modified) = (row.try_get("path")?, row.try_get("modified")?);
    Ok((FileStamp { path, size: natural(row.try_get("size")?), modified }, digest(row, "digest")?))
}

pub(super) fn stage(row: &SqliteRow) -> Result<StageRecord, StoreError> {
    Ok(StageRecord {
        position: row.try_get("position")?,
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

pub(super) fn task(row: &SqliteRow) -> Result<TaskRecord, StoreError> {
    Ok(TaskRecord {
        task: natural(row.try_get("task")?),
        stages: parsed(row, "stages", "tasks.stages", |text| serde_json::from_str(text).ok())?,
        shard: row.try_get("shard")?,
        attempt: row.try_get("attempt")?,
        status: parsed(row, "status", "tasks.status", TaskStatus::parse)?,
        rows: natural(row.try_get("rows")?),
        bad: natural(row.try_get("bad")?),
        started: optional(row, "started", "tasks.started", time)?,
        ended: optional(row, "ended", "tasks.ended", time)?,
        error: row.try_get("error")?,
    })
}

pub(super) fn entry(row: &SqliteRow) -> Result<Entry, StoreError> {
    Ok(Entry {
        key: digest(row, "key")?,
        digest: digest(row, "digest")?,
        rows: natural(row.try_get("rows")?),
        bytes: natural(row.try_get("bytes")?),
        bad: natural(row.try_get("bad")?),
        bad_rows: parsed(row, "bad_rows", "artifacts.bad_rows", |text| serde_json::from_str(text).ok())?,
        holds: optional(row, "holds", "artifacts.holds", |text| serde_json::from_str(text).ok())?.unwrap_or_default(),
    })
}

pub(super) fn held(row: &SqliteRow) -> Result<Held, StoreError> {
    Ok(Held {
        key: digest(row, "key")?,
        digest: digest(row, "digest")?,
        holds: optional(row, "holds", "artifacts.holds", |text| serde_json::from_str(text).ok())?,
        used: parsed(row, "used", "artifacts.used", time)?,
    })
}

pub(super) fn metric(row: &SqliteRow) -> Result<Metric, StoreError> {
    Ok(Metric {
        name: row.try_get("name")?,
        step: row.try_get::<Option<i64>, _>("step")?.map(natural),
        value: row.try_get::<Option<f64>, _>("value")?.unwrap_or(f64::NAN),
        n: row.try_get::<Option<i64>, _>("n")?.map(natural),
        n_bad: row.try_get::<Option<i64>, _>("n_bad")?.map(natural),
    })
}

pub(super) fn file(row: &SqliteRow) -> Result<FileRecord, StoreError> {
    Ok(FileRecord {
        stage: row.try_get("stage")?,
        name: row.try_get("name")?,
        digest: digest(row, "digest")?,
        bytes: natural(row.try_get("bytes")?),
    })
}

pub(super) fn gate(row: &SqliteRow) -> Result<GateRecord, StoreError> {
    Ok(GateRecord {
        name: row.try_get("name")?,
        metric: row.try_get("metric")?,
        value: row.try_get("value")?,
        min: row.try_get("min")?,
        max: row.try_get("max")?,
        passed: row.try_get("passed")?,
    })
}

pub(super) fn digest(row: &SqliteRow, column: &'static str) -> Result<Digest, StoreError> {
    parsed(row, column, column, |text| text.parse().ok())
}

fn parsed<T>(
    row: &SqliteRow,
    column: &str,
    what: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    parse(&text).ok_or(StoreError::Value { what, value: text })
}

fn optional<T>(
    row: &SqliteRow,
    column: &str,
    what: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| parse(&text).ok_or(StoreError::Value { what, value: text })).transpose()
}

pub(super) fn time(text: &str) -> Option<Time> {
    Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

fn natural(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
