//! Walks the chunks of one shard along a route.

use std::collections::{BTreeMap, BTreeSet};

use runner_contract::{Batch, Digest, Need, StageError};

use crate::{
    EngineError,
    apply::{Bad, Chunk, apply, join_stored, prepare},
    attempt::Attempt,
    graph::{Edge, Ref},
    images::DecodedImages,
    parquet::RowsReader,
    route::{How, Route, Step, Wants, stored_columns},
};

/// Rows a chunk where a dataset is one small batch: a source's second port, the result of a fold or a job.
pub(crate) const SMALL_CHUNK: usize = 64;

/// By stored stage that is read: rows that were left out as unusable until there, by the key of who left them out.
pub(crate) type StoredBad = BTreeMap<usize, BTreeMap<Digest, u64>>;

/// The chunks of one stored or original port.
enum Reader<'a> {
    Source(Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>),
    Small { rows: Batch, next: usize },
    Stored(Box<RowsReader>),
}

/// The chunks of one shard, brought as far as the device.
pub(crate) struct ShardEval<'a> {
    attempt: &'a Attempt,
    shard: usize,
    readers: Vec<(Ref, Reader<'a>)>,
    pub(crate) stored_bad: StoredBad,
    done: bool,
    /// See [`Chunk::again`].
    again: bool,
}

impl<'a> ShardEval<'a> {
    /// Opens everything that the route reads.
    pub(crate) fn open(attempt: &'a Attempt, route: &Route, shard: usize) -> Result<Self, EngineError> {
        let mut eval =
            Self { attempt, shard, readers: Vec::new(), stored_bad: StoredBad::new(), done: false, again: false };
        for step in &route.steps {
            for (port, columns) in &step.ports {
                let of = Ref { stage: step.stage, port: *port };
                let reader = match step.how {
                    How::Compute => continue,
                    How::Origin => eval.origin(of, columns)?,
                    How::Stored => eval.stored(of, columns)?,
                };
                eval.readers.push((of, reader));
            }
        }
        Ok(eval)
    }

    fn origin(&self, of: Ref, columns: &[String]) -> Result<Reader<'a>, EngineError> {
        let attempt = self.attempt;
        if let Some(rows) = attempt.sides.get(&of) {
            return Ok(Reader::Small { rows: rows.clone(), next: 0 });
        }
        let node = &attempt.graph.nodes[of.stage];
        if !node.has_result() {
            let source = attempt.source(of.stage)?;
            let read = attempt.guard(of.stage, Some(self.shard), || source.read(self.shard, attempt.limit, columns))?;
            return Ok(Reader::Source(read));
        }
        let port = &node.outputs[of.port].name;
        let outcome = attempt.outcome(of.stage);
        let file = outcome.as_ref().and_then(|outcome| outcome.rows.get(port));
        let file = file.ok_or_else(|| EngineError::stored(&node.name, format!("it left no rows on port `{port}`")))?;
        self.file(of, &file.digest, columns)
    }

    fn stored(&mut self, of: Ref, columns: &[String]) -> Result<Reader<'a>, EngineError> {
        let node = &self.attempt.graph.nodes[of.stage];
        let entry = self.attempt.group(of, self.shard);
        let entry = entry.ok_or_else(|| EngineError::stored(&node.name, "nothing is stored"))?;
        let reader = self.file(of, &entry.digest, &stored_columns(columns, node.produced(of.port)))?;
        if let Reader::Stored(reader) = &reader {
            self.stored_bad.entry(of.stage).or_default().extend(reader.layout().bad.iter().map(|(key, n)| (*key, *n)));
        }
        Ok(reader)
    }

    fn file(&self, of: Ref, digest: &Digest, columns: &[String]) -> Result<Reader<'a>, EngineError> {
        let file = self.attempt.get(digest)?;
        let reader = RowsReader::open(file, columns);
        let name = &self.attempt.graph.nodes[of.stage].name;
        Ok(Reader::Stored(Box::new(reader.map_err(|error| EngineError::stored(name, error))?)))
    }

    /// Reads the next chunk and brings it as far as possible without a device.
    pub(crate) fn next(&mut self, route: &Route) -> Result<Option<Chunk>, EngineError> {
        self.attempt.check()?;
        let Some(mut chunk) = self.read()? else { return Ok(None) };
        for step in &route.steps {
            if step.prepared_ahead {
                prepare(self.attempt, step, self.shard, &mut chunk)?;
            } else if step.ahead {
                self.pass(step, &mut chunk)?;
            }
        }
        // What was read only to get here need not wait in the queue.
        chunk.rows.retain(|of, _| route.late.contains(of));
        chunk.decoded = DecodedImages::default();
        Ok(Some(chunk))
    }

    fn read(&mut self) -> Result<Option<Chunk>, EngineError> {
        if self.done {
            return Ok(None);
        }
        let mut chunk = Chunk::default();
        chunk.again = self.again;
        for (of, reader) in &mut self.readers {
            let name = &self.attempt.graph.nodes[of.stage].name;
            let next = match reader {
                Reader::Source(read) => self.attempt.guard(of.stage, Some(self.shard), || read.next().transpose())?,
                Reader::Small { rows, next } => {
                    let start = *next;
                    *next += SMALL_CHUNK;
                    (start < rows.len()).then(|| rows.slice(start, SMALL_CHUNK))
                }
                Reader::Stored(read) => read.next().transpose().map_err(|error| EngineError::stored(name, error))?,
            };
            if let Some(rows) = next {
                chunk.rows.insert(*of, rows);
            }
        }
        if chunk.rows.len() < self.readers.len() {
            self.done = true;
            if let Some(of) = chunk.rows.keys().next() {
                let reason = format!("shard {} has more chunks than what it was made from", self.shard);
                return Err(EngineError::stored(&self.attempt.graph.nodes[of.stage].name, reason));
            }
            return Ok(None);
        }
        Ok(Some(chunk))
    }

    /// A step that needs no device.
    fn pass(&self, step: &Step, chunk: &mut Chunk) -> Result<(), EngineError> {
        finish_step(self.attempt, step, self.shard, chunk)
    }
}

