//! What the tasks of a run share: opened stages with their models and whole datasets, what is stored, and the way to tell.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use runner_contract::{Batch, Context, Digest, Registry, Stage};
use runner_store::{Entry, Store, StoreError};
use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};

use crate::{
    Config,
    graph::{Graph, Ref},
    key::Keys,
    manifest::Outcome,
    message::Message,
    secrets::Secrets,
};

/// An opened stage, and what its calls get before an attempt adds its own.
pub(crate) struct Opened {
    pub(crate) stage: Stage,
    pub(crate) context: Context,
}

/// A stage that is opened when somebody first needs it.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) opening: Mutex<()>,
    pub(crate) opened: OnceLock<Opened>,
}

/// See the module.
pub(crate) struct Runtime {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) secrets: Secrets,
    pub(crate) graph: Graph,
    pub(crate) keys: Keys,
    pub(crate) limit: Option<usize>,
    /// Small row outputs of sources, read when the run was planned.
    pub(crate) sides: BTreeMap<Ref, Batch>,
    handle: Handle,
    slots: Vec<Slot>,
    entries: RwLock<HashMap<Digest, Entry>>,
    outcomes: RwLock<BTreeMap<usize, Arc<Outcome>>>,
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
        let slots: Vec<Slot> = graph.nodes.iter().map(|_| Slot::default()).collect();
        for (stage, opened) in sources.opened {
            let context = Context::new(engine.config.threads, Arc::new(AtomicBool::new(false)));
            if let Some(slot) = slots.get(stage) {
                // Nobody else has the slots yet.
                let _ = slot.opened.set(Opened { stage: opened, context });
            }
        }
        Self {
            registry: engine.registry.clone(),
            store: engine.store.clone(),
            config: engine.config.clone(),
            secrets: Secrets::new(&engine.config.secrets),
            graph,
            keys,
            limit,
            sides: sources.sides,
            handle,
            slots,
            entries: RwLock::default(),
            outcomes: RwLock::default(),
            messages: OnceLock::new(),
            warned: Mutex::default(),
        }
    }

    /// Where a stage is, once it is opened.
    pub(crate) fn slot(&self, stage: usize) -> &Slot {
        &self.slots[stage]
    }

    // ------------------------------------------------------------------------------------------------------- results

    /// What a key stands for.
    pub(crate) fn entry(&self, key: &Digest) -> Option<Entry> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
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
    pub(crate) fn send(&self, message: Message) {
        if let Some(messages) = self.messages.get() {
            // Nobody listens any more once the run has ended.
            let _ = messages.send(message);
        }
    }
}

/// A flag that others set.
pub(crate) fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}
