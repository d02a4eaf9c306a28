//! What every key was made from when the pipeline ran last, so that a plan can name what changed.
//!
//! A key of a shard is made from what stages are and from what sources hold. So this keeps the parts of each stage, and of each
//! source a short mark for every shard and column: all else follows.

use std::collections::BTreeMap;

use runner_contract::{Digest, KeyHasher, ShardInfo};
use runner_store::{Entry, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    EngineError,
    graph::{Graph, ModelFrom, Node, Ref},
    key::SourceKeys,
};

/// Raised when parts are written in another way.
const VERSION: u32 = 3;
/// Digits of a mark. Two contents have the same mark once in four thousand million times, and then a message says too little.
const MARK: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    version: u32,
    pub(crate) stages: BTreeMap<String, StageParts>,
}

/// What a stage's keys are made from besides what it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageParts {
    pub(crate) kind: String,
    pub(crate) kind_version: u32,
    pub(crate) backend: String,
    pub(crate) settings: BTreeMap<String, Value>,
    /// By port: the reference and what it stands for.
    pub(crate) models: BTreeMap<String, (String, Digest)>,
    /// By port: the stage and the columns, `data (image, label)`.
    pub(crate) reads: BTreeMap<String, String>,
    pub(crate) source: Option<SourceParts>,
}

/// What a source holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceParts {
    pub(crate) ids: Marks,
    pub(crate) columns: BTreeMap<String, Marks>,
    /// Other ports, by name.
    pub(crate) sides: BTreeMap<String, Digest>,
}

/// A mark for each shard, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Marks(String);

impl Marks {
    fn new<'a>(digests: impl Iterator<Item = Option<&'a Digest>>) -> Self {
        let mark =
            |digest: Option<&Digest>| digest.map_or("-".repeat(MARK), |digest| digest.short()[..MARK].to_owned());
        Self(digests.map(mark).collect())
    }

    /// Number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.0.len() / MARK
    }

    pub(crate) fn of(&self, shard: usize) -> Option<&str> {
        self.0.get(shard * MARK..(shard + 1) * MARK)
    }
}

impl Parts {
    /// The parts as they are now.
    pub(crate) fn new(graph: &Graph, sources: &SourceKeys) -> Self {
        let stages = graph.nodes.iter().enumerate();
        let stages = stages.map(|(stage, node)| (node.name.clone(), of(graph, stage, node, sources))).collect();
        Self { version: VERSION, stages }
    }

    /// The parts of the last run of a pipeline of that name; empty if they cannot be read.
    pub(crate) async fn last(store: &Store, pipeline: &str) -> Result<Self, EngineError> {
        let key = key(pipeline);
        let found = store.records().lookup(&[key]).await?;
        let Some(entry) = found.get(&key) else { return Ok(Self::default()) };
        // They only serve messages: what is missing or damaged is as good as never written.
        let Ok(file) = store.artifacts().get(&entry.digest).await else { return Ok(Self::default()) };
        let parts = serde_json::from_slice(&file).ok().filter(|parts: &Self| parts.version == VERSION);
        Ok(parts.unwrap_or_default())
    }

    /// Remembers them as the last run's.
    pub(crate) async fn remember(&self, store: &Store, run: &str, pipeline: &str) -> Result<(), EngineError> {
        let Ok(file) = serde_json::to_vec(self) else { return Ok(()) };
        let bytes = file.len() as u64;
        let digest = store.artifacts().put(file).await?;
        let entry =
            Entry { key: key(pipeline), digest, rows: 0, bytes, bad: 0, bad_rows: Vec::new(), holds: Vec::new() };
        Ok(store.records().commit(run, &[], &[entry]).await?)
    }
}

fn key(pipeline: &str) -> Digest {
    KeyHasher::new("last parts/1").part("pipeline", pipeline.as_bytes()).finish()
}

fn of(graph: &Graph, stage: usize, node: &Node, sources: &SourceKeys) -> StageParts {
    let settings = node.settings.as_object().into_iter().flatten();
    let mut models = BTreeMap::new();
    let mut reads = BTreeMap::new();
    for (port, from) in &node.models {
        match from {
            ModelFrom::Given { reference, info } => {
                models.insert(port.clone(), (reference.clone(), info.identity));
            }
            ModelFrom::Made(from) => {
                reads.insert(port.clone(), graph.describe(*from));
            }
        }
    }
    for edge in node.rows.iter().chain(&node.whole) {
        let columns: Vec<&str> = edge.needs.iter().map(|need| need.column.as_str()).collect();
        reads.insert(edge.port.clone(), format!("{} ({})", graph.describe(edge.from), columns.join(", ")));
    }
    let shards = sources.shards.get(&Ref { stage, port: 0 });
    StageParts {
        kind: node.kind.clone(),
        kind_version: node.version,
        backend: node.backend.clone(),
        settings: settings.map(|(name, value)| (name.clone(), value.clone())).collect(),
        models,
        reads,
        source: shards.map(|shards| source(stage, node, shards, sources)),
    }
}

fn source(stage: usize, node: &Node, shards: &[ShardInfo], sources: &SourceKeys) -> SourceParts {
    let marks = |column: &String| Marks::new(shards.iter().map(|shard| shard.columns.get(column)));
    let sides = sources.sides.iter().filter(|(of, _)| of.stage == stage);
    SourceParts {
        ids: Marks::new(shards.iter().map(|shard| Some(&shard.ids))),
        columns: node.produced(0).iter().map(|column| (column.clone(), marks(column))).collect(),
        sides: sides.map(|(of, digest)| (node.outputs[of.port].name.clone(), *digest)).collect(),
    }
}
