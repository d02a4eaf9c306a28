//! Runs from their beginning to their end.

use sqlx::PgConnection;

use super::{Postgres, by_key, integer, json, rows, text};
use crate::{
    CancelRequest, Finish, Run, RunFilter, RunStatus, StoreError, TaskStatus, Time, live::SILENCE, records::Running,
};

impl Postgres {
    /// Whether the id was free, or the run is recorded already by this process.
    pub(crate) async fn insert_run(&self, run: &Run, process: &str) -> Result<bool, StoreError> {
        let mut transaction = self.begin(&self.shared).await?;
        sqlx::query(
            "INSERT INTO runs (id, pipeline, text, params, row_limit, command, folder, host, pid, version, status,
                 started, environment, includes, process, beat, epoch)
             SELECT $1, $2, $3, $4::json, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, now(), epoch FROM store
             ON CONFLICT DO NOTHING",
        )
        .bind(&run.id)
        .bind(text(&run.pipeline))
        .bind(text(&run.text))
        .bind(text(&run.params.to_string()))
        .bind(run.limit.map(integer))
        .bind(json(&run.command))
        .bind(text(&run.folder))
        .bind(text(&run.host))
        .bind(i64::from(run.pid))
        .bind(&run.version)
        .bind(run.status.as_str())
        .bind(run.started)
        .bind(json(&run.environment))
        .bind(json(&run.includes))
        .bind(process)
        .execute(&mut *transaction)
        .await?;
        let own: bool = sqlx::query_scalar(
            "SELECT process = $2 AND host = $3 AND pid = $4 AND started = $5 FROM runs WHERE id = $1",
        )
        .bind(&run.id)
        .bind(process)
        .bind(text(&run.host))
        .bind(i64::from(run.pid))
        .bind(run.started)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(own)
    }

    pub(crate) async fn finish(&self, run: &str, finish: &Finish, ended: Time) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        let reason = finish.reason.as_deref().map(text);
        let done = sqlx::query(
            "UPDATE runs SET status = $2, reason = $3, executed = greatest(executed, $4),
                 cached = greatest(cached, $5), ended = $6
             WHERE id = $1 AND status = 'running'",
        )
        .bind(run)
        .bind(finish.status.as_str())
        .bind(&reason)
        .bind(integer(finish.executed))
        .bind(integer(finish.cached))
        .bind(ended)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            // Perhaps this is the second time, because the answer to the first was lost.
            let same: Option<bool> = sqlx::query_scalar("SELECT status = $2 AND ended = $3 FROM runs WHERE id = $1")
                .bind(run)
                .bind(finish.status.as_str())
                .bind(ended)
                .fetch_optional(&mut *transaction)
                .await?;
            return if same == Some(true) { Ok(()) } else { Err(StoreError::GivenUp(run.to_owned())) };
        }
        close_run(&mut transaction, run, finish.status, reason.as_deref(), ended).await?;
        for gate in by_key(&finish.gates, |gate| &gate.name) {
            sqlx::query(
                "INSERT INTO gates (run, name, metric, value, min, max, passed) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(run)
            .bind(text(&gate.name))
            .bind(text(&gate.metric))
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
        self.end_as_interrupted(&run.id, run.beat, ended).await
    }

    /// Marks a run as interrupted.
    pub(crate) async fn interrupt(&self, run: &str, ended: Time) -> Result<(), StoreError> {
        self.end_as_interrupted(run, None, ended).await?;
        Ok(())
    }

    /// If it is running and has not beaten since `beat`.
    async fn end_as_interrupted(&self, run: &str, beat: Option<Time>, ended: Time) -> Result<bool, StoreError> {
        const REASON: &str = "interrupted";
        let mut transaction = self.pool().begin().await?;
        let done = sqlx::query(
            "UPDATE runs SET status = 'failed', reason = $2, ended = $3
             WHERE id = $1 AND status = 'running' AND ($4::timestamptz IS NULL OR beat = $4)",
        )
        .bind(run)
        .bind(REASON)
        .bind(ended)
        .bind(beat)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        close_run(&mut transaction, run, RunStatus::Failed, Some(REASON), ended).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The runs that nobody has ended.
    pub(crate) async fn running(&self) -> Result<Vec<Running>, StoreError> {
        let rows = sqlx::query(
            "SELECT id AS holder, process, beat, beat < now() - make_interval(secs => $1) AS silent
             FROM runs WHERE status = 'running'",
        )
        .bind(SILENCE.as_secs_f64())
        .fetch_all(&self.pool())
        .await?;
        rows.iter().map(rows::running).collect()
    }

    /// What the run is asked to do. With `beat`, it says that it is alive.
    pub(crate) async fn pulse(&self, run: &str, beat: bool) -> Result<Option<CancelRequest>, StoreError> {
        let statement = if beat {
            "UPDATE runs SET beat = now() WHERE id = $1 AND status = 'running' RETURNING cancel"
        } else {
            "SELECT cancel FROM runs WHERE id = $1 AND status = 'running'"
        };
        let found: Option<Option<String>> =
            sqlx::query_scalar(statement).bind(run).fetch_optional(&self.pool()).await?;
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
        .execute(&self.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn find(&self, filter: &RunFilter) -> Result<Vec<Run>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM runs WHERE ($1::text IS NULL OR pipeline = $1) AND ($2::text IS NULL OR status = $2)
                 AND ($3::timestamptz IS NULL OR started >= $3)
             ORDER BY started DESC, number DESC LIMIT $4",
        )
        .bind(&filter.pipeline)
        .bind(filter.status.map(RunStatus::as_str))
        .bind(filter.since)
        .bind(i64::try_from(filter.limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool())
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
        .fetch_all(&self.pool())
        .await?;
        rows.iter().map(rows::run).collect()
    }
}

/// What is open in a run that ends.
async fn close_run(
    connection: &mut PgConnection,
    run: &str,
    status: RunStatus,
    reason: Option<&str>,
    ended: Time,
) -> Result<(), StoreError> {
    let open = if status == RunStatus::Failed { TaskStatus::Failed } else { TaskStatus::Cancelled };
    sqlx::query(
        "WITH ended_tasks AS (
             UPDATE tasks SET status = CASE status WHEN 'running' THEN $2 ELSE 'cancelled' END,
                 error = CASE status WHEN 'running' THEN $3 END, ended = $4
             WHERE run = $1 AND status IN ('waiting', 'running')),
         ended_stages AS (
             UPDATE stages SET status = CASE status WHEN 'running' THEN $2 ELSE 'cancelled' END,
                 error = CASE status WHEN 'running' THEN $3 END
             WHERE run = $1 AND status IN ('waiting', 'running'))
         DELETE FROM leases WHERE run = $1",
    )
    .bind(run)
    .bind(open.as_str())
    .bind(reason)
    .bind(ended)
    .execute(connection)
    .await?;
    Ok(())
}
