//! Derived cache keys: what a result was made from, known before it is made.
//!
//! A stage's key for a shard covers the kind, its settings, its models, the backend, the set of rows that it reads and
//! the columns that it consumes; each column is traced to whoever made it. So labels are no part of an embedding's key,
//! and how stages are fused into tasks changes none.

use std::collections::{BTreeMap, HashMap};

use runner_contract::{ColumnType, Digest, Input, KeyHasher, Need, Schema, Shape, ShardInfo};

use crate::{
    EngineError,
    graph::{Content, Edge, Graph, ModelFrom, Node, Ref},
};

/// Which rows a port has in one shard, and what its columns were made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowsKey {
    pub(crate) ids: Digest,
    pub(crate) columns: BTreeMap<String, Digest>,
}

/// The keys of a stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct StageKeys {
    /// Of a streaming stage or a fold: what it makes of each shard.
    pub(crate) shards: Vec<Digest>,
    /// Of a fold or a job: its result.
    pub(crate) result: Option<Digest>,
}

/// The keys of a pipeline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    pub(crate) rows: BTreeMap<Ref, Vec<RowsKey>>,
    pub(crate) models: BTreeMap<Ref, Digest>,
    /// Rows of each shard of a source, as it says.
    pub(crate) planned: BTreeMap<Ref, Vec<u64>>,
    pub(crate) stages: Vec<StageKeys>,
    /// The identity that the language gave a model that a stage makes -> the one that it has here.
    pub(crate) identities: HashMap<Digest, Digest>,
}

/// What sources say about themselves.
#[derive(Default)]
pub(crate) struct SourceKeys {
    /// The shards, by the source's main port.
    pub(crate) shards: BTreeMap<Ref, Vec<ShardInfo>>,
    /// The content of other ports.
    pub(crate) sides: BTreeMap<Ref, Digest>,
}

impl Keys {
    /// Derives every key.
    pub(crate) fn derive(graph: &Graph, sources: &SourceKeys) -> Result<Self, EngineError> {
        let mut keys = Self::default();
        for (stage, node) in graph.nodes.iter().enumerate() {
            let made = match node.shape {
                Shape::Source => keys.source(stage, node, sources),
                Shape::Job => keys.job(stage, node, graph)?,
                Shape::Fold => keys.fold(stage, node, graph)?,
                _ => keys.stream(stage, node, graph)?,
            };
            keys.stages.push(made);
        }
        Ok(keys)
    }

    /// Number of shards of the rows that come from `origin`.
    pub(crate) fn shards(&self, origin: Ref) -> usize {
        self.rows.get(&origin).map_or(0, Vec::len)
    }

    /// Under which key the rows of a stored stage's port are recorded.
    pub(crate) fn group(&self, of: Ref, shard: usize) -> Option<Digest> {
        let stage = self.stages.get(of.stage)?.shards.get(shard)?;
        Some(port_key(stage, of.port))
    }

    /// The inputs as the stage sees them when it runs: models that stages make under their real identity.
    pub(crate) fn received(&self, node: &Node) -> BTreeMap<String, Input> {
        let mut received: BTreeMap<_, _> = node.received.iter().cloned().collect();
        for input in received.values_mut() {
            match input {
                Input::Rows(schema) => *schema = self.real_schema(Some(schema)),
                Input::Model(info) => info.identity = self.real(info.identity),
            }
        }
        received
    }

    /// A schema with the embedding spaces of models that stages make under their real identity.
    pub(crate) fn real_schema(&self, schema: Option<&Schema>) -> Schema {
        let mut schema = schema.cloned().unwrap_or_default();
        for column in &mut schema.columns {
            if let ColumnType::Embedding { space, .. } = &mut column.kind {
                *space = self.real(*space);
            }
        }
        schema
    }

    fn real(&self, identity: Digest) -> Digest {
        self.identities.get(&identity).copied().unwrap_or(identity)
    }

    /// The identity of a model on a port.
    pub(crate) fn model(&self, from: &ModelFrom) -> Option<Digest> {
        match from {
            ModelFrom::Given { info, .. } => Some(info.identity),
            ModelFrom::Made(from) => self.models.get(from).copied(),
        }
    }

    fn source(&mut self, stage: usize, node: &Node, sources: &SourceKeys) -> StageKeys {
        for port in node.row_ports() {
            let of = Ref { stage, port };
            let rows = if port == 0 {
                let shards = sources.shards.get(&of).map(Vec::as_slice).unwrap_or_default();
                self.planned.insert(of, shards.iter().map(|shard| shard.rows as u64).collect());
                shards.iter().map(|shard| RowsKey { ids: shard.ids, columns: shard.columns.clone() }).collect()
            } else {
                sources.sides.get(&of).map(|digest| vec![whole_port(digest, node, port)]).unwrap_or_default()
            };
            self.rows.insert(of, rows);
        }
        StageKeys::default()
    }

    fn stream(&mut self, stage: usize, node: &Node, graph: &Graph) -> Result<StageKeys, EngineError> {
        let shards = self.shard_keys(node, graph)?;
        for port in node.row_ports() {
            let of = Ref { stage, port };
            let mut rows = Vec::with_capacity(shards.len());
            for (shard, key) in shards.iter().enumerate() {
                let key = port_key(key, port);
                let mut columns = match node.rows.first() {
                    Some(main) => self.rows_key(node, main, shard)?.columns.clone(),
                    None => BTreeMap::new(),
                };
                let made = node.produced(port).iter();
                columns.extend(made.map(|column| (column.clone(), column_key(&key, column))));
                rows.push(RowsKey { ids: KeyHasher::new("ids/1").digest("group", &key).finish(), columns });
            }
            self.rows.insert(of, rows);
        }
        Ok(StageKeys { shards, result: None })
    }

