//! What is computed already, and what is remembered to save work.

use std::collections::{HashMap, HashSet};

use runner_contract::Digest;
use sqlx::Row;

use super::{Postgres, by_key, integer, rows, text, texts};
use crate::{Artifacts, Entry, FileStamp, StoreError, collect::TOUCH, records::host};

impl Postgres {
    pub(crate) async fn lookup(&self, keys: &[Digest]) -> Result<HashMap<Digest, Entry>, StoreError> {
        let rows = sqlx::query(
            "SELECT key, digest, rows, bytes, bad, bad_rows, holds, used < now() - make_interval(secs => $2) AS stale
             FROM artifacts WHERE key = ANY($1)",
        )
        .bind(texts(keys.iter().copied()))
        .bind(TOUCH.as_secs_f64())
        .fetch_all(&self.pool())
        .await?;
        let (mut found, mut stale) = (HashMap::new(), HashSet::new());
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
                "WITH found AS (SELECT key FROM artifacts WHERE key = ANY($1) ORDER BY key FOR NO KEY UPDATE)
                 UPDATE artifacts AS a SET used = now() FROM found WHERE a.key = found.key RETURNING a.key",
            )
            .bind(texts(stale.iter().copied()))
            .fetch_all(&self.pool())
            .await?;
            let touched: HashSet<Digest> =
                touched.iter().map(|row| rows::digest(row, "key")).collect::<Result<_, _>>()?;
            found.retain(|key, _| !stale.contains(key) || touched.contains(key));
        }
        Ok(found)
    }

    pub(crate) async fn forget(&self, keys: &[Digest]) -> Result<(), StoreError> {
        sqlx::query(
            "WITH found AS (SELECT key FROM artifacts WHERE key = ANY($1) ORDER BY key FOR UPDATE)
             DELETE FROM artifacts AS a USING found WHERE a.key = found.key",
        )
        .bind(texts(keys.iter().copied()))
        .execute(&self.pool())
        .await?;
        Ok(())
    }

    pub(crate) async fn checkpoint(&self, key: &Digest) -> Result<Option<Digest>, StoreError> {
        let row = sqlx::query("SELECT digest FROM checkpoints WHERE key = $1")
            .bind(key.to_string())
            .fetch_optional(&self.pool())
            .await?;
        row.as_ref().map(|row| rows::digest(row, "digest")).transpose()
    }

    pub(crate) async fn set_checkpoint(
        &self,
        key: &Digest,
        checkpoint: Option<&Digest>,
        artifacts: &Artifacts,
    ) -> Result<Option<Digest>, StoreError> {
        let mut transaction = self.begin(&self.shared).await?;
        artifacts.verify(checkpoint.map(std::slice::from_ref).unwrap_or_default()).await?;
        let old = sqlx::query("SELECT digest FROM checkpoints WHERE key = $1 FOR UPDATE")
            .bind(key.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        match checkpoint {
            Some(checkpoint) => {
                sqlx::query(
                    "INSERT INTO checkpoints (key, digest, updated) VALUES ($1, $2, now())
                     ON CONFLICT (key) DO UPDATE SET digest = excluded.digest, updated = excluded.updated",
                )
                .bind(key.to_string())
                .bind(checkpoint.to_string())
                .execute(&mut *transaction)
                .await?;
            }
            None => {
                sqlx::query("DELETE FROM checkpoints WHERE key = $1")
                    .bind(key.to_string())
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        transaction.commit().await?;
        let old = old.as_ref().map(|row| rows::digest(row, "digest")).transpose()?;
        Ok(old.filter(|old| Some(old) != checkpoint))
    }

    pub(crate) async fn memos(&self, files: &[FileStamp]) -> Result<HashMap<FileStamp, Digest>, StoreError> {
        let rows = sqlx::query("SELECT * FROM memos WHERE host = $1 AND path = ANY($2)")
            .bind(text(&host()))
            .bind(files.iter().map(|file| text(&file.path)).collect::<Vec<_>>())
            .fetch_all(&self.pool())
            .await?;
        rows.iter().map(rows::memo).collect()
    }

    pub(crate) async fn set_memos(&self, files: &[(FileStamp, Digest)]) -> Result<(), StoreError> {
        let files = by_key(files, |(file, _)| &file.path);
        sqlx::query(
            "INSERT INTO memos (host, path, size, modified, digest)
             SELECT $1, f.* FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::text[]) AS f
             ON CONFLICT (host, path)
                 DO UPDATE SET size = excluded.size, modified = excluded.modified, digest = excluded.digest",
        )
        .bind(text(&host()))
        .bind(files.iter().map(|(file, _)| text(&file.path)).collect::<Vec<_>>())
        .bind(files.iter().map(|(file, _)| integer(file.size)).collect::<Vec<_>>())
        .bind(files.iter().map(|(file, _)| file.modified).collect::<Vec<_>>())
        .bind(texts(files.iter().map(|(_, digest)| *digest)))
        .execute(&self.pool())
        .await?;
        Ok(())
    }
}
