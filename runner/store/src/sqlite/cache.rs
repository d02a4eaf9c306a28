//! What is computed already, and what is remembered to save work.

use std::collections::{HashMap, HashSet};

use runner_contract::Digest;
use sqlx::{QueryBuilder, Row};

use super::{ROWS, Sqlite, integer, json, now, rows, stamp};
use crate::{Artifacts, Entry, FileStamp, StoreError, collect::TOUCH};

impl Sqlite {
    pub(crate) async fn lookup(&self, keys: &[Digest]) -> Result<HashMap<Digest, Entry>, StoreError> {
        let rows = sqlx::query(
            "SELECT a.key, a.digest, a.rows, a.bytes, a.bad, a.bad_rows, a.holds, a.used < $2 AS stale
             FROM json_each($1) AS k JOIN artifacts AS a ON a.key = k.value",
        )
        .bind(json(&keys))
        .bind(stamp(now() - TOUCH))
        .fetch_all(&self.pool)
        .await?;
        let (mut found, mut stale) = (HashMap::with_capacity(rows.len()), HashSet::new());
        for row in &rows {
            let entry = rows::entry(row)?;
            if row.try_get("stale")? {
                stale.insert(entry.key);
            }
            found.insert(entry.key, entry);
        }
        if !stale.is_empty() {
            // What counts as used is not collected; what was collected since we looked is not there.
            let touched = sqlx::query(
                "UPDATE artifacts SET used = $2 WHERE key IN (SELECT value FROM json_each($1)) RETURNING key",
            )
            .bind(json(&stale))
            .bind(stamp(now()))
            .fetch_all(&self.pool)
            .await?;
            let touched: HashSet<Digest> =
                touched.iter().map(|row| rows::digest(row, "key")).collect::<Result<_, _>>()?;
            found.retain(|key, _| !stale.contains(key) || touched.contains(key));
        }
        Ok(found)
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
        artifacts: &Artifacts,
    ) -> Result<Option<Digest>, StoreError> {
        let mut transaction = self.write().await?;
        artifacts.verify(checkpoint.map(std::slice::from_ref).unwrap_or_default()).await?;
        let old = sqlx::query("DELETE FROM checkpoints WHERE key = $1 RETURNING digest")
            .bind(key.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(checkpoint) = checkpoint {
            sqlx::query("INSERT INTO checkpoints (key, digest, updated) VALUES ($1, $2, $3)")
                .bind(key.to_string())
                .bind(checkpoint.to_string())
                .bind(stamp(now()))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        let old = old.as_ref().map(|row| rows::digest(row, "digest")).transpose()?;
        Ok(old.filter(|old| Some(old) != checkpoint))
    }

    pub(crate) async fn memos(&self, files: &[FileStamp]) -> Result<HashMap<FileStamp, Digest>, StoreError> {
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let rows = sqlx::query("SELECT m.* FROM json_each($1) AS p JOIN memos AS m ON m.path = p.value")
            .bind(json(&paths))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rows::memo).collect()
    }

    pub(crate) async fn set_memos(&self, files: &[(FileStamp, Digest)]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for chunk in files.chunks(ROWS) {
            let mut query = QueryBuilder::new("INSERT OR REPLACE INTO memos (path, size, modified, digest) ");
            query.push_values(chunk, |mut row, (file, digest)| {
                row.push_bind(&file.path)
                    .push_bind(integer(file.size))
                    .push_bind(file.modified)
                    .push_bind(digest.to_string());
            });
            query.build().execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}
