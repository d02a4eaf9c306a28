//! A process that writes is killed at random moments. What it has committed is whole, and nothing stays `running`.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use runner_contract::Digest;
use runner_store::{Entry, NewRun, RunStatus, Store, TaskRecord, TaskStatus};

const FOLDER: &str = "RUNNER_STORE_TEST_FOLDER";
const KILLS: u64 = 8;

/// The process to be killed: this test, run again with a folder in its environment. Stores and commits until it dies.
async fn write_until_killed(folder: &str) -> Result<(), Box<dyn Error>> {
    let store = Store::open(folder).await?;
    let live = store.records().begin(&NewRun::default()).await?;
    for i in 0u64.. {
        let digest = store.artifacts().put(vec![i.to_le_bytes()[0]; 40_000 + usize::try_from(i)?]).await?;
        let key = Digest::of(&i.to_le_bytes());
        let made = Entry { key, digest, rows: i, bytes: 0, bad: 0, bad_rows: vec![], holds: vec![] };
        let task = TaskRecord {
            task: i,
            stages: vec![],
            shard: None,
            attempt: 1,
            status: TaskStatus::Done,
            rows: i,
            bad: 0,
            started: None,
            ended: None,
            error: None,
        };
        store.records().commit(live.id(), &[task], &[made]).await?;
        writeln!(std::io::stdout(), "committed {i}")?;
    }
    Ok(())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_kill_at_any_moment_does_no_harm() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return write_until_killed(&folder).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("state");
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_kill_at_any_moment_does_no_harm", "--nocapture"])
            .env(FOLDER, &root)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // After so many commits, and then wherever it is by now.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let last = lines
            .by_ref()
            .map_while(Result::ok)
            .filter(|line| line.starts_with("committed"))
            .nth(1 + 3 * kill as usize);
        assert!(last.is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        let committed = 2 + 3 * kill;

        let store = Store::open(&root).await.unwrap();
        let aside = |file: &Path| file.to_string_lossy().contains('#');
        assert!(!files_below(&root.join("artifacts")).iter().any(|file| aside(file)), "nothing half-written is left");
        let runs = store.records().runs(100).await.unwrap();
        assert_eq!(runs.len() as u64, kill + 1);
        for run in &runs {
            assert_eq!((run.status, run.reason.as_deref()), (RunStatus::Failed, Some("interrupted")));
        }
        let tasks = store.records().tasks(&runs[0].id).await.unwrap();
        assert!(tasks.len() as u64 >= committed, "{} of {committed}", tasks.len());
        let keys: Vec<_> = tasks.iter().map(|task| Digest::of(&task.task.to_le_bytes())).collect();
        let entries = store.records().lookup(&keys).await.unwrap();
        assert_eq!(entries.len(), keys.len(), "a task and what it made are recorded together");
        for entry in entries.values() {
            store.artifacts().get(&entry.digest).await.unwrap();
        }
    }
}
