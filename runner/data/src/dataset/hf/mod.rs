//! Parquet as Hugging Face's datasets have it: pictures as `struct<bytes, path>`, class names in the schema's metadata.
//!
//! Only the footers are read when it is opened; rows are read from the row groups that they lie in.

mod columns;
mod footer;

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::Cursor,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
        },
    },
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};
use rayon::prelude::*;
use runner_contract::{Batch, Digest, KeyHasher, Schema, ShardInfo, Source, StageError};

use super::{
    Dataset, class_rows,
    layout::Layout,
    memory::Remembered,
    numbered,
    place::{Entry, Place},
};
use crate::{DataError, contain::contain, error::shown};
use columns::{Fields, fields};

/// Most bytes of a footer: what is held of a file.
const MOST_FOOTER: u64 = 256 << 20;

/// Rows of Parquet files, one file after the other.
pub(super) struct HfParquet {
    name: String,
    files: Vec<File>,
    fields: Fields,
    remembered: Remembered,
    digests: Mutex<BTreeMap<usize, Digest>>,
}

struct File {
    reader: Ranges,
    metadata: ArrowReaderMetadata,
    /// Its first row among all.
    first: usize,
    /// Where its shards and chunks end, among its own rows.
    layout: Layout,
}

/// A file that is read in ranges.
#[derive(Clone)]
struct Ranges {
    place: Place,
    entry: Entry,
}

impl HfParquet {
    /// Opens files of the same columns. `classes` are the names of the classes, where somebody says.
    pub(super) fn open(
        name: &str,
        files: Vec<(Place, Entry)>,
        classes: Option<Vec<String>>,
        remembered: Remembered,
    ) -> Result<Self, DataError> {
        let opened: Vec<(Ranges, ArrowReaderMetadata)> = files
            .into_par_iter()
            .map(|(place, entry)| {
                let reader = Ranges { place, entry };
                let metadata = reader.metadata()?;
                Ok((reader, metadata))
            })
            .collect::<Result<_, DataError>>()?;
        let Some((first, metadata)) = opened.first() else {
            return Err(DataError::Invalid(format!("dataset {name}: no Parquet file")));
        };
        let fields = fields(metadata, classes).map_err(|message| first.place.failed(message))?;
        if let Some((other, _)) = opened.iter().find(|(_, other)| !fields.fit(other)) {
            let first = &first.place;
            return Err(other.place.failed(format!("it has other columns or types than {first}")));
        }
        let mut files = Vec::with_capacity(opened.len());
        let mut first = 0;
        for (reader, metadata) in opened {
            let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
            // What a row takes is known of row groups only.
            let sizes = metadata.metadata().row_groups().iter().flat_map(|group| {
                let rows = usize::try_from(group.num_rows()).unwrap_or(0);
                let bytes = u64::try_from(group.total_byte_size()).unwrap_or(0);
                std::iter::repeat_n(bytes / (rows as u64).max(1), rows)
            });
            let layout = Layout::new(sizes.take(rows));
            if layout.len() != rows {
                return Err(reader.place.failed(format!("its row groups do not hold the {rows} rows that it claims")));
            }
            files.push(File { reader, metadata, first, layout });
            first += rows;
        }
        if first == 0 {
            return Err(DataError::Invalid(format!("dataset {name}: no rows")));
        }
        Ok(Self { name: name.to_owned(), files, fields, remembered, digests: Mutex::default() })
    }

    /// File and rows in it of each shard that the first rows reach into.
    fn limited(&self, limit: Option<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let limit = limit.unwrap_or(usize::MAX);
        self.files.iter().enumerate().flat_map(move |(number, file)| {
            file.layout.shards(Some(limit.saturating_sub(file.first))).map(move |rows| (number, rows))
        })
    }

