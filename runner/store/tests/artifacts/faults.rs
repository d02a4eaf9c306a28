//! An S3 server that fails in every way at every request: a call ends right or fails with a clear error, and to repeat it
//! repairs.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use runner_contract::Digest;
use runner_store::{Artifacts, StoreError};
use runner_testbed::{Direction, Fault, On, S3};

use crate::bench::{bucket_place, content, key};

/// Sent in one piece.
const SMALL: usize = 50_000;
/// Sent in two parts.
const LARGE: usize = (8 << 20) + 1;

/// Failures that pass, and that the server tells.
fn honest() -> [Fault; 9] {
    [
        Fault::SLOW_DOWN,
        Fault::INTERNAL,
        Fault::TOO_MANY,
        Fault::Delay(Duration::from_millis(100)),
        Fault::Close,
        Fault::LoseReply,
        Fault::Unsaid,
        Fault::HalfBody,
        Fault::Hang,
    ]
}

async fn open(s3: &S3) -> Artifacts {
    Artifacts::open(&bucket_place(s3, &[])).await.unwrap()
}

/// The artifact is there and whole, and nothing is left behind.
async fn is_stored(s3: &S3, artifacts: &Artifacts, content: &[u8], context: &str) {
    let digest = Digest::of(content);
    assert!(artifacts.get(&digest).await.unwrap() == content, "{context}");
    assert_eq!(s3.keys(), [key(&digest)], "{context}");
    assert_eq!(s3.uploads(), 0, "{context}");
}

#[tokio::test]
async fn storing_outlives_a_failure_that_passes() {
    let (small, large) = (content(SMALL, 0), content(LARGE, 0));
    let small_requests = [On::put()];
    let large_requests = [On::head(), On::begin(), On::part(), On::part().skip(1), On::complete()];
    let mut cases = Vec::new();
    for (content, requests) in [(&small, &small_requests[..]), (&large, &large_requests[..])] {
        for on in requests {
            cases.extend(honest().map(|fault| stored_in_spite_of(on.clone(), fault, content)));
        }
    }
    // Some beside each other, since much of it is waiting.
    stream::iter(cases).for_each_concurrent(4, |case| case).await;
}

async fn stored_in_spite_of(on: On, fault: Fault, content: &[u8]) {
    let (s3, context) = (S3::start(), format!("{on:?} {fault:?}"));
    let artifacts = open(&s3).await;
    // Where the answer to the beginning of an upload is lost, nobody knows what to end; that goes by its age.
    let lost = matches!(fault, Fault::LoseReply | Fault::Unsaid | Fault::HalfBody);
    let left = usize::from(lost && context.contains("Begin"));
    s3.faults().add(on, fault);
    artifacts.put(content.to_vec()).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(s3.faults().happened(), 1, "{context}");
    assert!(artifacts.get(&Digest::of(content)).await.unwrap() == content, "{context}");
    assert_eq!((s3.keys().len(), s3.uploads()), (1, left), "{context}");
}

#[tokio::test]
async fn reading_outlives_a_failure_that_passes() {
    let (s3, content) = (S3::start(), content(LARGE, 1));
    let artifacts = open(&s3).await;
    let digest = artifacts.put(content.clone()).await.unwrap();
    for fault in honest().into_iter().chain([Fault::WrongByte]) {
        let context = format!("{fault:?}");
        s3.faults().add(On::get(), fault.clone());
        assert!(artifacts.get(&digest).await.unwrap() == content, "{context}");
        // A copy of it is whole too.
        let another = open(&s3).await;
        s3.faults().add(On::get(), fault.clone());
        let copy = another.path(&digest).await.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(std::fs::read(copy).unwrap() == content, "{context}");
        s3.faults().add(On::head(), fault);
        assert_eq!(artifacts.size(&digest).await.unwrap(), Some(LARGE as u64), "{context}");
        s3.faults().clear();
    }
}

