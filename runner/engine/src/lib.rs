//! Plans, schedules, executes, caches and resumes pipelines.
//!
//! [`Engine::plan`] derives the key of every result and sees which are stored; [`Engine::execute`] computes the rest.
//! Rows stream shard by shard through the stages that need no whole dataset; what is dear or kept is stored on the way,
//! and read back by whoever needs it later.

mod access;
mod apply;
mod demand;
mod engine;
mod error;
mod eval;
mod event;
mod execute;
mod export;
mod graph;
mod images;
mod key;
mod manifest;
mod models;
mod outcome;
mod parquet;
mod parts;
mod plan;
mod report;
mod route;
mod runtime;
mod scheduler;
mod segment;
mod tally;
mod workers;

pub use engine::{Cancel, Config, Decode, Decoded, Engine};
pub use error::EngineError;
pub use event::{Event, StagePlan};
pub use models::stage_models;
pub use plan::{Plan, PlannedResult, PlannedStage, PlannedState};
pub use report::{MetricValue, RunReport, StageReport, TaskCounts, gates};
