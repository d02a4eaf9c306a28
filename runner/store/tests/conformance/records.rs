//! What was recorded comes back as it was, after reopening too, and takes many writers.

use std::{collections::HashMap, path::Path, time::Instant};

use runner_contract::Digest;
use runner_store::{
    BAD_ROWS_KEPT, BadRow, Entry, FileRecord, FileStamp, Finish, GateRecord, Metric, RunStatus, StoreError, TaskStatus,
};

use crate::bench::{Bench, entry, new_run, stage, succeeded, task};

pub(crate) async fn what_was_recorded_comes_back_after_reopening(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let live = records.begin(&new_run()).await.unwrap();
    let id = live.id().to_owned();
    let gate = |name: &str, value| GateRecord {
        name: name.into(),
        metric: "metrics.top1".into(),
        value,
        min: Some(0.97),
        max: None,
        passed: value.is_some(),
    };
    let stages = [stage("b", 0, TaskStatus::Done), stage("a", 1, TaskStatus::Cached)];
    let metric = |name: &str, step, value| Metric {
        name: name.into(),
        step,
        value,
        n: step.is_none().then_some(10_000),
        n_bad: Some(0),
    };
    let file = FileRecord { stage: "m".into(), name: "confusion.png".into(), digest: Digest::of(b"png"), bytes: 3 };
    records.put_stages(&id, &[stage("b", 0, TaskStatus::Running)]).await.unwrap();
    records.put_stages(&id, &stages).await.unwrap();
    records.put_tasks(&id, &[task(0, TaskStatus::Waiting), task(1, TaskStatus::Waiting)]).await.unwrap();
    records.commit(&id, &[task(0, TaskStatus::Done)], &[entry(b"k")]).await.unwrap();
    records
        .put_metrics(
            &id,
            &[metric("m.top1", None, 0.5), metric("loss", Some(2), f64::INFINITY), metric("loss", Some(1), 3.0)],
        )
        .await
        .unwrap();
    records.put_metrics(&id, &[metric("m.top1", None, 0.975), metric("m.nan", None, f64::NAN)]).await.unwrap();
    records.put_files(&id, std::slice::from_ref(&file)).await.unwrap();
    let finish = Finish { gates: vec![gate("top1", Some(0.98)), gate("gone", None)], ..succeeded() };
    records.finish(live, &finish).await.unwrap();
    drop(store);

    let store = bench.open().await;
    let records = store.records();
    let run = records.run(&id).await.unwrap();
    assert_eq!((run.status, run.executed, run.cached, run.reason), (RunStatus::Succeeded, 5, 2, None));
    assert_eq!((run.pipeline, run.text, run.params), (new_run().pipeline, new_run().text, new_run().params));
    assert_eq!((run.command, run.pid, run.limit), (new_run().command, std::process::id(), Some(300)));
    assert_eq!(Path::new(&run.folder), std::env::current_dir().unwrap());
    assert!(run.ended.unwrap() >= run.started);
    assert_eq!(records.stages(&id).await.unwrap(), stages);
    assert_eq!(records.gates(&id).await.unwrap(), [gate("gone", None), gate("top1", Some(0.98))]);
    assert_eq!(records.files(&id).await.unwrap(), [file]);
    let metrics = records.metrics(&id).await.unwrap();
    assert!(metrics[0].value.is_nan());
    assert_eq!(metrics[1..], [metric("m.top1", None, 0.975)]);
    let series = records.series(&id).await.unwrap();
    assert_eq!(series, [metric("loss", Some(1), 3.0), metric("loss", Some(2), f64::INFINITY)]);
    let tasks = records.tasks(&id).await.unwrap();
    assert_eq!(tasks[0], task(0, TaskStatus::Done));
    assert_eq!(tasks[1].status, TaskStatus::Cancelled, "never begun");
    assert_eq!(records.lookup(&[entry(b"k").key, Digest::of(b"unknown")]).await.unwrap().len(), 1);
    assert_eq!(records.lookup(&[entry(b"k").key]).await.unwrap()[&entry(b"k").key], entry(b"k"));
    records.forget(&[entry(b"k").key]).await.unwrap();
    assert_eq!(records.lookup(&[entry(b"k").key]).await.unwrap(), HashMap::new());
}

