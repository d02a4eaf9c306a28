//! What each stage's key was made from when the pipeline ran last, so that a plan can name what changed.

use std::collections::BTreeMap;

use runner_contract::{Digest, KeyHasher};
use runner_store::{Entry, Store};
use serde::{Deserialize, Serialize};

use crate::{
    EngineError,
    graph::{Graph, Node},
    key::Keys,
};

/// Raised when parts are written in another way.
const VERSION: u32 = 1;

/// The parts of every stage's key: what a person would call them, and a digest of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    version: u32,
    stages: BTreeMap<String, BTreeMap<String, Digest>>,
}

impl Parts {
    /// The parts as they are now.
    pub(crate) fn new(graph: &Graph, keys: &Keys, backend: &str) -> Result<Self, EngineError> {
        let mut stages = BTreeMap::new();
        for node in &graph.nodes {
            stages.insert(node.name.clone(), of(graph, keys, node, backend)?);
        }
        Ok(Self { version: VERSION, stages })
    }

    /// The parts of the last run of a pipeline of that name, if they can be read.
    pub(crate) async fn last(store: &Store, pipeline: &str) -> Result<Option<Self>, EngineError> {
        let key = key(pipeline);
        let found = store.records().lookup(&[key]).await?;
        let Some(entry) = found.get(&key) else { return Ok(None) };
        // They only serve messages: what is missing or damaged is as good as never written.
        let Ok(file) = store.artifacts().get(&entry.digest).await else { return Ok(None) };
        Ok(serde_json::from_slice(&file).ok().filter(|parts: &Self| parts.version == VERSION))
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

    /// What is not as it was: ``setting `factor` ``. Nothing if the stage is new.
    pub(crate) fn changed<'a>(&'a self, last: &'a Self, stage: &str) -> Vec<&'a str> {
        let (Some(now), Some(then)) = (self.stages.get(stage), last.stages.get(stage)) else { return Vec::new() };
        let changed = now.iter().filter(|(part, digest)| then.get(*part) != Some(digest));
        let gone = then.keys().filter(|part| !now.contains_key(*part));
        changed.map(|(part, _)| part).chain(gone).map(String::as_str).collect()
    }
}

fn key(pipeline: &str) -> Digest {
    KeyHasher::new("last parts/1").part("pipeline", pipeline.as_bytes()).finish()
}

fn of(graph: &Graph, keys: &Keys, node: &Node, backend: &str) -> Result<BTreeMap<String, Digest>, EngineError> {
    let kind = KeyHasher::new("kind").part("name", node.kind.as_bytes()).part("version", &node.version.to_le_bytes());
    let mut parts = BTreeMap::from([
        ("the kind's version".to_owned(), kind.finish()),
        ("the backend".to_owned(), Digest::of(backend.as_bytes())),
    ]);
    for (name, value) in node.settings.as_object().into_iter().flatten() {
        parts.insert(format!("setting `{name}`"), KeyHasher::new("setting").json("value", value).finish());
    }
    for (port, from) in &node.models {
        if let Some(identity) = keys.model(from) {
            parts.insert(format!("the model on `{port}`"), identity);
        }
    }
    for edge in node.rows.iter().chain(&node.whole) {
        parts.insert(format!("what `{}` reads", edge.port), keys.dataset(graph, node, edge)?);
    }
    Ok(parts)
}
