//! Threads and buffers that kernels run on.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use rayon::prelude::*;

use crate::{Error, Isa};

/// A bounded number of threads with buffers to reuse; cheap to clone. Work is split by sizes alone, never by the
/// number of threads, so results do not depend on it.
#[derive(Clone)]
pub struct Workers(Arc<Shared>);

struct Shared {
    /// Where kernels run.
    pool: rayon::ThreadPool,
    /// Buffers that were given back, the largest last.
    free: Mutex<Vec<Vec<f32>>>,
    /// The instructions that kernels use.
    isa: Isa,
}

impl Workers {
    /// At most `threads` threads (at least one). Workers of the same number are shared in the whole program.
    pub fn new(threads: usize) -> Result<Self, Error> {
        static ALL: Mutex<BTreeMap<usize, Workers>> = Mutex::new(BTreeMap::new());
        let threads = threads.max(1);
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(workers) = all.get(&threads) {
            return Ok(workers.clone());
        }
        let workers = Self::with_isa(threads, Isa::best())?;
        all.insert(threads, workers.clone());
        Ok(workers)
    }

    /// Workers of their own that use a chosen instruction set.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Self, Error> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("compute-{i}"))
            .build()
            .map_err(|error| Error::Device(format!("cannot start threads: {error}")))?;
        Ok(Self(Arc::new(Shared { pool, free: Mutex::default(), isa })))
    }

    /// The instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.0.isa
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.0.pool.current_num_threads()
    }

    /// How many rows and panels of a product one thread computes at a time: some parts for each thread, by rows as long as
    /// these are many, since each part reads all weights of its panels.
    pub(crate) fn parts(&self, rows: usize, panels: usize) -> (usize, usize) {
        let parts = 4 * self.threads();
        if rows >= 96 * parts {
            return (rows.div_ceil(rows.div_ceil(512).next_multiple_of(parts)), panels);
        }
        let along = (rows / 96).clamp(1, parts);
        (rows.div_ceil(along), panels.div_ceil(parts.div_ceil(along)))
    }

    /// Runs `work` on chunks of `values`, `len` each, with their number.
    pub(crate) fn chunks(&self, values: &mut [f32], len: usize, work: impl Fn(usize, &mut [f32]) + Send + Sync) {
        if values.len() <= len {
            return work(0, values);
        }
        self.run(|| values.par_chunks_mut(len.max(1)).enumerate().for_each(|(i, chunk)| work(i, chunk)));
    }

    /// Runs `work` where `rayon`'s parallel iterators use these threads.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.pool.install(work)
    }

    /// A buffer of `len` values, whatever they are, that returns here when dropped.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fit = free.partition_point(|buffer| buffer.len() < len);
        // A much larger buffer is left for those who need it.
        let reuse = free.get(fit).is_some_and(|buffer| buffer.len() / 2 <= len.max(1024));
        let values = if reuse { free.remove(fit) } else { Vec::new() };
        drop(free);
        let values = if values.is_empty() { vec![0.0; len] } else { values };
        Buffer { values, len, workers: self.clone(), returns: true }
    }

    /// Takes values back that [`Buffer::into_vec`] took out.
    pub(crate) fn adopt(&self, mut values: Vec<f32>) -> Buffer {
        let len = values.len();
        values.resize(values.capacity(), 0.0);
        Buffer { values, len, workers: self.clone(), returns: true }
    }

    /// Values from elsewhere as a buffer, which does not come here when dropped: the free ones would grow without end.
    pub(crate) fn hold(&self, values: Vec<f32>) -> Buffer {
        Buffer { len: values.len(), values, workers: self.clone(), returns: false }
    }

    /// A buffer of zeros.
    pub(crate) fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.buffer(len);
        buffer.fill(0.0);
        buffer
    }
}

/// A borrowed buffer.
pub(crate) struct Buffer {
    /// All that there is room for, so that nothing is filled when a buffer is lent again.
    values: Vec<f32>,
    /// How many of them were asked for.
    len: usize,
    workers: Workers,
    /// Whether it returns there when dropped.
    returns: bool,
}

impl Buffer {
    /// Where it returns to.
    pub(crate) fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Keeps the values: they do not return when dropped.
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        self.values.truncate(self.len);
        std::mem::take(&mut self.values)
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        if values.is_empty() || !self.returns {
            return;
        }
        let mut free = self.workers.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let place = free.partition_point(|buffer| buffer.len() < values.len());
        free.insert(place, values);
    }
}
