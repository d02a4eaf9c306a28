//! What must hold in every story, whatever happens in it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Answer, Command, End, Ended, Event, GRACE, Job, Recorded, State,
    simulation::{Line, Trouble, What, World, naive},
    state::Phase,
    step,
};

// ------------------------------------------------------------------------------------- after every step of one run

fn never_runs_before_its_inputs(world: &World, _run: usize) -> Result<(), String> {
    let Some(Line { what: What::Says(Command::Run { task, .. }), .. }) = world.trace.last() else { return Ok(()) };
    match world.inputs(*task).iter().find(|other| !world.made.contains_key(other)) {
        Some(other) => Err(format!("{task} runs before {other} is made")),
        None => Ok(()),
    }
}

fn never_exceeds_slots(world: &World, run: usize) -> Result<(), String> {
    let at_work: Vec<usize> = at_work(world, run);
    if at_work.len() > world.slots {
        return Err(format!("{at_work:?} at work in {} slots", world.slots));
    }
    for device in 0..2 {
        let using = at_work.iter().filter(|&&task| world.jobs[task].device == Some(device)).count();
        if using > 1 {
            return Err(format!("device {device} used {using} times: {at_work:?}"));
        }
    }
    Ok(())
}

/// What rests, waits or records leaves its slot to others: slots are held by those that ask or run, and by no others.
fn a_waiting_retry_holds_no_slot(world: &World, run: usize) -> Result<(), String> {
    let state = &world.runs[run].state;
    let holding = |task: &usize| matches!(state.phase(*task), Phase::Asking | Phase::Running(_));
    let held = (0..world.jobs.len()).filter(holding).count();
    if state.free_slots() + held == world.slots {
        Ok(())
    } else {
        Err(format!("{} slots free and {held} held of {}", state.free_slots(), world.slots))
    }
}

/// No slot is free while a task could use it.
fn no_slot_is_idle(world: &World, run: usize) -> Result<(), String> {
    let state = &world.runs[run].state;
    if state.stopping() || state.free_slots() == 0 || !world.runs[run].alive {
        return Ok(());
    }
    let phases: Vec<Phase> = (0..world.jobs.len()).map(|task| state.phase(task)).collect();
    let taken = |device: usize| {
        let mut all = phases.iter().zip(&world.jobs);
        all.any(|(at, job)| job.device == Some(device) && matches!(at, Phase::Asking | Phase::Running(_)))
    };
    let waits = |task: &usize| phases[*task] == Phase::Ready && !world.jobs[*task].device.is_some_and(taken);
    match (0..world.jobs.len()).find(waits) {
        Some(task) => Err(format!("{task} could start")),
        None => Ok(()),
    }
}

/// Two runs never work on the same task at a time, nor one run twice, but for work that was given up on.
fn a_task_is_worked_on_once_at_a_time(world: &World, _run: usize) -> Result<(), String> {
    let mut working = BTreeMap::new();
    for at in world.attempts.iter().filter(|at| at.until > world.now && at.until < 1_000_000) {
        // A run that has ended leaves nothing at work; one that asked again after a lost answer may have two.
        if let Some(other) = working.insert(at.task, at.run).filter(|other| *other != at.run) {
            return Err(format!("{} in runs {other} and {}", at.task, at.run));
        }
    }
    Ok(())
}

fn nothing_starts_once_it_stops(world: &World, run: usize) -> Result<(), String> {
    let told = |line: &&Line| line.run == run && matches!(line.what, What::Heard(Event::Finish | Event::Stop));
    let (Some(Line { what: What::Says(Command::Ask { task, .. } | Command::Run { task, .. }), .. }), Some(_)) =
        (world.trace.last(), world.trace.iter().find(told))
    else {
        return Ok(());
    };
    Err(format!("{task} starts"))
}

fn at_work(world: &World, run: usize) -> Vec<usize> {
    let own = world.attempts.iter().filter(|at| at.run == run && at.until > world.now);
    let current = own.filter(|at| world.runs[run].state.turn(at.task) == at.turn);
    current.map(|at| at.task).collect()
}

// ----------------------------------------------------------------------------------------------- at the end of the story

/// Every run that lived says how it ended, once, and as the last thing.
fn ends(world: &World) -> Result<(), String> {
    for (number, run) in world.runs.iter().enumerate().filter(|(_, run)| run.alive) {
        let said = world.trace.iter().filter(|line| line.run == number);
        let ends = said.filter(|line| matches!(line.what, What::Says(Command::End(_)))).count();
        if ends != 1 || run.ended.is_none() {
            return Err(format!("run {number} ended {ends} times"));
        }
    }
    Ok(())
}

