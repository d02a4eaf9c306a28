//! The IDX format of MNIST: a header of sizes, then bytes.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::DataError;

/// A file's content: sizes and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The size of every dimension, first the number of items.
    pub sizes: Vec<usize>,
    /// The bytes, row-major.
    pub data: Vec<u8>,
}

/// Most bytes that a header may promise: far above the largest of the MNIST family.
const MOST_BYTES: usize = 1 << 33;

/// How many times its size a packed file may unpack to: MNIST's take five times theirs, zeros a thousand times.
const MOST_TIMES: usize = 64;
/// What any packed file may unpack to: labels that come sorted pack well.
const MOST_ANYHOW: usize = 16 << 20;

/// The header of an IDX file: the sizes, and where the data begin. `start` holds the file's first bytes, `file` is for messages.
pub(super) fn header(start: &[u8], file: &str) -> Result<(Vec<usize>, usize), DataError> {
    let wrong = |message: String| DataError::format_at(file, "header", message);
    let [0, 0, kind, dimensions, rest @ ..] = start else {
        return Err(wrong("not an IDX file: it begins with two zero bytes, a type and a number of dimensions".into()));
    };
    if *kind != 0x08 {
        return Err(wrong(format!("values of type 0x{kind:02X}: only unsigned bytes (0x08) are read")));
    }
    let dimensions = usize::from(*dimensions);
    if !(1..=4).contains(&dimensions) {
        return Err(wrong(format!("{dimensions} dimensions, expected 1 to 4")));
    }
    let (sizes, _) = rest.as_chunks::<4>();
    let sizes: Vec<usize> = sizes.iter().take(dimensions).map(|size| u32::from_be_bytes(*size) as usize).collect();
    if sizes.len() != dimensions {
        return Err(wrong(format!("cut off: {} bytes of {}", start.len(), 4 + 4 * dimensions)));
    }
    let total = sizes.iter().try_fold(1usize, |total, &size| total.checked_mul(size));
    if total.is_none_or(|total| total > MOST_BYTES) {
        return Err(wrong(format!("sizes {sizes:?} are over the limit of {MOST_BYTES} bytes")));
    }
    Ok((sizes, 4 + 4 * dimensions))
}

/// Whether bytes are gzip.
pub(crate) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1F, 0x8B])
}

/// Unpacks gzip; at most `most` bytes come out.
pub(crate) fn gunzip(bytes: &[u8], most: usize, file: &str) -> Result<Vec<u8>, DataError> {
    let mut out = Vec::new();
    let read = GzDecoder::new(bytes).take(most as u64 + 1).read_to_end(&mut out);
    read.map_err(|error| DataError::format(file, format!("not whole gzip data: {error}")))?;
    if out.len() > most {
        return Err(DataError::format(file, format!("unpacks to more than the {most} bytes that it should hold")));
    }
    Ok(out)
}

/// Reads an IDX file of bytes, plain or gzip. `file` is for messages.
pub fn read_idx(bytes: &[u8], file: &str) -> Result<Idx, DataError> {
    let unpacked;
    let bytes = if is_gzip(bytes) {
        let mut start = [0; 20];
        let length = fill(&mut GzDecoder::new(bytes), &mut start)
            .map_err(|error| DataError::format(file, format!("not gzip data: {error}")))?;
        let (sizes, offset) = header(&start[..length], file)?;
        let most = offset + sizes.iter().product::<usize>();
        if most > MOST_ANYHOW.max(bytes.len().saturating_mul(MOST_TIMES)) {
            let packed = bytes.len();
            let message = format!(
                "sizes {sizes:?} make {most} bytes of the {packed} packed ones: more than {MOST_TIMES} times as many are only read unpacked (gunzip it)"
            );
            return Err(DataError::format_at(file, "header", message));
        }
        unpacked = gunzip(bytes, most, file)?;
        &unpacked
    } else {
        bytes
    };
    let (sizes, offset) = header(bytes, file)?;
    let (data, expected) = (&bytes[offset..], sizes.iter().product::<usize>());
    check_length(&sizes, data.len() as u64, expected as u64, file)?;
    Ok(Idx { sizes, data: data.to_vec() })
}

pub(super) fn check_length(sizes: &[usize], found: u64, expected: u64, file: &str) -> Result<(), DataError> {
    if found == expected {
        return Ok(());
    }
    let message = format!("{found} bytes of data, but sizes {sizes:?} make {expected}: the file is cut off or damaged");
    Err(DataError::format(file, message))
}

/// Reads until `buffer` is full or the input ends; returns the number of bytes.
pub(super) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}
