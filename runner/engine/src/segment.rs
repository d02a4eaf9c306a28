//! The task of a shard: streams it once, and on the way stores what stages made and feeds folds.
//!
//! What comes before a device runs on a thread of its own, two chunks ahead at most.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
};

use runner_contract::{Accumulator, Digest};
use runner_store::{BAD_ROWS_KEPT, BadRow, Entry};

use crate::{
    EngineError,
    apply::{Bad, Chunk, gather},
    attempt::Attempt,
    eval::{ShardEval, StoredBad, bad_before, finish},
    graph::Ref,
    manifest::{Partial, PartialHeader, VERSION},
    message::Made,
    parquet::RowsWriter,
    route::{How, Route, Wants, want},
    workers::Companion,
};

/// Chunks that may wait between the thread ahead and the device.
const QUEUE: usize = 2;
/// Unusable rows that a warning names.
const BAD_NAMED: usize = 3;

/// What to make of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) origin: Ref,
    pub(crate) shard: usize,
    /// Stages whose rows to store.
    pub(crate) groups: Arc<BTreeSet<usize>>,
    /// Folds to feed.
    pub(crate) folds: Arc<BTreeSet<usize>>,
}

/// Where the rows of a shard end.
struct Sinks<'a> {
    attempt: &'a Attempt,
    shard: usize,
    groups: Vec<(Ref, RowsWriter)>,
    folds: Vec<(usize, Box<dyn Accumulator>, u64)>,
    bad: BTreeMap<usize, (u64, Vec<Bad>)>,
}

/// What the thread ahead hands over.
enum Ahead {
    Chunk(Box<Chunk>),
    End(Result<StoredBad, EngineError>),
}

/// Computes a shard.
pub(crate) fn run(attempt: &Arc<Attempt>, segment: &Segment, companion: &Companion) -> Result<Made, EngineError> {
    let mut wants = Wants::new();
    for &fold in segment.folds.iter() {
        attempt.graph.nodes[fold].rows.iter().for_each(|edge| want(&mut wants, edge));
    }
    let shard = segment.shard;
    let route = Arc::new(Route::new(attempt, segment.origin, shard, wants, &segment.groups));
    // Models and whole datasets are read before the first chunk, by this thread alone.
    for stage in route.steps.iter().filter(|step| step.how == How::Compute).map(|step| step.stage) {
        attempt.opened(stage)?;
    }
    let mut sinks = Sinks::open(attempt, segment)?;
    let stored_bad = if route.has_device_work() {
        let (sender, receiver) = sync_channel::<Ahead>(QUEUE);
        let (attempt, way) = (attempt.clone(), route.clone());
        companion.run(move || {
            // The receiver goes away when this task has failed.
            let end = read(&attempt, &way, shard, |chunk| Ok(sender.send(Ahead::Chunk(Box::new(chunk))).is_ok()));
            let _ = sender.send(Ahead::End(end));
        });
        consume(receiver, &mut sinks, &route)?
    } else {
        read(attempt, &route, shard, |chunk| sinks.take(&route, chunk).map(|()| true))?
    };
    let found = sinks.bad.iter().map(|(stage, (n, _))| (*stage, *n)).collect();
    let bad_before = bad_before(attempt, &route, shard, &stored_bad, &found);
    sinks.finish(bad_before)
}

/// Reads a shard to its end, or until nobody takes it.
fn read(
    attempt: &Attempt,
    route: &Route,
    shard: usize,
    mut take: impl FnMut(Chunk) -> Result<bool, EngineError>,
) -> Result<StoredBad, EngineError> {
    let mut eval = ShardEval::open(attempt, route, shard)?;
    while let Some(chunk) = eval.next(route)? {
        if !take(chunk)? {
            break;
        }
    }
    Ok(eval.stored_bad)
}

fn consume(ahead: Receiver<Ahead>, sinks: &mut Sinks<'_>, route: &Route) -> Result<StoredBad, EngineError> {
    for next in ahead {
        match next {
            Ahead::Chunk(chunk) => sinks.take(route, *chunk)?,
            Ahead::End(end) => return end,
        }
    }
    Err(EngineError::Invalid("the thread ahead of a task panicked: this is a mistake in the engine".to_owned()))
}

impl<'a> Sinks<'a> {
    fn open(attempt: &'a Attempt, segment: &Segment) -> Result<Self, EngineError> {
        let mut groups = Vec::new();
        for &stage in segment.groups.iter() {
            for port in attempt.graph.nodes[stage].row_ports() {
                groups.push((Ref { stage, port }, RowsWriter::default()));
            }
        }
        let mut folds = Vec::new();
        for &stage in segment.folds.iter() {
            let (fold, context) = attempt.fold(stage)?;
            let accumulator = attempt.guard(stage, Some(segment.shard), || fold.start(&context))?;
            folds.push((stage, accumulator, 0));
        }
        Ok(Self { attempt, shard: segment.shard, groups, folds, bad: BTreeMap::new() })
    }

