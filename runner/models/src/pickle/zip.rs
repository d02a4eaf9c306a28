//! The zip archives that PyTorch writes: a reader of that subset which believes no size, name or place.
//!
//! Sizes come from the central directory alone (zip64 where it says so), local headers must agree about the name, and no two
//! entries may share bytes. Entries are stored or deflated.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read},
};

use flate2::bufread::DeflateDecoder;

use crate::{blob::Blob, pickle::Problem};

/// Entries of an archive.
const MAX_ENTRIES: u64 = 1 << 18;
/// Bytes of the central directory.
const MAX_DIRECTORY: u64 = 64 << 20;
/// How much larger than the file its entries may be in all, unpacked. Weights hardly pack at all.
const MAX_RATIO: u64 = 64;

/// A file in an archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where its bytes begin.
    pub(super) start: u64,
    /// Its bytes in the archive.
    packed: u64,
    /// Its bytes, unpacked.
    pub(super) size: u64,
    pub(super) deflated: bool,
}

/// The files of an archive by their names.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) entries: BTreeMap<String, Entry>,
}

fn broken<T>(problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Broken(problem.into()))
}

/// Fields of a header, little-endian; zero where it ends early, which callers exclude.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn field<const N: usize>(&self, at: usize) -> u64 {
        let mut wide = [0; 8];
        if let Some(bytes) = self.0.get(at..at + N) {
            wide[..N].copy_from_slice(bytes);
        }
        u64::from_le_bytes(wide)
    }

    fn u16(&self, at: usize) -> u64 {
        self.field::<2>(at)
    }

    fn u32(&self, at: usize) -> u64 {
        self.field::<4>(at)
    }

    fn u64(&self, at: usize) -> u64 {
        self.field::<8>(at)
    }
}

/// Where the central directory is.
struct Directory {
    start: u64,
    size: u64,
    entries: u64,
}

fn directory(blob: &Blob) -> Result<Directory, Problem> {
    let tail_start = blob.size().saturating_sub(22 + 0xFFFF);
    let tail = blob.read(tail_start, blob.size() - tail_start)?;
    let is_end = |at: &usize| {
        let record = &tail[*at..];
        record.starts_with(b"PK\x05\x06") && record.len() as u64 == 22 + Header(record).u16(20)
    };
    let Some(at) = (0..tail.len().saturating_sub(21)).rev().find(is_end) else {
        return broken("a zip archive without its directory: the file was cut off");
    };
    let end = Header(&tail[at..]);
    let position = tail_start + at as u64;
    let mut found = Directory { start: end.u32(16), size: end.u32(12), entries: end.u16(10) };
    let mut limit = position;
    if let Some(locator) = at.checked_sub(20).map(|at| &tail[at..]).filter(|it| it.starts_with(b"PK\x06\x07")) {
        let place = Header(locator).u64(8);
        if place.checked_add(56).is_none_or(|end| end > position - 20) {
            return broken("the archive's directory is not in it");
        }
        let record = blob.read(place, 56)?;
        if !record.starts_with(b"PK\x06\x06") {
            return broken("the archive's directory is not where it says");
        }
        let end = Header(&record);
        found = Directory { start: end.u64(48), size: end.u64(40), entries: end.u64(32) };
        limit = place;
    }
    if found.start.checked_add(found.size).is_none_or(|end| end > limit) {
        return broken("the archive's directory is not in it");
    }
    if found.size > MAX_DIRECTORY || found.entries > MAX_ENTRIES {
        return broken(format!("a directory of {} entries in {} bytes", found.entries, found.size));
    }
    Ok(found)
}

