//! Objects of a bucket, for datasets that live there.

use std::{
    io::{self, Read},
    ops::Range,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
};

use super::place::Input;

/// An object of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `s3://bucket/key`
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// Its ETag: another content has another one.
    pub tag: String,
}

/// What lies right in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Names of objects.
    pub files: Vec<String>,
    /// Names of folders.
    pub folders: Vec<String>,
}

/// How datasets reach buckets. Calls block; what fails for a moment is tried again before they return.
pub trait Objects: Send + Sync {
    /// The object of that URL, if there is one.
    fn head(&self, url: &str) -> Result<Option<Object>, String>;
    /// All objects in a folder and in those below it. Its URL ends without a slash.
    fn list(&self, folder: &str) -> Result<Vec<Object>, String>;
    /// The names of the objects right in a folder, and of the folders in it.
    fn children(&self, folder: &str) -> Result<Children, String>;
    /// Bytes of an object; an error if it has another ETag by now.
    fn read(&self, object: &Object, range: Range<u64>) -> Result<Vec<u8>, String>;
}

/// Bytes of one request, and of the first, which is often all that is wanted.
const PART: u64 = 4 << 20;
const FIRST_PART: u64 = 256 << 10;
/// Parts that wait to be read, besides the one on its way and the one at hand.
const AHEAD: usize = 2;

/// An object from front to back: the next parts are on their way while one is read.
pub(super) struct Stream {
    objects: Arc<dyn Objects>,
    object: Object,
    /// Where the part at hand ends.
    at: u64,
    part: Vec<u8>,
    used: usize,
    next: Option<Receiver<Result<Vec<u8>, String>>>,
}

impl Stream {
    pub(super) fn new(objects: Arc<dyn Objects>, object: Object, from: u64) -> Self {
        Self { objects, object, at: from, part: Vec::new(), used: 0, next: None }
    }

    /// Begins to fetch from `self.at` on. The thread ends when nobody listens any more.
    fn begin(&mut self) {
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        let (objects, object, mut at) = (self.objects.clone(), self.object.clone(), self.at);
        thread::spawn(move || {
            let mut length = FIRST_PART;
            while at < object.size {
                let end = object.size.min(at + length);
                length = (length * 2).min(PART);
                let part = objects.read(&object, at..end);
                at = end;
                let failed = part.is_err();
                if sender.send(part).is_err() || failed {
                    return;
                }
            }
        });
        self.next = Some(receiver);
    }

    /// Whether there is another part.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at >= self.object.size {
            return Ok(false);
        }
        if self.next.is_none() {
            self.begin();
        }
        let part = self.next.as_ref().and_then(|next| next.recv().ok());
        let part = part.ok_or_else(|| io::Error::other("it ended early"))?.map_err(io::Error::other)?;
        self.at += part.len() as u64;
        (self.part, self.used) = (part, 0);
        Ok(true)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used >= self.part.len() && !self.fill()? {
            return Ok(0);
        }
        let rest = &self.part[self.used..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.used += n;
        Ok(n)
    }
}

impl Input for Stream {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        loop {
            let here = ((self.part.len() - self.used) as u64).min(left);
            self.used += here as usize;
            left -= here;
            if left == 0 {
                return Ok(());
            }
            // Far ahead it is quicker to ask anew than to read all that lies between.
            if left > PART * (AHEAD as u64 + 2) {
                (self.part, self.used, self.next) = (Vec::new(), 0, None);
                self.at = self.at.saturating_add(left);
                return if self.at > self.object.size { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
