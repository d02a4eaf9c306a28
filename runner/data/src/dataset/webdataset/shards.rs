//! Tars, and the shards that they are cut into.

use std::io::BufReader;

use flate2::bufread::MultiGzDecoder;
use rayon::prelude::*;

use super::{
    super::{
        layout::Layout,
        memory::Remembered,
        place::{Entry, Place},
        tar::{Member, Members},
    },
    index::{Indices, KEPT},
    samples::{Part, Samples},
};
use crate::DataError;

/// A tar file.
pub(super) struct Archive {
    pub(super) place: Place,
    pub(super) entry: Entry,
    /// Compressed: read from its beginning only.
    packed: bool,
}

/// How many rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Exactly(usize),
    About(usize),
}

/// A shard: samples of one tar that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) archive: usize,
    /// Where its first sample begins, in bytes.
    pub(super) start: u64,
    pub(super) rows: Count,
    /// Which one of its tar, for messages and memory.
    pub(super) number: usize,
}

impl Count {
    pub(super) fn known(self) -> Option<usize> {
        match self {
            Self::Exactly(rows) => Some(rows),
            Self::About(_) => None,
        }
    }

    pub(super) fn estimate(self) -> usize {
        match self {
            Self::Exactly(rows) | Self::About(rows) => rows,
        }
    }
}

impl Archive {
    pub(super) fn new(place: Place, entry: Entry) -> Self {
        let packed = is_packed(&place.to_string());
        Self { place, entry, packed }
    }

    /// Its samples from a byte on, with the content of these parts.
    pub(super) fn samples(&self, from: u64, wanted: impl IntoIterator<Item = Part>) -> Result<Samples, DataError> {
        let input = self.place.open(&self.entry, if self.packed { 0 } else { from })?;
        let file = self.place.to_string();
        let members = if self.packed {
            let unpacked = MultiGzDecoder::new(BufReader::with_capacity(1 << 16, input));
            Members::new(Box::new(unpacked), file, from, None)
        } else {
            Members::new(input, file, from, Some(self.entry.size))
        };
        Ok(Samples::new(members, wanted))
    }

    /// Its samples from memory, if it is one to be remembered, was read before, and these parts are kept.
    pub(super) fn indexed(
        &self,
        indices: &Indices,
        remembered: &Remembered,
        wanted: &[Part],
    ) -> Result<Option<Samples>, DataError> {
        if self.is_walked() || !wanted.iter().all(|part| KEPT.contains(part)) {
            return Ok(None);
        }
        let version = self.place.digest(&self.entry, remembered)?;
        let index = indices.find(&version);
        Ok(index.map(|index| Samples::of_index(self.place.to_string(), index.samples)))
    }

    /// The content of a member of which the place is known; only where the tar is not packed.
    pub(super) fn content(&self, part: Part, member: &Member) -> Result<Vec<u8>, DataError> {
        let Member { name, size, content, .. } = member;
        let end = content.checked_add(*size).filter(|end| *end <= self.entry.size && *size <= part.most());
        let end = end.ok_or_else(|| self.place.failed(format!("no {size} bytes of member `{name}` at {content}")))?;
        self.place.read_range(&self.entry, *content..end)
    }

    /// Whether a member can be read without what lies before it.
    pub(super) fn is_plain(&self) -> bool {
        !self.packed
    }

    /// Whether headers can be read without the pictures between them.
    pub(super) fn is_walked(&self) -> bool {
        !self.packed && matches!(self.place, Place::Disk(_))
    }
}

/// Whether a tar of this name is compressed.
pub(super) fn is_packed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".gz") || name.ends_with(".tgz")
}

/// The shards of these tars. `first` is the size of a picture, to estimate by.
pub(super) fn pieces(archives: &[Archive], first: u64) -> Result<Vec<Piece>, DataError> {
    let all: Vec<Vec<Piece>> = (0..archives.len())
        .into_par_iter()
        .map(|number| {
            let archive = &archives[number];
            if archive.is_walked() {
                return walk(number, archive);
            }
            // A picture, its headers and those of what stands beside it; packing does little to pictures.
            let rows = (archive.entry.size / (first + 2048)).max(1);
            Ok(vec![Piece { archive: number, start: 0, rows: Count::About(rows as usize), number: 0 }])
        })
        .collect::<Result<_, DataError>>()?;
    Ok(all.into_iter().flatten().collect())
}

/// Reads the headers of a tar, and cuts it where shards end.
fn walk(number: usize, archive: &Archive) -> Result<Vec<Piece>, DataError> {
    let mut samples = archive.samples(0, [])?;
    let (mut starts, mut sizes) = (Vec::new(), Vec::new());
    while let Some(sample) = samples.next()? {
        starts.push(sample.start);
        sizes.push(sample.size());
    }
    let layout = Layout::new(sizes);
    let pieces = layout.shards(None).enumerate().map(|(i, rows)| Piece {
        archive: number,
        start: starts.get(rows.start).copied().unwrap_or(0),
        rows: Count::Exactly(rows.len()),
        number: i,
    });
    Ok(pieces.collect())
}
