//! One attempt of a task: what its stages get, and the flags that stop it and nothing else.

use std::{
    any::Any,
    collections::BTreeMap,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use runner_contract::{Batch, Context, Fold, Job, Log, Model, ModelSource, Source, Stage, StageError, Stream};
use runner_spec::Device;

use crate::{
    EngineError,
    graph::{Edge, ModelFrom},
    message::Message,
    runtime::{Opened, Runtime, is_set},
};

/// Reads a whole dataset for an input port of a stage: handed in, because reading rows opens stages again.
pub(crate) type ReadWhole = fn(&Attempt, usize, &Edge) -> Result<Batch, EngineError>;

/// See the module. Reads as the runtime that it works in.
pub(crate) struct Attempt {
    runtime: Arc<Runtime>,
    /// The task's number.
    task: usize,
    read_whole: ReadWhole,
    stop: Arc<AtomicBool>,
    finish: Arc<AtomicBool>,
    /// Nobody waits for it any more: what it still says and saves is of no interest.
    abandoned: Arc<AtomicBool>,
    contexts: Mutex<BTreeMap<usize, Arc<Context>>>,
}

impl Deref for Attempt {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.runtime
    }
}

impl Attempt {
    pub(crate) fn new(runtime: Arc<Runtime>, task: usize, read_whole: ReadWhole) -> Self {
        Self {
            runtime,
            task,
            read_whole,
            stop: Arc::default(),
            finish: Arc::default(),
            abandoned: Arc::default(),
            contexts: Mutex::default(),
        }
    }

    // ------------------------------------------------------------------------------------------------------ stopping

    /// Tells it to stop at the next chunk or step.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Tells a job to save where it is and to stop.
    pub(crate) fn finish(&self) {
        self.finish.store(true, Ordering::Relaxed);
    }

    /// Nobody waits for it any more.
    pub(crate) fn abandon(&self) {
        self.stop();
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether somebody told it to stop, at once or when it has saved.
    pub(crate) fn is_told_to_stop(&self) -> bool {
        is_set(&self.stop) || is_set(&self.finish)
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        is_set(&self.abandoned)
    }

    /// Fails when it is being stopped.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if is_set(&self.stop) { Err(EngineError::Cancelled) } else { Ok(()) }
    }

    // ------------------------------------------------------------------------------------------------------- talking

    /// Tells whoever watches the run, without secrets.
    pub(crate) fn tell(&self, message: Message) {
        if self.is_abandoned() {
            return;
        }
        let clean = |text| self.secrets.redacted(text);
        self.send(match message {
            Message::Progress { stage, done, total, note } => {
                Message::Progress { stage, done, total, note: clean(note) }
            }
            Message::Said { stage, shard, warning, text } => Message::Said { stage, shard, warning, text: clean(text) },
            other => other,
        });
    }

    /// A stage worked off rows, and took so long.
    pub(crate) fn tell_rows(&self, stage: usize, rows: u64, bad: u64, nanos: u64) {
        self.tell(Message::Rows { task: self.task, stage, rows, bad, nanos });
    }

    /// Something that a person should know and that stops nothing.
    pub(crate) fn warn(&self, stage: usize, shard: usize, text: String) {
        self.tell(Message::Said { stage, shard: Some(shard), warning: true, text });
    }

    // ------------------------------------------------------------------------------------------------------- stages

    /// A stage, opened, with its models and whole datasets. What it waits for must be done.
    pub(crate) fn opened(&self, stage: usize) -> Result<&Opened, EngineError> {
        let slot = self.slot(stage);
        if let Some(opened) = slot.opened.get() {
            return Ok(opened);
        }
        // A stage only ever waits for stages before it, so holding the lock while opening those cannot lock up.
        let _opening = slot.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = slot.opened.get() {
            return Ok(opened);
        }
        let node = &self.graph.nodes[stage];
        let mut context = Context::new(self.config.threads, Arc::default());
        if let Some(Device::Cuda(index)) = node.device {
            context.gpu = Some(index);
        }
        for (port, from) in &node.models {
            context.models.insert(port.clone(), self.model(from)?);
        }
        for edge in &node.whole {
            context.whole.insert(edge.port.clone(), (self.read_whole)(self, stage, edge)?);
        }
        let opened = self.guard(stage, None, || {
            let kind = self.registry.kind(&node.kind);
            let kind = kind.ok_or_else(|| StageError::new(format!("no stage kind is called `{}`", node.kind)))?;
            kind.open(&self.secrets.fill(&node.settings, &node.secrets)?, &self.keys.received(node))
        })?;
        Ok(slot.opened.get_or_init(|| Opened { stage: opened, context }))
    }

