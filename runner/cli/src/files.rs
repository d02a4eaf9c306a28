//! Files named on the command line, read no further than a sound one is long.

use std::path::Path;

use runner_data::file;

use crate::failure::Failure;

/// The longest picture, in bytes: more than the most pixels that are decoded take.
pub(crate) const MAX_PICTURE: u64 = 512 << 20;
/// The longest list of labels, in bytes.
pub(crate) const MAX_LABELS: u64 = 64 << 20;
/// The longest `runner.toml`, and the longest file of secrets, in bytes.
pub(crate) const MAX_SETTINGS: u64 = 1 << 20;

/// Reads a whole file of at most so many bytes, or what comes out of a pipe.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    file::read_or_drain(path, most).map_err(Failure::file("read", path))
}

/// The same of a text.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String, Failure> {
    file::text(read(path, most)?).map_err(Failure::file("read", path))
}
