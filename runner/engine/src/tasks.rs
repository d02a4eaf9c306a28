//! Results put together into tasks: stages that stream over the same shards and wait for the same things share a pass.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use runner_contract::{Digest, Shape};

use crate::{
    demand::{Demand, Item, Places, Wanted},
    graph::{Barrier, Graph, Ref},
    key::Keys,
    segment::Segment,
};

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Streams a shard.
    Segment(Segment),
    /// Merges a fold's partials.
    Merge(usize),
    /// Runs a job.
    Job(usize),
}

/// The unit of scheduling.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) work: Work,
    /// The stages whose results it makes.
    pub(crate) stages: Arc<[usize]>,
    /// Those, and the stages that it recomputes on the way.
    pub(crate) computes: Arc<BTreeSet<usize>>,
    pub(crate) shard: Option<usize>,
    /// Tasks that have to be done before; from the number of tasks on, barriers.
    pub(crate) after: Vec<usize>,
}

/// The tasks of a run, in the order in which to start them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) list: Vec<Task>,
    /// What many tasks wait for: each the numbers of tasks, and of barriers before it.
    pub(crate) barriers: Vec<Vec<usize>>,
}

/// What the tasks of one pass that make the same results have in common.
struct Making {
    stages: Arc<[usize]>,
    computes: Arc<BTreeSet<usize>>,
    groups: Arc<BTreeSet<usize>>,
    folds: Arc<BTreeSet<usize>>,
}

/// Where a result is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    /// In a pass over shards.
    Pass { pass: usize, shard: usize },
    /// On its own.
    Result(usize),
}

pub(crate) fn tasks(graph: &Graph, keys: &Keys, demand: &Demand<'_>, wanted: &Wanted) -> Tasks {
    let passes = passes(graph);
    let place = |item: Item| match (item, passes[item.stage()]) {
        (Item::Group { shard, .. } | Item::Partial { shard, .. }, Some(pass)) => Place::Pass { pass, shard },
        _ => Place::Result(item.stage()),
    };
    let mut members: HashMap<Place, Vec<Item>> = HashMap::new();
    for &item in wanted.items.items() {
        members.entry(place(item)).or_default().push(item);
    }
    members.values_mut().for_each(|items| items.sort_unstable());
    // A pass ranks by its first stage, so that its shards follow each other.
    let mut ranks: BTreeMap<usize, usize> = BTreeMap::new();
    for (place, items) in &members {
        if let (Place::Pass { pass, .. }, Some(first)) = (place, items.iter().map(|item| item.stage()).min()) {
            let rank = ranks.entry(*pass).or_insert(first);
            *rank = (*rank).min(first);
        }
    }
    let mut order: Vec<(usize, usize, Place)> = members
        .keys()
        .map(|&place| match place {
            Place::Pass { pass, shard } => (ranks.get(&pass).copied().unwrap_or(0), shard, place),
            Place::Result(stage) => (stage, 0, place),
        })
        .collect();
    order.sort_unstable();
    let numbers = Places::new(keys);
    let mut number_of: Vec<Option<usize>> = vec![None; numbers.len()];
    for (number, (_, _, place)) in order.iter().enumerate() {
        for item in &members[place] {
            number_of[numbers.of(*item)] = Some(number);
        }
    }
    // Barriers follow the tasks.
    let filled = wanted.shared.iter().filter(|(_, shared)| !shared.items.is_empty() || !shared.shared.is_empty());
    let barrier_of: BTreeMap<usize, usize> = filled.zip(order.len()..).map(|((stage, _), at)| (*stage, at)).collect();
    let barriers = barrier_of.keys().map(|stage| {
        let shared = &wanted.shared[stage];
        let tasks = shared.items.iter().filter_map(|item| number_of[numbers.of(*item)]);
        let mut after: Vec<usize> =
            tasks.chain(shared.shared.iter().filter_map(|s| barrier_of.get(s).copied())).collect();
        after.sort_unstable();
        after.dedup();
        after
    });
    let barriers = barriers.collect();
    let mut makings: HashMap<Vec<Item>, Making> = HashMap::new();
    let list = order.iter().enumerate().map(|(number, (_, _, at))| {
        let made = &members[at];
        let mut after = BTreeSet::new();
        for &item in made {
            demand.before(item, |before| after.extend(number_of[numbers.of(before)]));
            after.extend(demand.shared_by(item).iter().filter_map(|stage| barrier_of.get(stage)));
        }
        after.remove(&number);
        let alike: Vec<Item> = made.iter().map(|item| of_any_shard(*item)).collect();
        let making = makings.entry(alike).or_insert_with_key(|made| making(graph, made));
        let (work, shard) = match *at {
            Place::Pass { shard, .. } => {
                let origin = graph.nodes[made[0].stage()].origin.unwrap_or(Ref { stage: 0, port: 0 });
                let (groups, folds) = (making.groups.clone(), making.folds.clone());
                (Work::Segment(Segment { origin, shard, groups, folds }), Some(shard))
            }
            Place::Result(stage) if graph.nodes[stage].shape == Shape::Job => (Work::Job(stage), None),
            Place::Result(stage) => (Work::Merge(stage), None),
        };
        let (stages, computes) = (making.stages.clone(), making.computes.clone());
        Task { work, stages, computes, shard, after: after.into_iter().collect() }
    });
    Tasks { list: list.collect(), barriers }
}

