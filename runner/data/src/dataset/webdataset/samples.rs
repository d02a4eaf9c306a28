//! The samples of one tar: members of the same name up to the first dot.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::super::{
    folder::EXTENSIONS,
    tar::{Member, Members},
};
use super::index::{Indexed, IndexedPart};
use crate::{DataError, decode::MOST_BYTES};

/// Most bytes of a text or JSON member.
const MOST_TEXT: u64 = 16 << 20;
/// Most bytes of a `cls` member.
const MOST_CLASS: u64 = 64;
/// Most samples of one tar: what is held of each is its name.
const MOST_SAMPLES: usize = 4_000_000;

/// What a sample may have, by the extensions of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    Image,
    Class,
    Text,
    Json,
}

/// Every part.
pub(super) const ALL: [Part; 4] = [Part::Image, Part::Class, Part::Text, Part::Json];

impl Part {
    fn of(extension: &str) -> Option<Self> {
        match extension {
            "cls" => Some(Self::Class),
            "txt" => Some(Self::Text),
            "json" => Some(Self::Json),
            other => EXTENSIONS.contains(&other).then_some(Self::Image),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "picture",
            Self::Class => "cls",
            Self::Text => "txt",
            Self::Json => "json",
        }
    }

    /// Most bytes of its members.
    pub(super) fn most(self) -> u64 {
        match self {
            Self::Image => MOST_BYTES,
            Self::Class => MOST_CLASS,
            Self::Text | Self::Json => MOST_TEXT,
        }
    }
}

/// A member of a sample: what it is, where it lies, and its content where that is wanted.
type Piece = (Part, Member, Vec<u8>);

/// Members of one name.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) key: String,
    /// Where its first member begins.
    pub(super) start: u64,
    /// Each part: the member's name, its size, and its content where that is wanted.
    pub(super) parts: Vec<Piece>,
}

impl Sample {
    pub(super) fn get(&self, part: Part) -> Option<(&Member, &[u8])> {
        let found = self.parts.iter().find(|(of, ..)| *of == part);
        found.map(|(_, member, content)| (member, content.as_slice()))
    }

    /// Bytes of its picture.
    pub(super) fn size(&self) -> u64 {
        self.get(Part::Image).map_or(64, |(member, _)| member.size)
    }
}

impl From<Indexed> for Sample {
    fn from(Indexed { key, start, parts }: Indexed) -> Self {
        let piece = |IndexedPart { part, name, size, content, kept }| {
            (part, Member { name, size, start, content }, kept.unwrap_or_default().into_bytes())
        };
        Self { key, start, parts: parts.into_iter().map(piece).collect() }
    }
}

/// The samples of a tar, in order.
pub(super) struct Samples {
    from: Origin,
    wanted: BTreeSet<Part>,
    /// The first member of the next sample, read already.
    pending: Option<(String, Piece)>,
    /// Keys so far: one that comes back is split, or stands twice.
    seen: BTreeSet<String>,
    ended: bool,
}

impl Samples {
    /// Of each sample, the content of the `wanted` parts.
    pub(super) fn new(members: Members, wanted: impl IntoIterator<Item = Part>) -> Self {
        let (wanted, from) = (wanted.into_iter().collect(), Origin::Archive(members));
        Self { from, wanted, pending: None, seen: BTreeSet::new(), ended: false }
    }

    /// The same samples without pictures, from what is remembered of an archive.
    pub(super) fn of_index(file: String, samples: Vec<Indexed>) -> Self {
        let from = Origin::Index(file, samples.into_iter());
        Self { from, wanted: BTreeSet::new(), pending: None, seen: BTreeSet::new(), ended: false }
    }

    /// The next sample.
    pub(super) fn next(&mut self) -> Result<Option<Sample>, DataError> {
        if let Origin::Index(_, samples) = &mut self.from {
            return Ok(samples.next().map(Sample::from));
        }
        let Some((key, first)) = (match self.pending.take() {
            Some(first) => Some(first),
            None => self.member()?,
        }) else {
            return Ok(None);
        };
        let start = first.1.start;
        if self.seen.len() >= MOST_SAMPLES {
            return Err(self.wrong_at(start, format!("more than {MOST_SAMPLES} samples in one tar")));
        }
        if !self.seen.insert(key.clone()) {
            let message = format!(
                "sample `{key}` stands twice, or its members do not lie together: pack files sorted by name (tar --sort=name)"
            );
            return Err(self.wrong_at(start, message));
        }
        let mut sample = Sample { key, start, parts: vec![first] };
        while let Some((key, piece)) = self.member()? {
            if key != sample.key {
                self.pending = Some((key, piece));
                break;
            }
            let (part, member, _) = &piece;
            if let Some((other, _)) = sample.get(*part) {
                let message = format!(
                    "sample `{key}` has two members for its {}: {} and {}",
                    part.name(),
                    other.name,
                    member.name
                );
                return Err(self.wrong_at(member.start, message));
            }
            sample.parts.push(piece);
        }
        Ok(Some(sample))
    }

    /// The next member that means something here, with its sample's key.
    fn member(&mut self) -> Result<Option<(String, Piece)>, DataError> {
        while !self.ended {
            let Origin::Archive(members) = &mut self.from else { break };
            let Some(member) = members.next()? else {
                self.ended = true;
                break;
            };
            let Some((key, extension)) = split(&member.name) else { continue };
            let Some(part) = Part::of(&extension) else { continue };
            let key = key.to_owned();
            let content = match self.wanted.contains(&part) {
                true => members.read(&member, part.most())?,
                false => Vec::new(),
            };
            return Ok(Some((key, (part, member, content))));
        }
        Ok(None)
    }

    /// Whether they come from memory.
    pub(super) fn is_of_index(&self) -> bool {
        matches!(self.from, Origin::Index(..))
    }

    fn wrong_at(&self, at: u64, message: impl Into<String>) -> DataError {
        match &self.from {
            Origin::Archive(members) => members.wrong(at, message),
            Origin::Index(file, _) => DataError::format_at(file, format!("byte {at}"), message),
        }
    }

    /// An error at a sample.
    pub(super) fn wrong(&self, sample: &Sample, message: impl std::fmt::Display) -> DataError {
        self.wrong_at(sample.start, format!("sample `{}`: {message}", sample.key))
    }
}

/// What samples are read from.
enum Origin {
    Archive(Members),
    /// What is remembered of an archive, for messages its name, and the rest of it.
    Index(String, std::vec::IntoIter<Indexed>),
}

/// Key and extension: the name is cut at the first dot behind the last slash. Hidden files and such as `__index__` are no
/// members of samples.
fn split(name: &str) -> Option<(&str, String)> {
    let name = name.trim_start_matches("./");
    let base = name.rfind('/').map_or(0, |at| at + 1);
    let dot = base + name[base..].find('.')?;
    let (key, extension) = (&name[..dot], &name[dot + 1..]);
    let hidden = dot == base || name[base..dot].starts_with("__");
    (!hidden && !extension.is_empty()).then(|| (key, extension.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn names_are_cut_at_the_first_dot_of_the_file() {
        let cut = |name| split(name).map(|(key, extension)| format!("{key}|{extension}"));
        assert_eq!(cut("a/b.c/d.JPG").as_deref(), Some("a/b.c/d|jpg"));
        assert_eq!(cut("./0001.seg.png").as_deref(), Some("0001|seg.png"));
        for none in ["README", ".hidden.jpg", "a/.b.png", "__meta__.json", "a."] {
            assert_eq!(cut(none), None, "{none}");
        }
    }
}
