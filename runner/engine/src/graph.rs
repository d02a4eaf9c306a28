//! A pipeline as the engine sees it: which rows stream over which shards, and what has to wait for what.

use std::{collections::BTreeSet, time::Duration};

use runner_contract::{Input, ModelInfo, Need, Output, PARENT, PortKind, Registry, Schema, Shape};
use runner_spec::{Device, InputRef, MaxBad, Pipeline};
use serde_json::Value;

use crate::EngineError;

/// An output port of a stage: positions of the stage and of the port among its kind's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ref {
    pub(crate) stage: usize,
    pub(crate) port: usize,
}

/// An input port that reads rows.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) port: String,
    pub(crate) from: Ref,
    pub(crate) needs: Vec<Need>,
}

/// Where a model comes from.
#[derive(Clone, Debug)]
pub(crate) enum ModelFrom {
    /// It exists already.
    Given { reference: String, info: ModelInfo },
    /// A stage makes it.
    Made(Ref),
}

/// An output port.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) content: Content,
}

/// What an output port gives.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Rows: the columns that the stage itself makes, all columns, and the port whose shards these rows have.
    Rows { produced: Vec<String>, schema: Schema, origin: Ref },
    /// A model; the identity that the language made up for it.
    Model(ModelInfo),
    /// Nobody said what it holds.
    Unused,
}

/// What a streaming stage waits for besides its own shard. Stages that wait for the same are computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Barrier {
    /// All shards of a dataset, held whole.
    Whole(Ref),
    /// A model that a stage makes.
    Model(Ref),
    /// A stage that was named in `needs`.
    Need(usize),
}

/// A stage.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) version: u32,
    pub(crate) shape: Shape,
    pub(crate) settings: Value,
    /// The secrets that the settings mention.
    pub(crate) secrets: Vec<String>,
    /// Row inputs, in the order of the kind's ports.
    pub(crate) rows: Vec<Edge>,
    pub(crate) whole: Vec<Edge>,
    pub(crate) models: Vec<(String, ModelFrom)>,
    pub(crate) received: Vec<(String, Input)>,
    pub(crate) outputs: Vec<Port>,
    /// The port whose shards the stage streams over; its own for a source.
    pub(crate) origin: Option<Ref>,
    /// What it makes is written, shard by shard.
    pub(crate) stored: bool,
    /// Results may be looked up and recorded: neither it nor anything before it says `cache: false`.
    pub(crate) cache: bool,
    pub(crate) keep: bool,
    /// The device slot that it needs.
    pub(crate) device: Option<Device>,
    /// What computes it, see [`Config`](crate::Config).
    pub(crate) backend: String,
    pub(crate) needs: Vec<usize>,
    pub(crate) barriers: BTreeSet<Barrier>,
    /// To be computed though it may be stored.
    pub(crate) anew: bool,
    /// Nobody reads it.
    pub(crate) leaf: bool,
    /// How often a failed attempt is repeated.
    pub(crate) retries: u32,
    /// How long an attempt may take.
    pub(crate) timeout: Option<Duration>,
    /// How many of its rows may be unusable.
    pub(crate) max_bad: MaxBad,
}

impl Node {
    /// Map, filter, expand or group.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.shape, Shape::Map | Shape::Filter | Shape::Expand | Shape::Group)
    }

    /// A fold or a job: one result for all shards.
    pub(crate) fn has_result(&self) -> bool {
        matches!(self.shape, Shape::Fold | Shape::Job)
    }

    /// The columns that the stage itself makes on a port.
    pub(crate) fn produced(&self, port: usize) -> &[String] {
        match self.outputs.get(port).map(|port| &port.content) {
            Some(Content::Rows { produced, .. }) => produced,
            _ => &[],
        }
    }

    /// The ports that give rows.
    pub(crate) fn row_ports(&self) -> impl Iterator<Item = usize> {
        (0..self.outputs.len()).filter(|&port| matches!(self.outputs[port].content, Content::Rows { .. }))
    }
}

/// The stages in topological order.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
}

