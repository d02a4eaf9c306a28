//! Which results have to be made, and what each of them waits for.
//!
//! Starts from the results that a run is for and walks upstream only from what is not stored. So behind a stored result
//! nothing is opened or computed.

use std::collections::{BTreeMap, BTreeSet};

use runner_contract::Shape;

use crate::{
    graph::{Barrier, Edge, Graph, ModelFrom, Ref},
    key::Keys,
    segment::Segment,
};

/// A result: what is recorded under a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// What a streaming stage made of a shard.
    Group { stage: usize, shard: usize },
    /// A fold's part of a shard.
    Partial { stage: usize, shard: usize },
    /// What a fold or a job made.
    Result { stage: usize },
}

impl Item {
    pub(crate) fn stage(self) -> usize {
        match self {
            Self::Group { stage, .. } | Self::Partial { stage, .. } | Self::Result { stage } => stage,
        }
    }
}

/// All results that a pipeline has.
pub(crate) fn items(graph: &Graph, keys: &Keys) -> Vec<Item> {
    let mut items = Vec::new();
    for (stage, node) in graph.nodes.iter().enumerate() {
        let shards = 0..keys.stages[stage].shards.len();
        if node.streams() && node.stored {
            items.extend(shards.map(|shard| Item::Group { stage, shard }));
        } else if node.has_result() {
            items.extend(shards.map(|shard| Item::Partial { stage, shard }));
            items.push(Item::Result { stage });
        }
    }
    items
}

/// What a run is for.
pub(crate) enum Goal {
    /// Everything that the pipeline says.
    All,
    /// The rows of a port, with these columns.
    Rows(Ref, BTreeSet<String>),
}

/// Finds what to make.
pub(crate) struct Demand<'a> {
    graph: &'a Graph,
    keys: &'a Keys,
    stored: &'a BTreeSet<Item>,
}

type Columns = BTreeSet<String>;
type Seen = BTreeSet<(Ref, usize, Vec<String>)>;

impl<'a> Demand<'a> {
    pub(crate) fn new(graph: &'a Graph, keys: &'a Keys, stored: &'a BTreeSet<Item>) -> Self {
        Self { graph, keys, stored }
    }

    /// The results to make, each with those that it waits for.
    pub(crate) fn of(&self, goal: &Goal) -> BTreeMap<Item, BTreeSet<Item>> {
        let mut open = BTreeSet::new();
        match goal {
            Goal::All => {
                for item in items(self.graph, self.keys) {
                    let node = &self.graph.nodes[item.stage()];
                    let wanted = match item {
                        Item::Group { .. } => node.leaf || node.keep,
                        Item::Partial { .. } => false,
                        Item::Result { .. } => true,
                    };
                    if wanted {
                        self.want(item, &mut open);
                    }
                }
            }
            Goal::Rows(of, columns) => {
                let mut seen = Seen::new();
                for shard in 0..self.graph.origin(*of).map_or(0, |origin| self.keys.shards(origin)) {
                    self.rows(*of, shard, columns, &mut seen, &mut open);
                }
            }
        }
        let mut found = BTreeMap::new();
        while let Some(item) = open.pop_first() {
            let before = self.before(item);
            open.extend(before.iter().filter(|other| !found.contains_key(*other)));
            found.insert(item, before);
        }
        found
    }

    fn want(&self, item: Item, out: &mut BTreeSet<Item>) {
        if !self.stored.contains(&item) {
            out.insert(item);
        }
    }

    /// What a result waits for.
    fn before(&self, item: Item) -> BTreeSet<Item> {
        let (mut out, mut seen) = (BTreeSet::new(), Seen::new());
        let stage = item.stage();
        let node = &self.graph.nodes[stage];
        match item {
            Item::Group { shard, .. } | Item::Partial { shard, .. } => self.inputs(stage, shard, &mut seen, &mut out),
            Item::Result { .. } => {
                for shard in 0..self.keys.stages[stage].shards.len() {
                    self.want(Item::Partial { stage, shard }, &mut out);
                }
                // Merging and jobs may read any row again.
                for edge in &node.rows {
                    self.all_rows(edge, &mut seen, &mut out);
                }
                self.barriers(stage, &mut seen, &mut out);
            }
        }
        out
    }

    /// What a stage's inputs for one shard wait for.
    fn inputs(&self, stage: usize, shard: usize, seen: &mut Seen, out: &mut BTreeSet<Item>) {
        for edge in &self.graph.nodes[stage].rows {
            self.rows(edge.from, shard, &columns(edge), seen, out);
        }
        self.barriers(stage, seen, out);
    }

    fn barriers(&self, stage: usize, seen: &mut Seen, out: &mut BTreeSet<Item>) {
        let node = &self.graph.nodes[stage];
        for edge in &node.whole {
            self.all_rows(edge, seen, out);
        }
        for (_, from) in &node.models {
            if let ModelFrom::Made(of) = from {
                self.want(Item::Result { stage: of.stage }, out);
            }
        }
        for &need in &node.needs {
            let needed = &self.graph.nodes[need];
            if needed.has_result() {
                self.want(Item::Result { stage: need }, out);
            } else if needed.stored {
                for shard in 0..self.keys.stages[need].shards.len() {
                    self.want(Item::Group { stage: need, shard }, out);
                }
            }
        }
    }

