//! Whoever records and shows a run: counts, events, the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use runner_store::{Level, LogLine, Metric, StoreError, TaskStatus};

use crate::{
    EngineError, Event,
    message::{Made, Message},
    recorder::{Recorder, Write},
    scheduler::End,
    tally::{Tally, now},
    tasks::Task,
};

/// How often a job's progress is written to the log.
const PROGRESS: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Watch<'a> {
    pub(crate) tally: Tally,
    pub(crate) recorder: Recorder,
    on_event: &'a mut (dyn FnMut(&Event) + Send),
    /// Number of the last line of the log.
    line: u64,
    /// By stage: when its progress was last written to the log.
    progress: BTreeMap<usize, Instant>,
    /// Tasks that were said to wait for another run.
    waiting: BTreeSet<usize>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(tally: Tally, recorder: Recorder, on_event: &'a mut (dyn FnMut(&Event) + Send)) -> Self {
        Self { tally, recorder, on_event, line: 0, progress: BTreeMap::new(), waiting: BTreeSet::new() }
    }

    /// Writes what is left. The counts, and the first thing that could not be written.
    pub(crate) async fn end(mut self, end: End, error: Option<&EngineError>) -> (Tally, Option<StoreError>) {
        let (level, text) = match (end, error) {
            (End::Done, None) => (Level::Info, "the tasks of the run are done".to_owned()),
            (End::Cancelled, _) => (Level::Warning, "the run is stopped on request".to_owned()),
            (_, Some(error)) => (Level::Error, format!("the run fails: {error}")),
            (_, None) => (Level::Error, "the run fails".to_owned()),
        };
        self.say(level, None, None, text);
        let trouble = self.recorder.end().await;
        (self.tally, trouble)
    }

    pub(crate) fn event(&mut self, event: &Event) {
        (self.on_event)(event);
    }

    // ------------------------------------------------------------------------------------------------------------- log

    /// A line of the log that is shown, too.
    pub(crate) fn say(&mut self, level: Level, stage: Option<usize>, shard: Option<usize>, text: String) {
        let shard = shard.and_then(|shard| u32::try_from(shard).ok());
        self.write_line(level, stage, shard, &text);
        self.event(&Event::Log { stage, shard, level, text });
    }

    fn write_line(&mut self, level: Level, stage: Option<usize>, shard: Option<u32>, text: &str) {
        self.line += 1;
        let stage = stage.map(|stage| self.tally.name(stage).to_owned());
        let line = LogLine { seq: self.line, time: now(), stage, shard, level, text: text.to_owned() };
        self.recorder.write(Write::Log(line));
    }

    // ---------------------------------------------------------------------------------------------------------- messages

    /// What a task tells while it works.
    pub(crate) fn hear(&mut self, message: Message) {
        match message {
            Message::Rows { task, stage, rows, bad, nanos } => {
                self.tally.rows(task, stage, rows, bad, nanos);
                self.event(&Event::Rows { stage, rows, bad });
            }
            Message::Progress { stage, done, total, note } => {
                let due = self.progress.get(&stage).is_none_or(|last| last.elapsed() >= PROGRESS);
                if due || done == total {
                    self.progress.insert(stage, Instant::now());
                    let text = format!("step {done} of {total}{}{note}", if note.is_empty() { "" } else { ": " });
                    self.say(Level::Info, Some(stage), None, text);
                }
                self.event(&Event::Progress { stage, done, total, note });
            }
            Message::Metric { stage, name, step, value } => {
                let full = format!("{}.{name}", self.tally.name(stage));
                let metric = Metric { name: full, step: Some(step), value, n: None, n_bad: None };
                self.recorder.write(Write::Metrics(vec![metric]));
                self.event(&Event::Metric { stage, name, step, value });
            }
            Message::Said { stage, shard, warning: true, text } => {
                self.write_line(Level::Warning, Some(stage), shard.and_then(|shard| u32::try_from(shard).ok()), &text);
                self.event(&Event::Warning { stage, message: text });
            }
            Message::Said { stage, shard, warning: false, text } => self.say(Level::Info, Some(stage), shard, text),
            Message::Ended { .. }
            | Message::Gone { .. }
            | Message::Asked { .. }
            | Message::Recorded { .. }
            | Message::Broken(_) => {}
        }
    }

    // ------------------------------------------------------------------------------------------------------------- tasks

    pub(crate) fn started(&mut self, number: usize, task: &Task, attempt: u32) {
        for stage in self.tally.started(number, task, attempt) {
            let text = self.tally.begins(stage);
            self.say(Level::Info, Some(stage), None, text);
        }
        let (stages, shard) = (task.stages.to_vec(), task.shard);
        self.event(&Event::TaskStarted { task: number, stages, shard });
    }

    /// Another run makes what the task is for.
    pub(crate) fn held(&mut self, number: usize, task: &Task, by: &str) {
        if !by.is_empty() && self.waiting.insert(number) {
            let of = task.shard.map(|shard| format!("shard {shard} ")).unwrap_or_default();
            let message = format!("{of}waits for run {by}, which makes the same");
            let stage = task.stages.first().copied().unwrap_or(0);
            self.write_line(Level::Info, Some(stage), None, &message);
            self.event(&Event::Warning { stage, message });
        }
    }

    /// A task is done, though others made the results of the stages in `found`.
    pub(crate) fn done(&mut self, number: usize, task: &Task, found: &BTreeSet<usize>) {
        self.finished(number, task, found, TaskStatus::Done);
    }

    /// Another run has made everything that the task is for.
    pub(crate) fn found(&mut self, number: usize, task: &Task) {
        let record = self.tally.task_record(number, task, TaskStatus::Cached, &Made::default(), None);
        self.recorder.write(Write::Task(record));
        self.say(Level::Info, task.stages.first().copied(), task.shard, "made by another run meanwhile".to_owned());
        let found = task.stages.iter().copied().collect();
        self.finished(number, task, &found, TaskStatus::Cached);
    }

    fn finished(&mut self, number: usize, task: &Task, found: &BTreeSet<usize>, status: TaskStatus) {
        let (stages, shard) = (task.stages.to_vec(), task.shard);
        self.event(&Event::TaskFinished { task: number, stages, shard, status, error: None });
        for (stage, status) in self.tally.done(number, task, found) {
            let text = self.tally.ends(stage);
            self.say(Level::Info, Some(stage), None, text);
            self.event(&Event::StageFinished { stage, status });
        }
    }

    /// An attempt failed, and another follows.
    pub(crate) fn retry(&mut self, number: usize, task: &Task, attempt: u32, after: Duration, error: &EngineError) {
        self.tally.stopped(number, task);
        let message = error.to_string();
        let record = self.tally.task_record(number, task, TaskStatus::Waiting, &Made::default(), Some(message.clone()));
        self.recorder.write(Write::Task(record));
        let text = format!("attempt {attempt} failed, the next begins in {after:?}: {message}");
        let stage = self.tally.named(error).or(task.stages.first().copied());
        self.say(Level::Warning, stage, task.shard, text);
        let (stages, shard) = (task.stages.to_vec(), task.shard);
        self.event(&Event::Retry { task: number, stages, shard, attempt, after, error: message });
    }

    /// A task will not be done.
    pub(crate) fn failed(&mut self, number: usize, task: &Task, error: Option<&EngineError>) {
        let (status, message) = match error {
            None => (TaskStatus::Cancelled, None),
            Some(error) => (TaskStatus::Failed, Some(error.to_string())),
        };
        let begun = self.tally.failed(number, task, error, message.clone());
        if !begun {
            return;
        }
        let record = self.tally.task_record(number, task, status, &Made::default(), message.clone());
        self.recorder.write(Write::Task(record));
        if let (Some(error), Some(message)) = (error, &message) {
            let stage = self.tally.named(error).or(task.stages.first().copied());
            self.say(Level::Error, stage, task.shard, message.clone());
        }
        let (stages, shard) = (task.stages.to_vec(), task.shard);
        self.event(&Event::TaskFinished { task: number, stages, shard, status, error: message });
    }
}
