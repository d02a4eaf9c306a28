//! The event loop of a run: asks the scheduler what to do, starts tasks, records what they make.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use chrono::Utc;
use runner_store::{Finish, Metric, NewRun, RunStatus, TaskStatus};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    Cancel, Engine, EngineError, Event, Plan, RunReport,
    demand::{Task, Work},
    outcome::{forget_checkpoint, job, merge},
    runtime::{Message, Runtime},
    scheduler::{Command, End, Happened, Job, State, step},
    segment::{self, Made},
    tally::Tally,
    workers::{Companion, Workers},
};

/// Values of series that wait to be recorded together.
const METRICS_AT_ONCE: usize = 100;
/// What the planner never makes.
const CIRCLE: &str = "tasks wait for each other";

/// See [`Engine::execute`].
pub(crate) async fn execute(
    engine: &Engine,
    plan: Plan,
    command: Vec<String>,
    cancel: &Cancel,
    on_event: &mut (dyn FnMut(&Event) + Send),
) -> Result<RunReport, EngineError> {
    let begun = Instant::now();
    let records = engine.store.records();
    let params = plan.pipeline.params.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let live = records
        .begin(&NewRun {
            pipeline: plan.pipeline.name.clone(),
            text: plan.pipeline.text.clone(),
            params: serde_json::Value::Object(params),
            limit: plan.runtime.limit.map(|limit| limit as u64),
            command,
            environment: serde_json::Value::Null,
            includes: BTreeMap::new(),
        })
        .await?;
    let run = live.id().to_owned();
    plan.parts.remember(&engine.store, &run, &plan.pipeline.name).await?;
    let mut tally = Tally::new(&plan);
    records.put_stages(&run, &tally.records()).await?;
    on_event(&Event::Started { run: run.clone(), stages: plan.overview() });
    for (stage, status) in tally.finished_at_start() {
        on_event(&Event::StageFinished { stage, status });
    }
    let mut watch = Some(Watch {
        run: &run,
        engine,
        tally: &mut tally,
        on_event: &mut *on_event,
        series: Vec::new(),
        trouble: None,
    });
    let (end, error) = drive(&plan.runtime, &plan.tasks, cancel, &mut watch).await;
    let error = error.map(|error| error.to_string()).or_else(|| watch.take()?.trouble);
    let (status, reason) = match (end, error) {
        (End::Done, None) => (RunStatus::Succeeded, None),
        (End::Cancelled, _) => (RunStatus::Cancelled, Some("stopped on request".to_owned())),
        (_, error) => (RunStatus::Failed, Some(error.unwrap_or_else(|| CIRCLE.to_owned()))),
    };
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
pub(crate) async fn drive_quietly(runtime: &Arc<Runtime>, tasks: &[Task], cancel: &Cancel) -> Result<(), EngineError> {
    let (end, error) = drive(runtime, tasks, cancel, &mut None).await;
    match end {
        End::Done => Ok(()),
        End::Cancelled => Err(EngineError::Cancelled),
        End::Failed => Err(error.unwrap_or_else(|| EngineError::Invalid(CIRCLE.to_owned()))),
    }
}

/// Whoever records and shows a run.
pub(crate) struct Watch<'a> {
    run: &'a str,
    engine: &'a Engine,
    tally: &'a mut Tally,
    on_event: &'a mut (dyn FnMut(&Event) + Send),
    series: Vec<Metric>,
    /// The first record that could not be written.
    trouble: Option<String>,
}

/// Runs tasks to the end.
pub(crate) async fn drive(
    runtime: &Arc<Runtime>,
    tasks: &[Task],
    cancel: &Cancel,
    watch: &mut Option<Watch<'_>>,
) -> (End, Option<EngineError>) {
    let (sender, mut messages) = unbounded_channel();
    runtime.listen(sender.clone());
    let mut state = State::new(jobs(runtime, tasks), runtime.config.threads, runtime.config.devices.len());
    let workers = Workers::new(runtime.config.threads.max(1).min(tasks.len()));
    let mut commands = step(&mut state, Happened::Started);
    let (mut cancelled, mut trouble) = (false, None);
    loop {
        for command in std::mem::take(&mut commands) {
            match command {
                Command::Run(number) => {
                    let (task, runtime, sender) = (tasks[number].clone(), runtime.clone(), sender.clone());
                    if let Some(watch) = watch {
                        watch.started(number, &task).await;
                    }
                    workers.run(move |companion| {
                        let result = work(&runtime, &task.work, companion);
                        let _ = sender.send(Message::Done { task: number, result });
                    });
                }
                Command::Stop => runtime.stop(),
                Command::End(end) => {
                    if let Some(watch) = watch {
                        watch.flush().await;
                    }
                    return (end, trouble);
                }
            }
        }
        let Some(message) = next(&mut messages, cancel, &mut cancelled).await else {
            commands = step(&mut state, Happened::Cancelled);
            continue;
        };
        let Message::Done { task: number, result } = message else {
            if let Some(watch) = watch {
                watch.hear(message).await;
            }
            continue;
        };
        let task = &tasks[number];
        let result = match result {
            Ok(made) => record(runtime, task, number, made, watch).await,
            Err(error) => Err(error),
        };
        let happened = match result {
            Ok(()) => Happened::Done(number),
            Err(error) => {
                if let Some(watch) = watch {
                    watch.failed(number, task, &error).await;
                }
                if !matches!(error, EngineError::Cancelled) {
                    trouble.get_or_insert(error);
                }
                Happened::Failed(number)
            }
        };
        commands = step(&mut state, happened);
    }
}

