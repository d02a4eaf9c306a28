//! Removing what nobody needs, beside running work.
//!
//! A blob goes if nothing refers to it. That is decided and done in batches, each under a lock that commits share: a commit comes
//! before, and the batch sees its reference, or after. For the latter the store counts collections (`epoch`): a commit whose keys
//! were claimed under another count looks whether its blobs are still there, and if not, the task is done again. The count is
//! odd from before the first removal until after the last one, and stays so if the collector is killed; then every commit looks.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use runner_contract::Digest;
use serde_json::Value;

use crate::{
    Store, StoreError, Time,
    artifacts::Stored,
    records::{Records, Tables, call},
};

/// `used` is not written anew if it is younger than this: lookups are many.
pub(crate) const TOUCH: Duration = Duration::from_secs(600);
/// Results used so recently are not removed to keep below a quota: somebody may be about to read them.
const RECENT: Duration = Duration::from_secs(3_600);
/// How far the clocks of records and artifacts may be apart.
const CLOCKS: Duration = Duration::from_secs(300);
/// Blobs that are removed under one lock.
const BATCH: usize = 500;
/// The largest artifact of an old store that is read to see what it names.
const MANIFEST: u64 = 16 << 20;

/// What is to be removed, beside blobs that nothing refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collect {
    /// Results are removed, the longest unused first, until all blobs together have no more bytes than this.
    pub max_bytes: Option<u64>,
    /// Runs that began before are removed, with their files for people; running ones are not.
    pub runs_before: Option<Time>,
    /// Nothing is removed, only said.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Runs, by id.
    pub runs: Vec<String>,
    /// Results that were forgotten to keep below the quota.
    pub entries: u64,
    /// Blobs and their sizes in bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// What killed writers had left half-written.
    pub leftovers: u64,
    /// Blobs that are left.
    pub kept_blobs: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

impl Collected {
    /// The bytes of the removed blobs.
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// What the records refer to.
#[derive(Clone, Debug)]
pub(crate) struct References {
    /// Runs that are old enough to go, which hold nothing.
    pub(crate) old_runs: Vec<String>,
    /// What runs and checkpoints hold.
    pub(crate) fixed: Vec<Digest>,
    /// What is computed.
    pub(crate) entries: Vec<Held>,
    /// When the oldest live run began.
    pub(crate) oldest_live: Option<Time>,
    /// The time by the clock of the records.
    pub(crate) now: Time,
}

/// A result and what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) key: Digest,
    pub(crate) digest: Digest,
    /// `None`: recorded by a version that did not say.
    pub(crate) holds: Option<Vec<Digest>>,
    pub(crate) used: Time,
}

/// What a collection would do.
struct Decision {
    evicted: Vec<Digest>,
    blobs: Vec<(Digest, u64)>,
    /// Results used since then stay.
    unused_since: Time,
}

impl Store {
    /// Removes what nobody needs. Safe beside running work, and beside other collections.
    pub async fn collect(&self, what: &Collect) -> Result<Collected, StoreError> {
        let (records, artifacts) = (&self.records, &self.artifacts);
        records.mark_interrupted().await?;
        records.mark().await?;
        // First the blobs, then the references: what is stored meanwhile is not looked at.
        let stored = artifacts.stored().await?;
        let before = what.runs_before;
        let mut found = call!(records.references(before))?;
        self.look_inside(&stored, &mut found, what.dry_run).await?;
        let decision = decide(&stored, &found, what.max_bytes);

        let mut done = Collected { runs: found.old_runs.clone(), ..Collected::default() };
        // What is older than the oldest run has no writer any more.
        let aside = found.oldest_live.map_or(found.now, |begun| begun - CLOCKS);
        done.leftovers = artifacts.leftovers(aside, !what.dry_run).await?;
        if what.dry_run {
            done.entries = decision.evicted.len() as u64;
            done.blobs = decision.blobs;
        } else {
            let runs = &found.old_runs;
            call!(records.prune(runs, before))?;
            for keys in decision.evicted.chunks(BATCH) {
                let since = decision.unused_since;
                done.entries += call!(records.evict(keys, since))?;
            }
            done.blobs = sweep(records, &decision.blobs).await?;
        }
        done.kept_blobs = (stored.len() - done.blobs.len()) as u64;
        done.kept_bytes = stored.iter().map(|blob| blob.bytes).sum::<u64>().saturating_sub(done.bytes());
        Ok(done)
    }

