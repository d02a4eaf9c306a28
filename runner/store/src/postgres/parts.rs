//! What belongs to a run: stages, tasks, metrics, files, gates, its log.

use super::{Postgres, admit, by_key, integer, rows, text, texts};
use crate::{Artifacts, FileRecord, GateRecord, LogLine, Metric, StageRecord, StoreError, TaskRecord};
use runner_contract::Digest;

impl Postgres {
    pub(crate) async fn put_stages(
        &self,
        run: &str,
        stages: &[StageRecord],
        artifacts: &Artifacts,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(&self.shared).await?;
        let refers: Vec<Digest> = stages.iter().filter_map(|stage| stage.manifest).collect();
        admit(&mut transaction, run, artifacts, &refers).await?;
        let stages = by_key(stages, |stage| &stage.name);
        let numbers =
            |number: fn(&StageRecord) -> u64| stages.iter().map(|stage| integer(number(stage))).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO stages
                 (run, position, name, kind, status, executed, cached, rows, bad, seconds, wall, manifest, error)
             SELECT $1, s.* FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                 $8::bigint[], $9::bigint[], $10::float8[], $11::float8[], $12::text[], $13::text[]) AS s
             ON CONFLICT (run, name) DO UPDATE SET position = excluded.position, kind = excluded.kind,
                 status = excluded.status, executed = excluded.executed, cached = excluded.cached,
                 rows = excluded.rows, bad = excluded.bad, seconds = excluded.seconds, wall = excluded.wall,
                 manifest = excluded.manifest, error = excluded.error",
        )
        .bind(run)
        .bind(numbers(|stage| u64::from(stage.position)))
        .bind(stages.iter().map(|stage| text(&stage.name)).collect::<Vec<_>>())
        .bind(stages.iter().map(|stage| text(&stage.kind)).collect::<Vec<_>>())
        .bind(stages.iter().map(|stage| stage.status.as_str()).collect::<Vec<_>>())
        .bind(numbers(|stage| stage.executed))
        .bind(numbers(|stage| stage.cached))
        .bind(numbers(|stage| stage.rows))
        .bind(numbers(|stage| stage.bad))
        .bind(stages.iter().map(|stage| stage.seconds).collect::<Vec<_>>())
        .bind(stages.iter().map(|stage| stage.wall).collect::<Vec<_>>())
        .bind(stages.iter().map(|stage| stage.manifest.map(|digest| digest.to_string())).collect::<Vec<_>>())
        .bind(stages.iter().map(|stage| stage.error.as_deref().map(text)).collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn put_metrics(
        &self,
        run: &str,
        metrics: &[Metric],
        artifacts: &Artifacts,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(&self.shared).await?;
        admit(&mut transaction, run, artifacts, &[]).await?;
        let metrics = by_key(metrics, |metric| (&metric.name, metric.step));
        let numbers = |number: fn(&Metric) -> Option<u64>| {
            metrics.iter().map(|metric| number(metric).map(integer)).collect::<Vec<_>>()
        };
        sqlx::query(
            "INSERT INTO metrics (run, name, step, value, n, n_bad)
             SELECT $1, m.* FROM unnest($2::text[], $3::bigint[], $4::float8[], $5::bigint[], $6::bigint[]) AS m
             ON CONFLICT (run, name, coalesce(step, -1))
                 DO UPDATE SET value = excluded.value, n = excluded.n, n_bad = excluded.n_bad",
        )
        .bind(run)
        .bind(metrics.iter().map(|metric| text(&metric.name)).collect::<Vec<_>>())
        .bind(numbers(|metric| metric.step))
        .bind(metrics.iter().map(|metric| metric.value).collect::<Vec<_>>())
        .bind(numbers(|metric| metric.n))
        .bind(numbers(|metric| metric.n_bad))
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn put_files(
        &self,
        run: &str,
        files: &[FileRecord],
        artifacts: &Artifacts,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(&self.shared).await?;
        let refers: Vec<Digest> = files.iter().map(|file| file.digest).collect();
        admit(&mut transaction, run, artifacts, &refers).await?;
        let files = by_key(files, |file| (&file.stage, &file.name));
        sqlx::query(
            "INSERT INTO files (run, stage, name, digest, bytes)
             SELECT $1, f.* FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS f
             ON CONFLICT (run, stage, name) DO UPDATE SET digest = excluded.digest, bytes = excluded.bytes",
        )
        .bind(run)
        .bind(files.iter().map(|file| text(&file.stage)).collect::<Vec<_>>())
        .bind(files.iter().map(|file| text(&file.name)).collect::<Vec<_>>())
        .bind(texts(files.iter().map(|file| file.digest)))
        .bind(files.iter().map(|file| integer(file.bytes)).collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn log(&self, run: &str, lines: &[LogLine]) -> Result<(), StoreError> {
        let lines = by_key(lines, |line| line.seq);
        sqlx::query(
            "INSERT INTO logs (run, seq, time, stage, shard, level, text)
             SELECT $1, l.* FROM unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::bigint[], $6::text[],
                 $7::text[]) AS l
             ON CONFLICT DO NOTHING",
        )
        .bind(run)
        .bind(lines.iter().map(|line| integer(line.seq)).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.time).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.stage.as_deref().map(text)).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.shard.map(i64::from)).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.level.as_str()).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| text(&line.text)).collect::<Vec<_>>())
        .execute(&self.pool())
        .await?;
        Ok(())
    }

    pub(crate) async fn logs(
        &self,
        run: &str,
        stage: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogLine>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM logs WHERE run = $1 AND seq > $2 AND ($3::text IS NULL OR stage = $3)
             ORDER BY seq LIMIT $4",
        )
        .bind(run)
        .bind(integer(after))
        .bind(stage)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool())
        .await?;
        rows.iter().map(rows::line).collect()
    }

    pub(crate) async fn stages(&self, run: &str) -> Result<Vec<StageRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM stages WHERE run = $1 ORDER BY position, name")
            .bind(run)
            .fetch_all(&self.pool())
            .await?;
        rows.iter().map(rows::stage).collect()
    }

    pub(crate) async fn tasks(&self, run: &str) -> Result<Vec<TaskRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM tasks WHERE run = $1 ORDER BY task").bind(run).fetch_all(&self.pool()).await?;
        rows.iter().map(rows::task).collect()
    }

    pub(crate) async fn metrics(&self, run: &str, series: bool) -> Result<Vec<Metric>, StoreError> {
        let rows = sqlx::query("SELECT * FROM metrics WHERE run = $1 AND (step IS NOT NULL) = $2 ORDER BY name, step")
            .bind(run)
            .bind(series)
            .fetch_all(&self.pool())
            .await?;
        rows.iter().map(rows::metric).collect()
    }

    pub(crate) async fn files(&self, run: &str) -> Result<Vec<FileRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM files WHERE run = $1 ORDER BY stage, name")
            .bind(run)
            .fetch_all(&self.pool())
            .await?;
        rows.iter().map(rows::file).collect()
    }

    pub(crate) async fn gates(&self, run: &str) -> Result<Vec<GateRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM gates WHERE run = $1 ORDER BY name").bind(run).fetch_all(&self.pool()).await?;
        rows.iter().map(rows::gate).collect()
    }
}