/// Nothing is recorded twice, and what is recorded is not begun again.
fn work_is_done_once(world: &World) -> Result<(), String> {
    let mut made = BTreeSet::new();
    for line in &world.trace {
        match line.what {
            What::Made(task) if !made.insert(task) => return Err(format!("{task} was made twice")),
            What::Says(Command::Run { task, turn, .. }) if made.contains(&task) => {
                // Another run may have stolen the lease of one that ended without waiting for it.
                return Err(format!("{task}, turn {turn}, runs in {} though it is made", line.run));
            }
            _ => {}
        }
    }
    Ok(())
}

fn a_run_that_succeeds_has_made_all(world: &World) -> Result<(), String> {
    let done = world.runs.iter().any(|run| matches!(run.ended, Some((_, End::Done))));
    let missing = (0..world.jobs.len()).find(|task| !world.jobs[*task].barrier && !world.made.contains_key(task));
    match missing.filter(|_| done) {
        Some(task) => Err(format!("{task} is not made")),
        None => Ok(()),
    }
}

fn results_are_those_of_one_task_after_another(world: &World) -> Result<(), String> {
    let expected = naive(&world.jobs);
    match world.made.iter().find(|(task, made)| expected[task] != **made) {
        Some((task, made)) => Err(format!("{task} made {made}, expected {}", expected[task])),
        None => Ok(()),
    }
}

/// Told to stop, a run ends as soon as what it works on had its grace, and the store answered.
fn stops_soon(world: &World) -> Result<(), String> {
    for run in &world.runs {
        if let (Some(told), Some((ended, _))) = (run.asked_to_stop, run.ended) {
            let records = if world.trouble.lost > 0 { 20 * super::PATIENCE } else { 200 };
            if ended > told + GRACE + records {
                return Err(format!("told to at {told}, ended at {ended}"));
            }
        }
    }
    Ok(())
}

type AtEveryStep = fn(&World, usize) -> Result<(), String>;
type AtTheEnd = fn(&World) -> Result<(), String>;

const ALWAYS: &[(&str, AtEveryStep)] = &[
    ("never_runs_before_its_inputs", never_runs_before_its_inputs),
    ("never_exceeds_slots", never_exceeds_slots),
    ("a_waiting_retry_holds_no_slot", a_waiting_retry_holds_no_slot),
    ("no_slot_is_idle", no_slot_is_idle),
    ("a_task_is_worked_on_once_at_a_time", a_task_is_worked_on_once_at_a_time),
    ("nothing_starts_once_it_stops", nothing_starts_once_it_stops),
];
const IN_THE_END: &[(&str, AtTheEnd)] = &[
    ("ends", ends),
    ("work_is_done_once", work_is_done_once),
    ("a_run_that_succeeds_has_made_all", a_run_that_succeeds_has_made_all),
    ("results_are_those_of_one_task_after_another", results_are_those_of_one_task_after_another),
    ("stops_soon", stops_soon),
];
/// More steps than any story has.
const STEPS: usize = 100_000;

/// Plays a story to its end and checks it on the way.
fn play(seed: u64, trouble: Trouble) -> World {
    let mut world = World::new(seed, trouble);
    let complain = |name: &str, world: &World, reason: String| {
        let tail: Vec<String> = world.trace.iter().rev().take(40).rev().map(|line| format!("{line:?}")).collect();
        panic!("seed {seed}, {trouble:?}: {name}: {reason}\n{}", tail.join("\n"));
    };
    for _ in 0..STEPS {
        let Some(run) = world.next() else { break };
        for (name, holds) in ALWAYS {
            if let Err(reason) = holds(&world, run) {
                complain(name, &world, reason);
            }
        }
    }
    for (name, holds) in IN_THE_END {
        if let Err(reason) = holds(&world) {
            complain(name, &world, reason);
        }
    }
    world
}

fn stories(seeds: std::ops::Range<u64>, trouble: Trouble) -> Vec<World> {
    seeds
        .map(|seed| {
            let world = play(seed, trouble);
            assert!(play(seed, trouble).trace == world.trace, "seed {seed}: another trace the second time");
            world
        })
        .collect()
}

#[test]
fn in_a_good_world_every_run_does_everything_together_once() {
    for world in stories(0..800, Trouble::default()) {
        assert!(world.runs.iter().all(|run| matches!(run.ended, Some((_, End::Done)))));
        let ran = world.trace.iter().filter(|line| matches!(line.what, What::Says(Command::Run { .. }))).count();
        assert_eq!(ran, world.jobs.iter().filter(|job| !job.barrier).count(), "every task ran in one run");
    }
}

