//! Streams the rows of a stage to somebody who wants them, computing what is not stored.

use std::{collections::BTreeSet, sync::Arc};

use runner_contract::{Batch, Need};
use runner_spec::Pipeline;
use tokio::{sync::mpsc::channel, task::spawn_blocking};

use crate::{
    Cancel, Engine, EngineError,
    attempt::Attempt,
    demand::Goal,
    eval::{PortRows, whole},
    execute::drive_quietly,
    graph::{Graph, Ref},
    plan::plan,
};

/// Chunks that may wait for whoever takes them.
const QUEUE: usize = 2;

/// See [`Engine::export`].
pub(crate) async fn export(
    engine: &Engine,
    pipeline: Pipeline,
    limit: Option<usize>,
    stage: &str,
    columns: Option<&[String]>,
    cancel: &Cancel,
    sink: &mut (dyn FnMut(Batch) -> Result<(), String> + Send),
) -> Result<(), EngineError> {
    let (stage, columns) = (stage.to_owned(), columns.map(<[String]>::to_vec));
    let (name, asked) = (stage.clone(), columns.clone());
    let planned = plan(engine, pipeline, limit.into(), move |graph, _, _| {
        let of = find(graph, &name)?;
        Ok(Goal::Rows(of, pick(graph, of, asked.as_deref())?))
    });
    let planned = planned.await?;
    let runtime = planned.runtime;
    drive_quietly(&runtime, &planned.tasks, cancel).await?;
    let of = find(&runtime.graph, &stage)?;
    let picked = pick(&runtime.graph, of, columns.as_deref())?;
    let needs: Vec<Need> = match &columns {
        Some(columns) => columns.iter().map(Need::column).collect(),
        None => picked.iter().map(Need::column).collect(),
    };
    let shards = runtime.graph.origin(of).map_or(0, |origin| runtime.keys.shards(origin));
    let (sender, mut receiver) = channel(QUEUE);
    let reading = Arc::new(Attempt::new(runtime.clone(), usize::MAX, whole));
    let read_by = reading.clone();
    let reader = spawn_blocking(move || {
        for shard in 0..shards {
            for rows in PortRows::open(&read_by, of, shard, &needs)? {
                let rows = rows?;
                // Whoever takes them may have had enough.
                if !rows.is_empty() && sender.blocking_send(rows).is_err() {
                    return Ok(());
                }
            }
        }
        Ok::<_, EngineError>(())
    });
    let mut refused = None;
    while let Some(rows) = receiver.recv().await {
        if cancel.is_cancelled() {
            reading.stop();
        }
        if let Err(reason) = sink(rows) {
            refused = Some(EngineError::Invalid(reason));
            break;
        }
    }
    drop(receiver);
    let read = reader.await.map_err(|error| EngineError::Invalid(format!("reading did not end: {error}")))?;
    match refused {
        Some(error) => Err(error),
        None => read,
    }
}

/// The port that `data` or `split.train` names.
fn find(graph: &Graph, name: &str) -> Result<Ref, EngineError> {
    let mut fitting = Vec::new();
    for (stage, node) in graph.nodes.iter().enumerate() {
        for port in node.row_ports() {
            let full = format!("{}.{}", node.name, node.outputs[port].name);
            if full == name || (node.name == name && !fitting.iter().any(|of: &Ref| of.stage == stage)) {
                fitting.push(Ref { stage, port });
            }
        }
    }
    fitting.first().copied().ok_or_else(|| {
        let have = graph.nodes.iter().filter(|node| node.row_ports().next().is_some());
        let names = have.map(|node| node.name.as_str());
        EngineError::name(format!("no stage `{name}` has rows"), "those that have:", names)
    })
}

/// The columns asked for, or all.
fn pick(graph: &Graph, of: Ref, columns: Option<&[String]>) -> Result<BTreeSet<String>, EngineError> {
    let schema = graph.schema(of).cloned().unwrap_or_default();
    let Some(columns) = columns else { return Ok(schema.columns.into_iter().map(|column| column.name).collect()) };
    for column in columns {
        if schema.get(column).is_none() {
            let problem = format!("`{}` has no column `{column}`", graph.describe(of));
            return Err(EngineError::Name { problem, hint: Some(format!("it has {}", schema.names())) });
        }
    }
    Ok(columns.iter().cloned().collect())
}
