//! Collections remove what nobody needs and nothing else, beside whatever goes on.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use runner_contract::{Digest, Random};
use runner_store::{
    Claim, Claimed, Collect, Collected, Entry, FileRecord, Finish, RunStatus, Store, StoreError, TaskStatus,
};

use crate::bench::{Bench, claim, is_yours, new_run, stage, succeeded, task};

const ALL: Collect = Collect { max_bytes: None, runs_before: None, dry_run: false };

async fn put(store: &Store, content: &str) -> Digest {
    store.artifacts().put(content.to_owned()).await.unwrap()
}

fn made(key: &str, digest: Digest, holds: &[Digest]) -> Entry {
    let key = Digest::of(key.as_bytes());
    Entry { key, digest, rows: 1, bytes: 0, bad: 0, bad_rows: vec![], holds: holds.to_vec() }
}

async fn stored(store: &Store) -> BTreeSet<Digest> {
    store.artifacts().list().await.unwrap().into_iter().map(|(digest, _)| digest).collect()
}

fn digests(collected: &Collected) -> BTreeSet<Digest> {
    collected.blobs.iter().map(|(digest, _)| *digest).collect()
}

/// What a dry run says is what is done then.
async fn collect(store: &Store, what: Collect) -> Collected {
    let said = store.collect(&Collect { dry_run: true, ..what.clone() }).await.unwrap();
    let before = stored(store).await;
    let done = store.collect(&what).await.unwrap();
    assert_eq!(said, done, "a dry run says exactly what goes");
    assert_eq!(&before - &stored(store).await, digests(&done));
    assert_eq!(stored(store).await.len() as u64, done.kept_blobs);
    done
}

pub(crate) async fn what_is_referred_to_stays_and_the_rest_goes(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let live = records.begin(&new_run()).await.unwrap();
    let run = live.id().to_owned();
    let (entry, held) = (put(&store, "entry").await, put(&store, "held").await);
    records.commit(&run, &[], &[made("k", entry, &[held])]).await.unwrap();
    let mut manifest = stage("s", 0, TaskStatus::Done);
    manifest.manifest = Some(put(&store, "manifest").await);
    records.put_stages(&run, &[manifest.clone()]).await.unwrap();
    let file = put(&store, "file").await;
    records
        .put_files(&run, &[FileRecord { stage: "s".into(), name: "f".into(), digest: file, bytes: 4 }])
        .await
        .unwrap();
    let checkpoint = put(&store, "checkpoint").await;
    records.set_checkpoint(&Digest::of(b"job"), Some(&checkpoint)).await.unwrap();
    let orphan = put(&store, "orphan").await;

    assert_eq!(collect(&store, ALL).await.blobs, [], "a live run may be about to refer to it");
    records.finish(live, &succeeded()).await.unwrap();
    let done = collect(&store, ALL).await;
    assert_eq!((done.blobs.clone(), done.bytes()), (vec![(orphan, 6)], 6));
    assert_eq!(collect(&store, ALL).await.blobs, [], "once is enough");
    let kept = BTreeSet::from([entry, held, manifest.manifest.unwrap(), file, checkpoint]);
    assert_eq!(stored(&store).await, kept);

    // Old runs, with what only they need.
    let live = records.begin(&new_run()).await.unwrap();
    let hour = chrono::TimeDelta::hours(1);
    let before = Some(records.run(&run).await.unwrap().started + hour);
    bench.sql(&format!("UPDATE runs SET started = {} WHERE id = '{}'", bench.ago(86_400), live.id())).await;
    let done = collect(&store, Collect { runs_before: before, ..ALL }).await;
    assert_eq!(done.runs, [&*run], "a live one stays");
    assert_eq!(done.blobs, [], "blobs are younger than the live run");
    records.finish(live, &succeeded()).await.unwrap();
    let mut gone = digests(&collect(&store, Collect { runs_before: before, ..ALL }).await);
    assert_eq!(gone, BTreeSet::from([manifest.manifest.unwrap(), file, checkpoint]));
    assert!(matches!(records.run(&run).await, Err(StoreError::NoRun(_))));
    gone.extend([entry, held]);
    records.forget(&[Digest::of(b"k")]).await.unwrap();
    collect(&store, ALL).await;
    assert_eq!(stored(&store).await, BTreeSet::new());
}

