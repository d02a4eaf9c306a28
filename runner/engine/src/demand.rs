//! Which results have to be made, and what each of them waits for.
//!
//! Starts from the results that a run is for and walks upstream only from what is not stored. So behind a stored result
//! nothing is opened or computed. What a stage reads of a shard is the same for all shards, so it is found once a stage; what all
//! of a stage's shards wait for (whole datasets, models, `needs`) is a list of its own, that they share.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    graph::{Edge, Graph, ModelFrom, Ref},
    key::Keys,
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

/// The results of a stage, where it has any.
pub(crate) fn items_of(graph: &Graph, keys: &Keys, stage: usize) -> impl Iterator<Item = Item> + use<> {
    let node = &graph.nodes[stage];
    let shards = keys.stages[stage].shards.len();
    let (streams, folds) = (node.streams() && node.stored, node.has_result());
    let sharded = (0..if streams || folds { shards } else { 0 })
        .map(move |shard| if streams { Item::Group { stage, shard } } else { Item::Partial { stage, shard } });
    sharded.chain(folds.then_some(Item::Result { stage }))
}

/// All results that a pipeline has.
pub(crate) fn items(graph: &Graph, keys: &Keys) -> Vec<Item> {
    (0..graph.nodes.len()).flat_map(|stage| items_of(graph, keys, stage)).collect()
}

/// A place for each result: those of a stage stand together, its shards in order.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// By stage: where its results begin; then the number of all.
    first: Vec<usize>,
}

impl Places {
    pub(crate) fn new(keys: &Keys) -> Self {
        let mut first = vec![0];
        let mut next = 0;
        for stage in &keys.stages {
            next += stage.shards.len() + 1;
            first.push(next);
        }
        Self { first }
    }

    pub(crate) fn len(&self) -> usize {
        self.first.last().copied().unwrap_or(0)
    }

    pub(crate) fn of(&self, item: Item) -> usize {
        match item {
            Item::Group { stage, shard } | Item::Partial { stage, shard } => self.first[stage] + shard,
            Item::Result { stage } => self.first[stage + 1] - 1,
        }
    }
}

/// Some of the results of a pipeline.
#[derive(Clone, Debug)]
pub(crate) struct ItemSet {
    places: Places,
    has: Vec<bool>,
    /// In the order in which they came.
    items: Vec<Item>,
}

impl ItemSet {
    pub(crate) fn new(keys: &Keys) -> Self {
        let places = Places::new(keys);
        let has = vec![false; places.len()];
        Self { places, has, items: Vec::new() }
    }

    pub(crate) fn contains(&self, item: Item) -> bool {
        self.has[self.places.of(item)]
    }

    /// Whether it is new.
    pub(crate) fn insert(&mut self, item: Item) -> bool {
        let new = !std::mem::replace(&mut self.has[self.places.of(item)], true);
        if new {
            self.items.push(item);
        }
        new
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }
}

/// What a run is for.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// Everything that the pipeline says.
    All,
    /// What these stages make.
    Stages(BTreeSet<usize>),
    /// The rows of a port, with these columns.
    Rows(Ref, BTreeSet<String>),
}

/// What reading something waits for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    /// Stages whose rows of the same shard are read where they are stored.
    groups: BTreeSet<usize>,
    /// Folds and jobs.
    results: BTreeSet<usize>,
    /// Stages that are recomputed on the way: whose [`Shared`] this waits for.
    shared: BTreeSet<usize>,
}

/// What all shards of a stage wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) items: Vec<Item>,
    /// Those of other stages.
    pub(crate) shared: BTreeSet<usize>,
}

/// What has to be made.
pub(crate) struct Wanted {
    pub(crate) items: ItemSet,
    /// By stage, where it has something that is not stored.
    pub(crate) shared: BTreeMap<usize, Shared>,
}

/// Finds what to make.
pub(crate) struct Demand<'a> {
    graph: &'a Graph,
    keys: &'a Keys,
    stored: &'a ItemSet,
    /// By stage: what computing one shard of it reads.
    inputs: Vec<Waits>,
}

type Columns = BTreeSet<String>;

impl<'a> Demand<'a> {
    pub(crate) fn new(graph: &'a Graph, keys: &'a Keys, stored: &'a ItemSet) -> Self {
        let mut demand = Self { graph, keys, stored, inputs: Vec::with_capacity(graph.nodes.len()) };
        for (stage, node) in graph.nodes.iter().enumerate() {
            let mut waits = Waits::default();
            if node.streams() || node.has_result() {
                for edge in &node.rows {
                    demand.rows(edge.from, &columns(edge), &mut BTreeSet::new(), &mut waits);
                }
                waits.shared.insert(stage);
            }
            demand.inputs.push(waits);
        }
        demand
    }