    fn digest(&self, number: usize) -> Result<Digest, DataError> {
        if let Some(digest) = self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return Ok(*digest);
        }
        let Ranges { place, entry } = &self.files[number].reader;
        let digest = place.digest(entry, &self.remembered)?;
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).insert(number, digest);
        Ok(digest)
    }

    fn info(&self, number: usize, rows: &Range<usize>) -> Result<ShardInfo, DataError> {
        let digest = self.digest(number)?;
        let key = |column: &str| {
            let bound = |row: usize| (row as u64).to_le_bytes();
            let key = KeyHasher::new("parquet-rows/1").digest("file", &digest).part("column", column.as_bytes());
            key.part("start", &bound(rows.start)).part("end", &bound(rows.end)).finish()
        };
        let first = self.files[number].first;
        let ids = super::numbered_key(&self.name, &(first + rows.start..first + rows.end));
        let columns = self.fields.schema.columns.iter().map(|column| (column.name.clone(), key(&column.name)));
        Ok(ShardInfo { rows: rows.len(), ids, columns: columns.collect() })
    }
}

impl File {
    /// Reads these columns of the file from a row on, `batch` rows at a time.
    fn reader(
        &self,
        roots: &[usize],
        rows: &Range<usize>,
        batch: usize,
    ) -> Result<ParquetRecordBatchReader, DataError> {
        let mut start = 0;
        let (mut groups, mut offset) = (Vec::new(), 0);
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let end = start + usize::try_from(group.num_rows()).unwrap_or(0);
            if start < rows.end && rows.start < end {
                if groups.is_empty() {
                    offset = rows.start - start;
                }
                groups.push(number);
            }
            start = end;
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
        let builder = builder.with_projection(mask).with_row_groups(groups).with_batch_size(batch);
        self.reader.contained(|| builder.with_offset(offset).with_limit(rows.len()).build())
    }
}

impl HfParquet {
    /// Rows of a file, in these chunks, with these fields.
    fn chunks<'a>(
        &'a self,
        file: &'a File,
        rows: &Range<usize>,
        chunks: Vec<Range<usize>>,
        wanted: Vec<usize>,
    ) -> Result<impl Iterator<Item = Result<Batch, DataError>> + Send + 'a, DataError> {
        let roots = self.fields.roots(&wanted);
        // Where no column is read, there is nothing to open.
        let mut reader = match roots.is_empty() {
            true => None,
            false => {
                let longest = chunks.iter().map(Range::len).max().unwrap_or(1);
                Some(Records { reader: file.reader(&roots, rows, longest)?, pending: None })
            }
        };
        Ok(chunks.into_iter().map(move |chunk| {
            let ids = chunk.clone().map(|row| numbered(&self.name, file.first + row)).collect();
            let batch = Batch::new(ids);
            let Some(reader) = &mut reader else { return Ok(batch) };
            let records = file.reader.contained(|| reader.take(chunk.len()))?;
            let place =
                |message: String| file.reader.place.failed(format!("rows {}..{}: {message}", chunk.start, chunk.end));
            self.fields.batch(batch, &records, &wanted).map_err(place)
        }))
    }
}

impl Source for HfParquet {
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let shards: Vec<_> = self.limited(limit).collect();
        let mut files: Vec<usize> = shards.iter().map(|(number, _)| *number).collect();
        files.dedup();
        files.into_par_iter().try_for_each(|number| self.digest(number).map(drop))?;
        shards.iter().map(|(number, rows)| self.info(*number, rows).map_err(StageError::from)).collect()
    }

    fn read<'a>(
        &'a self,
        shard: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        let wanted = self.fields.wanted(&self.name, columns)?;
        let Some((number, rows)) = self.limited(limit).nth(shard) else {
            return Err(StageError::new(format!("dataset {} has no shard {shard}", self.name)));
        };
        let file = &self.files[number];
        let chunks = file.layout.chunks(rows.clone()).collect();
        let chunks = self.chunks(file, &rows, chunks, wanted)?;
        Ok(Box::new(chunks.map(|chunk| chunk.map_err(StageError::from))))
    }

    fn rows(
        &self,
        shard: usize,
        limit: Option<usize>,
        positions: &[u32],
        columns: &[String],
    ) -> Result<Batch, StageError> {
        let wanted = self.fields.wanted(&self.name, columns)?;
        let Some((number, rows)) = self.limited(limit).nth(shard) else {
            return Err(StageError::new(format!("dataset {} has no shard {shard}", self.name)));
        };
        let mut found = Vec::new();
        for run in positions.chunk_by(|a, b| a + 1 == *b) {
            let start = rows.start + run[0] as usize;
            let run = start..start + run.len();
            if run.end > rows.end {
                return Err(StageError::new(format!("dataset {} has no row {} in shard {shard}", self.name, run.end)));
            }
            for chunk in self.chunks(&self.files[number], &run, vec![run.clone()], wanted.clone())? {
                found.push(chunk?);
            }
        }
        Ok(Batch::concat(&found)?)
    }

    fn side(&self, port: &str) -> Result<(Digest, Batch), StageError> {
        class_rows(&self.name, self.classes(), port)
    }
}