impl Graph {
    /// Reads a checked pipeline. Fails where stages are connected in a way that cannot be streamed.
    pub(crate) fn new(pipeline: &Pipeline, registry: &dyn Registry) -> Result<Self, EngineError> {
        let mut graph = Self { nodes: Vec::with_capacity(pipeline.stages.len()) };
        for position in 0..pipeline.stages.len() {
            let node = graph.node(pipeline, position, registry)?;
            graph.nodes.push(node);
        }
        let read: BTreeSet<usize> = graph.nodes.iter().flat_map(read_stages).collect();
        for (position, node) in graph.nodes.iter_mut().enumerate() {
            node.leaf = !read.contains(&position);
            // What nobody reads is a result of the pipeline.
            node.stored |= node.streams() && node.leaf;
        }
        Ok(graph)
    }

    /// Makes what a stage makes a result of the pipeline.
    pub(crate) fn keep(&mut self, stage: usize) {
        let node = &mut self.nodes[stage];
        node.keep = true;
        node.stored |= node.streams();
    }

    /// Has these stages, and all that read them, computed anew.
    pub(crate) fn anew(&mut self, stages: &BTreeSet<usize>) {
        for stage in 0..self.nodes.len() {
            let reads = read_stages(&self.nodes[stage]).any(|before| self.nodes[before].anew);
            self.nodes[stage].anew = reads || stages.contains(&stage);
        }
    }

    /// The origin of the shards of an output port.
    pub(crate) fn origin(&self, of: Ref) -> Option<Ref> {
        match &self.nodes.get(of.stage)?.outputs.get(of.port)?.content {
            Content::Rows { origin, .. } => Some(*origin),
            _ => None,
        }
    }

    /// All columns of an output port.
    pub(crate) fn schema(&self, of: Ref) -> Option<&Schema> {
        match &self.nodes.get(of.stage)?.outputs.get(of.port)?.content {
            Content::Rows { schema, .. } => Some(schema),
            _ => None,
        }
    }

