//! What the language, the engine, the stages and plugins agree on: ports, shapes, columns and cache keys.
//!
//! This crate does no I/O. A stage kind implements [`Kind`]; the language checks a pipeline against it, and the
//! engine runs the [`Stage`] that it opens.

mod batch;
mod columns;
mod digest;
mod images;
mod kind;
mod random;
mod stage;

pub use batch::{Batch, BatchError, ColumnData};
pub use columns::{Column, ColumnType, Schema};
pub use digest::{Digest, InvalidDigest, KeyHasher};
pub use images::{ImageForm, ImageRef, ImagesBuilder};
pub use kind::{
    Bound, Input, InputPort, Kind, KindInfo, Modality, ModelInfo, Need, Output, OutputPort, PortKind, Problem,
    Registry, Resolver, Shape, setting_problem, settings,
};
pub use random::Random;
pub use stage::{
    Access, Accumulator, CheckpointSlot, Context, File, Fold, Inputs, Job, JobContext, Log, Model, ModelSource,
    Outcome, Prepared, Produced, Progress, Rows, ShardInfo, Source, Stage, StageError, Stream, pick,
};

/// The column that names every row; present in every batch, never produced by a stage.
pub const ID: &str = "id";
/// The column that `expand` adds: the id of the row that a child came from.
pub const PARENT: &str = "parent";
