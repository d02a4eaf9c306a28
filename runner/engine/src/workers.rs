//! The threads that tasks run on: as many as tasks may run at once, each with a companion that runs ahead of it.
//!
//! They live as long as the run. Memory that a thread has freed stays with the thread for a while, so threads that come
//! and go with the shards would hold more the more shards there are.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

type Call = Box<dyn FnOnce() + Send>;
type Work = Box<dyn FnOnce(&Companion) -> Then + Send>;

/// What a thread does after a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Takes the next.
    Stay,
    /// Ends: another has taken its place.
    Leave,
}

/// The threads of a run. Dropped, they end when they have done what they do.
pub(crate) struct Workers {
    queue: Arc<Queue>,
}

/// What waits for a thread. One signal wakes one thread: behind a channel that they share, each would wake the next.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    work: VecDeque<Work>,
    closed: bool,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn new(count: usize) -> Self {
        let workers = Self { queue: Arc::default() };
        (0..count).for_each(|_| workers.add());
        workers
    }

    /// Adds a thread, for instance in place of one that does not come back from what it does.
    pub(crate) fn add(&self) {
        let queue = self.queue.clone();
        // Detached: they end with the queue.
        drop(thread::spawn(move || {
            let companion = Companion::default();
            while let Some(work) = queue.next() {
                // Tasks catch panics themselves; one more must not cost the run a thread.
                if matches!(catch_unwind(AssertUnwindSafe(|| work(&companion))), Ok(Then::Leave)) {
                    return;
                }
            }
        }));
    }

    /// Has the next free thread do something.
    pub(crate) fn run(&self, work: impl FnOnce(&Companion) -> Then + Send + 'static) {
        self.queue.lock().work.push_back(Box::new(work));
        self.queue.more.notify_one();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.more.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece of work, or `None` when there will be none.
    fn next(&self) -> Option<Work> {
        let mut waiting = self.lock();
        loop {
            if let Some(work) = waiting.work.pop_front() {
                return Some(work);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A second thread for what a task does ahead of itself. Started when it is first used.
#[derive(Default)]
pub(crate) struct Companion {
    queue: Mutex<Option<Sender<Call>>>,
}

impl Companion {
    /// Does `call` on the second thread, after what it was given before.
    pub(crate) fn run(&self, call: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.get_or_insert_with(|| {
            let (queue, waiting) = channel::<Call>();
            drop(thread::spawn(move || {
                for call in waiting {
                    let _ = catch_unwind(AssertUnwindSafe(call));
                }
            }));
            queue
        });
        let _ = queue.send(Box::new(call));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_on_after_a_panic() {
        let workers = Workers::new(1);
        let (sender, receiver) = channel();
        workers.run(|_| panic!("a mistake"));
        workers.run(move |companion| {
            companion.run(|| panic!("another"));
            let there = sender.clone();
            companion.run(move || there.send(1).unwrap());
            sender.send(2).unwrap();
            Then::Leave
        });
        let mut heard: Vec<i32> = receiver.iter().collect();
        heard.sort_unstable();
        assert_eq!(heard, [1, 2]);
    }
}
