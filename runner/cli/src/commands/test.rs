//! `runner test PIPELINE…`

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::ValueHint;
use serde_json::{Value, json};

use crate::{
    Exit,
    app::{self, App},
    cases::{Outcome, Suite, Verdict},
    failure::Failure,
    junit,
    output::{escaped, span},
};

/// What stands before `.yaml` in the name of a file of tests.
const TESTS: &str = ".test";

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The pipelines' files; the tests of x.yaml are in x.test.yaml beside it
    #[arg(required = true, value_name = "PIPELINE", value_hint = ValueHint::FilePath)]
    pipelines: Vec<PathBuf>,
    /// Only the tests of this name
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Write the outcome as JUnit XML, for CI
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    junit: Option<PathBuf>,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let services = app.services(&app.folder)?;
    let registry = runner_stages::registry(&services);
    let cancel = app.cancel_on_interrupt();
    let mut suites = Vec::new();
    let mut mistakes = Vec::new();
    // Every file is read before anything runs.
    for (pipeline, tests) in files(&args.pipelines)? {
        let read = app::read(&tests).map_err(|failure| missing(failure, &pipeline, &tests))?;
        match runner_spec::load_tests(&read.0, &read.1) {
            Ok(file) => {
                let pipeline = app::read(&pipeline)?;
                suites.push(Suite { app, services: &services, registry: &registry, pipeline, tests: file });
            }
            Err(found) => mistakes.extend(found),
        }
    }
    if !mistakes.is_empty() {
        return Err(Failure::Pipeline(mistakes));
    }
    check_names(&args.case, &suites)?;

    let mut outcomes: Vec<(String, Vec<Outcome>)> = Vec::new();
    for suite in &suites {
        let wanted = |name: &String| args.case.is_empty() || args.case.contains(name);
        let mut of_suite = Vec::new();
        app.output.text(&format!("{}\n", app.output.paint.bold(&suite.pipeline.0)))?;
        for case in suite.tests.cases.iter().filter(|case| wanted(&case.name)) {
            let outcome = suite.run(case, &cancel).await?;
            app.output.text(&text(&outcome, app))?;
            of_suite.push(outcome);
        }
        outcomes.push((suite.pipeline.0.clone(), of_suite));
    }
    if let Some(path) = &args.junit {
        fs::write(path, junit::document(&outcomes)).map_err(Failure::file("write", path))?;
    }
    let of = |verdict| outcomes.iter().flat_map(|(_, all)| all).filter(|it| it.verdict == verdict).count();
    let (passed, failed, invalid) = (of(Verdict::Passed), of(Verdict::Failed), of(Verdict::Invalid));
    if app.output.json {
        let files: Vec<_> = outcomes.iter().map(|(pipeline, all)| document(pipeline, all)).collect();
        let counts = json!({"passed": passed, "failed": failed, "invalid": invalid, "pipelines": files});
        app.output.document(&counts)?;
    }
    let also = |number: usize, word: &str| if number > 0 { format!(", {number} {word}") } else { String::new() };
    app.output.text(&format!("{passed} passed{}{}\n", also(failed, "failed"), also(invalid, "invalid")))?;
    Ok(match (failed, invalid) {
        (0, 0) => Exit::Done,
        (_, 0) => Exit::Failed,
        _ => Exit::Invalid,
    })
}

/// Each pipeline with the file of its tests, however it was named.
fn files(paths: &[PathBuf]) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let ending = path.extension().and_then(|ending| ending.to_str());
        let (Some(stem), Some(ending)) = (stem, ending) else {
            let message = format!("{} is no pipeline's file", path.display());
            return Err(Failure::usage(message, "name a file that ends in .yaml"));
        };
        let stem = stem.strip_suffix(TESTS).unwrap_or(stem);
        let pair =
            (path.with_file_name(format!("{stem}.{ending}")), path.with_file_name(format!("{stem}{TESTS}.{ending}")));
        // `runner test pipelines/*.yaml` names both.
        if !files.contains(&pair) {
            files.push(pair);
        }
    }
    // Of several pipelines, some may have no tests.
    if files.len() > 1 && files.iter().any(|(_, tests)| tests.is_file()) {
        files.retain(|(_, tests)| tests.is_file());
    }
    Ok(files)
}

/// A file of tests that cannot be read.
fn missing(failure: Failure, pipeline: &Path, tests: &Path) -> Failure {
    if tests.exists() || !pipeline.is_file() {
        return failure;
    }
    let message = format!("{} has no tests", pipeline.display());
    Failure::usage(message, format!("write them into {}; docs/language.md says how", tests.display()))
}

/// Refuses names that no test has.
fn check_names(names: &[String], suites: &[Suite<'_>]) -> Result<(), Failure> {
    let known: Vec<_> =
        suites.iter().flat_map(|suite| &suite.tests.cases).map(|case| format!("`{}`", case.name)).collect();
    match names.iter().find(|name| !known.contains(&format!("`{name}`"))) {
        Some(name) => Err(Failure::usage(format!("no test `{name}`"), format!("there are {}", known.join(", ")))),
        None => Ok(()),
    }
}

fn document(pipeline: &str, outcomes: &[Outcome]) -> Value {
    let cases: Vec<_> = outcomes
        .iter()
        .map(|it| {
            json!({
                "case": it.case,
                "status": it.verdict.as_str(),
                "seconds": it.took.as_secs_f64(),
                "failures": it.failures,
            })
        })
        .collect();
    json!({"pipeline": pipeline, "cases": cases})
}

fn text(outcome: &Outcome, app: &App<'_>) -> String {
    let paint = app.output.paint;
    let word = match outcome.verdict {
        Verdict::Passed => paint.green("passed "),
        Verdict::Failed => paint.red("failed "),
        Verdict::Invalid => paint.red("invalid"),
    };
    let mut text = format!("  {word}  {} ({})\n", escaped(&outcome.case), span(outcome.took));
    for failure in &outcome.failures {
        for line in failure.render(paint.0).lines() {
            text.push_str(format!("    {line}").trim_end());
            text.push('\n');
        }
    }
    text
}
