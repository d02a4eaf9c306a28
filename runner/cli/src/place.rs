//! Where records and artifacts are, from what flags, environment and files say.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use runner_store::{ArtifactsPlace, Buckets, Place};

use crate::{
    args::Global,
    config::{Config, Said},
    failure::Failure,
    redact::redact,
};

/// The word for the default of `records` and `artifacts`, where a file says otherwise.
const LOCAL: &str = "local";
const RECORDS_HINT: &str = "expected postgres://USER@HOST:PORT/DATABASE, or `local` for SQLite in the store's folder";
const ARTIFACTS_HINT: &str = "expected s3://BUCKET/PREFIX, a folder, or `local` for the store's folder";

/// Where this call's store is. `folder` is where the user stands.
pub(crate) fn place(global: &Global, config: &Config, folder: &Path) -> Result<Place, Failure> {
    let beside = || config.project.as_deref().unwrap_or(folder).join(".runner");
    let named = global.store.clone().filter(|store| !store.as_os_str().is_empty());
    // Whoever names a folder on the command line means a store there, not the one that a file names.
    let from_files = named.is_none();
    let store = named.or_else(|| config.store.clone()).unwrap_or_else(beside);
    let given = |flag: &Option<String>, name: &str, variable: &str| {
        let text = flag.clone().filter(|text| !text.is_empty())?;
        let from = if env::var(variable).as_ref() == Ok(&text) { variable } else { name };
        Some(Said { text, from: from.to_owned(), folder: folder.to_owned() })
    };
    let records =
        given(&global.records, "--records", "RUNNER_RECORDS").or_else(|| config.records.clone().filter(|_| from_files));
    let artifacts = given(&global.artifacts, "--artifacts", "RUNNER_ARTIFACTS")
        .or_else(|| config.artifacts.clone().filter(|_| from_files));
    Ok(Place {
        folder: folder.join(store),
        records: records.map(|said| records_url(&said)).transpose()?.flatten(),
        artifacts: artifacts.map(|said| artifacts_place(&said, config)).transpose()?.flatten(),
    })
}

/// A PostgreSQL URL that holds together; `None` for the store's folder.
fn records_url(said: &Said) -> Result<Option<String>, Failure> {
    let url = expand(said)?;
    if url == LOCAL {
        return Ok(None);
    }
    let wrong = |what: &str| Err(Failure::usage(format!("{}: `{}` {what}", said.from, redact(&url)), RECORDS_HINT));
    let Some((scheme, rest)) = url.split_once("://") else { return wrong("is no URL") };
    if !["postgres", "postgresql"].contains(&scheme) {
        return wrong("is of no database that holds records");
    }
    let front = rest.split(['?', '#']).next().unwrap_or_default();
    // What stands behind the last `@` is the host; a `/` before it belongs into the password only as %2F.
    let host = front.rsplit_once('@').map_or(front, |(_, host)| host);
    let user = front.strip_suffix(host).unwrap_or_default();
    if user.trim_end_matches('@').contains(['/', '@']) {
        return Err(Failure::usage(
            format!("{}: user or password in `{}` has characters that end them", said.from, redact(&url)),
            "write @ as %40, / as %2F, : as %3A; or let ${VARIABLE} stand for the password",
        ));
    }
    let Some((host, database)) = host.split_once('/') else { return wrong("names no database") };
    if database.is_empty() {
        return wrong("names no database");
    }
    let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return wrong("has a port that is no number");
    }
    // The host may stand in the query: `?host=/var/run/postgresql`.
    if host.is_empty() && !url.contains("host=") {
        return wrong("names no host");
    }
    Ok(Some(url))
}

/// A bucket or a folder; `None` for the store's folder.
fn artifacts_place(said: &Said, config: &Config) -> Result<Option<ArtifactsPlace>, Failure> {
    let text = expand(said)?;
    if text == LOCAL {
        return Ok(None);
    }
    let wrong = |what: &str| Err(Failure::usage(format!("{}: `{}` {what}", said.from, redact(&text)), ARTIFACTS_HINT));
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(Some(ArtifactsPlace::Folder(said.folder.join(text))));
    };
    if scheme == "file" {
        return Ok(Some(ArtifactsPlace::Folder(PathBuf::from(rest))));
    }
    if scheme != "s3" {
        return wrong("is of no store that holds artifacts");
    }
    let bucket = rest.split('/').next().unwrap_or_default();
    if rest.contains('@') {
        return Err(Failure::usage(
            format!("{}: `{}` has a user in it", said.from, redact(&text)),
            "keys are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; write s3://BUCKET/PREFIX",
        ));
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if bucket.is_empty() || !bucket.chars().all(fine) || rest.contains(['?', '#']) {
        return wrong("names no bucket");
    }
    Ok(Some(ArtifactsPlace::S3 { url: text, options: options(config)? }))
}

