//! Which of many artifacts an object store has.
//!
//! To ask for each takes a request each. A listing tells a thousand names at once, in the order of the digests, so where many are asked for it is
//! cheaper to walk through a listing, and to leap over what nobody asks for. Where a listing tells too little (few are asked
//! for in a large store) the rest is asked for one by one.

use std::collections::HashSet;

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use runner_contract::Digest;

use super::layout;
use crate::StoreError;

/// How many names a request lists.
pub(super) const PAGE: usize = 1000;
/// How many requests are on their way at once.
const AT_ONCE: usize = 32;
/// A page that answers fewer than so many questions is no gain.
const WORTH: usize = 16;
/// Walks that go on beside each other.
const WALKS: usize = 8;

/// A page of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The artifacts on it, in order. There may be other things in the store.
    pub(super) digests: Vec<Digest>,
    /// The last path on it; `None` where the listing ends with this page.
    pub(super) until: Option<String>,
}

/// What a request brings.
pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Those of them that are stored. `look` asks for one; `page` lists what comes after a path, in order, at most
/// [`PAGE`] of them.
pub(super) async fn present<'a>(
    digests: &[Digest],
    look: impl Fn(Digest) -> Answer<'a, bool> + Sync,
    page: impl Fn(String) -> Answer<'a, Page> + Sync,
) -> Result<HashSet<Digest>, StoreError> {
    let mut wanted = digests.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let runs = wanted.chunks(wanted.len().div_ceil(WALKS).max(WORTH * 4));
    let walks: Vec<BoxFuture<'_, _>> = runs.map(|run| walk(run, &look, &page).boxed()).collect();
    let found: Vec<Vec<Digest>> = stream::iter(walks).buffered(WALKS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Those of a sorted run that are stored, in order.
async fn walk<'a>(
    mut run: &[Digest],
    look: &(impl Fn(Digest) -> Answer<'a, bool> + Sync),
    page: &(impl Fn(String) -> Answer<'a, Page> + Sync),
) -> Result<Vec<Digest>, StoreError> {
    let mut found = Vec::new();
    while let Some(first) = run.first()
        && run.len() >= WORTH
    {
        let listed = page(before(first)).await?;
        let answered = match &listed.until {
            Some(until) => run.partition_point(|digest| layout::path(digest) <= *until),
            None => run.len(),
        };
        let (told, rest) = run.split_at(answered);
        found.extend(told.iter().filter(|digest| listed.digests.binary_search(digest).is_ok()));
        run = rest;
        if answered < WORTH {
            break;
        }
    }
    let asked: Vec<_> = run.iter().map(|digest| look(*digest)).collect();
    let there: Vec<bool> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    found.extend(run.iter().zip(there).filter_map(|(digest, there)| there.then_some(*digest)));
    Ok(found)
}

/// A path that comes before that of the digest, and after all that are far from it.
fn before(digest: &Digest) -> String {
    let mut path = layout::path(digest);
    path.pop();
    path
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        future::ready,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn digest(n: usize) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    /// Requests that were made to tell which of `wanted` are among the first `stored`; the answer is checked.
    async fn requests(stored: usize, wanted: impl Iterator<Item = usize>) -> usize {
        let stored: BTreeSet<Digest> = (0..stored).map(digest).collect();
        let wanted: Vec<Digest> = wanted.map(digest).collect();
        let count = AtomicUsize::new(0);
        let asked = |_: &str| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let look = |digest: Digest| {
            asked("look");
            ready(Ok(stored.contains(&digest))).boxed()
        };
        let page = |after: String| {
            asked("page");
            let listed = stored.iter().filter(|digest| layout::path(digest) > after);
            let digests: Vec<_> = listed.take(PAGE - 1).copied().collect();
            // Others' things are among them, so that a page is never full of artifacts.
            let until = digests.last().filter(|_| digests.len() == PAGE - 1).map(|last| layout::path(last) + "x");
            ready(Ok(Page { digests, until })).boxed()
        };
        let answers = present(&wanted, look, page).await.unwrap();
        let expected: HashSet<_> = wanted.into_iter().filter(|digest| stored.contains(digest)).collect();
        assert_eq!(answers, expected);
        count.into_inner()
    }

    #[tokio::test]
    async fn many_are_told_by_few_requests() {
        assert_eq!(requests(0, 0..0).await, 0);
        assert_eq!(requests(10, 0..5).await, 5);
        // As if all was made before.
        assert!(requests(10_000, 0..10_000).await <= 24);
        // Nothing was.
        assert!(requests(0, 0..10_000).await <= 8);
        // Twice the same, and in any order.
        assert!(requests(3000, (0..5000).rev().chain(0..5000)).await <= 24);
    }

    #[tokio::test]
    async fn few_in_a_large_store_are_asked_for_one_by_one() {
        let made = requests(50_000, (0..100_000).step_by(500)).await;
        assert!((150..=210).contains(&made), "{made}");
    }
}
