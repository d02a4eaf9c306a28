//! From YAML to a recorded metric, with the real binary.

use std::fs;

use crate::program::{Program, filters, repository};
use serde_json::{Value, json};

const LIMIT: &str = "200";

/// The main job on a few digits. `more` comes behind.
fn evaluate(more: &[&str]) -> Vec<String> {
    let pipeline = repository().join("pipelines/zero_shot_eval.yaml");
    let fixed = ["run", pipeline.to_str().unwrap(), "--limit", LIMIT, "--set", "min_top1=0"];
    fixed.iter().chain(more).map(|&argument| argument.to_owned()).collect()
}

fn as_str(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_second_run_is_cached_and_both_are_recorded() {
    let program = Program::new();
    let first = program.json(&as_str(&evaluate(&[])), 0);
    assert_eq!(keys(&first), ["run", "status", "metrics", "artifacts", "tasks"]);
    assert_eq!(first["status"], "succeeded");
    assert_eq!(first["metrics"]["metrics.n"], json!(200.0));
    assert!(first["metrics"]["metrics.top1"].is_number());
    let digests = first["artifacts"].as_object().unwrap();
    assert!(digests.contains_key("image") && digests.contains_key("metrics"), "{digests:?}");
    assert!(digests.values().all(|digest| digest.as_str().unwrap().len() == 64));
    assert!(first["tasks"]["executed"].as_u64().unwrap() > 0);

    let second = program.json(&as_str(&evaluate(&["--threads", "1"])), 0);
    assert_eq!(second["tasks"]["executed"], 0);
    assert!(second["tasks"]["cached"].as_u64().unwrap() > 0);
    assert_eq!(second["artifacts"], first["artifacts"]);
    assert_eq!(second["metrics"], first["metrics"]);

    let runs = program.json(&["runs"], 0);
    assert_eq!(runs.as_array().unwrap().len(), 2);
    assert_eq!(keys(&runs[0]), ["run", "pipeline", "status", "reason", "started", "ended", "host", "tasks"]);
    assert_eq!((&runs[0]["run"], &runs[1]["run"]), (&second["run"], &first["run"]));
    assert_eq!(runs[0]["pipeline"], "zero-shot-eval");

    let shown = program.json(&["show", first["run"].as_str().unwrap()], 0);
    assert_eq!(shown["metrics"]["metrics.top1"]["value"], first["metrics"]["metrics.top1"]);
    assert_eq!(shown["metrics"]["metrics.top1"]["n"], 200);
    assert_eq!((&shown["status"], &shown["limit"]), (&json!("succeeded"), &json!(200)));
    let pictures: Vec<_> =
        shown["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert!(pictures.iter().any(|path| path.ends_with("metrics/confusion_matrix.png")), "{pictures:?}");
    assert!(pictures.iter().all(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0)));
}

#[test]
fn the_end_of_a_run_says_what_and_where() {
    let program = Program::new();
    let called = program.call(&as_str(&evaluate(&["--threads", "2"])));
    assert_eq!(called.code, 0, "{}", called.stderr);
    let mut filters = filters();
    // How good the model is, is another test's business.
    filters.push((r"0\.\d{4}", "SCORE"));
    insta::with_settings!({filters => filters}, { insta::assert_snapshot!("run-text", called.stdout) });
    let stored = called.stdout.lines().find_map(|line| line.split_once("confusion_matrix.png")).unwrap().0;
    let path = stored.split_whitespace().last().unwrap();
    assert!(program.path(&format!("{path}confusion_matrix.png")).is_file());
    // Nobody is at a terminal: lines instead of bars, on stderr.
    assert!(called.stderr.contains("image: done, 200 rows"), "{}", called.stderr);
    assert_eq!(
        program.call(&["show", "latest", "--pipeline"]).stdout.lines().next(),
        Some(
            "# Zero-shot classification: CLIP never saw these labels as classes. Each class becomes a few sentences, images and"
        )
    );
}

#[test]
fn a_gate_that_is_not_met_has_its_own_exit_code() {
    let program = Program::new();
    let called = program.call(&as_str(&evaluate(&["--set", "min_top1=1.5"])));
    assert_eq!(called.code, 3, "{}{}", called.stdout, called.stderr);
    assert!(called.stdout.contains("gate top1 not met: metrics.top1 is "), "{}", called.stdout);
    let document = program.json(&as_str(&evaluate(&["--set", "min_top1=1.5"])), 3);
    assert_eq!(document["status"], "failed");
    assert_eq!(program.json(&["runs", "-n", "1"], 0)[0]["status"], "failed");
    assert_eq!(program.call_unread(&as_str(&evaluate(&["--set", "min_top1=1.5"]))).code, 3);
}

#[test]
fn a_stage_that_fails_fails_the_run() {
    let program = Program::new();
    program.file("data/rows.csv", "image,caption\nno-such-picture.png,hello\n");
    let text = "version: 1\nname: broken\nstages:\n  data: {uses: dataset, with: {source: data/rows.csv}}\n  \
        image: {uses: encode, inputs: {rows: data, model: 'builtin:mini-clip'}}\n";
    program.file("p.yaml", text);
    let called = program.call(&["run", "p.yaml"]);
    // A picture that cannot be read is a bad row, or the dataset is refused: never a panic, never `running`.
    assert!([0, 1, 2].contains(&called.code), "{}", called.stderr);
    assert!(!called.stderr.contains("panicked"), "{}", called.stderr);
    assert!(program.json(&["runs"], 0).as_array().unwrap().iter().all(|run| run["status"] != "running"));
}

#[test]
fn plan_and_graph_run_nothing() {
    let program = Program::new();
    let arguments = evaluate(&[]);
    let planned: Vec<_> = std::iter::once("plan").chain(as_str(&arguments).into_iter().skip(1)).collect();
    let before = program.json(&planned, 0);
    assert_eq!(before["results"]["cached"], 0);
    assert_eq!(program.json(&["runs"], 0), json!([]));
    program.json(&as_str(&arguments), 0);
    let after = program.json(&planned, 0);
    assert_eq!((&after["results"]["compute"], &after["tasks"]), (&json!(0), &json!(0)));

    for (format, beginning) in [("mermaid", "flowchart TD"), ("dot", "digraph"), ("svg", "<svg ")] {
        let called = program.call(&["graph", arguments[1].as_str(), "--format", format]);
        assert!(called.code == 0 && called.stdout.starts_with(beginning), "{}", called.stderr);
    }
    assert_eq!(program.call(&["graph", arguments[1].as_str(), "-o", "graph.svg"]).code, 0);
    assert!(fs::read_to_string(program.path("graph.svg")).unwrap().starts_with("<svg "));
    let refused = program.call(&["graph", arguments[1].as_str(), "-o", "graph.png"]);
    assert!(
        refused.code == 2 && refused.stderr.contains("graph.png: expected a name that ends in"),
        "{}",
        refused.stderr
    );
    assert!(!program.path("graph.png").exists());
    for (file, more, beginning) in [
        ("graph.MD", &[][..], "flowchart TD"),
        ("graph.gv", &[], "digraph"),
        ("graph", &[], "flowchart TD"),
        ("graph.txt", &["--format", "dot"], "digraph"),
    ] {
        let called = program.call(&[&["graph", arguments[1].as_str(), "-o", file], more].concat());
        assert_eq!(called.code, 0, "{}", called.stderr);
        assert!(fs::read_to_string(program.path(file)).unwrap().starts_with(beginning), "{file}");
    }
}

#[test]
fn a_stage_that_there_is_not_is_a_mistake_of_the_command() {
    let program = Program::new();
    let arguments = evaluate(&[]);
    for more in [["--only", "nope"], ["--from", "image,nope"]] {
        for command in ["run", "plan"] {
            let all: Vec<_> = [command].into_iter().chain(as_str(&arguments).into_iter().skip(1)).chain(more).collect();
            let called = program.call(&all);
            assert!(called.code == 2 && called.stderr.contains("no stage is called `nope`"), "{}", called.stderr);
            assert!(
                called.stderr.contains("hint: there are ") && called.stderr.contains("image, "),
                "{}",
                called.stderr
            );
        }
    }
    assert!(!program.path(".runner").exists(), "nothing is made for a run that cannot be");
}

#[test]
fn rows_are_exported_in_every_format() {
    let program = Program::new();
    program.json(&as_str(&evaluate(&[])), 0);
    let export = |stage: &str, file: &str, more: &[&str]| {
        let called = program.call(&[&["export", "latest", stage, "-o", file], more].concat());
        assert_eq!(called.code, 0, "{}", called.stderr);
        fs::read(program.path(file)).unwrap()
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();

    let csv = text(export("scored", "scored.csv", &["--columns", "prediction,label"]));
    let mut lines = csv.lines();
    let heading: Vec<_> = lines.next().unwrap().split(',').collect();
    assert_eq!(heading[0], "id");
    assert_eq!(heading.len(), 3);
    assert!(heading.contains(&"prediction") && heading.contains(&"label"));
    assert_eq!(lines.count(), 200);

    let lines = text(export("image", "image.jsonl", &["--columns", "embedding"]));
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(keys(&first), ["id", "embedding"]);
    assert!(first["embedding"].as_array().unwrap().len() > 8);
    assert_eq!(lines.lines().count(), 200);

    assert!(export("data", "data.parquet", &[]).starts_with(b"PAR1"));
    assert!(export("data", "data.png", &[]).starts_with(b"\x89PNG"));
    assert!(export("data.classes", "classes.csv", &[]).starts_with(b"id,"));

    let refused = program.call(&["export", "latest", "scored", "-o", "scored.xlsx"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("expected a name that ends in .parquet, .csv, .jsonl or .png"),
        "{}",
        refused.stderr
    );
    let refused = program.call(&["export", "latest", "nothing", "-o", "n.csv"]);
    assert!(refused.code == 2 && refused.stderr.contains("no stage `nothing` has rows"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: those that have: classes, data, image, "), "{}", refused.stderr);
    let refused = program.call(&["export", "latest", "scored", "-o", "n.csv", "--columns", "label,nothing"]);
    assert!(refused.code == 2 && refused.stderr.contains("`scored` has no column `nothing`"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: it has id, "), "{}", refused.stderr);
    assert!(!program.path("n.csv").exists() && !program.path("n.csv.part").exists());
    assert_eq!(program.call(&["export", "nowhere", "scored", "-o", "n.csv"]).code, 2);
}

#[test]
fn an_export_works_from_another_folder_and_after_other_params() {
    let program = Program::new();
    fs::copy(repository().join("pipelines/zero_shot_eval.yaml"), program.path("eval.yaml")).unwrap();
    let run =
        ["run", "eval.yaml", "--limit", "20", "--set", "min_top1=0", "--set", "templates=[\"number {}\", \"{}\"]"];
    let run = program.json(&run, 0);
    fs::remove_file(program.path("eval.yaml")).unwrap();
    fs::create_dir(program.path("deeper")).unwrap();
    let arguments = ["export", run["run"].as_str().unwrap(), "prompts", "-o", "prompts.jsonl", "--store", "../.runner"];
    let output = program.command(&arguments).current_dir(program.path("deeper")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = fs::read_to_string(program.path("deeper/prompts.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 20);
    assert!(lines.contains("number zero") || lines.contains("number 0"), "{lines}");
}

const TRAIN: &str = "\
version: 1
name: small-training
stages:
  data: {uses: dataset, with: {source: 'mnist:test'}}
  captioned: {uses: captions, with: {count: 2}, inputs: {rows: data, classes: data.classes}}
  clip:
    uses: train
    with:
      objective: contrastive
      epochs: 2
      batch: 32
      vocabulary: 600
      architecture:
        image_size: 28
        patch_size: 14
        dim: 16
        image: {width: 32, layers: 1, heads: 2}
        text: {width: 32, layers: 1, heads: 2}
    inputs: {train: captioned}
  image: {uses: encode, inputs: {rows: data, model: clip.model}}
";

#[test]
fn a_trained_model_is_exported_and_classifies() {
    let program = Program::new();
    program.file("train.yaml", TRAIN);
    let run = program.json(&["run", "train.yaml", "--limit", "64"], 0);
    let exported = program.call(&["export", "latest", "clip", "-o", "clip.safetensors"]);
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    assert_eq!(program.call(&["export", "latest", "image", "-o", "d.png"]).code, 0);
    let found = program.json(&["classify", "d.png", "--labels", "one,two", "--model", "clip.safetensors"], 0);
    assert_eq!(found[0]["labels"].as_array().unwrap().len(), 2);
    let series = program.json(&["show", "--series"], 0);
    let losses = series["clip.loss"].as_array().unwrap();
    assert!(losses.len() >= 2 && losses.iter().all(|it| it[1].is_number()), "{series}");
    assert!(program.call(&["show", run["run"].as_str().unwrap()]).stdout.contains(" clip -o clip.safetensors"));

    let none = program.call(&["export", "latest", "image", "-o", "m.safetensors"]);
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("hint: the run made clip.model"), "{}", none.stderr);
    let again = program.json(&["run", "train.yaml", "--limit", "64"], 0);
    assert_eq!((&again["tasks"]["executed"], &again["artifacts"]), (&json!(0), &run["artifacts"]));
}

#[cfg(unix)]
#[test]
fn an_interrupt_cancels_and_the_next_run_goes_on() {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    let program = Program::new();
    let arguments = evaluate(&["--threads", "1"]);
    let mut arguments = as_str(&arguments);
    // All 10,000 digits, so that there is something to interrupt.
    arguments.retain(|argument| !["--limit", LIMIT].contains(argument));
    let mut child = program.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("run ")));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert_eq!(program.json(&["runs"], 0)[0]["status"], "cancelled");
}
