//! Failing, stopping, dying, and going on.

use crate::toys::{
    Failure,
    bench::{Bench, counts},
};
use runner_engine::{Cancel, Event};
use runner_store::{RunStatus, TaskStatus};

const MAIN: &str = "
  data: {uses: numbers}
  image: {uses: embed, inputs: data}
  metrics: {uses: total, with: {column: square}, inputs: image}
";

const TRAINED: &str = "
  data: {uses: numbers}
  fitted: {uses: fit, with: {epochs: 5}, inputs: data}
  image: {uses: embed, inputs: data}
  weighed: {uses: weigh, inputs: {rows: image, model: fitted.model}}
  metrics: {uses: total, with: {column: score}, inputs: weighed}
  curve: {uses: total, with: {column: weight}, inputs: fitted.history}
";

#[test]
fn a_panic_in_a_stage_fails_its_task_and_names_it() {
    let mut bench = Bench::with_threads(1);
    bench.control.fail("embed", 5, Failure::Panic);
    let report = bench.run(MAIN);
    assert_eq!(report.status, RunStatus::Failed);
    let error = report.error.unwrap();
    assert_eq!(error, "stage `image`, shard 1: panicked: told to panic; this is a mistake in the kind `embed`");
    let image = report.stages.iter().find(|stage| stage.name == "image").unwrap();
    assert_eq!((image.status, image.tasks.executed), (TaskStatus::Failed, 1), "the first shard is recorded");
    let run = bench.wait(bench.store().records().run("latest")).unwrap();
    assert_eq!((run.status, run.reason), (RunStatus::Failed, Some(error)));
}

#[test]
fn whatever_fails_first_the_next_run_ends_with_the_same_results() {
    let expected = Bench::new().run(TRAINED);
    assert_eq!(expected.status, RunStatus::Succeeded, "{:?}", expected.error);
    // Errors and panics take turns, so that the test stays short.
    let mut failures = [Failure::Error, Failure::Error, Failure::Panic].into_iter().cycle();
    for what in ["read", "embed", "prepare embed", "weigh", "push", "merge", "epoch", "open embed"] {
        for nth in [1, 5] {
            let failure = failures.next().unwrap();
            let mut bench = Bench::new();
            bench.control.fail(what, nth, failure.clone());
            let failed = bench.run(TRAINED);
            bench.control.heal();
            let report = bench.run(TRAINED);
            let context = format!("call {nth} of {what}, {failure:?}: {:?}", failed.error);
            assert_eq!(report.status, RunStatus::Succeeded, "{context}, then {:?}", report.error);
            assert_eq!((&report.artifacts, &report.metrics), (&expected.artifacts, &expected.metrics), "{context}");
            assert_eq!(report.tasks.cached, failed.tasks.executed + failed.tasks.cached, "{context}");
        }
    }
}

#[test]
fn finished_shards_are_not_computed_again() {
    let mut bench = Bench::with_threads(1);
    bench.control.fail("embed", 7, Failure::Error);
    assert_eq!(bench.run(MAIN).status, RunStatus::Failed);
    bench.control.heal();
    let report = bench.run(MAIN);
    // The last shard has two chunks.
    assert_eq!(bench.calls(), counts(&[("read", 2), ("embed", 2), ("push", 2), ("merge", 1)]));
    assert_eq!((report.tasks.executed, report.tasks.cached), (3, 4));
}

#[test]
fn a_job_goes_on_from_its_checkpoint() {
    let expected = Bench::new().run(TRAINED);
    let mut bench = Bench::new();
    bench.control.fail("epoch", 4, Failure::Error);
    assert_eq!(bench.run(TRAINED).status, RunStatus::Failed);
    bench.control.heal();
    let report = bench.run(TRAINED);
    assert_eq!(bench.calls()["epoch"], 2);
    assert_eq!(report.artifacts, expected.artifacts);
    let steps: Vec<u64> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Metric { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [4, 5]);
    // The checkpoint is gone once the result is recorded.
    let store = bench.store();
    let live: Vec<_> = bench.wait(store.artifacts().list()).unwrap();
    let mut fresh = Bench::new();
    fresh.run(TRAINED);
    let clean = fresh.wait(fresh.store().artifacts().list()).unwrap();
    assert_eq!(live.len(), clean.len());
    let run = bench.wait(store.records().run("latest")).unwrap();
    let series = bench.wait(store.records().series(&run.id)).unwrap();
    assert_eq!(series.last().map(|metric| (metric.name.as_str(), metric.step)), Some(("fitted.weight", Some(5))));
}

