//! Datasets in a bucket: a killed run goes on without fetching again what it had done.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use runner_store::{Place, Store, TaskRecord, TaskStatus};
use runner_testbed::{Fault, On, S3};
use serde_json::Value;

const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/pictures");
const PIPELINE: &str = "
version: 1
name: t
stages:
  data: {uses: dataset, with: {source: 's3://pictures/digits/{0..2}.tar'}}
  prompts: {uses: prompts, with: {templates: ['{}']}, inputs: data.classes}
  image: {uses: encode, inputs: {rows: data, model: 'builtin:mini-clip'}}
  text: {uses: encode, inputs: {rows: prompts, model: 'builtin:mini-clip'}}
  classes: {uses: pool, with: {by: class, method: normalized_mean}, inputs: text}
  scored: {uses: score, inputs: {queries: image, candidates: classes}}
  metrics: {uses: metrics, with: {task: classification}, inputs: scored}
";

/// Ten pictures of digits, with their labels; the last is of another class than it shows.
fn tar(number: usize) -> Vec<u8> {
    let pictures = Path::new(PICTURES);
    let mut builder = tar::Builder::new(Vec::new());
    for i in 0..10 {
        let (name, label) = [("two", 2), ("three", 3), ("five", 5), ("seven", 7)][i % 4];
        let label = if i == 9 { 0 } else { label };
        let picture = fs::read(pictures.join(format!("{name}.png"))).unwrap();
        for (extension, content) in [("png", picture), ("cls", label.to_string().into_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, format!("{number}{i}.{extension}"), content.as_slice()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn program(folder: &Path, s3: &S3, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).envs(s3.environment());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How many bytes of each tar were fetched since the last call.
fn fetched(s3: &S3) -> [u64; 3] {
    let seen = s3.faults().take_seen();
    [0, 1, 2].map(|number| {
        let key = format!("digits/{number}.tar");
        let gets = seen.iter().filter(|request| request.method == "GET" && request.key == key);
        gets.map(|request| request.range.expect("a range of it")).sum()
    })
}

#[test]
fn a_killed_run_fetches_no_tar_again_whose_shard_is_stored() {
    let (s3, folder) = (S3::start(), tempfile::tempdir().unwrap());
    fs::create_dir(folder.path().join(".git")).unwrap();
    fs::write(folder.path().join("p.yaml"), PIPELINE).unwrap();
    for number in 0..3 {
        s3.set_object(&format!("digits/{number}.tar"), tar(number));
    }
    s3.set_object("digits/classnames.txt", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    let run = ["run", "p.yaml", "--threads", "1", "--json"];

    // The last tar never comes.
    s3.faults().add(On::get().key("2.tar"), Fault::Hang);
    let mut child = program(folder.path(), &s3, &run).spawn().unwrap();
    // Both tars before it are recorded, and it was asked for.
    let done = || stored(folder.path()) == 2 && s3.faults().happened() > 0;
    while !done() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    s3.faults().clear();
    let [first, second, _] = fetched(&s3);
    let length = tar(0).len() as u64;
    assert!(first >= length && second >= length);

    let resumed = document(&program(folder.path(), &s3, &run).output().unwrap());
    assert_eq!(resumed["metrics"]["metrics.n"], 30.0);
    let [first, second, third] = fetched(&s3);
    let picture = fs::metadata(Path::new(PICTURES).join("three.png")).unwrap().len();
    assert_eq!([first, second], [picture; 2], "of what was stored the worst mistake's picture, not even the labels");
    assert!(third >= length);

    // Nothing is left to do, and nothing is fetched.
    let again = document(&program(folder.path(), &s3, &run).output().unwrap());
    assert_eq!((&again["tasks"]["executed"], &again["metrics"]), (&Value::from(0), &resumed["metrics"]));
    assert_eq!(fetched(&s3), [0, 0, 0]);

    // Another content is another dataset; one that changes while it is read is noticed by its ETag.
    s3.set_object("digits/1.tar", tar(7));
    let other = document(&program(folder.path(), &s3, &run).output().unwrap());
    assert_eq!(other["metrics"]["metrics.n"], 30.0);
    let [first, second, third] = fetched(&s3);
    assert!(second >= length && first.max(third) < length / 10);
}

/// Shards of the pictures that are recorded as done.
fn stored(folder: &Path) -> usize {
    let place = Place::folder(folder.join(".runner"));
    if !Store::exists_at(&place) {
        return 0;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = runtime.block_on(async {
        let store = Store::open_at(&place).await.ok()?;
        let run = store.records().run("latest").await.ok()?;
        store.records().tasks(&run.id).await.ok()
    });
    let is_stored =
        |task: &&TaskRecord| task.status == TaskStatus::Done && task.stages == ["image"] && task.shard.is_some();
    tasks.unwrap_or_default().iter().filter(is_stored).count()
}
