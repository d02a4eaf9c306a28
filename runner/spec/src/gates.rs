//! Gates: conditions on the metrics of stages.

use runner_contract::Shape;
use serde_json::Value;

use crate::{
    bind::{Binder, Instance},
    declare::{Link, stage_hint},
    expression::noun,
    pipeline::Gate,
    reference::{Reference, instance_name},
    report::{Mistake, Report, Span},
    template::{self, is_template, report_stop},
    yaml::{Entry, Node},
};

/// Reads `gates:`. Their shape was checked before. A gate on a stage that takes no part is left out with it.
pub(crate) fn read(section: Option<&Node>, binder: &Binder<'_>, report: &mut Report) -> Vec<Gate> {
    section
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .flat_map(|entry| if report.is_full() { Vec::new() } else { gate(entry, binder, report) })
        .collect()
}

fn gate(entry: &Entry, binder: &Binder<'_>, report: &mut Report) -> Vec<Gate> {
    let (min, max) = (entry.value.get("min"), entry.value.get("max"));
    if min.is_none() && max.is_none() && entry.value.get("metric").is_some() {
        let mistake = Mistake::at(entry.span, format!("gate `{}` has no bound", entry.key));
        report.add(mistake.hint("add `min:` or `max:`"));
    }
    let Some((metric, span)) = entry.value.get("metric").and_then(|node| Some((node.text()?, node.span))) else {
        return Vec::new();
    };
    if is_template(metric) {
        return Vec::new();
    }
    let Some((link, metric)) = target(metric, span, binder, report) else { return Vec::new() };
    let instances = binder.matrices.instances(link.stage);
    let matching = binder.matrices.matching(&link, usize::MAX, &[]);
    let mut gates = Vec::new();
    for &index in &matching {
        let Some(coordinates) = instances.get(index) else { continue };
        let scope = binder.scope(link.stage, coordinates);
        let mut bound = |node: Option<&Node>| {
            let value = match node.map(|node| (node, node.text().map(|text| template::evaluate(text, &scope)))) {
                None => return Some(None),
                Some((node, None)) => node.to_json(),
                Some((_, Some(Ok(value)))) => value,
                Some((node, Some(Err(stop)))) => {
                    report_stop(stop, node.span, report);
                    return None;
                }
            };
            if let (false, Some(node)) = (value.is_number(), node.filter(|node| node.text().is_some_and(is_template))) {
                let message = format!("the bound of a gate is a number, not {}", noun(&value));
                report.add(Mistake::at(node.span, message));
            }
            value.as_f64().map(Some)
        };
        let (least, most) = (bound(min), bound(max));
        binder.params.report_late(report);
        let (Some(least), Some(most)) = (least, most) else { continue };
        if let (Some(a), Some(b)) = (least, most)
            && a > b
        {
            let message = format!("gate `{}` can never pass: `min` {a} is above `max` {b}", entry.key);
            report.add(Mistake::at(entry.span, message));
        }
        let position = match binder.instances.get(link.stage).and_then(|instances| instances.get(index)) {
            Some(Instance::Ready(position, _)) => *position,
            _ => continue,
        };
        let Some(def) = binder.defs.get(position) else { continue };
        let free: Vec<_> =
            def.coordinates.iter().filter(|(key, _)| !link.pins.iter().any(|(pin, _)| pin == key)).cloned().collect();
        gates.push(Gate {
            name: instance_name(&entry.key, &free),
            metric: format!("{}.{metric}", def.name),
            min: least,
            max: most,
        });
    }
    gates
}

/// The stage and the metric that a gate names.
fn target<'a>(text: &'a str, span: Span, binder: &Binder<'_>, report: &mut Report) -> Option<(Link<'a>, &'a str)> {
    let Some(Reference { stage, pins, rest: Some(metric) }) = Reference::parse(text) else {
        let mistake = Mistake::at(span, format!("`{text}` does not name a metric"));
        report.add(mistake.hint("write `STAGE.METRIC` or `STAGE[KEY=VALUE].METRIC`"));
        return None;
    };
    let Some(position) = binder.stages.iter().position(|declared| declared.name == stage) else {
        if binder.params.complete {
            let hint = stage_hint(stage, binder.stages, report);
            report.add(Mistake::at(span, format!("unknown stage `{stage}`")).hint(hint));
        }
        return None;
    };
    let info = binder.stages.get(position).and_then(|stage| stage.kind).map(|kind| kind.info());
    if let Some(info) = info.filter(|info| !matches!(info.shape, Shape::Fold | Shape::Job)) {
        let shape = serde_json::to_value(info.shape).unwrap_or(Value::Null);
        let message = format!(
            "stage `{stage}` makes no metrics: its kind `{}` is a {}",
            info.name,
            shape.as_str().unwrap_or("map")
        );
        report.add(Mistake::at(span, message).hint("folds and jobs make metrics"));
        return None;
    }
    let link = Link { stage: position, pins, span };
    binder.matrices.pins_fit(&link, "", report).then_some((link, metric))
}
