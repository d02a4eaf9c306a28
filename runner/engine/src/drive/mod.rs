//! The loop of a run: hears what happened, asks the scheduler what to do, does it.

mod hear;
mod obey;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use runner_store::CancelRequest;
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
    cancel::Stop,
    message::{Made, Message},
    runtime::Runtime,
    scheduler::{End, Event, Job, Millis, State, step},
    tasks::{Task, Tasks, Work},
    watch::Watch,
    workers::Workers,
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

    fn timed_out(&self, task: usize, deaf: bool) -> EngineError {
        let (stage, limit) = time_limit(self.runtime, &self.tasks[task]).unwrap_or((0, Duration::ZERO));
        let stage = self.runtime.graph.nodes[stage].name.clone();
        EngineError::TimedOut { stage, shard: self.tasks[task].shard, limit, deaf }
    }
}
