//! What is printed, word for word: help and errors.

use crate::program::{Program, filters};

macro_rules! check {
    ($called:expr, @$expected:literal) => {
        insta::with_settings!({filters => filters()}, { insta::assert_snapshot!($called.all(), @$expected) });
    };
    ($name:literal, $called:expr) => {
        insta::with_settings!({filters => filters()}, { insta::assert_snapshot!($name, $called.all()) });
    };
}

#[test]
fn help_of_every_command() {
    let program = Program::new();
    check!("help", program.call(&["--help"]));
    let commands = [
        "run", "plan", "test", "validate", "graph", "runs", "show", "logs", "cancel", "export", "report", "classify",
        "kinds", "gc", "doctor", "man",
    ];
    for command in commands {
        let called = program.call(&[command, "-h"]);
        insta::with_settings!({filters => filters()}, { insta::assert_snapshot!(format!("help-{command}"), called.all()) });
    }
    for group in ["dataset", "model"] {
        let called = program.call(&[group, "-h"]);
        insta::with_settings!({filters => filters()}, { insta::assert_snapshot!(format!("help-{group}"), called.all()) });
    }
}

#[test]
fn usage_errors() {
    let program = Program::new();
    check!("usage-command", program.call(&["rum", "x.yaml"]));
    check!("usage-set", program.call(&["run", "x.yaml", "--set", "model"]));
    check!("usage-limit", program.call(&["run", "x.yaml", "--limit", "0"]));
    check!("usage-runs-limit", program.call(&["runs", "--limit", "0"]));
    check!("usage-no-file", program.call(&["run", "x.yaml"]));
    check!("usage-no-labels", program.call(&["classify", "x.png"]));
    check!("usage-template", program.call(&["classify", "x.png", "--labels", "a", "--template", "a photo"]));
    check!("usage-kind", program.call(&["kinds", "encod"]));
    check!("usage-threads", program.call(&["doctor", "--threads", "0"]));
    program.file("runner.toml", "threads = 2\nstroe = 'x'\n");
    check!("usage-settings", program.call(&["runs"]));
}

const WRONG: &str = "\
version: 1
name: wrong
stages:
  data:
    uses: datset
    with: {source: 'mnist:test'}
  texts:
    uses: texts
    with: {value: [one]}
  image:
    uses: encode
    inputs: {rows: dat, model: 'builtin:mini-clop'}
";

#[test]
fn an_invalid_pipeline_shows_every_mistake() {
    let program = Program::new();
    program.file("wrong.yaml", WRONG);
    check!("invalid-validate", program.call(&["validate", "wrong.yaml"]));
    check!("invalid-validate-json", program.call(&["validate", "wrong.yaml", "--json"]));
    let run = program.call(&["run", "wrong.yaml"]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("wrong.yaml:5:11"), "{}", run.stderr);
    assert!(!program.path(".runner").exists(), "nothing is made for a pipeline that cannot run");
    let error = &program.json(&["run", "wrong.yaml"], 2)["error"];
    assert_eq!(error["diagnostics"].as_array().unwrap().len(), run.stderr.matches("error: ").count());
}

#[test]
fn an_empty_store() {
    let program = Program::new();
    check!("empty-runs", program.call(&["runs"]));
    check!("empty-show", program.call(&["show"]));
    assert_eq!(program.json(&["runs"], 0), serde_json::json!([]));
    assert!(!program.path(".runner").exists(), "what only reads makes nothing");
    program.file("other/thesis.tex", "");
    let text = "version: 1\nname: x\nstages: {data: {uses: dataset, with: {source: 'mnist:test'}, keep: true}}\n";
    check!("unwritable-store", program.call_with(&["run", "-", "--store", "/proc/store"], text));
    check!("foreign-store", program.call_with(&["run", "-", "--store", "other"], text));
}

#[test]
fn colours_are_for_those_who_ask() {
    let program = Program::new();
    let coloured = |arguments: &[&str]| program.call(arguments).stderr.contains('\x1b');
    assert!(!coloured(&["show"]));
    assert!(coloured(&["show", "--color", "always"]));
    let mut command = program.command(&["show", "--color", "auto"]);
    let output = command.env("NO_COLOR", "1").output().unwrap();
    assert!(!output.stderr.contains(&0x1b));
}

#[test]
fn the_schema_in_the_repository_is_the_one_of_this_program() {
    let program = Program::new();
    let path = crate::program::repository().join("schemas/pipeline.schema.json");
    let schema = program.call(&["schema"]).stdout;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &schema).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == schema, "runner schema > schemas/pipeline.schema.json");
}

#[test]
fn completions_know_the_commands() {
    let program = Program::new();
    for shell in ["bash", "zsh", "fish"] {
        let called = program.call(&["completions", shell]);
        assert!(called.code == 0 && called.stdout.contains("classify"), "{shell}");
    }
}
