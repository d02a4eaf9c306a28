//! From the tree of a file of tests to its cases. The shape was checked before; what is malformed is passed over.

use std::collections::HashMap;

use serde_json::Value;

use super::{Expect, ExpectedGate, ExpectedMetric, ExpectedNumber, ExpectedRow, ExpectedRows, ExpectedValue, TestCase};
use crate::{
    reference::Reference,
    report::{Mistake, Report, Span},
    source::{Places, Sources},
    yaml::{Data, Entry, Node},
};

/// Reads the cases.
pub(super) fn cases(root: &Node, sources: &Sources, report: &mut Report) -> Vec<TestCase> {
    let mut names: HashMap<&str, Span> = HashMap::new();
    let mut reader = Reader { places: sources.places(), report };
    let mut cases = Vec::new();
    let Some(Data::List(items)) = root.get("cases").map(|node| &node.data) else { return cases };
    for node in items {
        let Some((name, span)) = node.get("name").and_then(|name| Some((name.text()?, name.span))) else { continue };
        if let Some(first) = names.insert(name, span) {
            let mistake = Mistake::at(span, format!("two tests are called `{name}`")).also(first, "the other one");
            reader.report.add(mistake.hint("rename one of them"));
        }
        cases.push(reader.case(name, span, node));
    }
    cases
}

struct Reader<'a, 'r> {
    places: Places<'a>,
    report: &'r mut Report,
}

impl Reader<'_, '_> {
    fn case(&mut self, name: &str, span: Span, node: &Node) -> TestCase {
        let set = node.get("set").map(Node::entries).unwrap_or_default();
        let rows = node.get("rows").map(Node::entries).unwrap_or_default().iter().map(|entry| Entry {
            key: entry.key.clone(),
            span: entry.span,
            value: settings(&entry.value),
        });
        TestCase {
            name: name.to_owned(),
            place: self.places.place(span, None),
            set: set.iter().map(|entry| (entry.key.clone(), super::set_text(&entry.value.to_json()))).collect(),
            limit: node.get("limit").and_then(count),
            expect: node.get("expect").map(|node| self.expect(node)).unwrap_or_default(),
            set_spans: set.iter().map(|entry| Span::of(entry.span.start, entry.value.span.end)).collect(),
            rows: rows.collect(),
        }
    }

    fn expect(&mut self, node: &Node) -> Expect {
        let error = node.get("error").and_then(|error| Some((error.text()?.to_owned(), error.span)));
        if let Some((_, span)) = error
            && node.entries().len() > 1
        {
            let mistake = Mistake::at(span, "a run that fails has no gates, metrics and rows to compare");
            self.report.add(mistake.hint("leave `error:` alone, or make two tests of it"));
        }
        let part = |key: &str| node.get(key).map(Node::entries).unwrap_or_default();
        let gates = part("gates").iter().filter_map(|entry| {
            let (gate, passed) = (entry.key.clone(), entry.value.text()? == "passed");
            Some(ExpectedGate { gate, passed, place: self.places.place(entry.span, None) })
        });
        let gates = gates.collect();
        let metrics = part("metrics").iter().filter_map(|entry| self.metric(entry)).collect();
        let rows = part("rows").iter().filter_map(|entry| self.rows(entry)).collect();
        let error = error.map(|(text, span)| (text, self.places.place(span, None)));
        Expect { error, gates, metrics, rows }
    }

    fn metric(&mut self, entry: &Entry) -> Option<ExpectedMetric> {
        if Reference::parse(&entry.key).is_none_or(|reference| reference.rest.is_none()) {
            let mistake = Mistake::at(entry.span, format!("`{}` does not name a metric", entry.key));
            self.report.add(mistake.hint("write `STAGE.METRIC` or `STAGE[KEY=VALUE].METRIC`"));
        }
        let of = |key: &str| entry.value.get(key).and_then(number);
        let number = match number(&entry.value) {
            Some(equals) => ExpectedNumber { equals: Some(equals), ..ExpectedNumber::default() },
            None => ExpectedNumber { equals: of("equals"), tolerance: of("tolerance"), min: of("min"), max: of("max") },
        };
        if number.tolerance.is_some() && number.equals.is_none() {
            let span = entry.value.get("tolerance").map_or(entry.span, |node| node.span);
            self.report.add(Mistake::at(span, "a tolerance of nothing").hint("add `equals:`, or remove it"));
        }
        if let (Some(min), Some(max)) = (number.min, number.max)
            && min > max
        {
            self.report.add(Mistake::at(entry.span, format!("`min` {min} is above `max` {max}")));
        }
        Some(ExpectedMetric { metric: entry.key.clone(), number, place: self.places.place(entry.span, None) })
    }

    fn rows(&mut self, entry: &Entry) -> Option<ExpectedRows> {
        if Reference::parse(&entry.key).is_none() {
            let mistake = Mistake::at(entry.span, format!("`{}` does not name the rows of a stage", entry.key));
            self.report.add(mistake.hint("write `STAGE`, `STAGE.OUTPUT` or `STAGE[KEY=VALUE].OUTPUT`"));
        }
        let list = if matches!(entry.value.data, Data::List(_)) { Some(&entry.value) } else { entry.value.get("rows") };
        let items = if let Some(Data::List(items)) = list.map(|node| &node.data) { items.as_slice() } else { &[] };
        let mut ids: HashMap<String, Span> = HashMap::new();
        let mut rows = Vec::new();
        for item in items {
            let Some((id, span)) = item.get("id").and_then(|id| Some((id_text(id)?, id.span))) else { continue };
            if let Some(first) = ids.insert(id.clone(), span) {
                let mistake = Mistake::at(span, format!("the row `{id}` twice")).also(first, "the other one");
                self.report.add(mistake.hint("put its columns into one"));
            }
            let values = item.entries().iter().filter(|entry| entry.key != "id").map(|entry| ExpectedValue {
                column: entry.key.clone(),
                value: entry.value.to_json(),
                place: self.places.place(entry.span, None),
            });
            let values = values.collect();
            rows.push(ExpectedRow { id, values, place: self.places.place(span, None) });
        }
        let count = entry.value.get("count").and_then(|node| Some((count(node)?, self.places.place(node.span, None))));
        Some(ExpectedRows {
            output: entry.key.clone(),
            count,
            rows,
            tolerance: entry.value.get("tolerance").and_then(number),
            place: self.places.place(entry.span, None),
        })
    }
}

/// Settings of the kind `rows`: as written, or a list of rows alone.
fn settings(node: &Node) -> Node {
    match &node.data {
        Data::List(_) => {
            let rows = Entry { key: "rows".to_owned(), span: node.span, value: node.clone() };
            Node { span: node.span, data: Data::Map(vec![rows]) }
        }
        _ => node.clone(),
    }
}

fn number(node: &Node) -> Option<f64> {
    if let Data::Number(number) = &node.data { number.as_f64() } else { None }
}

fn count(node: &Node) -> Option<usize> {
    if let Data::Number(number) = &node.data { number.as_u64()?.try_into().ok() } else { None }
}

/// The id of a row: text, or a whole number.
fn id_text(node: &Node) -> Option<String> {
    match node.to_json() {
        Value::String(id) => Some(id),
        Value::Number(id) if !id.is_f64() => Some(id.to_string()),
        _ => None,
    }
}
