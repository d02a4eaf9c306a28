//! A run from its beginning to its end: requests to stop it, its log, what it is remembered by.

use chrono::{DurationRound, TimeDelta, Utc};
use runner_store::{CancelRequest, Level, LogLine, NewRun, RunFilter, RunStatus, StoreError, TaskStatus};

use crate::bench::{Bench, new_run, stage, succeeded};

pub(crate) async fn a_run_hears_that_it_shall_stop(bench: Bench) {
    let (here, there) = (bench.open().await, bench.open().await);
    let live = here.records().begin(&new_run()).await.unwrap();
    let mut asked = live.cancel_requested();
    assert_eq!(*asked.borrow(), None);
    for (how, heard) in [
        (CancelRequest::Finish, CancelRequest::Finish),
        (CancelRequest::Now, CancelRequest::Now),
        (CancelRequest::Finish, CancelRequest::Now),
    ] {
        assert!(there.records().request_cancel(live.id(), how).await.unwrap());
        asked.wait_for(|asked| *asked == Some(heard)).await.unwrap();
    }
    assert!(!live.given_up());
    let id = live.id().to_owned();
    here.records().finish(live, &succeeded()).await.unwrap();
    assert!(!there.records().request_cancel(&id, CancelRequest::Now).await.unwrap(), "it has ended");
    assert!(!there.records().request_cancel("no-such-run", CancelRequest::Now).await.unwrap());
}

pub(crate) async fn a_run_that_is_dropped_is_interrupted_at_once(bench: Bench) {
    let store = bench.open().await;
    let live = store.records().begin(&new_run()).await.unwrap();
    let id = live.id().to_owned();
    store.records().put_stages(&id, &[stage("s", 0, TaskStatus::Running)]).await.unwrap();
    drop(live);
    let other = bench.open().await;
    other.records().mark_interrupted().await.unwrap();
    let run = other.records().run(&id).await.unwrap();
    assert_eq!((run.status, run.reason.as_deref()), (RunStatus::Failed, Some("interrupted")));
    assert_eq!(other.records().stages(&id).await.unwrap()[0].status, TaskStatus::Failed);
}

pub(crate) async fn a_run_far_away_is_dead_when_it_was_silent_for_long(bench: Bench) {
    let store = bench.open().await;
    let live = store.records().begin(&new_run()).await.unwrap();
    bench.far_away(live.id(), 10).await;
    assert_eq!(store.records().mark_interrupted().await.unwrap(), 0);
    bench.far_away(live.id(), 31).await;
    assert_eq!(store.records().mark_interrupted().await.unwrap(), 1);
    assert_eq!(store.records().run(live.id()).await.unwrap().status, RunStatus::Failed);
}

pub(crate) async fn a_log_is_read_on_from_where_one_was(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let live = records.begin(&new_run()).await.unwrap();
    let time = Utc::now().duration_trunc(TimeDelta::milliseconds(1)).unwrap();
    let line = |seq, stage: Option<&str>, level, text: &str| LogLine {
        seq,
        time,
        stage: stage.map(str::to_owned),
        shard: stage.map(|_| 3),
        level,
        text: text.to_owned(),
    };
    let lines = [
        line(1, None, Level::Info, "begun"),
        line(2, Some("image"), Level::Warning, "2 rows could not be used: `…`\nsecond line"),
        line(3, Some("text"), Level::Error, "failed"),
    ];
    records.log(live.id(), &lines[..2]).await.unwrap();
    records.log(live.id(), &lines).await.unwrap();
    records.log(live.id(), &[line(2, None, Level::Info, "a second one of that number")]).await.unwrap();
    records.log(live.id(), &[]).await.unwrap();
    let read = async |stage, after, limit| records.logs(live.id(), stage, after, limit).await.unwrap();
    assert_eq!(read(None, 0, 100).await, lines);
    assert_eq!(read(None, 1, 1).await, lines[1..2]);
    assert_eq!(read(Some("text"), 0, 100).await, lines[2..]);
    assert_eq!(read(Some("text"), 3, 100).await, []);
}

