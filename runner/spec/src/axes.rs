//! The axes of matrices as the file declares them, and the expressions that mention them.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    expression::{Expression, Fault, Scope, Stop, is_name},
    params::Params,
    reference::is_label,
    report::{Mistake, Report, Span},
    secret,
    template::{self, is_template, report_stop},
    yaml::{Data, Node},
};

/// A key of a matrix and its values.
pub(crate) struct Axis<'a> {
    pub(crate) key: &'a str,
    pub(crate) span: Span,
    /// The declaring stage; `None`: the pipeline.
    pub(crate) owner: Option<usize>,
    /// The values by name. Empty: they are wrong, which was reported.
    pub(crate) values: Vec<(String, Value)>,
    /// Some expression reads it.
    pub(crate) used: bool,
}

/// Parameters only: what the values of a matrix may be made of.
struct ParamScope<'a>(&'a Params<'a>);

impl Scope for ParamScope<'_> {
    fn param(&self, name: &str) -> Result<Value, Stop> {
        self.0.value(name)
    }

    fn matrix(&self, key: &str) -> Result<Value, Stop> {
        let fault = Fault::new(format!("`matrix.{key}` inside a matrix"));
        Err(fault.hint("its values may read `params.NAME` and `env.NAME` only").into())
    }

    fn environment(&self, name: &str) -> Result<Value, Stop> {
        self.0.references.environment(name)
    }

    fn secret(&self, name: &str) -> Result<Value, Stop> {
        Err(secret::misplaced(name))
    }
}

/// Reads one `matrix:`. Its shape was checked before.
pub(crate) fn declare<'a>(
    section: Option<&'a Node>,
    owner: Option<usize>,
    axes: &mut Vec<Axis<'a>>,
    params: &Params<'_>,
    report: &mut Report,
) {
    let scope = ParamScope(params);
    for entry in section.map(Node::entries).unwrap_or_default() {
        if !is_name(&entry.key) {
            continue;
        }
        let before = report.len();
        let (node, quality) = template::substitute(&entry.value, &scope, report);
        // What stands in the file itself was checked with its shape; what an expression put there was not.
        let mut refuse = |written: &Node, mistake: Mistake| {
            if written.text().is_some_and(is_template) {
                report.add(mistake);
            }
        };
        let mut values = Vec::new();
        match node.as_ref().map(|node| &node.data) {
            Some(Data::List(items)) => {
                for (i, item) in items.iter().enumerate() {
                    let value = item.to_json();
                    let written = if let Data::List(items) = &entry.value.data { items.get(i) } else { None };
                    match &value {
                        Value::String(text) => values.push((text.clone(), value, item.span)),
                        Value::Number(_) | Value::Bool(_) => values.push((value.to_string(), value, item.span)),
                        _ => refuse(
                            written.unwrap_or(&entry.value),
                            Mistake::at(item.span, format!("{} has no name in `[{}=…]`", item.noun(), entry.key))
                                .hint("name the values: `KEY: {name: value, …}`"),
                        ),
                    }
                }
            }
            Some(Data::Map(entries)) => {
                values.extend(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json(), entry.span)));
            }
            Some(_) => refuse(
                &entry.value,
                Mistake::at(entry.value.span, format!("the matrix key `{}` needs a list of values", entry.key))
                    .hint("write `[one, two]`, or a parameter of type `list`"),
            ),
            None => {}
        }
        if values.is_empty() && quality == template::Quality::Whole {
            let message = format!("the matrix key `{}` has no values", entry.key);
            refuse(&entry.value, Mistake::at(entry.value.span, message));
        }
        let mut seen = HashSet::new();
        for (name, _, span) in &values {
            if !is_label(name) {
                report.add(
                    Mistake::at(*span, format!("`{name}` cannot name an instance"))
                        .hint("name the values: `KEY: {name: value, …}`"),
                );
            } else if !seen.insert(name) {
                report.add(Mistake::at(*span, format!("the value `{name}` twice in one matrix key")));
            }
        }
        let good = report.len() == before && quality == template::Quality::Whole && !values.is_empty();
        let values = if good { values.into_iter().map(|(name, value, _)| (name, value)).collect() } else { Vec::new() };
        // A key whose values are wrong is not also called unused.
        axes.push(Axis { key: &entry.key, span: entry.span, owner, used: !good, values });
    }
}

/// The matrix keys that a stage's expressions mention; what cannot be parsed is reported.
pub(crate) fn mentioned(stage: &Node, keys: &mut HashSet<String>, report: &mut Report) {
    for entry in stage.entries().iter().filter(|entry| !["uses", "matrix", "needs"].contains(&entry.key.as_str())) {
        if entry.key == "when"
            && let Some(text) = entry.value.text()
            && !is_template(text)
        {
            match Expression::parse(text) {
                Ok(expression) => expression.matrix_keys(&mut |key| keys.extend([key.to_owned()])),
                Err(fault) => report_stop(fault.into(), entry.value.span, report),
            }
        } else {
            walk(&entry.value, keys, report);
        }
    }
}

fn walk(node: &Node, keys: &mut HashSet<String>, report: &mut Report) {
    match &node.data {
        Data::Text(text) if is_template(text) => {
            if let Err(fault) = template::matrix_keys(text, &mut |key| keys.extend([key.to_owned()])) {
                report_stop(fault.into(), node.span, report);
            }
        }
        Data::List(items) => items.iter().for_each(|item| walk(item, keys, report)),
        Data::Map(entries) => entries.iter().for_each(|entry| walk(&entry.value, keys, report)),
        _ => {}
    }
}
