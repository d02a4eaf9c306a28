//! What an S3 server says, in words for people: what was refused, where, and what to do. Never a secret.

use std::{error::Error, time::Duration};

use crate::StoreError;

/// What messages call a bucket.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// `s3://bucket/prefix`.
    pub(super) url: String,
    pub(super) bucket: String,
    /// The server's URL, or `Amazon S3`.
    pub(super) endpoint: String,
    /// As configured.
    pub(super) region: Option<String>,
    /// The id of the key, which is no secret.
    pub(super) access_key: Option<String>,
    /// How long the server may be silent.
    pub(super) silence: Duration,
}

impl Named {
    /// An error of a request that was `doing` something.
    pub(super) fn explain(&self, doing: &str, error: object_store::Error) -> StoreError {
        self.judge(doing, &chain(&error))
    }

    /// The same, from what the server or the client said.
    pub(super) fn judge(&self, doing: &str, said: &str) -> StoreError {
        let code = between(said, "<Code>", "</Code>");
        let status = between(said, "status code: ", " ").and_then(|status| status.parse().ok());
        match self.refused(code, status, said) {
            Some(reason) => StoreError::Connect { place: self.place(), reason: format!("{doing}: {reason}") },
            None => StoreError::Unavailable {
                store: "artifacts",
                reason: format!("{}: {doing}: {}", self.place(), self.failed(code, status, said)),
            },
        }
    }

    /// The answer cannot be, or not for long.
    pub(super) fn odd(&self, doing: &str, what: &str) -> StoreError {
        StoreError::Unavailable { store: "artifacts", reason: format!("{}: {doing}: {what}", self.place()) }
    }

    pub(super) fn place(&self) -> String {
        format!("{} at {}", self.url, self.endpoint)
    }

    /// Why it is no use to try again.
    fn refused(&self, code: Option<&str>, status: Option<u16>, said: &str) -> Option<String> {
        let Self { bucket, endpoint, .. } = self;
        let key = self.access_key.as_deref().unwrap_or_default();
        let region = self.region.as_deref().unwrap_or("us-east-1");
        let reason = match (code, status) {
            (Some("NoSuchBucket"), _) => {
                format!("there is no bucket `{bucket}`; make it, or name another with --artifacts")
            }
            (Some("SignatureDoesNotMatch"), _) => {
                format!("the secret of the access key `{key}` is wrong (AWS_SECRET_ACCESS_KEY)")
            }
            (Some("InvalidAccessKeyId" | "NotSignedUp"), _) => {
                format!("the server does not know the access key `{key}` (AWS_ACCESS_KEY_ID)")
            }
            (Some("RequestTimeTooSkewed"), _) => "this machine's clock is wrong; set it and try again".into(),
            (Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired"), _) => {
                "the session token is not valid any more; log in again (AWS_SESSION_TOKEN)".into()
            }
            (Some("AllAccessDisabled" | "AccountProblem"), _) => "the account is closed".into(),
            (Some("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"), _)
            | (_, Some(301 | 307 | 308)) => self.elsewhere(region),
            (Some("AccessDenied"), _) | (None, Some(401 | 403)) => format!(
                "access denied to the key `{key}`; it needs s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket and \
                 s3:AbortMultipartUpload on `{bucket}`"
            ),
            (Some("NotImplemented"), _) | (None, Some(501)) => {
                format!("{endpoint} does not know this request; it has to support conditional puts (If-None-Match)")
            }
            _ if said.contains("redirect without LOCATION") => self.elsewhere(region),
            _ if said.contains("/latest/api/token") || said.contains("/latest/meta-data") => {
                "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into()
            }
            _ if said.contains("Missing AccessKeyId") => "a secret without an access key; set AWS_ACCESS_KEY_ID".into(),
            _ if said.contains("Missing SecretAccessKey") => {
                "an access key without its secret; set AWS_SECRET_ACCESS_KEY".into()
            }
            _ if said.contains("corrupt message") => "the server does not speak TLS; is the endpoint http://?".into(),
            _ if said.contains("certificate") || said.contains("invalid peer") => {
                format!("the server's certificate is not accepted: {}", last_line(said))
            }
            (Some(code), Some(status @ (400 | 402 | 404..=407 | 410..=428 | 430..=499))) if !is_passing(code) => {
                format!("the server refuses it ({status} {code})")
            }
            (None, Some(status @ (400 | 402 | 405..=407 | 410..=428 | 430..=499))) => {
                format!("the server refuses it (status {status}); is {endpoint} an S3 server?")
            }
            _ => return None,
        };
        Some(reason)
    }

    fn elsewhere(&self, region: &str) -> String {
        format!(
            "the bucket is not in the region `{region}`; set the right one with `region` in [s3] or AWS_REGION, and its endpoint \
             if one is set"
        )
    }

    /// What may be better in a moment.
    fn failed(&self, code: Option<&str>, status: Option<u16>, said: &str) -> String {
        match (code, status) {
            (Some("SlowDown" | "TooManyRequests"), _) | (_, Some(429)) => {
                "the server asks for fewer requests (SlowDown)".into()
            }
            (Some(code), Some(status)) => format!("the server failed ({status} {code})"),
            (None, Some(status)) => format!("the server failed (status {status})"),
            _ if said.contains("operation timed out") || said.contains("deadline") => {
                format!("no answer within {:?}; on a slow line set a longer `timeout` in [s3]", self.silence)
            }
            _ if said.contains("onnection refused") => {
                "nobody answers there (connection refused); is the endpoint right, and does the server run?".into()
            }
            _ if said.contains("dns") || said.contains("lookup address") => {
                "no such host; is the endpoint right, and is there a network?".into()
            }
            _ => format!("the connection broke ({})", last_line(said)),
        }
    }
}

/// Codes with a 4xx status that are no refusal.
fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "RequestTimeout"
            | "OperationAborted"
            | "ConditionalRequestConflict"
            | "BadDigest"
            | "IncompleteBody"
            | "NoSuchUpload"
            | "InvalidPart"
    )
}

/// An error and everything below it, without addresses that requests were sent to.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let more = error.to_string();
        if !said.contains(&more) {
            said.push_str(": ");
            said.push_str(&more);
        }
        below = error.source();
    }
    said
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// The innermost reason of a chain.
fn last_line(said: &str) -> &str {
    said.rsplit(": ").next().unwrap_or(said).trim()
}
