//! Claims, and the commits that fulfil them.

use std::collections::HashMap;

use runner_contract::Digest;
use sqlx::{QueryBuilder, Row, SqliteConnection};

use super::{ROWS, Sqlite, integer, json, now, rows, runs, stamp};
use crate::{
    Artifacts, BAD_ROWS_KEPT, Claim, Claimed, Entry, StoreError, TaskRecord,
    claim::{decide, granted, referred},
    live::SILENCE,
};

impl Sqlite {
    pub(crate) async fn claim(&self, run: &str, claims: &[Claim]) -> Result<Vec<Claimed>, StoreError> {
        let keys = json(&claims.iter().flat_map(|claim| &claim.keys).collect::<Vec<_>>());
        let mut transaction = self.write().await?;
        let found = sqlx::query(
            "SELECT k.value AS asked, a.*, l.run AS holder, r.process, r.beat, coalesce(r.beat < $3, 1) AS silent
             FROM json_each($1) AS k
             LEFT JOIN artifacts AS a ON a.key = k.value
             LEFT JOIN leases AS l ON l.key = k.value AND l.run <> $2
             LEFT JOIN runs AS r ON r.id = l.run
             WHERE a.key IS NOT NULL OR l.key IS NOT NULL",
        )
        .bind(&keys)
        .bind(run)
        .bind(stamp(now() - SILENCE))
        .fetch_all(&mut *transaction)
        .await?;
        let (mut made, mut held, mut dead) = (HashMap::new(), HashMap::new(), HashMap::new());
        for row in &found {
            let key = rows::digest(row, "asked")?;
            if row.try_get::<Option<&str>, _>("digest")?.is_some() {
                made.insert(key, rows::entry(row)?);
            } else {
                let holder = rows::running(row)?;
                if holder.is_dead() {
                    dead.insert(holder.id.clone(), holder);
                } else {
                    held.insert(key, holder.id);
                }
            }
        }
        for holder in dead.values() {
            runs::bury(&mut transaction, holder, now()).await?;
        }
        let (answers, leased) = decide(claims, &made, &held);
        let granted: Vec<&TaskRecord> = granted(claims, &answers).collect();
        if !granted.is_empty() && leased.is_empty() {
            let running = "SELECT EXISTS (SELECT 1 FROM runs WHERE id = $1 AND status = 'running')";
            if !sqlx::query_scalar(running).bind(run).fetch_one(&mut *transaction).await? {
                return Err(StoreError::GivenUp(run.to_owned()));
            }
        }
        if !granted.is_empty() {
            let alive = sqlx::query(
                "INSERT INTO leases (key, run, epoch)
                 SELECT k.value, $2, s.epoch FROM json_each($1) AS k, store AS s
                 WHERE EXISTS (SELECT 1 FROM runs WHERE id = $2 AND status = 'running')
                 ON CONFLICT (key) DO UPDATE SET run = excluded.run, epoch = excluded.epoch",
            )
            .bind(json(&leased))
            .bind(run)
            .execute(&mut *transaction)
            .await?;
            if alive.rows_affected() < leased.len() as u64 {
                return Err(StoreError::GivenUp(run.to_owned()));
            }
            for chunk in granted.chunks(ROWS) {
                put_tasks(&mut transaction, run, chunk.iter().copied()).await?;
            }
        }
        transaction.commit().await?;
        Ok(answers)
    }

    pub(crate) async fn release(&self, run: &str, keys: &[Digest]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM leases WHERE run = $1 AND key IN (SELECT value FROM json_each($2))")
            .bind(run)
            .bind(json(&keys))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Tasks, and what they made.
    pub(crate) async fn commit(
        &self,
        run: &str,
        tasks: &[TaskRecord],
        made: &[Entry],
        artifacts: &Artifacts,
    ) -> Result<(), StoreError> {
        let keys = json(&made.iter().map(|entry| entry.key).collect::<Vec<_>>());
        let mut transaction = self.write().await?;
        let (alive, same): (bool, bool) = sqlx::query_as(
            "SELECT $1 = '' OR coalesce(r.status = 'running', false),
                 s.epoch % 2 = 0 AND s.epoch = coalesce((SELECT min(l.epoch) FROM leases AS l
                     WHERE l.run = $1 AND l.key IN (SELECT value FROM json_each($2))), r.epoch, -1)
             FROM store AS s LEFT JOIN runs AS r ON r.id = $1",
        )
        .bind(run)
        .bind(&keys)
        .fetch_one(&mut *transaction)
        .await?;
        if !alive {
            return Err(StoreError::GivenUp(run.to_owned()));
        }
        if !same {
            artifacts.verify(&referred(made)).await?;
        }
        for chunk in tasks.chunks(ROWS) {
            put_tasks(&mut transaction, run, chunk.iter()).await?;
        }
        for chunk in made.chunks(ROWS) {
            put_entries(&mut transaction, run, chunk).await?;
        }
        if !made.is_empty() {
            sqlx::query("DELETE FROM leases WHERE run = $1 AND key IN (SELECT value FROM json_each($2))")
                .bind(run)
                .bind(&keys)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}

async fn put_tasks<'a>(
    connection: &mut SqliteConnection,
    run: &str,
    tasks: impl Iterator<Item = &'a TaskRecord>,
) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new(
        "INSERT OR REPLACE INTO tasks
         (run, task, stages, shard, attempt, status, rows, bad, started, ended, error) ",
    );
    query.push_values(tasks, |mut row, task| {
        row.push_bind(run)
            .push_bind(integer(task.task))
            .push_bind(json(&task.stages))
            .push_bind(task.shard.map(i64::from))
            .push_bind(i64::from(task.attempt))
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
    let now = stamp(now());
    let mut query = QueryBuilder::new(
        "INSERT OR REPLACE INTO artifacts (key, digest, rows, bytes, bad, bad_rows, holds, run, created, used) ",
    );
    query.push_values(made, |mut row, entry| {
        row.push_bind(entry.key.to_string())
            .push_bind(entry.digest.to_string())
            .push_bind(integer(entry.rows))
            .push_bind(integer(entry.bytes))
            .push_bind(integer(entry.bad))
            .push_bind(json(&entry.bad_rows.iter().take(BAD_ROWS_KEPT).collect::<Vec<_>>()))
            .push_bind(json(&entry.holds))
            .push_bind(run)
            .push_bind(now.clone())
            .push_bind(now.clone());
    });
    query.build().execute(connection).await?;
    Ok(())
}