/// Unusable rows on the way to each stage, by the key of who could not use them. `found` counts those of the stages that
/// were computed now.
pub(crate) fn bad_before(
    attempt: &Attempt,
    route: &Route,
    shard: usize,
    stored: &StoredBad,
    found: &BTreeMap<usize, u64>,
) -> BTreeMap<usize, BTreeMap<Digest, u64>> {
    let mut before: BTreeMap<usize, BTreeMap<Digest, u64>> = BTreeMap::new();
    for step in &route.steps {
        let mut bad = stored.get(&step.stage).cloned().unwrap_or_default();
        if step.how == How::Compute {
            for edge in &attempt.graph.nodes[step.stage].rows {
                bad.extend(before.get(&edge.from.stage).into_iter().flatten());
            }
            let key = attempt.keys.stages[step.stage].shards.get(shard);
            if let (Some(key), Some(&n)) = (key, found.get(&step.stage)) {
                bad.insert(*key, n);
            }
        }
        before.insert(step.stage, bad);
    }
    before
}

/// Does what is left of a chunk behind the device.
pub(crate) fn finish(attempt: &Attempt, route: &Route, shard: usize, chunk: &mut Chunk) -> Result<(), EngineError> {
    for step in route.steps.iter().filter(|step| !step.ahead) {
        attempt.check()?;
        finish_step(attempt, step, shard, chunk)?;
    }
    Ok(())
}

fn finish_step(attempt: &Attempt, step: &Step, shard: usize, chunk: &mut Chunk) -> Result<(), EngineError> {
    match step.how {
        How::Origin => Ok(()),
        How::Compute => apply(attempt, step, shard, chunk),
        How::Stored => {
            let node = &attempt.graph.nodes[step.stage];
            for (port, columns) in &step.ports {
                let of = Ref { stage: step.stage, port: *port };
                let Some(stored) = chunk.rows.remove(&of) else { continue };
                let before = node.rows.first().and_then(|main| chunk.rows.get(&main.from));
                let rows = join_stored(node, *port, stored, before, columns);
                chunk.rows.insert(of, rows.map_err(|reason| EngineError::stored(&node.name, reason))?);
            }
            Ok(())
        }
    }
}

// ------------------------------------------------------------------------------------------------------ one port's rows

/// The rows of one port in one shard, with these columns, for whoever reads them outside a stage's own task.
pub(crate) struct PortRows<'a> {
    attempt: &'a Attempt,
    route: Route,
    eval: ShardEval<'a>,
    shard: usize,
    of: Ref,
    needs: Vec<Need>,
    left_out: LeftOut,
}

/// Rows that could not be used while they were read again: how many, and the first, by stage.
#[derive(Default)]
pub(crate) struct LeftOut(BTreeMap<usize, (usize, Option<Bad>)>);

impl LeftOut {
    fn add(&mut self, stage: usize, bad: Vec<Bad>) {
        let (n, first) = self.0.entry(stage).or_default();
        *n += bad.len();
        if first.is_none() {
            *first = bad.into_iter().next();
        }
    }

