//! What a stage does when it runs. The engine calls these on its own threads; they block, and ask whether to go on.

use std::{
    any::Any,
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow_array::ArrayRef;
use arrow_schema::Field;

use crate::{Batch, BatchError, Column, ColumnData, Digest};

/// A stage failed.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The run is being stopped.
    #[error("cancelled")]
    Cancelled,
    /// A batch does not have what the stage reads.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Anything else, in words: what, where, what was expected, what to do.
    #[error("{0}")]
    Failed(String),
}

impl StageError {
    /// An error in words.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// An error with its cause behind it.
    pub fn because(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {cause}"))
    }
}

/// An opened stage.
pub enum Stage {
    /// `Shape::Source`
    Source(Box<dyn Source>),
    /// `Shape::Map`, `Filter`, `Expand` and `Group`
    Stream(Box<dyn Stream>),
    /// `Shape::Fold`
    Fold(Box<dyn Fold>),
    /// `Shape::Job`
    Job(Box<dyn Job>),
}

/// What every call gets.
#[derive(Clone)]
pub struct Context {
    /// Threads that kernels may use.
    pub threads: usize,
    /// The GPU to compute on, by its index; `None` for the processor.
    pub gpu: Option<u32>,
    /// The models, by port.
    pub models: BTreeMap<String, Model>,
    /// The whole datasets, by port.
    pub whole: BTreeMap<String, Batch>,
    cancelled: Arc<AtomicBool>,
    finishing: Arc<AtomicBool>,
    log: Option<Arc<dyn Log>>,
}

impl Context {
    /// A context that stops when `cancelled` becomes true.
    pub fn new(threads: usize, cancelled: Arc<AtomicBool>) -> Self {
        let finishing = Arc::default();
        Self { threads, gpu: None, models: BTreeMap::new(), whole: BTreeMap::new(), cancelled, finishing, log: None }
    }

    /// The same for one attempt of a task: with flags of its own and a place for its log. When `finishing` becomes true, what
    /// can save where it is does so and stops.
    #[must_use]
    pub fn attempt(&self, cancelled: Arc<AtomicBool>, finishing: Arc<AtomicBool>, log: Arc<dyn Log>) -> Self {
        Self { cancelled, finishing, log: Some(log), ..self.clone() }
    }

    /// Fails when the task is being stopped. Long work asks between steps.
    pub fn check(&self) -> Result<(), StageError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(StageError::Cancelled) } else { Ok(()) }
    }

    /// Whether the task is to stop as soon as it has saved where it is. What cannot save goes on to its end.
    pub fn is_stopping(&self) -> bool {
        self.finishing.load(Ordering::Relaxed) || self.cancelled.load(Ordering::Relaxed)
    }

    /// Adds a line to the log of the run: what a person who looks for a mistake would want to know.
    pub fn log(&self, text: impl AsRef<str>) {
        if let Some(log) = &self.log {
            log.line(false, text.as_ref());
        }
    }

    /// Adds a warning to the log of the run, which is shown at once: what somebody should look at and stops nothing.
    pub fn warn(&self, text: impl AsRef<str>) {
        if let Some(log) = &self.log {
            log.line(true, text.as_ref());
        }
    }

    /// The model on a port.
    pub fn model(&self, port: &str) -> Result<&Model, StageError> {
        self.models.get(port).ok_or_else(|| StageError::new(format!("port `{port}` has no model")))
    }

    /// The whole dataset on a port.
    pub fn whole(&self, port: &str) -> Result<&Batch, StageError> {
        self.whole.get(port).ok_or_else(|| StageError::new(format!("port `{port}` has no rows")))
    }
}

/// Where a stage's lines of log go.
pub trait Log: Send + Sync {
    /// Takes a line.
    fn line(&self, warning: bool, text: &str);
}

/// A model on a port: who loads it decides how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What to key by; equals the `space` of the embeddings that it makes.
    pub identity: Digest,
    /// Where it is.
    pub source: ModelSource,
}

/// Where a model's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A reference that the model loader knows: `builtin:mini-clip`, a path.
    Reference(String),
    /// A file that a stage made, fetched from the artifact store.
    File(PathBuf),
}

