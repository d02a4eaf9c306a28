//! The entry: a registry of kinds, a store, and what the machine offers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use runner_contract::{Batch, Registry};
use runner_spec::{Device, Pipeline};
use runner_store::Store;
use tokio::sync::Notify;

use crate::{EngineError, Event, Plan, RunReport, demand::Goal, execute, export, plan};

/// A decoded picture: u8, `[height, width, channels]`.
pub struct Decoded {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `height · width · channels` bytes.
    pub data: Vec<u8>,
}

/// Decodes an image file (its bytes, and its path for messages). An error makes its row a bad row.
pub type Decode = Arc<dyn Fn(&[u8], &str) -> Result<Decoded, String> + Send + Sync>;

/// What the machine offers, and how images are decoded.
#[derive(Clone)]
pub struct Config {
    /// Threads: how many tasks run at once, and what kernels may use.
    pub threads: usize,
    /// What computes, as far as results depend on it: `cpu/f32/avx2`. Part of every key.
    pub backend: String,
    /// The devices there are.
    pub devices: Vec<Device>,
    /// Decodes image files where a stage wants pixels.
    pub decode: Decode,
}

/// Stops a run from outside. Clones stop the same run.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    wake: Arc<Notify>,
}

impl Cancel {
    /// Nothing to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the run: stages stop at the next chunk or step, what is finished stays recorded.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether somebody said so.
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    pub(crate) async fn cancelled(&self) {
        while !self.is_cancelled() {
            self.wake.notified().await;
        }
    }
}

/// Runs pipelines over one store. Needs a tokio runtime round it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) store: Store,
    pub(crate) config: Config,
}

impl Engine {
    /// An engine over these kinds and this store.
    pub fn new(registry: Arc<dyn Registry>, store: Store, config: Config) -> Self {
        Self { registry, store, config }
    }

    /// Derives every key and looks up what is stored. Opens sources, computes nothing. `limit` cuts every source to its
    /// first rows.
    pub async fn plan(&self, pipeline: Pipeline, limit: Option<usize>) -> Result<Plan, EngineError> {
        plan::plan(self, pipeline, limit, |_| Ok(Goal::All)).await
    }

    /// Computes what a plan says is missing and records the run. `command` is the command line to record.
    ///
    /// A stage that fails, gates that are not met and a cancelled run are outcomes, not errors: see the report. An error
    /// means that the run could not be recorded.
    pub async fn execute(
        &self,
        plan: Plan,
        command: Vec<String>,
        cancel: &Cancel,
        on_event: &mut (dyn FnMut(&Event) + Send),
    ) -> Result<RunReport, EngineError> {
        execute::execute(self, plan, command, cancel, on_event).await
    }

    /// Streams the rows of a stage (`data`, `split.train`) with these columns (all, if none are named), chunk by chunk and in
    /// order, to `sink`. Computes what is not stored; images come as they are, not decoded. Records no run.
    pub async fn export(
        &self,
        pipeline: Pipeline,
        limit: Option<usize>,
        stage: &str,
        columns: Option<&[String]>,
        cancel: &Cancel,
        sink: &mut (dyn FnMut(Batch) -> Result<(), String> + Send),
    ) -> Result<(), EngineError> {
        export::export(self, pipeline, limit, stage, columns, cancel, sink).await
    }
}