/// Buckets that datasets may be in, reached as those of artifacts are.
pub(crate) fn buckets(config: &Config) -> Result<Buckets, Failure> {
    Ok(Buckets::new(options(config)?))
}

/// The table `[s3]`. What its keys mean, the store knows.
fn options(config: &Config) -> Result<BTreeMap<String, String>, Failure> {
    config.s3.iter().map(|(name, said)| Ok((name.clone(), expand(said)?))).collect()
}

/// The text with the environment's values for `${NAME}`. In front of a URL's host, where a password stands, what would
/// end it is escaped.
fn expand(said: &Said) -> Result<String, Failure> {
    expand_with(said, |name| env::var(name).ok().filter(|value| !value.is_empty()))
}

fn expand_with(said: &Said, value: impl Fn(&str) -> Option<String>) -> Result<String, Failure> {
    let text = said.text.as_str();
    let start = text.find("://").map_or(0, |at| at + 3);
    let host = text.rfind('@').filter(|&at| at >= start);
    let mut out = String::new();
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find("${")) {
        let opens = at + found;
        out.push_str(&text[at..opens]);
        let Some(length) = text[opens..].find('}') else {
            return Err(Failure::usage(format!("{}: `${{` without a `}}`", said.from), "write ${NAME}"));
        };
        let name = &text[opens + 2..opens + length];
        let Some(value) = value(name) else {
            return Err(Failure::usage(
                format!("{}: the environment has no {name}", said.from),
                format!("export {name}=…"),
            ));
        };
        let secret = start > 0 && opens >= start && host.is_some_and(|host| opens < host);
        out.push_str(&if secret { escaped(&value) } else { value });
        at = opens + length + 1;
    }
    out.push_str(&text[at..]);
    Ok(out)
}

/// Percent-encoded, but for what never has to be.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Said {
        Said { text: text.to_owned(), from: "here".to_owned(), folder: PathBuf::from("/project") }
    }

    fn refused(result: Result<impl std::fmt::Debug, Failure>) -> String {
        match result {
            Err(Failure::Usage { message, hint }) => format!("{message} | {}", hint.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn urls_of_records_say_what_is_missing() {
        for fine in ["postgres://me:pw@db:5432/runs", "postgresql:///runs?host=/run/pg", "postgres://[::1]/runs"] {
            assert_eq!(records_url(&said(fine)).unwrap().as_deref(), Some(fine));
        }
        assert_eq!(records_url(&said("local")).unwrap(), None);
        for (wrong, why) in [
            ("db.example.org", "is no URL"),
            ("mysql://me:secretpw@db/runs", "no database that holds records"),
            ("postgres://me:secretpw@db", "names no database"),
            ("postgres://me:secretpw@db:54x/runs", "a port that is no number"),
            ("postgres:///runs", "names no host"),
            ("postgres://me:secretpw/@db/runs", "write @ as %40"),
        ] {
            let text = refused(records_url(&said(wrong)));
            assert!(text.contains(why) && !text.contains("secretpw"), "{text}");
        }
    }

    #[test]
    fn places_of_artifacts_are_buckets_or_folders() {
        let config = Config::default();
        let place = |text: &str| artifacts_place(&said(text), &config);
        assert!(
            matches!(place("blobs").unwrap(), Some(ArtifactsPlace::Folder(path)) if path == Path::new("/project/blobs"))
        );
        assert!(
            matches!(place("s3://bucket/pre/fix").unwrap(), Some(ArtifactsPlace::S3 { url, .. }) if url == "s3://bucket/pre/fix")
        );
        assert!(place("local").unwrap().is_none());
        assert!(refused(place("s3://")).contains("names no bucket"));
        assert!(refused(place("gs://bucket")).contains("expected s3://BUCKET/PREFIX"));
        let text = refused(place("s3://AK:secretpw@bucket"));
        assert!(text.contains("AWS_SECRET_ACCESS_KEY") && !text.contains("secretpw"), "{text}");
    }

    #[test]
    fn the_environment_fills_in_passwords_that_may_hold_anything() {
        let value = |name: &str| match name {
            "PW" => Some("p@s/s:%".to_owned()),
            "HOST" => Some("db:5432".to_owned()),
            "ALL" => Some("postgres://x:y@z/r".to_owned()),
            _ => None,
        };
        let expanded = |text: &str| expand_with(&said(text), value).unwrap();
        assert_eq!(expanded("postgres://me:${PW}@${HOST}/runs"), "postgres://me:p%40s%2Fs%3A%25@db:5432/runs");
        assert_eq!(expanded("${ALL}"), "postgres://x:y@z/r");
        assert!(refused(expand_with(&said("${NONE}"), value)).contains("has no NONE"));
        assert!(refused(expand_with(&said("a${PW"), value)).contains("without a `}`"));
    }
}
