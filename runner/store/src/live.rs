//! A run that this process is executing, and what keeps it alive in the eyes of others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::{CancelRequest, Records, StoreError, process};

/// How often it is looked whether somebody asked for the run to stop.
const LOOK: Duration = Duration::from_millis(500);
/// So many looks make a beat.
const LOOKS_PER_BEAT: u64 = 10;
/// A run that cannot be looked at and whose last beat is older is dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// A run that this process is executing. As long as the value lives, nobody takes the run for dead; dropped without
/// [`Records::finish`], the run is interrupted.
#[derive(Debug)]
pub struct LiveRun {
    id: String,
    cancel: watch::Receiver<Option<CancelRequest>>,
    given_up: Arc<AtomicBool>,
    /// Tells the task that beats for the run to end.
    end: watch::Sender<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    No,
    /// The end is recorded.
    Recorded,
}

impl LiveRun {
    /// Starts to beat for a run that is recorded and counted among the live ones of this process.
    pub(crate) fn start(records: Records, id: String) -> Self {
        let (requests, cancel) = watch::channel(None);
        let (end, ended) = watch::channel(End::No);
        let given_up = Arc::new(AtomicBool::new(false));
        tokio::spawn(beat(records, id.clone(), requests, given_up.clone(), ended));
        Self { id, cancel, given_up, end }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How the run was last asked to stop, from another process. A run that was given up is asked to stop now.
    pub fn cancel_requested(&self) -> watch::Receiver<Option<CancelRequest>> {
        self.cancel.clone()
    }

    /// Whether somebody took the run for dead, so that nothing that it does is recorded any more.
    pub fn given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// The run has ended and is recorded so.
    pub(crate) fn end(self) {
        self.end.send_replace(End::Recorded);
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        process::leave(&self.id);
    }
}

/// Beats for a run and hears requests to stop it until its [`LiveRun`] is gone.
async fn beat(
    records: Records,
    id: String,
    requests: watch::Sender<Option<CancelRequest>>,
    given_up: Arc<AtomicBool>,
    mut ended: watch::Receiver<End>,
) {
    tokio::select! {
        _ = ended.changed() => {}
        () = listen(&records, &id, &requests, &given_up) => drop(ended.changed().await),
    }
    if *ended.borrow() == End::No {
        // Dropped. Others would find out; here it is known already.
        let _ = records.interrupt(&id).await;
    }
}

/// Returns when the run was given up.
async fn listen(records: &Records, id: &str, requests: &watch::Sender<Option<CancelRequest>>, given_up: &AtomicBool) {
    for look in 1u64.. {
        tokio::time::sleep(LOOK).await;
        let request = match records.pulse(id, look.is_multiple_of(LOOKS_PER_BEAT)).await {
            Ok(None) => continue,
            Ok(request) => request,
            Err(StoreError::GivenUp(_)) => {
                given_up.store(true, Ordering::Relaxed);
                requests.send_replace(Some(CancelRequest::Now));
                return;
            }
            // Out of reach for the moment; whoever works for the run will see it too.
            Err(_) => continue,
        };
        requests.send_if_modified(|now| std::mem::replace(now, request) != request);
    }
}
