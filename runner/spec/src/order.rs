//! The order in which stages can be checked and run, and the circles that keep them from having one.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use crate::{
    declare::Declared,
    report::{Mistake, Report},
};

/// Names of a circle that are shown.
const MAX_SHOWN: usize = 8;

/// Positions of the stages, what is read before its readers, otherwise as in the file; then those that have no order.
pub(crate) struct Order {
    /// All positions.
    pub(crate) positions: Vec<usize>,
    /// How many of them are in order. The others are in circles or behind them.
    pub(crate) sorted: usize,
}

/// Sorts the stages and reports the circles.
pub(crate) fn sort(stages: &[Declared<'_>], report: &mut Report) -> Order {
    let before: Vec<Vec<_>> = stages.iter().map(|stage| stage.reads().chain(&stage.needs).collect()).collect();
    let mut waiting: Vec<_> = before.iter().map(Vec::len).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); stages.len()];
    for (reader, links) in before.iter().enumerate() {
        for link in links {
            if let Some(readers) = readers.get_mut(link.stage) {
                readers.push(reader);
            }
        }
    }
    let mut ready: BinaryHeap<_> =
        waiting.iter().enumerate().filter(|(_, count)| **count == 0).map(|(stage, _)| Reverse(stage)).collect();
    let mut positions = Vec::with_capacity(stages.len());
    while let Some(Reverse(stage)) = ready.pop() {
        positions.push(stage);
        for &reader in readers.get(stage).into_iter().flatten() {
            if let Some(count) = waiting.get_mut(reader) {
                *count -= 1;
                if *count == 0 {
                    ready.push(Reverse(reader));
                }
            }
        }
    }
    let sorted = positions.len();
    let stuck: Vec<_> = (0..stages.len()).filter(|&stage| waiting.get(stage).is_some_and(|count| *count > 0)).collect();
    circles(stages, &before, &waiting, &stuck, report);
    positions.extend(stuck);
    Order { positions, sorted }
}

/// Follows, from each stage that is stuck, what it waits for until something comes twice.
fn circles(
    stages: &[Declared<'_>],
    before: &[Vec<&crate::declare::Link<'_>>],
    waiting: &[usize],
    stuck: &[usize],
    report: &mut Report,
) {
    // Which walk came by, and as which step.
    let mut seen: HashMap<usize, usize> = HashMap::new();
    for (walk, &start) in stuck.iter().enumerate() {
        let mut path: Vec<&crate::declare::Link<'_>> = Vec::new();
        let mut at = start;
        while !seen.contains_key(&at) {
            seen.insert(at, walk);
            let next =
                before.get(at).into_iter().flatten().find(|l| waiting.get(l.stage).is_some_and(|count| *count > 0));
            let Some(next) = next else { break };
            path.push(next);
            at = next.stage;
        }
        if path.is_empty() || seen.get(&at) != Some(&walk) {
            continue;
        }
        // The walk ends where the circle begins; what leads there is no part of it.
        let from =
            path.iter().position(|link| link.stage == at).map_or(0, |first| if start == at { 0 } else { first + 1 });
        let name = |stage: usize| stages.get(stage).map_or("", |stage| stage.name);
        let mut names = vec![name(at)];
        let circle = path.get(from..).unwrap_or_default();
        names.extend(circle.iter().map(|link| name(link.stage)));
        let length = names.len();
        let mut shown: Vec<_> = names.iter().take(MAX_SHOWN).map(|name| format!("`{name}`")).collect();
        if length > MAX_SHOWN {
            shown.push(format!("… ({} more)", length - MAX_SHOWN));
        }
        let message = if length == 2 {
            format!("stage `{}` waits for itself", name(at))
        } else {
            format!("stages wait for each other in a circle: {}", shown.join(" → "))
        };
        let Some(first) = circle.first() else { continue };
        report.add(Mistake::at(first.span, message).hint("one of them must read something else"));
    }
}
