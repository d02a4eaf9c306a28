//! What is computed again and what is not.

use crate::toys::bench::{Bench, counts};
use runner_engine::PlannedState;
use runner_store::{RunStatus, TaskStatus};

const MAIN: &str = "
  data: {uses: numbers}
  image: {uses: embed, with: {factor: 2}, inputs: data}
  weighed: {uses: weigh, inputs: image}
  metrics: {uses: total, with: {column: score, labels: 1}, inputs: weighed}
";

#[test]
fn a_second_run_does_nothing_and_says_the_same() {
    let mut bench = Bench::new();
    let first = bench.run(MAIN);
    assert_eq!(first.status, RunStatus::Succeeded, "{:?}", first.error);
    // 20 rows in shards of 8, 8, 4 and chunks of 3 are 3 + 3 + 2 chunks. To fetch the labels of a few rows, the cheap
    // stage on the way is computed again to see which rows there are; the source is read for where they stand, and for them.
    assert_eq!(bench.calls(), counts(&[("read", 24), ("embed", 8), ("weigh", 16), ("push", 8), ("merge", 1)]));
    let sum: f64 = (0..20).map(|i| f64::from(2 * i) * f64::from(2 * i)).sum();
    let metric = first.metrics["metrics.sum"];
    assert_eq!((metric.value, metric.n, metric.n_bad), (sum, Some(20), Some(0)));
    assert_eq!((first.tasks.executed, first.tasks.cached), (3 + 3 + 1, 0));
    assert_eq!(first.files[0].name, "labels.txt");

    let second = bench.run(MAIN);
    assert_eq!(bench.control.take(), counts(&[("open numbers", 1)]), "nothing but the source is opened");
    assert_eq!((second.tasks.executed, second.tasks.cached), (0, 7));
    assert_eq!(second.metrics, first.metrics);
    assert_eq!(second.artifacts, first.artifacts);
    assert_eq!(second.files, first.files);
    assert!(second.stages.iter().all(|stage| stage.status == TaskStatus::Cached));
    assert_eq!(first.artifacts.keys().collect::<Vec<_>>(), ["image", "metrics"]);
}

#[test]
fn what_is_recorded_is_what_happened() {
    let mut bench = Bench::new();
    let report = bench.run(MAIN);
    let store = bench.store();
    let records = store.records();
    let run = bench.wait(records.run("latest")).unwrap();
    assert_eq!((run.status, run.executed, run.cached), (RunStatus::Succeeded, 7, 0));
    let stages = bench.wait(records.stages(&run.id)).unwrap();
    let image = stages.iter().find(|stage| stage.name == "image").unwrap();
    assert_eq!((image.rows, image.executed, image.manifest), (20, 3, Some(report.artifacts["image"])));
    let metrics = bench.wait(records.metrics(&run.id)).unwrap();
    assert_eq!(metrics[0].value, report.metrics["metrics.sum"].value);
    assert_eq!(bench.wait(records.files(&run.id)).unwrap(), report.files);
    let tasks = bench.wait(records.tasks(&run.id)).unwrap();
    assert!(tasks.iter().all(|task| task.status == TaskStatus::Done && task.ended.is_some()));
}

#[test]
fn a_changed_setting_recomputes_what_depends_on_it() {
    let mut bench = Bench::new();
    bench.run(MAIN);
    bench.calls();
    bench.run(&MAIN.replace("weigh, inputs", "weigh, with: {note: 1}, inputs"));
    assert_eq!(bench.calls().get("embed"), None);
    bench.run(&MAIN.replace("factor: 2", "factor: 3"));
    assert_eq!(bench.calls().get("embed"), Some(&8));
}

#[test]
fn labels_are_no_part_of_an_embeddings_key() {
    let mut bench = Bench::new();
    bench.run(MAIN);
    bench.calls();
    let other = bench.run(&MAIN.replace("numbers}", "numbers, with: {shift: 1}}"));
    assert_eq!(bench.calls(), counts(&[]), "labels are read by no fold here");
    assert_eq!(other.tasks.executed, 0);
    let labelled = MAIN.replace("numbers}", "numbers, with: {shift: 1}}").replace("column: score", "column: value");
    bench.run(&labelled.replace("inputs: weighed", "inputs: data"));
    assert_eq!(bench.calls().get("embed"), None);
}

#[test]
fn only_the_columns_that_somebody_needs_are_read() {
    let mut bench = Bench::new();
    bench.run(&MAIN.replace(", labels: 1", ""));
    let reads = std::mem::take(&mut *bench.control.reads.lock().unwrap());
    assert!(reads.iter().all(|(_, columns)| columns == &["value"]), "{reads:?}");
    // The stored squares are enough: the source is not read again.
    bench.run(&MAIN.replace(", labels: 1", ", other: 1"));
    assert!(bench.control.reads.lock().unwrap().is_empty());
}

