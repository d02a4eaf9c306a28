//! Folds and jobs: one result each, kept as a manifest and the artifacts that it names.

use std::collections::BTreeMap;

use runner_contract::{CheckpointSlot, Digest, JobContext, Outcome as Produced, Progress, StageError};
use runner_store::StoreError;

use crate::{
    EngineError,
    access::StageAccess,
    attempt::Attempt,
    eval::SMALL_CHUNK,
    graph::{Content, Ref},
    manifest::{Blob, NamedBlob, Number, Outcome, Partial, RowsFile, VERSION},
    message::{Made, Message},
    parquet::write_batch,
    runtime::Runtime,
    segment::entry,
};

/// Merges a fold's partials.
pub(crate) fn merge(attempt: &Attempt, stage: usize) -> Result<Made, EngineError> {
    let node = &attempt.graph.nodes[stage];
    let (mut n, mut bad, mut partials) = (0, BTreeMap::<Digest, u64>::new(), Vec::new());
    for key in &attempt.keys.stages[stage].shards {
        attempt.check()?;
        let stored = attempt.entry(key).ok_or_else(|| EngineError::stored(&node.name, "a shard's part is missing"))?;
        let partial = Partial::read(&attempt.get(&stored.digest)?);
        let partial = partial.map_err(|reason| EngineError::stored(&node.name, reason))?;
        n += partial.header.n;
        for (key, count) in partial.header.bad {
            *bad.entry(key).or_default() += count;
        }
        partials.push(partial.bytes);
    }
    let (fold, context) = attempt.fold(stage)?;
    let access = StageAccess { attempt, stage };
    let begun = std::time::Instant::now();
    let made = attempt.guard(stage, None, || fold.merge(&context, partials, &access))?;
    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    attempt.tell_rows(stage, 0, 0, nanos);
    keep(attempt, stage, made, Some(n), Some(bad.values().sum()))
}

/// Runs a job, from its last checkpoint.
pub(crate) fn job(attempt: &Attempt, stage: usize) -> Result<Made, EngineError> {
    let node = &attempt.graph.nodes[stage];
    let (job, context) = attempt.job(stage)?;
    let key = attempt.keys.stages[stage].result;
    let key = key.ok_or_else(|| EngineError::stored(&node.name, "it has no key"))?;
    let checkpoint = Checkpoint { attempt, key };
    let progress = Steps { attempt, stage };
    let access = StageAccess { attempt, stage };
    let begun = std::time::Instant::now();
    let made = attempt.guard(stage, None, || {
        let context = JobContext {
            base: context.as_ref().clone(),
            access: &access,
            checkpoint: &checkpoint,
            progress: &progress,
        };
        job.run(&context)
    })?;
    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    attempt.tell_rows(stage, 0, 0, nanos);
    keep(attempt, stage, made, None, None)
}

/// Forgets a job's checkpoint, once its result is recorded.
pub(crate) async fn forget_checkpoint(runtime: &Runtime, stage: usize) -> Result<(), StoreError> {
    let Some(key) = runtime.keys.stages[stage].result else { return Ok(()) };
    if let Some(old) = runtime.store.records().set_checkpoint(&key, None).await? {
        runtime.store.artifacts().delete(&old).await?;
    }
    Ok(())
}

