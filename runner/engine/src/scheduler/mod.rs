//! Which task runs when. No I/O and no clock: [`step`] takes what happened, and when, and says what to do.
//!
//! A task waits for others, asks for its keys, runs, and is recorded:
//!
//! ```text
//! Blocked ─▶ Ready ─▶ Asking ─▶ Running ─▶ Recording ─▶ Done
//!              ▲         │ held    │ failed     │ vanished
//!              └──────── Resting ◀─┴────────────┘
//! ```
//!
//! Asking and Running hold a slot (and the task's device); nothing else does. So neither a retry that waits for its
//! time nor a task whose keys another run has leased keeps others from working.
//!
//! Whatever is asked of the world carries the task's *turn*, which is raised whenever the task starts over. An answer with
//! another turn, or one that the task does not wait for, is late or heard before and changes nothing. An answer that is lost is
//! made up for: claims and records are asked for again (both can be repeated), and work is checked on now and then.
//!
//! After a failure nothing new starts, what is at work may end and be recorded. To *finish* is the same on request, and
//! those that can save where they are do so and stop; to stop *now* tells all that is at work to stop, and what does not
//! react within [`GRACE`] is given up on.

mod state;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub(crate) use state::State;

/// Milliseconds since the run began.
pub(crate) type Millis = u64;

/// What does not react so long after it was told to stop is given up on.
pub(crate) const GRACE: Millis = 10_000;
/// Rest before the first retry; doubles with each.
const FIRST_RETRY: Millis = 1_000;
/// Longest rest before a retry.
const LAST_RETRY: Millis = 60_000;
/// Rest before asking again for keys that another run has leased; doubles with each time.
const FIRST_HELD: Millis = 100;
/// Longest such rest.
const LAST_HELD: Millis = 2_000;
/// An answer about a claim or a record that takes longer is taken for lost. More than the store takes to give up.
const PATIENCE: Millis = 120_000;
/// How often work without a time limit is checked on.
const CHECK: Millis = 60_000;
/// How often a task is repeated because what it made vanished before it was recorded.
const REPEATS: u32 = 5;

/// A task, as far as scheduling is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Job {
    /// Tasks that have to be done before. Numbers of other tasks.
    pub(crate) after: Vec<usize>,
    /// Nothing to do: done when those before it are done. Stands for many in the lists of many.
    pub(crate) barrier: bool,
    /// The device that it needs a slot of.
    pub(crate) device: Option<usize>,
    /// How long an attempt may take.
    pub(crate) timeout: Option<Millis>,
    /// How often an attempt that took too long is repeated.
    pub(crate) retries: u32,
    /// Can save where it is and go on from there.
    pub(crate) saves: bool,
}

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// The run begins.
    Started,
    /// The moment that [`State::wake`] named has come.
    Woken,
    /// The answer to [`Command::Ask`].
    Asked { task: usize, turn: u32, answer: Answer },
    /// What was begun with [`Command::Run`] ended.
    Ended { task: usize, turn: u32, how: Ended },
    /// The answer to [`Command::Record`].
    Recorded { task: usize, turn: u32, how: Recorded },
    /// The answer to [`Command::Check`] where nobody works on the task and nobody will tell how it ended.
    Gone { task: usize, turn: u32 },
    /// Somebody wants the run to finish what it has begun, and end.
    Finish,
    /// Somebody wants the run to stop.
    Stop,
    /// The run cannot go on: nothing that it makes can be recorded any more.
    Broken,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// The task is ours to do.
    Yours,
    /// Somebody did it already.
    Made,
    /// Another run is doing it.
    Held,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    /// What it made is stored, and can be recorded.
    Done,
    /// It failed, as something that may be repeated so often.
    Failed { retries: u32 },
    /// It stopped because it was told to.
    Stopped,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Recorded {
    /// It is there.
    Done,
    /// What was made is there no more.
    Vanished,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Command {
    /// Ask for the task's keys.
    Ask { task: usize, turn: u32 },
    /// Start an attempt, the n-th from 1.
    Run { task: usize, turn: u32, attempt: u32 },
    /// See whether somebody still works on it.
    Check { task: usize, turn: u32 },
    /// Tell it to save where it is, and to stop.
    Save { task: usize, turn: u32 },
    /// Tell it to stop, because its time is over (`late`) or the run stops.
    Stop { task: usize, turn: u32, late: bool },
    /// It did not react to [`Command::Stop`]: whatever becomes of it, nobody waits for it.
    Abandon { task: usize, turn: u32 },
    /// Record what it made.
    Record { task: usize, turn: u32 },
    /// Another attempt follows after so long.
    Retry { task: usize, failures: u32, after: Millis },
    /// It will not be done: others may have its keys.
    Release { task: usize },
    /// Nothing is at work any more and nothing will start.
    End(End),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// Every task is done.
    Done,
    /// A task failed.
    Failed,
    /// Stopped on request.
    Cancelled,
}

/// Takes note of what happened and says what to do now.
pub(crate) fn step(state: &mut State, now: Millis, event: Event) -> Vec<Command> {
    let mut commands = Vec::new();
    state.note(now, event, &mut commands);
    state.start(now, &mut commands);
    commands.extend(state.end().map(Command::End));
    commands
}

/// `first`, doubled `times` times, at most `last`.
fn back_off(first: Millis, times: u32, last: Millis) -> Millis {
    first.saturating_mul(1u64.checked_shl(times).unwrap_or(u64::MAX)).min(last)
}
