//! From a URL, settings and the environment to a bucket.

use std::{collections::BTreeMap, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    path::Path as Location,
};

use super::explain::Named;
use crate::{StoreError, redacted};

/// How long the server may be silent. A part of an upload has to arrive within it.
const SILENCE: Duration = Duration::from_secs(20);
/// For how long a server that is out of reach is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Settings that people need, for messages.
const KNOWN: &str =
    "endpoint, region, path_style, allow_http, timeout, patience, access_key_id, secret_access_key, session_token";
/// Names of the server's URL; the first that is set counts.
const ENDPOINTS: [&str; 3] = ["endpoint_url_s3", "endpoint_url", "endpoint"];
/// Who asks. They come from one source together.
const CREDENTIALS: [&str; 4] = ["access_key_id", "secret_access_key", "session_token", "token"];

/// A bucket to talk to, and where in it.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) s3: AmazonS3,
    /// Everything is below it; empty for the whole bucket.
    pub(super) prefix: Location,
    pub(super) named: Named,
    /// For requests that `s3` cannot make.
    pub(super) http: reqwest::Client,
    /// For how long a call is tried again.
    pub(super) patience: Duration,
}

/// Sets up, without talking to anybody. Settings come before `AWS_…` variables.
pub(super) fn connect(
    url: &str,
    settings: &BTreeMap<String, String>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Connected, StoreError> {
    let refuse = |reason: String| StoreError::Place { given: redacted(url), what: "artifacts", reason };
    let (bucket, prefix) = split(url).map_err(refuse)?;
    // Where several TLS implementations could be compiled in, one has to be chosen. It is no mistake if somebody has.
    drop(rustls::crypto::ring::default_provider().install_default());

    let variables = environment.filter_map(|(name, value)| {
        let name = name.strip_prefix("AWS_")?.to_ascii_lowercase();
        // The environment is full of others' settings.
        let known = is_own(&name) || key(&name).is_some();
        (known && !value.is_empty()).then_some((name, value))
    });
    let mut all: BTreeMap<String, String> = variables.collect();
    for name in settings.keys() {
        if !is_own(name) && key(name).is_none() {
            return Err(refuse(format!("[s3] has no key `{name}`; it knows {KNOWN}")));
        }
    }
    if ENDPOINTS.iter().any(|name| settings.contains_key(*name)) {
        all.retain(|name, _| !ENDPOINTS.contains(&name.as_str()));
    }
    if settings.contains_key("access_key_id") {
        all.retain(|name, _| !CREDENTIALS.contains(&name.as_str()));
    }
    all.extend(settings.clone());

    let endpoints = ENDPOINTS.map(|name| all.remove(name));
    let endpoint = endpoints.into_iter().flatten().next();
    let path_style = flag(&mut all, "path_style").map_err(refuse)?.unwrap_or(true);
    let allow_http = flag(&mut all, "allow_http").map_err(refuse)?;
    if let Some(endpoint) = endpoint.as_deref().filter(|endpoint| endpoint.starts_with("http://"))
        && !allow_http.unwrap_or_else(|| is_this_machine(endpoint))
    {
        return Err(refuse(format!(
            "the endpoint {} is not encrypted; name an https:// endpoint, or set allow_http = true in [s3] (AWS_ALLOW_HTTP=true)",
            redacted(endpoint)
        )));
    }
    let silence = time(&mut all, "timeout").map_err(refuse)?.unwrap_or(SILENCE);
    let patience = time(&mut all, "patience").map_err(refuse)?.unwrap_or(PATIENCE);

    let client = ClientOptions::new()
        .with_allow_http(true)
        .with_connect_timeout(Duration::from_secs(5).min(silence))
        .with_read_timeout(silence)
        // It would cut what is large, not what is stuck.
        .with_timeout_disabled();
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(1), base: 2. };
    // The few tries that take no thought; whoever calls has the patience. They also go on with half-read bodies.
    let retry = RetryConfig { backoff, max_retries: 2, retry_timeout: Duration::from_secs(10).min(patience) };
    let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
    for (name, value) in &all {
        if let Some(key) = key(name) {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(&bucket).with_virtual_hosted_style_request(!path_style);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(if path_style { endpoint.clone() } else { hosted(endpoint, &bucket) });
    }
    let named = Named {
        url: format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned(),
        bucket,
        endpoint: redacted(&endpoint.unwrap_or_else(|| "Amazon S3".into())),
        region: builder.get_config_value(&AmazonS3ConfigKey::Region),
        access_key: builder.get_config_value(&AmazonS3ConfigKey::AccessKeyId),
        silence,
    };
    let s3 = builder.build().map_err(|error| named.explain("setting up", error))?;
    let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).read_timeout(silence).build();
    let http = http.map_err(|error| refuse(error.to_string()))?;
    Ok(Connected { s3, prefix, named, http, patience })
}

