//! How to get at rows of one shard: what is read where it is stored, what is computed on the way, which columns are
//! carried. A column that nobody asks for is neither read nor kept.

use std::collections::{BTreeMap, BTreeSet};

use runner_contract::PARENT;

use crate::{
    graph::{Edge, Ref},
    runtime::Runtime,
};

/// The columns asked for, by output port.
pub(crate) type Wants = BTreeMap<Ref, BTreeSet<String>>;

/// Where a stage's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The stage is where the shard begins: a source, or a fold's or job's result.
    Origin,
    /// Read what the stage stored.
    Stored,
    /// Compute them.
    Compute,
}

/// A stage on the way.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) stage: usize,
    pub(crate) how: How,
    /// The ports in use, with the columns to carry.
    pub(crate) ports: Vec<(usize, Vec<String>)>,
    /// Done by the thread that runs ahead of the device.
    pub(crate) ahead: bool,
    /// Its inputs are there when that thread is done: it prepares them.
    pub(crate) prepared_ahead: bool,
}

/// The stages to go through, in topological order.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) steps: Vec<Step>,
    /// Ports whose rows are still needed when the thread that runs ahead is done.
    pub(crate) late: BTreeSet<Ref>,
}

impl Route {
    /// The way to `wants` in a shard of `origin`. Stages in `compute` are computed even where what they made is stored.
    pub(crate) fn new(
        runtime: &Runtime,
        origin: Ref,
        shard: usize,
        mut wants: Wants,
        compute: &BTreeSet<usize>,
    ) -> Self {
        let graph = &runtime.graph;
        let mut late: BTreeSet<Ref> = wants.keys().copied().collect();
        for &stage in compute {
            let node = &graph.nodes[stage];
            for port in node.row_ports() {
                let of = Ref { stage, port };
                wants.entry(of).or_default().extend(node.produced(port).iter().cloned());
                late.insert(of);
            }
        }
        let mut steps = Vec::new();
        let last = wants.keys().map(|of| of.stage).max().unwrap_or(0);
        for stage in (origin.stage..=last).rev() {
            let node = &graph.nodes[stage];
            let ports: Vec<(usize, Vec<String>)> = wants
                .range(Ref { stage, port: 0 }..Ref { stage: stage + 1, port: 0 })
                .map(|(of, columns)| (of.port, columns.iter().cloned().collect()))
                .collect();
            if ports.is_empty() {
                continue;
            }
            let stored = || {
                node.stored && ports.iter().all(|(port, _)| runtime.group(Ref { stage, port: *port }, shard).is_some())
            };
            let how = if stage == origin.stage {
                How::Origin
            } else if !compute.contains(&stage) && stored() {
                How::Stored
            } else {
                How::Compute
            };
            if how != How::Origin {
                for (port, columns) in &ports {
                    let through = columns.iter().filter(|column| !node.produced(*port).contains(*column)).cloned();
                    let through: Vec<String> = through.collect();
                    if let (Some(main), false) = (node.rows.first(), through.is_empty()) {
                        wants.entry(main.from).or_default().extend(through);
                    }
                }
            }
            if how == How::Compute {
                for edge in &node.rows {
                    want(&mut wants, edge);
                }
            }
            steps.push(Step { stage, how, ports, ahead: false, prepared_ahead: false });
        }
        steps.reverse();
        let mut route = Self { steps, late };
        route.split(runtime);
        route
    }

    /// Tells apart what runs ahead of the device and what comes after it.
    fn split(&mut self, runtime: &Runtime) {
        let mut behind = BTreeSet::new();
        for step in &mut self.steps {
            let node = &runtime.graph.nodes[step.stage];
            let mut needed = node.rows.iter().filter(|_| step.how != How::Origin);
            let inputs_ahead = needed.all(|edge| !behind.contains(&edge.from.stage));
            let device = step.how == How::Compute && node.device.is_some();
            step.ahead = inputs_ahead && !device;
            step.prepared_ahead = inputs_ahead && device;
            if !step.ahead {
                behind.insert(step.stage);
            }
            if !step.ahead && !step.prepared_ahead {
                self.late.extend(node.rows.iter().map(|edge| edge.from));
            }
        }
    }

    /// Whether some stage on the way works in a device slot.
    pub(crate) fn has_device_work(&self) -> bool {
        self.steps.iter().any(|step| !step.ahead)
    }
}

/// Adds what an input reads.
pub(crate) fn want(wants: &mut Wants, edge: &Edge) {
    wants.entry(edge.from).or_default().extend(edge.needs.iter().map(|need| need.column.clone()));
}

/// The columns to read of what a stage stored, in order to carry `columns`.
pub(crate) fn stored_columns(columns: &[String], produced: &[String]) -> Vec<String> {
    let mut read: Vec<String> = columns.iter().filter(|column| produced.contains(column)).cloned().collect();
    let passes_through = read.len() < columns.len();
    if passes_through && produced.iter().any(|name| name == PARENT) && !read.iter().any(|name| name == PARENT) {
        read.push(PARENT.to_owned());
    }
    read
}
