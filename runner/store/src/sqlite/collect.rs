//! What a collection asks and does.

use std::collections::HashSet;

use runner_contract::Digest;
use sqlx::SqliteConnection;

use super::{Sqlite, json, now, rows, stamp, time};
use crate::{Artifacts, StoreError, Time, collect::References};

impl Sqlite {
    /// Which store this is.
    pub(crate) async fn id(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT id FROM store").fetch_one(&self.pool).await?)
    }

    /// What is referred to, if what [`Self::prune`] removes were gone.
    pub(crate) async fn references(&self, before: Option<Time>) -> Result<References, StoreError> {
        let before = before.map(stamp);
        let mut transaction = self.write().await?;
        // Done in earnest, looked at, and taken back with the rest of the transaction.
        prune_checkpoints(&mut transaction, before.as_deref()).await?;
        let old_runs = sqlx::query_scalar("SELECT id FROM runs WHERE started < $1 AND status <> 'running' ORDER BY id")
            .bind(&before)
            .fetch_all(&mut *transaction)
            .await?;
        let fixed = sqlx::query(
            "SELECT manifest AS digest, run FROM stages WHERE manifest IS NOT NULL
                 AND run NOT IN (SELECT id FROM runs WHERE started < $1 AND status <> 'running')
             UNION ALL SELECT digest, run FROM files
                 WHERE run NOT IN (SELECT id FROM runs WHERE started < $1 AND status <> 'running')
             UNION ALL SELECT digest, NULL FROM checkpoints",
        )
        .bind(&before)
        .fetch_all(&mut *transaction)
        .await?;
        let entries =
            sqlx::query("SELECT key, digest, holds, used FROM artifacts").fetch_all(&mut *transaction).await?;
        let oldest: Option<String> = sqlx::query_scalar("SELECT min(started) FROM runs WHERE status = 'running'")
            .fetch_one(&mut *transaction)
            .await?;
        transaction.rollback().await?;
        Ok(References {
            old_runs,
            fixed: fixed.iter().map(|row| rows::digest(row, "digest")).collect::<Result<_, _>>()?,
            entries: entries.iter().map(rows::held).collect::<Result<_, _>>()?,
            oldest_live: oldest.as_deref().and_then(time),
            now: now(),
        })
    }

    pub(crate) async fn set_holds(&self, key: &Digest, holds: &[Digest]) -> Result<(), StoreError> {
        sqlx::query("UPDATE artifacts SET holds = $2 WHERE key = $1 AND holds IS NULL")
            .bind(key.to_string())
            .bind(json(&holds))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Removes runs, and checkpoints from before or of jobs that are done, except what a live run works on.
    pub(crate) async fn prune(&self, runs: &[String], before: Option<Time>) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM runs WHERE status <> 'running' AND id IN (SELECT value FROM json_each($1))")
            .bind(json(&runs))
            .execute(&mut *transaction)
            .await?;
        prune_checkpoints(&mut transaction, before.map(stamp).as_deref()).await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets results that were not used since then, and says how many.
    pub(crate) async fn evict(&self, keys: &[Digest], since: Time) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM artifacts WHERE used < $2 AND key IN (SELECT value FROM json_each($1))")
            .bind(json(&keys))
            .bind(stamp(since))
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }

    /// Says that blobs will be removed: the epoch becomes odd, and another one than it was.
    pub(crate) async fn unsettle(&self) -> Result<i64, StoreError> {
        let next = "UPDATE store SET epoch = epoch + 1 + epoch % 2 RETURNING epoch";
        Ok(sqlx::query_scalar(next).fetch_one(&self.pool).await?)
    }

    /// Says that no more are removed, if nobody else has begun to since `epoch`, or whoever has.
    pub(crate) async fn settle(&self, epoch: Option<i64>) -> Result<(), StoreError> {
        sqlx::query("UPDATE store SET epoch = epoch + 1 WHERE epoch % 2 = 1 AND ($1 IS NULL OR epoch = $1)")
            .bind(epoch)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Removes blobs that nothing refers to, and says which. `None` if the epoch is another one by now.
    pub(crate) async fn sweep(
        &self,
        epoch: i64,
        blobs: &[Digest],
        artifacts: &Artifacts,
    ) -> Result<Option<HashSet<Digest>>, StoreError> {
        // Whoever refers to a blob takes the write lock too.
        let mut transaction = self.write().await?;
        let now: i64 = sqlx::query_scalar("SELECT epoch FROM store").fetch_one(&mut *transaction).await?;
        if now != epoch {
            return Ok(None);
        }
        let wanted = sqlx::query(
            "WITH asked AS (SELECT value FROM json_each($1))
             SELECT digest FROM artifacts WHERE digest IN asked
             UNION SELECT h.value FROM artifacts, json_each(holds) AS h WHERE holds <> '[]' AND h.value IN asked
             UNION SELECT manifest FROM stages WHERE manifest IN asked
             UNION SELECT digest FROM files WHERE digest IN asked
             UNION SELECT digest FROM checkpoints WHERE digest IN asked",
        )
        .bind(json(&blobs))
        .fetch_all(&mut *transaction)
        .await?;
        let wanted: HashSet<Digest> = wanted.iter().map(|row| rows::digest(row, "digest")).collect::<Result<_, _>>()?;
        let gone: Vec<Digest> = blobs.iter().filter(|digest| !wanted.contains(digest)).copied().collect();
        artifacts.delete_all(&gone).await?;
        transaction.rollback().await?;
        Ok(Some(gone.into_iter().collect()))
    }
}

async fn prune_checkpoints(connection: &mut SqliteConnection, before: Option<&str>) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM checkpoints WHERE (updated < $1 OR key IN (SELECT key FROM artifacts))
             AND key NOT IN (SELECT key FROM leases)
             AND NOT EXISTS (SELECT 1 FROM runs WHERE status = 'running' AND started <= checkpoints.updated)",
    )
    .bind(before)
    .execute(connection)
    .await?;
    Ok(())
}
