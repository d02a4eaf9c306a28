//! The records in PostgreSQL: all of its SQL.
//!
//! Who may refer to blobs takes an advisory lock shared, who collects them takes it alone. Rows are locked in the order of their
//! keys, so nobody waits in a circle. Where nothing is lost with the last moments before a crash of the server (leases, beats),
//! a commit does not wait for the disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use runner_contract::Digest;
use serde::de::DeserializeOwned;
use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};

mod cache;
mod collect;
mod connect;
mod leases;
mod parts;
mod runs;

use crate::{
    Artifacts, StoreError, Time,
    rows::{self, Columns},
};

/// How long the first connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it is waited for a connection, of which there are a few.
const ACQUIRE: Duration = Duration::from_secs(5);
/// What the server shall do with a session: the same limits as ours or less, so that the reason is said, and an end to
/// transactions whose client is gone.
const SESSION: &str = "SET statement_timeout = '25s'; SET lock_timeout = '20s'; \
     SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = warning";

#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    /// Replaced when a connection does not answer: it would block its place for as long as TCP hopes.
    pool: Arc<RwLock<PgPool>>,
    options: Arc<PgConnectOptions>,
    /// Begins a transaction that refers to blobs.
    shared: Arc<str>,
    /// The same, which may be lost if the server crashes.
    light: Arc<str>,
    /// Begins a transaction that removes blobs.
    alone: Arc<str>,
}

type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

impl Postgres {
    /// Connects and brings the tables up to date, one process at a time.
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        let options = connect::options(url)?;
        let id = connect::prepare(&options, url).await?;
        // Of this store: others may share the database.
        let lock = i64::from_le_bytes(Digest::of(id.as_bytes()).as_bytes()[..8].try_into().unwrap_or_default());
        let begin = |how: &str| Arc::from(format!("BEGIN; {how}({lock})"));
        Ok(Self {
            pool: Arc::new(RwLock::new(pool(&options))),
            options: Arc::new(options),
            shared: begin("SELECT pg_advisory_xact_lock_shared"),
            light: begin("SET LOCAL synchronous_commit = off; SELECT pg_advisory_xact_lock_shared"),
            alone: begin("SELECT pg_advisory_xact_lock"),
        })
    }

    pub(crate) async fn close(&self) {
        self.pool().close().await;
    }

    /// Program and version, and how many migrations were applied.
    pub(crate) async fn version(&self) -> Result<(String, u32), StoreError> {
        let row = sqlx::query("SELECT current_setting('server_version'), count(*) FROM _sqlx_migrations")
            .fetch_one(&self.pool())
            .await?;
        let (version, migrations): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let version = version.split(' ').next().unwrap_or_default();
        Ok((format!("PostgreSQL {version}"), u32::try_from(migrations).unwrap_or(0)))
    }

    /// Writes and takes it back.
    pub(crate) async fn write_nothing(&self) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("UPDATE store SET epoch = epoch").execute(&mut *transaction).await?;
        Ok(transaction.rollback().await?)
    }

    fn pool(&self) -> PgPool {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives up the connections there are.
    pub(crate) fn renew(&self) {
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = pool(&self.options);
    }

    async fn begin(&self, how: &str) -> Result<Transaction, StoreError> {
        Ok(self.pool().begin_with(AssertSqlSafe(how.to_owned())).await?)
    }
}

/// No connection yet.
fn pool(options: &PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(Duration::from_secs(60))
        // A broken connection fails the call, which is made again.
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(session(connection)))
        .connect_lazy_with(options.clone())
}

async fn session(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(SESSION).execute(connection).await?;
    Ok(())
}

/// Refuses to write for a run that is not running, and looks whether the artifacts that are to be referred to are still there,
/// if any were collected since the run began. Nobody collects meanwhile: the transaction shares the lock.
async fn admit(
    connection: &mut PgConnection,
    run: &str,
    artifacts: &Artifacts,
    refers: &[Digest],
) -> Result<(), StoreError> {
    let found: Option<(bool, bool)> = sqlx::query_as(
        "SELECT r.status = 'running', s.epoch = r.epoch AND s.epoch % 2 = 0 FROM runs AS r, store AS s
         WHERE r.id = $1 FOR SHARE OF r",
    )
    .bind(run)
    .fetch_optional(connection)
    .await?;
    match found {
        Some((true, true)) => Ok(()),
        Some((true, false)) => artifacts.verify(refers).await,
        _ => Err(StoreError::GivenUp(run.to_owned())),
    }
}

impl Columns for PgRow {
    rows::plain_columns!();

    fn time(&self, column: &'static str) -> Result<Option<Time>, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let value: Option<serde_json::Value> = self.try_get(column)?;
        let read = |value: serde_json::Value| {
            T::deserialize(&value).map_err(|_| StoreError::Value { what: column, value: value.to_string() })
        };
        value.map(read).transpose()
    }
}

/// The last item of each key, in the order of the keys: no statement may write a row twice, and all lock in this order.
fn by_key<'a, T, K: Ord>(items: impl IntoIterator<Item = &'a T>, key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    items.into_iter().map(|item| (key(item), item)).collect::<BTreeMap<_, _>>().into_values().collect()
}

fn texts(digests: impl IntoIterator<Item = Digest>) -> Vec<String> {
    digests.into_iter().map(|digest| digest.to_string()).collect()
}

/// PostgreSQL keeps no NUL in texts.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The same in JSON.
fn json(value: &impl serde::Serialize) -> serde_json::Value {
    // Strings, lists and structs of strings cannot fail to be JSON.
    without_nul(serde_json::to_value(value).unwrap_or_default())
}

fn without_nul(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(string) if string.contains('\0') => Value::String(text(&string)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (text(&name), without_nul(value))).collect())
        }
        other => other,
    }
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
