//! The order in which stages can be checked and run, and the circles that keep them from having one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque},
};

use crate::{
    declare::{Declared, Link},
    report::{Mistake, Report},
};

/// Names of a circle that are shown.
const MAX_SHOWN: usize = 8;
/// Circles that are reported for one set of stages.
const MAX_ROUNDS: usize = 8;
/// Links among stages in circles up to which more than one circle of a set is looked for.
const MAX_LINKS: usize = 5_000;

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
    circles(stages, &before, &stuck, report);
    positions.extend(stuck);
    Order { positions, sorted }
}

/// Reports the circles: every stage that waits for itself, and in each set of stages that all wait for each other the
/// shortest circle from its first stage; then what is left of the set without the first link of that circle.
fn circles(stages: &[Declared<'_>], before: &[Vec<&Link<'_>>], stuck: &[usize], report: &mut Report) {
    let name = |stage: usize| stages.get(stage).map_or("", |stage| stage.name);
    let mut graph: Graph<'_> =
        stuck.iter().map(|&stage| (stage, before.get(stage).cloned().unwrap_or_default())).collect();
    for (&stage, links) in &mut graph {
        for link in links.extract_if(.., |link| link.stage == stage) {
            let mistake = Mistake::at(link.span, format!("stage `{}` waits for itself", name(stage)));
            report.add(mistake.hint("it must read something else"));
        }
    }
    let links: usize = graph.values().map(Vec::len).sum();
    for _ in 0..if links > MAX_LINKS { 1 } else { MAX_ROUNDS } {
        let mut found = false;
        for set in strongly_connected(&graph).into_iter().filter(|set| set.len() > 1) {
            let Some(circle) = shortest_circle(&graph, &set) else { continue };
            let (Some(first), Some(&start)) = (circle.first(), set.first()) else { continue };
            let span = first.span;
            let names: Vec<_> = [start].into_iter().chain(circle.iter().map(|link| link.stage)).collect();
            let mut shown: Vec<_> = names.iter().take(MAX_SHOWN).map(|&stage| format!("`{}`", name(stage))).collect();
            if names.len() > MAX_SHOWN {
                shown.push(format!("… ({} more)", names.len() - MAX_SHOWN));
            }
            let message = format!("stages wait for each other in a circle: {}", shown.join(" → "));
            report.add(Mistake::at(span, message).hint("one of them must read something else"));
            if let Some(links) = graph.get_mut(&start) {
                links.retain(|link| link.span != span);
            }
            found = true;
        }
        if !found || report.is_full() {
            break;
        }
    }
}

/// What each stage waits for.
type Graph<'a> = BTreeMap<usize, Vec<&'a Link<'a>>>;

/// The sets of stages that all wait for each other, each in order.
fn strongly_connected(graph: &Graph<'_>) -> Vec<BTreeSet<usize>> {
    // Kosaraju: stages by when they are finished, then against the links from the last that was.
    let mut finished = Vec::new();
    let mut seen = HashSet::new();
    for &start in graph.keys() {
        let mut stack = vec![(start, 0)];
        while let Some((at, next)) = stack.pop() {
            if next == 0 && !seen.insert(at) {
                continue;
            }
            match graph.get(&at).and_then(|links| links.get(next)) {
                Some(link) => {
                    stack.push((at, next + 1));
                    if graph.contains_key(&link.stage) && !seen.contains(&link.stage) {
                        stack.push((link.stage, 0));
                    }
                }
                None => finished.push(at),
            }
        }
    }
    let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
    for (&stage, links) in graph {
        for link in links {
            readers.entry(link.stage).or_default().push(stage);
        }
    }
    let mut sets = Vec::new();
    let mut taken = HashSet::new();
    for start in finished.into_iter().rev() {
        let (mut set, mut stack) = (BTreeSet::new(), vec![start]);
        while let Some(at) = stack.pop() {
            if graph.contains_key(&at) && taken.insert(at) {
                set.insert(at);
                stack.extend(readers.get(&at).into_iter().flatten());
            }
        }
        sets.push(set);
    }
    sets.sort_by_key(|set| set.first().copied());
    sets
}

/// The links of a shortest circle through the first stage of a set.
fn shortest_circle<'a>(graph: &Graph<'a>, set: &BTreeSet<usize>) -> Option<Vec<&'a Link<'a>>> {
    let &start = set.first()?;
    let mut came: HashMap<usize, (usize, &Link<'_>)> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &link in graph.get(&at).into_iter().flatten().filter(|link| set.contains(&link.stage)) {
            if link.stage == start {
                let (mut circle, mut back) = (vec![link], at);
                while let Some(&(from, link)) = came.get(&back) {
                    circle.push(link);
                    back = from;
                }
                circle.reverse();
                return Some(circle);
            }
            came.entry(link.stage).or_insert_with(|| {
                queue.push_back(link.stage);
                (at, link)
            });
        }
    }
    None
}
