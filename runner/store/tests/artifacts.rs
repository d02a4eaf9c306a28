//! What is promised of blobs: by content, whole or not at all, told apart from damage.

use std::{fs, sync::Arc};

use object_store::memory::InMemory;
use runner_contract::Digest;
use runner_store::{Artifacts, Collect, Store, StoreError};

#[tokio::test]
async fn content_comes_back_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let local = Artifacts::local(folder.path()).unwrap();
    let remote = Artifacts::over(Arc::new(InMemory::new())).unwrap();
    for artifacts in [local, remote] {
        let digest = artifacts.put(b"content".to_vec()).await.unwrap();
        assert_eq!(digest, Digest::of(b"content"));
        assert_eq!(artifacts.get(&digest).await.unwrap(), &b"content"[..]);
        assert_eq!(fs::read(artifacts.path(&digest).await.unwrap()).unwrap(), b"content");
        assert_eq!(artifacts.list().await.unwrap(), [(digest, 7)]);
        assert_eq!(artifacts.put(b"content".to_vec()).await.unwrap(), digest);

        artifacts.delete(&digest).await.unwrap();
        artifacts.delete(&digest).await.unwrap();
        assert!(!artifacts.exists(&digest).await.unwrap());
        assert!(matches!(artifacts.get(&digest).await, Err(StoreError::Missing(_))));
    }
}

#[tokio::test]
async fn an_artifact_lies_where_the_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let digest = Artifacts::local(folder.path()).unwrap().put(&b"x"[..]).await.unwrap().to_string();
    assert_eq!(fs::read(folder.path().join(&digest[..2]).join(&digest[2..])).unwrap(), b"x");
}

#[tokio::test]
async fn a_stored_artifact_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::local(folder.path()).unwrap();
    let digest = artifacts.put(&b"once"[..]).await.unwrap();
    let written = || fs::metadata(folder.path().join(&digest.to_string()[..2])).unwrap().modified().unwrap();
    let before = written();
    artifacts.put(&b"once"[..]).await.unwrap();
    assert_eq!(written(), before);
}

/// As after a power failure: the name is there, the content is not.
#[tokio::test]
async fn damage_is_noticed_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::local(folder.path()).unwrap();
    let digest = artifacts.put(&b"whole"[..]).await.unwrap();
    fs::write(artifacts.path(&digest).await.unwrap(), b"").unwrap();
    assert!(matches!(artifacts.get(&digest).await, Err(StoreError::Corrupt { .. })));
    artifacts.put(&b"whole"[..]).await.unwrap();
    assert_eq!(artifacts.get(&digest).await.unwrap(), &b"whole"[..]);
}

#[tokio::test]
async fn half_written_files_are_nowhere_to_be_seen_and_go_with_their_run() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("state");
    let store = Store::open(&root).await.unwrap();
    let digest = store.artifacts().put(&b"whole"[..]).await.unwrap();
    let path = store.artifacts().path(&digest).await.unwrap();
    let aside = path.with_file_name(format!("{}#1", path.file_name().unwrap().to_string_lossy()));
    fs::write(&aside, b"who").unwrap();
    assert_eq!(store.artifacts().list().await.unwrap(), [(digest, 5)]);

    let live = store.records().begin(&runner_store::NewRun::default()).await.unwrap();
    assert_eq!(store.collect(&Collect::default()).await.unwrap().leftovers, 0, "a live run may be writing it");
    drop(live);
    let dry = Collect { dry_run: true, ..Collect::default() };
    assert_eq!(store.collect(&dry).await.unwrap().leftovers, 1);
    assert!(aside.exists());
    assert_eq!(store.collect(&Collect::default()).await.unwrap().leftovers, 1);
    assert!(!aside.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_of_one_content_agree() {
    let folder = tempfile::tempdir().unwrap();
    let writers: Vec<_> = (0..32)
        .map(|i| {
            // Every writer its own handle, as processes have.
            let artifacts = Artifacts::local(folder.path()).unwrap();
            tokio::spawn(async move { artifacts.put(vec![u8::try_from(i % 3).unwrap(); 100_000]).await.unwrap() })
        })
        .collect();
    for (i, writer) in writers.into_iter().enumerate() {
        assert_eq!(writer.await.unwrap(), Digest::of(&vec![u8::try_from(i % 3).unwrap(); 100_000]));
    }
    assert_eq!(Artifacts::local(folder.path()).unwrap().list().await.unwrap().len(), 3);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(8))]

    /// Whatever is put comes back, and nothing else is there.
    #[test]
    fn a_store_is_a_map_by_content(contents in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..4), 0..20)) {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::local(folder.path()).unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let mut expected = Vec::new();
            for content in &contents {
                let digest = artifacts.put(content.clone()).await.unwrap();
                assert_eq!(&artifacts.get(&digest).await.unwrap(), content);
                expected.push((digest, content.len() as u64));
            }
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(artifacts.list().await.unwrap(), expected);
        });
    }
}
