//! Tests that stand beside a pipeline: rows in, and what is expected of the run.

mod check;
mod expect;
mod read;
mod schema;

use std::path::Path;

use serde_json::Value;

use crate::{
    check::{Check, Subject},
    diagnostic::{Diagnostic, Place},
    report::{Mistake, Report, Span},
    source::Sources,
    yaml::{self, Data, Entry, Node, Parsed},
};

pub(crate) use check::check;
pub use expect::{ExpectedGate, ExpectedMetric, ExpectedNumber, ExpectedRow, ExpectedRows, ExpectedValue, same};
pub(crate) use schema::definitions;

/// A file of tests: `NAME.test.yaml` beside `NAME.yaml`.
#[derive(Clone, Debug)]
pub struct TestFile {
    /// What it is for.
    pub description: Option<String>,
    /// The tests, in the order of the file.
    pub cases: Vec<TestCase>,
    /// Its path, as the caller gave it.
    name: String,
    text: String,
}

/// One test: how the pipeline is run, and what is expected.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// Its name, unique in the file.
    pub name: String,
    /// Where its name stands.
    pub place: Place,
    /// Overrides of parameters, as `--set` takes them.
    pub set: Vec<(String, String)>,
    /// Rows of every dataset to read at most.
    pub limit: Option<usize>,
    /// What is expected.
    pub expect: Expect,
    /// Where the values of the overrides stand.
    set_spans: Vec<Span>,
    /// Settings of the kind `rows` for the sources whose place they take.
    rows: Vec<Entry>,
}

/// What is expected of a run.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// The run (or the check before it) must fail with a message that has this text in it.
    pub error: Option<(String, Place)>,
    /// Gates that pass or do not.
    pub gates: Vec<ExpectedGate>,
    /// Metrics.
    pub metrics: Vec<ExpectedMetric>,
    /// Rows of stages.
    pub rows: Vec<ExpectedRows>,
}

/// Reads a file of tests. Every mistake is reported. [`crate::load_case`] compares a case with its pipeline.
pub fn load_tests(path: &str, bytes: &[u8]) -> Result<TestFile, Vec<Diagnostic>> {
    let (mut report, mut sources) = (Report::default(), Sources::default());
    let cases = match sources.add(path, bytes, yaml::MAX_BYTES).1 {
        Ok(()) => parse(&sources, &mut report),
        Err(mistake) => {
            report.add(mistake);
            None
        }
    };
    match cases {
        Some((description, cases)) if report.len() == 0 => {
            let (text, _) = sources.into_texts();
            Ok(TestFile { description, cases, name: path.to_owned(), text })
        }
        _ => Err(report.into_diagnostics(&sources, &[])),
    }
}

fn parse(sources: &Sources, report: &mut Report) -> Option<(Option<String>, Vec<TestCase>)> {
    let root = match yaml::parse(sources.last()) {
        Ok(Parsed { root, mistakes, .. }) => {
            report.extend(mistakes);
            root
        }
        Err(mistake) => {
            report.add(mistake);
            return None;
        }
    };
    if !matches!(root.data, Data::Map(_)) {
        let mistake = Mistake::at(root.span, format!("a file of tests is a mapping, found {}", root.noun()));
        report.add(mistake.hint("begin with `cases:`, a list of tests"));
        return None;
    }
    let schema = schema::tests();
    let subject = Subject { key: "key", owner: "", language: false, partial: false };
    let start = Span::of(root.span.start, root.span.start + 1);
    Check { root: &schema, subject, report }.value(&root, &schema, "a file of tests", start);
    let description = root.get("description").and_then(Node::text).map(str::to_owned);
    Some((description, read::cases(&root, sources, report)))
}

impl TestFile {
    /// Its path, as the caller gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds its text to those of a pipeline; gives the position of its first character.
    pub(crate) fn add_to(&self, sources: &mut Sources) -> usize {
        sources.add(&self.name, self.text.as_bytes(), yaml::MAX_BYTES).0
    }

    /// The settings that take the place of those of sources, with places in a text that begins at `base`. Pictures are
    /// named relative to the file of tests.
    pub(crate) fn rows_of(&self, case: &TestCase, base: usize) -> Vec<Entry> {
        let folder = Path::new(&self.name).parent().unwrap_or(Path::new(""));
        let mut rows = case.rows.clone();
        for Entry { span, value, .. } in &mut rows {
            *span = span.shift(base);
            value.shift(base);
            place_pictures(value, folder);
        }
        rows
    }
}

impl TestCase {
    /// Where the overrides stand in a text that begins at `base`.
    pub(crate) fn set_spans(&self, base: usize) -> Vec<Span> {
        self.set_spans.iter().map(|span| span.shift(base)).collect()
    }
}

/// Puts the folder of the tests before the paths of pictures.
fn place_pictures(settings: &mut Node, folder: &Path) {
    let holds: Vec<(String, String)> = settings
        .get("columns")
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|entry| Some((entry.key.clone(), entry.value.text()?.to_owned())))
        .collect();
    let is_picture = |column: &str| match holds.iter().find(|(name, _)| name == column) {
        Some((_, holds)) => holds == "image",
        None => column == "image",
    };
    let Data::Map(entries) = &mut settings.data else { return };
    let Some(Data::List(rows)) = entries.iter_mut().find(|e| e.key == "rows").map(|entry| &mut entry.value.data) else {
        return;
    };
    for row in rows {
        let Data::Map(columns) = &mut row.data else { continue };
        for column in columns.iter_mut().filter(|column| is_picture(&column.key)) {
            if let Data::Text(path) = &mut column.value.data
                && !path.is_empty()
            {
                *path = folder.join(&*path).display().to_string();
            }
        }
    }
}

/// The text by which `--set` gives a value.
fn set_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
