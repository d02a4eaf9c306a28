//! What is remembered of a tar that can only be read from front to back: the names of its samples, their small members and
//! where the others lie, so that labels, or a few pictures, are not a reason to fetch all the pictures again.

use std::{fs, path::PathBuf};

use runner_contract::{Digest, KeyHasher};
use serde::{Deserialize, Serialize};

use super::samples::{Part, Sample};

/// Raised when indices are written in another way.
const VERSION: u32 = 2;
/// Most bytes of a text that is kept, and of all that is kept of one tar.
const MOST_TEXT: usize = 16 << 10;
const MOST_BYTES: usize = 64 << 20;

/// The index of a tar.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    version: u32,
    pub(super) samples: Vec<Indexed>,
}

/// A sample, without its picture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Indexed {
    pub(super) key: String,
    pub(super) start: u64,
    pub(super) parts: Vec<IndexedPart>,
}

/// A member of a sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct IndexedPart {
    pub(super) part: Part,
    pub(super) name: String,
    pub(super) size: u64,
    /// Where its content begins, in bytes of the unpacked archive.
    pub(super) content: u64,
    /// What it says, if it is of those that are kept.
    pub(super) kept: Option<String>,
}

/// The parts that are kept.
pub(super) const KEPT: [Part; 2] = [Part::Class, Part::Text];

/// Where indices lie.
#[derive(Clone, Debug)]
pub(super) struct Indices(pub(super) PathBuf);

impl Indices {
    fn path(&self, version: &Digest) -> PathBuf {
        let key = KeyHasher::new("webdataset-index/2").digest("of", version).finish();
        self.0.join(format!("{key}.json"))
    }

    /// The index of an archive of this content. What cannot be read is as good as not there.
    pub(super) fn find(&self, version: &Digest) -> Option<Index> {
        let index: Index = serde_json::from_slice(&fs::read(self.path(version)).ok()?).ok()?;
        (index.version == VERSION).then_some(index)
    }

    /// Keeps an index. It only saves work: where it cannot be written, the archive is read again.
    pub(super) fn keep(&self, version: &Digest, samples: Vec<Indexed>) {
        let path = self.path(version);
        let aside = path.with_extension(format!("part{}-{:?}", std::process::id(), std::thread::current().id()));
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.0)?;
            fs::write(&aside, serde_json::to_vec(&Index { version: VERSION, samples })?)?;
            fs::rename(&aside, &path)
        };
        if write().is_err() {
            let _ = fs::remove_file(&aside);
        }
    }
}

/// An index on its way, while the archive is read.
#[derive(Default)]
pub(super) struct Building {
    samples: Vec<Indexed>,
    bytes: usize,
    /// It would be too large, or not all of it is text.
    given_up: bool,
}

impl Building {
    pub(super) fn add(&mut self, sample: &Sample) {
        if self.given_up {
            return;
        }
        let mut parts = Vec::with_capacity(sample.parts.len());
        for (part, member, content) in &sample.parts {
            let kept = KEPT.contains(part).then(|| String::from_utf8(content.clone()).ok());
            if let Some(None) = kept {
                self.given_up = true;
            }
            let kept = kept.flatten();
            self.given_up |= kept.as_ref().is_some_and(|text| text.len() > MOST_TEXT);
            self.bytes += 64 + member.name.len() + kept.as_ref().map_or(0, String::len);
            let (name, size, content) = (member.name.clone(), member.size, member.content);
            parts.push(IndexedPart { part: *part, name, size, content, kept });
        }
        self.given_up |= self.bytes > MOST_BYTES;
        if self.given_up {
            self.samples = Vec::new();
        } else {
            self.samples.push(Indexed { key: sample.key.clone(), start: sample.start, parts });
        }
    }

    /// All samples, if they are all there.
    pub(super) fn finish(self) -> Option<Vec<Indexed>> {
        (!self.given_up).then_some(self.samples)
    }
}
