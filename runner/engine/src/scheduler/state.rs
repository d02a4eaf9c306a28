//! Where a run stands.

use std::collections::BTreeSet;

use super::{
    Answer, CHECK, Command, End, Ended, Event, FIRST_HELD, FIRST_RETRY, GRACE, Job, LAST_HELD, LAST_RETRY, Millis,
    PATIENCE, REPEATS, Recorded, back_off,
};

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// So many before it are not done.
    Blocked(usize),
    Ready,
    Asking,
    Running(Told),
    Recording,
    Resting,
    Done,
    /// Failed for good, or not to be done because the run stops.
    Dropped,
}

/// What a task at work was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// To stop, because its time is over.
    Late,
    /// To stop, because the run stops.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Task {
    phase: Phase,
    turn: u32,
    failures: u32,
    held: u32,
    repeats: u32,
    /// When to look after it.
    timer: Option<Millis>,
}

/// See the module. Every step takes time in the logarithm of the number of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    jobs: Vec<Job>,
    tasks: Vec<Task>,
    /// By task: those that wait for it.
    followers: Vec<Vec<usize>>,
    /// What can start: by device, last those that need none.
    ready: Vec<BTreeSet<usize>>,
    free_slots: usize,
    /// By device, last always true.
    free: Vec<bool>,
    timers: BTreeSet<(Millis, usize)>,
    running: BTreeSet<usize>,
    resting: BTreeSet<usize>,
    /// Asking, running or recording.
    busy: usize,
    done: usize,
    stopping: Option<End>,
    /// Nothing can be recorded any more.
    broken: bool,
    ended: bool,
}

impl State {
    /// Nothing begun. `slots` tasks run at once at most, one a device.
    pub(crate) fn new(mut jobs: Vec<Job>, slots: usize, devices: usize) -> Self {
        let mut followers = vec![Vec::new(); jobs.len()];
        let mut tasks = Vec::with_capacity(jobs.len());
        let count = jobs.len();
        for (number, job) in jobs.iter_mut().enumerate() {
            job.after.sort_unstable();
            job.after.dedup();
            job.after.retain(|&other| other < count);
            job.device = job.device.filter(|&device| device < devices);
            for &other in &job.after {
                followers[other].push(number);
            }
            let phase = Phase::Blocked(job.after.len());
            tasks.push(Task { phase, turn: 0, failures: 0, held: 0, repeats: 0, timer: None });
        }
        Self {
            jobs,
            tasks,
            followers,
            ready: vec![BTreeSet::new(); devices + 1],
            free_slots: slots.max(1),
            free: vec![true; devices + 1],
            timers: BTreeSet::new(),
            running: BTreeSet::new(),
            resting: BTreeSet::new(),
            busy: 0,
            done: 0,
            stopping: None,
            broken: false,
            ended: false,
        }
    }

    /// When [`Event::Woken`] is to happen, whatever else happens before.
    pub(crate) fn wake(&self) -> Option<Millis> {
        self.timers.first().map(|(at, _)| *at).filter(|_| !self.ended)
    }

    /// Whether an answer with this turn is not an old one.
    pub(crate) fn is_current(&self, task: usize, turn: u32) -> bool {
        self.tasks.get(task).is_some_and(|at| at.turn == turn)
    }

    /// Whether nothing new starts any more.
    #[cfg(test)]
    pub(super) fn stopping(&self) -> bool {
        self.stopping.is_some()
    }

    #[cfg(test)]
    pub(super) fn phase(&self, task: usize) -> Phase {
        self.tasks[task].phase
    }

    #[cfg(test)]
    pub(super) fn free_slots(&self) -> usize {
        self.free_slots
    }

    #[cfg(test)]
    pub(super) fn turn(&self, task: usize) -> u32 {
        self.tasks[task].turn
    }

