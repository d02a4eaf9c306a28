//! Checks every instance of every stage with its kind, in order, and makes the stages of the pipeline.

use std::collections::{BTreeMap, HashMap};

use runner_contract::{
    Column, ColumnType, Digest, Input, KeyHasher, Kind, Output, PARENT, PortKind, Problem, Schema, Shape,
};
use serde_json::{Value, json};

use crate::{
    check::{Check, Subject},
    declare::{Connection, Declared, Link, Origin},
    expression::{Expression, Fault, Scope, Stop, noun},
    matrix::Matrices,
    order::Order,
    params::{Params, References},
    pipeline::{Device, InputRef, StageDef},
    reference::{Reference, instance_name},
    report::{Mistake, Report, Span},
    template::{self, Quality, is_template, report_stop},
    yaml::{Data, Node},
};

/// What became of one instance of a stage.
pub(crate) enum Instance {
    /// Its position in the pipeline, and what it gives.
    Ready(usize, BTreeMap<String, Given>),
    /// `when:` left it out, or something that it reads.
    Skipped,
    /// Something is wrong with it, or with what it reads; reported.
    Bad,
}

/// What an output port gives, and which rows.
#[derive(Clone)]
pub(crate) struct Given {
    output: Output,
    /// The rows, as the output port that first had them: equal for ports whose rows can be joined by id.
    lineage: (usize, String),
    /// How it is made.
    key: Digest,
}

/// Parameters and the coordinates of one instance.
pub(crate) struct InstanceScope<'a> {
    params: &'a Params<'a>,
    coordinates: Vec<(&'a str, &'a Value)>,
    /// The coordinates are not known: something is wrong with the matrix.
    broken: bool,
}

impl Scope for InstanceScope<'_> {
    fn param(&self, name: &str) -> Result<Value, Stop> {
        self.params.value(name)
    }

    fn matrix(&self, key: &str) -> Result<Value, Stop> {
        if let Some((_, value)) = self.coordinates.iter().find(|(name, _)| *name == key) {
            return Ok((*value).clone());
        }
        if self.broken {
            return Err(Stop::Poisoned);
        }
        let keys: Vec<_> = self.coordinates.iter().map(|(name, _)| *name).collect();
        let hint = match keys.as_slice() {
            [] => format!("declare it: `matrix: {{{key}: [one, two]}}` in this stage or in the pipeline"),
            keys => format!("its matrix keys are {}", keys.join(", ")),
        };
        Err(Fault::new(format!("this stage has no matrix key `{key}`"))
            .hint(hint)
            .focus(format!("matrix.{key}"))
            .into())
    }
}

/// The check of a whole pipeline.
pub(crate) struct Binder<'a> {
    pub(crate) stages: &'a [Declared<'a>],
    pub(crate) matrices: &'a Matrices<'a>,
    pub(crate) params: &'a Params<'a>,
    pub(crate) references: &'a References<'a>,
    /// By stage and instance: what became of it.
    pub(crate) instances: Vec<Vec<Instance>>,
    /// The stages made.
    pub(crate) defs: Vec<StageDef>,
    /// The names of those left out.
    pub(crate) skipped: Vec<String>,
}

impl<'a> Binder<'a> {
    /// Checks all stages.
    pub(crate) fn run(&mut self, order: &Order, report: &mut Report) {
        self.instances = self.stages.iter().map(|_| Vec::new()).collect();
        for &index in &order.positions {
            let Some(stage) = self.stages.get(index) else { continue };
            let all = self.matrices.instances(index);
            let mut found = Vec::new();
            for coordinates in &all {
                let mut own = Report::default();
                let instance = self.instance(index, stage, coordinates, &mut own);
                self.params.report_late(report);
                let name = instance_name(stage.name, &self.matrices.names(index, coordinates));
                if let Instance::Skipped = instance {
                    self.skipped.push(name.clone());
                }
                found.push(Found { name, mistakes: own.into_mistakes() });
                if let Some(slot) = self.instances.get_mut(index) {
                    slot.push(instance);
                }
            }
            merge(found, report);
        }
    }

