//! What only the store itself asks of artifacts, in a folder and in a bucket.

use std::{collections::BTreeMap, fs, time::Duration};

use chrono::Utc;
use runner_testbed::{Fault, On, S3};

use super::*;

fn bucket(s3: &S3) -> ArtifactsPlace {
    let options: [(&str, String); 5] = [
        ("endpoint", s3.endpoint()),
        ("region", s3.region().into()),
        ("access_key_id", s3.access_key().into()),
        ("secret_access_key", s3.secret().into()),
        ("patience", "200ms".into()),
    ];
    let options: BTreeMap<_, _> = options.map(|(name, value)| (name.to_owned(), value)).into();
    ArtifactsPlace::S3 { url: s3.url(), options }
}

#[tokio::test]
async fn artifacts_belong_to_the_records_that_marked_them_first() {
    let (folder, s3) = (tempfile::tempdir().unwrap(), S3::start());
    for place in [ArtifactsPlace::Folder(folder.path().into()), bucket(&s3)] {
        let artifacts = Artifacts::open(&place).await.unwrap();
        artifacts.mark("ours", false).await.unwrap();
        artifacts.mark("ours", false).await.unwrap();
        let refused = artifacts.mark("theirs", false).await;
        assert!(matches!(refused, Err(StoreError::OtherRecords { found, .. }) if found == "ours"));
        artifacts.mark("ours, cut short", false).await.unwrap();
        artifacts.mark("theirs", true).await.unwrap();
        artifacts.mark("theirs", false).await.unwrap();
        assert!(artifacts.mark("ours", false).await.is_err());
        assert!(artifacts.stored().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_is_stored_has_its_time() {
    let (folder, s3) = (tempfile::tempdir().unwrap(), S3::start());
    for place in [ArtifactsPlace::Folder(folder.path().into()), bucket(&s3)] {
        let artifacts = Artifacts::open(&place).await.unwrap();
        let before = Utc::now() - chrono::Duration::seconds(2);
        let digest = artifacts.put(&b"timed"[..]).await.unwrap();
        let stored = artifacts.stored().await.unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!((stored[0].digest, stored[0].bytes), (digest, 5));
        assert!(stored[0].modified >= before && stored[0].modified <= Utc::now() + chrono::Duration::seconds(2));
    }
}

#[tokio::test]
async fn half_written_files_go_by_their_age() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::local(folder.path()).unwrap();
    let digest = artifacts.put(&b"whole"[..]).await.unwrap();
    let path = artifacts.path(&digest).await.unwrap();
    let aside = path.with_file_name(format!("{}#1", path.file_name().unwrap().to_string_lossy()));
    fs::write(&aside, b"who").unwrap();
    let (past, future) = (Utc::now() - chrono::Duration::hours(1), Utc::now() + chrono::Duration::hours(1));
    assert_eq!(artifacts.leftovers(past, true).await.unwrap(), 0);
    assert_eq!(artifacts.leftovers(future, false).await.unwrap(), 1);
    assert_eq!(artifacts.list().await.unwrap(), [(digest, 5)]);
    assert_eq!(artifacts.leftovers(future, true).await.unwrap(), 1);
    assert_eq!(artifacts.leftovers(future, true).await.unwrap(), 0);
    assert_eq!(artifacts.get(&digest).await.unwrap(), &b"whole"[..]);
}

#[tokio::test]
async fn unfinished_uploads_go_by_their_age() {
    let s3 = S3::start();
    let artifacts = Artifacts::open(&bucket(&s3)).await.unwrap();
    // What a process leaves that is killed: it does not get to clean up.
    s3.faults().add(On::part().always(), Fault::Refuse(403, "AccessDenied"));
    s3.faults().add(On::abort().always(), Fault::Close);
    for n in 0..3 {
        artifacts.put(vec![n; 9 << 20]).await.unwrap_err();
    }
    s3.faults().clear();
    assert_eq!(s3.uploads(), 3);
    let hour_ago = Utc::now() - chrono::Duration::hours(1);
    assert_eq!(artifacts.leftovers(hour_ago, true).await.unwrap(), 0);
    s3.age_uploads(Duration::from_secs(2 * 60 * 60));
    assert_eq!(artifacts.leftovers(hour_ago, false).await.unwrap(), 3);
    assert_eq!(s3.uploads(), 3);
    s3.faults().add(On::uploads(), Fault::SLOW_DOWN);
    s3.faults().add(On::abort(), Fault::LoseReply);
    assert_eq!(artifacts.leftovers(hour_ago, true).await.unwrap(), 3);
    assert_eq!(s3.uploads(), 0);
    // A server that does not list them has none for us.
    s3.faults().add(On::uploads().always(), Fault::Refuse(501, "NotImplemented"));
    assert_eq!(artifacts.leftovers(hour_ago, true).await.unwrap(), 0);
}
