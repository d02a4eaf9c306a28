//! Rows to read at will, for folds that merge and for jobs: read where they are stored, recomputed where they are not.

use std::collections::HashSet;

use runner_contract::{Access, Batch, Need, Rows, StageError};

use crate::{EngineError, attempt::Attempt, eval::PortRows, graph::Edge};

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
            // Which chunks hold wanted rows: their ids are read first, without a column.
            let mut hits = Vec::new();
            for rows in self.open(shard, &[])? {
                let rows = rows.map_err(EngineError::into_stage_error)?;
                hits.push(!rows.is_empty() && rows.ids()?.iter().flatten().any(|id| wanted.contains(id)));
            }
            if !hits.contains(&true) {
                continue;
            }
            for (rows, hit) in self.open(shard, columns)?.zip(hits) {
                let rows = rows.map_err(EngineError::into_stage_error)?;
                if !hit || rows.is_empty() {
                    continue;
                }
                let mut take = Vec::new();
                for (row, id) in (0..).zip(rows.ids()?.iter().flatten()) {
                    if wanted.remove(id) {
                        take.push(row);
                    }
                }
                found.push(rows.take(&take)?);
            }
        }
        Ok(Batch::concat(&found)?)
    }
}
