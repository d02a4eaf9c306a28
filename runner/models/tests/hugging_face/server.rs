//! A server that speaks the hub's protocol for one repository: its list of files with the commit, heads with ETag, size and a redirect
//! to another host for large files, ranges, refusals; and faults on demand.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::json;
use sha2::{Digest, Sha256};

/// Files of at least so many bytes are on the other host.
const LARGE: usize = 10_000;

/// What goes wrong with a file, once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes.
    CutAfter(usize),
    /// One byte is another one.
    Corrupt,
}

struct Content {
    repository: String,
    commit: String,
    files: HashMap<String, Vec<u8>>,
    token: Option<String>,
    /// The host of large files: another port, so that it is another host.
    other: String,
    requests: Mutex<Vec<String>>,
    faults: Mutex<Vec<(String, Fault)>>,
    leaked: AtomicBool,
    stopping: AtomicBool,
}

/// The server, which stops when it is dropped.
pub(crate) struct Server {
    content: Arc<Content>,
    hosts: Vec<String>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(repository: &str, commit: &str, files: Vec<(String, Vec<u8>)>, token: Option<&str>) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        // One machine has two names, and a token for one of them is not for the other.
        let hosts = vec![format!("127.0.0.1:{}", ports[0]), format!("localhost:{}", ports[1])];
        let content = Arc::new(Content {
            repository: repository.to_owned(),
            commit: commit.to_owned(),
            files: files.into_iter().collect(),
            token: token.map(str::to_owned),
            other: hosts[1].clone(),
            requests: Mutex::default(),
            faults: Mutex::default(),
            leaked: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let serve = |listener: TcpListener| {
            let content = content.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if content.stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    if let Ok(stream) = stream {
                        let content = content.clone();
                        std::thread::spawn(move || content.answer(stream));
                    }
                }
            })
        };
        let threads = listeners.into_iter().map(serve).collect();
        Self { content, hosts, threads }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.hosts[0])
    }

    /// Method, path and range of every request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.content.requests.lock().unwrap().clone()
    }

    /// The next time that the file's content is asked for, this happens.
    pub(crate) fn fault(&self, file: &str, fault: Fault) {
        self.content.faults.lock().unwrap().push((file.to_owned(), fault));
    }

    pub(crate) fn told_the_token_to_others(&self) -> bool {
        self.content.leaked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.content.stopping.store(true, Ordering::SeqCst);
        for host in &self.hosts {
            let _ = TcpStream::connect(host);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A request's head.
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next()?.ok()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = HashMap::new();
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        Some(Self { method, path, headers })
    }
}

impl Content {
    fn answer(&self, stream: TcpStream) {
        let Some(request) = Request::read(&stream) else { return };
        let range = request.headers.get("range").map(|range| format!(" range: {range}")).unwrap_or_default();
        self.requests.lock().unwrap().push(format!("{} {}{range}", request.method, request.path));
        let send = |status: &str, headers: &[(&str, String)], body: &[u8]| {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n");
            let mut stream = &stream;
            let body = if request.method == "HEAD" { &[] } else { body };
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        };
        let length = |bytes: &[u8]| ("content-length", bytes.len().to_string());
        let authorization = request.headers.get("authorization");
        if let Some(file) = request.path.strip_prefix("/cdn/") {
            self.leaked.fetch_or(authorization.is_some(), Ordering::SeqCst);
            let Some(bytes) = self.files.get(file) else { return send("404 Not Found", &[length(&[])], &[]) };
            let from = request
                .headers
                .get("range")
                .map(|range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
            let mut body = bytes[from.unwrap_or(0)..].to_vec();
            let announced = length(&body);
            let mut faults = self.faults.lock().unwrap();
            if let Some(place) = faults.iter().position(|(name, _)| name == file) {
                match faults.remove(place).1 {
                    Fault::CutAfter(bytes) => body.truncate(bytes),
                    Fault::Corrupt => body[1000] ^= 1,
                }
            }
            let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
            return send(status, &[announced], &body);
        }
        if let Some(token) = &self.token
            && authorization != Some(&format!("Bearer {token}"))
        {
            return send("401 Unauthorized", &[length(&[])], &[]);
        }
        let api = format!("/api/models/{}/revision/", self.repository);
        if let Some(revision) = request.path.strip_prefix(&api) {
            if revision != "main" && revision != self.commit {
                return send("404 Not Found", &[("x-error-code", "RevisionNotFound".into()), length(&[])], &[]);
            }
            let files: Vec<_> = self.files.keys().map(|name| json!({"rfilename": name})).collect();
            let body = json!({"sha": self.commit, "siblings": files}).to_string();
            return send("200 OK", &[length(body.as_bytes())], body.as_bytes());
        }
        let resolve = format!("/{}/resolve/{}/", self.repository, self.commit);
        let found = request.path.strip_prefix(&resolve).and_then(|file| Some((file, self.files.get(file)?)));
        let Some((file, bytes)) = found else { return send("404 Not Found", &[length(&[])], &[]) };
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let commit = ("x-repo-commit", self.commit.clone());
        if bytes.len() < LARGE {
            return send("200 OK", &[commit, ("etag", format!("\"{}\"", &digest[..40])), length(bytes)], bytes);
        }
        let headers = [
            commit,
            ("x-linked-etag", format!("\"{digest}\"")),
            ("x-linked-size", bytes.len().to_string()),
            ("location", format!("http://{}/cdn/{file}", self.other)),
            length(&[]),
        ];
        send("302 Found", &headers, &[]);
    }
}