pub(crate) async fn a_run_without_a_process_is_interrupted_and_a_living_one_is_not(bench: Bench) {
    let store = bench.open().await;
    let dead = store.records().begin(&new_run()).await.unwrap();
    let alive = store.records().begin(&new_run()).await.unwrap();
    let (dead_id, alive_id) = (dead.id().to_owned(), alive.id().to_owned());
    for id in [&dead_id, &alive_id] {
        store.records().put_stages(id, &[stage("s", 0, TaskStatus::Running)]).await.unwrap();
        let tasks = [task(0, TaskStatus::Done), task(1, TaskStatus::Running), task(2, TaskStatus::Waiting)];
        store.records().put_tasks(id, &tasks).await.unwrap();
    }
    drop(dead);

    let other = bench.open().await;
    let records = other.records();
    let run = records.run(&dead_id).await.unwrap();
    assert_eq!((run.status, run.reason.as_deref()), (RunStatus::Failed, Some("interrupted")));
    assert_eq!(records.stages(&dead_id).await.unwrap()[0].status, TaskStatus::Failed);
    let states: Vec<_> = records.tasks(&dead_id).await.unwrap().iter().map(|task| task.status).collect();
    assert_eq!(states, [TaskStatus::Done, TaskStatus::Failed, TaskStatus::Cancelled]);
    assert_eq!(records.run(&alive_id).await.unwrap().status, RunStatus::Running);
    assert_eq!(records.mark_interrupted().await.unwrap(), 0);

    records.finish(alive, &succeeded()).await.unwrap();
    assert_eq!(records.run(&alive_id).await.unwrap().status, RunStatus::Succeeded);
}

pub(crate) async fn a_run_is_found_by_what_people_type(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    assert!(matches!(records.run("latest").await, Err(StoreError::NoRuns)));
    let first = records.begin(&new_run()).await.unwrap();
    let second = records.begin(&new_run()).await.unwrap();
    let found = async |which: &str| records.run(which).await.map(|run| run.id);
    assert_eq!(found("latest").await.unwrap(), second.id());
    assert_eq!(found(first.id()).await.unwrap(), first.id());
    let (_, end) = first.id().rsplit_once('-').unwrap();
    assert_eq!(found(end).await.unwrap(), first.id());
    assert!(matches!(found("20").await, Err(StoreError::ManyRuns { .. })));
    for none in ["%", "_", "", "nothing", "' OR 1=1"] {
        assert!(matches!(found(none).await, Err(StoreError::NoRun(_))), "{none}");
    }
    assert_eq!(records.runs(1).await.unwrap()[0].id, second.id());
    assert_eq!(records.runs(10).await.unwrap().len(), 2);
    let shape = first.id().bytes().map(|byte| if byte == b'-' { '-' } else { 'x' }).collect::<String>();
    assert_eq!(shape, "xxxxxxxx-xxxxxx-xxxx");
}

pub(crate) async fn only_the_first_bad_rows_are_kept_and_all_are_counted(bench: Bench) {
    let store = bench.open().await;
    let live = store.records().begin(&new_run()).await.unwrap();
    let bad_rows = (0..1_000).map(|i| BadRow { id: i.to_string(), reason: "why".into() }).collect();
    let many = Entry { bad: 1_000, bad_rows, ..entry(b"k") };
    store.records().commit(live.id(), &[], std::slice::from_ref(&many)).await.unwrap();
    let kept = &store.records().lookup(&[many.key]).await.unwrap()[&many.key];
    assert_eq!((kept.bad, kept.bad_rows.len()), (1_000, BAD_ROWS_KEPT));
}

