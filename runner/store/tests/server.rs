//! A PostgreSQL server that is not there, refuses, stops, breaks connections and swallows answers.

#![cfg(test)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runner_contract::Digest;
use runner_store::{
    Claim, Claimed, Entry, Finish, NewRun, Place, Records, RunStatus, Store, StoreError, TaskRecord, TaskStatus,
};
use runner_testbed::{Direction, Postgres};
use tempfile::TempDir;

fn place(url: String) -> (Place, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Place { records: Some(url), ..Place::folder(folder.path().join("state")) }, folder)
}

async fn open(url: String) -> (Store, TempDir) {
    let (place, folder) = place(url);
    (Store::open_at(&place).await.unwrap(), folder)
}

/// What is said where the records cannot be opened.
async fn refusal(url: String) -> String {
    let (place, _folder) = place(url);
    match Store::open_at(&place).await {
        Ok(_) => "opened".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn task(task: u64, status: TaskStatus) -> TaskRecord {
    TaskRecord {
        task,
        stages: vec!["image".into()],
        shard: None,
        attempt: 1,
        status,
        rows: 1,
        bad: 0,
        started: None,
        ended: None,
        error: None,
    }
}

fn key(i: u64) -> Digest {
    Digest::of(&i.to_le_bytes())
}

fn entry(i: u64) -> Entry {
    Entry { key: key(i), digest: key(i), rows: 1, bytes: 8, bad: 0, bad_rows: vec![], holds: vec![] }
}

fn succeeded() -> Finish {
    Finish { status: RunStatus::Succeeded, reason: None, executed: 0, cached: 0, gates: vec![] }
}

/// Claims a task and commits it.
async fn work(records: &Records, run: &str, i: u64) {
    let claim = Claim { task: task(i, TaskStatus::Running), keys: vec![key(i)] };
    assert_eq!(records.claim(run, &[claim]).await.unwrap(), [Claimed::Yours { made: vec![] }], "task {i}");
    records.commit(run, &[task(i, TaskStatus::Done)], &[entry(i)]).await.unwrap();
}

// ---------------------------------------------------------------------------------------------------- at the door

#[tokio::test]
async fn what_is_in_the_way_is_said_with_what_to_do() {
    let postgres = Postgres::start();
    let (url, password) = (postgres.url(), postgres.password().unwrap_or("no password").to_owned());
    let (address, database) = (postgres.address(), url.rsplit('/').next().unwrap().to_owned());
    let shown = format!("postgres://postgres:***@{address}");
    let said = async |url: String, expected: String| {
        let said = refusal(url).await;
        assert!(said.starts_with(&expected), "{said}\n instead of\n{expected}");
        assert!(!said.contains(&password), "{said}");
    };

    said(
        url.replace(&password, "wrong-pass"),
        format!("cannot use {shown}/{database}: it refuses the password of user `postgres`; give"),
    )
    .await;
    said(
        url.replace(&database, "nowhere"),
        format!("cannot use {shown}/nowhere: it has no database `nowhere`; make it with `createdb nowhere`"),
    )
    .await;
    said(format!("{url}?sslmode=require"), format!("cannot use {shown}/{database}?sslmode=require: no TLS: ")).await;
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    said(
        format!("postgres://u:{password}@{free}/db"),
        format!(
            "cannot use postgres://u:***@{free}/db: nothing answers at 127.0.0.1:{}; does the server run?",
            free.port()
        ),
    )
    .await;
    said(
        format!("postgres://u:{password}@no-such-host.invalid/db"),
        "cannot use postgres://u:***@no-such-host.invalid/db: no connection to no-such-host.invalid:5432: ".to_owned(),
    )
    .await;
    said(
        format!("{url}?sslmod=require"),
        format!(
            "`{shown}/{database}?sslmod=require` is no place for records: it knows no `sslmod`; there are sslmode, "
        ),
    )
    .await;
    said(
        format!("mysql://u:{password}@host/db"),
        "`mysql://u:***@host/db` is no place for records: it is to begin with `postgres://`".to_owned(),
    )
    .await;
    said(
        format!("postgres://u:{password}@host:port/db"),
        "`postgres://u:***@host:port/db` is no place for records: ".to_owned(),
    )
    .await;
}

#[tokio::test]
async fn a_user_without_rights_is_told_so_and_one_with_a_few_can_work() {
    let postgres = Postgres::start();
    let name = format!("reader_{}", std::process::id());
    postgres.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'secret-of-reader'"));
    postgres.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let (_, rest) = postgres.url().split_once('@').map(|(user, rest)| (user.to_owned(), rest.to_owned())).unwrap();
    let url = format!("postgres://{name}:secret-of-reader@{rest}");
    let said = refusal(url.clone()).await;
    assert!(said.contains(&format!("user `{name}` may not do what is needed: permission denied")), "{said}");
    assert!(said.contains("GRANT") && !said.contains("secret-of-reader"), "{said}");

    // The owner has made the tables.
    drop(open(postgres.url()).await);
    let said = refusal(url.clone()).await;
    assert!(said.contains("permission denied for table"), "{said}");
    postgres.execute(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}"));
    let (store, _folder) = open(url).await;
    let live = store.records().begin(&NewRun::default()).await.unwrap();
    work(store.records(), live.id(), 1).await;
    store.records().finish(live, &succeeded()).await.unwrap();
    postgres.execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let postgres = Postgres::start();
    drop(open(postgres.url()).await);
    postgres.execute(
        "INSERT INTO _sqlx_migrations SELECT 9999, 'later', now(), true, checksum, 0 FROM _sqlx_migrations LIMIT 1",
    );
    let said = refusal(postgres.url()).await;
    assert!(
        said.ends_with("was made by a newer version of runner (its migration 9999 is unknown here); update runner"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_that_start_at_once_make_the_tables_once() {
    let postgres = Postgres::start();
    let openers: Vec<_> = (0..16)
        .map(|_| {
            let url = postgres.url();
            tokio::spawn(async move {
                let (store, _folder) = open(url).await;
                let live = store.records().begin(&NewRun::default()).await.unwrap();
                store.records().finish(live, &succeeded()).await.unwrap();
            })
        })
        .collect();
    for opener in openers {
        opener.await.unwrap();
    }
    assert_eq!(postgres.number("SELECT count(*) FROM runs WHERE status = 'succeeded'"), 16);
    assert_eq!(postgres.number("SELECT count(*) FROM store"), 1);
}

#[tokio::test]
async fn the_tables_can_be_read_by_hand() {
    let postgres = Postgres::start();
    let (store, _folder) = open(postgres.url()).await;
    let new = NewRun {
        params: serde_json::json!({"model": "b32"}),
        environment: serde_json::json!({"cpu": "x"}),
        ..NewRun::default()
    };
    let live = store.records().begin(&new).await.unwrap();
    assert!(
        postgres.number(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'runner' AND datname = current_database()"
        ) > 0
    );
    assert_eq!(
        postgres.number(
            "SELECT count(*) FROM runs WHERE params->>'model' = 'b32' AND environment @> '{\"cpu\": \"x\"}'
                 AND started > now() - interval '1 minute' AND status = 'running'"
        ),
        1
    );
    drop(live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_breaks_at_the_door_is_made_again() {
    let postgres = Postgres::start();
    for bytes in [0, 5, 400, 3_000] {
        let proxy = postgres.proxy();
        proxy.cut_after(Direction::ToClient, bytes);
        let healing = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxy.heal();
        };
        let ((store, _folder), ()) = tokio::join!(open(postgres.url_through(&proxy)), healing);
        store.records().begin(&NewRun::default()).await.unwrap();
    }
}

// --------------------------------------------------------------------------------------------------- at work

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_of_the_server_is_waited_for() {
    let postgres = Arc::new(Postgres::alone());
    let (store, _folder) = open(postgres.url()).await;
    let live = store.records().begin(&NewRun::default()).await.unwrap();
    work(store.records(), live.id(), 0).await;
    for (round, crash) in [(1, false), (2, true)] {
        let done = Arc::new(AtomicBool::new(false));
        let (server, ended) = (postgres.clone(), done.clone());
        let restart = tokio::task::spawn_blocking(move || {
            if crash {
                server.crash();
            }
            server.restart();
            ended.store(true, Ordering::Relaxed);
        });
        let mut i = round * 100_000;
        let mut after = 0;
        while after < 5 {
            i += 1;
            after += u32::from(done.load(Ordering::Relaxed));
            work(store.records(), live.id(), i).await;
        }
        restart.await.unwrap();
        let made = postgres.number(&format!("SELECT count(*) FROM artifacts WHERE run = '{}'", live.id()));
        let done =
            postgres.number(&format!("SELECT count(*) FROM tasks WHERE run = '{}' AND status = 'done'", live.id()));
        assert_eq!(made, done);
        assert_eq!(postgres.number("SELECT count(*) FROM leases"), 0);
    }
    store.records().finish(live, &succeeded()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_are_cut_lose_nothing() {
    let postgres = Arc::new(Postgres::start());
    let (store, _folder) = open(postgres.url()).await;
    let live = store.records().begin(&NewRun::default()).await.unwrap();
    let count = 20;
    for i in 0..count {
        let server = postgres.clone();
        // Somewhere in the middle of it.
        let cut = tokio::task::spawn_blocking(move || server.disconnect());
        let (cut, ()) = tokio::join!(cut, work(store.records(), live.id(), i));
        cut.unwrap();
    }
    let keys: Vec<Digest> = (0..count).map(key).collect();
    assert_eq!(store.records().lookup(&keys).await.unwrap().len() as u64, count);
    store.records().finish(live, &succeeded()).await.unwrap();
}

/// The server has done it, and the answer is lost: the call is made again and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_reply_to_a_commit_does_no_harm() {
    let postgres = Postgres::start();
    let proxy = postgres.proxy();
    let (store, _folder) = open(postgres.url_through(&proxy)).await;
    let records = store.records();

    proxy.lose_reply(b"COMMIT", 0);
    let live = records.begin(&NewRun::default()).await.unwrap();
    assert_eq!(proxy.happened(), 1, "the reply was lost");
    assert_eq!(postgres.number("SELECT count(*) FROM runs"), 1);
    for i in 0..4 {
        proxy.lose_reply(b"COMMIT", u32::try_from(i % 2).unwrap());
        work(records, live.id(), i).await;
        assert_eq!(proxy.happened(), i + 2);
    }
    assert_eq!(postgres.number("SELECT count(*) FROM tasks WHERE status = 'done'"), 4);
    assert_eq!(postgres.number("SELECT count(*) FROM leases"), 0);
    proxy.lose_reply(b"COMMIT", 0);
    let id = live.id().to_owned();
    records.finish(live, &succeeded()).await.unwrap();
    assert_eq!(records.run(&id).await.unwrap().status, RunStatus::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_does_not_answer_is_left_for_another_connection() {
    let postgres = Postgres::start();
    let proxy = postgres.proxy();
    let (store, _folder) = open(postgres.url_through(&proxy)).await;
    let store = store.with_patience(Duration::from_millis(300), Duration::from_secs(20));
    let live = store.records().begin(&NewRun::default()).await.unwrap();
    proxy.swallow();
    let healing = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        proxy.heal();
    };
    tokio::join!(work(store.records(), live.id(), 1), healing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_stays_away_is_said_to_be_away() {
    let postgres = Postgres::alone();
    let (store, _folder) = open(postgres.url()).await;
    let store = store.with_patience(Duration::from_secs(30), Duration::from_millis(500));
    let live = store.records().begin(&NewRun::default()).await.unwrap();
    postgres.stop();
    let error = store.records().commit(live.id(), &[task(0, TaskStatus::Done)], &[]).await.unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("records: no answer from postgres://postgres:***@"), "{said}");
    assert!(!said.contains(postgres.password().unwrap()) && error.is_transient(), "{said}");
    postgres.restart();
    let store = store.with_patience(Duration::from_secs(30), Duration::from_secs(30));
    store.records().commit(live.id(), &[task(0, TaskStatus::Done)], &[]).await.unwrap();
    assert!(matches!(store.records().run("latest").await, Ok(run) if run.status == RunStatus::Running));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_that_somebody_holds_is_waited_for() {
    let postgres = Postgres::start();
    let (store, _folder) = open(postgres.url()).await;
    let live = store.records().begin(&NewRun::default()).await.unwrap();
    let url = postgres.url();
    let (locked, wait) = tokio::sync::oneshot::channel();
    let holder = tokio::spawn(async move {
        use sqlx::{Connection, PgConnection};
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("BEGIN; LOCK TABLE artifacts").execute(&mut connection).await.unwrap();
        locked.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        connection.close().await.unwrap();
    });
    wait.await.unwrap();
    work(store.records(), live.id(), 1).await;
    holder.await.unwrap();
    let gone: Result<(), StoreError> = store.records().finish(live, &succeeded()).await;
    gone.unwrap();
}
