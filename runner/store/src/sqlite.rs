//! The records in SQLite: all of its SQL.

use std::{collections::HashMap, path::Path, time::Duration};

use chrono::SecondsFormat;
use runner_contract::Digest;
use sqlx::{
    QueryBuilder, SqliteConnection, SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

mod rows;

use crate::{
    BAD_ROWS_KEPT, Entry, FileRecord, Finish, GateRecord, Metric, Run, RunStatus, StageRecord, StoreError, TaskRecord,
    TaskStatus, Time, migrations,
};

/// Rows in one statement; times columns below SQLite's limit of 32,766 values.
const ROWS: usize = 1_000;

#[derive(Clone, Debug)]
pub(crate) struct Sqlite {
    pool: SqlitePool,
}

type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;

impl Sqlite {
    /// Opens or makes the database and brings its tables up to date. One process at a time.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // With the write-ahead log, NORMAL loses at most the last transactions to a power failure, none to a kill.
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(60));
        let in_words = |error| damaged(path, error);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(in_words)?;
        migrations::sqlite().run(&pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(migration) | MigrateError::VersionTooNew(migration, _) => {
                StoreError::Newer { path: path.to_owned(), migration }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => damaged(path, error),
            other => StoreError::Damaged { path: path.to_owned(), reason: other.to_string() },
        })?;
        Ok(Self { pool })
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// A transaction that will write. Taking the write lock at once means waiting for it instead of failing later.
    async fn write(&self) -> Result<Transaction, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    // ---------------------------------------------------------------------------------------------------------- runs

    /// Whether the id was free.
    pub(crate) async fn insert_run(&self, run: &Run) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO runs (id, pipeline, text, params, row_limit, command, folder, host, pid, version, status, started)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
        )
        .bind(&run.id)
        .bind(&run.pipeline)
        .bind(&run.text)
        .bind(run.params.to_string())
        .bind(run.limit.map(integer))
        .bind(json(&run.command))
        .bind(&run.folder)
        .bind(&run.host)
        .bind(i64::from(run.pid))
        .bind(&run.version)
        .bind(run.status.as_str())
        .bind(stamp(run.started))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn finish(&self, run: &str, finish: &Finish, ended: Time) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let open = if finish.status == RunStatus::Failed { TaskStatus::Failed } else { TaskStatus::Cancelled };
        let done = sqlx::query(
            "UPDATE runs SET status = $2, reason = $3, executed = max(executed, $4), cached = max(cached, $5), ended = $6
             WHERE id = $1 AND status = 'running'",
        )
        .bind(run)
        .bind(finish.status.as_str())
        .bind(&finish.reason)
        .bind(integer(finish.executed))
        .bind(integer(finish.cached))
        .bind(stamp(ended))
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(());
        }
        sqlx::query(
            "UPDATE tasks SET status = CASE status WHEN 'running' THEN $2 ELSE 'cancelled' END,
                 error = CASE status WHEN 'running' THEN $3 END, ended = $4
             WHERE run = $1 AND status IN ('waiting', 'running')",
        )
        .bind(run)
        .bind(open.as_str())
        .bind(&finish.reason)
        .bind(stamp(ended))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE stages SET status = CASE status WHEN 'running' THEN $2 ELSE 'cancelled' END,
                 error = CASE status WHEN 'running' THEN $3 END
             WHERE run = $1 AND status IN ('waiting', 'running')",
        )
        .bind(run)
        .bind(open.as_str())
        .bind(&finish.reason)
        .execute(&mut *transaction)
        .await?;
        for gate in &finish.gates {
            sqlx::query(
                "INSERT INTO gates (run, name, metric, value, min, max, passed) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(run)
            .bind(&gate.name)
            .bind(&gate.metric)
            .bind(gate.value)
            .bind(gate.min)
            .bind(gate.max)
            .bind(gate.passed)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The runs that nobody has ended.
    pub(crate) async fn running(&self) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar("SELECT id FROM runs WHERE status = 'running'").fetch_all(&self.pool).await?)
    }

    pub(crate) async fn runs(&self, limit: usize) -> Result<Vec<Run>, StoreError> {
        let rows = sqlx::query("SELECT * FROM runs ORDER BY started DESC, rowid DESC LIMIT $1")
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rows::run).collect()
    }

    /// The runs whose id is `part`, or if there is none, begins or ends with it. At most five.
    pub(crate) async fn runs_like(&self, part: &str) -> Result<Vec<Run>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM runs WHERE id = $1 OR ((id LIKE $1 || '%' OR id LIKE '%' || $1)
                 AND NOT EXISTS (SELECT 1 FROM runs WHERE id = $1)) ORDER BY id LIMIT 5",
        )
        .bind(part)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(rows::run).collect()
    }

    // ---------------------------------------------------------------------------------------------- parts of a run

    pub(crate) async fn put_stages(&self, run: &str, stages: &[StageRecord]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for chunk in stages.chunks(ROWS) {
            let mut query = QueryBuilder::new(
                "INSERT OR REPLACE INTO stages
                 (run, position, name, kind, status, executed, cached, rows, bad, seconds, wall, manifest, error) ",
            );
            query.push_values(chunk, |mut row, stage| {
                row.push_bind(run)
                    .push_bind(i64::from(stage.position))
                    .push_bind(&stage.name)
                    .push_bind(&stage.kind)
                    .push_bind(stage.status.as_str())
                    .push_bind(integer(stage.executed))
                    .push_bind(integer(stage.cached))
                    .push_bind(integer(stage.rows))
                    .push_bind(integer(stage.bad))
                    .push_bind(stage.seconds)
                    .push_bind(stage.wall)
                    .push_bind(stage.manifest.map(|digest| digest.to_string()))
                    .push_bind(&stage.error);
            });
            query.build().execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Tasks, and what they made.
    pub(crate) async fn commit(&self, run: &str, tasks: &[TaskRecord], made: &[Entry]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for chunk in tasks.chunks(ROWS) {
            put_tasks(&mut transaction, run, chunk).await?;
        }
        for chunk in made.chunks(ROWS) {
            put_entries(&mut transaction, run, chunk).await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn put_metrics(&self, run: &str, metrics: &[Metric]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for chunk in metrics.chunks(ROWS) {
            let mut query = QueryBuilder::new("INSERT OR REPLACE INTO metrics (run, name, step, value, n, n_bad) ");
            query.push_values(chunk, |mut row, metric| {
                row.push_bind(run)
                    .push_bind(&metric.name)
                    .push_bind(metric.step.map(integer))
                    .push_bind((!metric.value.is_nan()).then_some(metric.value))
                    .push_bind(metric.n.map(integer))
                    .push_bind(metric.n_bad.map(integer));
            });
            query.build().execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn put_files(&self, run: &str, files: &[FileRecord]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for chunk in files.chunks(ROWS) {
            let mut query = QueryBuilder::new("INSERT OR REPLACE INTO files (run, stage, name, digest, bytes) ");
            query.push_values(chunk, |mut row, file| {
                row.push_bind(run)
                    .push_bind(&file.stage)
                    .push_bind(&file.name)
                    .push_bind(file.digest.to_string())
                    .push_bind(integer(file.bytes));
            });
            query.build().execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn stages(&self, run: &str) -> Result<Vec<StageRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM stages WHERE run = $1 ORDER BY position, name")
            .bind(run)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rows::stage).collect()
    }

    pub(crate) async fn tasks(&self, run: &str) -> Result<Vec<TaskRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM tasks WHERE run = $1 ORDER BY task").bind(run).fetch_all(&self.pool).await?;
        rows.iter().map(rows::task).collect()
    }

    pub(crate) async fn metrics(&self, run: &str, series: bool) -> Result<Vec<Metric>, StoreError> {
        let rows = sqlx::query("SELECT * FROM metrics WHERE run = $1 AND (step IS NOT NULL) = $2 ORDER BY name, step")
            .bind(run)
            .bind(series)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rows::metric).collect()
    }

    pub(crate) async fn files(&self, run: &str) -> Result<Vec<FileRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM files WHERE run = $1 ORDER BY stage, name")
            .bind(run)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rows::file).collect()
    }

    pub(crate) async fn gates(&self, run: &str) -> Result<Vec<GateRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM gates WHERE run = $1 ORDER BY name").bind(run).fetch_all(&self.pool).await?;
        rows.iter().map(rows::gate).collect()
    }

    // --------------------------------------------------------------------------------------------------------- cache

    pub(crate) async fn lookup(&self, keys: &[Digest]) -> Result<HashMap<Digest, Entry>, StoreError> {
        let rows = sqlx::query("SELECT a.* FROM json_each($1) AS k JOIN artifacts AS a ON a.key = k.value")
            .bind(json(&keys))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| rows::entry(row).map(|entry| (entry.key, entry))).collect()
    }

    pub(crate) async fn forget(&self, keys: &[Digest]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM artifacts WHERE key IN (SELECT value FROM json_each($1))")
            .bind(json(&keys))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(crate) async fn checkpoint(&self, key: &Digest) -> Result<Option<Digest>, StoreError> {
        let row = sqlx::query("SELECT digest FROM checkpoints WHERE key = $1")
            .bind(key.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(|row| rows::digest(row, "digest")).transpose()
    }

    pub(crate) async fn set_checkpoint(
        &self,
        key: &Digest,
        checkpoint: Option<&Digest>,
        now: Time,
    ) -> Result<Option<Digest>, StoreError> {
        let mut transaction = self.write().await?;
        let old = sqlx::query("DELETE FROM checkpoints WHERE key = $1 RETURNING digest")
            .bind(key.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(checkpoint) = checkpoint {
            sqlx::query("INSERT INTO checkpoints (key, digest, updated) VALUES ($1, $2, $3)")
                .bind(key.to_string())
                .bind(checkpoint.to_string())
                .bind(stamp(now))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        let old = old.as_ref().map(|row| rows::digest(row, "digest")).transpose()?;
        Ok(old.filter(|old| Some(old) != checkpoint))
    }

    pub(crate) async fn memo(&self, path: &str, size: u64, modified: i64) -> Result<Option<Digest>, StoreError> {
        let row = sqlx::query("SELECT digest FROM memos WHERE path = $1 AND size = $2 AND modified = $3")
            .bind(path)
            .bind(integer(size))
            .bind(modified)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(|row| rows::digest(row, "digest")).transpose()
    }

    pub(crate) async fn set_memo(
        &self,
        path: &str,
        size: u64,
        modified: i64,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT OR REPLACE INTO memos (path, size, modified, digest) VALUES ($1, $2, $3, $4)")
            .bind(path)
            .bind(integer(size))
            .bind(modified)
            .bind(digest.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

async fn put_tasks(connection: &mut SqliteConnection, run: &str, tasks: &[TaskRecord]) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new(
        "INSERT OR REPLACE INTO tasks (run, task, stages, shard, status, rows, bad, started, ended, error) ",
    );
    query.push_values(tasks, |mut row, task| {
        row.push_bind(run)
            .push_bind(integer(task.task))
            .push_bind(json(&task.stages))
            .push_bind(task.shard.map(i64::from))
            .push_bind(task.status.as_str())
            .push_bind(integer(task.rows))
            .push_bind(integer(task.bad))
            .push_bind(task.started.map(stamp))
            .push_bind(task.ended.map(stamp))
            .push_bind(&task.error);
    });
    query.build().execute(connection).await?;
    Ok(())
}

async fn put_entries(connection: &mut SqliteConnection, run: &str, made: &[Entry]) -> Result<(), StoreError> {
    let now = stamp(chrono::Utc::now());
    let mut query =
        QueryBuilder::new("INSERT OR REPLACE INTO artifacts (key, digest, rows, bytes, bad, bad_rows, run, created) ");
    query.push_values(made, |mut row, entry| {
        row.push_bind(entry.key.to_string())
            .push_bind(entry.digest.to_string())
            .push_bind(integer(entry.rows))
            .push_bind(integer(entry.bytes))
            .push_bind(integer(entry.bad))
            .push_bind(json(&entry.bad_rows.iter().take(BAD_ROWS_KEPT).collect::<Vec<_>>()))
            .push_bind(run)
            .push_bind(now.clone());
    });
    query.build().execute(connection).await?;
    Ok(())
}

fn stamp(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn json(value: &impl serde::Serialize) -> String {
    // Strings, lists and structs of strings cannot fail to be JSON.
    serde_json::to_string(value).unwrap_or_default()
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Tells damage from other failures: `SQLITE_CORRUPT` is 11, `SQLITE_NOTADB` 26, with details in higher bits.
fn damaged(path: &Path, error: sqlx::Error) -> StoreError {
    let code = match &error {
        sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0) & 0xff,
        _ => 0,
    };
    match code {
        11 | 26 => StoreError::Damaged { path: path.to_owned(), reason: error.to_string() },
        _ => StoreError::Sql(error),
    }
}
