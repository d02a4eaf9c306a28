//! A plan in words: every result, what will happen to it, and why.

use std::collections::HashSet;

use runner_contract::{Digest, Shape};
use serde::Serialize;

use crate::{
    demand::{Item, ItemSet, Places},
    estimate::Rates,
    explain::{Change, Explained},
    graph::Ref,
    key::SourceKeys,
    runtime::Runtime,
    tasks::Task,
};

/// A stage of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStage {
    /// Its full name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How its rows relate to those that it reads.
    pub shape: Shape,
    /// What it makes is stored (`false`: it is recomputed where it is needed).
    pub stored: bool,
    /// What it will take, in seconds summed over threads, by what it took in earlier runs; `None` where it has not run.
    pub seconds: Option<f64>,
    /// Its results: shards, then, for a fold or a job, the result.
    pub results: Vec<PlannedResult>,
}

/// A result of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedResult {
    /// Its shard; `None` for the result of a fold or a job.
    pub shard: Option<usize>,
    /// Rows that the shard starts with, where a source says so.
    pub rows: Option<u64>,
    /// Its key.
    pub key: Digest,
    /// What will happen.
    pub state: PlannedState,
    /// Why.
    pub why: String,
    /// What is not as it was in the last run, where it will be computed.
    pub changed: Vec<Change>,
    /// What it will take, in seconds.
    pub seconds: Option<f64>,
}

/// What will happen to a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedState {
    /// It is stored.
    Cached,
    /// It will be computed and stored.
    Compute,
    /// It will be read or recomputed on the way to something else, and not stored.
    Pass,
    /// Nobody needs it.
    Idle,
}

/// What is known of a plan.
pub(crate) struct Described<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) sources: &'a SourceKeys,
    pub(crate) stored: &'a ItemSet,
    pub(crate) tasks: &'a [Task],
}

/// Which results tasks make and which they pass, by place.
struct Busy {
    places: Places,
    makes: Vec<bool>,
    passes: Vec<bool>,
    /// Shards of sources, which have no places.
    read: HashSet<(usize, usize)>,
    /// Stages that tasks of no shard pass.
    passed: Vec<bool>,
}

impl Busy {
    fn new(known: &Described<'_>) -> Self {
        let places = Places::new(&known.runtime.keys);
        let none = vec![false; places.len()];
        let passed = vec![false; known.runtime.graph.nodes.len()];
        let mut busy = Self { makes: none.clone(), passes: none, read: HashSet::new(), passed, places };
        for task in known.tasks {
            for item in task.items() {
                busy.makes[busy.places.of(item)] = true;
            }
            for &stage in task.computes.iter() {
                match task.shard {
                    Some(shard) if shard < known.runtime.keys.stages[stage].shards.len() => {
                        busy.passes[busy.places.of(Item::Group { stage, shard })] = true;
                    }
                    Some(shard) => drop(busy.read.insert((stage, shard))),
                    None => busy.passed[stage] = true,
                }
            }
        }
        busy
    }
}

pub(crate) fn describe(known: &Described<'_>, explained: &Explained<'_>, rates: &Rates) -> Vec<PlannedStage> {
    let busy = Busy::new(known);
    let stages = 0..known.runtime.graph.nodes.len();
    stages.map(|stage| describe_stage(known, &busy, explained, rates, stage)).collect()
}

fn describe_stage(
    known: &Described<'_>,
    busy: &Busy,
    explained: &Explained<'_>,
    rates: &Rates,
    stage: usize,
) -> PlannedStage {
    let (graph, keys) = (&known.runtime.graph, &known.runtime.keys);
    let node = &graph.nodes[stage];
    let rows_of = |shard: usize| {
        let origin = node.origin?;
        let small = known.runtime.sides.get(&origin).map(|rows| rows.len() as u64);
        small.or_else(|| Some(known.sources.shards.get(&origin)?.get(shard)?.rows as u64))
    };
    let result = |shard: Option<usize>, key: Digest, item: Option<Item>| {
        let rows = shard.and_then(rows_of);
        let passes = |shard: usize| match node.shape {
            Shape::Source => busy.read.contains(&(stage, shard)),
            _ => busy.passes[busy.places.of(Item::Group { stage, shard })],
        };
        let passed = || busy.passed[stage] || shard.is_some_and(passes);
        let mut changed = Vec::new();
        let (state, why) = match item {
            Some(item) if known.stored.contains(item) => (PlannedState::Cached, "stored".to_owned()),
            Some(item) if busy.makes[busy.places.of(item)] => {
                if node.cache && !node.anew {
                    changed = explained.changes(stage, shard);
                }
                (PlannedState::Compute, why(node.cache, node.anew, &changed))
            }
            None if passed() => (PlannedState::Pass, "passed through on the way to what reads it".to_owned()),
            _ => (PlannedState::Idle, "nobody needs it: what reads it is stored".to_owned()),
        };
        let works = matches!(state, PlannedState::Compute | PlannedState::Pass) && node.shape != Shape::Source;
        let seconds = if works { rates.seconds(&node.name, &node.kind, shard.map(|_| rows)) } else { None };
        PlannedResult { shard, rows, key, state, why, changed, seconds }
    };
    let mut results = Vec::new();
    if node.shape == Shape::Source {
        let shards = keys.rows.get(&Ref { stage, port: 0 }).map(Vec::as_slice).unwrap_or_default();
        results.extend(shards.iter().enumerate().map(|(shard, rows)| result(Some(shard), rows.ids, None)));
    }
    for (shard, key) in keys.stages[stage].shards.iter().enumerate() {
        let item = match node.shape {
            Shape::Fold => Some(Item::Partial { stage, shard }),
            _ => node.stored.then_some(Item::Group { stage, shard }),
        };
        results.push(result(Some(shard), *key, item));
    }
    if let Some(key) = keys.stages[stage].result {
        results.push(result(None, key, Some(Item::Result { stage })));
    }
    let works = |it: &&PlannedResult| matches!(it.state, PlannedState::Compute | PlannedState::Pass);
    let seconds = results.iter().filter(works).map(|result| result.seconds).sum::<Option<f64>>();
    let seconds = seconds.filter(|_| node.shape != Shape::Source);
    PlannedStage {
        name: node.name.clone(),
        kind: node.kind.clone(),
        shape: node.shape,
        stored: node.stored || node.has_result(),
        seconds,
        results,
    }
}

fn why(cache: bool, anew: bool, changed: &[Change]) -> String {
    match (anew, cache, changed) {
        (true, _, _) => "to be computed anew".to_owned(),
        (false, false, _) => "`cache: false` on it or before it".to_owned(),
        (false, true, []) => "not computed yet".to_owned(),
        (false, true, changed) => {
            let what: Vec<&str> = changed.iter().map(|change| change.what.as_str()).collect();
            format!("changed: {}", what.join(", "))
        }
    }
}
