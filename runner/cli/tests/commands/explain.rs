//! What a plan and a recorded run say of themselves.

use std::{path::Path, process::Command};

use crate::program::{Program, repository};
use serde_json::{Value, json};

const PIPELINE: &str = "\
version: 1
name: explained
params:
  templates: {type: list, default: ['a {}']}
  scale: {type: number, default: 1}
stages:
  data: {uses: dataset, with: {source: 'mnist:test'}}
  prompts: {uses: prompts, with: {templates: '${{ params.templates }}'}, inputs: data.classes}
  text: {uses: encode, inputs: {rows: prompts, model: 'builtin:mini-clip'}}
  image: {uses: encode, inputs: {rows: data, model: 'builtin:mini-clip'}}
";

/// Runs commands of a shell that knows the program.
fn shell(program: &Program, script: &str) -> (bool, String) {
    let folder = Path::new(env!("CARGO_BIN_EXE_runner")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(program.folder.path()).env_clear();
    let output = command.env("PATH", path).env("HOME", program.folder.path()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_plan_names_what_changed_since_the_last_run() {
    let program = Program::new();
    program.file("p.yaml", PIPELINE);
    let stage = |plan: &Value, name: &str| {
        plan["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == name).unwrap().clone()
    };
    program.json(&["run", "p.yaml", "--limit", "30"], 0);
    let plan = program.json(&["plan", "p.yaml", "--limit", "30", "--set", "templates=[\"the {}\"]"], 0);
    let text = &stage(&plan, "text")["results"][0];
    assert_eq!(text["state"], "compute");
    assert!(text["why"].as_str().unwrap().contains("templates"), "{text}");
    assert!(!text["changed"].as_array().unwrap().is_empty(), "{text}");
    assert_eq!(stage(&plan, "image")["results"][0]["state"], "cached");

    let shards = program.call(&["plan", "p.yaml", "--limit", "30", "--shards"]);
    assert_eq!(shards.code, 0);
    let line = shards.stdout.lines().find(|line| line.trim_start().starts_with("image")).unwrap();
    assert!(line.contains("cached") && line.contains("30"), "{}", shards.stdout);
    let wrong = program.call(&["plan", "p.yaml", "--only", "imaeg"]);
    assert!(wrong.code != 0 && wrong.stderr.contains("image"), "{}", wrong.stderr);
}

#[test]
fn a_part_of_a_pipeline_runs_alone_or_again() {
    let program = Program::new();
    program.file("p.yaml", PIPELINE);
    let only = program.json(&["run", "p.yaml", "--limit", "30", "--only", "text"], 0);
    assert!(only["artifacts"].get("text").is_some() && only["artifacts"].get("image").is_none(), "{only}");
    let all = program.json(&["run", "p.yaml", "--limit", "30"], 0);
    assert_eq!(all["artifacts"]["text"], only["artifacts"]["text"]);
    let again = program.json(&["run", "p.yaml", "--limit", "30", "--from", "image"], 0);
    assert!(again["tasks"]["executed"].as_u64().unwrap() > 0, "{again}");
    assert_eq!(again["artifacts"], all["artifacts"]);
}

#[test]
fn a_run_says_what_it_ran_with_and_how_to_run_it_again() {
    let program = Program::new();
    program.file("it's here/p.yaml", PIPELINE);
    let arguments = ["run", "it's here/p.yaml", "--limit", "30", "--set", "templates=[\"it's {}\", \"$HOME {}\"]"];
    let first = program.json(&arguments, 0);
    let shown = program.json(&["show"], 0);
    assert_eq!(shown["params"]["templates"], json!(["it's {}", "$HOME {}"]));
    assert_eq!(shown["environment"]["file"], "it's here/p.yaml");
    assert!(shown["environment"]["models"].to_string().contains("builtin:mini-clip"), "{}", shown["environment"]);
    assert!(shown["environment"]["sources"].to_string().contains("mnist:test"), "{}", shown["environment"]);
    let text = program.call(&["show"]).stdout;
    for said in ["p.yaml", "it's {}", "builtin:mini-clip", "mnist:test", "--repeat"] {
        assert!(text.contains(said), "{said}:\n{text}");
    }

    std::fs::remove_dir_all(program.path("it's here")).unwrap();
    let script = program.call(&["show", "--repeat"]).stdout;
    let (fine, said) = shell(&program, &script);
    assert!(fine, "{script}{said}");
    let second = program.json(&["show", "latest"], 0);
    assert_ne!(second["run"], first["run"]);
    assert_eq!((&second["params"], &second["limit"]), (&shown["params"], &json!(30)));
    assert_eq!(second["tasks"]["executed"], 0, "it is the same run");
}

#[test]
fn a_run_with_included_files_and_variables_is_repeated_without_them() {
    let program = Program::new();
    program.file(
        "pipelines/parts/texts.yaml",
        "stages:\n  texts: {uses: texts, with: {values: ['${{ env.WORD }}']}, keep: true}\n",
    );
    program.file(
        "pipelines/p.yaml",
        "version: 1\nname: parts\ninclude: [parts/texts.yaml]\nstages:\n  \
        more: {uses: texts, with: {values: [b]}, keep: true}\n",
    );
    let mut command = program.command(&["run", "pipelines/p.yaml", "--json"]);
    let output = command.env("WORD", "it's").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_dir_all(program.path("pipelines")).unwrap();

    assert_eq!(program.call(&["export", "latest", "texts", "-o", "texts.csv"]).code, 0);
    assert!(std::fs::read_to_string(program.path("texts.csv")).unwrap().contains("it's"));
    let script = program.call(&["show", "--repeat"]).stdout;
    let (fine, said) = shell(&program, &script);
    assert!(fine, "{script}{said}");
    let again = program.json(&["show"], 0);
    assert_eq!(again["tasks"]["executed"], 0, "{again}");
    assert_eq!(again["environment"]["env"]["WORD"], "it's");
}

#[test]
fn secrets_reach_the_stage_and_nobody_else() {
    let program = Program::new();
    program.file(
        "p.yaml",
        "version: 1\nname: secretive\nstages:\n  \
        texts: {uses: texts, with: {values: ['${{ secrets.API_TOKEN }}']}, keep: true}\n",
    );
    let missing = program.call(&["validate", "p.yaml"]);
    assert!(missing.code == 2 && missing.stderr.contains("API_TOKEN"), "{}", missing.stderr);
    let secrets = program.file("secrets.env", "# for tests\nexport API_TOKEN='hush-hush'\n");
    program.file("runner.toml", "secrets_file = 'secrets.env'\n");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |mode| std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let refused = program.call(&["validate", "p.yaml"]);
        assert!(refused.code == 2 && refused.stderr.contains("hint: chmod 600 "), "{}", refused.stderr);
        mode(0o600);
    }
    assert_eq!(program.call(&["validate", "p.yaml"]).code, 0);
    let run = program.call(&["run", "p.yaml", "--json", "-v"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // The rows are what the stage made of it; whoever keeps them knows it.
    for arguments in
        [&["show"][..], &["show", "--json"], &["show", "--pipeline"], &["plan", "p.yaml", "--json"], &["logs"]]
    {
        let called = program.call(arguments);
        assert!(!called.all().contains("hush"), "{}", called.all());
    }
    let records = std::fs::read(program.path(".runner/records.sqlite")).unwrap();
    assert!(!records.windows(9).any(|bytes| bytes == b"hush-hush"));
    drop(secrets);
}

#[test]
fn runs_are_found_by_pipeline_status_and_age() {
    let program = Program::new();
    let text = |name: &str| {
        format!("version: 1\nname: {name}\nstages:\n  t: {{uses: texts, with: {{values: [a]}}, keep: true}}\n")
    };
    program.file("a.yaml", text("first"));
    program.file("b.yaml", text("second"));
    ["a.yaml", "b.yaml", "a.yaml"].iter().for_each(|file| drop(program.json(&["run", file], 0)));
    let found = |arguments: &[&str]| program.json(&[&["runs"], arguments].concat(), 0).as_array().unwrap().len();
    assert_eq!(found(&["--pipeline", "first"]), 2);
    assert_eq!(found(&["--pipeline", "first", "-n", "1"]), 1);
    assert_eq!(found(&["--status", "failed"]), 0);
    assert_eq!(found(&["--status", "succeeded", "--since", "1h"]), 3);
    assert_eq!(program.call(&["runs", "--status", "failed"]).stdout, "no such run\n");
}

#[test]
fn several_pipelines_are_checked_at_once() {
    let program = Program::new();
    program.file("good.yaml", PIPELINE);
    program.file("bad.yaml", "version: 1\nname: bad\nstages: {a: {uses: txts}}\n");
    let called = program.call(&["validate", "good.yaml", "bad.yaml", "gone.yaml"]);
    assert_eq!(called.code, 2);
    assert!(called.stdout.contains("good.yaml is valid: 4 stages"), "{}", called.stdout);
    assert!(
        called.stderr.contains("bad.yaml:3:") && called.stderr.contains("cannot read gone.yaml"),
        "{}",
        called.stderr
    );
    let document = program.json(&["validate", "good.yaml", "bad.yaml"], 2);
    assert_eq!((&document["valid"], &document["files"][0]["valid"]), (&json!(false), &json!(true)));
    assert_eq!(document["files"][1]["diagnostics"].as_array().unwrap().len(), 1);
    let shipped = repository().join("pipelines");
    let files =
        ["classify.yaml", "subset.yaml", "zero_shot_eval.yaml"].map(|name| shipped.join(name).display().to_string());
    let arguments = [vec!["validate"], files.iter().map(String::as_str).collect()].concat();
    let mut command = program.command(&arguments);
    assert!(command.current_dir(repository()).output().unwrap().status.success());
    assert!(!program.path(".runner").exists());
}

#[test]
fn a_stdout_that_nobody_reads_hides_no_mistake() {
    let program = Program::new();
    program.file("good.yaml", PIPELINE);
    program.file("bad.yaml", "version: 1\nname: bad\nstages: {a: {uses: txts}}\n");
    for arguments in [&["validate", "good.yaml", "bad.yaml"][..], &["validate", "bad.yaml", "--json"]] {
        assert_eq!(program.call_unread(arguments).code, 2, "{arguments:?}");
    }
    let called = program.call_unread(&["validate", "good.yaml"]);
    assert_eq!((called.code, called.stderr.as_str()), (0, ""));
}

#[test]
fn large_pipelines_and_broken_ones_are_checked_in_a_moment() {
    let program = Program::new();
    let mut text = PIPELINE.to_owned();
    for i in 0..75 {
        text.push_str(&format!(
            "  image{i}: {{uses: encode, inputs: {{rows: data, model: 'builtin:mini-clip'}}}}\n  \
             text{i}: {{uses: encode, inputs: {{rows: prompts, model: 'builtin:mini-clip'}}}}\n  \
             classes{i}: {{uses: pool, inputs: text{i}}}\n  \
             scored{i}: {{uses: score, inputs: {{queries: image{i}, candidates: classes{i}}}}}\n"
        ));
    }
    program.file("large.yaml", &text);
    program.file("deep.yaml", format!("version: 1\nname: x\nstages: {}", "[".repeat(10_000_000)));
    let began = std::time::Instant::now();
    let called = program.call(&["validate", "large.yaml", "deep.yaml"]);
    let took = began.elapsed();
    assert!(called.code == 2 && called.stdout.contains("large.yaml is valid: 304 stages"), "{}", called.all());
    // Far more than it takes, so that a busy machine fails nothing.
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
}

#[test]
fn there_is_a_page_for_every_command() {
    let program = Program::new();
    let page = program.call(&["man"]);
    assert!(page.code == 0 && page.stdout.contains(".TH runner 1"), "{}", page.stdout);
    assert_eq!(program.call(&["man", "man1"]).code, 0);
    for name in ["runner.1", "runner-run.1", "runner-gc.1", "runner-model-export.1"] {
        let page = std::fs::read_to_string(program.path("man1").join(name)).unwrap();
        assert!(page.contains(".SH OPTIONS"), "{name}");
    }
}
