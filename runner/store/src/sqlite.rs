//! The records in SQLite: all of its SQL.

use std::{path::Path, time::Duration};

use chrono::SecondsFormat;
use runner_contract::Digest;
use serde::de::DeserializeOwned;
use sqlx::{
    Connection as _, Row as _, SqliteConnection, SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

mod cache;
mod collect;
mod leases;
mod parts;
mod runs;

use crate::{
    Artifacts, StoreError, Time, migrations,
    records::now,
    rows::{self, Columns},
};

/// Rows in one statement; times columns below SQLite's limit of 32,766 values.
const ROWS: usize = 1_000;

#[derive(Clone, Debug)]
pub(crate) struct Sqlite {
    pool: SqlitePool,
}

type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;

impl Sqlite {
    /// Opens or makes the database and brings its tables up to date. One process at a time.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // With the write-ahead log, NORMAL loses at most the last transactions to a power failure, none to a kill.
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            // Rows come from a thread of their own; few of them at a time would mean waiting for each other.
            .row_buffer_size(4_000)
            // Below the time-out of a call, so that the reason is said.
            .busy_timeout(Duration::from_secs(20));
        let in_words = |error| damaged(path, error);
        let pool =
            SqlitePoolOptions::new().max_connections(4).before_acquire(|connection, _| Box::pin(is_clean(connection)));
        let pool = pool.connect_with(options).await.map_err(in_words)?;
        migrations::sqlite().run(&pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(migration) | MigrateError::VersionTooNew(migration, _) => {
                StoreError::Newer { place: path.display().to_string(), migration }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => damaged(path, error),
            other => StoreError::Damaged { path: path.to_owned(), reason: other.to_string() },
        })?;
        Ok(Self { pool })
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Program and version, and how many migrations were applied.
    pub(crate) async fn version(&self) -> Result<(String, u32), StoreError> {
        let found: (String, u32) =
            sqlx::query_as("SELECT sqlite_version(), count(*) FROM _sqlx_migrations").fetch_one(&self.pool).await?;
        Ok((format!("SQLite {}", found.0), found.1))
    }

    /// Writes and takes it back.
    pub(crate) async fn write_nothing(&self) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE store SET epoch = epoch").execute(&mut *transaction).await?;
        Ok(transaction.rollback().await?)
    }

    /// A transaction that will write. Taking the write lock at once means waiting for it instead of failing later.
    async fn write(&self) -> Result<Transaction, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Whether a connection is in no transaction. Where the disk is full, SQLite takes a transaction back by itself, and the
/// connection believes for ever to be in it.
async fn is_clean(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    Ok(!connection.is_in_transaction())
}

/// Refuses to write for a run that is not running, and looks whether the artifacts that are to be referred to are still there,
/// if any were collected since the run began. Nobody collects meanwhile: the transaction holds the write lock.
async fn admit(
    connection: &mut SqliteConnection,
    run: &str,
    artifacts: &Artifacts,
    refers: &[Digest],
) -> Result<(), StoreError> {
    let found: Option<(bool, i64, i64)> =
        sqlx::query_as("SELECT r.status = 'running', s.epoch, r.epoch FROM runs AS r, store AS s WHERE r.id = $1")
            .bind(run)
            .fetch_optional(&mut *connection)
            .await?;
    match found {
        Some((true, now, since)) if now == since && now % 2 == 0 => Ok(()),
        Some((true, ..)) => artifacts.verify(refers).await,
        _ => Err(StoreError::GivenUp(run.to_owned())),
    }
}

impl Columns for SqliteRow {
    rows::plain_columns!();

    fn time(&self, column: &'static str) -> Result<Option<Time>, StoreError> {
        let wrong = |value: String| StoreError::Value { what: column, value };
        self.text(column)?.map(|text| time(&text).ok_or_else(|| wrong(text))).transpose()
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let wrong = |value: String| StoreError::Value { what: column, value };
        self.text(column)?.map(|text| serde_json::from_str(&text).map_err(|_| wrong(text))).transpose()
    }
}

fn time(text: &str) -> Option<Time> {
    Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

fn stamp(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn json(value: &impl serde::Serialize) -> String {
    // Strings, lists and structs of strings cannot fail to be JSON.
    serde_json::to_string(value).unwrap_or_default()
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Tells damage from other failures: `SQLITE_CORRUPT` is 11, `SQLITE_NOTADB` 26, with details in higher bits.
fn damaged(path: &Path, error: sqlx::Error) -> StoreError {
    let code = match &error {
        sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0) & 0xff,
        _ => 0,
    };
    match code {
        11 | 26 => StoreError::Damaged { path: path.to_owned(), reason: error.to_string() },
        _ => StoreError::Sql(error),
    }
}
