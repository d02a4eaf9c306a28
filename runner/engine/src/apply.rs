//! One stage on one chunk: what it reads, what it makes, and the columns that pass it by.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use arrow_array::{Array, StringArray};
use runner_contract::{Batch, BatchError, Column, ColumnType, Inputs, PARENT, Prepared, Produced, Shape, StageError};

use crate::{
    EngineError,
    attempt::Attempt,
    graph::{Edge, Node, Ref},
    images::DecodedImages,
    route::Step,
};

/// A row that could not be used: its id and why.
pub(crate) type Bad = (String, String);

/// The rows of a chunk on their way through the stages.
#[derive(Default)]
pub(crate) struct Chunk {
    /// By output port. A chunk without rows has no columns either, and is given to no stage.
    pub(crate) rows: BTreeMap<Ref, Batch>,
    /// Rows that a stage could not use.
    pub(crate) bad: BTreeMap<usize, Vec<Bad>>,
    /// What was prepared for stages that work on a device.
    ready: BTreeMap<usize, Ready>,
    pub(crate) decoded: DecodedImages,
    /// Read again, besides the task of its shard: nobody counts its rows.
    pub(crate) again: bool,
}

/// A stage's inputs, ready for [`runner_contract::Stream::apply`].
struct Ready {
    gathered: Gathered,
    prepared: Option<Prepared>,
    nanos: u64,
}

/// What a stage gets of a chunk.
pub(crate) struct Gathered {
    /// The rows of its first rows port, with all columns that pass by.
    main: Batch,
    /// What it reads.
    pub(crate) inputs: Inputs,
    /// Rows before the unusable ones were left out.
    pub(crate) taken: usize,
    /// Rows whose image could not be decoded.
    pub(crate) bad: Vec<Bad>,
}

impl Gathered {
    pub(crate) fn is_empty(&self) -> bool {
        self.main.is_empty()
    }
}

/// Runs a stage's `prepare`, so that its `apply` finds everything ready.
pub(crate) fn prepare(attempt: &Attempt, step: &Step, shard: usize, chunk: &mut Chunk) -> Result<(), EngineError> {
    let stage = step.stage;
    let gathered = gather(attempt, stage, shard, chunk)?;
    let begun = Instant::now();
    let prepared = if gathered.is_empty() {
        None
    } else {
        let (stream, context) = attempt.stream(stage)?;
        Some(attempt.guard(stage, Some(shard), || stream.prepare(&context, &gathered.inputs))?)
    };
    chunk.ready.insert(stage, Ready { gathered, prepared, nanos: nanos(begun) });
    Ok(())
}

