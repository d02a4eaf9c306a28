//! What a collection asks and does.

use std::collections::HashSet;

use runner_contract::Digest;
use sqlx::{PgConnection, Row};

use super::{Postgres, json, rows, texts};
use crate::{Artifacts, StoreError, Time, collect::References};

impl Postgres {
    /// Which store this is.
    pub(crate) async fn id(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT id FROM store").fetch_one(&self.pool()).await?)
    }

    /// What is referred to, if what [`Self::prune`] removes were gone.
    pub(crate) async fn references(&self, before: Option<Time>) -> Result<References, StoreError> {
        let mut transaction = self.pool().begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        // Done in earnest, looked at, and taken back with the rest of the transaction.
        prune_checkpoints(&mut transaction, before).await?;
        let old_runs = sqlx::query_scalar("SELECT id FROM runs WHERE started < $1 AND status <> 'running' ORDER BY id")
            .bind(before)
            .fetch_all(&mut *transaction)
            .await?;
        let fixed = sqlx::query(
            "WITH old AS (SELECT id FROM runs WHERE started < $1 AND status <> 'running')
             SELECT manifest AS digest FROM stages WHERE manifest IS NOT NULL AND run NOT IN (SELECT id FROM old)
             UNION ALL SELECT digest FROM files WHERE run NOT IN (SELECT id FROM old)
             UNION ALL SELECT digest FROM checkpoints",
        )
        .bind(before)
        .fetch_all(&mut *transaction)
        .await?;
        let entries =
            sqlx::query("SELECT key, digest, holds, used FROM artifacts").fetch_all(&mut *transaction).await?;
        let clock =
            sqlx::query("SELECT now() AS now, (SELECT min(started) FROM runs WHERE status = 'running') AS oldest_live")
                .fetch_one(&mut *transaction)
                .await?;
        transaction.rollback().await?;
        Ok(References {
            old_runs,
            fixed: fixed.iter().map(|row| rows::digest(row, "digest")).collect::<Result<_, _>>()?,
            entries: entries.iter().map(rows::held).collect::<Result<_, _>>()?,
            oldest_live: clock.try_get("oldest_live")?,
            now: clock.try_get("now")?,
        })
    }

    pub(crate) async fn set_holds(&self, key: &Digest, holds: &[Digest]) -> Result<(), StoreError> {
        sqlx::query("UPDATE artifacts SET holds = $2 WHERE key = $1")
            .bind(key.to_string())
            .bind(json(&holds))
            .execute(&self.pool())
            .await?;
        Ok(())
    }

    /// Removes runs, and checkpoints from before or of jobs that are done, except what a live run works on.
    pub(crate) async fn prune(&self, runs: &[String], before: Option<Time>) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query(
            "WITH old AS (SELECT id FROM runs WHERE id = ANY($1) AND status <> 'running' ORDER BY id FOR UPDATE)
             DELETE FROM runs AS r USING old WHERE r.id = old.id",
        )
        .bind(runs)
        .execute(&mut *transaction)
        .await?;
        prune_checkpoints(&mut transaction, before).await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets results that were not used since then, and says how many.
    pub(crate) async fn evict(&self, keys: &[Digest], since: Time) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "WITH found AS (SELECT key FROM artifacts WHERE key = ANY($1) AND used < $2 ORDER BY key FOR UPDATE)
             DELETE FROM artifacts AS a USING found WHERE a.key = found.key AND a.used < $2",
        )
        .bind(texts(keys.iter().copied()))
        .bind(since)
        .execute(&self.pool())
        .await?;
        Ok(done.rows_affected())
    }

    /// Says that blobs will be removed: the epoch becomes odd, and another one than it was.
    pub(crate) async fn unsettle(&self) -> Result<i64, StoreError> {
        let next = "UPDATE store SET epoch = epoch + 1 + epoch % 2 RETURNING epoch";
        Ok(sqlx::query_scalar(next).fetch_one(&self.pool()).await?)
    }

    /// Says that no more are removed, if nobody else has begun to since `epoch`, or whoever has.
    pub(crate) async fn settle(&self, epoch: Option<i64>) -> Result<(), StoreError> {
        sqlx::query("UPDATE store SET epoch = epoch + 1 WHERE epoch % 2 = 1 AND ($1::bigint IS NULL OR epoch = $1)")
            .bind(epoch)
            .execute(&self.pool())
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
        let mut transaction = self.begin(&self.alone).await?;
        let now: i64 = sqlx::query_scalar("SELECT epoch FROM store").fetch_one(&mut *transaction).await?;
        if now != epoch {
            return Ok(None);
        }
        let wanted = sqlx::query(
            "WITH asked AS (SELECT unnest($1::text[]) AS digest)
             SELECT digest FROM asked WHERE digest IN (SELECT digest FROM artifacts)
             UNION SELECT h.digest FROM artifacts, jsonb_array_elements_text(holds) AS h (digest)
                 WHERE holds <> '[]' AND h.digest IN (SELECT digest FROM asked)
             UNION SELECT digest FROM asked WHERE digest IN (SELECT manifest FROM stages WHERE manifest IS NOT NULL)
             UNION SELECT digest FROM asked WHERE digest IN (SELECT digest FROM files)
             UNION SELECT digest FROM asked WHERE digest IN (SELECT digest FROM checkpoints)",
        )
        .bind(texts(blobs.iter().copied()))
        .fetch_all(&mut *transaction)
        .await?;
        let wanted: HashSet<Digest> = wanted.iter().map(|row| rows::digest(row, "digest")).collect::<Result<_, _>>()?;
        let gone: Vec<Digest> = blobs.iter().filter(|digest| !wanted.contains(digest)).copied().collect();
        artifacts.delete_all(&gone).await?;
        // Only now may somebody refer to one of them.
        transaction.rollback().await?;
        Ok(Some(gone.into_iter().collect()))
    }
}

async fn prune_checkpoints(connection: &mut PgConnection, before: Option<Time>) -> Result<(), StoreError> {
    sqlx::query(
        "WITH old AS (
             SELECT key FROM checkpoints AS c WHERE (updated < $1 OR key IN (SELECT key FROM artifacts))
                 AND key NOT IN (SELECT key FROM leases)
                 AND NOT EXISTS (SELECT 1 FROM runs WHERE status = 'running' AND started <= c.updated)
             ORDER BY key FOR UPDATE)
         DELETE FROM checkpoints AS c USING old WHERE c.key = old.key",
    )
    .bind(before)
    .execute(connection)
    .await?;
    Ok(())
}
