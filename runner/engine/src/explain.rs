//! What differs from the last run, for every stage and shard.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::{
    graph::{Edge, Graph, ModelFrom, Ref},
    parts::{Marks, Parts, SourceParts, StageParts},
};

/// Something that is not as it was in the last run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What a person would call it: ``setting `factor` of `image` ``.
    pub what: String,
    /// What it was; `None` where it was not there, or is no value that can be shown.
    pub was: Option<Value>,
    /// What it is.
    pub now: Option<Value>,
}

/// A part of a source that a stage depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    /// Which rows there are.
    Ids,
    Column(String),
    /// A port besides the first.
    Side(usize),
}

/// What a stage's keys come from.
#[derive(Clone, Debug, Default)]
struct Causes {
    /// Stages, itself among them: what they are counts for all shards.
    stages: BTreeSet<usize>,
    /// Parts of sources that count shard by shard.
    aligned: BTreeSet<(usize, Held)>,
    /// Parts of sources that count as a whole.
    whole: BTreeSet<(usize, Held)>,
}

impl Causes {
    fn add(&mut self, other: &Self) {
        self.stages.extend(&other.stages);
        self.aligned.extend(other.aligned.iter().cloned());
        self.whole.extend(other.whole.iter().cloned());
    }

    /// The same, for somebody who reads all shards.
    fn of_all_shards(mut self) -> Self {
        self.whole.append(&mut self.aligned);
        self
    }
}

/// What changed, by stage.
pub(crate) struct Explained<'a> {
    graph: &'a Graph,
    now: &'a Parts,
    last: &'a Parts,
    causes: Vec<Causes>,
    /// By stage: what it is itself.
    own: Vec<Vec<Change>>,
}

impl Parts {
    /// Holds these parts against those of the last run.
    pub(crate) fn explain<'a>(&'a self, graph: &'a Graph, last: &'a Self) -> Explained<'a> {
        let mut causes: Vec<Causes> = Vec::with_capacity(graph.nodes.len());
        for stage in 0..graph.nodes.len() {
            let own = causes_of(graph, stage, &causes);
            causes.push(own);
        }
        let own = graph.nodes.iter().map(|node| {
            let (now, then) = (self.stages.get(&node.name), last.stages.get(&node.name));
            now.zip(then).map(|(now, then)| own_changes(now, then)).unwrap_or_default()
        });
        let own = own.collect();
        Explained { graph, now: self, last, causes, own }
    }
}

fn causes_of(graph: &Graph, stage: usize, known: &[Causes]) -> Causes {
    let node = &graph.nodes[stage];
    let mut causes = Causes { stages: BTreeSet::from([stage]), ..Causes::default() };
    for edge in &node.rows {
        causes.add(&causes_of_edge(graph, edge, known));
    }
    for edge in &node.whole {
        causes.add(&causes_of_edge(graph, edge, known).of_all_shards());
    }
    for (_, from) in &node.models {
        if let ModelFrom::Made(from) = from {
            causes.add(&known[from.stage].clone().of_all_shards());
        }
    }
    causes
}

fn causes_of_edge(graph: &Graph, edge: &Edge, known: &[Causes]) -> Causes {
    let mut causes = Causes::default();
    rows(graph, edge.from, None, known, &mut causes);
    for need in &edge.needs {
        rows(graph, edge.from, Some(&need.column), known, &mut causes);
    }
    causes
}

/// What the rows of a port come from, or one of their columns.
fn rows(graph: &Graph, of: Ref, column: Option<&str>, known: &[Causes], out: &mut Causes) {
    let node = &graph.nodes[of.stage];
    if node.has_result() {
        out.add(&known[of.stage].clone().of_all_shards());
    } else if node.streams() {
        match (column, node.rows.first()) {
            (Some(name), Some(main)) if !node.produced(of.port).iter().any(|made| made == name) => {
                rows(graph, main.from, column, known, out);
            }
            _ => out.add(&known[of.stage]),
        }
    } else if of.port > 0 {
        out.whole.insert((of.stage, Held::Side(of.port)));
    } else {
        out.aligned.insert((of.stage, column.map_or(Held::Ids, |name| Held::Column(name.to_owned()))));
    }
}