impl Archive {
    pub(super) fn open(blob: &Blob) -> Result<Self, Problem> {
        let place = directory(blob)?;
        let bytes = blob.read(place.start, place.size)?;
        let mut rest = bytes.as_slice();
        let mut entries = BTreeMap::new();
        let mut ranges = Vec::new();
        for _ in 0..place.entries {
            if rest.len() < 46 || !rest.starts_with(b"PK\x01\x02") {
                return broken("the archive's directory ends early");
            }
            let header = Header(rest);
            let lengths = [28, 30, 32].map(|at| usize::try_from(header.u16(at)).unwrap_or(usize::MAX));
            let total = 46 + lengths.iter().sum::<usize>();
            if rest.len() < total {
                return broken("the archive's directory ends early");
            }
            let (name, extra) = rest[46..].split_at(lengths[0]);
            let name = checked_name(name)?;
            let wrong = |problem: &str| broken(format!("entry `{name}`: {problem}"));
            let (entry, first) = match entry(&header, &extra[..lengths[1]]) {
                Ok((entry, first)) => (located(blob, entry, first, name.as_bytes(), place.start)?, first),
                Err(problem) => return wrong(problem),
            };
            ranges.push((first, entry.start + entry.packed));
            rest = &rest[total..];
            if entries.insert(name.clone(), entry).is_some() {
                return wrong("stands twice in the archive");
            }
        }
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return broken("entries of the archive lie over each other");
        }
        let unpacked = entries.values().try_fold(0u64, |sum, entry: &Entry| sum.checked_add(entry.size));
        let most = blob.size().saturating_mul(MAX_RATIO).saturating_add(1 << 20);
        if unpacked.is_none_or(|unpacked| unpacked > most) {
            return broken(format!("entries that unpack to more than {MAX_RATIO} times the file: a zip bomb"));
        }
        Ok(Self { entries })
    }
}

/// Sizes and place of an entry, from its header in the directory.
fn entry(header: &Header<'_>, mut extra: &[u8]) -> Result<(Entry, u64), &'static str> {
    let (mut packed, mut size, mut first) = (header.u32(20), header.u32(24), header.u32(42));
    while extra.len() >= 4 {
        let field = Header(extra);
        let length = usize::try_from(field.u16(2)).unwrap_or(usize::MAX);
        let Some(content) = extra.get(4..4 + length) else { break };
        if field.u16(0) == 1 {
            let mut wide = content.as_chunks::<8>().0.iter();
            for value in [&mut size, &mut packed, &mut first] {
                if *value == 0xFFFF_FFFF {
                    *value = u64::from_le_bytes(*wide.next().ok_or("a zip64 size that is missing")?);
                }
            }
        }
        extra = &extra[4 + length..];
    }
    if header.u16(8) & 1 != 0 {
        return Err("is encrypted");
    }
    let deflated = match header.u16(10) {
        0 if packed != size => return Err("is stored in another size than its own"),
        0 => false,
        8 => true,
        _ => return Err("is packed with a method other than deflate"),
    };
    Ok((Entry { start: 0, packed, size, deflated }, first))
}

/// The entry with the place of its bytes, from the local header at `first`.
fn located(blob: &Blob, entry: Entry, first: u64, name: &[u8], limit: u64) -> Result<Entry, Problem> {
    let shown = String::from_utf8_lossy(name);
    if first.checked_add(30).is_none_or(|end| end > limit) {
        return broken(format!("entry `{shown}`: is not in the archive"));
    }
    let local = blob.read(first, 30)?;
    let header = Header(&local);
    let start = first + 30 + header.u16(26) + header.u16(28);
    if start.checked_add(entry.packed).is_none_or(|end| end > limit) {
        return broken(format!("entry `{shown}`: its {} bytes are not in the archive", entry.packed));
    }
    if !local.starts_with(b"PK\x03\x04") || blob.read(first + 30, header.u16(26))? != name {
        return broken(format!("entry `{shown}`: is called otherwise where it stands"));
    }
    Ok(Entry { start, ..entry })
}

/// A name that stays inside the archive's folder.
fn checked_name(bytes: &[u8]) -> Result<String, Problem> {
    let Ok(name) = std::str::from_utf8(bytes) else { return broken("an entry whose name is not UTF-8") };
    let absolute = name.starts_with('/') || name.contains(['\\', ':', '\0']);
    if name.is_empty() || absolute || name.split('/').any(|part| part == "..") {
        return broken(format!("entry `{}`: leads out of the archive", name.escape_debug()));
    }
    Ok(name.to_owned())
}

impl Entry {
    /// Bytes of the entry: `length` from `from`. What it does not hold takes no memory.
    pub(super) fn read(&self, blob: &Blob, from: u64, length: u64) -> Result<Vec<u8>, Problem> {
        if from.checked_add(length).is_none_or(|end| end > self.size) {
            return broken("an entry of the archive is shorter than what is read of it");
        }
        if !self.deflated {
            return Ok(blob.read(self.start + from, length)?);
        }
        let packed = BufReader::with_capacity(1 << 16, blob.range(self.start, self.start + self.packed));
        let mut plain = DeflateDecoder::new(packed);
        io::copy(&mut plain.by_ref().take(from), &mut io::sink())?;
        let mut bytes = Vec::new();
        plain.take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return broken("an entry of the archive unpacks to less than its size");
        }
        Ok(bytes)
    }
}
