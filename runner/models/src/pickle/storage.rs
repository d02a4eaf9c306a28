//! Values of tensors: read from their storages, one tensor at a time.

use crate::{
    blob::Blob,
    pickle::{Problem, value::TensorView, zip::Entry},
};

/// Where a storage's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In the file as they are.
    Plain {
        /// The first.
        start: u64,
        /// How many.
        bytes: u64,
    },
    /// In an entry of an archive.
    Entry(Entry),
}

impl Place {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Plain { bytes, .. } => *bytes,
            Self::Entry(entry) => entry.size,
        }
    }

    fn read(&self, blob: &Blob, from: u64, length: u64) -> Result<Vec<u8>, Problem> {
        match self {
            Self::Plain { start, .. } => Ok(blob.read(start + from, length)?),
            Self::Entry(entry) => entry.read(blob, from, length),
        }
    }
}

impl TensorView {
    /// Elements of the tensor.
    pub(super) fn len(&self) -> u64 {
        self.shape.iter().fold(1, |len: u64, &n| len.wrapping_mul(n as u64))
    }

    /// The stretch of the storage that the tensor's elements lie in: the first and how many.
    pub(super) fn stretch(&self) -> (u64, u64) {
        if self.len() == 0 {
            return (0, 0);
        }
        // Both were checked when the tensor was made.
        let last: u64 = self.shape.iter().zip(&self.strides).map(|(&n, stride)| (n as u64 - 1) * stride).sum();
        (self.offset, last + 1)
    }

    /// The bytes of the elements, row-major, little-endian.
    pub(super) fn read(&self, blob: &Blob, place: Place, swap: bool) -> Result<Vec<u8>, Problem> {
        let (first, length) = self.stretch();
        let size = self.element.size;
        let mut bytes = place.read(blob, first * size, length * size)?;
        let size = usize::try_from(size).unwrap_or(1);
        if !self.is_contiguous() {
            bytes = self.gather(&bytes, size);
        }
        if swap {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }

    fn is_contiguous(&self) -> bool {
        if self.len() == 0 {
            return true;
        }
        let mut step = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
            let fits = n == 1 || stride == step;
            step *= n as u64;
            fits
        })
    }

    /// The elements in the order of the tensor's dimensions.
    fn gather(&self, bytes: &[u8], size: usize) -> Vec<u8> {
        let count = usize::try_from(self.len()).unwrap_or(0);
        let mut out = Vec::with_capacity(count * size);
        let mut index = vec![0usize; self.shape.len()];
        let mut at = 0u64;
        for _ in 0..count {
            let start = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(size);
            out.extend_from_slice(start.checked_add(size).and_then(|end| bytes.get(start..end)).unwrap_or_default());
            // The next index: the last dimension runs fastest.
            for ((i, &n), &stride) in index.iter_mut().zip(&self.shape).zip(&self.strides).rev() {
                *i += 1;
                at = at.wrapping_add(stride);
                if *i < n {
                    break;
                }
                at = at.wrapping_sub(stride.wrapping_mul(n as u64));
                *i = 0;
            }
        }
        out
    }
}
