//! What is promised of the folder of a store: others' folders are left alone, damage and newer versions are named, older stores open.

use std::{fs, path::Path};

use runner_store::Store;

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