/// Stores what came out.
fn keep(
    attempt: &Attempt,
    stage: usize,
    made: Produced,
    n: Option<u64>,
    n_bad: Option<u64>,
) -> Result<Made, EngineError> {
    let node = &attempt.graph.nodes[stage];
    let failed = |reason: String| EngineError::stage(&node.name, None, StageError::new(reason));
    let mut outcome = Outcome {
        version: VERSION,
        n,
        n_bad,
        metrics: made.metrics.into_iter().map(|(name, value)| (name, Number(value))).collect(),
        rows: BTreeMap::new(),
        models: BTreeMap::new(),
        files: Vec::new(),
    };
    let (mut rows, mut models) = (made.rows, made.models);
    for (port, output) in node.outputs.iter().enumerate() {
        let name = output.name.clone();
        match &output.content {
            Content::Rows { produced, .. } => {
                let batch = rows.remove(&name).ok_or_else(|| failed(format!("it made no rows for port `{name}`")))?;
                if let (Some(column), false) = (produced.iter().find(|column| !batch.has(column)), batch.is_empty()) {
                    return Err(failed(format!("it made no column `{column}` on port `{name}`")));
                }
                let columns: Vec<&str> = produced.iter().map(String::as_str).collect();
                let batch = batch.select(&columns).map_err(|error| failed(error.to_string()))?;
                let file = write_batch(&batch, SMALL_CHUNK).map_err(|error| failed(error.to_string()))?;
                let schema = attempt.keys.real_schema(attempt.graph.schema(Ref { stage, port }));
                let digest = attempt.put(file)?;
                outcome.rows.insert(name, RowsFile { rows: batch.len() as u64, schema, digest });
            }
            Content::Model(_) => {
                let file = models.remove(&name).ok_or_else(|| failed(format!("it made no model for port `{name}`")))?;
                let bytes = file.len() as u64;
                outcome.models.insert(name, Blob { digest: attempt.put(file)?, bytes });
            }
            Content::Unused => {}
        }
    }
    for file in made.files {
        let bytes = file.bytes.len() as u64;
        outcome.files.push(NamedBlob { name: file.name, digest: attempt.put(file.bytes)?, bytes });
    }
    let key = attempt.keys.stages[stage].result.ok_or_else(|| EngineError::stored(&node.name, "it has no key"))?;
    let manifest = serde_json::to_vec(&outcome).map_err(|error| failed(error.to_string()))?;
    let rows = n.unwrap_or(0);
    let mut entry = entry(attempt, key, manifest, rows, 0, Vec::new())?;
    entry.holds = outcome.artifacts();
    attempt.add_outcome(stage, outcome);
    Ok(Made { entries: vec![(stage, entry)], rows, bad: 0 })
}

/// Reads the manifest of a result that is stored.
pub(crate) fn read_outcome(file: &[u8]) -> Result<Outcome, String> {
    let outcome: Outcome = serde_json::from_slice(file).map_err(|error| error.to_string())?;
    if outcome.version > VERSION {
        return Err(format!("version {} is newer than this program's {VERSION}", outcome.version));
    }
    Ok(outcome)
}

/// A job's checkpoint: an artifact that the records name under the job's key. The key stands before the content, so
/// that no two jobs share one and each may remove its own.
struct Checkpoint<'a> {
    attempt: &'a Attempt,
    key: Digest,
}

impl CheckpointSlot for Checkpoint<'_> {
    fn load(&self) -> Result<Option<Vec<u8>>, StageError> {
        let attempt = self.attempt;
        let failed = |error: StoreError| StageError::because("cannot read the checkpoint", error);
        let Some(digest) = attempt.wait(attempt.store.records().checkpoint(&self.key)).map_err(failed)? else {
            return Ok(None);
        };
        match attempt.get(&digest) {
            Ok(file) => Ok(file.strip_prefix(self.key.as_bytes()).map(<[u8]>::to_vec)),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn save(&self, bytes: Vec<u8>) -> Result<(), StageError> {
        let attempt = self.attempt;
        let failed = |error: StoreError| StageError::because("cannot save the checkpoint", error);
        if attempt.is_abandoned() {
            // Another attempt may be further, or done.
            return Err(StageError::Cancelled);
        }
        let mut file = self.key.as_bytes().to_vec();
        file.extend_from_slice(&bytes);
        let digest = attempt.put(file).map_err(failed)?;
        let old = attempt.wait(attempt.store.records().set_checkpoint(&self.key, Some(&digest))).map_err(failed)?;
        if let Some(old) = old.filter(|old| *old != digest) {
            attempt.wait(attempt.store.artifacts().delete(&old)).map_err(failed)?;
        }
        Ok(())
    }
}

/// A job's progress, for whoever watches.
struct Steps<'a> {
    attempt: &'a Attempt,
    stage: usize,
}

impl Progress for Steps<'_> {
    fn step(&self, done: u64, total: u64, note: &str) {
        self.attempt.tell(Message::Progress { stage: self.stage, done, total, note: note.to_owned() });
    }

    fn metric(&self, name: &str, step: u64, value: f64) {
        self.attempt.tell(Message::Metric { stage: self.stage, name: name.to_owned(), step, value });
    }
}
