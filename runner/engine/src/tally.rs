//! Counts what a run does, stage by stage, and sums it up in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use runner_contract::Digest;
use runner_store::{FileRecord, RunStatus, StageRecord, TaskRecord, TaskStatus};

use crate::{
    Engine, EngineError, MetricValue, Plan, RunReport, StageReport, TaskCounts,
    demand::Task,
    execute::{Times, now},
    gates,
    graph::{Content, Ref},
    manifest::{Dataset, DatasetPort, Group, Shard, VERSION},
    runtime::Runtime,
    segment::Made,
};

/// See the module.
pub(crate) struct Tally {
    stages: Vec<Counts>,
    started: Times,
}

#[derive(Clone)]
struct Counts {
    name: String,
    kind: String,
    /// Tasks that make its results and are not done.
    open: usize,
    executed: u64,
    cached: u64,
    rows: u64,
    bad: u64,
    busy: Duration,
    wall: Duration,
    at_work: usize,
    since: Option<Instant>,
    status: TaskStatus,
    error: Option<String>,
    manifest: Option<Digest>,
    /// Rows that came out and those left out, where they are stored, now or before.
    out: Option<(u64, u64)>,
    /// It only passes rows on.
    passes: bool,
}

impl Tally {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut stages: Vec<Counts> = plan
            .runtime
            .graph
            .nodes
            .iter()
            .map(|node| Counts {
                name: node.name.clone(),
                kind: node.kind.clone(),
                open: 0,
                executed: 0,
                cached: 0,
                rows: 0,
                bad: 0,
                busy: Duration::ZERO,
                wall: Duration::ZERO,
                at_work: 0,
                since: None,
                status: TaskStatus::Waiting,
                error: None,
                manifest: None,
                out: None,
                passes: false,
            })
            .collect();
        for item in &plan.stored {
            stages[item.stage()].cached += 1;
        }
        let mut computed: BTreeSet<usize> = BTreeSet::new();
        for task in &plan.tasks {
            task.stages.iter().for_each(|&stage| stages[stage].open += 1);
            computed.extend(&task.computes);
        }
        for (position, stage) in stages.iter_mut().enumerate() {
            stage.passes = stage.open == 0 && computed.contains(&position);
            if stage.open == 0 && !stage.passes {
                stage.status = TaskStatus::Cached;
            }
        }
        Self { stages, started: Times::new() }
    }

    pub(crate) fn name(&self, stage: usize) -> &str {
        &self.stages[stage].name
    }

    /// Stages that have nothing to do.
    pub(crate) fn finished_at_start(&self) -> Vec<(usize, TaskStatus)> {
        let all = self.stages.iter().enumerate();
        all.filter(|(_, stage)| stage.status == TaskStatus::Cached).map(|(i, stage)| (i, stage.status)).collect()
    }

    /// Closes the stages that are still open.
    pub(crate) fn finished_at_end(&mut self, run: RunStatus) -> Vec<(usize, TaskStatus)> {
        let mut closed = Vec::new();
        for (position, stage) in self.stages.iter_mut().enumerate() {
            match stage.status {
                TaskStatus::Waiting | TaskStatus::Running if run == RunStatus::Succeeded => {
                    stage.status = TaskStatus::Done;
                }
                TaskStatus::Waiting | TaskStatus::Running => stage.status = TaskStatus::Cancelled,
                TaskStatus::Failed => {}
                _ => continue,
            }
            closed.push((position, stage.status));
        }
        closed
    }

    pub(crate) fn started(&mut self, number: usize, task: &Task) {
        self.started.insert(number, now());
        for &stage in &task.computes {
            let stage = &mut self.stages[stage];
            stage.at_work += 1;
            stage.since.get_or_insert_with(Instant::now);
            if stage.status == TaskStatus::Waiting {
                stage.status = TaskStatus::Running;
            }
        }
    }

    fn stopped(&mut self, task: &Task) {
        for &stage in &task.computes {
            let stage = &mut self.stages[stage];
            stage.at_work = stage.at_work.saturating_sub(1);
            if stage.at_work == 0 {
                stage.wall += stage.since.take().map(|since| since.elapsed()).unwrap_or_default();
            }
        }
    }

    pub(crate) fn rows(&mut self, stage: usize, rows: u64, bad: u64, nanos: u64) {
        let stage = &mut self.stages[stage];
        stage.rows += rows;
        stage.bad += bad;
        stage.busy += Duration::from_nanos(nanos);
    }

    /// Takes note of a task's end; returns the stages that are done with it.
    pub(crate) fn done(&mut self, task: &Task) -> Vec<usize> {
        self.stopped(task);
        let mut done = Vec::new();
        for &position in &task.stages {
            let stage = &mut self.stages[position];
            stage.executed += 1;
            stage.open = stage.open.saturating_sub(1);
            if stage.open == 0 && stage.status != TaskStatus::Failed {
                stage.status = TaskStatus::Done;
                done.push(position);
            }
        }
        done
    }

    pub(crate) fn failed(&mut self, task: &Task, error: &EngineError, message: Option<String>) {
        self.stopped(task);
        let Some(message) = message else { return };
        // The error names its stage, which may be one that is only passed through.
        let named = match error {
            EngineError::Stage { stage, .. } | EngineError::Stored { stage, .. } => Some(stage.as_str()),
            _ => None,
        };
        let position = self.stages.iter().position(|stage| Some(stage.name.as_str()) == named);
        for position in position.into_iter().chain(task.stages.iter().copied().filter(|_| position.is_none())) {
            let stage = &mut self.stages[position];
            stage.status = TaskStatus::Failed;
            stage.error.get_or_insert_with(|| message.clone());
        }
    }

    pub(crate) fn task_record(
        &self,
        number: usize,
        task: &Task,
        status: TaskStatus,
        made: &Made,
        error: Option<String>,
    ) -> TaskRecord {
        TaskRecord {
            task: number as u64,
            stages: task.stages.iter().map(|&stage| self.stages[stage].name.clone()).collect(),
            shard: task.shard.and_then(|shard| u32::try_from(shard).ok()),
            attempt: 1,
            status,
            rows: made.rows,
            bad: made.bad,
            started: self.started.get(&number).copied(),
            ended: (status != TaskStatus::Running).then(now),
            error,
        }
    }

    pub(crate) fn records(&self) -> Vec<StageRecord> {
        (0..)
            .zip(&self.stages)
            .map(|(position, stage)| StageRecord {
                position,
                name: stage.name.clone(),
                kind: stage.kind.clone(),
                status: stage.status,
                executed: stage.executed,
                cached: stage.cached,
                rows: stage.out.map_or(stage.rows - stage.bad.min(stage.rows), |(rows, _)| rows),
                bad: stage.out.map_or(stage.bad, |(_, bad)| bad),
                seconds: stage.busy.as_secs_f64(),
                wall: stage.wall.as_secs_f64(),
                manifest: stage.manifest,
                error: stage.error.clone(),
            })
            .collect()
    }

    /// Sums up a run, and stores the manifests of what it left.
    pub(crate) async fn report(
        &mut self,
        engine: &Engine,
        plan: &Plan,
        run: String,
        status: RunStatus,
        error: Option<String>,
        wall: Duration,
    ) -> Result<RunReport, EngineError> {
        let runtime = &plan.runtime;
        let (mut metrics, mut artifacts, mut files) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for position in 0..self.stages.len() {
            let name = self.stages[position].name.clone();
            if let Some(outcome) = runtime.outcome(position) {
                for (metric, value) in &outcome.metrics {
                    let value = MetricValue { value: value.0, n: outcome.n, n_bad: outcome.n_bad };
                    metrics.insert(format!("{name}.{metric}"), value);
                }
                files.extend(outcome.files.iter().map(|file| FileRecord {
                    stage: name.clone(),
                    name: file.name.clone(),
                    digest: file.digest,
                    bytes: file.bytes,
                }));
            }
            self.stages[position].manifest = manifest(engine, runtime, position).await?;
            self.stages[position].out = stored_rows(runtime, position);
            artifacts.extend(self.stages[position].manifest.map(|digest| (name, digest)));
        }
        let stages: Vec<StageReport> = self.stages.iter().map(Counts::report).collect();
        let tasks = TaskCounts {
            executed: stages.iter().map(|stage| stage.tasks.executed).sum(),
            cached: stages.iter().map(|stage| stage.tasks.cached).sum(),
        };
        let gates = if status == RunStatus::Succeeded { gates(&plan.pipeline.gates, &metrics) } else { Vec::new() };
        Ok(RunReport { run, status, error, metrics, artifacts, tasks, stages, files, gates, wall })
    }
}

