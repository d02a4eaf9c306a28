//! Rows through every shape, with what passes them by.

use crate::toys::bench::Bench;
use runner_engine::Cancel;
use runner_store::RunStatus;

#[test]
fn a_filter_splits_rows_between_its_outputs() {
    let bench = Bench::new();
    let stages = "
  data: {uses: numbers, with: {count: 10}}
  parts: {uses: keep_if, with: {of: 3}, inputs: data}
  yes: {uses: embed, inputs: parts.yes}
  no: {uses: embed, inputs: parts.no}
";
    assert_eq!(bench.export(stages, "parts.yes", &["value", "label"]), ["n/0 0 0", "n/3 3 0", "n/6 6 0", "n/9 9 0"]);
    assert_eq!(bench.export(stages, "yes", &["square", "label"]), ["n/0 0 0", "n/3 9 0", "n/6 36 0", "n/9 81 0"]);
    assert_eq!(bench.export(stages, "parts.no", &["value"]).len(), 6);
    // Read back from the store, the same rows.
    assert_eq!(bench.export(stages, "no", &["label"]), ["n/1 1", "n/2 2", "n/4 1", "n/5 2", "n/7 1", "n/8 2"]);
    assert_eq!(bench.export(stages, "no", &["square"])[0], "n/1 1");
}

#[test]
fn a_filter_may_leave_nothing() {
    let mut bench = Bench::new();
    let report = bench.run(
        "
  data: {uses: numbers, with: {count: 10}}
  some: {uses: keep_if, with: {of: 9}, inputs: data}
  sums: {uses: add, keep: true, inputs: some.yes}
  image: {uses: embed, inputs: sums}
  metrics: {uses: total, with: {column: square}, inputs: image}
",
    );
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
    let metric = report.metrics["metrics.sum"];
    assert_eq!((metric.value, metric.n), (81.0, Some(2)));
}

const TREE: &str = "
  data: {uses: numbers, with: {count: 7}}
  copies: {uses: repeat, with: {times: 3}, inputs: data}
  image: {uses: embed, inputs: copies}
  best: {uses: best, keep: true, inputs: {rows: copies, scores: image}}
  metrics: {uses: total, with: {column: value}, inputs: best}
";

#[test]
fn children_know_their_parent_and_groups_reduce_them() {
    let mut bench = Bench::new();
    let copies = bench.export(TREE, "copies", &["parent", "copy", "value", "label"]);
    assert_eq!(copies[..4], ["n/0/0 n/0 0 0 0", "n/0/1 n/0 1 0 0", "n/0/2 n/0 2 0 0", "n/1/0 n/1 0 1 1"]);
    assert_eq!(copies.len(), 21);
    let report = bench.run(TREE);
    assert_eq!(report.metrics["metrics.sum"].value, 21.0);
    let best = bench.export(TREE, "best", &["winner", "parent", "label", "value"]);
    assert_eq!(best[2..4], ["n/2/2 2 n/2 2 2", "n/3/2 2 n/3 0 3"]);
    // Columns from before the expansion come along with what was stored after it.
    assert_eq!(bench.export(TREE, "image", &["square", "label"])[7], "n/2/1 4 2");
}

#[test]
fn unusable_rows_are_dropped_counted_and_stay_dropped() {
    let mut bench = Bench::new();
    let stages = "
  data: {uses: numbers}
  sums: {uses: add, with: {bad: 5}, inputs: data}
  image: {uses: embed, inputs: sums}
  joined: {uses: best, inputs: {rows: copies, scores: squares}}
  copies: {uses: repeat, inputs: image}
  squares: {uses: embed, inputs: copies}
  metrics: {uses: total, with: {column: square}, inputs: image}
  seen: {uses: see, inputs: data}
  look: {uses: total, with: {column: seen}, inputs: seen}
";
    let report = bench.run(stages);
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
    let metric = report.metrics["metrics.sum"];
    let sum: f64 = (0..20).filter(|i| i % 5 != 0).map(|i| f64::from(i * i)).sum();
    assert_eq!((metric.value, metric.n, metric.n_bad), (sum, Some(16), Some(4)));
    // 7 and 17 cannot be decoded.
    let look = report.metrics["look.sum"];
    assert_eq!((look.value, look.n, look.n_bad), (190.0 - 24.0, Some(18), Some(2)));
    let warnings: Vec<_> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            runner_engine::Event::Warning { message, .. } => Some(message.clone()),
            _ => None,
        })
        .collect();
    assert!(warnings.iter().any(|warning| warning.contains("`n/17`: 17.num: a seven")), "{warnings:?}");
    // The count survives where the rows are read back.
    let again = bench.run(&stages.replace("column: square}", "column: square, again: 1}"));
    assert_eq!(again.metrics["metrics.sum"], metric);
    assert!(!bench.export(stages, "image", &["square"]).iter().any(|line| line.starts_with("n/5 ")));
}

