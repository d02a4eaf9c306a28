//! One run computes a key, others wait, and take over when it is dead.

use std::collections::{BTreeSet, HashSet};

use runner_contract::Digest;
use runner_store::{Claim, Claimed, Entry, Finish, Records, RunStatus, StoreError, TaskStatus};

use crate::bench::{Bench, claim, entry, is_yours, new_run, succeeded, task};

pub(crate) async fn a_key_is_computed_by_one_run_at_a_time(bench: Bench) {
    let (one, two) = (bench.open().await, bench.open().await);
    let (one, two) = (one.records(), two.records());
    let (a, b) = (one.begin(&new_run()).await.unwrap(), two.begin(&new_run()).await.unwrap());
    let wanted = [claim(0, &[b"x", b"y"])];
    assert_eq!(one.claim(a.id(), &wanted).await.unwrap(), [Claimed::Yours { made: vec![] }]);
    assert_eq!(one.tasks(a.id()).await.unwrap()[0].status, TaskStatus::Running, "what is granted is recorded");
    assert_eq!(one.claim(a.id(), &wanted).await.unwrap(), [Claimed::Yours { made: vec![] }], "asked twice");

    let answers = two.claim(b.id(), &[claim(0, &[b"y"]), claim(1, &[b"z"]), claim(2, &[])]).await.unwrap();
    assert_eq!(answers[0], Claimed::Held { by: a.id().to_owned() });
    assert!(is_yours(&answers[1]) && is_yours(&answers[2]));
    let numbers: Vec<u64> = two.tasks(b.id()).await.unwrap().iter().map(|task| task.task).collect();
    assert_eq!(numbers, [1, 2], "a task that waits has not begun");

    // A part is made, the rest is given back.
    one.commit(a.id(), &[], &[entry(b"x")]).await.unwrap();
    one.release(a.id(), &[Digest::of(b"x"), Digest::of(b"y")]).await.unwrap();
    let answers = two.claim(b.id(), &[claim(3, &[b"x", b"y"]), claim(4, &[b"x"])]).await.unwrap();
    assert_eq!(answers, [Claimed::Yours { made: vec![entry(b"x")] }, Claimed::Made(vec![entry(b"x")])]);

    two.finish(b, &succeeded()).await.unwrap();
    assert!(is_yours(&one.claim(a.id(), &[claim(1, &[b"y", b"z"])]).await.unwrap()[0]), "the end of a run frees all");
}

pub(crate) async fn a_commit_gives_the_lease_back_and_can_be_repeated(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let (a, b) = (records.begin(&new_run()).await.unwrap(), records.begin(&new_run()).await.unwrap());
    assert!(is_yours(&records.claim(a.id(), &[claim(0, &[b"x"])]).await.unwrap()[0]));
    for _ in 0..2 {
        records.commit(a.id(), &[task(0, TaskStatus::Done)], &[entry(b"x")]).await.unwrap();
        assert_eq!(records.tasks(a.id()).await.unwrap(), [task(0, TaskStatus::Done)]);
        assert_eq!(records.claim(b.id(), &[claim(0, &[b"x"])]).await.unwrap(), [Claimed::Made(vec![entry(b"x")])]);
    }
    let anew = Entry { digest: Digest::of(b"other"), ..entry(b"x") };
    records.commit(a.id(), &[], &[entry(b"x"), anew.clone()]).await.unwrap();
    assert_eq!(records.lookup(&[anew.key]).await.unwrap()[&anew.key], anew, "the last one of a key counts");
    store.artifacts().put(&b"content"[..]).await.unwrap();
    store.artifacts().put(&b"held"[..]).await.unwrap();
    records.commit("", &[], &[entry(b"x")]).await.unwrap();
    assert_eq!(records.lookup(&[anew.key]).await.unwrap()[&anew.key], entry(b"x"), "without a run, too");
}

