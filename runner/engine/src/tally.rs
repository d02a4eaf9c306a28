//! Counts what a run does, stage by stage, and sums it up in the end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use runner_contract::Digest;
use runner_store::{FileRecord, RunStatus, StageRecord, TaskRecord, TaskStatus, Time};

use crate::{
    Engine, EngineError, MetricValue, Plan, RunReport, StageReport, TaskCounts, gates,
    graph::{Content, Ref},
    manifest::{Dataset, DatasetPort, Group, Shard, VERSION},
    message::Made,
    runtime::Runtime,
    tasks::Task,
};

/// When something happened, for records.
pub(crate) fn now() -> Time {
    chrono::Utc::now()
}

/// See the module.
pub(crate) struct Tally {
    stages: Vec<Counts>,
    /// By task, while it is begun and not done.
    begun: HashMap<usize, Begun>,
}

/// A task that has begun.
struct Begun {
    at: Time,
    attempt: u32,
    /// It is at work, not between two attempts.
    at_work: bool,
    /// What this attempt said of its stages: rows, and bad ones among them.
    rows: BTreeMap<usize, (u64, u64)>,
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
        for item in plan.stored.items() {
            stages[item.stage()].cached += 1;
        }
        let mut computed: BTreeSet<usize> = BTreeSet::new();
        for task in &plan.tasks.list {
            task.stages.iter().for_each(|&stage| stages[stage].open += 1);
            computed.extend(task.computes.iter());
        }
        for (position, stage) in stages.iter_mut().enumerate() {
            stage.passes = stage.open == 0 && computed.contains(&position);
            if stage.open == 0 && !stage.passes {
                stage.status = TaskStatus::Cached;
            }
        }
        Self { stages, begun: HashMap::new() }
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

    /// An attempt of a task begins; returns the stages that begin with it.
    pub(crate) fn started(&mut self, number: usize, task: &Task, attempt: u32) -> Vec<usize> {
        let begun = Begun { at: now(), attempt, at_work: true, rows: BTreeMap::new() };
        self.begun.insert(number, begun);
        let mut begin = Vec::new();
        for &position in task.computes.iter() {
            let stage = &mut self.stages[position];
            stage.at_work += 1;
            stage.since.get_or_insert_with(Instant::now);
            if stage.status == TaskStatus::Waiting {
                stage.status = TaskStatus::Running;
                begin.push(position);
            }
        }
        begin
    }

    /// An attempt that is to be repeated ended: what it counted does not count.
    pub(crate) fn stopped(&mut self, number: usize, task: &Task) {
        for (stage, (rows, bad)) in self.rest(number, task) {
            let stage = &mut self.stages[stage];
            stage.rows -= rows.min(stage.rows);
            stage.bad -= bad.min(stage.bad);
        }
    }

    /// A task is at work no more; returns what its attempt counted.
    fn rest(&mut self, number: usize, task: &Task) -> BTreeMap<usize, (u64, u64)> {
        let Some(begun) = self.begun.get_mut(&number).filter(|begun| begun.at_work) else { return BTreeMap::new() };
        begun.at_work = false;
        let rows = std::mem::take(&mut begun.rows);
        for &stage in task.computes.iter() {
            let stage = &mut self.stages[stage];
            stage.at_work = stage.at_work.saturating_sub(1);
            if stage.at_work == 0 {
                stage.wall += stage.since.take().map(|since| since.elapsed()).unwrap_or_default();
            }
        }
        rows
    }

    pub(crate) fn rows(&mut self, task: usize, stage: usize, rows: u64, bad: u64, nanos: u64) {
        if let Some(begun) = self.begun.get_mut(&task) {
            let counted = begun.rows.entry(stage).or_default();
            *counted = (counted.0 + rows, counted.1 + bad);
        }
        let stage = &mut self.stages[stage];
        stage.rows += rows;
        stage.bad += bad;
        stage.busy += Duration::from_nanos(nanos);
    }

    /// Rows that a stage took in so far, and those among them that it could not use.
    pub(crate) fn counted(&self, stage: usize) -> (u64, u64) {
        (self.stages[stage].rows, self.stages[stage].bad)
    }