impl Dataset for HfParquet {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> &Schema {
        &self.fields.schema
    }

    fn classes(&self) -> Option<&[String]> {
        self.fields.classes.as_deref()
    }

    fn len(&self) -> usize {
        self.files.last().map_or(0, |file| file.first + file.layout.len())
    }
}

/// Records in portions of any size.
struct Records {
    reader: ParquetRecordBatchReader,
    pending: Option<arrow_array::RecordBatch>,
}

impl Records {
    fn take(&mut self, rows: usize) -> Result<Vec<arrow_array::RecordBatch>, ParquetError> {
        let (mut parts, mut missing) = (Vec::new(), rows);
        while missing > 0 {
            let batch = match self.pending.take() {
                Some(batch) => batch,
                None => match self.reader.next() {
                    Some(batch) => batch?,
                    None => return Err(ParquetError::EOF(format!("{missing} rows are missing"))),
                },
            };
            let taken = batch.num_rows().min(missing);
            if taken < batch.num_rows() {
                self.pending = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            parts.push(batch.slice(0, taken));
            missing -= taken;
        }
        Ok(parts)
    }
}

impl Ranges {
    fn failed(&self, error: &impl Display) -> DataError {
        self.place.failed(format!("not a Parquet file that can be read: {}", shown(&error.to_string())))
    }

    /// Calls the library, which panics on some of the files that lie to it.
    fn contained<T>(&self, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
        contain(|| read().map_err(|error| error.to_string())).map_err(|error| self.failed(&error))
    }
}

impl Ranges {
    /// Reads the footer, and checks it before the library believes it.
    fn metadata(&self) -> Result<ArrowReaderMetadata, DataError> {
        let size = self.entry.size;
        let tail = self.range(size.saturating_sub(8), size).map_err(|error| self.failed(&error))?;
        if let [a, b, c, d, b'P', b'A', b'R', b'1'] = tail[..] {
            let length = u64::from(u32::from_le_bytes([a, b, c, d]));
            if length <= MOST_FOOTER && length <= size - 8 {
                let footer = self.range(size - 8 - length, size - 8).map_err(|error| self.failed(&error))?;
                footer::check_message(&footer).map_err(|message| self.place.failed(message))?;
            }
        }
        let metadata = self.contained(|| ArrowReaderMetadata::load(self, ArrowReaderOptions::new()))?;
        footer::check_columns(&metadata, size).map_err(|message| self.place.failed(message))?;
        Ok(metadata)
    }
}

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.entry.size
    }
}

impl ChunkReader for Ranges {
    type T = Cursor<Vec<u8>>;

    /// Readers take what they need in small steps from here; pages themselves are asked for by `get_bytes`.
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let end = self.entry.size.min(start.saturating_add(64 << 10));
        Ok(Cursor::new(self.range(start, end)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|end| *end <= self.entry.size);
        let end = end.ok_or_else(|| ParquetError::EOF("it is cut off".to_owned()))?;
        if length as u64 > MOST_FOOTER.max(1 << 30) {
            return Err(ParquetError::General(format!("a part of {length} bytes is over the limit")));
        }
        Ok(self.range(start, end)?.into())
    }
}

impl Ranges {
    fn range(&self, start: u64, end: u64) -> Result<Vec<u8>, ParquetError> {
        let read = self.place.read_range(&self.entry, start..end.max(start));
        read.map_err(|error| ParquetError::External(Box::new(error)))
    }
}
