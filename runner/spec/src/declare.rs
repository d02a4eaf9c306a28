//! The stages as the file declares them: kinds looked up, references resolved to stages and ports.

use std::collections::{HashMap, HashSet};

use runner_contract::{InputPort, Kind, PortKind, Registry, Shape};

use crate::{
    expression::is_name,
    reference::Reference,
    report::{Mistake, Report, Span},
    template::is_template,
    yaml::{Data, Entry, Node},
};

/// The kind whose rows tests put in place of those of sources.
const ROWS: &str = "rows";

/// A stage of the file, before its matrix is fanned out.
pub(crate) struct Declared<'a> {
    pub(crate) name: &'a str,
    /// Where its name stands.
    pub(crate) span: Span,
    /// All of it.
    pub(crate) node: &'a Node,
    /// Settings that a test puts in the place of its own, with another kind.
    pub(crate) replaced: Option<&'a Node>,
    /// Its kind, if there is such a kind.
    pub(crate) kind: Option<&'a dyn Kind>,
    /// What its ports read, each port once, in the order of the kind's ports.
    pub(crate) inputs: Vec<Connection<'a>>,
    /// What it waits for.
    pub(crate) needs: Vec<Link<'a>>,
    /// Nothing was found wrong that keeps its kind from being asked.
    pub(crate) sound: bool,
}

/// An input port and what it reads.
pub(crate) struct Connection<'a> {
    pub(crate) port: &'static InputPort,
    /// Where the reference stands.
    pub(crate) span: Span,
    pub(crate) from: Origin<'a>,
}

/// Where an input comes from.
pub(crate) enum Origin<'a> {
    /// A stage's output.
    Stage(Link<'a>, Option<&'static str>),
    /// A model: the text, with its expressions.
    Model(&'a str),
    /// Nothing that could be found; reported.
    Broken,
}

/// A reference to a stage that exists.
#[derive(Clone)]
pub(crate) struct Link<'a> {
    /// Position of the stage among those declared.
    pub(crate) stage: usize,
    /// The coordinates given.
    pub(crate) pins: Vec<(&'a str, &'a str)>,
    pub(crate) span: Span,
}

impl Declared<'_> {
    /// The stages that it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Link<'_>> {
        self.inputs.iter().filter_map(|input| if let Origin::Stage(link, _) = &input.from { Some(link) } else { None })
    }

    /// The place that a path below the stage names, or the nearest that exists.
    pub(crate) fn place(&self, path: &[String]) -> Span {
        let (mut node, mut span, mut path) = (self.node, self.span, path);
        if let (Some(replaced), Some((first, below))) = (self.replaced, path.split_first())
            && first == "with"
        {
            (node, span, path) = (replaced, replaced.span, below);
        }
        for (depth, step) in path.iter().enumerate() {
            let next = match &node.data {
                Data::Map(entries) => entries.iter().find(|entry| entry.key == *step).map(|entry| {
                    // What holds several values is pointed at by its key.
                    let scalar = !matches!(entry.value.data, Data::Map(_) | Data::List(_) | Data::Null);
                    (&entry.value, if scalar { entry.value.span } else { entry.span })
                }),
                Data::List(items) => {
                    step.parse::<usize>().ok().and_then(|index| items.get(index)).map(|item| (item, item.span))
                }
                _ => None,
            };
            match next {
                Some((below, at)) => (node, span) = (below, at),
                None => {
                    if depth == 0 && path.first().is_some_and(|step| step == "with") {
                        return self.node.get("uses").map_or(self.span, |uses| uses.span);
                    }
                    break;
                }
            }
        }
        span
    }
}

