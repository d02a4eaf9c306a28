//! The loop of a run: hears what happened, asks the scheduler what to do, does it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use runner_contract::Digest;
use runner_store::{CancelRequest, Claim, Entry, StoreError, TaskStatus};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender},
        watch,
    },
    time::Instant,
};

use crate::{
    EngineError,
    attempt::Attempt,
    bad,
    cancel::Stop,
    demand::Item,
    eval::whole,
    message::{Made, Message, Reply, Vanished},
    outcome::{forget_checkpoint, job, merge},
    recorder::{Ask, Write},
    runtime::Runtime,
    scheduler::{Answer, Command, End, Ended, Event, Job, Millis, Recorded, State, step},
    segment,
    tasks::{Task, Tasks, Work, item_keys},
    watch::Watch,
    workers::{Companion, Then, Workers},
};

/// What may stop a run.
pub(crate) struct Stops {
    /// From inside the program.
    pub(crate) cancel: watch::Receiver<Stop>,
    /// From the records.
    pub(crate) asked: Option<watch::Receiver<Option<CancelRequest>>>,
}

/// Runs tasks to the end. Whoever works for the run sends its messages through the channel.
pub(crate) async fn drive(
    runtime: &Arc<Runtime>,
    tasks: &Tasks,
    mut stops: Stops,
    (sender, mut messages): (UnboundedSender<Message>, UnboundedReceiver<Message>),
    watch: &mut Option<Watch<'_>>,
) -> (End, Option<EngineError>) {
    runtime.listen(sender.clone());
    let mut drive = Drive {
        state: State::new(jobs(runtime, tasks), runtime.config.threads, runtime.config.devices().len()),
        workers: Workers::new(runtime.config.threads.max(1).min(tasks.list.len())),
        runtime,
        tasks: &tasks.list,
        begun: Instant::now(),
        sender,
        events: VecDeque::from([Event::Started]),
        attempts: HashMap::new(),
        work: HashMap::new(),
        made: HashMap::new(),
        errors: HashMap::new(),
        trouble: None,
        end: None,
    };
    // What is stored counts, too.
    if watch.is_some() {
        let all: Vec<usize> = (0..runtime.graph.nodes.len()).collect();
        drive.check_bad(&all);
        if let Some(error) = drive.trouble.take() {
            return (End::Failed, Some(error));
        }
    }
    loop {
        drive.react(watch).await;
        if let Some(end) = drive.end {
            return (end, drive.trouble);
        }
        drive.listen(&mut messages, &mut stops, watch).await;
    }
}

/// What each task is for the scheduler; barriers behind them.
fn jobs(runtime: &Runtime, tasks: &Tasks) -> Vec<Job> {
    let nodes = &runtime.graph.nodes;
    let device = |task: &Task| {
        let device = task.computes.iter().find_map(|&stage| nodes[stage].device)?;
        runtime.config.devices().iter().position(|other| *other == device)
    };
    let job = |task: &Task| {
        let limit = time_limit(runtime, task);
        Job {
            after: task.after.clone(),
            barrier: false,
            device: device(task),
            timeout: limit.map(|(_, limit)| Millis::try_from(limit.as_millis()).unwrap_or(Millis::MAX).max(1)),
            retries: limit.map_or(0, |(stage, _)| nodes[stage].retries),
            saves: matches!(task.work, Work::Job(_)),
        }
    };
    let barriers = tasks.barriers.iter().map(|after| Job { after: after.clone(), barrier: true, ..Job::default() });
    tasks.list.iter().map(job).chain(barriers).collect()
}

/// The shortest time limit of the stages that a task computes, and whose it is.
fn time_limit(runtime: &Runtime, task: &Task) -> Option<(usize, Duration)> {
    let limits = task.computes.iter().filter_map(|&stage| Some((stage, runtime.graph.nodes[stage].timeout?)));
    limits.min_by_key(|(_, limit)| *limit)
}

/// An attempt at work.
struct AtWork {
    turn: u32,
    attempt: Arc<Attempt>,
    /// Told to stop because its time was over.
    late: bool,
}