    /// The scope of an instance.
    pub(crate) fn scope(&self, stage: usize, coordinates: &[usize]) -> InstanceScope<'a> {
        let axes = self.matrices.of.get(stage).into_iter().flatten().filter_map(|&axis| self.matrices.axes.get(axis));
        InstanceScope {
            params: self.params,
            coordinates: axes
                .zip(coordinates)
                .filter_map(|(axis, &value)| Some((axis.key, &axis.values.get(value)?.1)))
                .collect(),
            broken: self.matrices.broken.get(stage).copied().unwrap_or(true),
        }
    }

    fn instance(
        &mut self,
        index: usize,
        stage: &'a Declared<'a>,
        coordinates: &[usize],
        report: &mut Report,
    ) -> Instance {
        let scope = self.scope(index, coordinates);
        let takes_part = flag(stage.node.get("when"), true, "when", &scope, report);
        let options = Options::read(stage, &scope, report);
        let settings = self.settings(stage, &scope, report);
        if takes_part == Some(false) {
            return Instance::Skipped;
        }
        let mut connected = Connected::default();
        let mut good = stage.sound && !scope.broken && takes_part.is_some();
        for input in &stage.inputs {
            match self.connect(input, index, coordinates, &scope, &mut connected, report) {
                Feed::Connected => {}
                Feed::Left if input.port.optional => {}
                Feed::Left => return Instance::Skipped,
                Feed::Unknown => good = false,
            }
        }
        let (Some(kind), Some(options), Some(settings), true) = (stage.kind, options, settings, good) else {
            return Instance::Bad;
        };
        if !same_rows(kind, stage, &connected, report) {
            return Instance::Bad;
        }
        let bound = match kind.bind(&settings, &connected.received) {
            Ok(bound) => bound,
            Err(problems) => {
                problems.into_iter().for_each(|problem| report.add(problem_mistake(problem, stage)));
                return Instance::Bad;
            }
        };
        let position = self.defs.len();
        let given = gives(kind, position, &bound, &connected);
        let mut needs: Vec<_> = stage.needs.iter().flat_map(|link| self.ready(link, index, coordinates)).collect();
        needs.sort_unstable();
        needs.dedup();
        let names = self.matrices.names(index, coordinates);
        self.defs.push(StageDef {
            name: instance_name(stage.name, &names),
            base: stage.name.to_owned(),
            coordinates: names,
            kind: kind.info().name.to_owned(),
            bound,
            inputs: connected.inputs,
            received: connected.received,
            outputs: given.iter().map(|(port, given)| (port.clone(), given.output.clone())).collect(),
            needs,
            keep: options.keep,
            cache: options.cache,
            device: options.device,
        });
        Instance::Ready(position, given)
    }

    /// The settings with their expressions evaluated; `None` if something is wrong with them.
    fn settings(&self, stage: &Declared<'_>, scope: &InstanceScope<'_>, report: &mut Report) -> Option<Value> {
        let empty = Node { span: stage.place(&["with".to_owned()]), data: Data::Map(Vec::new()) };
        let node = match stage.node.get("with") {
            None => &empty,
            Some(node) if matches!(node.data, Data::Null) => &empty,
            Some(node) => node,
        };
        let before = report.len();
        let (node, quality) = template::substitute(node, scope, report);
        let node = node.filter(|node| matches!(node.data, Data::Map(_)))?;
        let kind = stage.kind?;
        let info = kind.info();
        let owner = format!("of kind `{}`", info.name);
        let subject = Subject { key: "setting", owner: &owner, language: false, partial: quality == Quality::Poisoned };
        let name = format!("kind `{}`", info.name);
        Check { root: &info.settings, subject, report }.value(&node, &info.settings, &name, empty.span);
        (report.len() == before && quality == Quality::Whole).then(|| node.to_json())
    }

    /// Finds what an input port receives.
    fn connect(
        &self,
        input: &Connection<'_>,
        index: usize,
        coordinates: &[usize],
        scope: &InstanceScope<'_>,
        connected: &mut Connected,
        report: &mut Report,
    ) -> Feed {
        let name = input.port.name.to_owned();
        match &input.from {
            Origin::Broken => Feed::Unknown,
            Origin::Model(text) => {
                let reference = match template::evaluate(text, scope) {
                    Ok(Value::String(reference)) => reference,
                    Ok(value) => {
                        let message = format!("the input `{name}` takes a model reference, not {}", noun(&value));
                        report.add(Mistake::at(input.span, message));
                        return Feed::Unknown;
                    }
                    Err(stop) => {
                        report_stop(stop, input.span, report);
                        return Feed::Unknown;
                    }
                };
                match self.references.model(&reference) {
                    Ok(info) => {
                        connected.keys.push((name.clone(), info.identity));
                        connected.received.insert(name.clone(), Input::Model(info.clone()));
                        connected.inputs.insert(name, InputRef::Model { reference, info });
                        Feed::Connected
                    }
                    Err(Problem { message, hint, .. }) => {
                        let near = Reference::parse(&reference).and_then(|reference| {
                            report.suggest(reference.stage, self.stages.iter().map(|stage| stage.name))
                        });
                        let near = near.map(|near| format!("{near} (a stage)"));
                        report.add(Mistake::at(input.span, message).maybe_hint(near.or(hint)));
                        Feed::Unknown
                    }
                }
            }
            Origin::Stage(link, port) => {
                let matching = self.matrices.matching(link, index, coordinates);
                let upstream = match (self.instances.get(link.stage), matching.as_slice()) {
                    (Some(instances), [one]) => instances.get(*one),
                    _ => None,
                };
                let (position, given) = match upstream {
                    Some(Instance::Ready(position, given)) => (*position, given),
                    Some(Instance::Skipped) => return Feed::Left,
                    _ => return Feed::Unknown,
                };
                let Some(given) = port.and_then(|port| given.get(port)) else {
                    let port = port.unwrap_or_default();
                    let message = format!("the stage gives no `{port}` with these settings");
                    report.add(Mistake::at(input.span, message));
                    return Feed::Unknown;
                };
                let receives = match &given.output {
                    Output::Rows(schema) => Input::Rows(schema.clone()),
                    Output::Model(info) => Input::Model(info.clone()),
                };
                connected.received.insert(name.clone(), receives);
                connected.keys.push((name.clone(), given.key));
                if input.port.kind == PortKind::Rows {
                    connected.lineages.push((input.port.name, given.lineage.clone(), input.span));
                }
                let port = port.unwrap_or_default().to_owned();
                connected.inputs.insert(name, InputRef::Stage { stage: position, port });
                Feed::Connected
            }
        }
    }

    /// The positions of the instances that `link` names and that take part.
    fn ready(&self, link: &Link<'_>, index: usize, coordinates: &[usize]) -> Vec<usize> {
        let Some(instances) = self.instances.get(link.stage) else { return Vec::new() };
        let matching = self.matrices.matching(link, index, coordinates).into_iter();
        matching
            .filter_map(
                |i| if let Some(Instance::Ready(position, _)) = instances.get(i) { Some(*position) } else { None },
            )
            .collect()
    }
}

