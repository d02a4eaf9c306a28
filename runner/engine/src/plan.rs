//! What a run will do, known before it does anything.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use runner_contract::{Digest, Shape, Stage, StageError};
use runner_spec::{Device, Pipeline};
use runner_store::Entry;
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    Engine, EngineError, PlanOptions, StagePlan,
    demand::{Demand, Goal, Item, ItemSet, items},
    describe::{Described, PlannedStage, PlannedState, describe},
    estimate::Rates,
    graph::{Graph, Ref},
    key::{Keys, SourceKeys},
    outcome::read_outcome,
    parts::Parts,
    runtime::{Runtime, Sources},
    secrets::Secrets,
    tasks::{Tasks, item_keys, tasks},
};

/// Keys looked up at once.
const LOOKUP: usize = 10_000;

/// A planned run: every result with its key, and whether it is stored.
pub struct Plan {
    pub(crate) pipeline: Pipeline,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) tasks: Tasks,
    /// Results that are stored already.
    pub(crate) stored: ItemSet,
    pub(crate) parts: Parts,
    /// What each source read: shards, rows and a digest of both, by stage.
    pub(crate) sources: BTreeMap<usize, SourceSum>,
    stages: Vec<PlannedStage>,
}

/// What a source will read, in short.
pub(crate) struct SourceSum {
    pub(crate) shards: usize,
    pub(crate) rows: u64,
    pub(crate) digest: Digest,
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
        self.tasks.list.len()
    }

    /// Number of results that are stored, and of those to compute.
    pub fn counts(&self) -> (usize, usize) {
        let of = |state| self.stages.iter().flat_map(|stage| &stage.results).filter(|it| it.state == state).count();
        (of(PlannedState::Cached), of(PlannedState::Compute))
    }

    /// How long it may take, in seconds, from how long the stages took in earlier runs. `None` where one of them has not run yet.
    pub fn seconds(&self) -> Option<f64> {
        let (mut all, mut devices) = (0.0, BTreeMap::new());
        for (stage, node) in self.stages.iter().zip(&self.runtime.graph.nodes) {
            let at_work = stage.results.iter().any(|it| matches!(it.state, PlannedState::Compute | PlannedState::Pass));
            if !at_work || node.shape == Shape::Source {
                continue;
            }
            let seconds = stage.seconds?;
            all += seconds;
            if let Some(device) = node.device {
                *devices.entry(device.to_string()).or_insert(0.0) += seconds;
            }
        }
        // What works on one device works one after the other; the rest shares the threads.
        Some(devices.into_values().fold(all / self.runtime.config.threads.max(1) as f64, f64::max))
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

/// See [`Engine::plan`]. `goal` says what for.
pub(crate) async fn plan(
    engine: &Engine,
    mut pipeline: Pipeline,
    options: PlanOptions,
    goal: impl FnOnce(&Graph, &PlanOptions, &Pipeline) -> Result<Goal, EngineError> + Send + 'static,
) -> Result<Plan, EngineError> {
    let (handle, started) = (Handle::current(), engine.clone());
    let read = spawn_blocking(move || {
        let mut graph = Graph::new(&pipeline, started.registry.as_ref())?;
        place(&mut graph, &pipeline, &started)?;
        let goal = goal(&graph, &options, &pipeline)?;
        if let Goal::Stages(only) = &goal {
            only.iter().for_each(|&stage| graph.keep(stage));
            let of = |metric: &str, name: &str| metric.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
            let names: Vec<&str> = only.iter().map(|&stage| graph.nodes[stage].name.as_str()).collect();
            pipeline.gates.retain(|gate| names.iter().any(|name| of(&gate.metric, name)));
        }
        graph.anew(&named(&pipeline, &options.from)?);
        let secrets = Secrets::new(&started.config.secrets);
        let (sources, opened) = open_sources(&graph, &started, &secrets, options.limit)?;
        let keys = Keys::derive(&graph, &sources)?;
        let parts = Parts::new(&graph, &sources);
        let runtime = Runtime::new(&started, handle, graph, keys, opened, options.limit);
        Ok::<_, EngineError>((pipeline, goal, sources, parts, runtime))
    });
    let (pipeline, goal, sources, parts, runtime) =
        read.await.map_err(|error| EngineError::Invalid(format!("planning did not end: {error}")))??;
    let stored = look_up(&runtime).await?;
    let last = Parts::last(&engine.store, &pipeline.name).await?;
    let rates = Rates::new(&engine.store, &pipeline.name).await?;
    let read = spawn_blocking(move || {
        let demand = Demand::new(&runtime.graph, &runtime.keys, &stored);
        let wanted = demand.of(&goal);
        let tasks = tasks(&runtime.graph, &runtime.keys, &demand, &wanted);
        let known = Described { runtime: &runtime, sources: &sources, stored: &stored, tasks: &tasks.list };
        let stages = describe(&known, &parts.explain(&runtime.graph, &last), &rates);
        let sources = sums(&sources);
        Plan { pipeline, runtime: Arc::new(runtime), tasks, stored, parts, sources, stages }
    });
    read.await.map_err(|error| EngineError::Invalid(format!("planning did not end: {error}")))
}

/// What [`PlanOptions::only`] names, or everything.
pub(crate) fn goal(_graph: &Graph, options: &PlanOptions, pipeline: &Pipeline) -> Result<Goal, EngineError> {
    if options.only.is_empty() {
        return Ok(Goal::All);
    }
    Ok(Goal::Stages(named(pipeline, &options.only)?))
}

/// The stages of these names: full ones, or names in the file, which stand for all instances.
pub(crate) fn named(pipeline: &Pipeline, names: &[String]) -> Result<BTreeSet<usize>, EngineError> {
    let mut found = BTreeSet::new();
    for name in names {
        let stages = pipeline.stages.iter().enumerate();
        let fitting: Vec<usize> =
            stages.filter(|(_, stage)| stage.name == *name || stage.base == *name).map(|(at, _)| at).collect();
        found.extend(&fitting);
        if fitting.is_empty() {
            if pipeline.skipped.contains(name) {
                let problem = format!("stage `{name}` is left out by its `when`");
                return Err(EngineError::Name { problem, hint: None });
            }
            let there = pipeline.stages.iter().map(|stage| stage.base.as_str());
            return Err(EngineError::name(format!("no stage is called `{name}`"), "there are", there));
        }
    }
    Ok(found)
}

/// Says of each stage what computes it. A device that is not there is an error: nothing is computed elsewhere instead.
fn place(graph: &mut Graph, pipeline: &Pipeline, engine: &Engine) -> Result<(), EngineError> {
    for node in &mut graph.nodes {
        let asked = pipeline.stages.iter().find(|stage| stage.name == node.name).and_then(|stage| stage.device);
        let refused = |device: Device, why: &str| {
            EngineError::Invalid(format!("stage `{}` asks for device `{device}`: {why}", node.name))
        };
        if let (None, Some(device @ Device::Cuda(_))) = (node.device, asked) {
            return Err(refused(device, &format!("the kind `{}` computes nothing on a GPU", node.kind)));
        }
        let device = node.device.unwrap_or(Device::Cpu);
        let backend = engine.config.backend(device).map_err(|why| refused(device, &why))?;
        node.backend = backend.to_owned();
    }
    Ok(())
}

/// Opens the sources and asks them for their shards and small datasets.
fn open_sources(
    graph: &Graph,
    engine: &Engine,
    secrets: &Secrets,
    limit: Option<usize>,
) -> Result<(SourceKeys, Sources), EngineError> {
    let (mut keys, mut sources) = (SourceKeys::default(), Sources { opened: BTreeMap::new(), sides: BTreeMap::new() });
    let read: BTreeSet<Ref> =
        graph.nodes.iter().flat_map(|node| node.rows.iter().chain(&node.whole)).map(|edge| edge.from).collect();
    for (stage, node) in graph.nodes.iter().enumerate().filter(|(_, node)| node.shape == Shape::Source) {
        let failed = |error| EngineError::stage(&node.name, None, secrets.redact_error(error));
        let kind = engine.registry.kind(&node.kind);
        let kind = kind.ok_or_else(|| failed(StageError::new(format!("no stage kind is called `{}`", node.kind))))?;
        let received = node.received.iter().cloned().collect();
        let settings = secrets.fill(&node.settings, &node.secrets).map_err(failed)?;
        let Stage::Source(source) = kind.open(&settings, &received).map_err(failed)? else {
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

fn sums(sources: &SourceKeys) -> BTreeMap<usize, SourceSum> {
    let sum = |shards: &Vec<runner_contract::ShardInfo>| {
        let mut key = runner_contract::KeyHasher::new("source/1");
        for shard in shards {
            key = key.digest("ids", &shard.ids);
            for (column, digest) in &shard.columns {
                key = key.part("column", column.as_bytes()).digest("content", digest);
            }
        }
        let rows = shards.iter().map(|shard| shard.rows as u64).sum();
        SourceSum { shards: shards.len(), rows, digest: key.finish() }
    };
    sources.shards.iter().map(|(of, shards)| (of.stage, sum(shards))).collect()
}

/// Finds the results that are stored, whole, and tells the runtime.
async fn look_up(runtime: &Runtime) -> Result<ItemSet, EngineError> {
    let (graph, keys) = (&runtime.graph, &runtime.keys);
    let usable = |item: &Item| graph.nodes[item.stage()].cache && !graph.nodes[item.stage()].anew;
    let all: Vec<(Item, Vec<Digest>)> =
        items(graph, keys).into_iter().filter(usable).map(|item| (item, item_keys(graph, keys, item))).collect();
    let wanted: Vec<Digest> = all.iter().flat_map(|(_, keys)| keys).copied().collect();
    let mut found: HashMap<Digest, Entry> = HashMap::with_capacity(wanted.len());
    for keys in wanted.chunks(LOOKUP) {
        found.extend(runtime.store.records().lookup(keys).await?);
    }
    let artifacts: Vec<Digest> =
        found.values().flat_map(|entry| entry.holds.iter().chain([&entry.digest])).copied().collect();
    let there = runtime.store.artifacts().exists_all(&artifacts).await?;
    let is_whole = |entry: &Entry| there.contains(&entry.digest) && entry.holds.iter().all(|held| there.contains(held));
    let gone: Vec<Digest> = found.values().filter(|entry| !is_whole(entry)).map(|entry| entry.key).collect();
    if !gone.is_empty() {
        // Somebody removed artifacts: make them anew.
        runtime.store.records().forget(&gone).await?;
        gone.iter().for_each(|key| drop(found.remove(key)));
    }
    let mut stored = ItemSet::new(keys);
    for (item, keys) in all {
        if !keys.iter().all(|key| found.contains_key(key)) {
            continue;
        }
        if let (Item::Result { stage }, Some(entry)) = (item, keys.first().and_then(|key| found.get(key))) {
            let Ok(file) = runtime.store.artifacts().get(&entry.digest).await else { continue };
            let Ok(outcome) = read_outcome(&file) else { continue };
            if entry.holds.is_empty() {
                // Recorded before entries said what they hold.
                let named = outcome.artifacts();
                let whole = runtime.store.artifacts().exists_all(&named).await?;
                if !named.iter().all(|digest| whole.contains(digest)) {
                    continue;
                }
            }
            runtime.add_outcome(stage, outcome);
        }
        stored.insert(item);
        runtime.add_entries(keys.iter().filter_map(|key| found.get(key)).cloned());
    }
    Ok(stored)
}
