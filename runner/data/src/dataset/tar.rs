//! Reads tar archives from front to back, a member at a time, in bounded memory.
//!
//! Old, ustar, GNU and pax headers are read. What is no plain file (folders, links, devices) is passed over. Nothing is
//! ever written to disk, and still a name that would leave the archive's folder is refused: whoever packed that has
//! something else in mind than a dataset.

use std::io::{self, Read};

use super::place::Input;
use crate::DataError;

const BLOCK: usize = 512;
/// Most bytes of a name, or of a pax header.
const MOST_HEADER: u64 = 1 << 20;

/// A plain file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) size: u64,
    /// Where its headers begin, in bytes of the unpacked archive.
    pub(super) start: u64,
    /// Where its content begins.
    pub(super) content: u64,
}

/// The members of an archive, in order.
pub(super) struct Members {
    input: Box<dyn Input>,
    /// For messages.
    file: String,
    /// How far it is read, in bytes of the unpacked archive.
    at: u64,
    /// Of the current member: bytes not yet read, and the padding behind them.
    left: u64,
    padding: u64,
    /// Bytes of the archive, where they are known.
    length: Option<u64>,
    done: bool,
}

impl Members {
    /// Reads on from `at`, where a member's header begins. `length` is the size of the unpacked archive, where it is known.
    pub(super) fn new(input: Box<dyn Input>, file: impl Into<String>, at: u64, length: Option<u64>) -> Self {
        Self { input, file: file.into(), at, left: 0, padding: 0, length, done: false }
    }