pub(crate) async fn runs_are_found_and_the_last_good_ones_remembered(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let named = |name: &str| NewRun { pipeline: name.into(), ..new_run() };
    let mut ids = Vec::new();
    for (name, status) in [
        ("a", RunStatus::Succeeded),
        ("a", RunStatus::Failed),
        ("b", RunStatus::Succeeded),
        ("a", RunStatus::Succeeded),
    ] {
        let live = records.begin(&named(name)).await.unwrap();
        ids.push(live.id().to_owned());
        records.put_stages(live.id(), &[stage("s", 0, TaskStatus::Done)]).await.unwrap();
        records.finish(live, &runner_store::Finish { status, ..succeeded() }).await.unwrap();
    }
    let found = async |filter: RunFilter| -> Vec<String> {
        records.find(&filter).await.unwrap().into_iter().map(|run| run.id).collect()
    };
    let all = RunFilter { limit: 10, ..RunFilter::default() };
    assert_eq!(found(all.clone()).await, [&*ids[3], &ids[2], &ids[1], &ids[0]]);
    assert_eq!(found(RunFilter { pipeline: Some("b".into()), ..all.clone() }).await, [&*ids[2]]);
    assert_eq!(found(RunFilter { status: Some(RunStatus::Failed), ..all.clone() }).await, [&*ids[1]]);
    let since = records.run(&ids[2]).await.unwrap().started;
    assert!(found(RunFilter { since: Some(since), ..all.clone() }).await.contains(&ids[3]));
    assert!(found(RunFilter { since: Some(since + TimeDelta::hours(1)), ..all }).await.is_empty());

    let history = records.history("a", 5).await.unwrap();
    assert_eq!(history.iter().map(|(run, _)| &run.id).collect::<Vec<_>>(), [&ids[3], &ids[0]]);
    assert_eq!(history[0].1, [stage("s", 0, TaskStatus::Done)]);
    assert_eq!(records.history("a", 1).await.unwrap().len(), 1);
}

pub(crate) async fn what_a_run_had_about_it_comes_back(bench: Bench) {
    let store = bench.open().await;
    let live = store.records().begin(&new_run()).await.unwrap();
    let run = store.records().run(live.id()).await.unwrap();
    assert_eq!((run.environment, run.includes), (new_run().environment, new_run().includes));
    let order: Vec<&str> = run.params.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(order, ["templates", "min_top1"], "in the order in which they were given");
}

/// What comes from files and plugins may hold anything.
pub(crate) async fn strange_texts_are_kept_as_well_as_can_be(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let strange = "NUL \0, quotes ' \" `, \u{1F600}, \\u0000, {}, $1, \u{202e}";
    let new = NewRun {
        pipeline: strange.into(),
        text: strange.into(),
        params: serde_json::json!({strange: strange}),
        environment: serde_json::json!([strange]),
        command: vec![strange.into()],
        ..new_run()
    };
    let live = records.begin(&new).await.unwrap();
    let mut failed = stage("s", 0, TaskStatus::Failed);
    failed.error = Some(strange.into());
    records.put_stages(live.id(), &[failed]).await.unwrap();
    let kept = records.stages(live.id()).await.unwrap()[0].error.clone().unwrap();
    assert_eq!(kept.replace('\u{fffd}', "\0"), strange);
    let run = records.run(live.id()).await.unwrap();
    assert_eq!(run.command[0].replace('\u{fffd}', "\0"), strange);
    assert_eq!(run.environment[0].as_str().unwrap().replace('\u{fffd}', "\0"), strange);
}

pub(crate) async fn the_records_say_what_they_are(bench: Bench) {
    let store = bench.open().await;
    let probe = store.records().probe().await.unwrap();
    assert!(probe.backend.starts_with("SQLite 3.") || probe.backend.starts_with("PostgreSQL 1"), "{}", probe.backend);
    assert!(probe.writable.is_ok() && probe.migrations > 0 && probe.latency.as_secs_f64() < 1.0);
    let unknown = store.records().put_stages("no-such-run", &[]).await;
    assert!(matches!(unknown, Err(StoreError::GivenUp(_))));
}
