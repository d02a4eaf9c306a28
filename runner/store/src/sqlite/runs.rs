//! Runs from their beginning to their end.

use super::{Sqlite, integer, json, now, rows, stamp};
use crate::{
    CancelRequest, Finish, Run, RunFilter, RunStatus, StoreError, TaskStatus, Time, live::SILENCE, records::Running,
};

impl Sqlite {
    /// Whether the id was free, or the run is recorded already by this process.
    pub(crate) async fn insert_run(&self, run: &Run, process: &str) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO runs (id, pipeline, text, params, row_limit, command, folder, host, pid, version, status,
                 started, environment, includes, process, beat, epoch)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, epoch FROM store WHERE true
             ON CONFLICT DO NOTHING",
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
        .bind(run.environment.to_string())
        .bind(json(&run.includes))
        .bind(process)
        .bind(stamp(now()))
        .execute(&mut *transaction)
        .await?;
        let own: bool = sqlx::query_scalar(
            "SELECT process = $2 AND host = $3 AND pid = $4 AND started = $5 FROM runs WHERE id = $1",
        )
        .bind(&run.id)
        .bind(process)
        .bind(&run.host)
        .bind(i64::from(run.pid))
        .bind(stamp(run.started))
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(own)
    }

    pub(crate) async fn finish(&self, run: &str, finish: &Finish, ended: Time) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
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
            // Perhaps this is the second time, because the answer to the first was lost.
            let same: Option<bool> = sqlx::query_scalar("SELECT status = $2 AND ended = $3 FROM runs WHERE id = $1")
                .bind(run)
                .bind(finish.status.as_str())
                .bind(stamp(ended))
                .fetch_optional(&mut *transaction)
                .await?;
            return if same == Some(true) { Ok(()) } else { Err(StoreError::GivenUp(run.to_owned())) };
        }
        close_run(&mut transaction, run, finish.status, finish.reason.as_deref(), ended).await?;
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

    /// Marks a run as interrupted that was seen dead, unless it has given a sign of life since.
    pub(crate) async fn bury(&self, run: &Running, ended: Time) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let buried = bury(&mut transaction, run, ended).await?;
        transaction.commit().await?;
        Ok(buried)
    }

    /// Marks a run as interrupted.
    pub(crate) async fn interrupt(&self, run: &str, ended: Time) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        interrupt(&mut transaction, run, None, ended).await?;
        Ok(transaction.commit().await?)
    }

    /// The runs that nobody has ended.
    pub(crate) async fn running(&self) -> Result<Vec<Running>, StoreError> {
        let rows = sqlx::query(
            "SELECT id AS holder, process, beat, coalesce(beat < $1, 1) AS silent FROM runs WHERE status = 'running'",
        )
        .bind(stamp(now() - SILENCE))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(rows::running).collect()
    }

    /// What the run is asked to do. With `beat`, it says that it is alive.
    pub(crate) async fn pulse(&self, run: &str, beat: bool) -> Result<Option<CancelRequest>, StoreError> {
        let found: Option<Option<String>> = if beat {
            sqlx::query_scalar("UPDATE runs SET beat = $2 WHERE id = $1 AND status = 'running' RETURNING cancel")
                .bind(run)
                .bind(stamp(now()))
                .fetch_optional(&self.pool)
                .await?
        } else {
            sqlx::query_scalar("SELECT cancel FROM runs WHERE id = $1 AND status = 'running'")
                .bind(run)
                .fetch_optional(&self.pool)
                .await?
        };
        let request = found.ok_or_else(|| StoreError::GivenUp(run.to_owned()))?;
        Ok(request.as_deref().and_then(CancelRequest::parse))
    }

    pub(crate) async fn request_cancel(&self, run: &str, how: CancelRequest) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE runs SET cancel = CASE cancel WHEN 'now' THEN 'now' ELSE $2 END
             WHERE id = $1 AND status = 'running'",
        )
        .bind(run)
        .bind(how.as_str())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn find(&self, filter: &RunFilter) -> Result<Vec<Run>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM runs WHERE ($1 IS NULL OR pipeline = $1) AND ($2 IS NULL OR status = $2)
                 AND ($3 IS NULL OR started >= $3)
             ORDER BY started DESC, rowid DESC LIMIT $4",
        )
        .bind(&filter.pipeline)
        .bind(filter.status.map(RunStatus::as_str))
        .bind(filter.since.map(stamp))
        .bind(i64::try_from(filter.limit).unwrap_or(i64::MAX))
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
}

/// See [`Sqlite::bury`].
pub(super) async fn bury(
    connection: &mut sqlx::SqliteConnection,
    run: &Running,
    ended: Time,
) -> Result<bool, StoreError> {
    interrupt(connection, &run.id, Some(run.beat), ended).await
}

/// Marks a run as interrupted, if it is running and last beat at `beat`.
async fn interrupt(
    connection: &mut sqlx::SqliteConnection,
    run: &str,
    beat: Option<Option<Time>>,
    ended: Time,
) -> Result<bool, StoreError> {
    const REASON: &str = "interrupted";
    let done = sqlx::query(
        "UPDATE runs SET status = 'failed', reason = $2, ended = $3
         WHERE id = $1 AND status = 'running' AND ($4 OR beat IS $5)",
    )
    .bind(run)
    .bind(REASON)
    .bind(stamp(ended))
    .bind(beat.is_none())
    .bind(beat.flatten().map(stamp))
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    close_run(connection, run, RunStatus::Failed, Some(REASON), ended).await?;
    Ok(true)
}

/// What is open in a run that ends.
async fn close_run(
    connection: &mut sqlx::SqliteConnection,
    run: &str,
    status: RunStatus,
    reason: Option<&str>,
    ended: Time,
) -> Result<(), StoreError> {
    let open = if status == RunStatus::Failed { TaskStatus::Failed } else { TaskStatus::Cancelled };
    sqlx::query(
        "UPDATE tasks SET status = CASE status WHEN 'running' THEN $2 ELSE 'cancelled' END,
             error = CASE status WHEN 'running' THEN $3 END, ended = $4
         WHERE run = $1 AND status IN ('waiting', 'running')",
    )
    .bind(run)
    .bind(open.as_str())
    .bind(reason)
    .bind(stamp(ended))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE stages SET status = CASE status WHEN 'running' THEN $2 ELSE 'cancelled' END,
             error = CASE status WHEN 'running' THEN $3 END
         WHERE run = $1 AND status IN ('waiting', 'running')",
    )
    .bind(run)
    .bind(open.as_str())
    .bind(reason)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM leases WHERE run = $1").bind(run).execute(connection).await?;
    Ok(())
}
