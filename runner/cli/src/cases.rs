//! Runs the tests of a pipeline: each case in a store of its own, and what came is held against what was expected.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use runner_data::write::Writer;
use runner_engine::{Cancel, Engine, PlanOptions, RunReport};
use runner_spec::{Diagnostic, ExpectedRows, Pipeline, Place, TestCase, TestFile, same};
use runner_stages::{BuiltinRegistry, Services};
use runner_store::{RunStatus, Store};
use serde_json::{Map, Value};

use crate::{app::App, failure::Failure, output::number};

/// Rows whose ids are named where one is missing.
const NAMED: usize = 8;

/// A pipeline and its tests.
pub(crate) struct Suite<'a> {
    pub(crate) app: &'a App<'a>,
    pub(crate) services: &'a Services,
    pub(crate) registry: &'a BuiltinRegistry,
    /// The pipeline's name for messages, and its text.
    pub(crate) pipeline: (String, Vec<u8>),
    pub(crate) tests: TestFile,
}

/// How a case came out.
pub(crate) struct Outcome {
    pub(crate) case: String,
    /// Where it stands.
    pub(crate) place: Place,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
    /// What is not as it should be.
    pub(crate) failures: Vec<Diagnostic>,
}

/// Whether a case passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything is as expected.
    Passed,
    /// Something is not.
    Failed,
    /// It cannot be run: the pipeline or the case is wrong.
    Invalid,
}

impl Verdict {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
        }
    }
}

impl Suite<'_> {
    /// Runs a case.
    pub(crate) async fn run(&self, case: &TestCase, cancel: &Cancel) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        let (verdict, failures) = self.verdict(case, cancel).await?;
        if cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        Ok(Outcome { case: case.name.clone(), place: case.place.clone(), verdict, took: begun.elapsed(), failures })
    }

    async fn verdict(&self, case: &TestCase, cancel: &Cancel) -> Result<(Verdict, Vec<Diagnostic>), Failure> {
        let (name, text) = &self.pipeline;
        let loaded = runner_spec::load_case(name, text, &self.tests, case, self.registry, self.services);
        let pipeline = match (loaded, &case.expect.error) {
            (Ok(pipeline), _) => pipeline,
            (Err(found), Some((text, _))) if found.iter().any(|one| one.message.contains(text)) => {
                return Ok((Verdict::Passed, Vec::new()));
            }
            (Err(found), _) => return Ok((Verdict::Invalid, found)),
        };
        let folder = tempfile::Builder::new().prefix("runner-test-").tempdir();
        let folder = folder.map_err(Failure::file("make", &std::env::temp_dir()))?;
        let store = Store::open(folder.path().join("store")).await?;
        let engine = self.app.engine(&pipeline, self.services, store.clone());
        let found = self.compare(case, pipeline, &engine, folder.path(), cancel).await;
        store.close().await;
        let found = found?;
        Ok((if found.is_empty() { Verdict::Passed } else { Verdict::Failed }, found))
    }

    /// Runs the pipeline and says what is not as expected.
    async fn compare(
        &self,
        case: &TestCase,
        pipeline: Pipeline,
        engine: &Engine,
        folder: &Path,
        cancel: &Cancel,
    ) -> Result<Vec<Diagnostic>, Failure> {
        let options = PlanOptions { limit: case.limit, ..PlanOptions::default() };
        let ended = match engine.plan(pipeline.clone(), options).await {
            Ok(plan) => engine.execute(plan, Vec::new(), cancel, &mut |_| {}).await,
            Err(error) => Err(error),
        };
        let trouble = match &ended {
            Ok(report) if report.status == RunStatus::Succeeded => None,
            Ok(report) => Some(report.error.clone().unwrap_or_else(|| report.status.to_string())),
            Err(error) => Some(error.to_string()),
        };
        if let Some((text, place)) = &case.expect.error {
            let message = match &trouble {
                Some(trouble) if trouble.contains(text) => return Ok(Vec::new()),
                Some(trouble) => format!("the run failed with another message: {trouble}"),
                None => "the run succeeded, expected an error".to_owned(),
            };
            return Ok(vec![differs(place, message)]);
        }
        let report = match (ended, trouble) {
            (Ok(report), None) => report,
            (_, trouble) => return Ok(vec![differs(&case.place, trouble.unwrap_or_default())]),
        };
        let mut found = numbers(case, &report);
        for expected in &case.expect.rows {
            let Some(target) = target(expected, &pipeline) else { continue };
            match rows(engine, &pipeline, case.limit, &target, expected, folder, cancel).await? {
                Ok(rows) => found.extend(compare_rows(expected, &rows)),
                Err(error) => found.push(differs(&expected.place, error)),
            }
        }
        Ok(found)
    }
}

fn differs(place: &Place, message: String) -> Diagnostic {
    Diagnostic { place: place.clone(), message, hint: None, related: None }
}

