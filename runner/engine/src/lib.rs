//! Plans, schedules, executes, caches and resumes pipelines.
//!
//! [`Engine::plan`] derives the key of every result and sees which are stored; [`Engine::execute`] computes the rest.
//! Rows stream shard by shard through the stages that need no whole dataset; what is dear or kept is stored on the way,
//! and read back by whoever needs it later.

mod access;
mod apply;
mod attempt;
mod bad;
mod cancel;
mod demand;
mod describe;
mod drive;
mod engine;
mod environment;
mod error;
mod estimate;
mod eval;
mod event;
mod execute;
mod explain;
mod export;
mod graph;
mod images;
mod key;
mod manifest;
mod message;
mod models;
mod outcome;
mod parquet;
mod parts;
mod plan;
mod recorder;
mod report;
mod route;
mod runtime;
mod scheduler;
mod secrets;
mod segment;
mod tally;
mod tasks;
mod watch;
mod workers;

pub use bad::bad_rows;
pub use cancel::Cancel;
pub use describe::{PlannedResult, PlannedStage, PlannedState};
pub use engine::{Config, Decode, Decoded, Engine, PlanOptions, RunMeta};
pub use error::EngineError;
pub use event::{Event, StagePlan};
pub use explain::Change;
pub use models::stage_models;
pub use plan::Plan;
pub use report::{MetricValue, RunReport, StageReport, TaskCounts, gates};