    /// Takes note of a task's end; returns the stages that end with it, and how. Others made the results of the stages in
    /// `found`.
    pub(crate) fn done(&mut self, number: usize, task: &Task, found: &BTreeSet<usize>) -> Vec<(usize, TaskStatus)> {
        self.rest(number, task);
        self.begun.remove(&number);
        let mut ended = Vec::new();
        for &position in task.stages.iter() {
            let stage = &mut self.stages[position];
            if found.contains(&position) {
                stage.cached += 1;
            } else {
                stage.executed += 1;
            }
            stage.open = stage.open.saturating_sub(1);
            if stage.open == 0 && stage.status != TaskStatus::Failed {
                stage.status = if stage.executed == 0 { TaskStatus::Cached } else { TaskStatus::Done };
                ended.push((position, stage.status));
            }
        }
        ended
    }

    /// Takes note that a task will not be done. Whether it had begun.
    pub(crate) fn failed(
        &mut self,
        number: usize,
        task: &Task,
        error: Option<&EngineError>,
        message: Option<String>,
    ) -> bool {
        self.rest(number, task);
        if let (Some(error), Some(message)) = (error, message) {
            // The error names its stage, which may be one that is only passed through.
            let position = self.named(error);
            for position in position.into_iter().chain(task.stages.iter().copied().filter(|_| position.is_none())) {
                let stage = &mut self.stages[position];
                stage.status = TaskStatus::Failed;
                stage.error.get_or_insert_with(|| message.clone());
            }
        }
        self.begun.contains_key(&number)
    }

    /// The stage that an error names.
    pub(crate) fn named(&self, error: &EngineError) -> Option<usize> {
        let name = error.stage_name()?;
        self.stages.iter().position(|stage| stage.name == name)
    }

    /// What a stage has before it, for the log.
    pub(crate) fn begins(&self, stage: usize) -> String {
        let Counts { kind, open, cached, passes, .. } = &self.stages[stage];
        match (passes, cached) {
            (true, _) => format!("begins ({kind}), on the way to others"),
            (false, 0) => format!("begins ({kind}): {open} to compute"),
            (false, _) => format!("begins ({kind}): {open} to compute, {cached} stored"),
        }
    }

    /// What a stage did, for the log.
    pub(crate) fn ends(&self, stage: usize) -> String {
        let Counts { rows, bad, wall, busy, executed, cached, since, .. } = &self.stages[stage];
        let wall = *wall + since.map(|since| since.elapsed()).unwrap_or_default();
        let mut text = format!("ends: {executed} computed");
        if *cached > 0 {
            text += &format!(", {cached} found");
        }
        if *rows > 0 {
            text += &format!(", {rows} rows");
        }
        if *bad > 0 {
            text += &format!(" ({bad} unusable)");
        }
        text + &format!(" in {:.3} s, {:.3} s at work", wall.as_secs_f64(), busy.as_secs_f64())
    }

    pub(crate) fn task_record(
        &self,
        number: usize,
        task: &Task,
        status: TaskStatus,
        made: &Made,
        error: Option<String>,
    ) -> TaskRecord {
        let begun = self.begun.get(&number);
        let starts = status == TaskStatus::Running;
        TaskRecord {
            task: number as u64,
            stages: task.stages.iter().map(|&stage| self.stages[stage].name.clone()).collect(),
            shard: task.shard.and_then(|shard| u32::try_from(shard).ok()),
            // What is about to start is the attempt after the last.
            attempt: begun.map_or(0, |begun| begun.attempt) + u32::from(starts || begun.is_none()),
            status,
            rows: made.rows,
            bad: made.bad,
            started: begun.map(|begun| begun.at).or_else(|| starts.then(now)),
            ended: (!starts && status != TaskStatus::Waiting).then(now),
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
            shards.push(Shard { rows: entry.rows, bad: entry.bad, bad_rows: entry.bad_rows, groups });
        }
        let schema = runtime.keys.real_schema(runtime.graph.schema(Ref { stage, port }));
        ports.insert(output.name.clone(), DatasetPort { schema, shards });
    }
    let manifest = serde_json::to_vec(&Dataset { version: VERSION, ports });
    let manifest = manifest.map_err(|error| EngineError::stored(&node.name, error))?;
    Ok(Some(engine.store.artifacts().put(manifest).await?))
}
