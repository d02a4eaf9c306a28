//! Several runs over one store, in a made-up world: answers are late, lost or heard twice, work fails, hangs and is deaf,
//! what was made vanishes, runs die and come again. All chance comes from a seed, so a seed is a story.

use std::collections::{BTreeMap, BTreeSet};

use runner_contract::Random;

use super::{Answer, Command, End, Ended, Event, Job, Millis, Recorded, State, step};

/// What may go wrong, each in so many of a hundred cases.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    pub(super) fails: usize,
    /// Fails whatever is tried: so many of a hundred tasks.
    pub(super) hopeless: usize,
    pub(super) hangs: usize,
    /// Of those that are told to stop.
    pub(super) deaf: usize,
    pub(super) lost: usize,
    pub(super) twice: usize,
    pub(super) vanishes: usize,
    /// The first run dies.
    pub(super) dies: usize,
    /// Somebody asks the first run to finish, or to stop.
    pub(super) cancelled: usize,
}

/// A task being worked on, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) run: usize,
    pub(super) task: usize,
    pub(super) turn: u32,
    pub(super) until: Millis,
}

/// Something in the world's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: Millis,
    pub(super) run: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Heard(Event),
    Says(Command),
    /// A task's result came to be recorded.
    Made(usize),
    Died,
}

/// One run.
pub(super) struct Run {
    pub(super) state: State,
    pub(super) alive: bool,
    pub(super) ended: Option<(Millis, End)>,
    pub(super) asked_to_stop: Option<Millis>,
}

/// See the module.
pub(super) struct World {
    pub(super) jobs: Vec<Job>,
    pub(super) slots: usize,
    pub(super) trouble: Trouble,
    pub(super) now: Millis,
    pub(super) runs: Vec<Run>,
    pub(super) trace: Vec<Line>,
    /// What is at work, whether or not somebody still waits for it.
    pub(super) attempts: Vec<Attempt>,
    pub(super) given_up: Vec<(usize, usize, u32)>,
    /// The store: what each task made.
    pub(super) made: BTreeMap<usize, u64>,
    leases: BTreeMap<usize, usize>,
    random: Random,
    /// What happens next: when, in which order, to whom.
    coming: BTreeMap<(Millis, usize), (usize, Event)>,
    counter: usize,
    hopeless: BTreeSet<usize>,
    died: bool,
}

/// What a task makes of what those before it made.
pub(super) fn value(task: usize, job: &Job, value: impl Fn(usize) -> u64) -> u64 {
    job.after.iter().fold(task as u64 + 1, |sum, &other| sum.wrapping_mul(31).wrapping_add(value(other)))
}

/// The same without any of this: one task after another.
pub(super) fn naive(jobs: &[Job]) -> BTreeMap<usize, u64> {
    let mut made = BTreeMap::new();
    for (task, job) in jobs.iter().enumerate() {
        let own = value(task, job, |other| made[&other]);
        made.insert(task, own);
    }
    made
}

/// A random graph of tasks, each after some with smaller numbers.
pub(super) fn graph(random: &mut Random) -> Vec<Job> {
    let count = 1 + random.below(24);
    (0..count)
        .map(|task| Job {
            after: (0..random.below(4)).filter(|_| task > 0).map(|_| random.below(task.max(1))).collect(),
            barrier: random.below(8) == 0,
            device: (random.below(3) == 0).then(|| random.below(2)),
            timeout: (random.below(3) == 0).then(|| 9_000 + random.below(60_000) as Millis),
            retries: random.below(4) as u32,
            saves: random.below(6) == 0,
        })
        .collect()
}

impl World {
    pub(super) fn new(seed: u64, trouble: Trouble) -> Self {
        let mut random = Random::new(seed, "world", "");
        let jobs = graph(&mut random);
        let runs = 1 + random.below(3);
        let slots = 1 + random.below(4);
        let hopeless = (0..jobs.len()).filter(|_| random.below(100) < trouble.hopeless).collect();
        let mut world = Self {
            jobs,
            slots,
            trouble,
            now: 0,
            runs: Vec::new(),
            trace: Vec::new(),
            attempts: Vec::new(),
            given_up: Vec::new(),
            made: BTreeMap::new(),
            leases: BTreeMap::new(),
            random,
            coming: BTreeMap::new(),
            counter: 0,
            hopeless,
            died: false,
        };
        for _ in 0..runs {
            world.join();
        }
        if world.chance(world.trouble.cancelled) {
            let at = world.random.below(20_000) as Millis;
            let first = if world.random.below(2) == 0 { Event::Finish } else { Event::Stop };
            world.later(0, at, first);
            world.later(0, at + 3_000, Event::Stop);
        }
        world
    }

    /// What a task made, or 0; of a barrier what those before it made.
    fn result(&self, task: usize) -> u64 {
        let job = &self.jobs[task];
        if job.barrier {
            return value(task, job, |other| self.result(other));
        }
        self.made.get(&task).copied().unwrap_or(0)
    }

    /// The tasks that a task waits for, those behind barriers instead of the barriers.
    pub(super) fn inputs(&self, task: usize) -> Vec<usize> {
        let after = &self.jobs[task].after;
        after
            .iter()
            .flat_map(|&other| if self.jobs[other].barrier { self.inputs(other) } else { vec![other] })
            .collect()
    }

    fn join(&mut self) {
        let state = State::new(self.jobs.clone(), self.slots, 2);
        self.runs.push(Run { state, alive: true, ended: None, asked_to_stop: None });
        let delay = self.random.below(500) as Millis;
        self.later(self.runs.len() - 1, delay, Event::Started);
    }