    fn node(&self, pipeline: &Pipeline, position: usize, registry: &dyn Registry) -> Result<Node, EngineError> {
        let def = &pipeline.stages[position];
        let invalid = |what: String| EngineError::Invalid(format!("stage `{}`: {what}", def.name));
        let kind =
            registry.kind(&def.kind).ok_or_else(|| invalid(format!("no stage kind is called `{}`", def.kind)))?;
        let info = kind.info();
        let (mut rows, mut whole, mut models) = (Vec::new(), Vec::new(), Vec::new());
        for port in info.inputs {
            let Some(input) = def.inputs.get(port.name) else { continue };
            let from = match input {
                InputRef::Model { reference, info } => {
                    let from = ModelFrom::Given { reference: reference.clone(), info: info.clone() };
                    models.push((port.name.to_owned(), from));
                    continue;
                }
                InputRef::Stage { stage, port } => self.output(*stage, port).ok_or_else(|| {
                    invalid(format!("it reads port `{port}` of a stage before it, which has no such port"))
                })?,
            };
            let needs = def.bound.consumes.get(port.name).cloned().unwrap_or_default();
            let edge = Edge { port: port.name.to_owned(), from, needs };
            match port.kind {
                PortKind::Model => models.push((port.name.to_owned(), ModelFrom::Made(from))),
                PortKind::Rows => rows.push(edge),
                PortKind::Whole => whole.push(edge),
            }
        }
        let streams = matches!(info.shape, Shape::Map | Shape::Filter | Shape::Expand | Shape::Group);
        let origin = match info.shape {
            Shape::Source => Some(Ref { stage: position, port: 0 }),
            Shape::Job => None,
            _ => Some(self.common_origin(&rows).map_err(invalid)?),
        };
        let mut outputs = Vec::new();
        for (index, port) in info.outputs.iter().enumerate() {
            let own = Ref { stage: position, port: index };
            let content = match def.outputs.get(port.name) {
                Some(Output::Rows(schema)) => {
                    let mut produced: Vec<String> = match def.bound.outputs.get(port.name) {
                        Some(Output::Rows(made)) => made.columns.iter().map(|column| column.name.clone()).collect(),
                        _ => Vec::new(),
                    };
                    if info.shape == Shape::Expand && !produced.iter().any(|name| name == PARENT) {
                        produced.push(PARENT.to_owned());
                    }
                    let origin = if streams { origin.unwrap_or(own) } else { own };
                    Content::Rows { produced, schema: schema.clone(), origin }
                }
                Some(Output::Model(info)) => Content::Model(info.clone()),
                None => Content::Unused,
            };
            outputs.push(Port { name: port.name.to_owned(), content });
        }
        let mut barriers: BTreeSet<Barrier> = whole.iter().map(|edge| Barrier::Whole(edge.from)).collect();
        barriers.extend(models.iter().filter_map(|(_, from)| match from {
            ModelFrom::Made(from) => Some(Barrier::Model(*from)),
            ModelFrom::Given { .. } => None,
        }));
        barriers.extend(def.needs.iter().map(|&stage| Barrier::Need(stage)));
        if info.shape != Shape::Job {
            // What an earlier stage of the same shard waits for, this one waits for too.
            let before = rows.iter().filter(|edge| self.nodes[edge.from.stage].streams());
            barriers.extend(before.flat_map(|edge| self.nodes[edge.from.stage].barriers.iter().copied()));
        }
        let mut node = Node {
            name: def.name.clone(),
            kind: def.kind.clone(),
            version: info.version,
            shape: info.shape,
            settings: def.bound.settings.clone(),
            secrets: def.secrets.clone(),
            rows,
            whole,
            models,
            received: def.received.iter().map(|(port, input)| (port.clone(), input.clone())).collect(),
            outputs,
            origin,
            stored: streams && (info.expensive || def.keep),
            cache: def.cache,
            keep: def.keep,
            device: info.device.then(|| def.device.unwrap_or(Device::Cpu)),
            backend: String::new(),
            needs: def.needs.clone(),
            barriers,
            anew: false,
            leaf: false,
            retries: def.retries,
            timeout: def.timeout,
            max_bad: def.max_bad,
        };
        let cached = read_stages(&node).all(|stage| self.nodes[stage].cache);
        node.cache &= cached;
        Ok(node)
    }

    fn output(&self, stage: usize, port: &str) -> Option<Ref> {
        let port = self.nodes.get(stage)?.outputs.iter().position(|output| output.name == port)?;
        Some(Ref { stage, port })
    }

    fn common_origin(&self, rows: &[Edge]) -> Result<Ref, String> {
        let first = rows.first().ok_or("it has no rows to work on")?;
        let origin = |edge: &Edge| self.origin(edge.from).ok_or_else(|| format!("port `{}` gets no rows", edge.port));
        let common = origin(first)?;
        for other in &rows[1..] {
            let found = origin(other)?;
            if found != common {
                return Err(format!(
                    "its inputs `{}` and `{}` have rows of different datasets (`{}` and `{}`), so there is no telling which \
                     belong together; connect both to the same dataset, or give one as a whole dataset",
                    first.port,
                    other.port,
                    self.describe(common),
                    self.describe(found),
                ));
            }
        }
        Ok(common)
    }

    /// `data` or `data.classes`, as the language writes it.
    pub(crate) fn describe(&self, of: Ref) -> String {
        let Some(node) = self.nodes.get(of.stage) else { return String::new() };
        match node.outputs.get(of.port) {
            Some(port) if of.port > 0 => format!("{}.{}", node.name, port.name),
            _ => node.name.clone(),
        }
    }
}

/// The stages that a stage reads from.
fn read_stages(node: &Node) -> impl Iterator<Item = usize> {
    let rows = node.rows.iter().chain(&node.whole).map(|edge| edge.from.stage);
    rows.chain(node.models.iter().filter_map(|(_, from)| match from {
        ModelFrom::Made(from) => Some(from.stage),
        ModelFrom::Given { .. } => None,
    }))
}
