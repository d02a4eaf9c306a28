//! Runs that somebody watches, stops and cleans up after.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStderr, Stdio},
};

use crate::program::{Program, repository};
use serde_json::{Value, json};

/// The main job on all 10,000 digits, on one thread: long enough to do something meanwhile.
fn start(program: &Program) -> (Child, Lines<BufReader<ChildStderr>>) {
    let pipeline = repository().join("pipelines/zero_shot_eval.yaml");
    let mut command = program.command(&["run", pipeline.to_str().unwrap(), "--threads", "1"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("run ")));
    (child, lines)
}

#[test]
fn a_run_is_stopped_from_another_terminal_and_goes_on_later() {
    let program = Program::new();
    for now in [&["--now"][..], &[]] {
        let (mut child, lines) = start(&program);
        let said = program.json(&[&["cancel"], now].concat(), 0);
        assert_eq!(said["request"], if now.is_empty() { "finish" } else { "now" });
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
        let run = program.json(&["show", said["run"].as_str().unwrap()], 0);
        assert_eq!(run["status"], "cancelled");
        assert!(run["stages"].as_array().unwrap().iter().all(|stage| stage["status"] != "running"), "{run}");
    }
    let refused = program.call(&["cancel"]);
    assert!(refused.code == 2 && refused.stderr.contains("no run is running"), "{}", refused.stderr);
    let refused = program.call(&["cancel", "latest"]);
    assert!(refused.code == 2 && refused.stderr.contains("is not running: cancelled"), "{}", refused.stderr);
}

#[cfg(unix)]
#[test]
fn a_process_that_is_told_to_terminate_finishes_what_is_in_flight() {
    let program = Program::new();
    let (mut child, lines) = start(&program);
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    signal("-TERM");
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.starts_with("finishing what is in flight")), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    let run = program.json(&["show"], 0);
    assert_eq!(run["status"], "cancelled");
    // What ended is recorded: the next run does not do it again.
    let done = run["tasks"]["executed"].as_u64().unwrap();
    let pipeline = repository().join("pipelines/zero_shot_eval.yaml");
    let plan = program.json(&["plan", pipeline.to_str().unwrap()], 0);
    assert!(plan["results"]["cached"].as_u64().unwrap() >= done, "{plan}");
}

#[cfg(unix)]
#[test]
fn a_second_interrupt_stops_at_once() {
    let program = Program::new();
    let (mut child, mut lines) = start(&program);
    let interrupt = |child: &Child| {
        let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    for said in ["finishing what is in flight", "stopping; "] {
        interrupt(&child);
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line.starts_with(said)), "{said}");
    }
    lines.map_while(Result::ok).for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(program.json(&["show"], 0)["status"], "cancelled");
}

#[test]
fn a_log_is_followed_until_the_run_ends() {
    let program = Program::new();
    let (mut child, lines) = start(&program);
    let follower = program.command(&["logs", "-f", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(program.call_unread(&["logs", "-f"]).code, 0);
    assert_eq!(child.try_wait().unwrap(), None, "nobody follows to the end what nobody reads");
    lines.map_while(Result::ok).for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let followed = follower.wait_with_output().unwrap();
    assert!(followed.status.success());
    let followed: Vec<Value> =
        String::from_utf8(followed.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!followed.is_empty());
    // Afterwards the same is one document.
    assert_eq!(program.json(&["logs"], 0), Value::Array(followed.clone()));
    let sequence: Vec<_> = followed.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert!(sequence.is_sorted_by(|a, b| a < b), "{sequence:?}");

    let of_image = program.json(&["logs", "latest", "image"], 0);
    assert!(of_image.as_array().unwrap().iter().all(|line| line["stage"] == "image"));
    assert_eq!(program.json(&["logs", "--level", "error"], 0), json!([]));
    assert_eq!(program.json(&["logs", "--since", "2999-01-01T00:00:00Z"], 0), json!([]));
    let text = program.call(&["logs"]).stdout;
    assert_eq!(text.lines().filter(|line| !line.starts_with("   ")).count(), followed.len(), "{text}");
    let refused = program.call(&["logs", "latest", "imaeg"]);
    assert!(refused.code == 2 && refused.stderr.contains("its stages are data, "), "{}", refused.stderr);
    assert_eq!(program.call(&["logs", "--since", "yesterday"]).code, 2);
}

const TEXTS: &str = "version: 1\nname: texts\nparams: {words: {type: list, default: [one, two]}}\nstages:\n  \
    texts: {uses: texts, with: {values: '${{ params.words }}'}, keep: true}\n";

#[test]
fn old_runs_go_and_what_only_they_refer_to() {
    let program = Program::new();
    assert_eq!(program.json(&["gc"], 0)["artifacts"], json!([]));
    assert!(!program.path(".runner").exists(), "there was nothing to clean");
    program.file("p.yaml", TEXTS);
    let first = program.json(&["run", "p.yaml"], 0);
    program.json(&["run", "p.yaml", "--set", "words=three"], 0);
    // What the last run says of itself took the place of what the one before said.
    program.json(&["gc"], 0);
    let kept = program.call(&["gc"]);
    assert!(kept.code == 0 && kept.stdout.starts_with("nothing to remove: "), "{}", kept.stdout);

    let dry = program.json(&["gc", "--runs-older-than", "0s", "--dry-run"], 0);
    assert_eq!(dry["runs"].as_array().unwrap().len(), 2, "{dry}");
    assert_eq!(program.json(&["runs"], 0).as_array().unwrap().len(), 2, "a dry run removes nothing");
    let shown = program.call(&["gc", "--runs-older-than", "0s", "--dry-run"]).stdout;
    assert!(shown.contains("would go") && shown.contains("older than 0s"), "{shown}");
    let gone = program.json(&["gc", "--runs-older-than", "0s"], 0);
    assert_eq!(gone["runs"], dry["runs"]);
    assert_eq!(program.json(&["runs"], 0), json!([]));
    assert_eq!(program.call(&["show", first["run"].as_str().unwrap()]).code, 2);
    // The next run makes again what is gone, and nothing is wrong.
    let again = program.json(&["run", "p.yaml"], 0);
    assert_eq!(again["artifacts"], first["artifacts"]);
    assert_eq!(program.call(&["gc", "--max-size", "lots"]).code, 2);
}

#[test]
fn files_that_look_the_same_are_read_again_on_request() {
    let program = Program::new();
    let write = |content: &str| {
        let path = program.file("rows.csv", content);
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    };
    program.file(
        "p.yaml",
        "version: 1\nname: rows\nstages:\n  data: {uses: dataset, with: {source: rows.csv}}\n  \
        text: {uses: encode, inputs: {rows: data, model: 'builtin:mini-clip'}}\n",
    );
    write("caption,label\none,cat\ntwo,dog\n");
    assert_eq!(program.json(&["run", "p.yaml"], 0)["status"], "succeeded");
    let left =
        |arguments: &[&str]| program.json(&[&["plan", "p.yaml"], arguments].concat(), 0)["results"]["compute"].clone();
    assert_eq!(left(&[]), 0);
    write("caption,label\nsix,cat\nten,dog\n");
    assert_eq!(left(&[]), 0, "size and time are the same, so nobody looked");
    assert_ne!(left(&["--rehash"]), 0);
    assert_ne!(left(&[]), 0, "what was found is remembered");
}
