//! A disk with no room: the call says so, nothing half-written is to be seen, and the next one works.

use std::{path::Path, process::Command};

use runner_contract::Digest;
use runner_store::{Artifacts, StoreError};

use crate::bench::content;

const FOLDER: &str = "RUNNER_TEST_FULL_FOLDER";

/// Run again in a process that may not write files of more than 64 KiB; that needs no rights and is the same to the program.
#[tokio::test]
async fn no_room_is_told_and_leaves_nothing_behind() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return in_little_room(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let limited = "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full::no_room_is_told_and_leaves_nothing_behind", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

async fn in_little_room(folder: &Path) {
    let artifacts = Artifacts::local(folder).unwrap();
    let large = content(200_000, 0);
    for _ in 0..2 {
        let error = artifacts.put(large.clone()).await.unwrap_err();
        assert!(matches!(&error, StoreError::Full { .. }), "{error}");
        let message = error.to_string();
        assert!(message.starts_with("no room left in ") && message.contains("`runner gc`"), "{message}");
        assert!(!artifacts.exists(&Digest::of(&large)).await.unwrap());
    }
    let files =
        |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert!(files(folder).iter().all(|folder| files(folder).is_empty()));
    let small = artifacts.put(content(60_000, 0)).await.unwrap();
    assert_eq!(artifacts.list().await.unwrap(), [(small, 60_000)]);
}
