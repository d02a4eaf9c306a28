//! What the records cost a run: `cargo bench -p runner-store`. PostgreSQL forces every commit to disk, as in production.

use std::{
    error::Error,
    io::Write,
    time::{Duration, Instant},
};

use runner_contract::Digest;
use runner_store::{
    Claim, Claimed, Entry, Finish, LogLine, NewRun, Place, RunStatus, Store, StoreError, TaskRecord, TaskStatus,
};
use runner_testbed::Postgres;

/// Tasks that are claimed and committed one by one.
const TASKS: u64 = 1_000;
/// Keys that are looked up at once.
const KEYS: u64 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let sqlite = Place::folder(folder.path().join("sqlite"));
    let postgres = Postgres::durable();
    let server = Place { records: Some(postgres.url()), ..Place::folder(folder.path().join("postgres")) };
    for (name, place) in [("SQLite", sqlite), ("PostgreSQL", server)] {
        let results = runtime.block_on(measure(&place))?;
        let mut out = std::io::stdout();
        writeln!(out, "{name}")?;
        for (what, time) in results {
            writeln!(out, "  {what:<44}{:>9.3} ms", time.as_secs_f64() * 1e3)?;
        }
    }
    Ok(())
}

async fn measure(place: &Place) -> Result<Vec<(&'static str, Duration)>, StoreError> {
    let mut results = Vec::new();
    let store = Store::open_at(place).await?;
    let begun = Instant::now();
    let again = Store::open_at(place).await?;
    results.push(("open a store that is there", begun.elapsed()));
    again.close().await;
    let records = store.records();
    let live = records.begin(&NewRun { pipeline: "bench".into(), ..NewRun::default() }).await?;
    let run = live.id();

    // The first ones prepare statements and open connections.
    for i in 0..20 {
        one(&store, run, TASKS + i).await?;
    }
    let mut times = Vec::new();
    for i in 0..TASKS {
        let begun = Instant::now();
        one(&store, run, i).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    results.push(("claim and commit a task, mean", times.iter().sum::<Duration>() / times.len() as u32));
    results.push(("claim and commit a task, median", times[times.len() / 2]));
    results.push(("claim and commit a task, 99 of 100", times[times.len() * 99 / 100]));

    let numbers: Vec<u64> = (0..100).map(|i| 1_000_000 + i).collect();
    let claims: Vec<Claim> = numbers.iter().map(|&i| claim(i)).collect();
    let begun = Instant::now();
    records.claim(run, &claims).await?;
    let done: Vec<TaskRecord> = numbers.iter().map(|&i| task(i, TaskStatus::Done)).collect();
    records.commit(run, &done, &numbers.iter().map(|&i| entry(i)).collect::<Vec<_>>()).await?;
    results.push(("the same for 100 at once, each", begun.elapsed() / 100));

    let many: Vec<Entry> = (2_000_000..2_000_000 + KEYS).map(entry).collect();
    let begun = Instant::now();
    records.commit(run, &[], &many).await?;
    results.push(("commit 10,000 results at once", begun.elapsed()));
    let keys: Vec<Digest> = many.iter().map(|entry| entry.key).collect();
    for what in ["look up 10,000 keys", "look up 10,000 keys again"] {
        let begun = Instant::now();
        assert_eq!(records.lookup(&keys).await?.len(), keys.len());
        results.push((what, begun.elapsed()));
    }
    let lines: Vec<LogLine> = (1..=1_000).map(line).collect();
    let begun = Instant::now();
    records.log(run, &lines).await?;
    results.push(("log 1,000 lines at once", begun.elapsed()));
    let succeeded =
        Finish { status: RunStatus::Succeeded, reason: None, executed: TASKS, cached: 0, gates: Vec::new() };
    records.finish(live, &succeeded).await?;
    Ok(results)
}

async fn one(store: &Store, run: &str, i: u64) -> Result<(), StoreError> {
    let answers = store.records().claim(run, &[claim(i)]).await?;
    assert!(matches!(answers[..], [Claimed::Yours { .. }]));
    store.records().commit(run, &[task(i, TaskStatus::Done)], &[entry(i)]).await
}

fn key(i: u64) -> Digest {
    Digest::of(&i.to_le_bytes())
}

fn claim(i: u64) -> Claim {
    Claim { task: task(i, TaskStatus::Running), keys: vec![key(i)] }
}

fn entry(i: u64) -> Entry {
    Entry { key: key(i), digest: key(i + 1), rows: 1, bytes: 8, bad: 0, bad_rows: Vec::new(), holds: Vec::new() }
}

fn task(task: u64, status: TaskStatus) -> TaskRecord {
    TaskRecord {
        task,
        stages: vec!["image".to_owned()],
        shard: u32::try_from(task).ok(),
        attempt: 1,
        status,
        rows: 1_024,
        bad: 0,
        started: Some(chrono::Utc::now()),
        ended: None,
        error: None,
    }
}

fn line(seq: u64) -> LogLine {
    LogLine {
        seq,
        time: chrono::Utc::now(),
        stage: Some("image".to_owned()),
        shard: None,
        level: runner_store::Level::Info,
        text: "a line as long as lines are, with a number or two".to_owned(),
    }
}
