//! Tests that users write beside their pipelines.

use std::fs;

use crate::program::{Program, filters, repository};
use serde_json::{Value, json};

const PIPELINE: &str = "\
version: 1
name: words
params: {least: {type: number, default: 0.5}, model: {type: model, default: 'builtin:mini-clip'}}
stages:
  data: {uses: dataset, with: {source: 'no/such/folder'}}
  prompts: {uses: prompts, with: {templates: ['a photo of the number: \"{}\".']}, inputs: data.classes}
  image: {uses: encode, inputs: {rows: data, model: '${{ params.model }}'}}
  text: {uses: encode, inputs: {rows: prompts, model: '${{ params.model }}'}}
  scored: {uses: score, inputs: {queries: image, candidates: text}}
  metrics: {uses: metrics, with: {task: classification}, inputs: scored}
gates: {top1: {metric: metrics.top1, min: '${{ params.least }}'}}
";

const TESTS: &str = "\
cases:
  - name: good
    rows: &pictures
      data:
        rows: [{id: a, image: three.png, label: 3}, {id: b, image: seven.png, label: 7}]
        classes: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
    expect:
      metrics: {metrics.top1: 1}
      gates: {top1: passed}
      rows: {prompts: {count: 10, rows: [{id: '3/0', text: 'a photo of the number: \"3\".'}]}}
  - name: bad
    rows: *pictures
    expect:
      metrics: {metrics.top1: 0.25, metrics.n: {min: 3}}
      gates: {top1: failed}
      rows:
        scored:
          count: 3
          rows: [{id: a, label: 4}, {id: c, label: 1}]
  - name: wrong <&> \"quoted\"
    set: {model: 'builtin:nothing'}
    rows: *pictures
    expect: {metrics: {metrics.top1: 1}}
  - name: fails as it should
    set: {model: 'builtin:nothing'}
    rows: *pictures
    expect: {error: no such built-in model}
  - name: should fail
    rows: *pictures
    expect: {error: no such built-in model}
";

fn program() -> Program {
    let program = Program::new();
    program.file("p.yaml", PIPELINE);
    program.file("p.test.yaml", TESTS);
    for name in ["three.png", "seven.png"] {
        fs::copy(repository().join("pipelines/pictures").join(name), program.path(name)).unwrap();
    }
    program
}

#[test]
fn what_is_not_as_expected_is_shown_in_its_place() {
    let program = program();
    let called = program.call(&["test", "p.yaml", "--junit", "out.xml"]);
    insta::with_settings!({filters => filters()}, { insta::assert_snapshot!("test-text", called.all()) });
    let xml = fs::read_to_string(program.path("out.xml")).unwrap();
    let mut filters = filters();
    filters.push((r#"time="[0-9.]+""#, r#"time="TIME""#));
    insta::with_settings!({filters => filters}, { insta::assert_snapshot!("test-junit", xml) });
    assert!(!program.path(".runner").exists(), "tests have a store of their own");

    let document = program.json(&["test", "p.yaml"], 2);
    let counts = ["passed", "failed", "invalid"].map(|word| document[word].as_u64().unwrap());
    assert_eq!(counts, [2, 2, 1]);
    let cases = document["pipelines"][0]["cases"].as_array().unwrap();
    let failures = |i: usize| cases[i]["failures"].as_array().unwrap();
    assert_eq!((cases[0]["case"].as_str(), failures(0).len()), (Some("good"), 0));
    assert!(failures(1).iter().all(|it| it["place"]["file"] == "p.test.yaml"), "{document}");
}

#[test]
fn exit_codes_say_how_tests_came_out() {
    let program = program();
    let code = |arguments: &[&str]| program.call(&[&["test"], arguments].concat()).code;
    assert_eq!(code(&["p.yaml", "--case", "good", "--case", "fails as it should"]), 0);
    assert_eq!(code(&["p.test.yaml", "--case", "good"]), 0, "the file of tests names its pipeline");
    assert_eq!(code(&["p.yaml", "--case", "bad"]), 1);
    let unknown = program.call(&["test", "p.yaml", "--case", "godo"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("`good`"), "{}", unknown.stderr);
    program.file("lonely.yaml", PIPELINE);
    let lonely = program.call(&["test", "lonely.yaml"]);
    assert!(lonely.code == 2 && lonely.stderr.contains("lonely.test.yaml"), "{}", lonely.stderr);
    program.file("lonely.test.yaml", "cases: [{name: a, expcet: {}}]\n");
    let broken = program.call(&["test", "lonely.yaml"]);
    assert!(broken.code == 2 && broken.stderr.contains("lonely.test.yaml:1:"), "{}", broken.stderr);
}

#[test]
fn the_shipped_pipelines_pass_their_tests() {
    let program = Program::new();
    let mut command = program.command(&["test", "--json"]);
    for name in ["classify", "classify_images", "subset", "train_clip", "zero_shot_eval"] {
        command.arg(format!("pipelines/{name}.yaml"));
    }
    let output = command.current_dir(repository()).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{document:#}");
    assert_eq!(document["pipelines"].as_array().unwrap().len(), 5);
    assert_eq!((&document["failed"], &document["invalid"]), (&json!(0), &json!(0)));
}