/// Bucket and prefix of `s3://bucket/prefix`.
fn split(url: &str) -> Result<(String, Location), String> {
    let rest = url.strip_prefix("s3://").ok_or("write s3://BUCKET or s3://BUCKET/PREFIX")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(fits) {
        // What it says is not repeated: it may hold a password.
        return Err("that is no name of a bucket; write s3://BUCKET or s3://BUCKET/PREFIX".into());
    }
    let prefix = Location::parse(prefix.trim_end_matches('/')).map_err(|error| error.to_string())?;
    if prefix.as_ref().contains(['?', '#']) {
        return Err("settings go to [s3] in runner.toml or to AWS_… variables, not into the URL".into());
    }
    Ok((bucket.to_owned(), prefix))
}

/// A key of `object_store`. The bucket is in the URL.
fn key(name: &str) -> Option<AmazonS3ConfigKey> {
    format!("aws_{name}").parse().ok().filter(|key| !matches!(key, AmazonS3ConfigKey::Bucket))
}

/// Settings with a meaning of ours.
fn is_own(name: &str) -> bool {
    matches!(name, "path_style" | "allow_http" | "timeout" | "patience")
}

fn flag(all: &mut BTreeMap<String, String>, name: &str) -> Result<Option<bool>, String> {
    let Some(value) = all.remove(name) else { return Ok(None) };
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(Some(true)),
        "false" | "0" | "no" => Ok(Some(false)),
        _ => Err(format!("{name} = `{value}` in [s3] is neither true nor false")),
    }
}

fn time(all: &mut BTreeMap<String, String>, name: &str) -> Result<Option<Duration>, String> {
    let Some(value) = all.remove(name) else { return Ok(None) };
    let parsed = humantime::parse_duration(&value);
    parsed.map(Some).map_err(|error| format!("{name} = `{value}` in [s3] is no time such as 30s or 2m: {error}"))
}

/// Nobody listens between this machine and itself.
fn is_this_machine(endpoint: &str) -> bool {
    let host = endpoint.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// The endpoint with the bucket in its host name.
fn hosted(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) if !host.starts_with(&format!("{bucket}.")) => format!("{scheme}://{bucket}.{host}"),
        _ => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn named(url: &str, given: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<(String, String), String> {
        let connected = connect(url, &settings(given), settings(environment).into_iter());
        connected.map(|c| (c.named.url, c.named.endpoint)).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_come_before_the_environment() {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_ENDPOINT_URL", "https://env")];
        let found = |given: &[(&str, &str)]| named("s3://bucket/a/b/", given, &keys).unwrap();
        assert_eq!(found(&[]), ("s3://bucket/a/b".into(), "https://env".into()));
        assert_eq!(found(&[("endpoint", "https://set")]).1, "https://set");
        assert_eq!(named("s3://bucket", &[], &[]).unwrap(), ("s3://bucket".into(), "Amazon S3".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for (url, given, part) in [
            ("s4://bucket", &[][..], "write s3://BUCKET"),
            ("s3://", &[], "no name of a bucket"),
            ("s3://user:pw@bucket/x", &[], "no name of a bucket"),
            ("s3://bucket/a//b", &[], "a//b"),
            ("s3://bucket/a?region=x", &[], "not into the URL"),
            ("s3://bucket", &[("regoin", "x")], "[s3] has no key `regoin`"),
            ("s3://bucket", &[("timeout", "soon")], "timeout = `soon`"),
            ("s3://bucket", &[("path_style", "maybe")], "neither true nor false"),
            ("s3://bucket", &[("endpoint", "http://nas:9000")], "not encrypted"),
            ("s3://bucket", &[("access_key_id", "x")], "secret"),
        ] {
            let message = named(url, given, &[]).unwrap_err();
            assert!(message.to_lowercase().contains(&part.to_lowercase()), "{message}");
            assert!(!message.contains("pw"), "{message}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_unless_allowed() {
        let endpoint = |endpoint, more: &[(&str, &str)]| {
            let mut given = vec![("endpoint", endpoint)];
            given.extend(more);
            named("s3://bucket", &given, &[]).is_ok()
        };
        assert!(endpoint("http://127.0.0.1:9000", &[]));
        assert!(endpoint("http://localhost:9000", &[]));
        assert!(!endpoint("http://localhost.evil.org", &[]));
        assert!(endpoint("http://nas:9000", &[("allow_http", "true")]));
        assert!(!endpoint("http://localhost:9000", &[("allow_http", "false")]));
    }

    #[test]
    fn a_bucket_may_stand_in_the_host_name() {
        assert_eq!(hosted("https://s3.example.org", "b"), "https://b.s3.example.org");
        assert_eq!(hosted("https://b.s3.example.org", "b"), "https://b.s3.example.org");
    }
}
