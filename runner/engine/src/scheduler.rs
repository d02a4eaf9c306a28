//! Which task runs when. No I/O and no clock: [`step`] takes what happened and says what to do.
//!
//! Tasks start in order of their numbers as soon as what they depend on is done and their slots are free. After a failure
//! nothing new starts, what is at work may end and be recorded; on cancellation it is told to stop as well.

use std::collections::BTreeSet;

/// A task, as far as scheduling is concerned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    /// Tasks that have to be done before. Numbers of other tasks.
    pub(crate) after: Vec<usize>,
    /// The device that it needs a slot of.
    pub(crate) device: Option<usize>,
}

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// The run begins.
    Started,
    /// A task is done and recorded.
    Done(usize),
    /// A task failed, or gave up because it was told to stop.
    Failed(usize),
    /// Somebody wants the run to stop.
    Cancelled,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Start a task.
    Run(usize),
    /// Tell the tasks at work to stop.
    Stop,
    /// Nothing is at work any more and nothing will start.
    End(End),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every task is done.
    Done,
    /// A task failed.
    Failed,
    /// Stopped on request.
    Cancelled,
}

/// Where a run stands.
#[derive(Clone, Debug)]
pub(crate) struct State {
    jobs: Vec<Job>,
    /// By task: how many of its predecessors are not done.
    missing: Vec<usize>,
    /// By task: the tasks that wait for it.
    followers: Vec<Vec<usize>>,
    ready: BTreeSet<usize>,
    running: BTreeSet<usize>,
    done: usize,
    free_slots: usize,
    free_devices: Vec<bool>,
    stopping: Option<End>,
    ended: bool,
}

impl State {
    /// Nothing begun. `slots` tasks run at once at most, one a device.
    pub(crate) fn new(jobs: Vec<Job>, slots: usize, devices: usize) -> Self {
        let mut followers = vec![Vec::new(); jobs.len()];
        let mut missing = vec![0; jobs.len()];
        for (task, job) in jobs.iter().enumerate() {
            let after: BTreeSet<usize> = job.after.iter().copied().filter(|&other| other < jobs.len()).collect();
            missing[task] = after.len();
            for other in after {
                followers[other].push(task);
            }
        }
        let ready = (0..jobs.len()).filter(|&task| missing[task] == 0).collect();
        Self {
            jobs,
            missing,
            followers,
            ready,
            running: BTreeSet::new(),
            done: 0,
            free_slots: slots.max(1),
            free_devices: vec![true; devices],
            stopping: None,
            ended: false,
        }
    }
}

/// Takes note of what happened and says what to do now.
pub(crate) fn step(state: &mut State, happened: Happened) -> Vec<Command> {
    let mut commands = Vec::new();
    match happened {
        Happened::Started => {}
        Happened::Done(task) => {
            if state.release(task) {
                state.done += 1;
                for follower in std::mem::take(&mut state.followers[task]) {
                    state.missing[follower] -= 1;
                    if state.missing[follower] == 0 {
                        state.ready.insert(follower);
                    }
                }
            }
        }
        Happened::Failed(task) => {
            if state.release(task) {
                state.stopping.get_or_insert(End::Failed);
            }
        }
        Happened::Cancelled => {
            if !state.ended && state.stopping != Some(End::Cancelled) {
                state.stopping.get_or_insert(End::Cancelled);
                commands.push(Command::Stop);
            }
        }
    }
    if state.stopping.is_none() {
        state.start(&mut commands);
    }
    if state.running.is_empty() && !state.ended {
        // Tasks that wait for each other in a circle can never start: the planner makes none, but a run must end.
        let all = if state.done == state.jobs.len() { End::Done } else { End::Failed };
        state.ended = true;
        commands.push(Command::End(state.stopping.unwrap_or(all)));
    }
    commands
}

impl State {
    fn start(&mut self, commands: &mut Vec<Command>) {
        let candidates: Vec<usize> = self.ready.iter().copied().collect();
        for task in candidates {
            if self.free_slots == 0 {
                break;
            }
            if let Some(device) = self.jobs[task].device {
                match self.free_devices.get_mut(device) {
                    Some(free) if *free => *free = false,
                    Some(_) => continue,
                    None => {}
                }
            }
            self.ready.remove(&task);
            self.running.insert(task);
            self.free_slots -= 1;
            commands.push(Command::Run(task));
        }
    }

