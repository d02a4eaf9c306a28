//! A secret reaches its stage and nothing else.

use runner_store::RunStatus;

use crate::toys::{SECRET, bench::Bench};

const STAGES: &str = "
  data: {uses: numbers}
  told: {uses: tell, keep: true, with: {token: \"${{ secrets.TOKEN }}\", fail: 0}, inputs: data}
";

#[test]
fn a_secret_is_in_no_event_record_log_error_or_file() {
    let mut bench = Bench::new();
    let report = bench.run(STAGES);
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
    let told = bench.export(STAGES, "told", &["told"]);
    assert_eq!(told[0], format!("n/1 {}", SECRET.len()), "the stage had the value");
    let mut said = format!("{:?}", bench.events);
    let failed = bench.run(&STAGES.replace("fail: 0", "fail: 1"));
    assert_eq!(failed.status, RunStatus::Failed);
    assert!(failed.error.as_deref().unwrap().contains("fails with ***"), "{:?}", failed.error);
    said += &format!("{:?} {failed:?}", bench.events);
    let store = bench.store();
    for run in [&report.run, &failed.run] {
        let lines = bench.wait(store.records().logs(run, None, 0, 1_000)).unwrap();
        assert!(lines.iter().any(|line| line.text == "logs ***"), "{lines:?}");
        said += &format!("{lines:?} {:?}", bench.wait(store.records().run(run)).unwrap());
        said += &format!("{:?}", bench.wait(store.records().tasks(run)).unwrap());
    }
    let plan = bench.plan(STAGES).unwrap();
    said += &format!("{:?}", plan.stages());
    assert!(!said.contains("s3cr") && said.contains("***"), "{said}");
    // Neither in the database nor in any artifact.
    let mut folders = vec![bench.folder.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(4).any(|part| part == b"s3cr"), "{}", path.display());
            }
        }
    }
}
