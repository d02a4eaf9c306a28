//! The N-th call of the store fails, for N = 1, 2, … until a run passes untouched: whatever fails, the next run repairs.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runner_engine::RunReport;
use runner_store::{Faults, Moment, RunStatus, TaskStatus};

use crate::toys::bench::Bench;

const STAGES: &str = "
  data: {uses: numbers, with: {count: 12}}
  fitted: {uses: fit, with: {epochs: 2}, inputs: data}
  image: {uses: embed, inputs: data}
  weighed: {uses: weigh, inputs: {rows: image, model: fitted.model}}
  metrics: {uses: total, with: {column: score, labels: 1}, inputs: weighed}
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    Before,
    After,
    ForEver,
}

/// More calls than a run makes.
const CALLS: usize = 1_000;

fn every_call(fails: Fails) {
    let expected = Bench::new().run(STAGES);
    assert_eq!(expected.status, RunStatus::Succeeded, "{:?}", expected.error);
    for nth in 1..CALLS {
        if !one_call(fails, nth, &expected) {
            assert!(nth > 10, "a run makes more calls than {nth}");
            return;
        }
    }
    panic!("a run made {CALLS} calls");
}

/// Whether the run made so many calls.
#[expect(clippy::unwrap_used, reason = "what the tests are made of")]
fn one_call(fails: Fails, nth: usize, expected: &RunReport) -> bool {
    let context = format!("call {nth} fails: {fails:?}");
    let bench = Bench::new();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let faults = Faults::new(move |call| match (fails, call.moment) {
        (Fails::Before, Moment::Before) | (Fails::After, Moment::After) => {
            counted.fetch_add(1, Ordering::SeqCst) + 1 == nth
        }
        (Fails::ForEver, Moment::Before) => counted.fetch_add(1, Ordering::SeqCst) + 1 >= nth,
        _ => false,
    });
    // Without patience: a failure reaches the engine.
    let first = bench.try_run(STAGES, bench.store().with_faults(faults, Duration::ZERO));
    let touched = count.load(Ordering::SeqCst) >= nth;
    if let Ok(report) = &first {
        let right = (&report.artifacts, &report.metrics) == (&expected.artifacts, &expected.metrics);
        assert!(report.status != RunStatus::Succeeded || right, "{context}: it succeeds with other results");
        assert!(touched || right, "{context}: untouched, it does not succeed: {:?}", report.error);
    }
    assert!(touched || first.is_ok(), "{context}: untouched, it fails");
    let second = bench.try_run(STAGES, bench.store()).unwrap();
    assert_eq!(second.status, RunStatus::Succeeded, "{context}: {:?}", second.error);
    assert_eq!((&second.artifacts, &second.metrics), (&expected.artifacts, &expected.metrics), "{context}");
    let store = bench.store();
    let runs = bench.wait(store.records().runs(10)).unwrap();
    assert!(runs.iter().all(|run| run.status != RunStatus::Running), "{context}: {runs:?}");
    let mut done = BTreeSet::new();
    for run in runs.iter().rev() {
        for task in bench.wait(store.records().tasks(&run.id)).unwrap() {
            assert!(!matches!(task.status, TaskStatus::Running | TaskStatus::Waiting), "{context}: {task:?}");
            if task.status == TaskStatus::Done {
                let fresh = task.stages.iter().all(|stage| done.insert((stage.clone(), task.shard, task.stages.len())));
                assert!(fresh, "{context}: done twice: {task:?}");
            }
        }
    }
    touched
}

#[test]
fn a_call_that_fails_before_its_effect() {
    every_call(Fails::Before);
}

#[test]
fn a_call_whose_answer_is_lost() {
    every_call(Fails::After);
}

#[test]
fn a_store_that_is_gone_for_good() {
    every_call(Fails::ForEver);
}

#[test]
fn with_patience_a_failing_call_is_not_noticed() {
    let expected = Bench::new().run(STAGES);
    let bench = Bench::new();
    let count = AtomicUsize::new(0);
    let faults = Faults::new(move |_| count.fetch_add(1, Ordering::SeqCst) % 7 == 3);
    let report = bench.try_run(STAGES, bench.store().with_faults(faults, Duration::from_secs(20))).unwrap();
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
    assert_eq!((report.artifacts, report.metrics), (expected.artifacts, expected.metrics));
}
