//! Claims, and the commits that fulfil them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use runner_contract::Digest;
use sqlx::Row;

use super::{Postgres, Transaction, by_key, integer, json, rows, text, texts};
use crate::{
    Artifacts, BAD_ROWS_KEPT, Claim, Claimed, Entry, StoreError, TaskRecord, Time,
    claim::{decide, granted, referred},
    live::SILENCE,
    records::{Running, now},
};

/// What a claim came to.
enum Outcome {
    Answers(Vec<Claimed>),
    /// These are in the way. They are buried each by itself, so that nobody who does it holds something that another waits for.
    Dead(Vec<Running>),
}

impl Postgres {
    pub(crate) async fn claim(&self, run: &str, claims: &[Claim]) -> Result<Vec<Claimed>, StoreError> {
        loop {
            match self.try_claim(run, claims).await? {
                Outcome::Answers(answers) => return Ok(answers),
                Outcome::Dead(dead) => {
                    for holder in &dead {
                        self.bury(holder, now()).await?;
                    }
                }
            }
        }
    }

    async fn try_claim(&self, run: &str, claims: &[Claim]) -> Result<Outcome, StoreError> {
        let keys: BTreeSet<Digest> = claims.iter().flat_map(|claim| &claim.keys).copied().collect();
        let mut transaction = self.begin(&self.light).await?;
        // First everything that is free, then a look at what is made: what others held is either theirs still or made.
        let (taken, alive) = take(&mut transaction, run, &keys).await?;
        if !alive {
            return Err(StoreError::GivenUp(run.to_owned()));
        }
        let found = sqlx::query(
            "SELECT k.asked, a.*, l.run AS holder, r.process, r.beat,
                 r.beat < now() - make_interval(secs => $3) AS silent
             FROM unnest($1::text[]) AS k (asked)
             LEFT JOIN artifacts AS a ON a.key = k.asked
             LEFT JOIN leases AS l ON l.key = k.asked AND l.run <> $2
             LEFT JOIN runs AS r ON r.id = l.run
             WHERE a.key IS NOT NULL OR l.key IS NOT NULL",
        )
        .bind(texts(keys.iter().copied()))
        .bind(run)
        .bind(SILENCE.as_secs_f64())
        .fetch_all(&mut *transaction)
        .await?;
        let (mut made, mut held, mut dead) = (HashMap::new(), HashMap::new(), BTreeMap::new());
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
        if !dead.is_empty() {
            transaction.rollback().await?;
            return Ok(Outcome::Dead(dead.into_values().collect()));
        }
        let (answers, leased) = decide(claims, &made, &held);
        let surplus: Vec<Digest> = taken.difference(&leased).copied().collect();
        if !surplus.is_empty() {
            release(&mut transaction, run, &surplus).await?;
        }
        let tasks: Vec<&TaskRecord> = granted(claims, &answers).collect();
        if !tasks.is_empty() {
            tasks_query(TASKS, run, &by_key(tasks, |task| task.task)).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(Outcome::Answers(answers))
    }

    pub(crate) async fn release(&self, run: &str, keys: &[Digest]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM leases WHERE run = $1 AND key = ANY($2)")
            .bind(run)
            .bind(texts(keys.iter().copied()))
            .execute(&self.pool())
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
        let mut transaction = self.begin(&self.shared).await?;
        // Without a run, nobody knows since when.
        let mut verified = run.is_empty();
        if verified {
            artifacts.verify(&referred(made)).await?;
        }
        loop {
            match put_work(&mut transaction, run, tasks, made, verified).await? {
                Admission::Done => return Ok(transaction.commit().await?),
                Admission::Verify if !verified => artifacts.verify(&referred(made)).await?,
                _ => return Err(StoreError::GivenUp(run.to_owned())),
            }
            verified = true;
        }
    }
}

/// What became of work that was to be recorded.
enum Admission {
    Done,
    /// Blobs were collected since the work was begun. Nothing is recorded.
    Verify,
    /// The run is not running. Nothing is recorded.
    Refused,
}

/// Leases what nobody else has, in order, and says what that is, and whether the run is alive.
async fn take(
    transaction: &mut Transaction,
    run: &str,
    keys: &BTreeSet<Digest>,
) -> Result<(BTreeSet<Digest>, bool), StoreError> {
    let rows = sqlx::query(
        "WITH alive AS (SELECT id FROM runs WHERE id = $1 AND status = 'running' FOR SHARE),
         taken AS (
             INSERT INTO leases (key, run, epoch)
             SELECT k.key, alive.id, store.epoch FROM unnest($2::text[]) AS k (key), alive, store ORDER BY k.key
             ON CONFLICT DO NOTHING RETURNING key)
         SELECT NULL AS key FROM alive UNION ALL SELECT key FROM taken",
    )
    .bind(run)
    .bind(texts(keys.iter().copied()))
    .fetch_all(&mut **transaction)
    .await?;
    let taken = rows.iter().filter(|row| !matches!(row.try_get::<Option<&str>, _>("key"), Ok(None)));
    Ok((taken.map(|row| rows::digest(row, "key")).collect::<Result<_, _>>()?, !rows.is_empty()))
}

async fn release(transaction: &mut Transaction, run: &str, keys: &[Digest]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM leases WHERE run = $1 AND key = ANY($2)")
        .bind(run)
        .bind(texts(keys.iter().copied()))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Records tasks and what they made, and gives the leases of that back, all in one statement: for the way there and back counts.
async fn put_work(
    transaction: &mut Transaction,
    run: &str,
    tasks: &[TaskRecord],
    made: &[Entry],
    verified: bool,
) -> Result<Admission, StoreError> {
    let tasks = by_key(tasks, |task| task.task);
    let made = by_key(made, |entry| entry.key);
    let bad_rows = |entry: &&Entry| json(&entry.bad_rows.iter().take(BAD_ROWS_KEPT).collect::<Vec<_>>());
    let row = tasks_query(WORK, run, &tasks)
        .bind(texts(made.iter().map(|entry| entry.key)))
        .bind(texts(made.iter().map(|entry| entry.digest)))
        .bind(made.iter().map(|entry| integer(entry.rows)).collect::<Vec<_>>())
        .bind(made.iter().map(|entry| integer(entry.bytes)).collect::<Vec<_>>())
        .bind(made.iter().map(|entry| integer(entry.bad)).collect::<Vec<_>>())
        .bind(made.iter().map(bad_rows).collect::<Vec<_>>())
        .bind(made.iter().map(|entry| json(&entry.holds)).collect::<Vec<_>>())
        .bind(verified)
        .fetch_one(&mut **transaction)
        .await?;
    Ok(match (row.try_get("alive")?, row.try_get("fit")?) {
        (true, true) => Admission::Done,
        (true, false) => Admission::Verify,
        (false, _) => Admission::Refused,
    })
}

/// Tasks that are granted.
const TASKS: &str = "INSERT INTO tasks (run, task, stages, shard, attempt, status, rows, bad, started, ended, error)
    SELECT $1, t.* FROM unnest($2::bigint[], $3::jsonb[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
        $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::text[]) AS t
    ON CONFLICT (run, task) DO UPDATE SET stages = excluded.stages, shard = excluded.shard,
        attempt = excluded.attempt, status = excluded.status, rows = excluded.rows, bad = excluded.bad,
        started = excluded.started, ended = excluded.ended, error = excluded.error";

/// Nothing happens unless the run is alive (there is none for `''`), and no blobs were collected since the keys were claimed or
/// else the blobs were looked for.
const WORK: &str = "WITH standing AS (
    SELECT r.status = 'running' AS alive,
        $19 OR (s.epoch % 2 = 0 AND s.epoch = coalesce(
            (SELECT min(l.epoch) FROM leases AS l WHERE l.run = $1 AND l.key = ANY($12)), r.epoch)) AS fit
    FROM store AS s, runs AS r WHERE r.id = $1 FOR SHARE OF r),
 admitted AS (SELECT true AS yes WHERE $1 = '' UNION ALL SELECT true FROM standing WHERE alive AND fit),
 work AS (
    INSERT INTO tasks (run, task, stages, shard, attempt, status, rows, bad, started, ended, error)
    SELECT $1, t.* FROM unnest($2::bigint[], $3::jsonb[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
        $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::text[]) AS t
    WHERE (SELECT yes FROM admitted)
    ON CONFLICT (run, task) DO UPDATE SET stages = excluded.stages, shard = excluded.shard,
        attempt = excluded.attempt, status = excluded.status, rows = excluded.rows, bad = excluded.bad,
        started = excluded.started, ended = excluded.ended, error = excluded.error),
 made AS (
    INSERT INTO artifacts (key, digest, rows, bytes, bad, bad_rows, holds, run, created, used)
    SELECT e.*, $1, now(), now() FROM unnest($12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[],
        $17::jsonb[], $18::jsonb[]) AS e
    WHERE (SELECT yes FROM admitted)
    ON CONFLICT (key) DO UPDATE SET digest = excluded.digest, rows = excluded.rows, bytes = excluded.bytes,
        bad = excluded.bad, bad_rows = excluded.bad_rows, holds = excluded.holds, run = excluded.run,
        created = excluded.created, used = excluded.used),
 freed AS (DELETE FROM leases WHERE run = $1 AND key = ANY($12) AND (SELECT yes FROM admitted))
 SELECT $1 = '' OR coalesce((SELECT alive FROM standing), false) AS alive,
     $1 = '' OR coalesce((SELECT fit FROM standing), false) AS fit";

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// A statement with a run and its tasks as the first eleven values.
fn tasks_query<'q>(statement: &'static str, run: &'q str, tasks: &[&TaskRecord]) -> Query<'q> {
    let numbers = |number: fn(&TaskRecord) -> i64| tasks.iter().map(|task| number(task)).collect::<Vec<_>>();
    let times = |time: fn(&TaskRecord) -> Option<Time>| tasks.iter().map(|task| time(task)).collect::<Vec<_>>();
    sqlx::query(statement)
        .bind(run)
        .bind(numbers(|task| integer(task.task)))
        .bind(tasks.iter().map(|task| json(&task.stages)).collect::<Vec<_>>())
        .bind(tasks.iter().map(|task| task.shard.map(i64::from)).collect::<Vec<_>>())
        .bind(numbers(|task| i64::from(task.attempt)))
        .bind(tasks.iter().map(|task| task.status.as_str()).collect::<Vec<_>>())
        .bind(numbers(|task| integer(task.rows)))
        .bind(numbers(|task| integer(task.bad)))
        .bind(times(|task| task.started))
        .bind(times(|task| task.ended))
        .bind(tasks.iter().map(|task| task.error.as_deref().map(text)).collect::<Vec<_>>())
}