/// The rows of a chunk, by input port. Every port has the rows that it reads, with the columns asked for.
pub type Inputs = BTreeMap<String, Batch>;

// ---------------------------------------------------------------------------------------------------------- sources

/// One shard of a source.
#[derive(Clone, Debug)]
pub struct ShardInfo {
    /// Rows in it.
    pub rows: usize,
    /// Key of its row ids.
    pub ids: Digest,
    /// Key of each column's content, so that labels are no part of an embedding's key.
    pub columns: BTreeMap<String, Digest>,
}

/// A dataset to read. Shards, and the chunks that `read` yields, are functions of the content alone.
pub trait Source: Send + Sync {
    /// The shards. `limit` cuts the dataset to its first rows.
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError>;

    /// Streams a shard in chunks, reading only `columns`. With `limit`, as in [`Source::shards`].
    fn read<'a>(
        &'a self,
        shard: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError>;

    /// The rows of a shard at these positions, which ascend, with only `columns`. With `limit`, as in [`Source::shards`].
    ///
    /// As it stands here it reads the shard as far as the last of them; a source that finds a row without those before it
    /// does so.
    fn rows(
        &self,
        shard: usize,
        limit: Option<usize>,
        positions: &[u32],
        columns: &[String],
    ) -> Result<Batch, StageError> {
        let rows = pick(self.read(shard, limit, columns)?, positions).collect::<Result<Vec<_>, _>>()?;
        Ok(Batch::concat(&rows)?)
    }

    /// Other row outputs, whole and small: a dataset's `classes` port. With the key of their content.
    fn side(&self, _port: &str) -> Result<(Digest, Batch), StageError> {
        Err(StageError::new("this source has no other output"))
    }
}

/// Of chunks that follow each other, the rows at these positions, which ascend. Chunks without one are passed over; behind the
/// last nothing is read.
pub fn pick<'a>(
    mut chunks: impl Iterator<Item = Result<Batch, StageError>> + Send + 'a,
    positions: &'a [u32],
) -> impl Iterator<Item = Result<Batch, StageError>> + Send + 'a {
    let (mut start, mut left) = (0u32, positions);
    std::iter::from_fn(move || {
        while !left.is_empty() {
            let batch = match chunks.next() {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    left = &[];
                    return Some(Err(StageError::new("a shard has fewer rows than when it was looked at")));
                }
            };
            let end = start.saturating_add(u32::try_from(batch.len()).unwrap_or(u32::MAX));
            let (here, after) = left.split_at(left.partition_point(|position| *position < end));
            let taken: Vec<u32> = here.iter().map(|position| position - start).collect();
            (start, left) = (end, after);
            if !taken.is_empty() {
                return Some(batch.take(&taken).map_err(StageError::from));
            }
        }
        None
    })
}

// ---------------------------------------------------------------------------------------------------------- streams

/// What a stage made of a chunk.
#[derive(Default)]
pub struct Produced {
    /// Where each row comes from: positions in the first rows port. `None`: every row, in place.
    pub take: Option<Vec<u32>>,
    /// The columns made, one value a row that comes out.
    pub columns: Vec<(Field, ArrayRef)>,
    /// Rows that could not be used: id and reason. Left out of `take`.
    pub bad: Vec<(String, String)>,
}

impl Produced {
    /// One column a row, in place.
    pub fn column(self, name: &str, data: ColumnData) -> Result<Self, BatchError> {
        self.column_with(name, data, BTreeMap::new())
    }

    /// A column with free metadata.
    pub fn column_with(
        mut self,
        name: &str,
        data: ColumnData,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self, BatchError> {
        let (kind, array) = data.into_parts()?;
        let mut field = Column::new(name, kind).field(array.data_type().clone());
        field.metadata_mut().extend(metadata);
        self.columns.push((field, array));
        Ok(self)
    }
}

/// Work that runs ahead of the device: decoded, resized, tokenized inputs.
pub type Prepared = Box<dyn Any + Send>;

/// A map, filter, expand or group stage: chunk in, chunk out, no memory between them.
pub trait Stream: Send + Sync {
    /// CPU work before [`Stream::apply`]; runs ahead on another thread while the device is busy.
    fn prepare(&self, _context: &Context, _inputs: &Inputs) -> Result<Prepared, StageError> {
        Ok(Box::new(()))
    }

