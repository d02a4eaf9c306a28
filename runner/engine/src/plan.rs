//! What a run will do, known before it does anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use runner_contract::{Digest, Shape, Stage, StageError};
use runner_spec::Pipeline;
use serde::Serialize;
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    Engine, EngineError, StagePlan,
    demand::{Demand, Goal, Item, Task, items, tasks},
    graph::{Graph, Ref},
    key::{Keys, SourceKeys},
    outcome::read_outcome,
    parts::Parts,
    runtime::{Runtime, Sources},
};

/// A planned run: every result with its key, and whether it is stored.
pub struct Plan {
    pub(crate) pipeline: Pipeline,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) tasks: Vec<Task>,
    /// Results that are stored already.
    pub(crate) stored: BTreeSet<Item>,
    pub(crate) parts: Parts,
    stages: Vec<PlannedStage>,
}

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

impl Plan {
    /// The stages, in topological order.
    pub fn stages(&self) -> &[PlannedStage] {
        &self.stages
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Number of tasks: stages fused over one shard, folds' merges, jobs.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Number of results that are stored, and of those to compute.
    pub fn counts(&self) -> (usize, usize) {
        let of = |state| self.stages.iter().flat_map(|stage| &stage.results).filter(|it| it.state == state).count();
        (of(PlannedState::Cached), of(PlannedState::Compute))
    }

    pub(crate) fn overview(&self) -> Vec<StagePlan> {
        self.stages
            .iter()
            .map(|stage| {
                let of = |state| stage.results.iter().filter(move |result| result.state == state);
                let shards = stage.results.iter().filter(|result| result.shard.is_some()).count();
                let at_work = of(PlannedState::Compute).chain(of(PlannedState::Pass)).filter(|it| it.shard.is_some());
                StagePlan {
                    name: stage.name.clone(),
                    kind: stage.kind.clone(),
                    shards: shards.max(1),
                    cached: of(PlannedState::Cached).count(),
                    to_compute: of(PlannedState::Compute).count(),
                    rows: at_work.map(|result| result.rows).sum::<Option<u64>>().filter(|_| shards > 0),
                }
            })
            .collect()
    }
}

/// See [`Engine::plan`]. With `goal`: only what is needed for it.
pub(crate) async fn plan(
    engine: &Engine,
    pipeline: Pipeline,
    limit: Option<usize>,
    goal: impl FnOnce(&Graph) -> Result<Goal, EngineError> + Send + 'static,
) -> Result<Plan, EngineError> {
    let (handle, started) = (Handle::current(), engine.clone());
    let read = spawn_blocking(move || {
        let graph = Graph::new(&pipeline, started.registry.as_ref())?;
        check_devices(&graph, &started)?;
        let goal = goal(&graph)?;
        let (sources, opened) = open_sources(&graph, &started, limit)?;
        let keys = Keys::derive(&graph, &sources, &started.config.backend)?;
        let runtime = Runtime::new(&started, handle, graph, keys, opened, limit);
        Ok::<_, EngineError>((pipeline, goal, sources, runtime))
    });
    let (pipeline, goal, sources, runtime) =
        read.await.map_err(|error| EngineError::Invalid(format!("planning did not end: {error}")))??;
    let stored = look_up(&runtime).await?;
    let wanted = Demand::new(&runtime.graph, &runtime.keys, &stored).of(&goal);
    let tasks = tasks(&runtime.graph, &wanted);
    let parts = Parts::new(&runtime.graph, &runtime.keys, &engine.config.backend)?;
    let last = Parts::last(&engine.store, &pipeline.name).await?.unwrap_or_default();
    let stages = describe(&runtime, &sources, &stored, &tasks, |stage| parts.changed(&last, stage).join(", "));
    Ok(Plan { pipeline, runtime: Arc::new(runtime), tasks, stored, parts, stages })
}

fn check_devices(graph: &Graph, engine: &Engine) -> Result<(), EngineError> {
    for node in &graph.nodes {
        if let Some(device) = node.device.filter(|device| !engine.config.devices.contains(device)) {
            let have: Vec<String> = engine.config.devices.iter().map(ToString::to_string).collect();
            return Err(EngineError::Invalid(format!(
                "stage `{}` asks for device `{device}`, and this program has {}",
                node.name,
                have.join(", ")
            )));
        }
    }
    Ok(())
}

/// Opens the sources and asks them for their shards and small datasets.
fn open_sources(graph: &Graph, engine: &Engine, limit: Option<usize>) -> Result<(SourceKeys, Sources), EngineError> {
    let (mut keys, mut sources) = (SourceKeys::default(), Sources { opened: BTreeMap::new(), sides: BTreeMap::new() });
    let read: BTreeSet<Ref> =
        graph.nodes.iter().flat_map(|node| node.rows.iter().chain(&node.whole)).map(|edge| edge.from).collect();
    for (stage, node) in graph.nodes.iter().enumerate().filter(|(_, node)| node.shape == Shape::Source) {
        let failed = |error| EngineError::stage(&node.name, None, error);
        let kind = engine.registry.kind(&node.kind);
        let kind = kind.ok_or_else(|| failed(StageError::new(format!("no stage kind is called `{}`", node.kind))))?;
        let received = node.received.iter().cloned().collect();
        let Stage::Source(source) = kind.open(&node.settings, &received).map_err(failed)? else {
            return Err(failed(StageError::new(format!("kind `{}` says that it is a source and is none", node.kind))));
        };
        for port in node.row_ports() {
            let of = Ref { stage, port };
            if port == 0 {
                keys.shards.insert(of, source.shards(limit).map_err(failed)?);
            } else if read.contains(&of) {
                let (digest, rows) = source.side(&node.outputs[port].name).map_err(failed)?;
                keys.sides.insert(of, digest);
                sources.sides.insert(of, rows);
            }
        }
        sources.opened.insert(stage, Stage::Source(source));
    }
    Ok((keys, sources))
}

/// Finds the results that are stored, whole, and tells the runtime.
async fn look_up(runtime: &Runtime) -> Result<BTreeSet<Item>, EngineError> {
    let all: Vec<Item> = items(&runtime.graph, &runtime.keys)
        .into_iter()
        .filter(|item| runtime.graph.nodes[item.stage()].cache)
        .collect();
    let keys: Vec<Digest> = all.iter().flat_map(|item| item_keys(runtime, *item)).collect();
    let mut found = runtime.store.records().lookup(&keys).await?;
    let mut gone = Vec::new();
    for entry in found.values() {
        if !runtime.store.artifacts().exists(&entry.digest).await? {
            gone.push(entry.key);
        }
    }
    if !gone.is_empty() {
        // Somebody removed artifacts: make them anew.
        runtime.store.records().forget(&gone).await?;
        gone.iter().for_each(|key| drop(found.remove(key)));
    }
    let mut stored = BTreeSet::new();
    for item in all {
        let keys = item_keys(runtime, item);
        if !keys.iter().all(|key| found.contains_key(key)) {
            continue;
        }
        if let (Item::Result { stage }, Some(entry)) = (item, keys.first().and_then(|key| found.get(key))) {
            let Ok(file) = runtime.store.artifacts().get(&entry.digest).await else { continue };
            let Ok(outcome) = read_outcome(&file) else { continue };
            let named = outcome.rows.values().map(|rows| rows.digest);
            let named = named.chain(outcome.models.values().map(|model| model.digest));
            let named: Vec<Digest> = named.chain(outcome.files.iter().map(|file| file.digest)).collect();
            let mut whole = true;
            for digest in &named {
                whole &= runtime.store.artifacts().exists(digest).await?;
            }
            if !whole {
                continue;
            }
            runtime.add_outcome(stage, outcome);
        }
        stored.insert(item);
        runtime.add_entries(keys.iter().filter_map(|key| found.get(key)).cloned());
    }
    Ok(stored)
}

/// The keys under which a result is recorded: one a port for rows.
fn item_keys(runtime: &Runtime, item: Item) -> Vec<Digest> {
    match item {
        Item::Group { stage, shard } => {
            let ports = runtime.graph.nodes[stage].row_ports();
            ports.filter_map(|port| runtime.keys.group(Ref { stage, port }, shard)).collect()
        }
        Item::Partial { stage, shard } => runtime.keys.stages[stage].shards.get(shard).copied().into_iter().collect(),
        Item::Result { stage } => runtime.keys.stages[stage].result.into_iter().collect(),
    }
}

fn describe(
    runtime: &Runtime,
    sources: &SourceKeys,
    stored: &BTreeSet<Item>,
    tasks: &[Task],
    changed: impl Fn(&str) -> String,
) -> Vec<PlannedStage> {
    let mut makes = BTreeSet::new();
    let mut passes: BTreeSet<(usize, Option<usize>)> = BTreeSet::new();
    for task in tasks {
        makes.extend(task.stages.iter().map(|stage| (*stage, task.shard)));
        passes.extend(task.computes.iter().map(|stage| (*stage, task.shard)));
    }
    let graph = &runtime.graph;
    let rows_of = |origin: Option<Ref>, shard: usize| {
        let origin = origin?;
        let small = runtime.sides.get(&origin).map(|rows| rows.len() as u64);
        small.or_else(|| Some(sources.shards.get(&origin)?.get(shard)?.rows as u64))
    };
    let mut stages = Vec::new();
    for (stage, node) in graph.nodes.iter().enumerate() {
        let changed = changed(&node.name);
        let miss = match (node.cache, changed.is_empty()) {
            (false, _) => "`cache: false` on it or before it".to_owned(),
            (true, true) => "not computed yet".to_owned(),
            (true, false) => format!("changed: {changed}"),
        };
        let result = |shard: Option<usize>, key: Digest, item: Option<Item>| {
            let passes =
                || passes.contains(&(stage, shard)) || passes.iter().any(|(s, at)| *s == stage && at.is_none());
            let (state, why) = match item {
                Some(item) if stored.contains(&item) => (PlannedState::Cached, "stored".to_owned()),
                Some(_) if makes.contains(&(stage, shard)) => (PlannedState::Compute, miss.clone()),
                None if passes() => (PlannedState::Pass, "passed through on the way to what reads it".to_owned()),
                _ => (PlannedState::Idle, "nobody needs it: what reads it is stored".to_owned()),
            };
            let rows = shard.and_then(|shard| rows_of(node.origin, shard));
            PlannedResult { shard, rows, key, state, why }
        };
        let mut results = Vec::new();
        if node.shape == Shape::Source {
            let shards = runtime.keys.rows.get(&Ref { stage, port: 0 }).map(Vec::as_slice).unwrap_or_default();
            results.extend(shards.iter().enumerate().map(|(shard, rows)| result(Some(shard), rows.ids, None)));
        }
        for (shard, key) in runtime.keys.stages[stage].shards.iter().enumerate() {
            let item = match node.shape {
                Shape::Fold => Some(Item::Partial { stage, shard }),
                _ => node.stored.then_some(Item::Group { stage, shard }),
            };
            results.push(result(Some(shard), *key, item));
        }
        if let Some(key) = runtime.keys.stages[stage].result {
            results.push(result(None, key, Some(Item::Result { stage })));
        }
        stages.push(PlannedStage {
            name: node.name.clone(),
            kind: node.kind.clone(),
            shape: node.shape,
            stored: node.stored || node.has_result(),
            results,
        });
    }
    stages
}
