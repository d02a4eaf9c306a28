//! Who computes what: keys are leased to runs, and a lease is valid while its run is alive.

use std::collections::{BTreeSet, HashMap};

use runner_contract::Digest;

use crate::{Entry, TaskRecord};

/// A task that a run would begin, and the keys of what it makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Recorded, if the keys are granted.
    pub task: TaskRecord,
    /// What it makes.
    pub keys: Vec<Digest>,
}

/// The answer to a [`Claim`].
#[derive(Clone, Debug, PartialEq)]
pub enum Claimed {
    /// The keys are leased to the run until it commits them, releases them or ends.
    Yours {
        /// Those that others have recorded meanwhile.
        made: Vec<Entry>,
    },
    /// Everything is recorded.
    Made(Vec<Entry>),
    /// A live run computes one of them.
    Held {
        /// Its id.
        by: String,
    },
}

/// What is granted, from what is made and what others hold, with the keys to lease in order: everybody takes them in the same
/// order, so nobody waits in a circle.
pub(crate) fn decide(
    claims: &[Claim],
    made: &HashMap<Digest, Entry>,
    held: &HashMap<Digest, String>,
) -> (Vec<Claimed>, BTreeSet<Digest>) {
    let mut leased = BTreeSet::new();
    let answers = claims.iter().map(|claim| {
        let there: Vec<Entry> = claim.keys.iter().filter_map(|key| made.get(key)).cloned().collect();
        if there.len() == claim.keys.len() && !there.is_empty() {
            return Claimed::Made(there);
        }
        let missing = || claim.keys.iter().filter(|key| !made.contains_key(key));
        if let Some(by) = missing().find_map(|key| held.get(key)) {
            return Claimed::Held { by: by.clone() };
        }
        leased.extend(missing());
        Claimed::Yours { made: there }
    });
    (answers.collect(), leased)
}

/// The tasks that were granted.
pub(crate) fn granted<'a>(claims: &'a [Claim], answers: &'a [Claimed]) -> impl Iterator<Item = &'a TaskRecord> {
    let pairs = claims.iter().zip(answers);
    pairs.filter(|(_, answer)| matches!(answer, Claimed::Yours { .. })).map(|(claim, _)| &claim.task)
}

/// The artifacts that results refer to.
pub(crate) fn referred(made: &[Entry]) -> Vec<Digest> {
    made.iter().flat_map(|entry| entry.holds.iter().copied().chain([entry.digest])).collect()
}
