//! Uses kinds in tests as the language and the engine do: through their `bind`, `open` and the stage.

use std::{collections::BTreeMap, sync::Arc};

use runner_contract::{
    Access, Batch, Bound, CheckpointSlot, Context, Input, Inputs, JobContext, Need, Outcome, Problem, Progress,
    Registry, Rows, Stage, StageError,
};
use serde_json::Value;

use crate::{Services, registry};

/// The inputs that these batches are.
pub(crate) fn rows(batches: &[(&str, &Batch)]) -> Vec<(String, Input)> {
    batches.iter().map(|(port, batch)| ((*port).to_owned(), Input::Rows(batch.schema()))).collect()
}

fn services() -> Services {
    Services::new(std::env::temp_dir())
}

pub(crate) fn bind(kind: &str, settings: Value, inputs: &[(String, Input)]) -> Result<Bound, Vec<Problem>> {
    let registry = registry(&services());
    registry.kind(kind).unwrap().bind(&settings, &inputs.iter().cloned().collect())
}

/// The problems of a use, one line each.
pub(crate) fn problems(kind: &str, settings: Value, inputs: &[(String, Input)]) -> Vec<String> {
    let problems = bind(kind, settings, inputs).err().unwrap_or_default();
    problems
        .into_iter()
        .map(|Problem { path, message, hint }| {
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}: {message}{hint}", path.join("."))
        })
        .collect()
}

/// Binds and opens a use on these batches.
pub(crate) fn open(kind: &str, settings: Value, batches: &[(&str, Batch)]) -> Stage {
    let registry = registry(&services());
    let inputs: BTreeMap<_, _> = batches.iter().map(|(p, b)| ((*p).to_owned(), Input::Rows(b.schema()))).collect();
    let kind = registry.kind(kind).unwrap();
    let bound = kind.bind(&settings, &inputs).unwrap();
    kind.open(&bound.settings, &inputs).unwrap()
}

/// A context in which these batches are whole inputs.
pub(crate) fn context(whole: &[(&str, Batch)]) -> Context {
    let mut context = Context::new(1, Arc::default());
    context.whole = whole.iter().map(|(port, batch)| ((*port).to_owned(), batch.clone())).collect();
    context
}

/// Applies a stream to one chunk; gives the rows of every output port with the columns that pass through.
pub(crate) fn apply(kind: &str, settings: Value, batches: &[(&str, Batch)]) -> BTreeMap<String, Batch> {
    try_apply(kind, settings, batches, &[]).unwrap()
}

pub(crate) fn try_apply(
    kind: &str,
    settings: Value,
    batches: &[(&str, Batch)],
    whole: &[(&str, Batch)],
) -> Result<BTreeMap<String, Batch>, StageError> {
    let all: Vec<_> = batches.iter().chain(whole).cloned().collect();
    let Stage::Stream(stream) = open(kind, settings, &all) else { panic!("not a stream") };
    let context = context(whole);
    let inputs: Inputs = batches.iter().map(|(port, batch)| ((*port).to_owned(), batch.clone())).collect();
    let prepared = stream.prepare(&context, &inputs)?;
    let produced = stream.apply(&context, &inputs, prepared)?;
    let first = &batches[0].1;
    produced
        .into_iter()
        .map(|(port, produced)| {
            let mut batch = match &produced.take {
                Some(take) => first.take(take)?,
                None => first.clone(),
            };
            for (field, array) in produced.columns {
                batch = batch.with_array(field, array)?;
            }
            Ok((port, batch))
        })
        .collect()
}

/// Folds these shards, each a list of chunks on the port `rows`.
pub(crate) fn fold(kind: &str, settings: Value, shards: &[Vec<Batch>]) -> Result<Outcome, StageError> {
    let first = shards[0][0].clone();
    let Stage::Fold(fold) = open(kind, settings, &[("rows", first)]) else { panic!("not a fold") };
    let context = context(&[]);
    let partials: Result<Vec<_>, StageError> = shards
        .iter()
        .map(|chunks| {
            let mut accumulator = fold.start(&context)?;
            for chunk in chunks {
                accumulator.push(&BTreeMap::from([("rows".to_owned(), chunk.clone())]))?;
            }
            accumulator.finish()
        })
        .collect();
    let all: Vec<_> = shards.iter().flatten().cloned().collect();
    fold.merge(&context, partials?, &Memory(BTreeMap::from([("rows".to_owned(), Batch::concat(&all)?)])))
}

/// Runs a job on these batches.
pub(crate) fn job(kind: &str, settings: Value, batches: &[(&str, Batch)]) -> Result<Outcome, StageError> {
    let Stage::Job(job) = open(kind, settings, batches) else { panic!("not a job") };
    let access = Memory(batches.iter().map(|(port, batch)| ((*port).to_owned(), batch.clone())).collect());
    job.run(&JobContext { base: context(&[]), access: &access, checkpoint: &Unheard, progress: &Unheard })
}

/// Keeps no checkpoint and hears no progress.
struct Unheard;

impl CheckpointSlot for Unheard {
    fn load(&self) -> Result<Option<Vec<u8>>, StageError> {
        Ok(None)
    }

    fn save(&self, _: Vec<u8>) -> Result<(), StageError> {
        Ok(())
    }
}

impl Progress for Unheard {
    fn step(&self, _: u64, _: u64, _: &str) {}

    fn metric(&self, _: &str, _: u64, _: f64) {}
}

/// Rows in memory, for folds and jobs.
pub(crate) struct Memory(pub(crate) BTreeMap<String, Batch>);

impl Access for Memory {
    fn rows(&self, port: &str) -> Result<Box<dyn Rows + '_>, StageError> {
        let batch = self.0.get(port).ok_or_else(|| StageError::new(format!("no port {port}")))?;
        Ok(Box::new(MemoryRows(batch)))
    }
}

struct MemoryRows<'a>(&'a Batch);

impl Rows for MemoryRows<'_> {
    fn scan(&self, columns: &[Need]) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + '_>, StageError> {
        let names: Vec<_> = columns.iter().map(|need| need.column.as_str()).collect();
        let batch = self.0.select(&names)?;
        Ok(Box::new((0..batch.len()).step_by(4).map(move |offset| Ok(batch.slice(offset, 4)))))
    }

    fn fetch(&self, ids: &[String], columns: &[Need]) -> Result<Batch, StageError> {
        let names: Vec<_> = columns.iter().map(|need| need.column.as_str()).collect();
        let wanted: std::collections::BTreeSet<_> = ids.iter().map(String::as_str).collect();
        let have = self.0.ids()?;
        let take: Vec<_> = (0..self.0.len() as u32).filter(|&i| wanted.contains(have.value(i as usize))).collect();
        Ok(self.0.take(&take)?.select(&names)?)
    }
}