#[test]
fn failures_are_repeated_as_often_as_allowed() {
    let worlds = stories(0..500, Trouble { fails: 25, hopeless: 2, ..Trouble::default() });
    let retries = |line: &&Line| matches!(line.what, What::Says(Command::Retry { .. }));
    let retried = worlds.iter().flat_map(|world| &world.trace).filter(retries).count();
    assert!(retried > 500, "{retried}");
    for world in worlds {
        for line in &world.trace {
            if let What::Says(Command::Run { task, attempt, .. }) = line.what {
                assert!(attempt <= world.jobs[task].retries + 1);
            }
        }
    }
}

#[test]
fn answers_that_are_lost_late_or_heard_twice_do_no_harm() {
    let worlds = stories(0..500, Trouble { lost: 10, twice: 20, vanishes: 3, ..Trouble::default() });
    // With retries left for the time limits that a lost answer runs into, most get through.
    let done = worlds.iter().flat_map(|world| &world.runs).filter(|run| matches!(run.ended, Some((_, End::Done))));
    assert!(done.count() > 600);
}

#[test]
fn the_leases_of_the_dead_are_taken_over() {
    let worlds = stories(0..500, Trouble { dies: 60, ..Trouble::default() });
    assert!(worlds.iter().filter(|world| world.runs.iter().any(|run| !run.alive)).count() > 200);
    for world in worlds {
        assert!(world.runs.iter().filter(|run| run.alive).all(|run| matches!(run.ended, Some((_, End::Done)))));
    }
}

#[test]
fn whatever_happens_every_run_ends_and_what_is_made_is_right() {
    let everything = Trouble {
        fails: 10,
        hopeless: 1,
        hangs: 4,
        deaf: 30,
        lost: 6,
        twice: 12,
        vanishes: 2,
        dies: 30,
        cancelled: 30,
    };
    let worlds = stories(1_000..2_000, everything);
    let gave_up = worlds.iter().filter(|world| !world.given_up.is_empty()).count();
    assert!(gave_up > 50, "{gave_up}");
}

#[test]
fn told_to_stop_a_run_stops() {
    let worlds = stories(0..500, Trouble { cancelled: 100, hangs: 5, deaf: 40, ..Trouble::default() });
    let cancelled = worlds.iter().filter(|world| matches!(world.runs[0].ended, Some((_, End::Cancelled)))).count();
    assert!(cancelled > 250, "{cancelled}");
}

// ------------------------------------------------------------------------------------------------------- single stories

fn asked(task: usize, turn: u32, answer: Answer) -> Event {
    Event::Asked { task, turn, answer }
}

fn ended(task: usize, turn: u32, how: Ended) -> Event {
    Event::Ended { task, turn, how }
}

#[test]
fn an_event_of_an_older_turn_changes_nothing() {
    let job = Job { retries: 3, ..Job::default() };
    let mut state = State::new(vec![job], 1, 0);
    assert_eq!(step(&mut state, 0, Event::Started), [Command::Ask { task: 0, turn: 1 }]);
    step(&mut state, 1, asked(0, 1, Answer::Yours));
    let failed = Ended::Failed { retries: 3 };
    let retry = Command::Retry { task: 0, failures: 1, after: 1_000 };
    assert_eq!(step(&mut state, 2, ended(0, 1, failed)), [retry]);
    assert_eq!(state.wake(), Some(1_002));
    assert_eq!(step(&mut state, 1_002, Event::Woken), [Command::Ask { task: 0, turn: 2 }]);
    step(&mut state, 1_003, asked(0, 2, Answer::Yours));
    let before = state.clone();
    for late in [
        ended(0, 1, Ended::Done),
        ended(0, 1, failed),
        asked(0, 1, Answer::Made),
        asked(0, 2, Answer::Held),
        Event::Recorded { task: 0, turn: 2, how: Recorded::Done },
        Event::Gone { task: 0, turn: 1 },
        ended(7, 1, Ended::Done),
    ] {
        assert_eq!(step(&mut state, 1_004, late), []);
        assert_eq!(state, before, "{late:?}");
    }
    assert_eq!(step(&mut state, 1_005, ended(0, 2, Ended::Done)), [Command::Record { task: 0, turn: 2 }]);
    let recorded = Event::Recorded { task: 0, turn: 2, how: Recorded::Done };
    assert_eq!(step(&mut state, 1_006, recorded), [Command::End(End::Done)]);
    assert_eq!(step(&mut state, 1_007, recorded), []);
}

