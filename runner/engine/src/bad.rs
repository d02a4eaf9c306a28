//! Rows that could not be used: how many a stage may have, and which they were.

use runner_contract::{Digest, Shape};
use runner_store::{BadRow, Entry, Store};

use crate::{EngineError, graph::Ref, manifest::Dataset, runtime::Runtime};

/// How many of them an error names.
const NAMED: usize = 3;

/// Fails where a stage has more unusable rows in what is stored of it than its `max_bad`.
pub(crate) fn check(runtime: &Runtime, stage: usize) -> Result<(), EngineError> {
    let node = &runtime.graph.nodes[stage];
    let entries = entries(runtime, stage);
    let bad: u64 = entries.iter().flatten().map(|entry| entry.bad).sum();
    if bad == 0 {
        return Ok(());
    }
    // Before all is done, rows count as they are planned.
    let planned = node.origin.and_then(|origin| runtime.keys.planned.get(&origin));
    let rows = |(shard, entry): (usize, &Option<Entry>)| {
        let planned = || planned.and_then(|rows| rows.get(shard)).copied();
        match (entry, node.shape) {
            (Some(entry), Shape::Map | Shape::Fold) => entry.rows + entry.bad,
            (Some(entry), _) => planned().unwrap_or(entry.rows + entry.bad),
            (None, _) => planned().unwrap_or(0),
        }
    };
    let rows: u64 = entries.iter().enumerate().map(rows).sum();
    if bad <= node.max_bad.of(rows) {
        return Ok(());
    }
    let first = entries.iter().flatten().flat_map(|entry| &entry.bad_rows).take(NAMED);
    let first: Vec<String> = first.map(|row| format!("`{}`: {}", row.id, row.reason)).collect();
    let more = if bad > first.len() as u64 { "; …" } else { "" };
    Err(EngineError::TooManyBad {
        stage: node.name.clone(),
        bad,
        rows,
        limit: node.max_bad.to_string(),
        first: format!("{}{more}", first.join("; ")),
    })
}

/// The same of a stage that stores nothing: from what this run counted of it.
pub(crate) fn check_passing(runtime: &Runtime, stage: usize, rows: u64, bad: u64) -> Result<(), EngineError> {
    let node = &runtime.graph.nodes[stage];
    if bad == 0 || node.stored || !node.streams() {
        return Ok(());
    }
    let planned = node.origin.and_then(|origin| runtime.keys.planned.get(&origin));
    let rows = planned.map_or(0, |shards| shards.iter().sum()).max(rows);
    if bad <= node.max_bad.of(rows) {
        return Ok(());
    }
    let (stage, limit) = (node.name.clone(), node.max_bad.to_string());
    Err(EngineError::TooManyBad { stage, bad, rows, limit, first: "`runner logs` names them".to_owned() })
}

/// What is stored of a stage, by shard. Every port has the same unusable rows.
fn entries(runtime: &Runtime, stage: usize) -> Vec<Option<Entry>> {
    let node = &runtime.graph.nodes[stage];
    let shards = &runtime.keys.stages[stage].shards;
    if node.has_result() {
        return shards.iter().map(|key| runtime.entry(key)).collect();
    }
    match node.row_ports().next().filter(|_| node.stored) {
        Some(port) => (0..shards.len()).map(|shard| runtime.group(Ref { stage, port }, shard)).collect(),
        None => Vec::new(),
    }
}

/// The rows that a stage could not use, the first ones of each shard, from the manifest that is recorded with it.
pub async fn bad_rows(store: &Store, manifest: &Digest) -> Result<Vec<BadRow>, EngineError> {
    let file = store.artifacts().get(manifest).await?;
    // Folds and jobs have manifests of another kind, and leave out no rows of their own.
    let Ok(dataset) = serde_json::from_slice::<Dataset>(&file) else { return Ok(Vec::new()) };
    let first = dataset.ports.into_values().next();
    Ok(first.into_iter().flat_map(|port| port.shards).flat_map(|shard| shard.bad_rows).collect())
}