    pub(super) fn note(&mut self, now: Millis, event: Event, out: &mut Vec<Command>) {
        match event {
            Event::Started => {
                let free: Vec<usize> =
                    (0..self.tasks.len()).filter(|&task| self.tasks[task].phase == Phase::Blocked(0)).collect();
                self.unblock(free);
            }
            Event::Woken => self.woken(now, out),
            Event::Asked { task, turn, answer } => {
                if self.waits(task, turn, |phase| phase == Phase::Asking) {
                    self.asked(now, task, answer, out);
                }
            }
            Event::Ended { task, turn, how } => {
                if self.waits(task, turn, |phase| matches!(phase, Phase::Running(_))) {
                    self.attempt_ended(now, task, how, out);
                }
            }
            Event::Recorded { task, turn, how } => {
                if self.waits(task, turn, |phase| phase == Phase::Recording) {
                    self.recorded(now, task, how, out);
                }
            }
            Event::Gone { task, turn } => {
                if self.waits(task, turn, |phase| matches!(phase, Phase::Running(_))) {
                    self.leave(task);
                    self.again(task, out);
                }
            }
            Event::Finish => self.finish(out),
            Event::Stop => {
                self.finish(out);
                self.stop_all(now, out);
            }
            Event::Broken => {
                self.broken = true;
                self.give_up_run(End::Failed, out);
                self.stop_all(now, out);
                // The store will answer no more.
                for task in 0..self.tasks.len() {
                    if matches!(self.tasks[task].phase, Phase::Asking | Phase::Recording) {
                        self.leave(task);
                        self.drop_task(task, out);
                    }
                }
            }
        }
    }

    /// Starts what can start.
    pub(super) fn start(&mut self, now: Millis, out: &mut Vec<Command>) {
        while self.stopping.is_none() && self.free_slots > 0 {
            let lanes = self.ready.iter().enumerate().filter(|(lane, _)| self.free[*lane]);
            let next = lanes.filter_map(|(lane, ready)| Some((*ready.first()?, lane))).min();
            let Some((task, lane)) = next else { break };
            self.ready[lane].remove(&task);
            self.free_slots -= 1;
            self.free[lane] = lane == self.free.len() - 1;
            self.busy += 1;
            self.ask(now, task, out);
        }
    }

    /// How it ended, once.
    pub(super) fn end(&mut self) -> Option<End> {
        if self.ended || self.busy > 0 || (self.stopping.is_none() && !self.resting.is_empty()) {
            return None;
        }
        self.ended = true;
        if self.done == self.tasks.len() && self.stopping != Some(End::Failed) {
            return Some(End::Done);
        }
        // Tasks that wait for each other in a circle can never start: the planner makes none, but a run must end.
        Some(self.stopping.unwrap_or(End::Failed))
    }

    // ---------------------------------------------------------------------------------------------------- what happens

    fn woken(&mut self, now: Millis, out: &mut Vec<Command>) {
        while let Some(&(at, task)) = self.timers.first() {
            if at > now {
                break;
            }
            self.set_timer(task, None);
            let turn = self.tasks[task].turn;
            match self.tasks[task].phase {
                Phase::Resting => {
                    self.resting.remove(&task);
                    self.make_ready(task);
                }
                Phase::Asking if self.stopping.is_some() => {
                    self.leave(task);
                    self.drop_task(task, out);
                }
                Phase::Asking => self.ask(now, task, out),
                Phase::Recording => {
                    self.set_timer(task, Some(now + PATIENCE));
                    out.push(Command::Record { task, turn });
                }
                Phase::Running(Told::Nothing) if self.jobs[task].timeout.is_some() => {
                    self.tell(now, task, Told::Late, out);
                }
                Phase::Running(Told::Nothing) => {
                    self.set_timer(task, Some(now + CHECK));
                    out.push(Command::Check { task, turn });
                }
                Phase::Running(told) => {
                    out.push(Command::Abandon { task, turn });
                    self.leave(task);
                    match told {
                        Told::Late => self.failed(now, task, self.jobs[task].retries, out),
                        _ => self.drop_task(task, out),
                    }
                }
                Phase::Blocked(_) | Phase::Ready | Phase::Done | Phase::Dropped => {}
            }
        }
    }

