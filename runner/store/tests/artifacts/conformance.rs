//! The same for a folder and for a bucket.

use std::{fs, time::Instant};

use futures_util::future::join_all;
use runner_contract::Digest;
use runner_store::StoreError;

use crate::bench::{Bench, content, path};

/// Makes a test of each function, once for each kind of place.
macro_rules! both {
    ($($(#[$meta:meta])* $name:ident)*) => {
        mod folder { $($(#[$meta])* async fn $name() { super::$name(super::Bench::folder()).await })* }
        mod bucket { $($(#[$meta])* async fn $name() { super::$name(super::Bench::bucket()).await })* }
    };
}

both! {
    #[tokio::test] content_comes_back_by_its_digest
    #[tokio::test] every_size_comes_back
    #[tokio::test] an_artifact_lies_where_the_documentation_says
    #[tokio::test] what_is_missing_is_told
    #[tokio::test] damage_is_noticed_and_heals
    #[tokio::test] an_artifact_of_the_wrong_size_is_replaced
    #[tokio::test] others_objects_are_passed_over
    #[tokio::test] many_are_asked_for_at_once
    #[tokio::test] a_file_is_the_content
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)] many_writers_of_one_content_agree
}

async fn content_comes_back_by_its_digest(bench: Bench) {
    let artifacts = bench.open().await;
    for _ in 0..2 {
        let digest = artifacts.put(&b"content"[..]).await.unwrap();
        assert_eq!(digest, Digest::of(b"content"));
        assert_eq!(artifacts.get(&digest).await.unwrap(), &b"content"[..]);
        assert_eq!(artifacts.size(&digest).await.unwrap(), Some(7));
        assert_eq!(artifacts.list().await.unwrap(), [(digest, 7)]);
    }
    let again = bench.open().await;
    let digest = Digest::of(b"content");
    assert!(again.exists(&digest).await.unwrap());
    again.delete(&digest).await.unwrap();
    again.delete(&digest).await.unwrap();
    assert!(!artifacts.exists(&digest).await.unwrap());
    assert!(artifacts.list().await.unwrap().is_empty());
}

/// Round the borders of what is sent in one piece and in parts.
async fn every_size_comes_back(bench: Bench) {
    const PART: usize = 8 << 20;
    let artifacts = bench.open().await;
    let mut expected = Vec::new();
    for size in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 5] {
        let content = content(size, 1);
        let digest = artifacts.put(content.clone()).await.unwrap();
        assert!(artifacts.get(&digest).await.unwrap() == content, "{size}");
        assert_eq!(artifacts.put(content).await.unwrap(), digest);
        expected.push((digest, size as u64));
    }
    expected.sort_unstable();
    assert_eq!(artifacts.list().await.unwrap(), expected);
    if let Bench::Bucket(s3) = &bench {
        assert_eq!(s3.uploads(), 0);
    }
}

async fn an_artifact_lies_where_the_documentation_says(bench: Bench) {
    let digest = bench.open().await.put(&b"x"[..]).await.unwrap().to_string();
    assert_eq!(bench.names(), [format!("{}/{}", &digest[..2], &digest[2..])]);
}

async fn what_is_missing_is_told(bench: Bench) {
    let artifacts = bench.open().await;
    let digest = Digest::of(b"nowhere");
    assert_eq!(artifacts.size(&digest).await.unwrap(), None);
    assert!(matches!(artifacts.get(&digest).await, Err(StoreError::Missing(missing)) if missing == digest));
    assert!(matches!(artifacts.path(&digest).await, Err(StoreError::Missing(missing)) if missing == digest));
}

/// As after a power failure, or after somebody's hand slipped: the name is there, the content is not.
async fn damage_is_noticed_and_heals(bench: Bench) {
    let artifacts = bench.open().await;
    let digest = artifacts.put(&b"whole"[..]).await.unwrap();
    for damaged in [&b""[..], b"whol", b"w-ole", b"whole and more"] {
        bench.set(&digest, damaged);
        assert!(matches!(artifacts.get(&digest).await, Err(StoreError::Corrupt { .. })));
        assert!(!artifacts.exists(&digest).await.unwrap());
        artifacts.put(&b"whole"[..]).await.unwrap();
        assert_eq!(artifacts.get(&digest).await.unwrap(), &b"whole"[..]);
    }
}

async fn an_artifact_of_the_wrong_size_is_replaced(bench: Bench) {
    let artifacts = bench.open().await;
    for size in [100, 9 << 20] {
        let content = content(size, 2);
        let digest = artifacts.put(content.clone()).await.unwrap();
        bench.set(&digest, &content[..size / 2]);
        artifacts.put(content.clone()).await.unwrap();
        assert!(artifacts.get(&digest).await.unwrap() == content);
    }
}

async fn others_objects_are_passed_over(bench: Bench) {
    let artifacts = bench.open().await;
    let digest = artifacts.put(&b"ours"[..]).await.unwrap();
    let folder = &path(&digest)[..2];
    match &bench {
        Bench::Folder(root) => {
            let root = root.path().join("artifacts");
            for name in ["README", &format!("{folder}/notes.txt"), &format!("{folder}/{}", "z".repeat(62))] {
                fs::write(root.join(name), b"theirs").unwrap();
            }
            fs::create_dir_all(root.join("zz/deeper")).unwrap();
        }
        Bench::Bucket(s3) => {
            for name in ["README", "team/runner/README", "team/runner2/ab/cd", "team/runner/zz/deeper/x"] {
                s3.set_object(name, &b"theirs"[..]);
            }
            s3.set_object(&format!("team/runner/{folder}/notes.txt"), &b"theirs"[..]);
        }
    }
    assert_eq!(artifacts.list().await.unwrap(), [(digest, 4)]);
}

async fn many_are_asked_for_at_once(bench: Bench) {
    const ALL: u32 = 10_000;
    let artifacts = bench.open().await;
    let digests: Vec<_> = (0..ALL).map(|n| Digest::of(&n.to_le_bytes())).collect();
    match &bench {
        Bench::Bucket(_) => digests.iter().step_by(2).for_each(|digest| bench.set(digest, b"x")),
        // Folders first.
        Bench::Folder(_) => {
            join_all((0..ALL).step_by(2).map(|n| artifacts.put(n.to_le_bytes().to_vec()))).await;
        }
    }
    let began = Instant::now();
    let found = artifacts.exists_all(&digests).await.unwrap();
    let took = began.elapsed();
    assert_eq!(found, digests.iter().step_by(2).copied().collect());
    assert!(took.as_secs() < 5, "{took:?}");

    assert!(artifacts.exists_all(&[]).await.unwrap().is_empty());
    let few = [digests[1], digests[0], digests[1], digests[0]];
    assert_eq!(artifacts.exists_all(&few).await.unwrap(), [digests[0]].into());
}

async fn a_file_is_the_content(bench: Bench) {
    let cache = tempfile::tempdir().unwrap();
    let artifacts = bench.open().await.with_cache(&cache.path().join("cache")).unwrap();
    let content = content(3 << 20, 3);
    let digest = artifacts.put(content.clone()).await.unwrap();
    for _ in 0..2 {
        assert!(fs::read(artifacts.path(&digest).await.unwrap()).unwrap() == content);
    }
    if let Bench::Bucket(s3) = &bench {
        // It is there already, for another process as well.
        s3.faults().take_seen();
        let again = bench.open().await.with_cache(&cache.path().join("cache")).unwrap();
        assert!(fs::read(again.path(&digest).await.unwrap()).unwrap() == content);
        assert!(s3.faults().take_seen().iter().all(|request| request.key.is_empty()));

        bench.set(&digest, &content[1..]);
        let elsewhere = bench.open().await;
        assert!(matches!(elsewhere.path(&digest).await, Err(StoreError::Corrupt { .. })));
    }
}

async fn many_writers_of_one_content_agree(bench: Bench) {
    let mut writers = Vec::new();
    for seed in 0..32 {
        let artifacts = bench.open().await;
        writers.push(tokio::spawn(async move { artifacts.put(content(100_000, seed % 3)).await.unwrap() }));
    }
    for (seed, writer) in (0..).zip(writers) {
        assert_eq!(writer.await.unwrap(), Digest::of(&content(100_000, seed % 3)));
    }
    assert_eq!(bench.names().len(), 3);
    assert_eq!(bench.open().await.list().await.unwrap().len(), 3);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(8))]

    /// Whatever is put comes back, and nothing else is there.
    #[test]
    fn a_store_is_a_map_by_content(contents in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..4), 0..20)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            for bench in [Bench::folder(), Bench::bucket()] {
                let artifacts = bench.open().await;
                let mut expected = Vec::new();
                for content in &contents {
                    let digest = artifacts.put(content.clone()).await.unwrap();
                    assert_eq!(&artifacts.get(&digest).await.unwrap(), content);
                    expected.push((digest, content.len() as u64));
                }
                expected.sort_unstable();
                expected.dedup();
                assert_eq!(artifacts.list().await.unwrap(), expected);
            }
        });
    }
}
