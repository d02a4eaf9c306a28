//! Killed at any moment, and run again.
//!
//! The process to kill is this test program itself, asked by a variable to run a pipeline in a given folder.

use std::{
    env,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use runner_contract::Random;
use runner_store::RunStatus;

use crate::toys::bench::Bench;

const FOLDER: &str = "RUNNER_TEST_KILLED_IN";
const KILLS: usize = 20;

const STAGES: &str = "
  data: {uses: numbers, with: {count: 150}}
  fitted: {uses: fit, with: {epochs: 6}, inputs: data}
  image: {uses: embed, inputs: data}
  weighed: {uses: weigh, inputs: {rows: image, model: fitted.model}}
  metrics: {uses: total, with: {column: score, labels: 1}, inputs: weighed}
";

/// The victim. Without the variable it does nothing.
#[test]
fn victim() {
    if let Some(folder) = env::var_os(FOLDER) {
        assert_eq!(Bench::at(folder.into(), 2).run(STAGES).status, RunStatus::Succeeded);
    }
}

#[test]
fn killed_at_random_moments_a_run_ends_with_the_same_digests() {
    let expected = Bench::new().run(STAGES);
    assert_eq!(expected.status, RunStatus::Succeeded, "{:?}", expected.error);
    let mut bench = Bench::new();
    let seed = u64::from(std::process::id());
    let mut random = Random::new(seed, "kill", "");
    let program = env::current_exe().unwrap();
    let mut killed = 0;
    for _ in 0..KILLS {
        let mut child = Command::new(&program)
            .args(["--exact", "killed::victim"])
            .env(FOLDER, &bench.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if killed == 0 {
            // However slow the machine: as soon as there is something to lose.
            while !bench.folder.join("records.sqlite").exists() && child.try_wait().unwrap().is_none() {
                thread::yield_now();
            }
        } else {
            thread::sleep(Duration::from_millis(5 + random.below(120) as u64));
        }
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
    }
    let report = bench.run(STAGES);
    assert_eq!(report.status, RunStatus::Succeeded, "seed {seed}: {:?}", report.error);
    assert_eq!((report.artifacts, report.metrics), (expected.artifacts, expected.metrics), "seed {seed}");
    assert!(killed > 0, "seed {seed}: the run is too short to be killed");
    let runs = bench.wait(bench.store().records().runs(100)).unwrap();
    assert!(runs.iter().all(|run| run.status != RunStatus::Running), "seed {seed}");
}