/// What a stage itself has that is not as it was.
fn own_changes(now: &StageParts, then: &StageParts) -> Vec<Change> {
    let text = |text: &str| Some(Value::String(text.to_owned()));
    let mut changes = Vec::new();
    let mut change = |what: String, was, now| changes.push(Change { what, was, now });
    if now.kind != then.kind {
        change("the kind".into(), text(&then.kind), text(&now.kind));
    } else if now.kind_version != then.kind_version {
        change("the kind's version".into(), Some(then.kind_version.into()), Some(now.kind_version.into()));
    }
    if now.backend != then.backend {
        change("the backend".into(), text(&then.backend), text(&now.backend));
    }
    for name in names(&now.settings, &then.settings) {
        let (was, is) = (then.settings.get(name), now.settings.get(name));
        if was != is {
            change(format!("setting `{name}`"), was.cloned(), is.cloned());
        }
    }
    for port in names(&now.models, &then.models) {
        let (was, is) = (then.models.get(port), now.models.get(port));
        if was.map(|(_, identity)| identity) != is.map(|(_, identity)| identity) {
            let show = |model: Option<&(String, _)>| model.and_then(|(reference, _)| text(reference));
            change(format!("the model on `{port}`"), show(was), show(is));
        }
    }
    for port in names(&now.reads, &then.reads) {
        let (was, is) = (then.reads.get(port), now.reads.get(port));
        if was != is {
            change(format!("what `{port}` reads"), was.and_then(|it| text(it)), is.and_then(|it| text(it)));
        }
    }
    changes
}

fn names<'a, T>(one: &'a BTreeMap<String, T>, other: &'a BTreeMap<String, T>) -> BTreeSet<&'a String> {
    one.keys().chain(other.keys()).collect()
}

impl Explained<'_> {
    /// What changed of what a result was made from; `shard` is `None` for what is made from all. Nothing where there was no run
    /// before, or nothing to see.
    pub(crate) fn changes(&self, stage: usize, shard: Option<usize>) -> Vec<Change> {
        let name = &self.graph.nodes[stage].name;
        if !self.last.stages.contains_key(name) {
            return Vec::new();
        }
        let causes = &self.causes[stage];
        let mut changes = self.own[stage].clone();
        for &other in causes.stages.iter().filter(|&&other| other != stage) {
            let of = &self.graph.nodes[other].name;
            // Another processor is told once.
            let theirs = self.own[other]
                .iter()
                .filter(|change| change.what != "the backend" || !self.own[stage].contains(change));
            changes
                .extend(theirs.map(|change| Change { what: format!("{} of `{of}`", change.what), ..change.clone() }));
        }
        for (source, held) in &causes.aligned {
            changes.extend(self.held(*source, held, shard));
        }
        for (source, held) in &causes.whole {
            changes.extend(self.held(*source, held, None));
        }
        let mut seen = BTreeSet::new();
        changes.retain(|change| seen.insert(change.what.clone()));
        changes
    }

    /// Whether a part of a source is another one than it was.
    fn held(&self, source: usize, held: &Held, shard: Option<usize>) -> Option<Change> {
        let node = &self.graph.nodes[source];
        let (now, then) = (self.source(self.now, source)?, self.source(self.last, source));
        let Some(then) = then else {
            return Some(Change { what: format!("`{}` as a source", node.name), was: None, now: None });
        };
        let (marks, before, what) = match held {
            Held::Ids => (&now.ids, Some(&then.ids), format!("rows of `{}`", node.name)),
            Held::Column(column) => {
                let what = format!("column `{column}` of `{}`", node.name);
                (now.columns.get(column)?, then.columns.get(column), what)
            }
            Held::Side(port) => {
                let port = &node.outputs.get(*port)?.name;
                let changed = now.sides.get(port) != then.sides.get(port);
                let what = format!("`{}.{port}`", node.name);
                return changed.then_some(Change { what, was: None, now: None });
            }
        };
        let Some(before) = before else { return Some(Change { what, was: None, now: None }) };
        let changed = match shard {
            Some(shard) => (marks.of(shard) != before.of(shard)).then(|| format!("{what}, shard {shard}")),
            None => differing(marks, before).map(|which| format!("{what} ({which})")),
        };
        changed.map(|what| Change { what, was: None, now: None })
    }

    fn source<'p>(&self, parts: &'p Parts, source: usize) -> Option<&'p SourceParts> {
        parts.stages.get(&self.graph.nodes[source].name)?.source.as_ref()
    }
}

/// Which shards differ, in words.
fn differing(now: &Marks, then: &Marks) -> Option<String> {
    let shards = now.shards().max(then.shards());
    let all: Vec<usize> = (0..shards).filter(|&shard| now.of(shard) != then.of(shard)).collect();
    match all.as_slice() {
        [] => None,
        [one] => Some(format!("shard {one} of {shards}")),
        [first, ..] => Some(format!("{} of {shards} shards, from shard {first}", all.len())),
    }
}
