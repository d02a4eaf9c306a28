//! Checks every instance of every stage with its kind, in order, and makes the stages of the pipeline.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
};

use runner_contract::{Input, Output, PortKind, Problem};
use serde_json::Value;

use crate::{
    check::{Check, Subject},
    declare::{Connection, Declared, Link, Origin},
    expression::{Fault, Scope, Stop, noun},
    fits,
    flow::{Connected, Given, gives, same_rows},
    matrix::Matrices,
    options::{Options, flag},
    order::Order,
    params::{Params, References},
    pipeline::{InputRef, StageDef},
    reference::{Reference, instance_name},
    report::{Mistake, Report},
    secret,
    template::{self, Quality, report_stop},
    yaml::{Data, Node},
};

/// Problems of one instance that are reported.
const MAX_PROBLEMS: usize = 200;

/// What became of one instance of a stage.
pub(crate) enum Instance {
    /// Its position in the pipeline, and what it gives.
    Ready(usize, BTreeMap<String, Given>),
    /// `when:` left it out, or something that it reads.
    Skipped,
    /// Something is wrong with it, or with what it reads; reported.
    Bad,
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

    fn environment(&self, name: &str) -> Result<Value, Stop> {
        self.params.references.environment(name)
    }

    fn secret(&self, name: &str) -> Result<Value, Stop> {
        Err(secret::misplaced(name))
    }
}

/// The scope of an instance's settings, where secrets may stand.
struct SettingsScope<'s, 'a> {
    instance: &'s InstanceScope<'a>,
    /// The stage takes part, so that what it needs must be there.
    needed: bool,
    /// The secrets mentioned.
    secrets: RefCell<BTreeSet<String>>,
}

impl Scope for SettingsScope<'_, '_> {
    fn param(&self, name: &str) -> Result<Value, Stop> {
        self.instance.param(name)
    }

    fn matrix(&self, key: &str) -> Result<Value, Stop> {
        self.instance.matrix(key)
    }

    fn environment(&self, name: &str) -> Result<Value, Stop> {
        let value = self.instance.environment(name);
        if self.needed { value } else { value.map_err(|_| Stop::Poisoned) }
    }

    fn secret(&self, name: &str) -> Result<Value, Stop> {
        if self.needed && !self.instance.params.references.has_secret(name) {
            return Err(Fault::new(format!("the secret `{name}` is not set"))
                .hint(format!("set the environment variable `{name}`, or `{name}_FILE` to the file that holds it"))
                .focus(format!("secrets.{name}"))
                .into());
        }
        self.secrets.borrow_mut().insert(name.to_owned());
        Ok(Value::String(secret::placeholder(name)))
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
    /// How many outputs were tried in place of others.
    pub(crate) tried: Cell<usize>,
}

impl<'a> Binder<'a> {
    /// Checks all stages.
    pub(crate) fn run(&mut self, order: &Order, report: &mut Report) {
        self.instances = self.stages.iter().map(|_| Vec::new()).collect();
        for &index in &order.positions {
            let Some(stage) = self.stages.get(index).filter(|_| !report.is_full()) else { continue };
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
        let of_settings =
            SettingsScope { instance: &scope, needed: takes_part != Some(false), secrets: RefCell::default() };
        let settings = self.settings(stage, &of_settings, report);
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
                for mut problem in problems.into_iter().take(MAX_PROBLEMS) {
                    if let ([inputs, port], None) = (problem.path.as_slice(), &problem.hint)
                        && inputs == "inputs"
                    {
                        let fits = fits::alternative(self, kind, stage, &settings, &connected.received, port);
                        problem.hint = fits.map(|name| format!("`{name}` would fit"));
                    }
                    report.add(problem_mistake(problem, stage));
                }
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
            retries: options.retries,
            timeout: options.timeout,
            max_bad: options.max_bad,
            secrets: of_settings.secrets.into_inner().into_iter().collect(),
        });
        Instance::Ready(position, given)
    }

    /// The settings with their expressions evaluated; `None` if something is wrong with them.
    fn settings(&self, stage: &Declared<'_>, scope: &SettingsScope<'_, '_>, report: &mut Report) -> Option<Value> {
        let empty = Node { span: stage.place(&["with".to_owned()]), data: Data::Map(Vec::new()) };
        let node = match stage.replaced.or_else(|| stage.node.get("with")) {
            None => &empty,
            Some(node) if matches!(node.data, Data::Null) => &empty,
            Some(node) => node,
        };
        let before = report.len();
        let (node, quality) = match stage.replaced {
            // Rows of tests are what they are.
            Some(rows) => (Some(rows.clone()), Quality::Whole),
            None => template::substitute(node, scope, report),
        };
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
                        let stage = Reference::parse(&reference);
                        // It may be a stage of a file that could not be read.
                        if !self.params.complete && stage.is_some() {
                            return Feed::Unknown;
                        }
                        let near = stage.and_then(|reference| {
                            report.nearest(reference.stage, self.stages.iter().map(|stage| stage.name))
                        });
                        let near = near.map(|near| format!("did you mean the stage `{near}`?"));
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
                    let replaced = self.stages.get(link.stage).is_some_and(|stage| stage.replaced.is_some());
                    let said = self.defs.get(position).and_then(|stage| stage.bound.hints.get(port).cloned());
                    let hint = if replaced { Some(format!("give `{port}:` beside `rows:` in the test")) } else { said };
                    report.add(Mistake::at(input.span, message).maybe_hint(hint));
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

/// What came of connecting a port.
enum Feed {
    Connected,
    /// The stage that it reads takes no part.
    Left,
    /// Something is wrong, which was reported.
    Unknown,
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
