//! Two runs of one pipeline over one store, at a time.

use runner_engine::Cancel;
use runner_store::RunStatus;

use crate::toys::bench::Bench;

const STAGES: &str = "
  data: {uses: numbers, with: {count: 160}}
  fitted: {uses: fit, with: {epochs: 5}, inputs: data}
  image: {uses: embed, inputs: data}
  weighed: {uses: weigh, inputs: {rows: image, model: fitted.model}}
  metrics: {uses: total, with: {column: score}, inputs: weighed}
";

#[test]
fn two_runs_at_a_time_do_the_work_once() {
    let mut alone = Bench::new();
    let expected = alone.run(STAGES);
    let once = alone.calls();
    let bench = Bench::new();
    let (one, other) = (bench.engine(), bench.engine());
    let (first, second) = (bench.pipeline(STAGES), bench.pipeline(STAGES));
    let (cancel, no) = (Cancel::new(), Cancel::new());
    let reports = bench.wait(async {
        // Both plan before either begins, so that neither finds anything stored.
        let (first, second) = tokio::join!(one.plan(first, None), other.plan(second, None));
        let (mut quiet, mut silent) = (|_: &runner_engine::Event| {}, |_: &runner_engine::Event| {});
        let first = one.execute(first.unwrap(), Vec::new(), &cancel, &mut quiet);
        let second = other.execute(second.unwrap(), Vec::new(), &no, &mut silent);
        tokio::join!(first, second)
    });
    let (first, second) = (reports.0.unwrap(), reports.1.unwrap());
    for report in [&first, &second] {
        assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
        assert_eq!((&report.artifacts, &report.metrics), (&expected.artifacts, &expected.metrics));
    }
    let calls = bench.calls();
    for what in ["embed", "epoch", "push", "merge"] {
        assert_eq!(calls[what], once[what], "{what}");
    }
    assert_eq!(first.tasks.executed + second.tasks.executed, expected.tasks.executed);
    assert_eq!(first.tasks.cached + second.tasks.cached, expected.tasks.executed);
}