    /// Gives a task's slots back. False if it was not at work.
    fn release(&mut self, task: usize) -> bool {
        if !self.running.remove(&task) {
            return false;
        }
        self.free_slots += 1;
        if let Some(free) = self.jobs[task].device.and_then(|device| self.free_devices.get_mut(device)) {
            *free = true;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::Random;

    use super::*;

    /// A random graph of tasks, each after some with smaller numbers.
    fn jobs(random: &mut Random) -> Vec<Job> {
        let count = 1 + random.below(30);
        (0..count)
            .map(|task| Job {
                after: (0..random.below(4)).filter(|_| task > 0).map(|_| random.below(task.max(1))).collect(),
                device: (random.below(3) == 0).then(|| random.below(2)),
            })
            .collect()
    }

    /// Plays a run: tasks at work end in random order, some fail; returns all commands and the values computed.
    fn play(seed: u64, jobs: &[Job], failing: &BTreeSet<usize>, cancel_at: Option<usize>) -> (Vec<Command>, Vec<u64>) {
        let mut random = Random::new(seed, "play", "");
        let slots = 1 + random.below(4);
        let mut state = State::new(jobs.to_vec(), slots, 2);
        let (mut trace, mut values, mut running) = (Vec::new(), vec![0; jobs.len()], Vec::<usize>::new());
        let mut commands = step(&mut state, Happened::Started);
        for turn in 0.. {
            for command in &commands {
                match command {
                    Command::Run(task) => {
                        for other in &jobs[*task].after {
                            assert_ne!(values[*other], 0, "seed {seed}: {task} ran before {other} was done");
                        }
                        running.push(*task);
                    }
                    Command::End(_) => assert!(running.is_empty(), "seed {seed}: ended with work in flight"),
                    Command::Stop => {}
                }
            }
            assert!(running.len() <= slots, "seed {seed}");
            for device in 0..2 {
                let used = running.iter().filter(|&&task| jobs[task].device == Some(device)).count();
                assert!(used <= 1, "seed {seed}: device {device} used {used} times");
            }
            trace.append(&mut commands);
            if matches!(trace.last(), Some(Command::End(_))) {
                return (trace, values);
            }
            commands = if cancel_at == Some(turn) {
                step(&mut state, Happened::Cancelled)
            } else {
                let task = running.remove(random.below(running.len()));
                if failing.contains(&task) {
                    step(&mut state, Happened::Failed(task))
                } else {
                    values[task] = value(task, &jobs[task], &values);
                    step(&mut state, Happened::Done(task))
                }
            };
        }
        unreachable!()
    }

    fn value(task: usize, job: &Job, values: &[u64]) -> u64 {
        job.after.iter().fold(task as u64 + 1, |sum, &other| sum.wrapping_mul(31).wrapping_add(values[other]))
    }

    #[test]
    fn every_order_gives_what_running_one_by_one_gives() {
        for seed in 0..500 {
            let jobs = jobs(&mut Random::new(seed, "jobs", ""));
            let mut naive = vec![0; jobs.len()];
            for task in 0..jobs.len() {
                naive[task] = value(task, &jobs[task], &naive);
            }
            let (trace, values) = play(seed, &jobs, &BTreeSet::new(), None);
            assert_eq!(values, naive, "seed {seed}");
            assert_eq!(trace.last(), Some(&Command::End(End::Done)), "seed {seed}");
            assert_eq!(play(seed, &jobs, &BTreeSet::new(), None).0, trace, "seed {seed}: another trace");
        }
    }

    #[test]
    fn after_a_failure_nothing_starts_and_work_in_flight_is_recorded() {
        for seed in 0..500 {
            let mut random = Random::new(seed, "jobs", "");
            let jobs = jobs(&mut random);
            let failing = BTreeSet::from([random.below(jobs.len())]);
            let (trace, values) = play(seed, &jobs, &failing, None);
            assert_eq!(trace.last(), Some(&Command::End(End::Failed)), "seed {seed}");
            let started = trace.iter().filter(|command| matches!(command, Command::Run(_))).count();
            let done = values.iter().filter(|&&value| value != 0).count();
            assert_eq!(started, done + 1, "seed {seed}: what started is done, but for the one that failed");
        }
    }

    #[test]
    fn cancelling_stops_what_is_at_work_and_ends() {
        for seed in 0..300 {
            let jobs = jobs(&mut Random::new(seed, "jobs", ""));
            let (trace, values) = play(seed, &jobs, &BTreeSet::new(), Some(0));
            let stop = trace.iter().position(|command| *command == Command::Stop).expect("told to stop");
            assert!(!trace[stop..].iter().any(|command| matches!(command, Command::Run(_))), "seed {seed}");
            assert_eq!(trace.last(), Some(&Command::End(End::Cancelled)), "seed {seed}");
            let done = values.iter().filter(|&&value| value != 0).count();
            assert_eq!(done, trace.iter().filter(|command| matches!(command, Command::Run(_))).count(), "seed {seed}");
        }
    }

    #[test]
    fn no_tasks_end_at_once() {
        let mut state = State::new(Vec::new(), 2, 1);
        assert_eq!(step(&mut state, Happened::Started), [Command::End(End::Done)]);
        assert_eq!(step(&mut state, Happened::Cancelled), []);
    }
}