pub(crate) async fn a_quota_takes_the_longest_unused_first(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let live = records.begin(&new_run()).await.unwrap();
    // Ten bytes each; the last two are of one content, and the first holds another.
    let mut entries = Vec::new();
    for i in 0..5 {
        let digest = put(&store, &format!("content {}!", i.min(3))).await;
        let holds = if i == 0 { vec![put(&store, "named by 0").await] } else { vec![] };
        entries.push(made(&i.to_string(), digest, &holds));
    }
    records.commit(live.id(), &[], &entries).await.unwrap();
    records.finish(live, &succeeded()).await.unwrap();
    let quota = async |bytes| collect(&store, Collect { max_bytes: Some(bytes), ..ALL }).await;
    assert_eq!(quota(0).await, Collected { kept_blobs: 5, kept_bytes: 50, ..Collected::default() }, "all are recent");
    for (i, entry) in entries.iter().enumerate() {
        let used = bench.ago(10 * 3_600 - 60 * i as u64);
        bench.sql(&format!("UPDATE artifacts SET used = {used} WHERE key = '{}'", entry.key)).await;
    }
    assert_eq!(quota(50).await.entries, 0);
    // Somebody reads the second.
    records.lookup(&[entries[1].key]).await.unwrap();
    let done = quota(35).await;
    assert_eq!((done.entries, done.kept_bytes), (1, 30), "with what it holds");
    let done = quota(20).await;
    assert_eq!(done.blobs, [(entries[2].digest, 10)]);
    let done = quota(1).await;
    assert_eq!((done.entries, done.kept_bytes), (2, 10), "one content goes with the last that refers to it");
    let left = records.lookup(&entries.iter().map(|entry| entry.key).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(left.into_values().collect::<Vec<_>>(), [entries[1].clone()]);
}

/// What was stored under a claim and collected before it is referred to.
pub(crate) async fn a_commit_notices_what_was_collected_meanwhile(bench: Bench) {
    let store = bench.open().await;
    let records = store.records();
    let live = records.begin(&new_run()).await.unwrap();
    bench.young(live.id()).await;
    let run = live.id();
    assert!(is_yours(&records.claim(run, &[claim(0, &[b"k"])]).await.unwrap()[0]));
    let (digest, held) = (put(&store, "made").await, put(&store, "held").await);
    let entry = made("k", digest, &[held]);
    let file = FileRecord { stage: "s".into(), name: "f".into(), digest, bytes: 4 };
    let mut manifest = stage("s", 0, TaskStatus::Done);
    manifest.manifest = Some(held);

    assert_eq!(digests(&collect(&store, ALL).await), BTreeSet::from([digest, held]));
    let vanished = |result: Result<(), StoreError>| match result {
        Err(StoreError::Vanished(gone)) => BTreeSet::from_iter(gone),
        other => panic!("{other:?}"),
    };
    let both = BTreeSet::from([digest, held]);
    assert_eq!(vanished(records.commit(run, &[], std::slice::from_ref(&entry)).await), both);
    assert_eq!(vanished(records.put_files(run, std::slice::from_ref(&file)).await), BTreeSet::from([digest]));
    assert_eq!(vanished(records.put_stages(run, std::slice::from_ref(&manifest)).await), BTreeSet::from([held]));
    assert_eq!(vanished(records.commit("", &[], std::slice::from_ref(&entry)).await), both, "without a run, too");
    assert!(records.lookup(&[entry.key]).await.unwrap().is_empty());
    let answer = records.claim(run, &[claim(0, &[b"k"])]).await.unwrap();
    assert!(is_yours(&answer[0]), "the lease is kept");
    put(&store, "made").await;
    put(&store, "held").await;
    records.commit(run, &[], std::slice::from_ref(&entry)).await.unwrap();
    records.put_files(run, &[file]).await.unwrap();
    records.put_stages(run, &[manifest]).await.unwrap();

    // A collector was killed in the middle: everything that is referred to from then on is looked for.
    bench.sql("UPDATE store SET epoch = epoch + 1").await;
    assert!(is_yours(&records.claim(run, &[claim(1, &[b"l"])]).await.unwrap()[0]));
    let other = made("l", Digest::of(b"not there"), &[]);
    assert_eq!(vanished(records.commit(run, &[], std::slice::from_ref(&other)).await).len(), 1);
    put(&store, "not there").await;
    records.commit(run, &[], &[other]).await.unwrap();
    collect(&store, ALL).await;
    let live = records.begin(&new_run()).await.unwrap();
    let unseen = made("m", Digest::of(b"nor this"), &[]);
    records.commit(live.id(), &[], &[unseen]).await.unwrap(); // Nobody looks any more.
}

/// Writers make and forget results of few contents while two collect as fast as they can.
pub(crate) async fn beside_running_work_nothing_is_lost(bench: Bench) {
    let done = Arc::new(AtomicBool::new(false));
    let removed = Arc::new(AtomicUsize::new(0));
    let collectors: Vec<_> = (0..2)
        .map(|_| {
            let (bench, done, removed) = (bench.clone(), done.clone(), removed.clone());
            tokio::spawn(async move {
                let store = bench.open().await;
                while !done.load(Ordering::Relaxed) {
                    let collected = store.collect(&ALL).await.unwrap();
                    removed.fetch_add(collected.blobs.len(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..4).map(|writer| tokio::spawn(write(bench.clone(), writer, removed.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for collector in collectors {
        collector.await.unwrap();
    }

    let store = bench.open().await;
    collect(&store, ALL).await;
    let keys: Vec<Digest> = (0..4).flat_map(|writer| (0..KEYS).map(move |key| key_of(writer, key))).collect();
    let entries = store.records().lookup(&keys).await.unwrap();
    let referred: BTreeSet<Digest> = entries.values().map(|entry| entry.digest).collect();
    assert_eq!(stored(&store).await, referred, "no orphan is left, nothing that is referred to is gone");
}

const KEYS: usize = 6;

fn key_of(writer: u64, key: usize) -> Digest {
    Digest::of(format!("{writer} {key}").as_bytes())
}

/// Makes and forgets until enough was collected meanwhile.
async fn write(bench: Bench, writer: u64, removed: Arc<AtomicUsize>) {
    let store = bench.open().await;
    let records = store.records();
    let live = records.begin(&new_run()).await.unwrap();
    bench.young(live.id()).await;
    let mut random = Random::new(writer, "collect", "");
    let mut step = 0;
    while removed.load(Ordering::Relaxed) < 15 {
        step += 1;
        assert!(step < 20_000, "nothing is collected");
        let key = key_of(writer, random.below(KEYS));
        let content = format!("content {}", random.below(5));
        let task = task(step, TaskStatus::Running);
        let answer = records.claim(live.id(), &[Claim { task, keys: vec![key] }]).await.unwrap();
        if let Claimed::Made(entries) = &answer[0] {
            store
                .artifacts()
                .get(&entries[0].digest)
                .await
                .unwrap_or_else(|error| panic!("writer {writer}, step {step}: {error}"));
            records.forget(&[key]).await.unwrap();
            continue;
        }
        loop {
            let digest = put(&store, &content).await;
            let entry = Entry { key, ..made("", digest, &[]) };
            match records.commit(live.id(), &[], &[entry]).await {
                Ok(()) => break,
                Err(StoreError::Vanished(_)) => {}
                Err(error) => panic!("writer {writer}, step {step}: {error}"),
            }
        }
    }
    records.finish(live, &Finish { status: RunStatus::Succeeded, ..succeeded() }).await.unwrap();
}

pub(crate) async fn artifacts_of_other_records_are_left_alone(bench: Bench) {
    let store = bench.open().await;
    let live = store.records().begin(&new_run()).await.unwrap();
    let digest = put(&store, "precious").await;
    store.records().commit(live.id(), &[], &[made("k", digest, &[])]).await.unwrap();
    store.records().finish(live, &succeeded()).await.unwrap();
    let other = bench.other_records();
    let other = other.open().await;
    for refused in [other.collect(&ALL).await.map(drop), other.records().begin(&new_run()).await.map(drop)] {
        assert!(matches!(refused, Err(StoreError::OtherRecords { .. })), "{refused:?}");
    }
    assert_eq!(stored(&store).await, BTreeSet::from([digest]));
}
