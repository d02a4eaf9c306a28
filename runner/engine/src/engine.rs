//! The entry: a registry of kinds, a store, and what the machine offers.

use std::{collections::BTreeMap, sync::Arc};

use runner_contract::{Batch, Registry};
use runner_spec::{Device, Pipeline};
use runner_store::Store;

use crate::{Cancel, EngineError, Event, Plan, RunReport, execute, export, plan};

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
    /// What computes, as far as results depend on it: `cpu/f32/avx2`. Part of the key of all that it computes.
    pub backend: String,
    /// The same for each GPU, by its index: `cuda/f32/sm_90`. Or why there is none, in words.
    pub gpus: Result<Vec<String>, String>,
    /// Decodes image files where a stage wants pixels.
    pub decode: Decode,
    /// What `${{ secrets.NAME }}` in a stage's settings stands for, by name. A value never appears in a key, a record, a log
    /// or an error.
    pub secrets: BTreeMap<String, String>,
}

impl Config {
    /// The devices there are.
    pub(crate) fn devices(&self) -> Vec<Device> {
        let gpus = self.gpus.as_ref().map_or(0, Vec::len);
        std::iter::once(Device::Cpu).chain((0..).take(gpus).map(Device::Cuda)).collect()
    }

    /// What computes on a device; an error where it is not there.
    pub(crate) fn backend(&self, device: Device) -> Result<&str, String> {
        let Device::Cuda(index) = device else { return Ok(&self.backend) };
        let gpus = self.gpus.as_ref().map_err(String::clone)?;
        gpus.get(index as usize).map(String::as_str).ok_or_else(|| {
            let devices: Vec<_> = self.devices().iter().map(ToString::to_string).collect();
            format!("this machine has {}", devices.join(", "))
        })
    }
}

/// What part of a pipeline to plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Cuts every source to its first rows.
    pub limit: Option<usize>,
    /// Only these stages, with what they need that is not stored; all if there are none. A name in the file (`metrics`) or a full
    /// name (`metrics[model=b32]`). Gates on other stages are left out.
    pub only: Vec<String>,
    /// These stages and all that read them are computed anew, whatever is stored.
    pub from: Vec<String>,
}

impl PlanOptions {
    /// Fails on stages that the pipeline does not have. Planning does, too, but needs a store.
    pub fn check(&self, pipeline: &Pipeline) -> Result<(), EngineError> {
        plan::named(pipeline, &self.only)?;
        plan::named(pipeline, &self.from)?;
        Ok(())
    }
}

impl From<Option<usize>> for PlanOptions {
    fn from(limit: Option<usize>) -> Self {
        Self { limit, ..Self::default() }
    }
}

/// What to record of a run besides what it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunMeta {
    /// The command line, program first, without secrets.
    pub command: Vec<String>,
    /// A JSON object of what it ran with. The engine adds versions, machine, kinds, models and sources where it has no entry of
    /// that name.
    pub environment: serde_json::Value,
}

impl From<Vec<String>> for RunMeta {
    fn from(command: Vec<String>) -> Self {
        Self { command, ..Self::default() }
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

    /// Derives every key and looks up what is stored. Opens sources, computes nothing.
    pub async fn plan(&self, pipeline: Pipeline, options: impl Into<PlanOptions>) -> Result<Plan, EngineError> {
        plan::plan(self, pipeline, options.into(), plan::goal).await
    }

    /// Computes what a plan says is missing and records the run.
    ///
    /// A stage that fails, gates that are not met and a cancelled run are outcomes, not errors: see the report. An error
    /// means that the run could not be recorded.
    pub async fn execute(
        &self,
        plan: Plan,
        meta: impl Into<RunMeta>,
        cancel: &Cancel,
        on_event: &mut (dyn FnMut(&Event) + Send),
    ) -> Result<RunReport, EngineError> {
        execute::execute(self, plan, meta.into(), cancel, on_event).await
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
