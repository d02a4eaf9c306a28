//! Matrices: their axes, and the instances that each stage has.
//!
//! A stage has the axes of its own `matrix:`, those of the stages that it reads (unless its reference names a value),
//! and those of the pipeline's `matrix:` that it mentions. An axis is one thing wherever it arrives: two inputs fanned
//! out along the same axis are read at the same value.

use std::collections::HashSet;

use crate::{
    axes::{Axis, declare, mentioned},
    declare::{Declared, Link},
    order::Order,
    params::Params,
    report::{Mistake, Report, Span},
    yaml::Node,
};

/// Instances that one stage may have.
const MAX_INSTANCES: usize = 256;
/// Instances that all stages together may have.
const MAX_TOTAL: usize = 2_000;

/// The axes of a pipeline and of each stage.
pub(crate) struct Matrices<'a> {
    /// Those of the pipeline first, then in the order of the file.
    pub(crate) axes: Vec<Axis<'a>>,
    /// By stage: its axes, as positions in `axes`, ascending.
    pub(crate) of: Vec<Vec<usize>>,
    /// By stage: it, or what it reads, has axes that are wrong.
    pub(crate) broken: Vec<bool>,
    /// There are too many instances to look at each.
    pub(crate) full: bool,
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
        let mut all = Self { axes, of: vec![Vec::new(); stages.len()], broken: vec![false; stages.len()], full: false };
        let mut total = 0;
        for (rank, &index) in order.positions.iter().enumerate() {
            let Some(stage) = stages.get(index) else { continue };
            let own = own.get(index).map(Vec::as_slice).unwrap_or_default();
            all.broken[index] = rank >= order.sorted;
            all.gather(stages, index, own, shared, report);
            total += all.count(index, stage, report);
            if total > MAX_TOTAL {
                let message = format!("more than {MAX_TOTAL} stages, with matrices fanned out");
                let mistake = Mistake::at(stage.span, message);
                report.add(mistake.hint("take values out of a `matrix:`, or split the pipeline"));
                all.full = true;
                return all;
            }
        }
        for axis in all.axes.iter().filter(|axis| !axis.used && params.complete) {
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
                    [] => "it has one instance: leave out the brackets".to_owned(),
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
