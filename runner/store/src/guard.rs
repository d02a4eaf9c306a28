//! What every call of a store goes through: a time-out, another try where the store was out of reach, and in tests failures
//! on demand.

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::StoreError;

/// How long one attempt of a call may take.
pub(crate) const CALL: Duration = Duration::from_secs(30);
/// How long a store may be out of reach before a call fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The pause before the second attempt; each that follows is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// When a hook is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Nothing has happened yet.
    Before,
    /// It has happened; a failure now loses the answer only.
    After,
}

/// An attempt to call a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// `records` or `artifacts`.
    pub store: &'static str,
    /// What is called: `commit`, `put`.
    pub name: &'static str,
    /// Before or after it.
    pub moment: Moment,
}

/// Makes calls of a store fail, for tests: a hook that is asked before and after every attempt and says whether it fails.
#[derive(Clone)]
pub struct Faults(Arc<dyn Fn(Call) -> bool + Send + Sync>);

impl Faults {
    /// With a hook that answers `true` where a call is to fail.
    pub fn new(hook: impl Fn(Call) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

/// How calls are made.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// Whose calls these are, for messages: `records` or `artifacts`.
    store: &'static str,
    /// How long one attempt may take.
    pub(crate) limit: Duration,
    /// For how long it is tried again.
    pub(crate) patience: Duration,
    /// Asked before and after each attempt.
    pub(crate) faults: Option<Faults>,
    /// What is out of reach if it is out of reach, for messages.
    pub(crate) place: Option<Arc<str>>,
    /// Where the disk may be full.
    pub(crate) folder: Option<PathBuf>,
    /// What to do before another try after one that had no answer.
    pub(crate) after_silence: Option<Hook>,
}

/// Something to do.
#[derive(Clone)]
pub(crate) struct Hook(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Guard {
    pub(crate) fn new(store: &'static str) -> Self {
        Self { store, limit: CALL, patience: PATIENCE, faults: None, place: None, folder: None, after_silence: None }
    }

    /// Makes a call, again after a pause as long as the store is out of reach. It must be one that may happen twice.
    pub(crate) async fn call<T, F>(&self, name: &'static str, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(name, &call).await {
                Err(error) if error.is_transient() => error,
                result => return result.map_err(|error| self.explain(error)),
            };
            if let (StoreError::TimedOut { .. }, Some(Hook(hook))) = (&error, &self.after_silence) {
                hook();
            }
            if begun.elapsed() + pause >= self.patience {
                return Err(self.gives_up(error, begun.elapsed()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Says that the disk is full where that is meant.
    fn explain(&self, error: StoreError) -> StoreError {
        let StoreError::Sql(sqlx::Error::Database(reason)) = &error else { return error };
        // SQLITE_FULL, and SQLITE_IOERR_WRITE: the file may not grow any more.
        match (&self.folder, reason.code().as_deref()) {
            (Some(folder), Some("13" | "778")) => {
                let source = io::Error::new(io::ErrorKind::StorageFull, reason.message().to_owned());
                StoreError::Full { place: folder.clone(), source }
            }
            _ => error,
        }
    }

    /// Names what is out of reach.
    fn gives_up(&self, error: StoreError, after: Duration) -> StoreError {
        let (Some(place), StoreError::Sql(error)) = (&self.place, &error) else { return error };
        let reason = match error {
            sqlx::Error::PoolTimedOut => "no connection".to_owned(),
            error => error.to_string(),
        };
        StoreError::Unavailable { store: self.store, reason: format!("{place} for {} s: {reason}", after.as_secs()) }
    }

    /// Makes a call once.
    async fn attempt<T, F>(&self, name: &'static str, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.ask(name, Moment::Before)?;
        let slow = |_| StoreError::TimedOut { store: self.store, call: name, limit: self.limit };
        let result = tokio::time::timeout(self.limit, call()).await.map_err(slow)??;
        self.ask(name, Moment::After)?;
        Ok(result)
    }

    fn ask(&self, name: &'static str, moment: Moment) -> Result<(), StoreError> {
        let Some(Faults(hook)) = &self.faults else { return Ok(()) };
        if !hook(Call { store: self.store, name, moment }) {
            return Ok(());
        }
        let when = if moment == Moment::Before { "before" } else { "after" };
        Err(StoreError::Unavailable {
            store: self.store,
            reason: format!("a test lets `{name}` fail {when} its effect"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_call_without_an_answer_ends_and_is_made_again() {
        let (calls, silences) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
        let count = silences.clone();
        let hook = Hook(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        let guard = Guard { limit: Duration::from_millis(30), after_silence: Some(hook), ..Guard::new("records") };
        let answer = guard
            .call("commit", async || match calls.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => std::future::pending().await,
                _ => Ok(7),
            })
            .await;
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(silences.load(Ordering::Relaxed), 2, "its connections are given up");
    }

    #[tokio::test]
    async fn patience_ends() {
        let never = || async { Err::<(), _>(StoreError::Sql(sqlx::Error::PoolTimedOut)) };
        let place = Some("no answer from postgres://host/db".into());
        let guard = Guard { place, patience: Duration::from_millis(100), ..Guard::new("records") };
        let error = guard.call("commit", never).await.unwrap_err();
        assert_eq!(error.to_string(), "records: no answer from postgres://host/db for 0 s: no connection");
    }

    #[tokio::test]
    async fn what_will_not_change_is_not_tried_again() {
        let calls = AtomicU32::new(0);
        let refused = || async {
            calls.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(StoreError::NoRuns)
        };
        assert!(matches!(Guard::new("records").call("runs", refused).await, Err(StoreError::NoRuns)));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