    fn asked(&mut self, now: Millis, task: usize, answer: Answer, out: &mut Vec<Command>) {
        match answer {
            Answer::Yours if self.stopping.is_some() => {
                self.leave(task);
                self.drop_task(task, out);
            }
            Answer::Yours => {
                let job = &self.jobs[task];
                let timer = now + job.timeout.unwrap_or(CHECK);
                self.tasks[task].phase = Phase::Running(Told::Nothing);
                self.running.insert(task);
                self.set_timer(task, Some(timer));
                let Task { turn, failures, .. } = self.tasks[task];
                out.push(Command::Run { task, turn, attempt: failures + 1 });
            }
            Answer::Made => {
                self.leave(task);
                self.finished(task);
            }
            Answer::Held => {
                self.leave(task);
                if self.stopping.is_some() {
                    // Nothing of it is ours, so there is nothing to give back.
                    self.tasks[task].phase = Phase::Dropped;
                    return;
                }
                let held = self.tasks[task].held;
                self.tasks[task].held = held.saturating_add(1);
                self.rest(task, now + back_off(FIRST_HELD, held, LAST_HELD));
            }
        }
    }

    fn attempt_ended(&mut self, now: Millis, task: usize, how: Ended, out: &mut Vec<Command>) {
        let told = self.tasks[task].phase;
        self.leave(task);
        match how {
            Ended::Done if self.broken => self.drop_task(task, out),
            Ended::Done => {
                self.busy += 1;
                self.tasks[task].phase = Phase::Recording;
                self.set_timer(task, Some(now + PATIENCE));
                out.push(Command::Record { task, turn: self.tasks[task].turn });
            }
            Ended::Failed { retries } => self.failed(now, task, retries, out),
            Ended::Stopped if told == Phase::Running(Told::Late) => {
                self.failed(now, task, self.jobs[task].retries, out);
            }
            Ended::Stopped => {
                // Stopped without having been told to, it failed.
                self.give_up_run(End::Failed, out);
                self.drop_task(task, out);
            }
        }
    }

    fn recorded(&mut self, now: Millis, task: usize, how: Recorded, out: &mut Vec<Command>) {
        self.leave(task);
        match how {
            Recorded::Done => self.finished(task),
            Recorded::Vanished if self.stopping.is_none() && self.tasks[task].repeats < REPEATS => {
                self.tasks[task].repeats += 1;
                self.rest(task, now + FIRST_HELD);
            }
            Recorded::Vanished => {
                self.give_up_run(End::Failed, out);
                self.drop_task(task, out);
            }
        }
    }

    /// An attempt failed.
    fn failed(&mut self, now: Millis, task: usize, retries: u32, out: &mut Vec<Command>) {
        let failures = self.tasks[task].failures;
        if failures < retries && self.stopping.is_none() {
            self.tasks[task].failures += 1;
            let after = back_off(FIRST_RETRY, failures, LAST_RETRY);
            self.rest(task, now + after);
            out.push(Command::Retry { task, failures: failures + 1, after });
        } else {
            self.give_up_run(End::Failed, out);
            self.drop_task(task, out);
        }
    }

    fn finish(&mut self, out: &mut Vec<Command>) {
        let before = self.stopping;
        self.give_up_run(End::Cancelled, out);
        if before == Some(End::Cancelled) || self.ended {
            return;
        }
        let saving = self.running.iter().filter(|&&task| self.jobs[task].saves);
        out.extend(saving.map(|&task| Command::Save { task, turn: self.tasks[task].turn }));
    }

    /// Tells all that is at work to stop.
    fn stop_all(&mut self, now: Millis, out: &mut Vec<Command>) {
        let running: Vec<usize> = self.running.iter().copied().collect();
        for task in running {
            match self.tasks[task].phase {
                Phase::Running(Told::Nothing) => self.tell(now, task, Told::Stop, out),
                // It has been told already, and its time runs.
                Phase::Running(Told::Late) => self.tasks[task].phase = Phase::Running(Told::Stop),
                _ => {}
            }
        }
    }

