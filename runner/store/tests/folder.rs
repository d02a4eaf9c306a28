//! What is promised of the folder of a store: others' folders are left alone, damage and newer versions are named, older stores open.

use std::{fs, path::Path};

use runner_contract::Digest;
use runner_store::{Artifacts, Collect, NewRun, RunStatus, Store};

async fn refusal(root: &Path) -> String {
    Store::open(root)
        .await
        .map(|_| "opened")
        .map_or_else(|error| error.to_string(), str::to_owned)
        .replace(&root.display().to_string(), "STATE")
}

#[tokio::test]
async fn a_folder_of_other_things_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "").unwrap();
    assert_eq!(
        refusal(folder.path()).await,
        "STATE is not a store: it holds thesis.tex and no locks; name an empty or new folder"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(!Store::exists(folder.path()));
}

#[tokio::test]
async fn a_store_that_cannot_be_made_is_named() {
    let message = refusal(Path::new("/proc/store")).await;
    assert!(message.starts_with("cannot create the store STATE: ") && message.contains("--store"), "{message}");
}

#[tokio::test]
async fn a_damaged_database_is_said_to_be_damaged() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path()).await.unwrap().close().await;
    assert!(Store::exists(folder.path()));
    fs::write(folder.path().join("records.sqlite"), vec![b'?'; 10_000]).unwrap();
    let message = refusal(folder.path()).await;
    assert!(message.starts_with("STATE/records.sqlite is damaged: "), "{message}");
    assert!(message.contains("move it away to begin anew"), "{message}");
}

#[tokio::test]
async fn a_newer_database_is_said_to_be_newer() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).await.unwrap());
    let url = format!("sqlite://{}", folder.path().join("records.sqlite").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations SELECT 9999, 'later', installed_on, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    assert_eq!(
        refusal(folder.path()).await,
        "STATE/records.sqlite was made by a newer version of runner (its migration 9999 is unknown here); update runner"
    );
}

#[tokio::test]
async fn the_store_keeps_itself_out_of_version_control() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/b/.runner");
    drop(Store::open(&root).await.unwrap());
    assert_eq!(fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n");
}

/// As a version left it whose tables were fewer: nothing about processes, leases and what artifacts hold.
#[tokio::test]
async fn an_older_store_opens_and_keeps_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("state");
    fs::create_dir_all(root.join("locks")).unwrap();
    let path = root.join("records.sqlite");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    let (one, two) = (
        include_str!("../../../migrations/sqlite/0001_runs_and_artifacts.sql"),
        include_str!("../../../migrations/sqlite/0002_wall_time.sql"),
    );
    let files = [(1, "0001_runs_and_artifacts", one), (2, "0002_wall_time", two)];
    let old = files.map(|(version, name, sql)| {
        use sqlx::{
            SqlSafeStr,
            migrate::{Migration, MigrationType},
        };
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    sqlx::migrate::Migrator::with_migrations(old.into()).run(&pool).await.unwrap();

    let artifacts = Artifacts::local(&root.join("artifacts")).unwrap();
    let picture = artifacts.put(&b"picture"[..]).await.unwrap();
    let manifest = format!("{{\"version\":1,\"files\":[{{\"name\":\"x\",\"digest\":\"{picture}\",\"bytes\":7}}]}}");
    let manifest = artifacts.put(manifest).await.unwrap();
    let table = artifacts.put(&b"PAR1 no manifest"[..]).await.unwrap();
    let orphan = artifacts.put(&b"orphan"[..]).await.unwrap();
    let (key, other) = (Digest::of(b"k"), Digest::of(b"l"));
    for statement in [
        "INSERT INTO runs (id, pipeline, text, params, command, folder, host, pid, version, status, started)
         VALUES ('20250101-000000-aaaa', 'old', 'version: 1', '{}', '[]', '/', 'h', 1, '0.1.0', 'running',
             '2025-01-01T00:00:00.000Z')"
            .to_owned(),
        "INSERT INTO tasks (run, task, stages, status, rows, bad) VALUES ('20250101-000000-aaaa', 0, '[\"s\"]', 'done', 1, 0)"
            .to_owned(),
        format!("INSERT INTO artifacts VALUES ('{key}', '{manifest}', 1, 1, 0, '[]', NULL, '2025-01-01T00:00:00.000Z')"),
        format!("INSERT INTO artifacts VALUES ('{other}', '{table}', 1, 1, 0, '[]', NULL, '2025-01-01T00:00:00.000Z')"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    }
    pool.close().await;

    let store = Store::open(&root).await.unwrap();
    let run = store.records().run("latest").await.unwrap();
    assert_eq!((run.status, run.reason.as_deref()), (RunStatus::Failed, Some("interrupted")));
    assert_eq!(store.records().tasks(&run.id).await.unwrap()[0].attempt, 1);
    for dry_run in [true, false] {
        let collected = store.collect(&Collect { dry_run, ..Collect::default() }).await.unwrap();
        assert_eq!(collected.blobs, [(orphan, 6)], "what a manifest names is not removed");
    }
    assert_eq!(store.records().lookup(&[key]).await.unwrap()[&key].holds, [picture], "found out by the collection");
    let live = store.records().begin(&NewRun::default()).await.unwrap();
    drop(live);
}
