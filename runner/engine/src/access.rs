//! Rows to read at will, for folds that merge and for jobs: read where they are stored, recomputed where they are not.

use std::collections::HashSet;

use runner_contract::{Access, Batch, BatchError, Need, Rows, Shape, StageError};

use crate::{
    EngineError,
    apply::places,
    attempt::Attempt,
    eval::{LeftOut, PortRows, decode},
    graph::Edge,
    images::DecodedImages,
};

/// The row inputs of a stage.
pub(crate) struct StageAccess<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) stage: usize,
}

impl Access for StageAccess<'_> {
    fn rows(&self, port: &str) -> Result<Box<dyn Rows + '_>, StageError> {
        let edge = self.attempt.graph.nodes[self.stage].rows.iter().find(|edge| edge.port == port);
        let edge = edge.ok_or_else(|| StageError::new(format!("port `{port}` has no rows")))?;
        Ok(Box::new(PortAccess { attempt: self.attempt, edge }))
    }
}

struct PortAccess<'a> {
    attempt: &'a Attempt,
    edge: &'a Edge,
}

impl PortAccess<'_> {
    fn shards(&self) -> usize {
        self.attempt.graph.origin(self.edge.from).map_or(0, |origin| self.attempt.keys.shards(origin))
    }

    /// Checks the names before anything is read.
    fn check(&self, columns: &[Need]) -> Result<(), StageError> {
        let schema = self.attempt.graph.schema(self.edge.from);
        for need in columns {
            if schema.is_some_and(|schema| schema.get(&need.column).is_none() && need.column != runner_contract::PARENT)
            {
                return Err(StageError::new(format!(
                    "no column `{}` on port `{}`: it has {}",
                    need.column,
                    self.edge.port,
                    schema.map(runner_contract::Schema::names).unwrap_or_default()
                )));
            }
        }
        Ok(())
    }

    fn open(&self, shard: usize, columns: &[Need]) -> Result<PortRows<'_>, StageError> {
        PortRows::open(self.attempt, self.edge.from, shard, columns).map_err(EngineError::into_stage_error)
    }
}

impl Rows for PortAccess<'_> {
    fn scan(&self, columns: &[Need]) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + '_>, StageError> {
        self.check(columns)?;
        let columns = columns.to_vec();
        let shards = (0..self.shards()).map(move |shard| self.open(shard, &columns));
        // A shard that cannot be opened ends the scan with its error.
        let rows = shards.flat_map(|opened| {
            let (rows, error) = match opened {
                Ok(rows) => (Some(rows), None),
                Err(error) => (None, Some(Err(error))),
            };
            error.into_iter().chain(rows.into_iter().flatten().map(|rows| rows.map_err(EngineError::into_stage_error)))
        });
        Ok(Box::new(rows.filter(|rows| rows.as_ref().map_or(true, |rows| !rows.is_empty()))))
    }

    fn fetch(&self, ids: &[String], columns: &[Need]) -> Result<Batch, StageError> {
        self.check(columns)?;
        let mut wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let mut found = Vec::new();
        for shard in 0..self.shards() {
            if wanted.is_empty() {
                break;
            }
            // Which rows of which chunks: their ids are read first, without a column.
            let mut opened = self.open(shard, &[])?;
            let source = columns.iter().find_map(|need| self.source_of(&need.column, &opened));
            let (direct, carried): (Vec<_>, Vec<_>) =
                columns.iter().cloned().partition(|need| self.source_of(&need.column, &opened).is_some());
            let (mut named, mut takes) = (Vec::new(), Vec::new());
            for rows in &mut opened {
                let rows = rows.map_err(EngineError::into_stage_error)?;
                let mut take = Vec::new();
                if !rows.is_empty() {
                    let ids = (0..).zip(rows.ids()?.iter().flatten());
                    take.extend(ids.filter(|(_, id)| wanted.remove::<str>(id)).map(|(row, _)| row));
                }
                if !take.is_empty() {
                    named.push(rows.take(&take)?);
                }
                takes.push(take);
            }
            if named.is_empty() {
                continue;
            }
            if !carried.is_empty() {
                named.clear();
                for (rows, take) in self.open(shard, &carried)?.zip(takes).filter(|(_, take)| !take.is_empty()) {
                    named.push(rows.map_err(EngineError::into_stage_error)?.take(&take)?);
                }
            }
            let mut rows = Batch::concat(&named)?;
            if let Some(source) = source {
                rows = self.join(shard, rows, source, &direct).map_err(EngineError::into_stage_error)?;
            }
            found.push(rows.select(&columns.iter().map(|need| need.column.as_str()).collect::<Vec<_>>())?);
        }
        Ok(Batch::concat(&found)?)
    }
}