/// Reads `stages:`. Their shape was checked before; what is malformed is passed over here. Unless all files are
/// `complete`, a stage that is not there may be in one that could not be read.
pub(crate) fn read<'a>(
    section: Option<&'a Node>,
    rows: &'a [Entry],
    registry: &'a dyn Registry,
    complete: bool,
    report: &mut Report,
) -> Vec<Declared<'a>> {
    // What has a name that is none is there all the same.
    let badly_named: HashSet<_> =
        section.map(Node::entries).unwrap_or_default().iter().map(|e| e.key.as_str()).filter(|k| !is_name(k)).collect();
    let mut stages: Vec<_> = section
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .filter(|entry| is_name(&entry.key))
        .map(|entry| {
            let (name, span, node) = (entry.key.as_str(), entry.span, &entry.value);
            let uses = node.get("uses").and_then(|uses| Some((uses.text()?, uses.span)));
            let kind = uses.and_then(|(uses, at)| kind(uses, at, registry, report));
            let replaced = rows.iter().find(|rows| rows.key == name).map(|rows| &rows.value);
            let kind = match (replaced, kind) {
                (Some(_), Some(kind)) if kind.info().shape == Shape::Source => registry.kind(ROWS),
                _ => kind,
            };
            let replaced = replaced.filter(|_| kind.is_some_and(|kind| kind.info().name == ROWS));
            Declared { name, span, node, replaced, kind, inputs: Vec::new(), needs: Vec::new(), sound: kind.is_some() }
        })
        .collect();
    for Entry { key, span, .. } in rows.iter().filter(|_| complete) {
        check_replaced(key, *span, &stages, registry, report);
    }
    // The first of that name; another one was reported.
    let mut names = HashMap::new();
    for (index, stage) in stages.iter().enumerate() {
        names.entry(stage.name).or_insert(index);
    }
    for index in 0..stages.len() {
        let (Some(node), Some(kind)) = (stages.get(index).map(|stage| stage.node), stages.get(index).map(|s| s.kind))
        else {
            continue;
        };
        let mut linker = Linker { stages: &stages, names: &names, badly_named: &badly_named, complete, report, index };
        let (inputs, complete) = linker.inputs(node.get("inputs"), kind);
        let needs = linker.needs(node.get("needs"));
        if let Some(stage) = stages.get_mut(index) {
            stage.sound &= complete && inputs.iter().all(|input| !matches!(input.from, Origin::Broken));
            (stage.inputs, stage.needs) = (inputs, needs);
        }
    }
    stages
}

/// Whether a test can put rows in place of those of a stage.
fn check_replaced(name: &str, span: Span, stages: &[Declared<'_>], registry: &dyn Registry, report: &mut Report) {
    let Some(stage) = stages.iter().find(|stage| stage.name == name) else {
        let hint = report.suggest(name, stages.iter().map(|stage| stage.name));
        report.add(Mistake::at(span, format!("unknown stage `{name}`")).maybe_hint(hint));
        return;
    };
    let written = stage.node.get("uses").and_then(Node::text).and_then(|uses| registry.kind(uses));
    if let Some(info) = written.map(|kind| kind.info()).filter(|info| info.shape != Shape::Source) {
        let message = format!("stage `{name}` (kind `{}`) is no source: it makes its rows from others", info.name);
        report.add(Mistake::at(span, message).hint("give the rows of the source that it reads"));
    }
}

fn kind<'a>(uses: &str, at: Span, registry: &'a dyn Registry, report: &mut Report) -> Option<&'a dyn Kind> {
    let kind = registry.kind(uses);
    if kind.is_none() && !is_template(uses) && !report.is_full() {
        let names: Vec<_> = registry.kinds().iter().map(|kind| kind.info().name).collect();
        let hint = report
            .suggest(uses, names.iter().copied())
            .unwrap_or_else(|| format!("the kinds are {}", names.join(", ")));
        report.add(Mistake::at(at, format!("unknown kind `{uses}`")).hint(hint));
    }
    kind
}

/// The stage that was meant, or those that there are.
pub(crate) fn stage_hint(name: &str, stages: &[Declared<'_>], report: &mut Report) -> String {
    report.suggest(name, stages.iter().map(|stage| stage.name)).unwrap_or_else(|| {
        let more = if stages.len() > 12 { ", …" } else { "" };
        let names: Vec<_> = stages.iter().take(12).map(|stage| stage.name).collect();
        format!("the stages are {}{more}", names.join(", "))
    })
}

/// Resolves the references of one stage.
struct Linker<'s, 'a, 'r> {
    stages: &'s [Declared<'a>],
    names: &'s HashMap<&'a str, usize>,
    badly_named: &'s HashSet<&'a str>,
    /// No file is missing in which other stages may be declared.
    complete: bool,
    report: &'r mut Report,
    index: usize,
}

impl<'a> Linker<'_, 'a, '_> {
    fn owner(&self) -> (&'a str, Span) {
        self.stages.get(self.index).map_or(("", Span::default()), |stage| (stage.name, stage.span))
    }

