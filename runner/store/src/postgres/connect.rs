//! The way to the server: what a URL may say, and what can be in the way.

use std::{
    io,
    str::FromStr,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{CONNECT, session};
use crate::{StoreError, guard::PATIENCE, migrations, place::redacted};

/// What may stand behind the `?` of a URL. The library passes over what it does not know, which may be a misspelt `sslmode`.
const PARAMETERS: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];

/// For how long a connection that breaks at once is made again.
const BROKEN: Duration = Duration::from_secs(3);

/// Reads a URL.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let wrong = |reason: String| StoreError::Place { given: redacted(url), what: "records", reason };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong("it is to begin with `postgres://`".to_owned()));
    }
    let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    for name in query.split('&').filter_map(|pair| pair.split('=').next()).filter(|name| !name.is_empty()) {
        if !PARAMETERS.contains(&name) {
            return Err(wrong(format!("it knows no `{name}`; there are {}", PARAMETERS.join(", "))));
        }
    }
    let options = PgConnectOptions::from_str(url).map_err(|error| match error {
        sqlx::Error::Configuration(error) => wrong(error.to_string()),
        error => wrong(error.to_string()),
    })?;
    let named = options.get_application_name().is_some();
    let options = if named { options } else { options.application_name("runner") };
    Ok(options.disable_statement_logging())
}

/// Connects, brings the tables up to date, and says which store it is. A server that is starting is waited for, a connection
/// that breaks is made again.
pub(super) async fn prepare(options: &PgConnectOptions, url: &str) -> Result<String, StoreError> {
    let begun = Instant::now();
    loop {
        let error = match try_prepare(options, url).await {
            Err(StoreError::Sql(error)) => error,
            result => return result,
        };
        if begun.elapsed() >= patience(&error) {
            return Err(in_words(error, options, url));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn try_prepare(options: &PgConnectOptions, url: &str) -> Result<String, StoreError> {
    let connecting = async {
        let mut connection = PgConnection::connect_with(options).await?;
        session(&mut connection).await?;
        Ok(connection)
    };
    let silent = |_| sqlx::Error::Io(io::ErrorKind::TimedOut.into());
    let mut connection = tokio::time::timeout(CONNECT, connecting).await.map_err(silent).flatten()?;
    migrate(&mut connection, url).await?;
    let id = sqlx::query_scalar("SELECT id FROM store").fetch_one(&mut connection).await?;
    // Nothing depends on how it ends.
    let _ = connection.close().await;
    Ok(id)
}

/// For how long it is worth trying again.
fn patience(error: &sqlx::Error) -> Duration {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match (error, code(error).as_deref()) {
        // The server is starting or stopping, or has no room.
        (_, Some("57P01" | "57P02" | "57P03" | "53300")) => PATIENCE,
        (sqlx::Error::Io(error), _)
            if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) =>
        {
            BROKEN
        }
        (sqlx::Error::Protocol(_), _) => BROKEN,
        _ => Duration::ZERO,
    }
}

/// Brings the tables up to date. Others that start meanwhile wait for a lock.
async fn migrate(connection: &mut PgConnection, url: &str) -> Result<(), StoreError> {
    let known = migrations::postgres();
    // Mostly there is nothing to do, and a user without the right to make tables can do that.
    if is_current(connection, &known, url).await? {
        return Ok(());
    }
    known.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(migration) | MigrateError::VersionTooNew(migration, _) => {
            StoreError::Newer { place: redacted(url), migration }
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::Connect { place: redacted(url), reason: other.to_string() },
    })
}

async fn is_current(connection: &mut PgConnection, known: &Migrator, url: &str) -> Result<bool, StoreError> {
    let applied: Result<Vec<i64>, sqlx::Error> =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(connection)
            .await;
    let applied = match applied {
        Ok(applied) => applied,
        // There is no such table.
        Err(error) if code(&error).as_deref() == Some("42P01") => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let versions: Vec<i64> = known.iter().map(|migration| migration.version).collect();
    match applied.iter().find(|version| !versions.contains(version)) {
        Some(&migration) => Err(StoreError::Newer { place: redacted(url), migration }),
        None => Ok(applied == versions),
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Into::into)
}

/// Why the server cannot be used, and what to do.
fn in_words(error: sqlx::Error, options: &PgConnectOptions, url: &str) -> StoreError {
    let (host, port, user) = (options.get_host(), options.get_port(), options.get_username());
    let database = options.get_database().unwrap_or(user);
    let says = error.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
    let reason = match (&error, code(&error).as_deref()) {
        (_, Some("28P01")) => {
            format!("it refuses the password of user `{user}`; give the right one in the URL, PGPASSWORD or ~/.pgpass")
        }
        (_, Some("28000")) => format!("it does not let user `{user}` in: {says}"),
        (_, Some("3D000")) => format!("it has no database `{database}`; make it with `createdb {database}`"),
        (_, Some("42501")) => {
            format!(
                "user `{user}` may not do what is needed: {says}; the owner can `GRANT USAGE, CREATE ON SCHEMA public TO {user}`"
            )
        }
        (_, Some("53300")) => format!("it has no room for another connection: {says}"),
        (sqlx::Error::Io(error), _) => match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("nothing answers at {host}:{port}; does the server run?"),
            io::ErrorKind::TimedOut => format!("no answer from {host}:{port} within {CONNECT:?}"),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                format!("its socket cannot be opened: {error}")
            }
            _ => format!("no connection to {host}:{port}: {error}"),
        },
        (sqlx::Error::Tls(error), _) => {
            let other = match options.get_ssl_mode() {
                PgSslMode::Require => "a server without TLS needs `sslmode=prefer` or `sslmode=disable`",
                _ => "`sslrootcert=FILE` names the certificate to trust, `sslmode=require` trusts any",
            };
            format!("no TLS: {error}; {other}")
        }
        (_, Some(_)) => says,
        _ => error.to_string(),
    };
    StoreError::Connect { place: redacted(url), reason }
}