    fn all_rows(&self, edge: &Edge, seen: &mut Seen, out: &mut BTreeSet<Item>) {
        for shard in 0..self.graph.origin(edge.from).map_or(0, |origin| self.keys.shards(origin)) {
            self.rows(edge.from, shard, &columns(edge), seen, out);
        }
    }

    /// What reading rows of a port waits for.
    fn rows(&self, of: Ref, shard: usize, columns: &Columns, seen: &mut Seen, out: &mut BTreeSet<Item>) {
        if !seen.insert((of, shard, columns.iter().cloned().collect())) {
            return;
        }
        let (stage, node) = (of.stage, &self.graph.nodes[of.stage]);
        if node.has_result() {
            self.want(Item::Result { stage }, out);
        }
        if !node.streams() {
            return;
        }
        if node.stored {
            self.want(Item::Group { stage, shard }, out);
        } else {
            self.inputs(stage, shard, seen, out);
        }
        let through: Columns =
            columns.iter().filter(|column| !node.produced(of.port).contains(column)).cloned().collect();
        if let (Some(main), false) = (node.rows.first(), through.is_empty()) {
            self.rows(main.from, shard, &through, seen, out);
        }
    }
}

fn columns(edge: &Edge) -> Columns {
    edge.needs.iter().map(|need| need.column.clone()).collect()
}

// ------------------------------------------------------------------------------------------------------------- tasks

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
    pub(crate) stages: Vec<usize>,
    /// Those, and the stages that it recomputes on the way.
    pub(crate) computes: BTreeSet<usize>,
    pub(crate) shard: Option<usize>,
    /// Tasks that have to be done before.
    pub(crate) after: Vec<usize>,
}

/// Which results one task makes: stages that stream over the same shards and wait for the same things share a pass.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Segment(Ref, BTreeSet<Barrier>, usize),
    Result(usize),
}

/// Puts results together into tasks, in the order in which to start them.
pub(crate) fn tasks(graph: &Graph, items: &BTreeMap<Item, BTreeSet<Item>>) -> Vec<Task> {
    let place = |item: Item| {
        let node = &graph.nodes[item.stage()];
        match (item, node.origin) {
            (Item::Group { shard, .. } | Item::Partial { shard, .. }, Some(origin)) => {
                Place::Segment(origin, node.barriers.clone(), shard)
            }
            _ => Place::Result(item.stage()),
        }
    };
    let mut members: BTreeMap<Place, BTreeSet<Item>> = BTreeMap::new();
    for &item in items.keys() {
        members.entry(place(item)).or_default().insert(item);
    }
    // A pass ranks by its first stage, so that its shards follow each other.
    let mut ranks: BTreeMap<(Ref, BTreeSet<Barrier>), usize> = BTreeMap::new();
    for (place, items) in &members {
        if let (Place::Segment(origin, barriers, _), Some(first)) = (place, items.iter().map(|item| item.stage()).min())
        {
            let rank = ranks.entry((*origin, barriers.clone())).or_insert(first);
            *rank = (*rank).min(first);
        }
    }
    let mut order: Vec<(usize, usize, Place)> = members
        .keys()
        .map(|place| match place {
            Place::Segment(origin, barriers, shard) => {
                (ranks.get(&(*origin, barriers.clone())).copied().unwrap_or(0), *shard, place.clone())
            }
            Place::Result(stage) => (*stage, 0, place.clone()),
        })
        .collect();
    order.sort();
    let numbers: BTreeMap<&Place, usize> = order.iter().enumerate().map(|(i, (_, _, place))| (place, i)).collect();
    order
        .iter()
        .enumerate()
        .map(|(number, (_, _, at))| {
            let made = &members[at];
            let before = made.iter().filter_map(|item| items.get(item)).flatten();
            let after: BTreeSet<usize> = before.filter_map(|item| numbers.get(&place(*item)).copied()).collect();
            let stages: BTreeSet<usize> = made.iter().map(|item| item.stage()).collect();
            let mut computes = BTreeSet::new();
            for &stage in &stages {
                on_the_way(graph, stage, &stages, &mut computes);
            }
            let (work, shard) = match at {
                Place::Segment(origin, _, shard) => {
                    let of = |group: bool| {
                        let made = made.iter().filter(|item| matches!(item, Item::Group { .. }) == group);
                        made.map(|item| item.stage()).collect()
                    };
                    let segment = Segment { origin: *origin, shard: *shard, groups: of(true), folds: of(false) };
                    (Work::Segment(segment), Some(*shard))
                }
                Place::Result(stage) if graph.nodes[*stage].shape == Shape::Job => (Work::Job(*stage), None),
                Place::Result(stage) => (Work::Merge(*stage), None),
            };
            Task {
                work,
                stages: stages.into_iter().collect(),
                computes,
                shard,
                after: after.into_iter().filter(|&other| other != number).collect(),
            }
        })
        .collect()
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
