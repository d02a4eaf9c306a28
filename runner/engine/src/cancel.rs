//! Stopping a run from outside, in two stages.

use std::sync::Arc;

use tokio::sync::watch;

/// How far a run is to be stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    #[default]
    No,
    /// Nothing new starts; what is in flight ends and is recorded.
    Finish,
    /// Tasks stop at the next chunk or step.
    Now,
}

/// Stops a run from outside. Clones stop the same run.
#[derive(Clone, Debug)]
pub struct Cancel {
    stop: Arc<watch::Sender<Stop>>,
}

impl Default for Cancel {
    fn default() -> Self {
        Self { stop: Arc::new(watch::channel(Stop::No).0) }
    }
}

impl Cancel {
    /// Nothing to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the run soon: nothing new starts, what is in flight ends and is recorded, jobs save where they are and stop.
    pub fn finish(&self) {
        self.raise(Stop::Finish);
    }

    /// Stops the run: stages stop at the next chunk or step, what is finished stays recorded.
    pub fn now(&self) {
        self.raise(Stop::Now);
    }

    /// The same as [`Cancel::now`].
    pub fn cancel(&self) {
        self.now();
    }

    /// Whether somebody said so, of either kind.
    pub fn is_cancelled(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }

    fn raise(&self, to: Stop) {
        self.stop.send_if_modified(|stop| {
            let raised = *stop < to;
            *stop = to.max(*stop);
            raised
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Stop> {
        let mut stop = self.stop.subscribe();
        // What was said before counts.
        stop.mark_changed();
        stop
    }
}
