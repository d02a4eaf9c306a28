//! What a collection asks and does.

use std::collections::HashSet;

use runner_contract::Digest;
use sqlx::Row;

use super::{Postgres, json, rows, texts};
use crate::{Artifacts, StoreError, Time, collect::References};

impl Postgres {
    /// Which store this is.
    pub(crate) async fn id(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT id FROM store").fetch_one(&self.pool).await?)
    }

    /// What is referred to, if the ended runs that began before `before` and the checkpoints from then were gone.
    pub(crate) async fn references(&self, before: Option<Time>) -> Result<References, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let old_runs = sqlx::query_scalar("SELECT id FROM runs WHERE started < $1 AND status <> 'running' ORDER BY id")
            .bind(before)
            .fetch_all(&mut *transaction)
            .await?;
        let fixed = sqlx::query(
            "WITH old AS (SELECT id FROM runs WHERE started < $1 AND status <> 'running')
             SELECT manifest AS digest FROM stages WHERE manifest IS NOT NULL AND run NOT IN (SELECT id FROM old)
             UNION ALL SELECT digest FROM files WHERE run NOT IN (SELECT id FROM old)
             UNION ALL SELECT digest FROM checkpoints
                 WHERE $1 IS NULL OR updated >= $1 OR key IN (SELECT key FROM leases)",
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
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Removes runs, and the checkpoints from before.
    pub(crate) async fn remove_runs(&self, runs: &[String], before: Time) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "WITH old AS (SELECT id FROM runs WHERE id = ANY($1) AND status <> 'running' ORDER BY id FOR UPDATE)
             DELETE FROM runs AS r USING old WHERE r.id = old.id",
        )
        .bind(runs)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM checkpoints WHERE updated < $1 AND key NOT IN (SELECT key FROM leases)")
            .bind(before)
            .execute(&mut *transaction)
            .await?;
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
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Says that blobs will be removed: the epoch becomes odd, and another one than it was.
    pub(crate) async fn unsettle(&self) -> Result<i64, StoreError> {
        let next = "UPDATE store SET epoch = epoch + 1 + epoch % 2 RETURNING epoch";
        Ok(sqlx::query_scalar(next).fetch_one(&self.pool).await?)
    }

    /// Says that no more are removed, if nobody else has begun to.
    pub(crate) async fn settle(&self, epoch: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE store SET epoch = epoch + 1 WHERE epoch = $1").bind(epoch).execute(&self.pool).await?;
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