#[tokio::test]
async fn looking_and_removing_outlive_a_failure_that_passes() {
    for fault in honest() {
        let (s3, context) = (S3::start(), format!("{fault:?}"));
        let artifacts = open(&s3).await;
        let digests: Vec<_> = (0..100u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
        for digest in &digests {
            s3.set_object(&key(digest), digest.as_bytes().to_vec());
        }
        s3.faults().add(On::list(), fault.clone());
        assert_eq!(artifacts.list().await.unwrap().len(), digests.len(), "{context}");
        s3.faults().add(On::list(), fault.clone());
        assert_eq!(artifacts.exists_all(&digests).await.unwrap().len(), digests.len(), "{context}");
        s3.faults().add(On::delete(), fault);
        artifacts.delete(&digests[0]).await.unwrap();
        assert!(!artifacts.exists(&digests[0]).await.unwrap(), "{context}");
        assert_eq!(s3.faults().happened(), 3, "{context}");
    }
}

/// Nobody can know it at once; whoever reads does.
#[tokio::test]
async fn a_server_that_lies_is_found_out_and_storing_again_repairs() {
    for size in [SMALL, LARGE] {
        for fault in [Fault::Lie, Fault::Truncate] {
            let (s3, content) = (S3::start(), content(size, 2));
            let artifacts = open(&s3).await;
            let on = if size == SMALL { On::put() } else { On::complete() };
            s3.faults().add(on, fault);
            let digest = artifacts.put(content.clone()).await.unwrap();
            assert_eq!(s3.faults().happened(), 1);
            let read = artifacts.get(&digest).await;
            assert!(matches!(read, Err(StoreError::Missing(_) | StoreError::Corrupt { .. })));
            artifacts.put(content.clone()).await.unwrap();
            is_stored(&s3, &artifacts, &content, "again").await;
        }
    }
    // So does removing again.
    let s3 = S3::start();
    let artifacts = open(&s3).await;
    let digest = artifacts.put(&b"x"[..]).await.unwrap();
    s3.faults().add(On::delete(), Fault::Lie);
    for _ in 0..2 {
        artifacts.delete(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_failure_that_stays_is_told_and_leaves_nothing_half_done() {
    let places = [On::put(), On::begin(), On::part(), On::complete()];
    for on in places {
        for fault in [Fault::SLOW_DOWN, Fault::Close, Fault::Refuse(403, "AccessDenied")] {
            let (s3, context) = (S3::start(), format!("{on:?} {fault:?}"));
            let artifacts = Artifacts::open(&bucket_place(&s3, &[("patience", "200ms")])).await.unwrap();
            let small = context.contains("Put");
            let content = content(if small { SMALL } else { LARGE }, 3);
            s3.faults().add(on.clone().always(), fault);
            let error = artifacts.put(content.clone()).await.unwrap_err().to_string();
            assert!(error.contains(s3.bucket()) && error.contains(&s3.endpoint()), "{context}: {error}");
            assert!(s3.keys().is_empty() && s3.uploads() == 0, "{context}");
            s3.faults().clear();
            artifacts.put(content.clone()).await.unwrap();
            is_stored(&s3, &artifacts, &content, &context).await;
        }
    }
}

/// Between the client and the server, wherever the connection breaks.
#[tokio::test]
async fn a_cut_connection_is_made_again() {
    for (direction, bytes) in [
        (Direction::ToServer, 10),
        (Direction::ToServer, 30_000),
        (Direction::ToClient, 0),
        (Direction::ToClient, 20),
        (Direction::ToClient, 20_000),
    ] {
        let s3 = S3::start();
        let proxy = s3.proxy();
        let endpoint = format!("http://{}", proxy.address());
        let artifacts = Artifacts::open(&bucket_place(&s3, &[("endpoint", &endpoint)])).await.unwrap();
        let content = content(SMALL, 4);
        proxy.cut_after(direction, bytes);
        let digest = artifacts.put(content.clone()).await.unwrap();
        assert!(artifacts.get(&digest).await.unwrap() == content);
        assert_eq!(proxy.happened(), 1, "{direction:?} {bytes}");
        proxy.cut();
        assert!(artifacts.get(&digest).await.unwrap() == content);
    }
}

#[tokio::test]
async fn a_server_that_restarts_is_waited_for() {
    let s3 = S3::start();
    let proxy = s3.proxy();
    let endpoint = format!("http://{}", proxy.address());
    let artifacts = Artifacts::open(&bucket_place(&s3, &[("endpoint", &endpoint)])).await.unwrap();
    proxy.refuse();
    proxy.cut();
    let put = tokio::spawn(async move { artifacts.put(&b"late"[..]).await });
    while proxy.happened() < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.heal();
    assert_eq!(put.await.unwrap().unwrap(), Digest::of(b"late"));
}
