//! What every call of a store goes through: a time-out, another try where the store was out of reach, and in tests failures
//! on demand.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::StoreError;

/// How long one attempt of a call may take.
pub(crate) const CALL: Duration = Duration::from_secs(30);
/// How long a store may be out of reach before a call fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
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
}

impl Guard {
    pub(crate) fn new(store: &'static str) -> Self {
        Self { store, limit: CALL, patience: PATIENCE, faults: None }
    }

    /// Makes a call, again after a pause as long as the store is out of reach. It must be one that may happen twice.
    pub(crate) async fn call<T, F>(&self, name: &'static str, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            match self.attempt(name, &call).await {
                Err(error) if error.is_transient() && begun.elapsed() + pause < self.patience => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                result => return result,
            }
        }
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