    fn fold(&mut self, stage: usize, node: &Node, graph: &Graph) -> Result<StageKeys, EngineError> {
        let shards = self.shard_keys(node, graph)?;
        let mut result = KeyHasher::new("fold/1").digest("stage", &self.base(node, graph)?);
        for shard in &shards {
            result = result.digest("partial", shard);
        }
        let result = result.finish();
        self.outcome(stage, node, &result);
        Ok(StageKeys { shards, result: Some(result) })
    }

    fn job(&mut self, stage: usize, node: &Node, graph: &Graph) -> Result<StageKeys, EngineError> {
        let mut result = KeyHasher::new("job/1").digest("stage", &self.base(node, graph)?);
        for edge in &node.rows {
            result = result.digest(&edge.port, &self.dataset(graph, node, edge)?);
        }
        let result = result.finish();
        self.outcome(stage, node, &result);
        Ok(StageKeys { shards: Vec::new(), result: Some(result) })
    }

    /// The ports of a fold or a job.
    fn outcome(&mut self, stage: usize, node: &Node, result: &Digest) {
        for (port, output) in node.outputs.iter().enumerate() {
            let (of, key) = (Ref { stage, port }, port_key(result, port));
            match &output.content {
                Content::Rows { .. } => drop(self.rows.insert(of, vec![whole_port(&key, node, port)])),
                Content::Model(info) => {
                    self.models.insert(of, key);
                    self.identities.insert(info.identity, key);
                }
                Content::Unused => {}
            }
        }
    }

    /// What is equal for all shards.
    fn base(&self, node: &Node, graph: &Graph) -> Result<Digest, EngineError> {
        let mut key = KeyHasher::new("stage/1")
            .part("kind", node.kind.as_bytes())
            .part("version", &node.version.to_le_bytes())
            .json("settings", &node.settings)
            .part("backend", node.backend.as_bytes());
        for (port, from) in &node.models {
            let identity = self.model(from).ok_or_else(|| unknown(node, port))?;
            key = key.part("model port", port.as_bytes()).digest("model", &identity);
        }
        for edge in &node.whole {
            key = key.part("whole port", edge.port.as_bytes()).digest("rows", &self.dataset(graph, node, edge)?);
        }
        Ok(key.finish())
    }

    fn shard_keys(&self, node: &Node, graph: &Graph) -> Result<Vec<Digest>, EngineError> {
        let base = self.base(node, graph)?;
        let shards = node.origin.map_or(0, |origin| self.shards(origin));
        (0..shards)
            .map(|shard| {
                let mut key = KeyHasher::new("shard/1").digest("stage", &base);
                for edge in &node.rows {
                    let rows = self.rows_key(node, edge, shard)?;
                    key = consumed(key.part("port", edge.port.as_bytes()), rows, &edge.needs, node, graph, edge)?;
                }
                Ok(key.finish())
            })
            .collect()
    }

    /// All shards of what an input reads.
    pub(crate) fn dataset(&self, graph: &Graph, node: &Node, edge: &Edge) -> Result<Digest, EngineError> {
        let shards = self.rows.get(&edge.from).ok_or_else(|| unknown(node, &edge.port))?;
        let mut key = KeyHasher::new("dataset/1");
        for rows in shards {
            key = consumed(key, rows, &edge.needs, node, graph, edge)?;
        }
        Ok(key.finish())
    }

    fn rows_key(&self, node: &Node, edge: &Edge, shard: usize) -> Result<&RowsKey, EngineError> {
        self.rows.get(&edge.from).and_then(|shards| shards.get(shard)).ok_or_else(|| unknown(node, &edge.port))
    }
}

fn consumed(
    key: KeyHasher,
    rows: &RowsKey,
    needs: &[Need],
    node: &Node,
    graph: &Graph,
    edge: &Edge,
) -> Result<KeyHasher, EngineError> {
    let mut key = key.digest("ids", &rows.ids);
    for need in needs {
        let column = rows.columns.get(&need.column).ok_or_else(|| {
            EngineError::Invalid(format!(
                "stage `{}` reads column `{}` of `{}`, which has {}",
                node.name,
                need.column,
                graph.describe(edge.from),
                rows.columns.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            ))
        })?;
        key = key.part("column", need.column.as_bytes()).digest("made from", column);
    }
    Ok(key)
}

/// A port whose rows are one result: a fold's, a job's, a source's second.
fn whole_port(key: &Digest, node: &Node, port: usize) -> RowsKey {
    let columns = node.produced(port).iter().map(|column| (column.clone(), column_key(key, column))).collect();
    RowsKey { ids: KeyHasher::new("ids/1").digest("group", key).finish(), columns }
}

fn port_key(stage: &Digest, port: usize) -> Digest {
    KeyHasher::new("port/1").digest("stage", stage).part("port", &(port as u64).to_le_bytes()).finish()
}

fn column_key(group: &Digest, column: &str) -> Digest {
    KeyHasher::new("column/1").digest("group", group).part("column", column.as_bytes()).finish()
}

fn unknown(node: &Node, port: &str) -> EngineError {
    EngineError::Invalid(format!("stage `{}`: port `{port}` reads what no stage gives", node.name))
}
