//! The keys of a stage that do not depend on its kind: `when`, `keep`, `cache`, `device`, `retries`, `timeout`, `max_bad`.

use std::time::Duration;

use serde_json::Value;

use crate::{
    declare::Declared,
    duration,
    expression::{Expression, Fault, Scope, Stop, noun},
    language::MAX_RETRIES,
    pipeline::{Device, MaxBad},
    report::{Mistake, Report},
    template::{self, Quality, is_template, report_stop},
    yaml::Node,
};

/// The keys of a stage that every kind has.
pub(crate) struct Options {
    pub(crate) keep: bool,
    pub(crate) cache: bool,
    pub(crate) device: Option<Device>,
    pub(crate) retries: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_bad: MaxBad,
}

impl Options {
    pub(crate) fn read(stage: &Declared<'_>, scope: &impl Scope, report: &mut Report) -> Option<Self> {
        let keep = flag(stage.node.get("keep"), false, "keep", scope, report);
        let cache = flag(stage.node.get("cache"), true, "cache", scope, report);
        let device = option(stage.node.get("device"), scope, report, device);
        let retries = option(stage.node.get("retries"), scope, report, |value| {
            let count =
                value.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| *count <= MAX_RETRIES);
            count.ok_or_else(|| {
                Fault::new(format!("`retries`: expected an integer from 0 to {MAX_RETRIES}, found `{value}`"))
            })
        });
        let timeout = option(stage.node.get("timeout"), scope, report, |value| {
            duration::of_value(value).map_err(|fault| fault.named("timeout"))
        });
        let max_bad = match stage.node.get("max_bad") {
            None => Some(MaxBad::default()),
            Some(node) => max_bad(node, scope, report),
        };
        Some(Self {
            keep: keep?,
            cache: cache?,
            device: device?,
            retries: retries?.unwrap_or(0),
            timeout: timeout?,
            max_bad: max_bad?,
        })
    }
}

fn max_bad(node: &Node, scope: &impl Scope, report: &mut Report) -> Option<MaxBad> {
    let value = value_of(node, scope, report)?;
    let read = MaxBad::parse(&value);
    // What is no text was reported with the shape of the file.
    if read.is_none() && node.text().is_some() {
        let fault = Fault::new(format!("`max_bad`: expected a number of rows or a share, found `{value}`"));
        report.add(fault.hint("write `max_bad: 20` or `max_bad: 1%`; 0 for none").at(node.span));
    }
    read
}

/// The device that a value names.
pub(crate) fn device(value: &Value) -> Result<Device, Fault> {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    value
        .as_str()
        .and_then(Device::parse)
        .ok_or_else(|| Fault::new(format!("unknown device `{shown}`")).hint("there are `cpu`, `cuda` and `cuda:N`"))
}

/// A key that may be left out; `None` if it is wrong.
fn option<T>(
    node: Option<&Node>,
    scope: &impl Scope,
    report: &mut Report,
    read: impl FnOnce(&Value) -> Result<T, Fault>,
) -> Option<Option<T>> {
    let Some(node) = node else { return Some(None) };
    let value = value_of(node, scope, report)?;
    match read(&value) {
        Ok(value) => Some(Some(value)),
        Err(fault) => {
            // What stands in the file itself was reported with its shape.
            if node.text().is_some_and(is_template) {
                report.add(fault.at(node.span));
            }
            None
        }
    }
}

/// A boolean key; `None` if it is wrong.
pub(crate) fn flag(
    node: Option<&Node>,
    default: bool,
    key: &str,
    scope: &impl Scope,
    report: &mut Report,
) -> Option<bool> {
    let Some(node) = node else { return Some(default) };
    let value = match node.text() {
        Some(text) if key == "when" && !is_template(text) => {
            match Expression::parse(text).map_err(Stop::from).and_then(|expression| expression.evaluate(scope)) {
                Ok(value) => value,
                Err(stop) => {
                    report_stop(stop, node.span, report);
                    return None;
                }
            }
        }
        _ => value_of(node, scope, report)?,
    };
    // A value of another type that stands there itself was reported with the shape of the file.
    if !value.is_boolean() && node.text().is_some_and(|text| key == "when" || is_template(text)) {
        report.add(
            Mistake::at(node.span, format!("`{key}`: expected a boolean, found {}", noun(&value)))
                .hint("a comparison is a boolean: `params.x == 'y'`"),
        );
    }
    value.as_bool()
}

/// The value of a leaf.
pub(crate) fn value_of(node: &Node, scope: &impl Scope, report: &mut Report) -> Option<Value> {
    let (node, quality) = template::substitute(node, scope, report);
    node.filter(|_| quality == Quality::Whole).map(|node| node.to_json())
}
