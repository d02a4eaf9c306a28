//! The hub's protocol: what a repository has, and its files with their commit, digest and size in the answer's head.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body,
    config::RedirectAuthHeaders,
    http::{Response, StatusCode, header},
};

use crate::{ModelError, hugging_face::HuggingFace};

/// Times that a file is tried; each goes on where the last one broke off.
const TRIES: usize = 4;
/// Bytes of the list of a repository's files.
const MAX_LIST: u64 = 16 << 20;
/// Redirects within the hub.
const MAX_MOVES: usize = 5;

/// A request that failed: what the hub said, or what happened here.
pub(super) enum Failed {
    Said(String),
    Local(ModelError),
}

pub(super) struct Client<'a> {
    hub: &'a HuggingFace,
    agent: Agent,
}

/// What the hub says of a file before it gives it.
struct Head {
    /// The name of its content: a SHA-256 for large files, a git object for small ones.
    etag: String,
    size: Option<u64>,
}

fn said<T>(problem: impl Into<String>) -> Result<T, Failed> {
    Err(Failed::Said(problem.into()))
}

impl<'a> Client<'a> {
    pub(super) fn new(hub: &'a HuggingFace) -> Self {
        let agent = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("runner/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { hub, agent: agent.into() }
    }

    /// The commit that a revision names, and the repository's files.
    pub(super) fn files(&self, repository: &str, revision: &str) -> Result<(String, Vec<String>), Failed> {
        let url = format!("{}/api/models/{repository}/revision/{}", self.hub.endpoint, revision.replace('/', "%2F"));
        let mut response = self.get(&url, None)?;
        self.check(&response, &url)?;
        let text = response.body_mut().with_config().limit(MAX_LIST).read_to_string();
        let text = text.map_err(|error| Failed::Said(format!("{url}: {error}")))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| Failed::Said(format!("{url}: {error}")))?;
        let commit = value.get("sha").and_then(Value::as_str);
        let files = value.get("siblings").and_then(Value::as_array);
        let (Some(commit), Some(files)) = (commit, files) else {
            return said(format!("{url}: expected `sha` and `siblings`"));
        };
        let names = files.iter().filter_map(|file| file.get("rfilename")?.as_str().map(str::to_owned));
        Ok((commit.to_owned(), names.collect()))
    }

    /// Brings a file into the cache, unless it is there: its content under `blobs`, its name under `snapshots`.
    pub(super) fn fetch(&self, repository: &str, commit: &str, file: &str, folder: &Path) -> Result<(), Failed> {
        let name = folder.join("snapshots").join(commit).join(file);
        if name.is_file() {
            return Ok(());
        }
        let url = format!("{}/{repository}/resolve/{commit}/{file}", self.hub.endpoint);
        let head = self.head(&url, commit)?;
        let blob = folder.join("blobs").join(&head.etag);
        if !blob.is_file() {
            fs::create_dir_all(folder.join("blobs")).map_err(local(folder))?;
            if let Some(notes) = &self.hub.notes {
                let size = head.size.map(|size| format!(" ({:.1} MB)", size as f64 / 1e6)).unwrap_or_default();
                notes(&format!("fetching {repository}: {file}{size}"));
            }
            self.download(&url, &head, &blob)?;
        }
        let parent = name.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(local(parent))?;
        match link(&Path::new("../../blobs").join(&head.etag), &blob, &name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(local(&name)(error)),
            _ => Ok(()),
        }
    }

    fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, Failed> {
        let mut request = self.agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.hub.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call().map_err(|error| Failed::Said(format!("{url}: {error}")))
    }

    /// Asks for a file's head at the hub itself, which sends to another host for large ones and is alone to know the commit.
    fn head(&self, url: &str, commit: &str) -> Result<Head, Failed> {
        let mut place = url.to_owned();
        for _ in 0..MAX_MOVES {
            let request = self.agent.head(&place).header(header::ACCEPT_ENCODING, "identity");
            let request = match &self.hub.token {
                Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
                None => request,
            };
            let request = request.config().max_redirects(0).max_redirects_will_error(false).build();
            let response = request.call().map_err(|error| Failed::Said(format!("{url}: {error}")))?;
            let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            if response.status().is_redirection() {
                // A renamed repository: the same host, another path.
                if let Some(path) = text("location").filter(|path| path.starts_with('/') && !path.starts_with("//")) {
                    place = format!("{}{path}", self.hub.endpoint);
                    continue;
                }
            } else {
                self.check(&response, url)?;
            }
            if text("x-repo-commit").is_some_and(|found| found != commit) {
                return said(format!("{url}: the hub answers with another commit"));
            }
            let etag = text("x-linked-etag").or_else(|| text("etag")).unwrap_or_default();
            let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
            if !(1..=128).contains(&etag.len()) || !etag.chars().all(|c| c.is_ascii_alphanumeric()) {
                return said(format!("{url}: the hub does not say which content it is (ETag)"));
            }
            let size =
                text("x-linked-size").or_else(|| text("content-length").filter(|_| response.status().is_success()));
            return Ok(Head { etag, size: size.and_then(|size| size.parse().ok()) });
        }
        said(format!("{url}: the hub sends from one place to the next without end"))
    }