    /// Does what is left of a chunk and takes what comes out.
    fn take(&mut self, route: &Route, mut chunk: Chunk) -> Result<(), EngineError> {
        let attempt = self.attempt;
        finish(attempt, route, self.shard, &mut chunk)?;
        for (stage, bad) in std::mem::take(&mut chunk.bad) {
            self.note_bad(stage, bad);
        }
        for (of, writer) in &mut self.groups {
            let node = &attempt.graph.nodes[of.stage];
            let columns: Vec<&str> = node.produced(of.port).iter().map(String::as_str).collect();
            let rows = chunk.rows.get(of).ok_or_else(|| EngineError::stored(&node.name, "nothing was made"))?;
            let own = rows
                .select(&columns)
                .map_err(|error| EngineError::stage(&node.name, Some(self.shard), error.into()))?;
            writer.push(&own).map_err(|error| EngineError::stored(&node.name, error))?;
        }
        for at in 0..self.folds.len() {
            let stage = self.folds[at].0;
            let begun = std::time::Instant::now();
            let gathered = gather(attempt, stage, self.shard, &mut chunk)?;
            let (rows, bad) = (gathered.taken as u64, gathered.bad.len() as u64);
            if !gathered.is_empty() {
                let (_, accumulator, n) = &mut self.folds[at];
                *n += rows - bad;
                attempt.guard(stage, Some(self.shard), || accumulator.push(&gathered.inputs))?;
            }
            if bad > 0 {
                self.note_bad(stage, gathered.bad);
            }
            let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            attempt.tell_rows(stage, rows, bad, nanos);
        }
        Ok(())
    }

    fn note_bad(&mut self, stage: usize, bad: Vec<Bad>) {
        let (n, kept) = self.bad.entry(stage).or_default();
        *n += bad.len() as u64;
        let room = BAD_ROWS_KEPT.saturating_sub(kept.len());
        kept.extend(bad.into_iter().take(room));
    }

    fn finish(self, bad_before: BTreeMap<usize, BTreeMap<Digest, u64>>) -> Result<Made, EngineError> {
        let Self { attempt, shard, groups, folds, bad } = self;
        let mut made = Made { bad: bad.values().map(|(n, _)| n).sum(), ..Made::default() };
        for (&stage, (n, rows)) in &bad {
            let examples: Vec<String> =
                rows.iter().take(BAD_NAMED).map(|(id, reason)| format!("`{id}`: {reason}")).collect();
            let more = if *n > examples.len() as u64 { ", …" } else { "" };
            let rows = if *n == 1 { "row" } else { "rows" };
            attempt.first_warning(stage, shard);
            let text = format!("{n} {rows} of shard {shard} left out as unusable ({}{more})", examples.join("; "));
            attempt.warn(stage, shard, text);
        }
        let own_bad = |stage: usize| bad.get(&stage).cloned().unwrap_or_default();
        for (of, writer) in groups {
            let node = &attempt.graph.nodes[of.stage];
            let key = attempt.keys.group(of, shard);
            let key = key.ok_or_else(|| EngineError::stored(&node.name, "it has no key"))?;
            let rows = writer.rows() as u64;
            let file = writer.finish(bad_before.get(&of.stage).cloned().unwrap_or_default());
            let file = file.map_err(|error| EngineError::stored(&node.name, error))?;
            let (n, kept) = own_bad(of.stage);
            made.rows = made.rows.max(rows);
            made.entries.push((of.stage, entry(attempt, key, file, rows, n, kept)?));
        }
        for (stage, accumulator, n) in folds {
            let node = &attempt.graph.nodes[stage];
            let bytes = attempt.guard(stage, Some(shard), || accumulator.finish())?;
            let mut lineage: BTreeMap<Digest, u64> = BTreeMap::new();
            for edge in &node.rows {
                lineage.extend(bad_before.get(&edge.from.stage).into_iter().flatten());
            }
            let key = attempt.keys.stages[stage].shards.get(shard).copied();
            let key = key.ok_or_else(|| EngineError::stored(&node.name, "it has no key"))?;
            let (own, kept) = own_bad(stage);
            if own > 0 {
                lineage.insert(key, own);
            }
            let partial = Partial { header: PartialHeader { version: VERSION, n, bad: lineage }, bytes };
            let file = partial.write().map_err(|error| EngineError::stored(&node.name, error))?;
            made.rows = made.rows.max(n);
            made.entries.push((stage, entry(attempt, key, file, n, own, kept)?));
        }
        Ok(made)
    }
}

/// Stores a file and says what its key stands for.
pub(crate) fn entry(
    attempt: &Attempt,
    key: Digest,
    file: Vec<u8>,
    rows: u64,
    bad: u64,
    bad_rows: Vec<Bad>,
) -> Result<Entry, EngineError> {
    let bytes = file.len() as u64;
    let digest = attempt.put(file)?;
    let bad_rows = bad_rows.into_iter().map(|(id, reason)| BadRow { id, reason }).collect();
    Ok(Entry { key, digest, rows, bytes, bad, bad_rows, holds: Vec::new() })
}
