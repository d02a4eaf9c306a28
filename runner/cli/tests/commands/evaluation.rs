//! What a run measured, for others: the page, and the files of other programs.

use std::fs;

use serde_json::{Value, json};

use crate::program::{Program, repository};

/// Six scores a row; one of the rows is wrong, and names are hostile.
const PIPELINE: &str = r#"
version: 1
name: measured
description: '<b>by</b> "hand"'
params:
  note: {type: string, default: "</pre><script>alert(1)</script>"}
stages:
  data:
    uses: rows
    with:
      columns: {scores: scores}
      rows:
        - {id: a, label: 0, scores: [9, 0, 0, 0, 0, 0]}
        - {id: "<img src=x onerror=alert(1)>", label: 1, scores: [3, 0, 0, 0, 0, 0]}
        - {id: c, label: 2, scores: [0, 0, 5, 0, 0, 0]}
        - {id: d, label: 5, scores: [0, 0, 0, 0, 0, 7]}
  metrics:
    uses: metrics
    with: {task: classification}
    inputs: data
"#;

fn measured() -> Program {
    let program = Program::new();
    program.file("p.yaml", PIPELINE);
    let run = program.json(&["run", "p.yaml"], 0);
    assert_eq!(run["metrics"]["metrics.top1"], json!(0.75));
    program
}

#[test]
fn a_report_is_one_page_without_anything_from_elsewhere_in_which_names_are_only_names() {
    let program = measured();
    let called = program.call(&["report"]);
    assert_eq!(called.code, 0, "{}", called.all());
    assert!(called.stdout.starts_with("report.html: run "), "{}", called.stdout);
    let page = fs::read_to_string(program.path("report.html")).unwrap();
    for wanted in
        ["&lt;b&gt;by&lt;/b&gt;", "75.00 %", "Worst mistakes", "Reliability", "runner run", "&quot;hand&quot;"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
    for unwanted in ["<script", "<img src=x", "http://", "https://", "url("] {
        assert!(!page.contains(unwanted), "{unwanted}");
    }
    let printed = program.call(&["report", "latest", "-o", "-"]);
    assert_eq!(printed.stdout, page);
}

#[test]
fn metrics_are_written_as_clip_benchmark_does() {
    let program = measured();
    let called = program.call(&["export", "latest", "--format", "clip-benchmark"]);
    assert_eq!(called.code, 0, "{}", called.all());
    let found: Value = serde_json::from_str(&called.stdout).unwrap();
    let names: Vec<_> = found.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["dataset", "model", "pretrained", "task", "metrics", "language"]);
    assert_eq!(found["task"], "zeroshot_classification");
    assert_eq!(found["metrics"], json!({"acc1": 0.75, "acc5": 1.0, "mean_per_class_recall": 0.75}));

    fs::create_dir(program.path("out")).unwrap();
    let called = program.call(&["export", "latest", "--format", "clip-benchmark", "-o", "out"]);
    assert_eq!(called.code, 0, "{}", called.all());
    let file = fs::read_dir(program.path("out")).unwrap().next().unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(file.path()).unwrap()).unwrap(), found);

    let nothing = program.call(&["export", "latest", "data", "--format", "clip-benchmark"]);
    assert_eq!(nothing.code, 2, "{}", nothing.all());
    assert!(nothing.stderr.contains("measured nothing in `data`"), "{}", nothing.stderr);
}

#[test]
fn a_report_names_the_pictures_that_could_not_be_used() {
    let program = Program::new();
    fs::create_dir_all(program.path("pictures/a")).unwrap();
    let photograph = repository().join("pipelines/photographs/china.jpg");
    fs::copy(photograph, program.path("pictures/a/china.jpg")).unwrap();
    program.file("pictures/a/broken.png", "no picture");
    let text = "version: 1\nname: p\nstages:\n  data: {uses: dataset, with: {source: pictures}}\n  image:\n    uses: encode\n    \
                inputs: {rows: data, model: 'builtin:mini-clip'}\n    keep: true\n";
    program.file("p.yaml", text);
    program.json(&["run", "p.yaml"], 0);
    let page = program.call(&["report", "latest", "-o", "-"]).stdout;
    assert!(page.contains("pictures/a/broken.png") && page.contains("cannot decode the image"), "{page}");
}