    /// Finds what the results of an old store hold, whose records do not say.
    async fn look_inside(&self, stored: &[Stored], found: &mut References, dry_run: bool) -> Result<(), StoreError> {
        let (records, sizes) = (&self.records, sizes(stored));
        for entry in found.entries.iter_mut().filter(|entry| entry.holds.is_none()) {
            let mut holds = BTreeSet::new();
            if sizes.get(&entry.digest).is_some_and(|bytes| *bytes <= MANIFEST)
                && let Ok(content) = self.artifacts.get(&entry.digest).await
                && let Ok(manifest) = serde_json::from_slice(&content)
            {
                named(&manifest, &mut holds);
            }
            let holds: Vec<Digest> = holds.into_iter().collect();
            if !dry_run {
                let (key, holds) = (&entry.key, &holds);
                call!(records.set_holds(key, holds))?;
            }
            entry.holds = Some(holds);
        }
        Ok(())
    }
}

/// The digests in a manifest.
fn named(value: &Value, found: &mut BTreeSet<Digest>) {
    match value {
        Value::String(text) => found.extend(text.parse::<Digest>()),
        Value::Array(items) => items.iter().for_each(|item| named(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| named(field, found)),
        _ => {}
    }
}

fn sizes(stored: &[Stored]) -> HashMap<Digest, u64> {
    stored.iter().map(|blob| (blob.digest, blob.bytes)).collect()
}

/// What goes: blobs without a reference, and the longest unused results until the rest fits.
fn decide(stored: &[Stored], found: &References, max_bytes: Option<u64>) -> Decision {
    // A live run has stored what it will refer to.
    let young = found.oldest_live.map(|begun| begun - CLOCKS);
    let removable: HashMap<Digest, u64> = stored
        .iter()
        .filter(|blob| young.is_none_or(|young| blob.modified < young))
        .map(|blob| (blob.digest, blob.bytes))
        .collect();
    let mut references: HashMap<Digest, u64> = HashMap::new();
    let of_entries = found.entries.iter().flat_map(holds);
    for digest in found.fixed.iter().copied().chain(of_entries) {
        *references.entry(digest).or_default() += 1;
    }
    let mut total: u64 = stored.iter().map(|blob| blob.bytes).sum();
    let mut blobs: Vec<(Digest, u64)> = Vec::new();
    for blob in stored.iter().filter(|blob| !references.contains_key(&blob.digest)) {
        if removable.contains_key(&blob.digest) {
            total = total.saturating_sub(blob.bytes);
            blobs.push((blob.digest, blob.bytes));
        }
    }
    let unused_since = found.oldest_live.unwrap_or(found.now).min(found.now - RECENT) - TOUCH;
    let mut oldest: Vec<&Held> = found.entries.iter().filter(|entry| entry.used < unused_since).collect();
    oldest.sort_unstable_by_key(|entry| (entry.used, entry.key));
    let mut evicted = Vec::new();
    for entry in oldest {
        if max_bytes.is_none_or(|max| total <= max) {
            break;
        }
        evicted.push(entry.key);
        for digest in holds(entry) {
            let Some(count) = references.get_mut(&digest) else { continue };
            *count -= 1;
            if let (0, Some(bytes)) = (*count, removable.get(&digest)) {
                total = total.saturating_sub(*bytes);
                blobs.push((digest, *bytes));
            }
        }
    }
    blobs.sort_unstable();
    Decision { evicted, blobs, unused_since }
}

/// What a result holds, each once.
fn holds(entry: &Held) -> HashSet<Digest> {
    entry.holds.iter().flatten().copied().chain([entry.digest]).collect()
}

/// Removes those of the blobs that nothing refers to by then, and says which.
async fn sweep(records: &Records, blobs: &[(Digest, u64)]) -> Result<Vec<(Digest, u64)>, StoreError> {
    let mut removed = Vec::new();
    if blobs.is_empty() {
        // A collector may have been killed. One that lives begins anew.
        call!(records.settle(None))?;
        return Ok(removed);
    }
    let mut epoch = call!(records.unsettle())?;
    for batch in blobs.chunks(BATCH) {
        let digests: Vec<Digest> = batch.iter().map(|(digest, _)| *digest).collect();
        let gone = loop {
            let (digests, artifacts) = (&digests, &records.artifacts);
            if let Some(gone) = call!(records.sweep(epoch, digests, artifacts))? {
                break gone;
            }
            // Another collector has begun or ended in between.
            epoch = call!(records.unsettle())?;
        };
        removed.extend(batch.iter().filter(|(digest, _)| gone.contains(digest)));
    }
    call!(records.settle(Some(epoch)))?;
    Ok(removed)
}
