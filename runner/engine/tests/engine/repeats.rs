//! Attempts that are repeated, take too long, or are asked to end; parts of a pipeline.

use std::time::Duration;

use runner_engine::{Cancel, Event, PlanOptions, PlannedState};
use runner_store::{Level, RunStatus, TaskStatus};

use crate::toys::{
    Failure,
    bench::{Bench, counts},
};

const MAIN: &str = "
  data: {uses: numbers}
  image: {uses: embed, inputs: data, retries: 1}
  metrics: {uses: total, with: {column: square}, inputs: image}
";

#[test]
fn a_failed_attempt_is_repeated_after_a_rest_and_said_so() {
    let mut bench = Bench::new();
    bench.control.fail("embed", 2, Failure::Error);
    let report = bench.run(MAIN);
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
    let retry = bench.events.iter().find_map(|event| match event {
        Event::Retry { attempt, after, error, .. } => Some((*attempt, *after, error.clone())),
        _ => None,
    });
    let (attempt, after, error) = retry.unwrap();
    assert_eq!((attempt, after), (1, Duration::from_secs(1)));
    assert!(error.contains("told to fail"), "{error}");
    let image = report.stages.iter().find(|stage| stage.name == "image").unwrap();
    assert_eq!(image.rows, 20, "the rows of the failed attempt do not count");
    let store = bench.store();
    let tasks = bench.wait(store.records().tasks(&report.run)).unwrap();
    assert_eq!(tasks.iter().filter(|task| task.attempt == 2).count(), 1);
    let lines = bench.wait(store.records().logs(&report.run, Some("image"), 0, 100)).unwrap();
    assert!(lines.iter().any(|line| line.level == Level::Warning && line.text.contains("told to fail")), "{lines:?}");
    assert!(lines.iter().any(|line| line.text.starts_with("ends: 3 computed, 20 rows")), "{lines:?}");
}

#[test]
fn a_panic_is_not_repeated() {
    let mut bench = Bench::new();
    bench.control.fail("embed", 1, Failure::Panic);
    assert_eq!(bench.run(MAIN).status, RunStatus::Failed);
    assert!(!bench.events.iter().any(|event| matches!(event, Event::Retry { .. })));
}

#[test]
fn an_attempt_that_takes_too_long_is_stopped_and_no_other() {
    let mut bench = Bench::new();
    // It does not react while it sleeps, and stops at the next chunk.
    bench.control.fail("embed", 1, Failure::Sleep(600));
    let report = bench.run(&MAIN.replace("retries: 1", "timeout: 300ms"));
    assert_eq!(report.status, RunStatus::Failed);
    let error = report.error.unwrap();
    assert!(
        error.contains("stage `image`, shard") && error.contains("took longer than its `timeout` of 300ms"),
        "{error}"
    );
    bench.control.fail("embed", 1, Failure::Sleep(600));
    let report = bench.run(&MAIN.replace("retries: 1", "timeout: 300ms, retries: 1"));
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
}

const TRAINED: &str = "
  data: {uses: numbers}
  fitted: {uses: fit, with: {epochs: 5}, inputs: data}
  image: {uses: embed, inputs: data}
  weighed: {uses: weigh, inputs: {rows: image, model: fitted.model}}
";

#[test]
fn asked_to_finish_a_job_saves_and_work_in_flight_is_recorded() {
    let mut bench = Bench::new();
    let cancel = Cancel::new();
    bench.control.fail("epoch", 3, Failure::Finish(cancel.clone()));
    let report = bench.run_with(TRAINED, None, &cancel);
    assert_eq!(report.status, RunStatus::Cancelled, "{:?}", report.error);
    assert!(report.stages.iter().all(|stage| stage.status != TaskStatus::Failed));
    bench.control.heal();
    let rest = bench.run(TRAINED);
    assert_eq!(rest.status, RunStatus::Succeeded, "{:?}", rest.error);
    assert_eq!(bench.calls()["epoch"], 2, "it goes on where it saved");
}

#[test]
fn only_some_stages_and_all_from_one_on() {
    let mut bench = Bench::new();
    let gated = format!("{TRAINED}gates:\n  enough: {{metric: fitted.weight, min: 1}}\n");
    let only = PlanOptions { only: vec!["image".into()], ..PlanOptions::default() };
    let plan = bench.plan_with(&gated, only.clone()).unwrap();
    assert_eq!((plan.counts(), plan.pipeline().gates.len()), ((0, 3), 0));
    let report = bench.execute(plan);
    assert_eq!((report.status, report.tasks.executed), (RunStatus::Succeeded, 3));
    assert_eq!(bench.calls(), counts(&[("read", 8), ("embed", 8)]));
    bench.run(TRAINED);
    bench.calls();
    let from = PlanOptions { from: vec!["fitted".into()], ..PlanOptions::default() };
    let plan = bench.plan_with(TRAINED, from).unwrap();
    let state = |name: &str| plan.stages().iter().find(|stage| stage.name == name).unwrap().results[0].clone();
    assert_eq!(state("image").state, PlannedState::Cached);
    assert_eq!((state("weighed").state, state("weighed").why.as_str()), (PlannedState::Compute, "to be computed anew"));
    assert!(plan.seconds().is_some() && state("weighed").seconds.is_some(), "they have run before");
    let report = bench.execute(plan);
    assert_eq!((report.status, report.tasks.executed, report.tasks.cached), (RunStatus::Succeeded, 4, 3));
    let calls = bench.calls();
    assert_eq!((calls["epoch"], calls["weigh"], calls.get("embed")), (5, 8, None));
    let unknown = PlanOptions { only: vec!["imag".into()], ..PlanOptions::default() };
    let error = bench.plan_with(TRAINED, unknown).err().unwrap().to_string();
    assert_eq!(error, "no stage is called `imag`; there are data, fitted, image, weighed");
}

#[test]
fn a_plan_names_the_shard_and_the_column_that_changed() {
    let mut bench = Bench::new();
    bench.run(MAIN);
    let why = |plan: &runner_engine::Plan, name: &str, at: usize| {
        plan.stages().iter().find(|stage| stage.name == name).unwrap().results[at].why.clone()
    };
    // 19 rows instead of 20: only the last of three shards is another.
    let plan = bench.plan(&MAIN.replace("numbers}", "numbers, with: {count: 19}}")).unwrap();
    assert_eq!((why(&plan, "image", 0).as_str(), plan.counts()), ("stored", (4, 3)));
    let changed = why(&plan, "image", 2);
    assert!(
        changed.contains("rows of `data`, shard 2") && changed.contains("column `value` of `data`, shard 2"),
        "{changed}"
    );
    assert!(why(&plan, "metrics", 3).contains("(shard 2 of 3)"), "{}", why(&plan, "metrics", 3));
}