/// What the connected ports of an instance receive.
#[derive(Default)]
struct Connected {
    inputs: BTreeMap<String, InputRef>,
    received: BTreeMap<String, Input>,
    /// How each input is made, by port.
    keys: Vec<(String, Digest)>,
    /// Whose rows the `rows` ports read, in the order of the kind's ports.
    lineages: Vec<(&'static str, (usize, String), Span)>,
}

/// What came of connecting a port.
enum Feed {
    Connected,
    /// The stage that it reads takes no part.
    Left,
    /// Something is wrong, which was reported.
    Unknown,
}

/// The keys of a stage that every kind has.
struct Options {
    keep: bool,
    cache: bool,
    device: Option<Device>,
}

impl Options {
    fn read(stage: &Declared<'_>, scope: &InstanceScope<'_>, report: &mut Report) -> Option<Self> {
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
fn flag(node: Option<&Node>, default: bool, key: &str, scope: &InstanceScope<'_>, report: &mut Report) -> Option<bool> {
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
fn value_of(node: &Node, scope: &InstanceScope<'_>, report: &mut Report) -> Option<Value> {
    let (node, quality) = template::substitute(node, scope, report);
    node.filter(|_| quality == Quality::Whole).map(|node| node.to_json())
}

/// Whether the `rows` ports of a stage that reads them side by side have the same rows.
fn same_rows(kind: &dyn Kind, stage: &Declared<'_>, connected: &Connected, report: &mut Report) -> bool {
    let info = kind.info();
    let Some(((first, lineage, _), others)) = connected.lineages.split_first() else { return true };
    let mut same = true;
    if matches!(info.shape, Shape::Source | Shape::Job) {
        return same;
    }
    for (port, other, span) in others {
        if other != lineage {
            same = false;
            let message = format!(
                "stage `{}` reads `{first}` and `{port}` side by side, but they hold different rows",
                stage.name
            );
            report.add(
                Mistake::at(*span, message).hint(
                    "both must come from the same output, through stages that neither multiply nor group the rows",
                ),
            );
        }
    }
    same
}

/// What the ports of a bound stage give.
fn gives(
    kind: &dyn Kind,
    position: usize,
    bound: &runner_contract::Bound,
    connected: &Connected,
) -> BTreeMap<String, Given> {
    let info = kind.info();
    let mut key = KeyHasher::new("spec/stage/1")
        .part("kind", info.name.as_bytes())
        .json("version", &json!(info.version))
        .json("settings", &bound.settings);
    for (port, input) in &connected.keys {
        key = key.digest(port, input);
    }
    let key = key.finish();
    let streams = matches!(info.shape, Shape::Map | Shape::Filter | Shape::Expand | Shape::Group);
    let first = info.inputs.iter().filter(|port| port.kind == PortKind::Rows).find_map(|port| {
        if let Some(Input::Rows(schema)) = connected.received.get(port.name) { Some(schema) } else { None }
    });
    let splits = info.outputs.len() > 1;
    let output = |port: &str, output: &Output| match output {
        Output::Rows(produced) if streams => {
            let mut schema = first.cloned().unwrap_or_default();
            if info.shape == Shape::Expand {
                schema = schema.with(&Schema::new([Column::new(PARENT, ColumnType::Text)]));
            }
            Output::Rows(schema.with(produced))
        }
        Output::Rows(produced) => Output::Rows(produced.clone()),
        Output::Model(model) => {
            let mut model = model.clone();
            model.identity =
                KeyHasher::new("spec/model/1").digest("stage", &key).part("port", port.as_bytes()).finish();
            Output::Model(model)
        }
    };
    let lineage = |port: &str| match connected.lineages.first() {
        Some((_, lineage, _)) if info.shape == Shape::Map || info.shape == Shape::Filter && !splits => lineage.clone(),
        _ => (position, port.to_owned()),
    };
    let entry = |(port, given): (&String, &Output)| {
        let key = KeyHasher::new("spec/port/1").digest("stage", &key).part("port", port.as_bytes()).finish();
        (port.clone(), Given { output: output(port, given), lineage: lineage(port), key })
    };
    bound.outputs.iter().map(entry).collect()
}

fn problem_mistake(problem: Problem, stage: &Declared<'_>) -> Mistake {
    Mistake::at(stage.place(&problem.path), problem.message).maybe_hint(problem.hint)
}

/// What is wrong with one instance.
struct Found {
    name: String,
    mistakes: Vec<Mistake>,
}

/// Reports the mistakes of a stage's instances: what all have once, what some have with the name of the first.
fn merge(found: Vec<Found>, report: &mut Report) {
    let total = found.len();
    let mut counts: HashMap<Mistake, usize> = HashMap::new();
    for mistake in found.iter().flat_map(|found| &found.mistakes) {
        *counts.entry(mistake.clone()).or_default() += 1;
    }
    for Found { name, mistakes } in found {
        for mut mistake in mistakes {
            if let Some(count) = counts.remove(&mistake) {
                if count < total {
                    mistake.message = format!("{} (in `{}`)", mistake.message, name);
                }
                report.add(mistake);
            }
        }
    }
}