#[test]
fn a_model_that_a_stage_made_reaches_who_reads_it() {
    let mut bench = Bench::new();
    let report = bench.run(TRAINED);
    let squares: f64 = (0..20).map(|i| f64::from(i * i)).sum();
    assert_eq!(report.metrics["fitted.weight"].value, 5.0 * 190.0);
    assert_eq!(report.metrics["metrics.sum"].value, squares + 20.0 * 950.0);
    assert_eq!(report.metrics["curve.sum"].value, 190.0 * 15.0);
    bench.calls();
    // Another number of epochs is another model, and the embeddings stay.
    bench.run(&TRAINED.replace("epochs: 5", "epochs: 2"));
    let calls = bench.calls();
    assert_eq!((calls.get("epoch"), calls.get("embed"), calls.get("weigh")), (Some(&2), None, Some(&8)));
}

#[test]
fn a_cancelled_run_stops_soon_and_keeps_what_is_finished() {
    let mut bench = Bench::with_threads(1);
    let cancel = Cancel::new();
    bench.control.fail("embed", 5, Failure::Cancel(cancel.clone()));
    let report = bench.run_with(MAIN, None, &cancel);
    assert_eq!(report.status, RunStatus::Cancelled);
    assert!(report.stages.iter().all(|stage| stage.status != TaskStatus::Failed), "{:?}", report.stages);
    bench.control.heal();
    let rest = bench.run(MAIN);
    assert_eq!(rest.status, RunStatus::Succeeded);
    assert!(rest.tasks.cached >= 2 && bench.calls()["embed"] <= 5);
    let runs = bench.wait(bench.store().records().runs(10)).unwrap();
    assert_eq!(runs.iter().map(|run| run.status).collect::<Vec<_>>(), [RunStatus::Succeeded, RunStatus::Cancelled]);
}

#[test]
fn gates_decide_whether_a_run_passed() {
    let mut bench = Bench::new();
    let gated = |min: &str| format!("{MAIN}gates:\n  enough: {{metric: metrics.sum, min: {min}}}\n");
    assert!(bench.run(&gated("2470")).passed());
    let failed = bench.run(&gated("2470.5"));
    assert_eq!((failed.status, failed.passed()), (RunStatus::Succeeded, false));
    let run = bench.wait(bench.store().records().run("latest")).unwrap();
    assert_eq!(run.reason.as_deref(), Some("gates not met: enough"));
}

#[test]
fn more_unusable_rows_than_allowed_fail_the_run_by_name() {
    // Of 0 to 19, four are multiples of 5.
    let pipeline = |more: &str| {
        let sums = format!("  sums: {{uses: add, with: {{bad: 5}}, inputs: data{more}}}\n");
        format!("  data: {{uses: numbers}}\n{sums}  metrics: {{uses: total, with: {{column: sum}}, inputs: sums}}\n")
    };
    // What a stage that stores nothing left out is counted in the run that computes it.
    let mut bench = Bench::new();
    for (more, passes) in [
        (", max_bad: 3", false),
        (", max_bad: 0", false),
        (", max_bad: 19%", false),
        (", max_bad: 20%", true),
        (", max_bad: 4", true),
        ("", true),
        (", keep: true, max_bad: 3", false),
        (", keep: true, max_bad: 4", true),
        // What is stored counts, too.
        (", keep: true, max_bad: 2", false),
    ] {
        if !more.contains("keep") {
            bench = Bench::new();
        }
        let report = bench.run(&pipeline(more));
        assert_eq!(report.status == RunStatus::Succeeded, passes, "{more}: {:?}", report.error);
        if !passes {
            let error = report.error.unwrap();
            assert!(error.starts_with("stage `sums`: ") && error.contains("more than its `max_bad` of"), "{error}");
            assert!(!more.contains("keep") || error.contains("a multiple"), "the first are named: {error}");
        }
    }
    let report = bench.run(&pipeline(", keep: true"));
    let rows = bench.wait(runner_engine::bad_rows(&bench.store(), &report.artifacts["sums"])).unwrap();
    assert_eq!(rows.len(), 4, "{rows:?}");
}
