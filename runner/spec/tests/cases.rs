//! The language by example: each file in `tests/cases` is a pipeline, with what comes of it in a file beside it.
//!
//! Its name begins with the number of the rule that it is for. A first line `# set: NAME=VALUE` is an override; several
//! are separated by two spaces; `# json` shows the diagnostics as JSON. `UPDATE_EXPECT=1` rewrites
//! what is expected.

#![expect(clippy::unwrap_used, reason = "a broken case shall fail loudly")]

mod toy;

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use runner_contract::Output;
use runner_spec::{Expect, InputRef, MaxBad, Pipeline, load, load_case, load_tests};

fn check(folder: &str, expect_valid: bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() > 5, "the cases are gone");
    let mut wrong = Vec::new();
    for path in files {
        let bytes = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let result = load(name, &bytes, &overrides(&bytes), &toy::toys(), &toy::Shelf);
        if result.is_ok() != expect_valid {
            wrong.push(format!("==== {name}: {}", if expect_valid { "refused" } else { "accepted" }));
        }
        let found = match result {
            Ok(pipeline) => summary(&pipeline),
            Err(all) if bytes.starts_with(b"# json\n") => format!("{:#}\n", serde_json::to_value(&all).unwrap()),
            Err(all) => all.iter().map(|one| format!("{one}\n\n")).collect(),
        };
        let beside = path.with_extension("expected");
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if found != expected && std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&beside, &found).unwrap();
        } else if found != expected {
            wrong.push(format!("==== {name}: expected\n{expected}\n==== found\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn overrides(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let Some(line) = text.lines().take(2).find_map(|line| line.strip_prefix("# set: ")) else { return Vec::new() };
    line.split("  ").map(|one| one.split_once('=').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// A pipeline in a few lines for people.
fn summary(pipeline: &Pipeline) -> String {
    let mut out = format!("{} {:?}\n", pipeline.name, pipeline.params);
    for stage in &pipeline.stages {
        let _ = write!(out, "{}: {} {}", stage.name, stage.kind, stage.bound.settings);
        for (port, input) in &stage.inputs {
            let _ = match input {
                InputRef::Stage { stage, port: from } => {
                    write!(out, "\n    {port} <- {}.{from}", pipeline.stages[*stage].name)
                }
                InputRef::Model { reference, .. } => write!(out, "\n    {port} <- {reference}"),
            };
        }
        for (port, output) in &stage.outputs {
            let _ = match output {
                Output::Rows(schema) => write!(out, "\n    -> {port}: {}", schema.names()),
                Output::Model(info) => write!(out, "\n    -> {port}: {} {}", info.family, info.identity.short()),
            };
        }
        for need in &stage.needs {
            let _ = write!(out, "\n    after {}", pipeline.stages[*need].name);
        }
        let options = (stage.keep, stage.cache, stage.device);
        if options != (false, true, None) {
            let _ = write!(out, "\n    keep {}, cache {}, device {:?}", options.0, options.1, options.2);
        }
        if !stage.secrets.is_empty() {
            let _ = write!(out, "\n    secrets {:?}", stage.secrets);
        }
        if stage.max_bad != MaxBad::Default {
            let _ = write!(out, "\n    max_bad {:?}", stage.max_bad);
        }
        if stage.retries > 0 || stage.timeout.is_some() {
            let _ = write!(out, "\n    retries {}, timeout {:?}", stage.retries, stage.timeout);
        }
        out.push('\n');
    }
    for gate in &pipeline.gates {
        let _ = writeln!(out, "gate {}: {} {:?}..{:?}", gate.name, gate.metric, gate.min, gate.max);
    }
    for name in pipeline.includes.keys() {
        let _ = writeln!(out, "includes {name}");
    }
    for (name, value) in &pipeline.environment {
        let _ = writeln!(out, "{name} is {value}");
    }
    for name in &pipeline.skipped {
        let _ = writeln!(out, "skipped {name}");
    }
    out
}

/// What a test expects, in a few lines for people.
fn expected(expect: &Expect) -> String {
    let mut out = String::new();
    if let Some((text, _)) = &expect.error {
        let _ = writeln!(out, "expect error {text}");
    }
    for gate in &expect.gates {
        let _ = writeln!(out, "expect gate {} {}", gate.gate, gate.passed);
    }
    for metric in &expect.metrics {
        let _ = writeln!(out, "expect {} {}", metric.metric, metric.number);
    }
    for rows in &expect.rows {
        let count = rows.count.as_ref().map(|(count, _)| *count);
        let _ = writeln!(out, "expect rows {} {count:?} {:?}", rows.output, rows.tolerance);
        for row in &rows.rows {
            let values: Vec<_> = row.values.iter().map(|value| format!("{}: {}", value.column, value.value)).collect();
            let _ = writeln!(out, "    {} {values:?} at {}", row.id, row.place);
        }
    }
    out
}

#[test]
fn tests_beside_pipelines_are_read_and_compared_with_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tests");
    let pipeline = fs::read(folder.join("pipeline.yaml")).unwrap();
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(".test.yaml"));
    files.sort();
    let mut wrong = Vec::new();
    for path in files {
        let name = format!("tests/{}", path.file_name().unwrap().to_str().unwrap());
        let mut found = String::new();
        let shown = |all: Vec<_>| all.iter().map(|one| format!("{one}\n\n")).collect::<String>();
        match load_tests(&name, &fs::read(&path).unwrap()) {
            Err(all) => found.push_str(&shown(all)),
            Ok(tests) => {
                for case in &tests.cases {
                    let _ = writeln!(found, "== {} {:?} {:?}", case.name, case.set, case.limit);
                    found.push_str(&expected(&case.expect));
                    match load_case("pipeline.yaml", &pipeline, &tests, case, &toy::toys(), &toy::Shelf) {
                        Ok(pipeline) => found.push_str(&summary(&pipeline)),
                        Err(all) => found.push_str(&shown(all)),
                    }
                }
            }
        }
        let beside = path.with_extension("expected");
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if found != expected && std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&beside, &found).unwrap();
        } else if found != expected {
            wrong.push(format!("==== {name}: expected\n{expected}\n==== found\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The numbers of the rules in the specification: `4.3`.
fn rules() -> BTreeSet<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/language.md")).unwrap();
    let number = |line: &str| {
        let number = line.split_whitespace().next()?;
        let (section, rule) = number.split_once('.')?;
        [section, rule].iter().all(|part| part.parse::<u32>().is_ok()).then(|| number.to_owned())
    };
    page.lines().filter_map(number).collect()
}

#[test]
fn every_rule_of_the_specification_has_a_case() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut covered = BTreeSet::new();
    for folder in ["valid", "invalid", "tests"] {
        for entry in fs::read_dir(cases.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            covered.extend(name.split_once('_').map(|(number, _)| number.to_owned()));
        }
    }
    let rules = rules();
    assert!(rules.len() > 30, "the rules are gone: {rules:?}");
    let without: Vec<_> = rules.difference(&covered).collect();
    assert!(without.is_empty(), "rules without a case: {without:?}");
    let unknown: Vec<_> = covered.difference(&rules).collect();
    assert!(unknown.is_empty(), "cases of rules that are not there: {unknown:?}");
}

#[test]
fn valid_pipelines_become_what_their_authors_meant() {
    check("valid", true);
}

#[test]
fn mistakes_are_reported_where_they_are() {
    check("invalid", false);
}
