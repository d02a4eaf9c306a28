//! Which requests go wrong, and how.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::Method;

/// How a request goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is done; the answer is this status with this code, for instance `503`, `SlowDown`.
    Refuse(u16, &'static str),
    /// Nothing is done; the answer names another region.
    Redirect(&'static str),
    /// It is done after so long.
    Delay(Duration),
    /// Nothing is done and no answer ever comes.
    Hang,
    /// Nothing is done; the connection ends.
    Close,
    /// It is done; the connection ends without an answer.
    LoseReply,
    /// It is done; the answer is `500`.
    Unsaid,
    /// Half of the answer's body, and then the connection ends.
    HalfBody,
    /// The answer is right; one byte of its body is not.
    WrongByte,
    /// The answer says that it is done; nothing is.
    Lie,
    /// The answer says that it is stored; half of it is.
    Truncate,
}

impl Fault {
    /// `503 SlowDown`, as S3 answers who asks too much.
    pub const SLOW_DOWN: Self = Self::Refuse(503, "SlowDown");
    /// `500 InternalError`.
    pub const INTERNAL: Self = Self::Refuse(500, "InternalError");
    /// `429 TooManyRequests`.
    pub const TOO_MANY: Self = Self::Refuse(429, "TooManyRequests");
}

/// Which requests: all of a kind, or some of them.
#[derive(Clone, Debug)]
pub struct On {
    kind: Kind,
    /// What the key must contain.
    key: String,
    skip: u32,
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Get,
    Head,
    Put,
    Part,
    Begin,
    Complete,
    Delete,
    List,
    Abort,
    Uploads,
    Other,
}

impl On {
    /// Every request.
    #[must_use]
    pub fn any() -> Self {
        Self::kind(Kind::Any)
    }
    /// Reading an object.
    #[must_use]
    pub fn get() -> Self {
        Self::kind(Kind::Get)
    }
    /// Asking for an object's size.
    #[must_use]
    pub fn head() -> Self {
        Self::kind(Kind::Head)
    }
    /// Storing an object in one request.
    #[must_use]
    pub fn put() -> Self {
        Self::kind(Kind::Put)
    }
    /// Beginning a multipart upload.
    #[must_use]
    pub fn begin() -> Self {
        Self::kind(Kind::Begin)
    }
    /// A part of a multipart upload.
    #[must_use]
    pub fn part() -> Self {
        Self::kind(Kind::Part)
    }
    /// Completing a multipart upload.
    #[must_use]
    pub fn complete() -> Self {
        Self::kind(Kind::Complete)
    }
    /// Deleting an object, or many.
    #[must_use]
    pub fn delete() -> Self {
        Self::kind(Kind::Delete)
    }
    /// A page of a listing.
    #[must_use]
    pub fn list() -> Self {
        Self::kind(Kind::List)
    }

    /// Ending an unfinished multipart upload.
    #[must_use]
    pub fn abort() -> Self {
        Self::kind(Kind::Abort)
    }
    /// A page of unfinished multipart uploads.
    #[must_use]
    pub fn uploads() -> Self {
        Self::kind(Kind::Uploads)
    }

    /// Only those whose key contains this.
    #[must_use]
    pub fn key(self, part: impl Into<String>) -> Self {
        Self { key: part.into(), ..self }
    }

    /// Lets the first of them pass.
    #[must_use]
    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// So often, then no more; once if this is not called.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Until the faults are cleared.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u32::MAX)
    }

    fn kind(kind: Kind) -> Self {
        Self { kind, key: String::new(), skip: 0, times: 1 }
    }
}

/// A request that the server has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: Method,
    /// The object's key; empty for requests about the bucket.
    pub key: String,
    /// What follows `?`.
    pub query: String,
    /// The bytes asked for, where it names some: `bytes=0-99` are 100.
    pub range: Option<u64>,
}

impl Request {
    fn kind(&self) -> Kind {
        let asks = |name: &str| self.query.split('&').any(|pair| pair.split('=').next() == Some(name));
        match (&self.method, self.key.is_empty()) {
            (&Method::GET, true) if asks("list-type") => Kind::List,
            (&Method::GET, false) => Kind::Get,
            (&Method::HEAD, false) => Kind::Head,
            (&Method::PUT, false) if asks("partNumber") => Kind::Part,
            (&Method::PUT, false) => Kind::Put,
            (&Method::POST, false) if asks("uploads") => Kind::Begin,
            (&Method::POST, false) if asks("uploadId") => Kind::Complete,
            (&Method::POST, true) if asks("delete") => Kind::Delete,
            (&Method::DELETE, false) if asks("uploadId") => Kind::Abort,
            (&Method::DELETE, false) => Kind::Delete,
            (&Method::GET, true) if asks("uploads") => Kind::Uploads,
            _ => Kind::Other,
        }
    }
}

/// The faults that a server is to show, and what it has seen.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<(On, Fault)>,
    happened: u64,
    seen: Vec<Request>,
}

impl Faults {
    /// Adds a fault. A request gets the first one that fits.
    pub fn add(&self, on: On, fault: Fault) {
        self.state().rules.push((on, fault));
    }

    /// No more faults.
    pub fn clear(&self) {
        self.state().rules.clear();
    }

    /// How often a fault has struck.
    pub fn happened(&self) -> u64 {
        self.state().happened
    }

    /// The requests so far, faulty ones as well; they are forgotten with this.
    pub fn take_seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().seen)
    }

    /// What is to become of this request.
    pub(super) fn strike(&self, request: Request) -> Option<Fault> {
        let mut state = self.state();
        let kind = request.kind();
        let fault = state.rules.iter_mut().find_map(|(on, fault)| {
            let fits = on.times > 0 && (on.kind == Kind::Any || on.kind == kind) && request.key.contains(&on.key);
            if !fits {
                return None;
            }
            if on.skip > 0 {
                on.skip -= 1;
                return None;
            }
            if on.times != u32::MAX {
                on.times -= 1;
            }
            Some(fault.clone())
        });
        state.happened += u64::from(fault.is_some());
        state.seen.push(request);
        fault
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
