//! Every call fails once, before its effect or after it, and then for ever: nothing is done twice, nothing is half done.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runner_contract::Digest;
use runner_store::{
    Call, CancelRequest, Claimed, Collect, Entry, Faults, FileRecord, FileStamp, Finish, GateRecord, Level, LogLine,
    Metric, Moment, RunStatus, Store, StoreError, TaskStatus,
};

use crate::bench::{Bench, claim, new_run, stage, succeeded, task};

/// A small run that makes a call of every kind that writes.
async fn work(store: &Store) -> Result<(), StoreError> {
    let (records, artifacts) = (store.records(), store.artifacts());
    let live = records.begin(&new_run()).await?;
    let run = live.id();
    records.put_stages(run, &[stage("s", 0, TaskStatus::Running)]).await?;
    for i in 0..2u64 {
        let answer = records.claim(run, &[claim(i, &[&i.to_le_bytes()])]).await?;
        if matches!(answer[..], [Claimed::Made(_)]) {
            continue;
        }
        assert_eq!(answer, [Claimed::Yours { made: vec![] }], "nobody else is there");
        let held = artifacts.put(format!("held {i}")).await?;
        let digest = artifacts.put(format!("made {i}")).await?;
        let made = Entry {
            key: Digest::of(&i.to_le_bytes()),
            digest,
            rows: i,
            bytes: 6,
            bad: 0,
            bad_rows: vec![],
            holds: vec![held],
        };
        let checkpoint = artifacts.put("checkpoint").await?;
        records.set_checkpoint(&made.key, Some(&checkpoint)).await?;
        records.commit(run, &[task(i, TaskStatus::Done)], std::slice::from_ref(&made)).await?;
        records.set_checkpoint(&made.key, None).await?;
    }
    records.claim(run, &[claim(7, &[b"given back"])]).await?;
    records.release(run, &[Digest::of(b"given back")]).await?;
    records.put_metrics(run, &[Metric { name: "m".into(), step: None, value: 0.5, n: None, n_bad: None }]).await?;
    let line = LogLine {
        seq: 1,
        time: chrono::DateTime::UNIX_EPOCH,
        stage: None,
        shard: None,
        level: Level::Info,
        text: "x".into(),
    };
    records.log(run, &[line]).await?;
    let digest = artifacts.put("picture").await?;
    records.put_files(run, &[FileRecord { stage: "s".into(), name: "f".into(), digest, bytes: 7 }]).await?;
    records.set_memos(&[(FileStamp { path: "/x".into(), size: 1, modified: 2 }, digest)]).await?;
    records.request_cancel(run, CancelRequest::Finish).await?;
    records.put_stages(run, &[stage("s", 0, TaskStatus::Done)]).await?;
    let gate =
        GateRecord { name: "g".into(), metric: "m".into(), value: Some(0.5), min: None, max: None, passed: true };
    records.finish(live, &Finish { gates: vec![gate], ..succeeded() }).await
}

/// What the newest run left behind, and what is known since.
async fn seen(store: &Store) -> String {
    let records = store.records();
    let run = records.run("latest").await.unwrap();
    let keys: Vec<Digest> = (0..2u64).map(|i| Digest::of(&i.to_le_bytes())).collect();
    let mut entries: Vec<Entry> = records.lookup(&keys).await.unwrap().into_values().collect();
    entries.sort_unstable_by_key(|entry| entry.rows);
    for entry in &entries {
        store.artifacts().get(&entry.digest).await.unwrap();
    }
    // What a failure has left goes with the next collection.
    store.collect(&Collect::default()).await.unwrap();
    let left = store.artifacts().list().await.unwrap();
    let metrics = records.metrics(&run.id).await.unwrap();
    let (files, gates) = (records.files(&run.id).await.unwrap(), records.gates(&run.id).await.unwrap());
    let (stages, log) = (records.stages(&run.id).await.unwrap(), records.logs(&run.id, None, 0, 9).await.unwrap());
    format!("{:?} {entries:?} {left:?} {metrics:?} {files:?} {gates:?} {stages:?} {log:?}", run.status)
}

/// Faults of the calls that the work makes; what runs beside it goes on.
fn faults(fails: impl Fn(Call) -> bool + Send + Sync + 'static) -> Faults {
    Faults::new(move |call| !matches!(call.name, "pulse" | "interrupt") && fails(call))
}

async fn untouched(bench: &Bench) -> String {
    let store = bench.open().await;
    work(&store).await.unwrap();
    seen(&store).await
}

/// The first attempt fails before its effect, the second one after it, the third one succeeds.
pub(crate) async fn every_call_is_made_again_until_it_succeeds(bench: Bench) {
    let expected = untouched(&bench).await;
    let bench = bench.another().await;
    let (attempts, calls) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let counted = calls.clone();
    let faults = faults(move |call| match call.moment {
        Moment::Before => attempts.fetch_add(1, Ordering::Relaxed) % 3 == 0,
        Moment::After if attempts.load(Ordering::Relaxed) % 3 == 2 => true,
        Moment::After => {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        }
    });
    let store = bench.open().await;
    work(&store.clone().with_faults(faults, Duration::from_secs(30))).await.unwrap();
    assert!(calls.load(Ordering::Relaxed) > 20);
    assert_eq!(seen(&store).await, expected);
    assert_eq!(store.records().runs(9).await.unwrap().len(), 1);
}

/// From the n-th call on, whatever has its effect has no answer.
pub(crate) async fn after_any_failure_the_next_run_repairs(bench: Bench) {
    let expected = untouched(&bench).await;
    for n in 1.. {
        let bench = bench.another().await;
        let calls = AtomicU64::new(0);
        let faults = faults(move |call| call.moment == Moment::After && calls.fetch_add(1, Ordering::Relaxed) + 1 >= n);
        let result = work(&bench.open().await.with_faults(faults, Duration::ZERO)).await;
        match &result {
            Ok(()) | Err(StoreError::Unavailable { .. }) => {}
            Err(error) => panic!("call {n}: {error}"),
        }
        let store = bench.open().await;
        for run in store.records().runs(9).await.unwrap() {
            assert_ne!(run.status, RunStatus::Running, "call {n}");
        }
        work(&store).await.unwrap_or_else(|error| panic!("call {n}, then: {error}"));
        assert_eq!(seen(&store).await, expected, "call {n}");
        if result.is_ok() {
            break;
        }
    }
}