    /// Says which they are, once a run.
    pub(crate) fn warn(&mut self, attempt: &Attempt, shard: usize) {
        for (stage, (n, first)) in std::mem::take(&mut self.0) {
            if let Some((id, reason)) = first.filter(|_| attempt.first_warning(stage, shard)) {
                let text = format!("{n} rows of shard {shard} left out as unusable (first: `{id}`: {reason})");
                attempt.warn(stage, shard, text);
            }
        }
    }
}

/// Decodes what is wanted as pixels; rows that cannot be decoded are left out.
pub(crate) fn decode(
    attempt: &Attempt,
    (stage, shard): (usize, usize),
    needs: &[Need],
    rows: Batch,
    decoded: &mut DecodedImages,
    left_out: &mut LeftOut,
) -> Result<Batch, EngineError> {
    let failed = |error: runner_contract::BatchError| {
        EngineError::stage(&attempt.graph.nodes[stage].name, Some(shard), error.into())
    };
    let mut rows = rows;
    for need in needs.iter().filter(|need| need.pixels) {
        let pixels = decoded.pixels(&rows, &need.column, &attempt.config.decode).map_err(failed)?;
        if let Some(pixels) = pixels {
            let ids = rows.ids().map_err(failed)?;
            let bad = pixels.bad.iter().map(|(row, reason)| (ids.value(*row as usize).to_owned(), reason.clone()));
            left_out.add(stage, bad.collect());
            rows = pixels.replace(&rows, &need.column).map_err(failed)?;
        }
    }
    Ok(rows)
}

impl<'a> PortRows<'a> {
    pub(crate) fn open(attempt: &'a Attempt, of: Ref, shard: usize, needs: &[Need]) -> Result<Self, EngineError> {
        let origin = attempt.graph.origin(of);
        let origin =
            origin.ok_or_else(|| EngineError::Invalid(format!("`{}` has no rows", attempt.graph.describe(of))))?;
        let columns: BTreeSet<String> = needs.iter().map(|need| need.column.clone()).collect();
        let route = Route::new(attempt, origin, shard, Wants::from([(of, columns)]), &BTreeSet::new());
        let mut eval = ShardEval::open(attempt, &route, shard)?;
        eval.again = true;
        Ok(Self { attempt, route, eval, shard, of, needs: needs.to_vec(), left_out: LeftOut::default() })
    }

    /// Whether a column of an original port is read on the way.
    pub(crate) fn reads(&self, of: Ref, column: &str) -> bool {
        let steps = self.route.steps.iter().filter(|step| step.stage == of.stage).flat_map(|step| &step.ports);
        steps.filter(|(port, _)| *port == of.port).any(|(_, columns)| columns.iter().any(|name| name == column))
    }

    fn chunk(&mut self) -> Result<Option<Batch>, EngineError> {
        let Some(mut chunk) = self.eval.next(&self.route)? else {
            self.left_out.warn(self.attempt, self.shard);
            return Ok(None);
        };
        finish(self.attempt, &self.route, self.shard, &mut chunk)?;
        let mut rows = chunk.rows.remove(&self.of).unwrap_or_else(|| Batch::new(Vec::new()));
        if rows.is_empty() {
            return Ok(Some(rows));
        }
        let name = &self.attempt.graph.nodes[self.of.stage].name;
        let names: Vec<&str> = self.needs.iter().map(|need| need.column.as_str()).collect();
        rows = rows.select(&names).map_err(|error| EngineError::stage(name, Some(self.shard), error.into()))?;
        for (stage, bad) in chunk.bad {
            self.left_out.add(stage, bad);
        }
        let place = (self.of.stage, self.shard);
        decode(self.attempt, place, &self.needs, rows, &mut chunk.decoded, &mut self.left_out).map(Some)
    }
}

impl Iterator for PortRows<'_> {
    type Item = Result<Batch, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chunk().transpose()
    }
}

/// A whole dataset, for an input port that holds it.
pub(crate) fn whole(attempt: &Attempt, reader: usize, edge: &Edge) -> Result<Batch, EngineError> {
    let origin = attempt.graph.origin(edge.from);
    let mut parts = Vec::new();
    for shard in 0..origin.map_or(0, |origin| attempt.keys.shards(origin)) {
        for rows in PortRows::open(attempt, edge.from, shard, &edge.needs)? {
            let rows = rows?;
            if !rows.is_empty() {
                parts.push(rows);
            }
        }
    }
    let name = &attempt.graph.nodes[reader].name;
    if parts.is_empty() {
        let reason = format!("port `{}` reads `{}`, which has no rows", edge.port, attempt.graph.describe(edge.from));
        return Err(EngineError::stage(name, None, StageError::new(reason)));
    }
    Batch::concat(&parts).map_err(|error| EngineError::stage(name, None, error.into()))
}
