//! The keys of a stage that do not depend on its kind: `when`, `keep`, `cache`, `device`.

use serde_json::Value;

use crate::{
    declare::Declared,
    expression::{Expression, Scope, Stop, noun},
    pipeline::Device,
    report::{Mistake, Report},
    template::{self, Quality, is_template, report_stop},
    yaml::Node,
};

/// The keys of a stage that every kind has.
pub(crate) struct Options {
    pub(crate) keep: bool,
    pub(crate) cache: bool,
    pub(crate) device: Option<Device>,
}

impl Options {
    pub(crate) fn read(stage: &Declared<'_>, scope: &impl Scope, report: &mut Report) -> Option<Self> {
        let keep = flag(stage.node.get("keep"), false, "keep", scope, report);
        let cache = flag(stage.node.get("cache"), true, "cache", scope, report);
        let device = match stage.node.get("device").map(|node| (node, value_of(node, scope, report))) {
            None => Some(None),
            Some((_, None)) => None,
            Some((node, Some(value))) => {
                let device = value.as_str().and_then(Device::parse);
                if device.is_none() && (value.is_string() || is_template(node.text().unwrap_or_default())) {
                    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let mistake = Mistake::at(node.span, format!("unknown device `{shown}`"));
                    report.add(mistake.hint("there are `cpu`, `cuda` and `cuda:N`"));
                }
                device.map(Some)
            }
        };
        Some(Self { keep: keep?, cache: cache?, device: device? })
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