#[test]
fn fetching_rows_in_a_merge_reads_only_their_shards_and_columns() {
    let mut bench = Bench::new();
    let report = bench.run(MAIN);
    let store = bench.store();
    let file = bench.wait(store.artifacts().get(&report.files[0].digest)).unwrap();
    assert_eq!(String::from_utf8(file.to_vec()).unwrap(), "n/7 1\nn/15 0\nn/19 1\n");
}

#[test]
fn several_readers_share_one_computation() {
    let mut bench = Bench::new();
    let report = bench.run(
        "
  data: {uses: numbers}
  image: {uses: embed, inputs: data}
  other: {uses: embed, with: {factor: 5}, inputs: data}
  a: {uses: total, with: {column: square}, inputs: image}
  b: {uses: total, with: {column: square, again: 1}, inputs: image}
  c: {uses: total, with: {column: square}, inputs: other}
",
    );
    assert_eq!(report.metrics["a.sum"], report.metrics["b.sum"]);
    assert_eq!(report.metrics["c.sum"].value, 25.0 * report.metrics["a.sum"].value);
    let calls = bench.calls();
    assert_eq!((calls["read"], calls["embed"], calls["push"]), (8, 16, 24), "one pass over the source for all");
}

#[test]
fn a_stage_without_cache_always_runs_and_so_does_what_reads_it() {
    let mut bench = Bench::new();
    let stages = MAIN.replace("embed, with", "embed, cache: false, with");
    let first = bench.run(&stages);
    bench.calls();
    let second = bench.run(&stages);
    assert_eq!(bench.calls()["embed"], 8);
    assert_eq!((second.tasks.executed, second.tasks.cached), (7, 0));
    assert_eq!(first.artifacts, second.artifacts);
    // Nor is what it made found by others.
    bench.run(MAIN);
    assert_eq!(bench.calls()["embed"], 8);
}

#[test]
fn what_is_kept_is_stored_and_read_back() {
    let mut bench = Bench::new();
    let stages = "
  data: {uses: numbers}
  sums: {uses: add, keep: true, inputs: data}
  metrics: {uses: total, with: {column: sum}, inputs: sums}
";
    let report = bench.run(stages);
    assert_eq!(report.artifacts.keys().collect::<Vec<_>>(), ["metrics", "sums"]);
    bench.calls();
    bench.run(&stages.replace("column: sum", "column: sum, again: 1"));
    assert_eq!(bench.calls(), counts(&[("push", 8), ("merge", 1)]));
}

#[test]
fn a_plan_knows_every_hit_before_anything_runs() {
    let mut bench = Bench::new();
    let plan = bench.plan(MAIN).unwrap();
    assert_eq!(plan.counts(), (0, 7));
    bench.run(MAIN);
    let changed = MAIN.replace("column: score, labels: 1", "column: score");
    let plan = bench.plan(&changed).unwrap();
    assert_eq!(plan.counts(), (3, 4));
    let state = |name: &str| {
        let stage = plan.stages().iter().find(|stage| stage.name == name).unwrap();
        stage.results.iter().map(|result| result.state).collect::<Vec<_>>()
    };
    assert_eq!(state("image"), [PlannedState::Cached; 3]);
    assert_eq!(state("weighed"), [PlannedState::Pass; 3]);
    assert_eq!(state("metrics"), [PlannedState::Compute; 4]);
    let why = |plan: &runner_engine::Plan, name: &str| {
        plan.stages().iter().find(|stage| stage.name == name).unwrap().results[0].why.clone()
    };
    assert_eq!(why(&plan, "metrics"), "changed: setting `labels`");
    let plan = bench.plan(&MAIN.replace("factor: 2", "factor: 3")).unwrap();
    assert_eq!(why(&plan, "image"), "changed: setting `factor`");
    assert_eq!(why(&plan, "metrics"), "changed: setting `factor` of `image`");
}

#[test]
fn removed_artifacts_are_made_anew() {
    let mut bench = Bench::new();
    let first = bench.run(MAIN);
    let store = bench.store();
    let all = bench.wait(store.artifacts().list()).unwrap();
    for (digest, _) in all {
        bench.wait(store.artifacts().delete(&digest)).unwrap();
    }
    bench.calls();
    let second = bench.run(MAIN);
    assert_eq!(second.status, RunStatus::Succeeded, "{:?}", second.error);
    assert_eq!(second.artifacts, first.artifacts);
    assert_eq!(bench.calls()["embed"], 8);
}
