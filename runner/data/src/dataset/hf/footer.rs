//! What a Parquet file claims about itself, checked before the library believes it.
//!
//! A footer is a message in Thrift's compact protocol. The library passes over lists in fields that it does not know without looking
//! whether they fit, so that a few bytes keep it busy for seconds; and it panics on columns that begin before the file.

use parquet::{arrow::arrow_reader::ArrowReaderMetadata, file::metadata::ColumnChunkMetaData};

/// Structs and lists inside each other; footers have about six.
const DEEPEST: usize = 64;
/// Most rows of a file.
const MOST_ROWS: i64 = 1 << 30;

/// Fails unless a footer is one struct of Thrift's compact protocol whose lists fit into it.
pub(super) fn check_message(footer: &[u8]) -> Result<(), &'static str> {
    Message { rest: footer }.fields(DEEPEST).ok_or("its footer ends early, or lists more than fits into it")
}

/// Fails unless every column lies inside of the file, and there are not too many rows.
pub(super) fn check_columns(metadata: &ArrowReaderMetadata, size: u64) -> Result<(), String> {
    let metadata = metadata.metadata();
    let rows = metadata.file_metadata().num_rows();
    if rows > MOST_ROWS {
        return Err(format!("it claims {rows} rows, over the limit of {MOST_ROWS} a file"));
    }
    for (number, group) in metadata.row_groups().iter().enumerate() {
        if let Some(column) = group.columns().iter().find(|column| end(column).is_none_or(|end| end > size)) {
            let name = column.column_path();
            return Err(format!("column {name} of row group {number} does not lie inside of its {size} bytes"));
        }
    }
    Ok(())
}

/// Where a column ends in the file.
fn end(column: &ColumnChunkMetaData) -> Option<u64> {
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    u64::try_from(start).ok()?.checked_add(u64::try_from(column.compressed_size()).ok()?)
}

/// What is left of a message.
struct Message<'a> {
    rest: &'a [u8],
}

impl Message<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn pass(&mut self, length: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(length).ok()?..)?;
        Some(())
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// The fields of a struct, up to its end.
    fn fields(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Some(());
            }
            if header >> 4 == 0 {
                self.number()?;
            }
            match header & 0x0F {
                // Truth is in the header.
                1 | 2 => {}
                kind => self.value(kind, depth)?,
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1..=3 => self.pass(1),
            4..=6 => self.number().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.number()?;
                self.pass(length)
            }
            9 | 10 => {
                let depth = depth.checked_sub(1)?;
                let header = self.byte()?;
                let count = if header >> 4 == 15 { self.number()? } else { u64::from(header >> 4) };
                // An element takes a byte at least.
                (count <= self.rest.len() as u64).then_some(())?;
                (0..count).try_for_each(|_| self.value(header & 0x0F, depth))
            }
            11 => {
                let depth = depth.checked_sub(1)?;
                let count = self.number()?;
                (count <= self.rest.len() as u64).then_some(())?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| {
                    self.value(kinds >> 4, depth)?;
                    self.value(kinds & 0x0F, depth)
                })
            }
            12 => self.fields(depth),
            13 => self.pass(16),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check_message;

    #[test]
    fn lists_must_fit_into_their_footer() {
        // Field 1, i32: 5; field 2, a list of three i32; field 4, text of two bytes; end.
        let whole = [0x15, 10, 0x19, 0x35, 2, 4, 6, 0x28, 2, b'a', b'b', 0];
        assert_eq!(check_message(&whole), Ok(()));
        for cut in 0..whole.len() {
            assert!(check_message(&whole[..cut]).is_err(), "{cut} bytes");
        }
        // A list of 2³² truths in nine bytes.
        assert!(check_message(&[0x19, 0xF1, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1, 0]).is_err());
        // Lists in lists without end.
        assert!(check_message(&[0x19; 1000]).is_err());
    }
}