/// A source that some columns come from as they are.
#[derive(Clone, Copy)]
struct Direct {
    stage: usize,
    /// How many times a row became several on the way from there: as often, an id got longer.
    expanded: usize,
}

impl PortAccess<'_> {
    /// The source that a column comes from as it is, unless it is read on the way to the rows in any case.
    fn source_of(&self, column: &str, rows: &PortRows<'_>) -> Option<Direct> {
        let (mut of, mut expanded) = (self.edge.from, 0);
        loop {
            let node = &self.attempt.graph.nodes[of.stage];
            let made = node.produced(of.port).iter().any(|name| name == column);
            if node.shape == Shape::Source {
                let is_main = !self.attempt.sides.contains_key(&of);
                return (made && is_main && !rows.reads(of, column)).then_some(Direct { stage: of.stage, expanded });
            }
            if made || !node.streams() {
                return None;
            }
            expanded += usize::from(node.shape == Shape::Expand);
            of = node.rows.first()?.from;
        }
    }

    /// Adds columns of the source to rows: those rows alone are read of its shard, and decoded.
    fn join(&self, shard: usize, rows: Batch, from: Direct, columns: &[Need]) -> Result<Batch, EngineError> {
        let attempt = self.attempt;
        let failed =
            |error: BatchError| EngineError::stage(&attempt.graph.nodes[from.stage].name, Some(shard), error.into());
        let source = attempt.source(from.stage)?;
        let origins = rows.ids().map_err(failed)?.iter().flatten().map(|id| ancestor(id, from.expanded));
        let origins: Vec<&str> = origins.collect();
        let names: Vec<String> = columns.iter().map(|need| need.column.clone()).collect();
        let mut read = attempt.guard(from.stage, Some(shard), || {
            let (wanted, mut positions) = (HashSet::<&str>::from_iter(origins.iter().copied()), Vec::new());
            let mut position = 0;
            for chunk in source.read(shard, attempt.limit, &[])? {
                for id in chunk?.ids()? {
                    positions.extend(id.filter(|id| wanted.contains(id)).map(|_| position));
                    position += 1;
                }
            }
            source.rows(shard, attempt.limit, &positions, &names)
        })?;
        let (mut decoded, mut left_out) = (DecodedImages::default(), LeftOut::default());
        read = decode(attempt, (from.stage, shard), columns, read, &mut decoded, &mut left_out)?;
        left_out.warn(attempt, shard);
        let places = places(read.ids().map_err(failed)?);
        let found = (0..).zip(&origins).filter_map(|(row, origin)| Some((row, *places.get(origin)?)));
        let (kept, taken): (Vec<u32>, Vec<u32>) = found.unzip();
        let (mut joined, read) = (rows.take(&kept).map_err(failed)?, read.take(&taken).map_err(failed)?);
        for name in &names {
            let field = read.records().schema().field_with_name(name).cloned();
            let field = field.map_err(|error| failed(error.into()))?;
            joined = joined.with_array(field, read.array(name).map_err(failed)?.clone()).map_err(failed)?;
        }
        Ok(joined)
    }
}

/// The id of the row that a row came from, so many times up.
fn ancestor(id: &str, times: usize) -> &str {
    (0..times).fold(id, |id, _| id.rsplit_once('/').map_or(id, |(parent, _)| parent))
}