/// The next message, or `None` when the run is to be cancelled; that is said once.
async fn next(messages: &mut UnboundedReceiver<Message>, cancel: &Cancel, cancelled: &mut bool) -> Option<Message> {
    if *cancelled {
        return messages.recv().await;
    }
    tokio::select! {
        biased;
        () = cancel.cancelled() => {
            *cancelled = true;
            None
        }
        message = messages.recv() => message,
    }
}

fn jobs(runtime: &Runtime, tasks: &[Task]) -> Vec<Job> {
    let device = |task: &Task| {
        let device = task.computes.iter().find_map(|&stage| runtime.graph.nodes[stage].device)?;
        runtime.config.devices.iter().position(|other| *other == device)
    };
    tasks.iter().map(|task| Job { after: task.after.clone(), device: device(task) }).collect()
}

fn work(runtime: &Arc<Runtime>, work: &Work, companion: &Companion) -> Result<Made, EngineError> {
    let call = || match work {
        Work::Segment(segment) => segment::run(runtime, segment, companion),
        Work::Merge(stage) => merge(runtime, *stage),
        Work::Job(stage) => job(runtime, *stage),
    };
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(EngineError::Invalid("a task panicked: this is a mistake in the engine".to_owned())))
}

/// Records what a task made and lets the tasks behind it know.
async fn record(
    runtime: &Runtime,
    task: &Task,
    number: usize,
    made: Made,
    watch: &mut Option<Watch<'_>>,
) -> Result<(), EngineError> {
    let mut keep = made.entries.clone();
    for &stage in task.stages.iter().filter(|&&stage| !runtime.graph.nodes[stage].cache) {
        keep.retain(|entry| !runtime.owns(stage, &entry.key));
    }
    if let Some(watch) = watch {
        let record = watch.tally.task_record(number, task, TaskStatus::Done, &made, None);
        watch.engine.store.records().commit(watch.run, &[record], &keep).await?;
    } else {
        runtime.store.records().commit("", &[], &keep).await?;
    }
    runtime.add_entries(made.entries);
    if let Work::Job(stage) = task.work {
        forget_checkpoint(runtime, stage).await?;
    }
    if let Some(watch) = watch {
        watch.done(number, task).await;
    }
    Ok(())
}

impl Watch<'_> {
    async fn started(&mut self, number: usize, task: &Task) {
        self.tally.started(number, task);
        let record = self.tally.task_record(number, task, TaskStatus::Running, &Made::default(), None);
        let put = self.engine.store.records().put_tasks(self.run, &[record]).await;
        self.note(put);
        (self.on_event)(&Event::TaskStarted { task: number, stages: task.stages.clone(), shard: task.shard });
    }

    async fn hear(&mut self, message: Message) {
        let event = match message {
            Message::Rows { stage, rows, bad, nanos } => {
                self.tally.rows(stage, rows, bad, nanos);
                Event::Rows { stage, rows, bad }
            }
            Message::Progress { stage, done, total, note } => Event::Progress { stage, done, total, note },
            Message::Metric { stage, name, step, value } => {
                let full = format!("{}.{name}", self.tally.name(stage));
                self.series.push(Metric { name: full, step: Some(step), value, n: None, n_bad: None });
                if self.series.len() >= METRICS_AT_ONCE {
                    self.flush().await;
                }
                Event::Metric { stage, name, step, value }
            }
            Message::Warning { stage, message } => Event::Warning { stage, message },
            Message::Done { .. } => return,
        };
        (self.on_event)(&event);
    }

    async fn flush(&mut self) {
        let series = std::mem::take(&mut self.series);
        if !series.is_empty() {
            let put = self.engine.store.records().put_metrics(self.run, &series).await;
            self.note(put);
        }
    }

    async fn done(&mut self, number: usize, task: &Task) {
        self.flush().await;
        let (stages, shard) = (task.stages.clone(), task.shard);
        (self.on_event)(&Event::TaskFinished { task: number, stages, shard, status: TaskStatus::Done, error: None });
        for stage in self.tally.done(task) {
            (self.on_event)(&Event::StageFinished { stage, status: TaskStatus::Done });
        }
    }

    async fn failed(&mut self, number: usize, task: &Task, error: &EngineError) {
        let (status, message) = match error {
            EngineError::Cancelled => (TaskStatus::Cancelled, None),
            error => (TaskStatus::Failed, Some(error.to_string())),
        };
        self.tally.failed(task, error, message.clone());
        let record = self.tally.task_record(number, task, status, &Made::default(), message.clone());
        let put = self.engine.store.records().put_tasks(self.run, &[record]).await;
        self.note(put);
        let (stages, shard) = (task.stages.clone(), task.shard);
        (self.on_event)(&Event::TaskFinished { task: number, stages, shard, status, error: message });
    }

    /// A record that cannot be written fails the run, though its work goes on.
    fn note(&mut self, put: Result<(), runner_store::StoreError>) {
        if let Err(error) = put {
            self.trouble.get_or_insert_with(|| error.to_string());
        }
    }
}

/// When something happened, for records.
pub(crate) fn now() -> runner_store::Time {
    Utc::now()
}

/// Times by task number.
pub(crate) type Times = BTreeMap<usize, runner_store::Time>;