impl Counts {
    fn report(&self) -> StageReport {
        StageReport {
            name: self.name.clone(),
            kind: self.kind.clone(),
            status: self.status,
            tasks: TaskCounts { executed: self.executed, cached: self.cached },
            rows: self.rows,
            bad: self.bad,
            busy: self.busy,
            wall: self.wall,
            error: self.error.clone(),
        }
    }
}

/// Rows that a stage left, on all its ports, and those that it could not use.
fn stored_rows(runtime: &Runtime, stage: usize) -> Option<(u64, u64)> {
    let node = &runtime.graph.nodes[stage];
    if node.has_result() {
        let parts = runtime.keys.stages[stage].shards.iter().map(|key| runtime.entry(key));
        let bad = parts.map(|entry| entry.map(|entry| entry.bad)).sum::<Option<u64>>()?;
        return Some((runtime.outcome(stage)?.n?, bad));
    }
    if !node.stored {
        return None;
    }
    let (mut rows, mut bad) = (0, 0);
    for (index, port) in node.row_ports().enumerate() {
        for shard in 0..runtime.keys.stages[stage].shards.len() {
            let entry = runtime.group(Ref { stage, port }, shard)?;
            rows += entry.rows;
            // Every port counts the same unusable rows.
            bad += if index == 0 { entry.bad } else { 0 };
        }
    }
    Some((rows, bad))
}

/// The manifest of what a stage left, if all of it is there.
async fn manifest(engine: &Engine, runtime: &Runtime, stage: usize) -> Result<Option<Digest>, EngineError> {
    let node = &runtime.graph.nodes[stage];
    if let Some(result) = runtime.keys.stages[stage].result {
        return Ok(runtime.entry(&result).map(|entry| entry.digest));
    }
    if !node.streams() || !node.stored {
        return Ok(None);
    }
    let mut ports = BTreeMap::new();
    for (port, output) in node.outputs.iter().enumerate() {
        let Content::Rows { produced, .. } = &output.content else { continue };
        let mut shards = Vec::new();
        for shard in 0..runtime.keys.stages[stage].shards.len() {
            let Some(entry) = runtime.group(Ref { stage, port }, shard) else { return Ok(None) };
            let groups = vec![Group { columns: produced.clone(), digest: entry.digest }];
            shards.push(Shard { rows: entry.rows, bad: entry.bad, groups });
        }
        let schema = runtime.keys.real_schema(runtime.graph.schema(Ref { stage, port }));
        ports.insert(output.name.clone(), DatasetPort { schema, shards });
    }
    let manifest = serde_json::to_vec(&Dataset { version: VERSION, ports });
    let manifest = manifest.map_err(|error| EngineError::stored(&node.name, error))?;
    Ok(Some(engine.store.artifacts().put(manifest).await?))
}