    /// An answer that is none, in words.
    fn check(&self, response: &Response<Body>, url: &str) -> Result<(), Failed> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let code = response.headers().get("x-error-code").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let known = match (status, code) {
            (_, "RevisionNotFound") => "the repository has no such revision",
            (_, "GatedRepo") => "its owner lets in only who agreed to the terms: do so on its page, and set HF_TOKEN",
            (_, "EntryNotFound") => "the repository has no such file",
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if self.hub.token.is_none() => {
                "the hub knows no such repository, or it is private: then set HF_TOKEN"
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => "the hub does not let in who has this HF_TOKEN",
            (StatusCode::NOT_FOUND, _) => "the hub knows no such repository or revision",
            (StatusCode::TOO_MANY_REQUESTS, _) => "the hub asks to wait",
            _ => "the hub failed",
        };
        said(format!("{known} ({status}, {url})"))
    }

    /// Downloads into the cache: into a part that is kept when it breaks off, then checked, then under its name.
    fn download(&self, url: &str, head: &Head, blob: &Path) -> Result<(), Failed> {
        let part = blob.with_extension("incomplete");
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(&part).map_err(local(&part))?;
        // Another process that fetches the same file is waited for.
        file.lock().map_err(local(&part))?;
        if blob.is_file() {
            return Ok(());
        }
        let mut last = String::new();
        for _ in 0..TRIES {
            let have = file.metadata().map_err(local(&part))?.len();
            if head.size.is_none_or(|size| have != size) {
                if head.size.is_some_and(|size| have > size) {
                    file.set_len(0).map_err(local(&part))?;
                    continue;
                }
                match self.append(url, &mut file, have, head.size, &part) {
                    Ok(()) => {}
                    Err(Failed::Said(problem)) => {
                        last = problem;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            if !is_content(&part, &head.etag).map_err(local(&part))? {
                file.set_len(0).map_err(local(&part))?;
                last = format!("{url}: what came is not what the hub announced (SHA-256)");
                continue;
            }
            file.sync_all().map_err(local(&part))?;
            return fs::rename(&part, blob).map_err(local(blob));
        }
        said(last)
    }

    /// Downloads what is missing behind the first `have` bytes.
    fn append(&self, url: &str, file: &mut File, have: u64, size: Option<u64>, part: &Path) -> Result<(), Failed> {
        let response = self.get(url, (have > 0).then_some(have))?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            file.set_len(0).map_err(local(part))?;
            return said(format!("{url}: the hub cannot go on from byte {have}"));
        }
        self.check(&response, url)?;
        let mut at = have;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            file.set_len(0).map_err(local(part))?;
            at = 0;
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    at += n as u64;
                    if size.is_some_and(|size| at > size) {
                        return said(format!("{url}: more bytes than the hub announced"));
                    }
                    file.write_all(&buffer[..n]).map_err(local(part))?;
                }
                Err(error) => return said(format!("{url}: {error}, after {at} bytes")),
            }
        }
        match size {
            Some(size) if size != at => said(format!("{url}: cut off after {at} of {size} bytes")),
            _ => Ok(()),
        }
    }
}

fn local(path: &Path) -> impl FnOnce(io::Error) -> Failed + '_ {
    |source| Failed::Local(ModelError::Io { path: path.to_owned(), source })
}

/// Whether a file is what its ETag says. That of a small file is of another kind and says nothing.
fn is_content(path: &Path, etag: &str) -> io::Result<bool> {
    if etag.len() != 64 {
        return Ok(true);
    }
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let digest = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(digest == etag.to_lowercase())
}

/// A name for a blob: a link, as Hugging Face's library makes it.
#[cfg(unix)]
fn link(relative: &Path, _: &Path, name: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, name)
}

/// A name for a blob: a copy, where links are not for everybody.
#[cfg(not(unix))]
fn link(_: &Path, blob: &Path, name: &Path) -> io::Result<()> {
    fs::copy(blob, name).map(|_| ())
}
