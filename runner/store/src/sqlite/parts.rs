//! What belongs to a run: stages, tasks, metrics, files, gates, its log.

use runner_contract::Digest;
use sqlx::QueryBuilder;

use super::{ROWS, Sqlite, admit, integer, rows, stamp};
use crate::{Artifacts, FileRecord, GateRecord, LogLine, Metric, StageRecord, StoreError, TaskRecord};

impl Sqlite {
    pub(crate) async fn put_stages(
        &self,
        run: &str,
        stages: &[StageRecord],
        artifacts: &Artifacts,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let refers: Vec<Digest> = stages.iter().filter_map(|stage| stage.manifest).collect();
        admit(&mut transaction, run, artifacts, &refers).await?;
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

    pub(crate) async fn put_metrics(
        &self,
        run: &str,
        metrics: &[Metric],
        artifacts: &Artifacts,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        admit(&mut transaction, run, artifacts, &[]).await?;
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

    pub(crate) async fn put_files(
        &self,
        run: &str,
        files: &[FileRecord],
        artifacts: &Artifacts,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let refers: Vec<Digest> = files.iter().map(|file| file.digest).collect();
        admit(&mut transaction, run, artifacts, &refers).await?;
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

    pub(crate) async fn log(&self, run: &str, lines: &[LogLine]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for chunk in lines.chunks(ROWS) {
            let mut query =
                QueryBuilder::new("INSERT OR IGNORE INTO logs (run, seq, time, stage, shard, level, text) ");
            query.push_values(chunk, |mut row, line| {
                row.push_bind(run)
                    .push_bind(integer(line.seq))
                    .push_bind(stamp(line.time))
                    .push_bind(&line.stage)
                    .push_bind(line.shard.map(i64::from))
                    .push_bind(line.level.as_str())
                    .push_bind(&line.text);
            });
            query.build().execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn logs(
        &self,
        run: &str,
        stage: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogLine>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM logs WHERE run = $1 AND seq > $2 AND ($3 IS NULL OR stage = $3) ORDER BY seq LIMIT $4",
        )
        .bind(run)
        .bind(integer(after))
        .bind(stage)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(rows::line).collect()
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
}
