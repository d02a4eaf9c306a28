//! Matrices: their axes, and the instances that each stage has.
//!
//! A stage has the axes of its own `matrix:`, those of the stages that it reads (unless its reference names a value),
//! and those of the pipeline's `matrix:` that it mentions. An axis is one thing wherever it arrives: two inputs fanned
//! out along the same axis are read at the same value.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    declare::{Declared, Link},
    expression::{Expression, Fault, Scope, Stop, is_name},
    order::Order,
    params::Params,
    reference::is_label,
    report::{Mistake, Report, Span},
    template::{self, is_template, report_stop},
    yaml::{Data, Node},
};

/// Instances that one stage may have.
const MAX_INSTANCES: usize = 256;
/// Instances that all stages together may have.
const MAX_TOTAL: usize = 5_000;

/// A key of a matrix and its values.
pub(crate) struct Axis<'a> {
    pub(crate) key: &'a str,
    pub(crate) span: Span,
    /// The declaring stage; `None`: the pipeline.
    pub(crate) owner: Option<usize>,
    /// The values by name. Empty: they are wrong, which was reported.
    pub(crate) values: Vec<(String, Value)>,
    /// Some expression reads it.
    used: bool,
}

/// The axes of a pipeline and of each stage.
pub(crate) struct Matrices<'a> {
    /// Those of the pipeline first, then in the order of the file.
    pub(crate) axes: Vec<Axis<'a>>,
    /// By stage: its axes, as positions in `axes`, ascending.
    pub(crate) of: Vec<Vec<usize>>,
    /// By stage: it, or what it reads, has axes that are wrong.
    pub(crate) broken: Vec<bool>,
}

/// Parameters only: what the values of a matrix may be made of.
struct ParamScope<'a>(&'a Params<'a>);

impl Scope for ParamScope<'_> {
    fn param(&self, name: &str) -> Result<Value, Stop> {
        self.0.value(name)
    }

    fn matrix(&self, key: &str) -> Result<Value, Stop> {
        Err(Fault::new(format!("`matrix.{key}` inside a matrix")).hint("its values may read `params.NAME` only").into())
    }
}

