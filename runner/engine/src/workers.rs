//! The threads that tasks run on: as many as tasks may run at once, each with a companion that runs ahead of it.
//!
//! They live as long as the run. Memory that a thread has freed stays with the thread for a while, so threads that come
//! and go with the shards would hold more the more shards there are.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
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
    queue: Sender<Work>,
    waiting: Arc<Mutex<Receiver<Work>>>,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn new(count: usize) -> Self {
        let (queue, waiting) = channel::<Work>();
        let workers = Self { queue, waiting: Arc::new(Mutex::new(waiting)) };
        (0..count).for_each(|_| workers.add());
        workers
    }

    /// Adds a thread, for instance in place of one that does not come back from what it does.
    pub(crate) fn add(&self) {
        let waiting = self.waiting.clone();
        // Detached: they end with the queue.
        drop(thread::spawn(move || {
            let companion = Companion::default();
            while let Some(work) = next(&waiting) {
                // Tasks catch panics themselves; one more must not cost the run a thread.
                if matches!(catch_unwind(AssertUnwindSafe(|| work(&companion))), Ok(Then::Leave)) {
                    return;
                }
            }
        }));
    }

    /// Has the next free thread do something.
    pub(crate) fn run(&self, work: impl FnOnce(&Companion) -> Then + Send + 'static) {
        // The threads hold the other end as long as this one is there.
        let _ = self.queue.send(Box::new(work));
    }
}

fn next(waiting: &Mutex<Receiver<Work>>) -> Option<Work> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
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
