//! A run from its first record to its last.

use std::{sync::Arc, time::Instant};

use runner_store::{Finish, Level, Metric, NewRun, RunStatus, StoreError};

use tokio::sync::mpsc::unbounded_channel;

use crate::{
    Cancel, Engine, EngineError, Event, Plan, RunMeta, RunReport,
    drive::{Stops, drive},
    environment,
    outcome::forget_checkpoint,
    recorder::Recorder,
    runtime::Runtime,
    scheduler::End,
    tally::Tally,
    tasks::{Tasks, Work},
    watch::Watch,
};

/// What the planner never makes.
const CIRCLE: &str = "tasks wait for each other";

/// See [`Engine::execute`].
pub(crate) async fn execute(
    engine: &Engine,
    plan: Plan,
    meta: RunMeta,
    cancel: &Cancel,
    on_event: &mut (dyn FnMut(&Event) + Send),
) -> Result<RunReport, EngineError> {
    let begun = Instant::now();
    let records = engine.store.records();
    let secrets = &plan.runtime.secrets;
    let params = plan.pipeline.params.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let live = records
        .begin(&NewRun {
            pipeline: plan.pipeline.name.clone(),
            text: plan.pipeline.text.clone(),
            params: serde_json::Value::Object(params),
            limit: plan.runtime.limit.map(|limit| limit as u64),
            command: meta.command.into_iter().map(|part| secrets.redacted(part)).collect(),
            environment: environment::describe(&plan, meta.environment),
            includes: plan.pipeline.includes.clone(),
        })
        .await?;
    let run = live.id().to_owned();
    plan.parts.remember(&engine.store, &run, &plan.pipeline.name).await?;
    for task in &plan.tasks.list {
        // A job that is to be computed anew does not go on from where another stopped.
        if let Work::Job(stage) = task.work
            && plan.runtime.graph.nodes[stage].anew
        {
            forget_checkpoint(&plan.runtime, stage).await?;
        }
    }
    let tally = Tally::new(&plan);
    records.put_stages(&run, &tally.records()).await?;
    on_event(&Event::Started { run: run.clone(), stages: plan.overview() });
    for (stage, status) in tally.finished_at_start() {
        on_event(&Event::StageFinished { stage, status });
    }
    let stops = Stops { cancel: cancel.watch(), asked: Some(live.cancel_requested()) };
    let messages = unbounded_channel();
    let recorder = Recorder::start(&plan.runtime, &run, &messages.0);
    let mut watch = Watch::new(tally, recorder, &mut *on_event);
    watch.say(Level::Info, None, None, format!("run {run} begins: {} tasks to do", plan.tasks.list.len()));
    let mut watch = Some(watch);
    let (end, error) = drive(&plan.runtime, &plan.tasks, stops, messages, &mut watch).await;
    let error = if live.given_up() { Some(StoreError::GivenUp(run.clone()).into()) } else { error };
    let Some(watch) = watch.take() else { return Err(EngineError::Invalid("a run lost its watch".to_owned())) };
    let (mut tally, trouble) = watch.end(end, error.as_ref()).await;
    let error = error.map(|error| error.to_string()).or_else(|| Some(trouble?.to_string()));
    let (status, reason) = match (end, error) {
        (End::Done, None) => (RunStatus::Succeeded, None),
        (End::Cancelled, _) => (RunStatus::Cancelled, Some("stopped on request".to_owned())),
        (_, error) => (RunStatus::Failed, Some(secrets.redacted(error.unwrap_or_else(|| CIRCLE.to_owned())))),
    };
    if live.given_up() {
        return Err(StoreError::GivenUp(run).into());
    }
    for (stage, status) in tally.finished_at_end(status) {
        on_event(&Event::StageFinished { stage, status });
    }
    let report = tally.report(engine, &plan, run.clone(), status, reason, begun.elapsed()).await?;
    records.put_stages(&run, &tally.records()).await?;
    let metrics: Vec<Metric> = report
        .metrics
        .iter()
        .map(|(name, metric)| Metric {
            name: name.clone(),
            step: None,
            value: metric.value,
            n: metric.n,
            n_bad: metric.n_bad,
        })
        .collect();
    records.put_metrics(&run, &metrics).await?;
    records.put_files(&run, &report.files).await?;
    // Gates that are not met fail the run as a whole, though every stage is done.
    let unmet: Vec<&str> = report.gates.iter().filter(|gate| !gate.passed).map(|gate| gate.name.as_str()).collect();
    let (status, reason) = if status == RunStatus::Succeeded && !unmet.is_empty() {
        (RunStatus::Failed, Some(format!("gates not met: {}", unmet.join(", "))))
    } else {
        (status, report.error.clone())
    };
    let finish = Finish {
        status,
        reason,
        executed: report.tasks.executed,
        cached: report.tasks.cached,
        gates: report.gates.clone(),
    };
    records.finish(live, &finish).await?;
    on_event(&Event::Finished(Box::new(report.clone())));
    Ok(report)
}

/// Runs tasks that no run stands for.
pub(crate) async fn drive_quietly(runtime: &Arc<Runtime>, tasks: &Tasks, cancel: &Cancel) -> Result<(), EngineError> {
    let stops = Stops { cancel: cancel.watch(), asked: None };
    let (end, error) = drive(runtime, tasks, stops, unbounded_channel(), &mut None).await;
    match end {
        End::Done => Ok(()),
        End::Cancelled => Err(EngineError::Cancelled),
        End::Failed => Err(error.unwrap_or_else(|| EngineError::Invalid(CIRCLE.to_owned()))),
    }
}