#[test]
fn a_whole_dataset_reaches_every_task() {
    let mut bench = Bench::new();
    let stages = "
  data: {uses: numbers}
  image: {uses: embed, inputs: data}
  sum: {uses: total, inputs: data}
  weighed: {uses: weigh, inputs: {rows: image, against: sum}}
  metrics: {uses: total, with: {column: score}, inputs: weighed}
";
    let report = bench.run(stages);
    let squares: f64 = (0..20).map(|i| f64::from(i * i)).sum();
    assert_eq!(report.metrics["metrics.sum"].value, squares + 20.0 * 190.0);
    assert_eq!(bench.calls()["embed"], 8, "computed once, though what reads it has to wait");
}

#[test]
fn a_small_second_output_of_a_source_streams_too() {
    let bench = Bench::new();
    let stages = "
  data: {uses: numbers}
  copies: {uses: repeat, inputs: data.classes}
";
    let lines = bench.export(stages, "copies", &["name", "copy", "label"]);
    assert_eq!(lines[1..4], ["0/1 class 0 1 0", "1/0 class 1 0 1", "1/1 class 1 1 1"]);
}

#[test]
fn the_rows_that_folds_and_jobs_make_can_be_exported() {
    let bench = Bench::new();
    let stages = "
  data: {uses: numbers}
  sum: {uses: total, inputs: data}
  fitted: {uses: fit, with: {epochs: 2}, inputs: data}
";
    assert_eq!(bench.export(stages, "sum", &["total"]), ["total 190"]);
    assert_eq!(bench.export(stages, "fitted", &["weight"]), ["0 190", "1 380"]);
    assert!(bench.wait(bench.store().records().runs(9)).unwrap().is_empty(), "an export is no run");
}

#[test]
fn the_limit_cuts_sources() {
    let mut bench = Bench::new();
    let stages = "
  data: {uses: numbers}
  metrics: {uses: total, inputs: data}
";
    let report = bench.run_with(stages, Some(10), &Cancel::new());
    assert_eq!((report.metrics["metrics.sum"].value, report.metrics["metrics.sum"].n), (45.0, Some(10)));
    bench.calls();
    // The first shard is whole in both, so its part of the sum is there.
    let whole = bench.run(stages);
    assert_eq!((whole.metrics["metrics.sum"].value, whole.tasks.cached), (190.0, 1));
}

#[test]
fn rows_of_different_datasets_cannot_be_paired() {
    let bench = Bench::new();
    let stages = "
  data: {uses: numbers}
  other: {uses: numbers, with: {count: 5}}
  a: {uses: repeat, inputs: data}
  b: {uses: embed, inputs: other}
  best: {uses: best, inputs: {rows: a, scores: b}}
";
    let text = format!("version: 1\nname: toy\nstages:\n{stages}");
    let control = std::sync::Arc::default();
    let loaded = runner_spec::load(
        "toy.yaml",
        text.as_bytes(),
        &[],
        crate::toys::toys(&control).as_ref(),
        &crate::toys::Nothing,
    );
    assert!(loaded.is_err() || bench.plan(stages).is_err());
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (mut one, mut two) = (Bench::with_threads(1), Bench::with_threads(4));
    for stages in [
        TREE,
        "  data: {uses: numbers}\n  image: {uses: embed, inputs: data}\n  m: {uses: total, with: {column: square}, inputs: image}\n",
    ] {
        let (a, b) = (one.run(stages), two.run(stages));
        assert_eq!(a.status, RunStatus::Succeeded);
        assert_eq!((a.artifacts, a.metrics), (b.artifacts, b.metrics));
    }
}
