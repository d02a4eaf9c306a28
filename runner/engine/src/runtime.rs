//! What the tasks of a run share: opened stages with their models and whole datasets, what is stored, and the way to tell.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use runner_contract::{
    Batch, Context, Digest, Fold, Job, Model, ModelSource, Registry, Source, Stage, StageError, Stream,
};
use runner_store::{Entry, Store, StoreError};
use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};

use crate::{
    Config, EngineError,
    eval::whole,
    graph::{Graph, ModelFrom, Ref},
    key::Keys,
    manifest::Outcome,
    segment::Made,
};

/// What tasks tell while they work.
#[derive(Debug)]
pub(crate) enum Message {
    /// A stage worked off rows.
    Rows { stage: usize, rows: u64, bad: u64, nanos: u64 },
    /// A job got on.
    Progress { stage: usize, done: u64, total: u64, note: String },
    /// A value of a series.
    Metric { stage: usize, name: String, step: u64, value: f64 },
    /// Something for people.
    Warning { stage: usize, message: String },
    /// A task ended. The last that is heard of it.
    Done { task: usize, result: Result<Made, EngineError> },
}

/// An opened stage and what its calls get.
pub(crate) struct Opened {
    pub(crate) stage: Stage,
    pub(crate) context: Context,
}

/// A stage that is opened when somebody first needs it.
#[derive(Default)]
struct Slot {
    opening: Mutex<()>,
    opened: OnceLock<Opened>,
}

/// See the module.
pub(crate) struct Runtime {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) graph: Graph,
    pub(crate) keys: Keys,
    pub(crate) limit: Option<usize>,
    /// Small row outputs of sources, read when the run was planned.
    pub(crate) sides: BTreeMap<Ref, Batch>,
    handle: Handle,
    slots: Vec<Slot>,
    entries: RwLock<HashMap<Digest, Entry>>,
    outcomes: RwLock<BTreeMap<usize, Arc<Outcome>>>,
    stop: Arc<AtomicBool>,
    messages: OnceLock<UnboundedSender<Message>>,
    warned: Mutex<BTreeSet<(usize, usize)>>,
}

/// What was learnt before the keys were known.
pub(crate) struct Sources {
    pub(crate) opened: BTreeMap<usize, Stage>,
    pub(crate) sides: BTreeMap<Ref, Batch>,
}

impl Runtime {
    pub(crate) fn new(
        engine: &crate::Engine,
        handle: Handle,
        graph: Graph,
        keys: Keys,
        sources: Sources,
        limit: Option<usize>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let slots: Vec<Slot> = graph.nodes.iter().map(|_| Slot::default()).collect();
        for (stage, opened) in sources.opened {
            let context = Context::new(engine.config.threads, stop.clone());
            if let Some(slot) = slots.get(stage) {
                // Nobody else has the slots yet.
                let _ = slot.opened.set(Opened { stage: opened, context });
            }
        }
        Self {
            registry: engine.registry.clone(),
            store: engine.store.clone(),
            config: engine.config.clone(),
            graph,
            keys,
            limit,
            sides: sources.sides,
            handle,
            slots,
            entries: RwLock::default(),
            outcomes: RwLock::default(),
            stop,
            messages: OnceLock::new(),
            warned: Mutex::default(),
        }
    }

    // ------------------------------------------------------------------------------------------------------- stages

    /// A stage, opened, with its models and whole datasets. What it waits for must be done.
    pub(crate) fn opened(&self, stage: usize) -> Result<&Opened, EngineError> {
        let slot = &self.slots[stage];
        if let Some(opened) = slot.opened.get() {
            return Ok(opened);
        }
        // A stage only ever waits for stages before it, so holding the lock while opening those cannot lock up.
        let _opening = slot.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = slot.opened.get() {
            return Ok(opened);
        }
        let node = &self.graph.nodes[stage];
        let mut context = Context::new(self.config.threads, self.stop.clone());
        for (port, from) in &node.models {
            context.models.insert(port.clone(), self.model(from)?);
        }
        for edge in &node.whole {
            context.whole.insert(edge.port.clone(), whole(self, stage, edge)?);
        }
        let opened = self.guard(stage, None, || {
            let kind = self.registry.kind(&node.kind);
            let kind = kind.ok_or_else(|| StageError::new(format!("no stage kind is called `{}`", node.kind)))?;
            kind.open(&node.settings, &self.keys.received(node))
        })?;
        Ok(slot.opened.get_or_init(|| Opened { stage: opened, context }))
    }

    /// The source that a stage is.
    pub(crate) fn source(&self, stage: usize) -> Result<&dyn Source, EngineError> {
        match &self.opened(stage)?.stage {
            Stage::Source(source) => Ok(source.as_ref()),
            _ => Err(self.wrong_shape(stage)),
        }
    }