pub(crate) async fn ten_thousand_keys_are_looked_up_at_once(bench: Bench) {
    let store = bench.open().await;
    let live = store.records().begin(&new_run()).await.unwrap();
    let entries: Vec<_> = (0..10_000u32).map(|i| entry(&i.to_le_bytes())).collect();
    let tasks: Vec<_> = (0..10_000).map(|i| task(i, TaskStatus::Done)).collect();
    store.records().commit(live.id(), &tasks, &entries).await.unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| entry.key).collect();
    let start = Instant::now();
    assert_eq!(store.records().lookup(&keys).await.unwrap().len(), 10_000);
    assert!(start.elapsed().as_secs_f64() < 2.0, "{:?}", start.elapsed());
    assert_eq!(store.records().tasks(live.id()).await.unwrap().len(), 10_000);
}

pub(crate) async fn a_checkpoint_is_one_value_replaced_whole(bench: Bench) {
    let store = bench.open().await;
    let (records, key) = (store.records(), Digest::of(b"job"));
    let (one, two) = (Digest::of(b"1"), store.artifacts().put(&b"2"[..]).await.unwrap());
    let early = records.set_checkpoint(&key, Some(&one)).await;
    assert!(matches!(early, Err(StoreError::Vanished(gone)) if gone == [one]), "it is stored first");
    assert_eq!(store.artifacts().put(&b"1"[..]).await.unwrap(), one);
    assert_eq!(records.checkpoint(&key).await.unwrap(), None);
    assert_eq!(records.set_checkpoint(&key, Some(&one)).await.unwrap(), None);
    assert_eq!(records.set_checkpoint(&key, Some(&one)).await.unwrap(), None, "nothing is replaced by itself");
    assert_eq!(records.set_checkpoint(&key, Some(&two)).await.unwrap(), Some(one));
    assert_eq!(records.checkpoint(&key).await.unwrap(), Some(two));
    assert_eq!(records.set_checkpoint(&key, None).await.unwrap(), Some(two));
    assert_eq!(records.checkpoint(&key).await.unwrap(), None);
}

pub(crate) async fn a_file_that_changed_is_not_remembered(bench: Bench) {
    let store = bench.open().await;
    let (records, digest) = (store.records(), Digest::of(b"weights"));
    let file = |size, modified| FileStamp { path: "/m/model.safetensors".into(), size, modified };
    records.set_memos(&[(file(10, 1_700_000_000_000_000_001), digest)]).await.unwrap();
    let memo = async |size, modified| records.memos(&[file(size, modified)]).await.unwrap()[0];
    assert_eq!(memo(10, 1_700_000_000_000_000_001).await, Some(digest));
    assert_eq!(memo(11, 1_700_000_000_000_000_001).await, None);
    assert_eq!(memo(10, 1_700_000_000_000_000_002).await, None);
}

pub(crate) async fn many_open_and_write_at_once(bench: Bench) {
    let writers: Vec<_> = (0..8u32)
        .map(|writer| {
            let bench = bench.clone();
            tokio::spawn(async move {
                // Every writer makes or opens the store itself, as processes do.
                let store = bench.open().await;
                let live = store.records().begin(&new_run()).await.unwrap();
                for i in 0..20u32 {
                    let made = entry(&[writer.to_le_bytes(), i.to_le_bytes()].concat());
                    store.records().commit(live.id(), &[task(u64::from(i), TaskStatus::Done)], &[made]).await.unwrap();
                }
                store.records().finish(live, &succeeded()).await.unwrap();
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let store = bench.open().await;
    let runs = store.records().runs(100).await.unwrap();
    assert_eq!(runs.len(), 8);
    assert!(runs.iter().all(|run| run.status == RunStatus::Succeeded));
    for run in runs {
        assert_eq!(store.records().tasks(&run.id).await.unwrap().len(), 20);
    }
}