    /// The next member; what was not read of the last one is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Member>, DataError> {
        let (mut long_name, mut size_override, mut start) = (None, None, None);
        loop {
            self.skip()?;
            if self.done {
                return Ok(None);
            }
            let here = self.at;
            let Some(header) = self.header()? else {
                if start.is_some() {
                    return Err(self.wrong(here, "the archive ends behind a header that belongs to a member"));
                }
                self.done = true;
                return Ok(None);
            };
            let first = *start.get_or_insert(here);
            let size = self.number(here, &header[124..136], "size")?;
            let kind = header[156];
            match kind {
                b'L' => long_name = Some(self.text(here, size, "name")?),
                b'x' => {
                    let text = self.body(here, size, "pax header")?;
                    for (key, value) in self.pax(here, &text)? {
                        match key.as_str() {
                            "path" => long_name = Some(value),
                            "size" => {
                                let parsed = value.parse::<u64>();
                                size_override = Some(parsed.map_err(|_| {
                                    self.wrong(
                                        here,
                                        format!("a pax header gives the size `{value}`, expected a number"),
                                    )
                                })?);
                            }
                            key if key.starts_with("GNU.sparse") => {
                                return Err(self.wrong(here, "a sparse file: pack it without --sparse"));
                            }
                            _ => {}
                        }
                    }
                }
                b'S' => return Err(self.wrong(here, "a sparse file: pack it without --sparse")),
                // Long link targets and headers for all members say nothing that is needed.
                b'K' | b'g' => drop(self.body(here, size, "header")?),
                b'0' | 0 | b'7' => {
                    let size = size_override.take().unwrap_or(size);
                    let name = match long_name.take() {
                        Some(name) => name,
                        None => self.short_name(here, &header)?,
                    };
                    self.enter(here, &name, size)?;
                    // Before there were types, a folder was a name with a slash at its end.
                    if name.ends_with('/') {
                        start = None;
                        continue;
                    }
                    self.check_name(here, &name)?;
                    return Ok(Some(Member { name, size, start: first, content: self.at }));
                }
                _ => {
                    // Links and folders have no content; what else claims some is passed over.
                    let size = if matches!(kind, b'1'..=b'6') { 0 } else { size_override.take().unwrap_or(size) };
                    (long_name, size_override, start) = (None, None, None);
                    self.enter(here, "", size)?;
                }
            }
        }
    }

    /// The content of the current member, `most` bytes of it at most.
    pub(super) fn read(&mut self, member: &Member, most: u64) -> Result<Vec<u8>, DataError> {
        if member.size > most {
            let message = format!("member `{}` has {} bytes, over the limit of {most}", member.name, member.size);
            return Err(self.wrong(member.start, message));
        }
        self.take(member.start, &member.name)
    }

    fn enter(&mut self, here: u64, name: &str, size: u64) -> Result<(), DataError> {
        if let Some(length) = self.length
            && size > length.saturating_sub(self.at)
        {
            let left = length.saturating_sub(self.at);
            let message =
                format!("member `{name}` claims {size} bytes, but only {left} are left: the archive is cut off");
            return Err(self.wrong(here, message));
        }
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(())
    }

    /// Passes over what is left of a member.
    fn skip(&mut self) -> Result<(), DataError> {
        let bytes = self.left.saturating_add(self.padding);
        if bytes > 0 {
            self.input.skip(bytes).map_err(|error| self.broken(error))?;
            self.at = self.at.saturating_add(bytes);
            (self.left, self.padding) = (0, 0);
        }
        Ok(())
    }

    /// The content of what was entered. A size is believed only as far as there are bytes.
    fn take(&mut self, start: u64, name: &str) -> Result<Vec<u8>, DataError> {
        let mut content = Vec::with_capacity(self.left.min(1 << 20) as usize);
        let read = self.input.by_ref().take(self.left).read_to_end(&mut content);
        self.at += content.len() as u64;
        if let Err(error) = read {
            return Err(self.broken(error));
        }
        let missing = self.left - content.len() as u64;
        self.left = missing;
        if missing > 0 {
            let message = format!("member `{name}` lacks {missing} of its bytes: the archive is cut off");
            return Err(self.wrong(start, message));
        }
        Ok(content)
    }

    /// The content of a header's own member.
    fn body(&mut self, here: u64, size: u64, what: &str) -> Result<Vec<u8>, DataError> {
        if size > MOST_HEADER {
            return Err(self.wrong(here, format!("a {what} of {size} bytes is over the limit of {MOST_HEADER}")));
        }
        self.enter(here, what, size)?;
        self.take(here, what)
    }

    fn text(&mut self, here: u64, size: u64, what: &str) -> Result<String, DataError> {
        let mut bytes = self.body(here, size, what)?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        String::from_utf8(bytes).map_err(|_| self.wrong(here, format!("a {what} that is not UTF-8")))
    }

    /// The next header, or `None` at the archive's end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, DataError> {
        let mut block = [0; BLOCK];
        let (here, mut filled) = (self.at, 0);
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        self.at += filled as u64;
        if filled < BLOCK {
            return Err(self.wrong(here, "the archive is cut off: expected another header, or zeros that end it"));
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let claimed = self.number(here, &block[148..156], "checksum")?;
        // The checksum is that of a header with spaces in its place.
        let sum: u64 =
            block.iter().enumerate().map(|(i, &b)| u64::from(if (148..156).contains(&i) { b' ' } else { b })).sum();
        if claimed != sum {
            return Err(self.wrong(here, "not the header of a tar member: its checksum is wrong"));
        }
        Ok(Some(block))
    }

    /// A number in octal digits, or in binary where the first bit is set.
    fn number(&self, here: u64, field: &[u8], what: &str) -> Result<u64, DataError> {
        let wrong = || self.wrong(here, format!("a header whose {what} is no number"));
        match field {
            [first, rest @ ..] if first & 0x80 != 0 => {
                let head = u64::from(first & 0x7F);
                let value = rest.iter().try_fold(head, |value, &byte| Some(value.checked_mul(256)? + u64::from(byte)));
                value.filter(|value| *value <= i64::MAX as u64).ok_or_else(wrong)
            }
            _ => {
                let text = field.iter().map(|&byte| if byte == 0 { ' ' } else { char::from(byte) }).collect::<String>();
                match text.trim() {
                    "" => Ok(0),
                    digits => u64::from_str_radix(digits, 8).map_err(|_| wrong()),
                }
            }
        }
    }

    /// The name in the header itself, with ustar's prefix in front.
    fn short_name(&self, here: u64, header: &[u8; BLOCK]) -> Result<String, DataError> {
        let field = |bytes: &[u8]| {
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            let text = std::str::from_utf8(&bytes[..end]).map(str::to_owned);
            text.map_err(|_| self.wrong(here, "a name that is not UTF-8"))
        };
        let name = field(&header[..100])?;
        let is_posix = &header[257..263] == b"ustar\0";
        let prefix = if is_posix { field(&header[345..500])? } else { String::new() };
        Ok(if prefix.is_empty() { name } else { format!("{prefix}/{name}") })
    }

    fn check_name(&self, here: u64, name: &str) -> Result<(), DataError> {
        let refused = |why: &str| Err(self.wrong(here, format!("member `{}` {why}", name.escape_debug())));
        if name.is_empty() {
            return refused("has no name");
        }
        if name.starts_with(['/', '\\']) || name.get(1..3) == Some(":\\") {
            return refused("has an absolute name, which has no place in a dataset");
        }
        if name.split(['/', '\\']).any(|part| part == "..") {
            return refused("has `..` in its name, which has no place in a dataset");
        }
        if name.contains(['\0', '\n', '\r']) {
            return refused("has a name with line ends or zeros in it");
        }
        Ok(())
    }

    /// `LENGTH KEY=VALUE\n`, again and again.
    fn pax(&self, here: u64, bytes: &[u8]) -> Result<Vec<(String, String)>, DataError> {
        let wrong = || self.wrong(here, "a pax header that is not made of `LENGTH KEY=VALUE` lines");
        let mut records = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() && rest[0] != 0 {
            let space = rest.iter().position(|&byte| byte == b' ').ok_or_else(wrong)?;
            let length = std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse::<usize>().ok());
            let record = length.and_then(|length| rest.get(space + 1..length)).ok_or_else(wrong)?;
            rest = &rest[space + 1 + record.len()..];
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            // Values may be binary where a key of somebody's own says so; those are not asked for.
            let record = String::from_utf8_lossy(record);
            let (key, value) = record.split_once('=').ok_or_else(wrong)?;
            records.push((key.to_owned(), value.to_owned()));
        }
        Ok(records)
    }

    pub(super) fn wrong(&self, at: u64, message: impl Into<String>) -> DataError {
        DataError::format_at(&self.file, format!("byte {at}"), message)
    }

    fn broken(&self, error: io::Error) -> DataError {
        let message = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the archive is cut off".to_owned(),
            _ => format!("cannot read on: {error}"),
        };
        self.wrong(self.at, message)
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