pub(crate) async fn a_dead_run_is_relieved_of_its_keys(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let (a, b) = (records.begin(&new_run()).await.unwrap(), records.begin(&new_run()).await.unwrap());
    assert!(is_yours(&records.claim(a.id(), &[claim(0, &[b"x"])]).await.unwrap()[0]));

    // As good as alive: it cannot be looked at, and was heard of a moment ago.
    bench.far_away(a.id(), 20).await;
    assert_eq!(records.claim(b.id(), &[claim(0, &[b"x"])]).await.unwrap(), [Claimed::Held { by: a.id().to_owned() }]);
    bench.far_away(a.id(), 40).await;
    assert!(is_yours(&records.claim(b.id(), &[claim(0, &[b"x"])]).await.unwrap()[0]));

    // It was only paused. What it does now is refused, and leaves the new holder alone.
    let run = records.run(a.id()).await.unwrap();
    assert_eq!((run.status, run.reason.as_deref()), (RunStatus::Failed, Some("interrupted")));
    let gone = |result: Result<(), StoreError>| matches!(result, Err(StoreError::GivenUp(run)) if run == a.id());
    assert!(gone(records.commit(a.id(), &[task(0, TaskStatus::Done)], &[entry(b"x")]).await));
    assert!(gone(records.commit(a.id(), &[task(0, TaskStatus::Done)], &[]).await));
    assert!(gone(records.claim(a.id(), &[claim(1, &[b"y"])]).await.map(drop)));
    assert!(gone(records.claim(a.id(), &[claim(1, &[])]).await.map(drop)));
    assert!(gone(records.put_stages(a.id(), &[]).await));
    records.release(a.id(), &[Digest::of(b"x")]).await.unwrap();
    assert!(records.lookup(&[Digest::of(b"x")]).await.unwrap().is_empty());
    assert_eq!(records.tasks(a.id()).await.unwrap()[0].status, TaskStatus::Failed);
    let mut cancel = a.cancel_requested();
    cancel.wait_for(Option::is_some).await.unwrap();
    assert!(a.given_up(), "it finds out by itself");
    let finish = records.finish(a, &succeeded()).await;
    assert!(matches!(finish, Err(StoreError::GivenUp(_))));
    records.commit(b.id(), &[], &[entry(b"x")]).await.unwrap();
}

/// Eight runs want the same tasks, two keys each, which overlap in circles. Each key is made once.
pub(crate) async fn runs_that_race_for_keys_make_each_once(bench: Bench) {
    const KEYS: u32 = 30;
    let racers: Vec<_> = (0..8)
        .map(|racer| {
            let bench = bench.clone();
            tokio::spawn(async move {
                let store = bench.open().await;
                let live = store.records().begin(&new_run()).await.unwrap();
                let made = race(store.records(), live.id(), KEYS, racer).await;
                store.records().finish(live, &Finish { executed: made.len() as u64, ..succeeded() }).await.unwrap();
                made
            })
        })
        .collect();
    let mut made = Vec::new();
    for racer in racers {
        made.extend(racer.await.unwrap());
    }
    assert_eq!(made.len(), KEYS as usize, "nobody repeats what another has made");
    assert_eq!(made.iter().collect::<HashSet<_>>().len(), KEYS as usize);
}

/// Claims keys in pairs until all are made, and says which it made itself.
async fn race(records: &Records, run: &str, keys: u32, racer: u32) -> Vec<Digest> {
    let key = |i: u32| Digest::of(&(i % keys).to_le_bytes());
    let mut open: BTreeSet<u32> = (0..keys).collect();
    let mut made = Vec::new();
    while !open.is_empty() {
        // Everyone begins elsewhere and names the keys in another order.
        let wanted: Vec<u32> = open.iter().copied().cycle().skip(racer as usize * 3).take(open.len().min(4)).collect();
        let claims: Vec<Claim> = wanted
            .iter()
            .map(|&i| {
                let pair = if racer.is_multiple_of(2) { vec![key(i), key(i + 1)] } else { vec![key(i + 1), key(i)] };
                Claim { task: task(u64::from(i), TaskStatus::Running), keys: pair }
            })
            .collect();
        for ((i, claim), answer) in wanted.iter().zip(&claims).zip(records.claim(run, &claims).await.unwrap()) {
            match answer {
                Claimed::Made(_) => drop(open.remove(i)),
                Claimed::Held { .. } => tokio::task::yield_now().await,
                Claimed::Yours { made: there } => {
                    let there: Vec<Digest> = there.iter().map(|entry| entry.key).collect();
                    let mut fresh = BTreeSet::new();
                    fresh.extend(claim.keys.iter().filter(|key| !there.contains(key) && !made.contains(*key)));
                    let entries: Vec<Entry> = fresh.iter().map(|key| Entry { key: *key, ..entry(b"") }).collect();
                    records.commit(run, &[task(u64::from(*i), TaskStatus::Done)], &entries).await.unwrap();
                    made.extend(fresh);
                    open.remove(i);
                }
            }
        }
    }
    made
}