    /// What the ports read, and whether every port that must be connected is.
    fn inputs(&mut self, node: Option<&'a Node>, kind: Option<&'a dyn Kind>) -> (Vec<Connection<'a>>, bool) {
        let Some(kind) = kind else {
            // Without a kind there are no ports, but what it names can still be checked.
            for (text, span) in node.map(texts).unwrap_or_default() {
                if !is_template(text) && Reference::parse(text).is_some_and(|at| self.names.contains_key(at.stage)) {
                    self.link(text, span);
                }
            }
            return (Vec::new(), false);
        };
        let info = kind.info();
        let mut given: Vec<(&'static InputPort, &'a str, Span)> = Vec::new();
        let mut complete = true;
        match node.map(|node| (node, &node.data)) {
            Some((node, Data::Text(text))) => match info.inputs.first() {
                Some(first) => given.push((first, text, node.span)),
                None => {
                    complete = false;
                    self.report.add(
                        Mistake::at(node.span, format!("kind `{}` has no inputs", info.name)).hint("remove `inputs:`"),
                    );
                }
            },
            Some((_, Data::Map(entries))) => {
                for entry in entries {
                    let port = info.inputs.iter().find(|port| port.name == entry.key);
                    match (port, entry.value.text()) {
                        (Some(port), Some(text)) => given.push((port, text, entry.value.span)),
                        (Some(_), None) => complete = false,
                        (None, _) => {
                            complete = false;
                            self.unknown_input(&entry.key, entry.span, info.name, info.inputs);
                        }
                    }
                }
            }
            _ => complete &= node.is_none(),
        }
        let missing: Vec<_> = info
            .inputs
            .iter()
            .filter(|port| !port.optional && given.iter().all(|(other, ..)| other.name != port.name))
            .collect();
        if !missing.is_empty() && complete {
            self.missing(&missing, node, info.inputs);
        }
        complete &= missing.is_empty();
        let order = |port: &InputPort| info.inputs.iter().position(|other| other.name == port.name);
        given.sort_by_key(|(port, ..)| order(port));
        let inputs =
            given.into_iter().map(|(port, text, span)| Connection { port, span, from: self.source(port, text, span) });
        (inputs.collect(), complete)
    }

    fn unknown_input(&mut self, name: &str, span: Span, kind: &str, ports: &[InputPort]) {
        let hint = self.report.suggest(name, ports.iter().map(|port| port.name)).unwrap_or_else(|| {
            match ports.iter().map(|port| port.name).collect::<Vec<_>>() {
                names if names.is_empty() => "it has none: remove `inputs:`".to_owned(),
                names => format!("the inputs are {}", names.join(", ")),
            }
        });
        self.report.add(Mistake::at(span, format!("kind `{kind}` has no input `{name}`")).hint(hint));
    }

    fn missing(&mut self, missing: &[&InputPort], node: Option<&Node>, ports: &[InputPort]) {
        let (name, name_span) = self.owner();
        let span = match node.map(|node| (&node.data, node.span)) {
            Some((Data::Text(_), span)) => span,
            _ => name_span,
        };
        for port in missing {
            let example = match port.kind {
                PortKind::Model => "builtin:mini-clip",
                PortKind::Rows | PortKind::Whole => "STAGE",
            };
            let hint = match (node.map(|node| &node.data), ports.first()) {
                (Some(Data::Text(text)), Some(first)) => {
                    format!("write `inputs: {{{}: {text}, {}: {example}}}`", first.name, port.name)
                }
                (Some(_), _) => format!("add `{}: {example}` under `inputs:`", port.name),
                (None, Some(first)) if first.name == port.name && missing.len() == 1 => {
                    format!("add `inputs: {example}`")
                }
                (None, _) => format!("add `inputs:` with `{}: {example}`", port.name),
            };
            let message = format!("stage `{name}` lacks the input `{}`: {}", port.name, port.summary);
            self.report.add(Mistake::at(span, message).hint(hint));
        }
    }