/// By stage: the pass in which its shards are made, numbered.
fn passes(graph: &Graph) -> Vec<Option<usize>> {
    let mut passes: BTreeMap<(Ref, &BTreeSet<Barrier>), usize> = BTreeMap::new();
    let mut of = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let next = passes.len();
        of.push(node.origin.map(|origin| *passes.entry((origin, &node.barriers)).or_insert(next)));
    }
    of
}

fn of_any_shard(item: Item) -> Item {
    match item {
        Item::Group { stage, .. } => Item::Group { stage, shard: 0 },
        Item::Partial { stage, .. } => Item::Partial { stage, shard: 0 },
        result @ Item::Result { .. } => result,
    }
}

fn making(graph: &Graph, made: &[Item]) -> Making {
    let stages: BTreeSet<usize> = made.iter().map(|item| item.stage()).collect();
    let mut computes = BTreeSet::new();
    for &stage in &stages {
        on_the_way(graph, stage, &stages, &mut computes);
    }
    let of = |group: bool| {
        let made = made.iter().filter(|item| matches!(item, Item::Group { .. }) == group);
        Arc::new(made.map(|item| item.stage()).collect())
    };
    Making { computes: Arc::new(computes), groups: of(true), folds: of(false), stages: stages.into_iter().collect() }
}

/// A stage and those before it that are recomputed for it.
fn on_the_way(graph: &Graph, stage: usize, made: &BTreeSet<usize>, out: &mut BTreeSet<usize>) {
    if !out.insert(stage) {
        return;
    }
    let node = &graph.nodes[stage];
    for edge in node.rows.iter().chain(&node.whole) {
        let before = &graph.nodes[edge.from.stage];
        if before.streams() && (!before.stored || made.contains(&edge.from.stage)) {
            on_the_way(graph, edge.from.stage, made, out);
        }
        if before.shape == Shape::Source {
            out.insert(edge.from.stage);
        }
    }
}

/// The keys under which a result is recorded: one a port for rows.
pub(crate) fn item_keys(graph: &Graph, keys: &Keys, item: Item) -> Vec<Digest> {
    match item {
        Item::Group { stage, shard } => {
            let ports = graph.nodes[stage].row_ports();
            ports.filter_map(|port| keys.group(Ref { stage, port }, shard)).collect()
        }
        Item::Partial { stage, shard } => keys.stages[stage].shards.get(shard).copied().into_iter().collect(),
        Item::Result { stage } => keys.stages[stage].result.into_iter().collect(),
    }
}

impl Task {
    /// The results that it makes.
    pub(crate) fn items(&self) -> Vec<Item> {
        match &self.work {
            Work::Segment(segment) => {
                let shard = segment.shard;
                let groups = segment.groups.iter().map(|&stage| Item::Group { stage, shard });
                groups.chain(segment.folds.iter().map(|&stage| Item::Partial { stage, shard })).collect()
            }
            Work::Merge(stage) | Work::Job(stage) => vec![Item::Result { stage: *stage }],
        }
    }
}
