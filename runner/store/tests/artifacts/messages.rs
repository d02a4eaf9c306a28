//! What people read when a bucket cannot be used: which bucket, where, why, and what to do. Never a secret.

use runner_store::{Artifacts, ArtifactsPlace};
use runner_testbed::{Fault, On, S3};

use crate::bench::bucket_place;

/// The message of opening with these settings, with the server's address replaced.
async fn message(s3: &S3, url: Option<&str>, more: &[(&str, &str)]) -> String {
    let mut place = bucket_place(s3, &[&[("patience", "100ms")], more].concat());
    if let (ArtifactsPlace::S3 { url, .. }, Some(given)) = (&mut place, url) {
        *url = given.to_owned();
    }
    let message = Artifacts::open(&place).await.unwrap_err().to_string();
    assert!(!message.contains(s3.secret()) && !message.contains("wrong-secret"), "{message}");
    assert!(!message.contains("<Code>") && message.len() < 400, "{message}");
    message.replace(&s3.endpoint(), "SERVER")
}

#[tokio::test]
async fn a_wrong_setting_is_named() {
    let s3 = S3::start();
    assert_eq!(
        message(&s3, Some("s3://picture/team"), &[]).await,
        "cannot use s3://picture/team at SERVER: opening: there is no bucket `picture`; make it, or name another with --artifacts"
    );
    assert_eq!(
        message(&s3, None, &[("secret_access_key", "wrong-secret")]).await,
        "cannot use s3://pictures/team/runner at SERVER: opening: the secret of the access key `AKIATESTBED` is wrong \
         (AWS_SECRET_ACCESS_KEY)"
    );
    assert_eq!(
        message(&s3, None, &[("access_key_id", "AKIANOBODY")]).await,
        "cannot use s3://pictures/team/runner at SERVER: opening: the server does not know the access key `AKIANOBODY` \
         (AWS_ACCESS_KEY_ID)"
    );
    assert_eq!(
        message(&s3, None, &[("endpoint", "http://127.0.0.1:1")]).await,
        "artifacts: s3://pictures/team/runner at http://127.0.0.1:1: opening: nobody answers there (connection refused); is the \
         endpoint right, and does the server run?"
    );
    assert_eq!(
        message(&s3, None, &[("endpoint", "http://nowhere.invalid:1"), ("allow_http", "true")]).await,
        "artifacts: s3://pictures/team/runner at http://nowhere.invalid:1: opening: no such host; is the endpoint right, and is \
         there a network?"
    );
}

/// An endpoint with the wrong scheme: nothing is sent in the clear, and nobody waits for long.
#[tokio::test]
async fn a_server_without_tls_is_told() {
    let s3 = S3::start();
    let endpoint = s3.endpoint().replace("http:", "https:");
    let message = message(&s3, None, &[("endpoint", &endpoint)]).await;
    assert!(message.contains("opening: the server does not speak TLS; is the endpoint http://?"), "{message}");
    assert!(s3.faults().take_seen().is_empty());
}

#[tokio::test]
async fn what_the_server_refuses_is_explained() {
    for (fault, expected) in [
        (Fault::Refuse(403, "RequestTimeTooSkewed"), "this machine's clock is wrong; set it and try again"),
        (
            Fault::Refuse(400, "ExpiredToken"),
            "the session token is not valid any more; log in again (AWS_SESSION_TOKEN)",
        ),
        (
            Fault::Refuse(403, "AccessDenied"),
            "access denied to the key `AKIATESTBED`; it needs s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket and \
             s3:AbortMultipartUpload on `pictures`",
        ),
        (
            Fault::Redirect("us-west-2"),
            "the bucket is not in the region `eu-test-1`; set the right one with `region` in [s3] or AWS_REGION, and its endpoint \
             if one is set",
        ),
        (Fault::Refuse(400, "SomethingNew"), "the server refuses it (400 SomethingNew)"),
    ] {
        let s3 = S3::start();
        s3.faults().add(On::any().always(), fault);
        let expected = format!("cannot use s3://pictures/team/runner at SERVER: opening: {expected}");
        assert_eq!(message(&s3, None, &[]).await, expected);
    }
    for (fault, expected) in [
        (Fault::SLOW_DOWN, "the server asks for fewer requests (SlowDown)"),
        (Fault::INTERNAL, "the server failed (500 InternalError)"),
        (Fault::Hang, "no answer within 1s; on a slow line set a longer `timeout` in [s3]"),
    ] {
        let s3 = S3::start();
        s3.faults().add(On::any().always(), fault);
        let expected = format!("artifacts: s3://pictures/team/runner at SERVER: opening: {expected}");
        assert_eq!(message(&s3, None, &[]).await, expected);
    }
}

#[tokio::test]
async fn conditional_puts_are_asked_for() {
    let s3 = S3::start();
    let artifacts = Artifacts::open(&bucket_place(&s3, &[])).await.unwrap();
    s3.faults().add(On::put().always(), Fault::Refuse(501, "NotImplemented"));
    let error = artifacts.put(&b"x"[..]).await.unwrap_err().to_string();
    assert!(error.contains("has to support conditional puts"), "{error}");
}
