//! The bytes of a checkpoint's file, read piece by piece.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use runner_data::file;

use crate::ModelError;

/// Bytes that one thread reads at a time.
const PIECE: usize = 1 << 20;

/// A file, or what stands for one.
#[derive(Debug)]
pub(crate) struct Blob {
    /// The file, for messages.
    name: String,
    content: Content,
    /// Bytes in it.
    size: u64,
}

#[derive(Debug)]
enum Content {
    File(File),
    Memory(Cow<'static, [u8]>),
}

impl Blob {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let size = file::plain(path).map_err(ModelError::io(path))?.len();
        let file = File::open(path).map_err(ModelError::io(path))?;
        Ok(Self { name: path.display().to_string(), content: Content::File(file), size })
    }

    /// `name` stands for the file in messages.
    pub(crate) fn from_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let bytes = bytes.into();
        Self { name: name.to_owned(), size: bytes.len() as u64, content: Content::Memory(bytes) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// So many bytes from a place. What lies behind the end takes no memory.
    pub(crate) fn read(&self, from: u64, length: u64) -> Result<Vec<u8>, ModelError> {
        let short = || ModelError::file(&self.name, "the file ends early");
        if from.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(short());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| short())?];
        self.read_into(from, &mut bytes)
            .map_err(|source| ModelError::Io { path: PathBuf::from(&self.name), source })?;
        Ok(bytes)
    }

    /// So many numbers of 32 bits from a place, the first byte the lowest.
    pub(crate) fn read_f32(&self, from: u64, count: u64) -> Result<Vec<f32>, ModelError> {
        let short = || ModelError::file(&self.name, "the file ends early");
        let length = count.checked_mul(4).ok_or_else(short)?;
        if from.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(short());
        }
        let mut values = vec![0.0f32; usize::try_from(count).map_err(|_| short())?];
        self.read_into(from, bytemuck::cast_slice_mut(&mut values))
            .map_err(|source| ModelError::Io { path: PathBuf::from(&self.name), source })?;
        if cfg!(target_endian = "big") {
            values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
        }
        Ok(values)
    }

    /// Fills a buffer with what begins at a place.
    pub(crate) fn read_into(&self, from: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.content {
            // No position to share with other threads, so that they read side by side.
            Content::File(file) => buffer
                .par_chunks_mut(PIECE)
                .enumerate()
                .try_for_each(|(i, piece)| file.read_exact_at(piece, from + (i * PIECE) as u64)),
            Content::Memory(bytes) => {
                let start = usize::try_from(from).unwrap_or(usize::MAX);
                let found = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// The bytes from `start` up to `end`, one after another.
    pub(crate) fn range(&self, start: u64, end: u64) -> Range<'_> {
        Range { blob: self, position: start, end: end.min(self.size) }
    }
}

/// Part of a blob, to be read from front to back.
#[derive(Debug)]
pub(crate) struct Range<'a> {
    blob: &'a Blob,
    position: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        self.blob.read_into(self.position, &mut buffer[..length])?;
        self.position += length as u64;
        Ok(length)
    }
}