#[test]
fn what_does_not_react_to_its_time_limit_is_given_up_on_and_repeated() {
    let slow = Job { timeout: Some(500), retries: 1, ..Job::default() };
    let mut state = State::new(vec![slow, Job::default()], 1, 0);
    step(&mut state, 0, Event::Started);
    step(&mut state, 0, asked(0, 1, Answer::Yours));
    assert_eq!(step(&mut state, 500, Event::Woken), [Command::Stop { task: 0, turn: 1, late: true }]);
    let given_up = step(&mut state, 500 + GRACE, Event::Woken);
    let retry = Command::Retry { task: 0, failures: 1, after: 1_000 };
    let other = Command::Ask { task: 1, turn: 1 };
    assert_eq!(given_up, [Command::Abandon { task: 0, turn: 1 }, retry, other], "its slot is free");
}

#[test]
fn to_finish_lets_work_end_and_has_jobs_save() {
    let job = Job { saves: true, ..Job::default() };
    let mut state = State::new(vec![job, Job::default(), Job::default()], 2, 0);
    step(&mut state, 0, Event::Started);
    step(&mut state, 0, asked(0, 1, Answer::Yours));
    step(&mut state, 0, asked(1, 1, Answer::Yours));
    assert_eq!(step(&mut state, 1, Event::Finish), [Command::Save { task: 0, turn: 1 }]);
    assert_eq!(step(&mut state, 1, Event::Finish), []);
    assert_eq!(step(&mut state, 2, ended(0, 1, Ended::Stopped)), [Command::Release { task: 0 }]);
    assert_eq!(step(&mut state, 3, ended(1, 1, Ended::Done)), [Command::Record { task: 1, turn: 1 }]);
    let recorded = Event::Recorded { task: 1, turn: 1, how: Recorded::Done };
    assert_eq!(step(&mut state, 4, recorded), [Command::End(End::Cancelled)]);
}

#[test]
fn a_run_whose_records_are_lost_ends_without_their_answers() {
    let mut state = State::new(vec![Job::default(); 4], 3, 0);
    step(&mut state, 0, Event::Started);
    step(&mut state, 0, asked(0, 1, Answer::Yours));
    step(&mut state, 0, asked(1, 1, Answer::Yours));
    step(&mut state, 1, ended(0, 1, Ended::Done));
    let broken = step(&mut state, 2, Event::Broken);
    assert_eq!(broken[0], Command::Stop { task: 1, turn: 1, late: false });
    assert!(!broken.iter().any(|command| matches!(command, Command::End(_))), "what works may still react");
    let end = step(&mut state, 3, ended(1, 1, Ended::Done));
    assert_eq!(end, [Command::Release { task: 1 }, Command::End(End::Failed)]);
}

#[test]
fn no_tasks_end_at_once_and_circles_end_too() {
    let mut state = State::new(Vec::new(), 2, 1);
    assert_eq!(step(&mut state, 0, Event::Started), [Command::End(End::Done)]);
    assert_eq!(step(&mut state, 1, Event::Finish), []);
    let circle = |after| Job { after: vec![after], ..Job::default() };
    let mut state = State::new(vec![circle(1), circle(0)], 2, 1);
    assert_eq!(step(&mut state, 0, Event::Started), [Command::End(End::Failed)]);
}

#[test]
fn a_hundred_thousand_tasks_behind_barriers_take_no_time() {
    let many = 50_000;
    let mut jobs = vec![Job { device: Some(0), ..Job::default() }; many];
    jobs.push(Job { barrier: true, after: (0..many).collect(), ..Job::default() });
    jobs.extend((0..many).map(|_| Job { after: vec![many], ..Job::default() }));
    let mut state = State::new(jobs, 2, 1);
    let mut commands = step(&mut state, 0, Event::Started);
    let mut ran = 0;
    let begun = std::time::Instant::now();
    while let Some(command) = commands.pop() {
        let event = match command {
            Command::Ask { task, turn } => asked(task, turn, Answer::Yours),
            Command::Run { task, turn, .. } => {
                ran += 1;
                ended(task, turn, Ended::Done)
            }
            Command::Record { task, turn } => Event::Recorded { task, turn, how: Recorded::Done },
            other => {
                assert_eq!(other, Command::End(End::Done));
                break;
            }
        };
        commands.extend(step(&mut state, 0, event));
    }
    assert_eq!(ran, 2 * many);
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}