    /// Makes a chunk's output, by output port (a filter with several outputs splits the rows).
    fn apply(
        &self,
        context: &Context,
        inputs: &Inputs,
        prepared: Prepared,
    ) -> Result<BTreeMap<String, Produced>, StageError>;
}

// ------------------------------------------------------------------------------------------------------------ folds

/// A fold: one accumulator a shard, merged in shard order.
pub trait Fold: Send + Sync {
    /// An empty accumulator for one shard.
    fn start(&self, context: &Context) -> Result<Box<dyn Accumulator>, StageError>;
    /// Merges the shards' partials. `access` reads rows of the inputs again, by id, for pictures of a few.
    fn merge(&self, context: &Context, partials: Vec<Vec<u8>>, access: &dyn Access) -> Result<Outcome, StageError>;
}

/// The state of a fold over one shard.
pub trait Accumulator: Send {
    /// Takes a chunk.
    fn push(&mut self, inputs: &Inputs) -> Result<(), StageError>;
    /// The partial, serialised; equal rows give equal bytes.
    fn finish(self: Box<Self>) -> Result<Vec<u8>, StageError>;
}

/// What a fold or a job made.
#[derive(Default)]
pub struct Outcome {
    /// Rows, by output port.
    pub rows: BTreeMap<String, Batch>,
    /// Models as single safetensors files, by output port.
    pub models: BTreeMap<String, Vec<u8>>,
    /// Numbers: `top1` becomes `STAGE.top1`.
    pub metrics: BTreeMap<String, f64>,
    /// Files for people: pictures, reports.
    pub files: Vec<File>,
}

/// A file for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, with extension: `confusion_matrix.png`.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

// ------------------------------------------------------------------------------------------------------------- jobs

/// Random access to rows.
pub trait Access: Send + Sync {
    /// The rows on an input port.
    fn rows(&self, port: &str) -> Result<Box<dyn Rows + '_>, StageError>;
}

/// A dataset to read at will.
pub trait Rows: Send + Sync {
    /// Streams every row in order, with these columns (an image column as pixels where `pixels` names it).
    fn scan(
        &self,
        columns: &[crate::Need],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + '_>, StageError>;
    /// The rows with these ids, in the order of the dataset.
    fn fetch(&self, ids: &[String], columns: &[crate::Need]) -> Result<Batch, StageError>;
}

/// A job: training, fitting, anything that needs its input more than once.
pub trait Job: Send + Sync {
    /// Runs it, from the last checkpoint if there is one. Resumed or not, the outcome is the same, bit for bit.
    fn run(&self, context: &JobContext<'_>) -> Result<Outcome, StageError>;
}

/// What a job gets.
pub struct JobContext<'a> {
    /// Threads, models, whole inputs, cancellation.
    pub base: Context,
    /// The row inputs.
    pub access: &'a dyn Access,
    /// The checkpoint slot.
    pub checkpoint: &'a dyn CheckpointSlot,
    /// Where progress and step metrics go.
    pub progress: &'a dyn Progress,
}

impl JobContext<'_> {
    /// Goes on, unless the job is to stop: then it saves `state`, and fails as stopped. A job that can resume asks between
    /// steps.
    pub fn check(&self, state: impl FnOnce() -> Vec<u8>) -> Result<(), StageError> {
        if !self.base.is_stopping() {
            return Ok(());
        }
        self.checkpoint.save(state())?;
        Err(StageError::Cancelled)
    }
}

/// Where a job keeps what it needs to go on after it was killed. One value, replaced whole.
pub trait CheckpointSlot: Send + Sync {
    /// The last value saved.
    fn load(&self) -> Result<Option<Vec<u8>>, StageError>;
    /// Replaces it, durably.
    fn save(&self, bytes: Vec<u8>) -> Result<(), StageError>;
}

/// Hears how a job gets on.
pub trait Progress: Send + Sync {
    /// `done` of `total` steps, and a short note for people (`loss 1.23`).
    fn step(&self, done: u64, total: u64, note: &str);
    /// A value of a series, recorded by step: `loss`, `validation.top1`.
    fn metric(&self, name: &str, step: u64, value: f64);
}