    /// The results to make.
    pub(crate) fn of(&self, goal: &Goal) -> Wanted {
        let mut wanted = Wanted { items: ItemSet::new(self.keys), shared: BTreeMap::new() };
        let mut open = Vec::new();
        match goal {
            Goal::All => {
                for (stage, node) in self.graph.nodes.iter().enumerate() {
                    if node.leaf || node.keep || node.has_result() {
                        open.extend(self.results_of(stage));
                    }
                }
            }
            Goal::Stages(stages) => open.extend(stages.iter().flat_map(|&stage| self.results_of(stage))),
            Goal::Rows(of, columns) => {
                let mut waits = Waits::default();
                self.rows(*of, columns, &mut BTreeSet::new(), &mut waits);
                for shard in 0..self.graph.origin(*of).map_or(0, |origin| self.keys.shards(origin)) {
                    self.missing(&waits, shard, |item| open.push(item));
                }
                self.share(&waits.shared, &mut wanted, &mut open);
            }
        }
        while let Some(item) = open.pop() {
            if self.stored.contains(item) || !wanted.items.insert(item) {
                continue;
            }
            self.before(item, |before| open.push(before));
            self.share(self.shared_by(item), &mut wanted, &mut open);
        }
        wanted
    }

    /// What a run for a stage is for: its rows, or its result.
    fn results_of(&self, stage: usize) -> impl Iterator<Item = Item> + use<> {
        items_of(self.graph, self.keys, stage).filter(|item| !matches!(item, Item::Partial { .. }))
    }

    /// The stages whose shared list a result waits for.
    pub(crate) fn shared_by(&self, item: Item) -> &BTreeSet<usize> {
        &self.inputs[item.stage()].shared
    }

    /// What is not stored and a result waits for, but for what it shares with others.
    pub(crate) fn before(&self, item: Item, mut take: impl FnMut(Item)) {
        let stage = item.stage();
        match item {
            Item::Group { shard, .. } | Item::Partial { shard, .. } => self.missing(&self.inputs[stage], shard, take),
            Item::Result { .. } => {
                for shard in 0..self.keys.stages[stage].shards.len() {
                    self.want(Item::Partial { stage, shard }, &mut take);
                }
                // Merging and jobs may read any row again.
                for edge in &self.graph.nodes[stage].rows {
                    self.all_rows(edge, &mut take, &mut BTreeSet::new());
                }
            }
        }
    }

    fn want(&self, item: Item, take: &mut impl FnMut(Item)) {
        if !self.stored.contains(item) {
            take(item);
        }
    }

    fn missing(&self, waits: &Waits, shard: usize, mut take: impl FnMut(Item)) {
        waits.results.iter().for_each(|&stage| self.want(Item::Result { stage }, &mut take));
        waits.groups.iter().for_each(|&stage| self.want(Item::Group { stage, shard }, &mut take));
    }

    /// Adds the shared lists of these stages, and theirs, where they are new.
    fn share(&self, stages: &BTreeSet<usize>, wanted: &mut Wanted, open: &mut Vec<Item>) {
        let mut next: Vec<usize> = stages.iter().copied().collect();
        while let Some(stage) = next.pop() {
            if wanted.shared.contains_key(&stage) {
                continue;
            }
            let shared = self.shared(stage);
            open.extend(&shared.items);
            next.extend(&shared.shared);
            wanted.shared.insert(stage, shared);
        }
    }

    /// What all shards of a stage wait for.
    fn shared(&self, stage: usize) -> Shared {
        let node = &self.graph.nodes[stage];
        let mut items = BTreeSet::new();
        let mut shared = BTreeSet::new();
        let mut take = |item| {
            items.insert(item);
        };
        for edge in &node.whole {
            self.all_rows(edge, &mut take, &mut shared);
        }
        for (_, from) in &node.models {
            if let ModelFrom::Made(of) = from {
                self.want(Item::Result { stage: of.stage }, &mut take);
            }
        }
        for &need in &node.needs {
            for item in self.results_of(need) {
                self.want(item, &mut take);
            }
        }
        shared.remove(&stage);
        Shared { items: items.into_iter().collect(), shared }
    }

    fn all_rows(&self, edge: &Edge, take: &mut impl FnMut(Item), shared: &mut BTreeSet<usize>) {
        let mut waits = Waits::default();
        self.rows(edge.from, &columns(edge), &mut BTreeSet::new(), &mut waits);
        for shard in 0..self.graph.origin(edge.from).map_or(0, |origin| self.keys.shards(origin)) {
            self.missing(&waits, shard, &mut *take);
        }
        shared.extend(waits.shared);
    }

    /// What reading rows of a port waits for.
    fn rows(&self, of: Ref, columns: &Columns, seen: &mut BTreeSet<(Ref, Vec<String>)>, out: &mut Waits) {
        if !seen.insert((of, columns.iter().cloned().collect())) {
            return;
        }
        let (stage, node) = (of.stage, &self.graph.nodes[of.stage]);
        if node.has_result() {
            out.results.insert(stage);
        }
        if !node.streams() {
            return;
        }
        if node.stored {
            out.groups.insert(stage);
        } else {
            // Known already: a stage only reads stages before it.
            let inputs = &self.inputs[stage];
            out.groups.extend(&inputs.groups);
            out.results.extend(&inputs.results);
            out.shared.extend(&inputs.shared);
        }
        let through: Columns =
            columns.iter().filter(|column| !node.produced(of.port).contains(column)).cloned().collect();
        if let (Some(main), false) = (node.rows.first(), through.is_empty()) {
            self.rows(main.from, &through, seen, out);
        }
    }
}

fn columns(edge: &Edge) -> Columns {
    edge.needs.iter().map(|need| need.column.clone()).collect()
}