/// Metrics and gates that are not as expected.
fn numbers(case: &TestCase, report: &RunReport) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for expected in &case.expect.metrics {
        let (name, wanted) = (&expected.metric, &expected.number);
        match report.metrics.get(name) {
            None => {
                let names: Vec<_> = report.metrics.keys().map(String::as_str).collect();
                let message = format!("no metric `{name}`, expected {wanted}");
                let hint = Some(format!("the metrics are {}", names.join(", ")));
                found.push(Diagnostic { hint, ..differs(&expected.place, message) });
            }
            Some(metric) if !wanted.holds(metric.value) => {
                let value = if wanted.equals.is_some() { metric.value.to_string() } else { number(metric.value) };
                found.push(differs(&expected.place, format!("`{name}` is {value}, expected {wanted}")));
            }
            Some(_) => {}
        }
    }
    for expected in &case.expect.gates {
        let gate = report.gates.iter().find(|gate| gate.name == expected.gate);
        if gate.is_some_and(|gate| gate.passed) != expected.passed {
            let word = |passed| if passed { "passed" } else { "failed" };
            let value = gate.and_then(|gate| Some(format!(": {} is {}", gate.metric, number(gate.value?))));
            let message = format!(
                "gate `{}` {}, expected that it {}{}",
                expected.gate,
                word(!expected.passed),
                word(expected.passed),
                value.unwrap_or_default()
            );
            found.push(differs(&expected.place, message));
        }
    }
    found
}

/// The output whose rows are meant, as the engine calls it.
fn target(expected: &ExpectedRows, pipeline: &Pipeline) -> Option<String> {
    let (stage, port) = expected.target(pipeline)?;
    Some(format!("{}.{port}", pipeline.stages.get(stage)?.name))
}

/// The rows of an output by id, with the columns that somebody asks for; or why there are none.
async fn rows(
    engine: &Engine,
    pipeline: &Pipeline,
    limit: Option<usize>,
    target: &str,
    expected: &ExpectedRows,
    folder: &Path,
    cancel: &Cancel,
) -> Result<Result<BTreeMap<String, Map<String, Value>>, String>, Failure> {
    let columns: BTreeSet<&str> =
        expected.rows.iter().flat_map(|row| &row.values).map(|value| value.column.as_str()).collect();
    let columns: Vec<String> = columns.into_iter().filter(|name| *name != "id").map(str::to_owned).collect();
    let path = folder.join("rows.jsonl");
    let mut writer = Writer::create(&path)?;
    let mut sink = |batch: runner_contract::Batch| writer.push(&batch).map_err(|error| error.to_string());
    if let Err(error) = engine.export(pipeline.clone(), limit, target, Some(&columns), cancel, &mut sink).await {
        return Ok(Err(error.to_string()));
    }
    writer.finish()?;
    let text = fs::read_to_string(&path).map_err(Failure::file("read", &path))?;
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let row: Map<String, Value> = serde_json::from_str(line).map_err(Failure::failed)?;
        rows.insert(row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(), row);
    }
    Ok(Ok(rows))
}

/// Rows that are not as expected.
fn compare_rows(expected: &ExpectedRows, rows: &BTreeMap<String, Map<String, Value>>) -> Vec<Diagnostic> {
    let (output, mut found) = (&expected.output, Vec::new());
    if let Some((count, place)) = expected.count.as_ref().filter(|(count, _)| *count != rows.len()) {
        found.push(differs(place, format!("`{output}` has {} rows, expected {count}", rows.len())));
    }
    for row in &expected.rows {
        let Some(came) = rows.get(&row.id) else {
            let ids: Vec<_> = rows.keys().take(NAMED).map(String::as_str).collect();
            let more = if rows.len() > NAMED { ", …" } else { "" };
            let hint = Some(format!("its rows are {}{more}", ids.join(", ")));
            let message = format!("`{output}` has no row `{}`", row.id);
            found.push(Diagnostic { hint, ..differs(&row.place, message) });
            continue;
        };
        for value in &row.values {
            let came = came.get(&value.column).unwrap_or(&Value::Null);
            if !same(&value.value, came, expected.tolerance) {
                let what = difference(&value.value, came, expected.tolerance);
                found.push(differs(&value.place, format!("`{}` of row `{}` {what}", value.column, row.id)));
            }
        }
    }
    found
}

/// How two values differ: `is 3, expected 5`.
fn difference(expected: &Value, found: &Value, tolerance: Option<f64>) -> String {
    match (expected, found) {
        (Value::Array(expected), Value::Array(found)) if expected.len() != found.len() => {
            format!("has {} items, expected {}", found.len(), expected.len())
        }
        (Value::Array(expected), Value::Array(found)) => {
            let pairs = expected.iter().zip(found).enumerate();
            let apart: Vec<_> = pairs.filter(|(_, (expected, found))| !same(expected, found, tolerance)).collect();
            match apart.first() {
                Some((at, (expected, found))) => {
                    let others =
                        if apart.len() > 1 { format!(", and {} more", apart.len() - 1) } else { String::new() };
                    format!("has {found} at {at}, expected {expected}{others}")
                }
                None => "is as expected".to_owned(),
            }
        }
        (expected, found) => format!("is {found}, expected {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_the_first_place() {
        assert_eq!(difference(&json!(5), &json!(3), None), "is 3, expected 5");
        assert_eq!(difference(&json!([1, 2, 3]), &json!([1, 4, 5]), None), "has 4 at 1, expected 2, and 1 more");
        assert_eq!(difference(&json!([1]), &json!([1, 2]), None), "has 2 items, expected 1");
    }
}