    // ----------------------------------------------------------------------------------------------------- transitions

    /// Whether an answer is the one that a task waits for.
    fn waits(&self, task: usize, turn: u32, phase: impl Fn(Phase) -> bool) -> bool {
        self.tasks.get(task).is_some_and(|at| at.turn == turn && phase(at.phase))
    }

    fn ask(&mut self, now: Millis, task: usize, out: &mut Vec<Command>) {
        let at = &mut self.tasks[task];
        at.turn += 1;
        at.phase = Phase::Asking;
        out.push(Command::Ask { task, turn: at.turn });
        self.set_timer(task, Some(now + PATIENCE));
    }

    fn tell(&mut self, now: Millis, task: usize, told: Told, out: &mut Vec<Command>) {
        self.tasks[task].phase = Phase::Running(told);
        self.set_timer(task, Some(now + GRACE));
        out.push(Command::Stop { task, turn: self.tasks[task].turn, late: told == Told::Late });
    }

    /// A task asks, runs or records no more: gives back what it held.
    fn leave(&mut self, task: usize) {
        if matches!(self.tasks[task].phase, Phase::Asking | Phase::Running(_)) {
            self.free_slots += 1;
            let lane = self.lane(task);
            self.free[lane] = true;
        }
        self.running.remove(&task);
        self.busy -= 1;
        self.set_timer(task, None);
    }

    fn rest(&mut self, task: usize, until: Millis) {
        self.tasks[task].phase = Phase::Resting;
        self.resting.insert(task);
        self.set_timer(task, Some(until));
    }

    /// Starts a task over, unless the run stops.
    fn again(&mut self, task: usize, out: &mut Vec<Command>) {
        if self.stopping.is_some() { self.drop_task(task, out) } else { self.make_ready(task) }
    }

    fn drop_task(&mut self, task: usize, out: &mut Vec<Command>) {
        self.tasks[task].phase = Phase::Dropped;
        out.push(Command::Release { task });
    }

    /// Nothing new starts from now on.
    fn give_up_run(&mut self, end: End, out: &mut Vec<Command>) {
        self.stopping.get_or_insert(end);
        for task in std::mem::take(&mut self.resting) {
            self.set_timer(task, None);
            self.drop_task(task, out);
        }
    }

    fn finished(&mut self, task: usize) {
        let free = self.complete(task);
        self.unblock(free);
    }

    /// Those before these tasks are done.
    fn unblock(&mut self, mut free: Vec<usize>) {
        while let Some(task) = free.pop() {
            if self.jobs[task].barrier {
                free.extend(self.complete(task));
            } else {
                self.make_ready(task);
            }
        }
    }

    /// A task is done: the tasks that waited for nothing else.
    fn complete(&mut self, task: usize) -> Vec<usize> {
        self.tasks[task].phase = Phase::Done;
        self.done += 1;
        let mut free = Vec::new();
        for follower in std::mem::take(&mut self.followers[task]) {
            if let Phase::Blocked(missing) = &mut self.tasks[follower].phase {
                *missing -= 1;
                if *missing == 0 {
                    free.push(follower);
                }
            }
        }
        free
    }

    fn make_ready(&mut self, task: usize) {
        self.tasks[task].phase = Phase::Ready;
        let lane = self.lane(task);
        self.ready[lane].insert(task);
    }

    fn lane(&self, task: usize) -> usize {
        self.jobs[task].device.unwrap_or(self.free.len() - 1)
    }

    fn set_timer(&mut self, task: usize, at: Option<Millis>) {
        if let Some(old) = self.tasks[task].timer.take() {
            self.timers.remove(&(old, task));
        }
        if let Some(at) = at {
            self.tasks[task].timer = Some(at);
            self.timers.insert((at, task));
        }
    }
}