    /// What the calls of a stage get in this attempt.
    fn context(&self, stage: usize, opened: &Opened) -> Arc<Context> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let context = contexts.entry(stage).or_insert_with(|| {
            let lines = Lines { runtime: self.runtime.clone(), stage, abandoned: self.abandoned.clone() };
            Arc::new(opened.context.attempt(self.stop.clone(), self.finish.clone(), Arc::new(lines)))
        });
        context.clone()
    }

    /// The source that a stage is.
    pub(crate) fn source(&self, stage: usize) -> Result<&dyn Source, EngineError> {
        match &self.opened(stage)?.stage {
            Stage::Source(source) => Ok(source.as_ref()),
            _ => Err(self.wrong_shape(stage)),
        }
    }

    /// The map, filter, expand or group that a stage is.
    pub(crate) fn stream(&self, stage: usize) -> Result<(&dyn Stream, Arc<Context>), EngineError> {
        let opened = self.opened(stage)?;
        match &opened.stage {
            Stage::Stream(stream) => Ok((stream.as_ref(), self.context(stage, opened))),
            _ => Err(self.wrong_shape(stage)),
        }
    }

    /// The fold that a stage is.
    pub(crate) fn fold(&self, stage: usize) -> Result<(&dyn Fold, Arc<Context>), EngineError> {
        let opened = self.opened(stage)?;
        match &opened.stage {
            Stage::Fold(fold) => Ok((fold.as_ref(), self.context(stage, opened))),
            _ => Err(self.wrong_shape(stage)),
        }
    }

    /// The job that a stage is.
    pub(crate) fn job(&self, stage: usize) -> Result<(&dyn Job, Arc<Context>), EngineError> {
        let opened = self.opened(stage)?;
        match &opened.stage {
            Stage::Job(job) => Ok((job.as_ref(), self.context(stage, opened))),
            _ => Err(self.wrong_shape(stage)),
        }
    }

    fn wrong_shape(&self, stage: usize) -> EngineError {
        let node = &self.graph.nodes[stage];
        EngineError::Invalid(format!(
            "kind `{}` says that it is a {:?} and opens as something else",
            node.kind, node.shape
        ))
    }

    fn model(&self, from: &ModelFrom) -> Result<Model, EngineError> {
        match from {
            ModelFrom::Given { reference, info } => {
                Ok(Model { identity: info.identity, source: ModelSource::Reference(reference.clone()) })
            }
            ModelFrom::Made(of) => {
                let missing = || EngineError::Invalid(format!("`{}` made no model", self.graph.describe(*of)));
                let identity = self.keys.models.get(of).copied().ok_or_else(missing)?;
                let port = &self.graph.nodes[of.stage].outputs[of.port].name;
                let blob = self.outcome(of.stage).and_then(|outcome| outcome.models.get(port).copied());
                let digest = blob.ok_or_else(missing)?.digest;
                let path = self.wait(self.store.artifacts().path(&digest))?;
                Ok(Model { identity, source: ModelSource::File(path) })
            }
        }
    }

    /// Calls a stage's code. A panic becomes the error of that stage; secrets stay out of every error.
    pub(crate) fn guard<T>(
        &self,
        stage: usize,
        shard: Option<usize>,
        call: impl FnOnce() -> Result<T, StageError>,
    ) -> Result<T, EngineError> {
        let node = &self.graph.nodes[stage];
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => {
                result.map_err(|error| EngineError::stage(&node.name, shard, self.secrets.redact_error(error)))
            }
            Err(panic) => Err(EngineError::Panicked {
                stage: node.name.clone(),
                shard,
                kind: node.kind.clone(),
                what: self.secrets.redacted(panic_message(panic.as_ref())),
            }),
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "for no given reason".to_owned())
}

/// The log of a stage in an attempt.
struct Lines {
    runtime: Arc<Runtime>,
    stage: usize,
    abandoned: Arc<AtomicBool>,
}

impl Log for Lines {
    fn line(&self, warning: bool, text: &str) {
        if !is_set(&self.abandoned) {
            let text = self.runtime.secrets.redacted(text.to_owned());
            self.runtime.send(Message::Said { stage: self.stage, shard: None, warning, text });
        }
    }
}
