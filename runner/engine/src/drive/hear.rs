//! What happened: messages of whoever works for the run become events for the scheduler.

use std::{collections::BTreeSet, sync::Arc};

use runner_contract::Digest;
use runner_store::Entry;

use super::Drive;
use crate::{
    EngineError, bad,
    demand::Item,
    message::{Made, Message, Reply, Vanished},
    outcome::forget_checkpoint,
    scheduler::{Answer, Ended, Event, Recorded},
    tasks::{Work, item_keys},
    watch::Watch,
};

impl Drive<'_> {
    pub(super) async fn hear(&mut self, message: Message, watch: &mut Option<Watch<'_>>) {
        match message {
            Message::Ended { task, turn, result } => self.ended(task, turn, result),
            Message::Gone { task, turn } => self.events.push_back(Event::Gone { task, turn }),
            Message::Asked { task, turn, answer } => self.asked(task, turn, answer, watch),
            Message::Recorded { task, turn, result } => self.recorded(task, turn, result, watch).await,
            Message::Broken(error) => {
                self.trouble.get_or_insert(error.into());
                self.events.push_back(Event::Broken);
            }
            other => {
                if let Some(watch) = watch {
                    watch.hear(other);
                }
            }
        }
    }

    fn ended(&mut self, task: usize, turn: u32, result: Result<Made, EngineError>) {
        // One that was given up on, or that another attempt has followed, is of no interest.
        let Some(at) = self.attempts.remove(&task) else { return };
        if at.turn != turn {
            self.attempts.insert(task, at);
            return;
        }
        let how = match result {
            Ok(made) => {
                self.made.insert(task, made);
                Ended::Done
            }
            Err(EngineError::Cancelled) => {
                if at.late {
                    self.errors.insert(task, self.timed_out(task, false));
                } else if !at.attempt.is_told_to_stop() {
                    let error = format!("{} stopped though nobody told it to", self.describe(task));
                    self.errors.insert(task, EngineError::Invalid(error));
                }
                Ended::Stopped
            }
            Err(error) => {
                let retries = if error.may_pass() { self.retries(task, &error) } else { 0 };
                self.errors.insert(task, error);
                Ended::Failed { retries }
            }
        };
        self.events.push_back(Event::Ended { task, turn, how });
    }

    fn asked(&mut self, task: usize, turn: u32, answer: Reply, watch: &mut Option<Watch<'_>>) {
        if !self.state.is_current(task, turn) {
            return;
        }
        let answer = match answer {
            Reply::Yours(made) => {
                self.cut(task, made);
                Answer::Yours
            }
            Reply::Made(entries) => {
                self.runtime.add_entries(entries);
                if let Some(watch) = watch {
                    watch.found(task, &self.tasks[task]);
                }
                Answer::Made
            }
            Reply::Held(by) => {
                if let Some(watch) = watch {
                    watch.held(task, &self.tasks[task], &by);
                }
                Answer::Held
            }
        };
        self.events.push_back(Event::Asked { task, turn, answer });
    }

    /// Leaves out what others have made of a task already.
    fn cut(&mut self, task: usize, made: Vec<Entry>) {
        self.work.remove(&task);
        let Work::Segment(segment) = &self.tasks[task].work else { return };
        if made.is_empty() {
            return;
        }
        let there: BTreeSet<Digest> = made.iter().map(|entry| entry.key).collect();
        self.runtime.add_entries(made);
        let (graph, keys) = (&self.runtime.graph, &self.runtime.keys);
        let is_there = |item: &Item| item_keys(graph, keys, *item).iter().all(|key| there.contains(key));
        let found: BTreeSet<usize> =
            self.tasks[task].items().iter().filter(|i| is_there(i)).map(|i| i.stage()).collect();
        let left = |stages: &BTreeSet<usize>| Arc::new(stages.difference(&found).copied().collect::<BTreeSet<usize>>());
        let mut segment = segment.clone();
        (segment.groups, segment.folds) = (left(&segment.groups), left(&segment.folds));
        self.work.insert(task, (Work::Segment(segment), found));
    }

    pub(super) async fn recorded(
        &mut self,
        task: usize,
        turn: u32,
        result: Result<(), Vanished>,
        watch: &mut Option<Watch<'_>>,
    ) {
        if !self.state.is_current(task, turn) {
            return;
        }
        let Some(made) = self.made.remove(&task) else { return };
        let how = match result {
            Ok(()) => {
                self.errors.remove(&task);
                self.runtime.add_entries(made.entries.into_iter().map(|(_, entry)| entry));
                if let Some(watch) = watch {
                    self.check_bad(&self.tasks[task].stages);
                    for &stage in self.tasks[task].computes.iter() {
                        let (rows, bad) = watch.tally.counted(stage);
                        self.refuse(bad::check_passing(self.runtime, stage, rows, bad));
                    }
                }
                if let Work::Job(stage) = self.tasks[task].work
                    && let Err(error) = forget_checkpoint(self.runtime, stage).await
                {
                    // It is done all the same, and the checkpoint only takes room.
                    let text = format!("the checkpoint could not be removed: {error}");
                    self.runtime.send(Message::Said { stage, shard: None, warning: true, text });
                }
                let found = self.work.remove(&task).map(|(_, found)| found).unwrap_or_default();
                if let Some(watch) = watch {
                    watch.done(task, &self.tasks[task], &found);
                }
                Recorded::Done
            }
            Err(Vanished(error)) => {
                self.errors.insert(task, error.into());
                Recorded::Vanished
            }
        };
        self.events.push_back(Event::Recorded { task, turn, how });
    }

    /// Fails the run where one of these stages has too many unusable rows.
    pub(super) fn check_bad(&mut self, stages: &[usize]) {
        for &stage in stages {
            self.refuse(bad::check(self.runtime, stage));
        }
    }

    fn refuse(&mut self, checked: Result<(), EngineError>) {
        if let Err(error) = checked {
            self.trouble.get_or_insert(error);
            self.events.push_back(Event::Broken);
        }
    }

    /// How often an attempt that failed so may be repeated: as often as the stage says that failed.
    fn retries(&self, task: usize, error: &EngineError) -> u32 {
        let nodes = &self.runtime.graph.nodes;
        let named = error.stage_name().and_then(|name| nodes.iter().find(|node| node.name == name));
        let most = || self.tasks[task].computes.iter().map(|&stage| nodes[stage].retries).max();
        named.map(|node| node.retries).or_else(most).unwrap_or(0)
    }

    fn describe(&self, task: usize) -> String {
        let stages = self.tasks[task].stages.iter().map(|&stage| format!("`{}`", self.runtime.graph.nodes[stage].name));
        format!("stage {}", stages.collect::<Vec<_>>().join(", "))
    }
}