/// Computes a stage's rows of a chunk.
pub(crate) fn apply(attempt: &Attempt, step: &Step, shard: usize, chunk: &mut Chunk) -> Result<(), EngineError> {
    let stage = step.stage;
    if !chunk.ready.contains_key(&stage) {
        prepare(attempt, step, shard, chunk)?;
    }
    let Some(Ready { gathered, prepared, nanos: before }) = chunk.ready.remove(&stage) else { return Ok(()) };
    let Gathered { main, inputs, taken, mut bad } = gathered;
    let node = &attempt.graph.nodes[stage];
    let begun = Instant::now();
    let mut made = match prepared {
        Some(prepared) => {
            let (stream, context) = attempt.stream(stage)?;
            attempt.guard(stage, Some(shard), || stream.apply(&context, &inputs, prepared))?
        }
        None => BTreeMap::new(),
    };
    for produced in made.values_mut() {
        for (id, reason) in std::mem::take(&mut produced.bad) {
            if !bad.iter().any(|(other, _)| *other == id) {
                bad.push((id, attempt.secrets.redacted(reason)));
            }
        }
    }
    for (port, columns) in &step.ports {
        let rows = if main.is_empty() {
            Batch::new(Vec::new())
        } else {
            let name = &node.outputs[*port].name;
            let rows = match made.remove(name) {
                Some(produced) => output(node, *port, &main, produced, columns),
                None => Err(StageError::new(format!("it made nothing for its port `{name}`"))),
            };
            rows.map_err(|error| EngineError::stage(&node.name, Some(shard), error))?
        };
        chunk.rows.insert(Ref { stage, port: *port }, rows);
    }
    if !chunk.again {
        attempt.tell_rows(stage, taken as u64, bad.len() as u64, before.saturating_add(nanos(begun)));
    }
    if !bad.is_empty() {
        chunk.bad.entry(stage).or_default().extend(bad);
    }
    Ok(())
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

// ------------------------------------------------------------------------------------------------------------ inputs

/// Collects what a stage reads: rows of several ports aligned by id, images decoded.
pub(crate) fn gather(
    attempt: &Attempt,
    stage: usize,
    shard: usize,
    chunk: &mut Chunk,
) -> Result<Gathered, EngineError> {
    let node = &attempt.graph.nodes[stage];
    let failed = |error: BatchError| EngineError::stage(&node.name, Some(shard), error.into());
    let batches: Vec<Batch> = node.rows.iter().filter_map(|edge| chunk.rows.get(&edge.from).cloned()).collect();
    let nothing = || Gathered { main: Batch::new(Vec::new()), inputs: Inputs::new(), taken: 0, bad: Vec::new() };
    let batches = align(batches).map_err(failed)?;
    let Some(main) = batches.first().cloned() else { return Ok(nothing()) };
    if main.is_empty() {
        return Ok(nothing());
    }
    let mut gathered = Gathered { taken: main.len(), main, inputs: Inputs::new(), bad: Vec::new() };
    let mut batches: Vec<(&Edge, Batch)> = node.rows.iter().zip(batches).collect();
    decode(attempt, &mut gathered, &mut batches, &mut chunk.decoded).map_err(failed)?;
    for (edge, batch) in batches {
        let names: Vec<&str> = edge.needs.iter().map(|need| need.column.as_str()).collect();
        for name in &names {
            batch.array(name).map_err(failed)?;
        }
        gathered.inputs.insert(edge.port.clone(), batch.select(&names).map_err(failed)?);
    }
    Ok(gathered)
}

/// The rows that all batches have, in the order of the first.
fn align(mut batches: Vec<Batch>) -> Result<Vec<Batch>, BatchError> {
    let Some((first, others)) = batches.split_first() else { return Ok(batches) };
    if batches.iter().any(Batch::is_empty) {
        return Ok(vec![Batch::new(Vec::new()); batches.len()]);
    }
    let ids = first.ids()?;
    if others.iter().map(Batch::ids).all(|other| other.is_ok_and(|other| other == ids)) {
        return Ok(batches);
    }
    let places: Vec<HashMap<&str, u32>> =
        others.iter().map(|other| Ok(places(other.ids()?))).collect::<Result<_, BatchError>>()?;
    let common: Vec<(u32, Vec<u32>)> = (0..)
        .zip(ids.iter().flatten())
        .filter_map(|(row, id)| {
            Some((row, places.iter().map(|places| places.get(id).copied()).collect::<Option<_>>()?))
        })
        .collect();
    let rows: Vec<u32> = common.iter().map(|(row, _)| *row).collect();
    let mut aligned = vec![first.take(&rows)?];
    for (i, other) in others.iter().enumerate() {
        let rows: Vec<u32> = common.iter().map(|(_, places)| places[i]).collect();
        aligned.push(other.take(&rows)?);
    }
    batches = aligned;
    Ok(batches)
}

/// Where each id stands.
pub(crate) fn places(ids: &StringArray) -> HashMap<&str, u32> {
    ids.iter().flatten().zip(0..).collect()
}

fn decode(
    attempt: &Attempt,
    gathered: &mut Gathered,
    batches: &mut [(&Edge, Batch)],
    decoded: &mut DecodedImages,
) -> Result<(), BatchError> {
    for port in 0..batches.len() {
        let edge = batches[port].0;
        for need in edge.needs.iter().filter(|need| need.pixels) {
            let batch = &batches[port].1;
            if batch.is_empty() {
                return Ok(());
            }
            let Some(pixels) = decoded.pixels(batch, &need.column, &attempt.config.decode)? else { continue };
            let ids = batch.ids()?;
            for (row, reason) in &pixels.bad {
                gathered.bad.push((ids.value(*row as usize).to_owned(), reason.clone()));
            }
            let replaced = pixels.replace(batch, &need.column)?;
            if !pixels.bad.is_empty() {
                gathered.main = gathered.main.take(&pixels.good)?;
                for (other, (_, batch)) in batches.iter_mut().enumerate() {
                    if other != port {
                        *batch = batch.take(&pixels.good)?;
                    }
                }
            }
            batches[port].1 = replaced;
        }
    }
    Ok(())
}

// ----------------------------------------------------------------------------------------------------------- outputs

/// The rows of an output port: columns that pass by, and those that the stage made.
fn output(node: &Node, port: usize, main: &Batch, made: Produced, columns: &[String]) -> Result<Batch, StageError> {
    let produced = node.produced(port);
    let through: Vec<&str> = columns.iter().filter(|column| !produced.contains(column)).map(String::as_str).collect();
    let rows = main.select(&through)?;
    let rows = match &made.take {
        None => rows,
        Some(take) => {
            check_take(node.shape, take, main.len())?;
            rows.take(take)?
        }
    };
    let mut rows = if node.shape == Shape::Expand { children(rows)? } else { rows };
    for (field, array) in made.columns {
        if !produced.contains(field.name()) {
            return Err(StageError::new(format!("it made a column `{}` that it did not declare", field.name())));
        }
        if array.len() != rows.len() {
            return Err(StageError::new(format!(
                "it made {} values of column `{}` for {} rows",
                array.len(),
                field.name(),
                rows.len()
            )));
        }
        if columns.contains(field.name()) {
            rows = rows.with_array(field, array)?;
        }
    }
    match columns.iter().find(|column| !rows.has(column)) {
        Some(column) if !rows.is_empty() => Err(StageError::new(format!("it made no column `{column}`"))),
        _ => Ok(rows),
    }
}

fn check_take(shape: Shape, take: &[u32], rows: usize) -> Result<(), StageError> {
    if let Some(beyond) = take.iter().find(|&&row| row as usize >= rows) {
        return Err(StageError::new(format!("it took row {beyond} of {rows}")));
    }
    let ascending = match shape {
        Shape::Map | Shape::Filter => take.windows(2).all(|pair| pair[0] < pair[1]),
        Shape::Expand => take.windows(2).all(|pair| pair[0] <= pair[1]),
        _ => true,
    };
    if ascending { Ok(()) } else { Err(StageError::new("it took rows out of order")) }
}

/// Turns rows that repeat their parents into children: id `parent/k`, and a column `parent`.
fn children(rows: Batch) -> Result<Batch, StageError> {
    let parents = rows.ids()?.clone();
    let mut ids = Vec::with_capacity(rows.len());
    let mut k = 0usize;
    for row in 0..parents.len() {
        k = if row > 0 && parents.value(row) == parents.value(row - 1) { k + 1 } else { 0 };
        ids.push(format!("{}/{k}", parents.value(row)));
    }
    let field = Column::new(PARENT, ColumnType::Text).field(arrow_schema::DataType::Utf8);
    let mut children = Batch::new(ids).with_array(field, Arc::new(parents))?;
    let schema = rows.records().schema();
    for (field, array) in schema.fields().iter().zip(rows.records().columns()).skip(1) {
        if field.name() != PARENT {
            children = children.with_array(field.as_ref().clone(), array.clone())?;
        }
    }
    Ok(children)
}

/// Rows that a stage stored, with columns that pass it by taken from the rows that it read.
pub(crate) fn join_stored(
    node: &Node,
    port: usize,
    stored: Batch,
    before: Option<&Batch>,
    columns: &[String],
) -> Result<Batch, String> {
    let produced = node.produced(port);
    let through: Vec<&str> = columns.iter().filter(|column| !produced.contains(column)).map(String::as_str).collect();
    let mut rows = stored;
    if rows.is_empty() || through.is_empty() {
        return Ok(rows);
    }
    let say = |error: BatchError| error.to_string();
    let before = before.ok_or("the rows that they were made from are not there")?;
    let origins = if node.shape == Shape::Expand { rows.text(PARENT) } else { rows.ids() }.map_err(say)?;
    let places = if before.is_empty() { HashMap::new() } else { places(before.ids().map_err(say)?) };
    let take: Option<Vec<u32>> = origins.iter().map(|id| places.get(id?).copied()).collect();
    let take = take.ok_or("they do not match the rows that they were made from")?;
    let passed = before.select(&through).and_then(|rows| rows.take(&take)).map_err(say)?;
    let schema = passed.records().schema();
    for (field, array) in schema.fields().iter().zip(passed.records().columns()).skip(1) {
        rows = rows.with_array(field.as_ref().clone(), array.clone()).map_err(say)?;
    }
    match columns.iter().find(|column| !rows.has(column)) {
        Some(column) => Err(format!("they have no column `{column}`")),
        None => Ok(rows),
    }
}