    fn chance(&mut self, of_a_hundred: usize) -> bool {
        of_a_hundred > 0 && self.random.below(100) < of_a_hundred
    }

    fn later(&mut self, run: usize, delay: Millis, event: Event) {
        self.counter += 1;
        self.coming.insert((self.now + delay, self.counter), (run, event));
    }

    /// Brings an answer to a run, perhaps twice, perhaps never.
    fn answer(&mut self, run: usize, delay: Millis, event: Event) {
        if !self.chance(self.trouble.lost) {
            self.later(run, delay, event);
        }
        if self.chance(self.trouble.twice) {
            let delay = delay + self.random.below(30_000) as Millis;
            self.later(run, delay, event);
        }
    }

    /// Lets the next thing happen. Returns whose it was, or `None` at the end of the story.
    pub(super) fn next(&mut self) -> Option<usize> {
        let waking = self.runs.iter().enumerate().filter(|(_, run)| run.alive && run.ended.is_none());
        let waking = waking.filter_map(|(number, run)| Some((run.state.wake()?, number))).min();
        let coming = self.coming.first_key_value().map(|((at, _), (run, _))| (*at, *run));
        let (run, event) = match (coming, waking) {
            (None, None) => return None,
            (Some((at, _)), Some((wake, run))) if wake < at => {
                self.now = self.now.max(wake);
                (run, Event::Woken)
            }
            (None, Some((wake, run))) => {
                self.now = self.now.max(wake);
                (run, Event::Woken)
            }
            (Some(_), _) => {
                let ((at, _), (run, event)) = self.coming.pop_first()?;
                self.now = self.now.max(at);
                (run, event)
            }
        };
        self.hear(run, event);
        if !self.died && self.chance(self.trouble.dies) && self.random.below(10) == 0 {
            self.die(run);
        }
        Some(run)
    }

    fn hear(&mut self, run: usize, event: Event) {
        if !self.runs[run].alive {
            return;
        }
        if let Event::Ended { task, turn, .. } = event {
            self.attempts.retain(|at| (at.run, at.task, at.turn) != (run, task, turn));
        }
        if event == Event::Stop {
            self.runs[run].asked_to_stop.get_or_insert(self.now);
        }
        self.trace.push(Line { at: self.now, run, what: What::Heard(event) });
        let commands = step(&mut self.runs[run].state, self.now, event);
        for command in commands {
            self.trace.push(Line { at: self.now, run, what: What::Says(command) });
            self.obey(run, command);
        }
    }

    /// The process is gone: nobody hears its answers, its leases are free. Another run comes.
    fn die(&mut self, run: usize) {
        self.died = true;
        self.runs[run].alive = false;
        self.attempts.retain(|at| at.run != run);
        self.coming.retain(|_, (whose, _)| *whose != run);
        self.trace.push(Line { at: self.now, run, what: What::Died });
        self.join();
    }

    fn obey(&mut self, run: usize, command: Command) {
        let delay = 1 + self.random.below(40) as Millis;
        match command {
            Command::Ask { task, turn } => {
                let holder = self.leases.get(&task).filter(|&&other| other != run);
                let held = holder.is_some_and(|&other| self.runs[other].alive && self.runs[other].ended.is_none());
                let answer = match (self.made.contains_key(&task), held) {
                    (true, _) => Answer::Made,
                    (false, true) => Answer::Held,
                    (false, false) => {
                        self.leases.insert(task, run);
                        Answer::Yours
                    }
                };
                self.answer(run, delay, Event::Asked { task, turn, answer });
            }
            Command::Run { task, turn, .. } => {
                let mut took = 1 + self.random.below(8_000) as Millis;
                let how = if self.hopeless.contains(&task) || self.chance(self.trouble.fails) {
                    Ended::Failed { retries: self.jobs[task].retries }
                } else {
                    Ended::Done
                };
                if self.chance(self.trouble.hangs) {
                    took = 10_000_000;
                }
                self.attempts.push(Attempt { run, task, turn, until: self.now + took });
                self.answer(run, took, Event::Ended { task, turn, how });
            }
            Command::Check { task, turn } => {
                let at_work = self.attempts.iter().any(|at| {
                    (at.run, at.task, at.turn) == (run, task, turn) && at.until > self.now && at.until < 1_000_000
                });
                if !at_work {
                    self.attempts.retain(|at| (at.run, at.task, at.turn) != (run, task, turn));
                    self.answer(run, delay, Event::Gone { task, turn });
                }
            }
            Command::Save { task, turn } | Command::Stop { task, turn, .. } => {
                if !self.chance(self.trouble.deaf) {
                    self.answer(run, delay, Event::Ended { task, turn, how: Ended::Stopped });
                }
            }
            Command::Abandon { task, turn } => {
                self.given_up.push((run, task, turn));
                self.attempts.retain(|at| (at.run, at.task, at.turn) != (run, task, turn));
            }
            Command::Record { task, turn } => {
                let vanished = self.chance(self.trouble.vanishes);
                if !vanished && !self.made.contains_key(&task) {
                    let made = value(task, &self.jobs[task], |other| self.result(other));
                    self.made.insert(task, made);
                    self.leases.remove(&task);
                    self.trace.push(Line { at: self.now, run, what: What::Made(task) });
                }
                let how = if vanished { Recorded::Vanished } else { Recorded::Done };
                self.answer(run, delay, Event::Recorded { task, turn, how });
            }
            Command::Release { task } => {
                if self.leases.get(&task) == Some(&run) {
                    self.leases.remove(&task);
                }
            }
            Command::Retry { .. } => {}
            Command::End(end) => self.runs[run].ended = Some((self.now, end)),
        }
    }
}