    /// The map, filter, expand or group that a stage is.
    pub(crate) fn stream(&self, stage: usize) -> Result<(&dyn Stream, &Context), EngineError> {
        let opened = self.opened(stage)?;
        match &opened.stage {
            Stage::Stream(stream) => Ok((stream.as_ref(), &opened.context)),
            _ => Err(self.wrong_shape(stage)),
        }
    }

    /// The fold that a stage is.
    pub(crate) fn fold(&self, stage: usize) -> Result<(&dyn Fold, &Context), EngineError> {
        let opened = self.opened(stage)?;
        match &opened.stage {
            Stage::Fold(fold) => Ok((fold.as_ref(), &opened.context)),
            _ => Err(self.wrong_shape(stage)),
        }
    }

    /// The job that a stage is.
    pub(crate) fn job(&self, stage: usize) -> Result<(&dyn Job, &Context), EngineError> {
        let opened = self.opened(stage)?;
        match &opened.stage {
            Stage::Job(job) => Ok((job.as_ref(), &opened.context)),
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
                let path = self.handle.block_on(self.store.artifacts().path(&digest))?;
                Ok(Model { identity, source: ModelSource::File(path) })
            }
        }
    }

    /// Calls a stage's code. A panic becomes the error of that stage.
    pub(crate) fn guard<T>(
        &self,
        stage: usize,
        shard: Option<usize>,
        call: impl FnOnce() -> Result<T, StageError>,
    ) -> Result<T, EngineError> {
        let node = &self.graph.nodes[stage];
        let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
            let what = panic_message(panic.as_ref());
            Err(StageError::new(format!("panicked: {what}; this is a mistake in the kind `{}`", node.kind)))
        });
        result.map_err(|error| EngineError::stage(&node.name, shard, error))
    }

    // ------------------------------------------------------------------------------------------------------ stopping

    /// Tells tasks to stop.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Fails when the run is being stopped.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.stop.load(Ordering::Relaxed) { Err(EngineError::Cancelled) } else { Ok(()) }
    }

    // ------------------------------------------------------------------------------------------------------- results

    /// What a key stands for.
    pub(crate) fn entry(&self, key: &Digest) -> Option<Entry> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Whether a result of the stage is recorded under `key`.
    pub(crate) fn owns(&self, stage: usize, key: &Digest) -> bool {
        let keys = &self.keys.stages[stage];
        let groups = || {
            let ports = self.graph.nodes[stage].row_ports();
            let mut all = ports.flat_map(|port| (0..keys.shards.len()).map(move |shard| (Ref { stage, port }, shard)));
            all.any(|(of, shard)| self.keys.group(of, shard).as_ref() == Some(key))
        };
        keys.result.as_ref() == Some(key) || keys.shards.contains(key) || groups()
    }

    /// Makes results known to the tasks that follow.
    pub(crate) fn add_entries(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut known = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(entries.into_iter().map(|entry| (entry.key, entry)));
    }

    /// What a port of a stored stage holds for a shard, if it is made.
    pub(crate) fn group(&self, of: Ref, shard: usize) -> Option<Entry> {
        self.entry(&self.keys.group(of, shard)?)
    }

    /// What a fold or a job made.
    pub(crate) fn outcome(&self, stage: usize) -> Option<Arc<Outcome>> {
        self.outcomes.read().unwrap_or_else(PoisonError::into_inner).get(&stage).cloned()
    }

    /// Makes the result of a fold or a job known.
    pub(crate) fn add_outcome(&self, stage: usize, outcome: Outcome) {
        self.outcomes.write().unwrap_or_else(PoisonError::into_inner).insert(stage, Arc::new(outcome));
    }

    // ------------------------------------------------------------------------------------------------------ store, talk

    /// An artifact. For blocking threads.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        self.handle.block_on(self.store.artifacts().get(digest))
    }

    /// Stores an artifact. For blocking threads.
    pub(crate) fn put(&self, content: Vec<u8>) -> Result<Digest, StoreError> {
        self.handle.block_on(self.store.artifacts().put(content))
    }

    /// Waits for the store. For blocking threads.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    /// Where messages go from now on.
    pub(crate) fn listen(&self, messages: UnboundedSender<Message>) {
        let _ = self.messages.set(messages);
    }

    /// Whether a warning about a stage's shard is the first: jobs read their rows many times.
    pub(crate) fn first_warning(&self, stage: usize, shard: usize) -> bool {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert((stage, shard))
    }

    /// Tells whoever watches the run.
    pub(crate) fn tell(&self, message: Message) {
        if let Some(messages) = self.messages.get() {
            // Nobody listens any more once the run has ended.
            let _ = messages.send(message);
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "for no given reason".to_owned())
}