struct Drive<'a> {
    runtime: &'a Arc<Runtime>,
    tasks: &'a [Task],
    state: State,
    workers: Workers,
    begun: Instant,
    sender: UnboundedSender<Message>,
    /// What happened and was not told to the scheduler yet.
    events: VecDeque<Event>,
    /// By task.
    attempts: HashMap<usize, AtWork>,
    /// By task, where others have made some of it: what is left, and the stages that were found.
    work: HashMap<usize, (Work, BTreeSet<usize>)>,
    /// By task: what is being recorded.
    made: HashMap<usize, Made>,
    /// By task: how its last attempt failed.
    errors: HashMap<usize, EngineError>,
    /// What the run fails with.
    trouble: Option<EngineError>,
    end: Option<End>,
}

impl Drive<'_> {
    fn now(&self) -> Millis {
        Millis::try_from(self.begun.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Tells the scheduler what happened and does what it says, until there is nothing more to do at once.
    async fn react(&mut self, watch: &mut Option<Watch<'_>>) {
        while let Some(event) = self.events.pop_front() {
            let now = self.now();
            for command in step(&mut self.state, now, event) {
                self.obey(command, watch).await;
            }
        }
    }

    // ---------------------------------------------------------------------------------------------------- what happens

    /// Waits for the next thing to happen, and takes all that has happened with it.
    async fn listen(
        &mut self,
        messages: &mut UnboundedReceiver<Message>,
        stops: &mut Stops,
        watch: &mut Option<Watch<'_>>,
    ) {
        let wake = self.state.wake().map(|at| self.begun + Duration::from_millis(at));
        let woken = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let asked = async {
            if let Some(asked) = &mut stops.asked
                && asked.changed().await.is_ok()
            {
                return *asked.borrow_and_update();
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            Ok(()) = stops.cancel.changed() => {
                let stop = *stops.cancel.borrow_and_update();
                self.events.extend(match stop {
                    Stop::No => None,
                    Stop::Finish => Some(Event::Finish),
                    Stop::Now => Some(Event::Stop),
                });
            }
            request = asked => self.events.extend(match request {
                None => None,
                Some(CancelRequest::Finish) => Some(Event::Finish),
                Some(CancelRequest::Now) => Some(Event::Stop),
            }),
            message = messages.recv() => {
                if let Some(message) = message {
                    self.hear(message, watch).await;
                }
                while let Ok(message) = messages.try_recv() {
                    self.hear(message, watch).await;
                }
            }
            () = woken => {}
        }
        if wake.is_some_and(|at| at <= Instant::now()) {
            self.events.push_back(Event::Woken);
        }
    }

    async fn hear(&mut self, message: Message, watch: &mut Option<Watch<'_>>) {
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

    async fn recorded(&mut self, task: usize, turn: u32, result: Result<(), Vanished>, watch: &mut Option<Watch<'_>>) {
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
    fn check_bad(&mut self, stages: &[usize]) {
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

    // -------------------------------------------------------------------------------------------------------- what to do

    async fn obey(&mut self, command: Command, watch: &mut Option<Watch<'_>>) {
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

    // ----------------------------------------------------------------------------------------------------------- words

    /// How often an attempt that failed so may be repeated: as often as the stage says that failed.
    fn retries(&self, task: usize, error: &EngineError) -> u32 {
        let nodes = &self.runtime.graph.nodes;
        let named = error.stage_name().and_then(|name| nodes.iter().find(|node| node.name == name));
        let most = || self.tasks[task].computes.iter().map(|&stage| nodes[stage].retries).max();
        named.map(|node| node.retries).or_else(most).unwrap_or(0)
    }

    fn timed_out(&self, task: usize, deaf: bool) -> EngineError {
        let (stage, limit) = time_limit(self.runtime, &self.tasks[task]).unwrap_or((0, Duration::ZERO));
        let stage = self.runtime.graph.nodes[stage].name.clone();
        EngineError::TimedOut { stage, shard: self.tasks[task].shard, limit, deaf }
    }

    fn describe(&self, task: usize) -> String {
        let stages = self.tasks[task].stages.iter().map(|&stage| format!("`{}`", self.runtime.graph.nodes[stage].name));
        format!("stage {}", stages.collect::<Vec<_>>().join(", "))
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