impl<'a> Matrices<'a> {
    /// Reads every `matrix:` and finds the axes of every stage.
    pub(crate) fn read(
        pipeline: Option<&'a Node>,
        stages: &[Declared<'a>],
        order: &Order,
        params: &Params<'_>,
        report: &mut Report,
    ) -> Self {
        let mut axes = Vec::new();
        declare(pipeline, None, &mut axes, params, report);
        let shared = axes.len();
        let mut own: Vec<Vec<usize>> = Vec::new();
        for (index, stage) in stages.iter().enumerate() {
            let first = axes.len();
            declare(stage.node.get("matrix"), Some(index), &mut axes, params, report);
            own.push((first..axes.len()).collect());
        }
        let mut all = Self { axes, of: vec![Vec::new(); stages.len()], broken: vec![false; stages.len()] };
        let mut total = 0;
        for (rank, &index) in order.positions.iter().enumerate() {
            let Some(stage) = stages.get(index) else { continue };
            let own = own.get(index).map(Vec::as_slice).unwrap_or_default();
            all.broken[index] = rank >= order.sorted;
            all.gather(stages, index, own, shared, report);
            total += all.count(index, stage, report);
            if total > MAX_TOTAL {
                report.add(
                    Mistake::at(stage.span, format!("more than {MAX_TOTAL} stages, with matrices fanned out"))
                        .hint("take values out of a `matrix:`, or split the pipeline"),
                );
                total = 0;
                all.broken[index] = true;
                all.of[index].clear();
            }
        }
        for axis in all.axes.iter().filter(|axis| !axis.used) {
            report.add(
                Mistake::at(axis.span, format!("no stage uses `matrix.{}`", axis.key))
                    .hint(format!("write `${{{{ matrix.{} }}}}` where its values differ, or remove it", axis.key)),
            );
        }
        all
    }

    /// The axes of a stage, from all that it has to do with.
    fn gather(&mut self, stages: &[Declared<'a>], index: usize, own: &[usize], shared: usize, report: &mut Report) {
        let Some(stage) = stages.get(index) else { return };
        let mut found: Vec<(usize, Span)> = own.iter().map(|&axis| (axis, self.axes[axis].span)).collect();
        for link in stage.reads() {
            self.broken[index] |=
                self.broken.get(link.stage).copied().unwrap_or(true) || !self.pins_fit(link, stage.name, report);
            let upstream = self.of.get(link.stage).cloned().unwrap_or_default();
            let free =
                upstream.into_iter().filter(|&axis| !link.pins.iter().any(|(key, _)| *key == self.axes[axis].key));
            found.extend(free.map(|axis| (axis, link.span)));
        }
        for link in &stage.needs {
            self.pins_fit(link, stage.name, report);
        }
        let mut keys = HashSet::new();
        mentioned(stage.node, &mut keys, report);
        for axis in 0..shared {
            if keys.contains(self.axes[axis].key) {
                found.push((axis, stage.span));
            }
        }
        found.sort_by_key(|(axis, _)| *axis);
        found.dedup_by_key(|(axis, _)| *axis);
        for (i, &(axis, span)) in found.iter().enumerate() {
            let key = self.axes[axis].key;
            if keys.contains(key) {
                self.axes[axis].used = true;
            }
            if self.axes[axis].values.is_empty() {
                self.broken[index] = true;
            }
            if let Some(&(other, _)) = found[..i].iter().find(|(other, _)| self.axes[*other].key == key) {
                self.broken[index] = true;
                let from = |axis: usize| match self.axes[axis].owner {
                    Some(owner) => format!("stage `{}`", stages.get(owner).map_or("", |stage| stage.name)),
                    None => "the pipeline".to_owned(),
                };
                let message = format!(
                    "stage `{}` gets the matrix key `{key}` twice: from {} and from {}",
                    stage.name,
                    from(other),
                    from(axis)
                );
                let mistake = Mistake::at(span, message);
                report.add(mistake.hint("declare it once, in the `matrix:` of the pipeline, or rename one of them"));
            }
        }
        self.of[index] =
            if self.broken[index] { Vec::new() } else { found.into_iter().map(|(axis, _)| axis).collect() };
    }

    /// Whether the coordinates of a reference exist.
    pub(crate) fn pins_fit(&self, link: &Link<'_>, stage: &str, report: &mut Report) -> bool {
        if self.broken.get(link.stage).copied().unwrap_or(true) {
            return link.pins.is_empty();
        }
        let axes = self.of.get(link.stage).map(Vec::as_slice).unwrap_or_default();
        let before = report.len();
        for (i, (key, label)) in link.pins.iter().enumerate() {
            let mistake = |message: String| {
                let mut mistake = Mistake::at(link.span, message);
                mistake.focus = Some(format!("{key}={label}"));
                mistake
            };
            if link.pins[..i].iter().any(|(other, _)| other == key) {
                report.add(mistake(format!("`{key}` twice in one reference")));
                continue;
            }
            let Some(axis) = axes.iter().filter_map(|&axis| self.axes.get(axis)).find(|axis| axis.key == *key) else {
                let keys: Vec<_> = axes.iter().filter_map(|&axis| Some(self.axes.get(axis)?.key)).collect();
                let hint = match keys.as_slice() {
                    [] => "it has one instance: leave the brackets away".to_owned(),
                    keys => format!("its matrix keys are {}", keys.join(", ")),
                };
                let name = if stage.is_empty() { String::new() } else { format!(" that `{stage}` refers to") };
                report.add(mistake(format!("the stage{name} has no matrix key `{key}`")).hint(hint));
                continue;
            };
            if axis.values.iter().all(|(name, _)| name != label) {
                let hint = report.suggest(label, axis.values.iter().map(|(name, _)| name.as_str()));
                let all: Vec<_> = axis.values.iter().take(12).map(|(name, _)| name.as_str()).collect();
                let hint = hint.unwrap_or_else(|| format!("the values of `{key}` are {}", all.join(", ")));
                report.add(mistake(format!("the matrix key `{key}` has no value `{label}`")).hint(hint));
            }
        }
        report.len() == before
    }

    /// Number of instances of a stage; reports and cuts it where that is too many.
    fn count(&mut self, index: usize, stage: &Declared<'_>, report: &mut Report) -> usize {
        let sizes = self.of[index].iter().map(|&axis| self.axes[axis].values.len());
        let count = sizes.fold(1_usize, usize::saturating_mul);
        if count <= MAX_INSTANCES {
            return count;
        }
        report.add(
            Mistake::at(stage.span, format!("stage `{}` has {count} instances, more than {MAX_INSTANCES}", stage.name))
                .hint("take values out of a `matrix:`"),
        );
        self.of[index].clear();
        self.broken[index] = true;
        1
    }

    /// The coordinates of every instance of a stage, as positions of values, in order; the first axis varies slowest.
    pub(crate) fn instances(&self, stage: usize) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        for &axis in self.of.get(stage).into_iter().flatten() {
            let size = self.axes.get(axis).map_or(0, |axis| axis.values.len());
            all = all
                .into_iter()
                .flat_map(|start| (0..size).map(move |value| start.iter().copied().chain([value]).collect()))
                .collect();
        }
        all
    }

    /// The names of coordinates: key and value name.
    pub(crate) fn names(&self, stage: usize, coordinates: &[usize]) -> Vec<(String, String)> {
        let axes = self.of.get(stage).into_iter().flatten().filter_map(|&axis| self.axes.get(axis));
        axes.zip(coordinates)
            .filter_map(|(axis, &value)| Some((axis.key.to_owned(), axis.values.get(value)?.0.clone())))
            .collect()
    }

    /// The positions of the instances of `link`'s stage that agree with its coordinates and with those of a reader.
    pub(crate) fn matching(&self, link: &Link<'_>, reader: usize, coordinates: &[usize]) -> Vec<usize> {
        let axes = self.of.get(link.stage).map(Vec::as_slice).unwrap_or_default();
        let mine = self.of.get(reader).map(Vec::as_slice).unwrap_or_default();
        // The value that each axis must have, if it must have one.
        let fixed: Vec<Option<usize>> = axes
            .iter()
            .map(|&axis| {
                let Axis { key, values, .. } = self.axes.get(axis)?;
                if let Some((_, label)) = link.pins.iter().find(|(pin, _)| pin == key) {
                    return values.iter().position(|(name, _)| name == label);
                }
                coordinates.get(mine.iter().position(|&other| other == axis)?).copied()
            })
            .collect();
        let agrees =
            |instance: &Vec<usize>| instance.iter().zip(&fixed).all(|(value, fixed)| fixed.is_none_or(|f| f == *value));
        self.instances(link.stage).iter().enumerate().filter(|(_, i)| agrees(i)).map(|(position, _)| position).collect()
    }
}

/// Reads one `matrix:`. Its shape was checked before.
fn declare<'a>(
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
fn mentioned(stage: &Node, keys: &mut HashSet<String>, report: &mut Report) {
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
