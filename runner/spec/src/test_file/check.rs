//! Compares what a test expects with the pipeline: whether the stages, gates and columns that it names are there.

use runner_contract::{ColumnType, Output, Registry, Shape};
use serde_json::Value;

use super::{ExpectedRows, TestCase};
use crate::{
    diagnostic::{Diagnostic, Place},
    pipeline::Pipeline,
    reference::Reference,
    report::Report,
};

/// Reports what is not there. Marks the stages whose rows are compared, so that they are kept.
pub(crate) fn check(case: &TestCase, pipeline: &mut Pipeline, registry: &dyn Registry) -> Vec<Diagnostic> {
    let mut checker = Checker { pipeline, registry, found: Vec::new() };
    for gate in &case.expect.gates {
        checker.gate(&gate.gate, &gate.place);
    }
    for metric in &case.expect.metrics {
        checker.metric(&metric.metric, &metric.place);
    }
    let mut keep = Vec::new();
    for rows in &case.expect.rows {
        keep.extend(checker.rows(rows));
    }
    let found = checker.found;
    for stage in keep {
        if let Some(stage) = pipeline.stages.get_mut(stage) {
            stage.keep = true;
        }
    }
    found
}

struct Checker<'a> {
    pipeline: &'a Pipeline,
    registry: &'a dyn Registry,
    found: Vec<Diagnostic>,
}

impl Checker<'_> {
    fn add(&mut self, place: &Place, message: String, hint: Option<String>) {
        self.found.push(Diagnostic { place: place.clone(), message, hint, related: None });
    }

    fn gate(&mut self, name: &str, place: &Place) {
        let names: Vec<_> = self.pipeline.gates.iter().map(|gate| gate.name.as_str()).collect();
        if names.contains(&name) {
            return;
        }
        let hint = Report::default().suggest(name, names.iter().copied()).unwrap_or_else(|| match names.as_slice() {
            [] => "no gate takes part in this test".to_owned(),
            names => format!("the gates are {}", listed(names)),
        });
        self.add(place, format!("unknown gate `{name}`"), Some(hint));
    }

    fn metric(&mut self, metric: &str, place: &Place) {
        let Some(reference) = Reference::parse(metric) else { return };
        let stage = reference.rest.and_then(|rest| metric.strip_suffix(rest)?.strip_suffix('.')).unwrap_or(metric);
        let Some(position) = self.stage(stage, &reference, place) else { return };
        let kind = self.pipeline.stages.get(position).and_then(|stage| self.registry.kind(&stage.kind));
        if let Some(info) = kind.map(|kind| kind.info())
            && !matches!(info.shape, Shape::Fold | Shape::Job)
        {
            let message = format!("stage `{stage}` makes no metrics: its kind is `{}`", info.name);
            self.add(place, message, Some("folds and jobs make metrics".to_owned()));
        }
    }

    /// The position of the stage of that full name.
    fn stage(&mut self, name: &str, reference: &Reference<'_>, place: &Place) -> Option<usize> {
        if let Some(position) = self.pipeline.stage(name) {
            return Some(position);
        }
        let instances: Vec<_> = self.pipeline.stages.iter().filter(|stage| stage.base == reference.stage).collect();
        let instances: Vec<_> = instances.iter().map(|stage| stage.name.as_str()).collect();
        let left_out = |full: &String| full == name || full.starts_with(&format!("{}[", reference.stage));
        if !instances.is_empty() {
            let message = match reference.pins.as_slice() {
                [] => format!("stage `{name}` is fanned out, and a test names one instance"),
                _ => format!("stage `{}` has no instance `{name}`", reference.stage),
            };
            let hint = match instances.as_slice() {
                [only] => format!("write `{only}`"),
                all => format!("its instances are {}", listed(all)),
            };
            self.add(place, message, Some(hint));
        } else if self.pipeline.skipped.iter().any(left_out) {
            self.add(place, format!("stage `{name}` takes no part in this test"), None);
        } else {
            let names = self.pipeline.stages.iter().map(|stage| stage.name.as_str());
            let hint = Report::default().suggest(name, names);
            self.add(place, format!("unknown stage `{}`", reference.stage), hint);
        }
        None
    }

    /// The position of the stage whose rows are named.
    fn rows(&mut self, rows: &ExpectedRows) -> Option<usize> {
        let reference = Reference::parse(&rows.output)?;
        let stage = match reference.rest {
            Some(rest) => rows.output.strip_suffix(rest)?.strip_suffix('.')?,
            None => &rows.output,
        };
        let position = self.stage(stage, &reference, &rows.place)?;
        let outputs = &self.pipeline.stages.get(position)?.outputs;
        let target = rows.target(self.pipeline);
        let Some(Output::Rows(schema)) = target.and_then(|(_, port)| outputs.get(port)) else {
            let ports = outputs.iter().filter(|(_, output)| matches!(output, Output::Rows(_)));
            let ports: Vec<_> = ports.map(|(port, _)| format!("`{stage}.{port}`")).collect();
            let hint =
                if ports.is_empty() { "it has none".to_owned() } else { format!("write {}", ports.join(" or ")) };
            self.add(&rows.place, format!("`{}` does not name rows of stage `{stage}`", rows.output), Some(hint));
            return None;
        };
        for value in rows.rows.iter().flat_map(|row| &row.values) {
            let Some(column) = schema.get(&value.column) else {
                let names = schema.columns.iter().map(|column| column.name.as_str());
                let hint = Report::default().suggest(&value.column, names);
                let message = format!("no column `{}`: `{}` has {}", value.column, rows.output, schema.names());
                self.add(&value.place, message, hint);
                continue;
            };
            if let Some(expected) = mismatch(&column.kind, &value.value) {
                let message = format!("column `{}` holds {expected}, found {}", value.column, shown(&value.value));
                self.add(&value.place, message, None);
            }
        }
        Some(position)
    }
}

/// What a column holds, if that is not what a value is.
fn mismatch(kind: &ColumnType, value: &Value) -> Option<String> {
    let list = |fits: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(fits));
    let (fits, expected) = match kind {
        ColumnType::Image => (false, "pictures, which cannot be compared".to_owned()),
        ColumnType::Text => (value.is_string(), "text".to_owned()),
        ColumnType::Texts => (list(Value::is_string), "lists of texts".to_owned()),
        ColumnType::Label => (value.is_i64(), "classes by their number".to_owned()),
        ColumnType::Integer => (value.is_i64(), "integers".to_owned()),
        ColumnType::Number => (value.is_number(), "numbers".to_owned()),
        ColumnType::Boolean => (value.is_boolean(), "booleans".to_owned()),
        ColumnType::Scores => (list(Value::is_number), "lists of numbers".to_owned()),
        ColumnType::Embedding { dim, .. } => {
            let long = value.as_array().is_some_and(|items| items.len() == *dim);
            (long && list(Value::is_number), format!("lists of {dim} numbers"))
        }
    };
    (!fits).then_some(expected)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "a mapping".to_owned(),
        Value::String(text) if text.chars().count() > 40 => "text".to_owned(),
        other => format!("`{}`", other.as_str().map_or_else(|| other.to_string(), str::to_owned)),
    }
}

/// Some names.
fn listed(names: &[&str]) -> String {
    let more = if names.len() > 12 { ", …" } else { "" };
    format!("{}{more}", names.iter().take(12).copied().collect::<Vec<_>>().join(", "))
}
