//! What to do: the scheduler's commands, carried out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use runner_contract::Digest;
use runner_store::{Claim, Entry, StoreError, TaskStatus};

use super::{AtWork, Drive};
use crate::{
    EngineError,
    attempt::Attempt,
    eval::whole,
    message::{Made, Message, Vanished},
    outcome::{job, merge},
    recorder::{Ask, Write},
    scheduler::{Answer, Command, Event},
    segment,
    tasks::{Work, item_keys},
    watch::Watch,
    workers::{Companion, Then},
};

impl Drive<'_> {
    pub(super) async fn obey(&mut self, command: Command, watch: &mut Option<Watch<'_>>) {
        match command {
            Command::Ask { task, turn } => self.ask(task, turn, watch),
            Command::Run { task, turn, attempt } => self.run(task, turn, attempt, watch),
            Command::Check { task, turn } => {
                // Only this map knows the attempt any more: its thread is gone, or has told its end before.
                if self.attempts.get(&task).is_none_or(|at| Arc::strong_count(&at.attempt) == 1) {
                    let _ = self.sender.send(Message::Gone { task, turn });
                }
            }
            Command::Save { task, .. } => self.at_work(task, |at| at.attempt.finish()),
            Command::Stop { task, late, .. } => self.at_work(task, |at| {
                at.late = late;
                at.attempt.stop();
            }),
            Command::Abandon { task, .. } => {
                if let Some(at) = self.attempts.remove(&task) {
                    at.attempt.abandon();
                    self.workers.add();
                    if at.late {
                        self.errors.insert(task, self.timed_out(task, true));
                    }
                }
            }
            Command::Record { task, turn } => self.record(task, turn, watch).await,
            Command::Retry { task, failures, after } => {
                if let (Some(error), Some(watch)) = (self.errors.remove(&task), watch) {
                    watch.retry(task, &self.tasks[task], failures, Duration::from_millis(after), &error);
                }
            }
            Command::Release { task } => self.release(task, watch),
            Command::End(end) => self.end = Some(end),
        }
    }

    fn at_work(&mut self, task: usize, tell: impl FnOnce(&mut AtWork)) {
        if let Some(at) = self.attempts.get_mut(&task) {
            tell(at);
        }
    }

    fn ask(&mut self, task: usize, turn: u32, watch: &mut Option<Watch<'_>>) {
        let Some(watch) = watch else {
            self.events.push_back(Event::Asked { task, turn, answer: Answer::Yours });
            return;
        };
        let at = &self.tasks[task];
        let record = watch.tally.task_record(task, at, TaskStatus::Running, &Made::default(), None);
        let result_of = match at.work {
            Work::Segment(_) => None,
            Work::Merge(stage) | Work::Job(stage) => Some(stage),
        };
        let keys = self.keys(task);
        watch.recorder.ask(Ask { task, turn, claim: Claim { task: record, keys }, result_of });
    }

    /// The keys that others may have made, or be making.
    fn keys(&self, task: usize) -> Vec<Digest> {
        let (graph, keys) = (&self.runtime.graph, &self.runtime.keys);
        let shared = self.tasks[task].items().into_iter().filter(|item| {
            let node = &graph.nodes[item.stage()];
            node.cache && !node.anew
        });
        shared.flat_map(|item| item_keys(graph, keys, item)).collect()
    }

    fn run(&mut self, task: usize, turn: u32, number: u32, watch: &mut Option<Watch<'_>>) {
        if let Some(watch) = watch {
            watch.started(task, &self.tasks[task], number);
        }
        let attempt = Arc::new(Attempt::new(self.runtime.clone(), task, whole));
        self.attempts.insert(task, AtWork { turn, attempt: attempt.clone(), late: false });
        let todo = self.work.get(&task).map_or(&self.tasks[task].work, |(left, _)| left).clone();
        let sender = self.sender.clone();
        self.workers.run(move |companion| {
            let result = work(&attempt, &todo, companion);
            let _ = sender.send(Message::Ended { task, turn, result });
            if attempt.is_abandoned() { Then::Leave } else { Then::Stay }
        });
    }

    /// Records what a task made; with that the tasks behind it may know.
    async fn record(&mut self, task: usize, turn: u32, watch: &mut Option<Watch<'_>>) {
        let Some(made) = self.made.get(&task) else { return };
        let cached = made.entries.iter().filter(|(stage, _)| self.runtime.graph.nodes[*stage].cache);
        let keep: Vec<Entry> = cached.map(|(_, entry)| entry.clone()).collect();
        if let Some(watch) = watch {
            let record = watch.tally.task_record(task, &self.tasks[task], TaskStatus::Done, made, None);
            watch.recorder.write(Write::Done { task, turn, record, made: keep });
            return;
        }
        if keep.is_empty() {
            return self.recorded(task, turn, Ok(()), watch).await;
        }
        match self.runtime.store.records().commit("", &[], &keep).await {
            Ok(()) => self.recorded(task, turn, Ok(()), watch).await,
            Err(error @ StoreError::Vanished(_)) => self.recorded(task, turn, Err(Vanished(error)), watch).await,
            Err(error) => drop(self.sender.send(Message::Broken(error))),
        }
    }

    /// A task will not be done.
    fn release(&mut self, task: usize, watch: &mut Option<Watch<'_>>) {
        let error = self.errors.remove(&task);
        self.made.remove(&task);
        if let Some(watch) = watch {
            watch.failed(task, &self.tasks[task], error.as_ref());
            let keys = self.keys(task);
            if !keys.is_empty() {
                watch.recorder.write(Write::Release(keys));
            }
        }
        if let Some(error) = error {
            self.trouble.get_or_insert(error);
        }
    }
}

fn work(attempt: &Arc<Attempt>, work: &Work, companion: &Companion) -> Result<Made, EngineError> {
    let call = || match work {
        Work::Segment(segment) => segment::run(attempt, segment, companion),
        Work::Merge(stage) => merge(attempt, *stage),
        Work::Job(stage) => job(attempt, *stage),
    };
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(EngineError::Invalid("a task panicked: this is a mistake in the engine".to_owned())))
}