    fn source(&mut self, port: &'static InputPort, text: &'a str, span: Span) -> Origin<'a> {
        let stage = Reference::parse(text).filter(|reference| self.names.contains_key(reference.stage));
        if port.kind == PortKind::Model && stage.is_none() {
            return Origin::Model(text);
        }
        if is_template(text) {
            self.report.add(
                Mistake::at(span, format!("the input `{}` names a stage, which cannot be an expression", port.name))
                    .hint("put the expression into the settings of the stage that it reads"),
            );
            return Origin::Broken;
        }
        let Some((link, rest)) = self.link(text, span) else { return Origin::Broken };
        let Some(upstream) = self.stages.get(link.stage) else { return Origin::Broken };
        let Some(kind) = upstream.kind else { return Origin::Stage(link, None) };
        let info = kind.info();
        let output = match rest {
            None => info.outputs.first(),
            Some(name) => info.outputs.iter().find(|output| output.name == name),
        };
        let Some(output) = output else {
            let names: Vec<_> = info.outputs.iter().map(|output| output.name).collect();
            let message = match rest {
                Some(rest) => format!("stage `{}` (kind `{}`) has no output `{rest}`", upstream.name, info.name),
                None => format!("stage `{}` (kind `{}`) has no outputs", upstream.name, info.name),
            };
            let hint = rest.and_then(|rest| self.report.suggest(rest, names.iter().copied()));
            let all = (!names.is_empty()).then(|| format!("the outputs are {}", names.join(", ")));
            self.report.add(Mistake::at(span, message).maybe_hint(hint.or(all)));
            return Origin::Broken;
        };
        if (port.kind == PortKind::Model) != (output.kind == PortKind::Model) {
            let word = |kind| if kind == PortKind::Model { "a model" } else { "rows" };
            let better =
                info.outputs.iter().find(|other| (other.kind == PortKind::Model) == (port.kind == PortKind::Model));
            let message = format!(
                "the input `{}` takes {}, but `{}.{}` gives {}",
                port.name,
                word(port.kind),
                upstream.name,
                output.name,
                word(output.kind)
            );
            let hint = better.map(|better| format!("write `{}.{}`", upstream.name, better.name));
            let hint = hint.unwrap_or_else(|| match port.kind {
                PortKind::Model => "name a model, such as `builtin:mini-clip`, or a stage that makes one".to_owned(),
                PortKind::Rows | PortKind::Whole => "name a stage that gives rows".to_owned(),
            });
            self.report.add(Mistake::at(span, message).hint(hint));
            return Origin::Broken;
        }
        Origin::Stage(link, Some(output.name))
    }

    fn needs(&mut self, node: Option<&'a Node>) -> Vec<Link<'a>> {
        let mut needs = Vec::new();
        for (text, span) in node.map(texts).unwrap_or_default() {
            if is_template(text) {
                continue;
            }
            match self.link(text, span) {
                Some((_, Some(port))) => {
                    let stage = text.strip_suffix(port).and_then(|text| text.strip_suffix('.')).unwrap_or(text);
                    let mistake = Mistake::at(span, "`needs` names stages, not their outputs");
                    self.report.add(mistake.hint(format!("write `{stage}`")));
                }
                Some((link, None)) => needs.push(link),
                None => {}
            }
        }
        needs
    }

    /// The stage that a reference names, and what stands behind it.
    fn link(&mut self, text: &'a str, span: Span) -> Option<(Link<'a>, Option<&'a str>)> {
        if self.badly_named.contains(text) {
            return None;
        }
        let Some(Reference { stage, pins, rest }) = Reference::parse(text) else {
            let message = if text.is_empty() {
                "an empty reference".to_owned()
            } else {
                format!("`{text}` does not refer to a stage")
            };
            self.report
                .add(Mistake::at(span, message).hint("write `STAGE`, `STAGE.OUTPUT` or `STAGE[KEY=VALUE].OUTPUT`"));
            return None;
        };
        if let Some(&stage) = self.names.get(stage) {
            return Some((Link { stage, pins, span }, rest));
        }
        if self.complete {
            let hint = stage_hint(stage, self.stages, self.report);
            self.report.add(Mistake::at(span, format!("unknown stage `{stage}`")).hint(hint));
        }
        None
    }
}

/// The text leaves directly in a node: itself, its items or its values.
fn texts(node: &Node) -> Vec<(&str, Span)> {
    let children: Vec<&Node> = match &node.data {
        Data::List(items) => items.iter().collect(),
        Data::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
        _ => vec![node],
    };
    children.into_iter().filter_map(|child| Some((child.text()?, child.span))).collect()
}
