//! Rows at rest: one Parquet file for what a stage made of a shard, with the sizes of the chunks that it was made in.
//!
//! Equal rows give equal bytes: no time stamps, no statistics, fixed encodings. The chunk sizes stand in the file's
//! metadata, so that rows read back are computed with in the same chunks as when they were made.

use std::collections::{BTreeMap, VecDeque};

use ::parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::Compression,
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
};
use arrow_schema::{FieldRef, SchemaRef};
use bytes::Bytes;
use runner_contract::{Batch, BatchError, Digest, ID};
use serde::{Deserialize, Serialize};

/// Raised when files are written in another way.
const VERSION: u32 = 1;
/// The entry of a file's metadata that holds a [`Layout`].
const LAYOUT: &str = "runner:layout";
/// Rows decoded at once when a file is read.
const READ_ROWS: usize = 1024;

/// A file of rows could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("{0}")]
    Layout(String),
}

/// What a file of rows says about itself besides its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) version: u32,
    /// Rows of each chunk, empty chunks included.
    pub(crate) chunks: Vec<usize>,
    /// Rows found unusable on the way here, by the key of who could not use them.
    pub(crate) bad: BTreeMap<Digest, u64>,
}

/// Writes a shard's rows chunk by chunk.
#[derive(Default)]
pub(crate) struct RowsWriter {
    writer: Option<(ArrowWriter<Vec<u8>>, SchemaRef)>,
    chunks: Vec<usize>,
}

impl RowsWriter {
    /// Adds a chunk. All chunks that have rows have the same columns.
    pub(crate) fn push(&mut self, chunk: &Batch) -> Result<(), RowsError> {
        self.chunks.push(chunk.len());
        if chunk.is_empty() {
            return Ok(());
        }
        let records = chunk.records();
        let writer = match &mut self.writer {
            Some((writer, schema)) if *schema == records.schema() => writer,
            Some((_, schema)) => {
                let differs = |(a, b): &(&FieldRef, &FieldRef)| a != b;
                let fields = schema.fields().clone();
                let found = records.schema();
                let first = fields.iter().zip(found.fields()).find(differs).map_or("…", |(a, _)| a.name());
                return Err(RowsError::Layout(format!(
                    "chunks of one shard differ in type or metadata of their columns (first: `{first}`)"
                )));
            }
            none => {
                let writer = ArrowWriter::try_new(Vec::new(), records.schema(), Some(properties()))?;
                &mut none.insert((writer, records.schema())).0
            }
        };
        writer.write(records)?;
        Ok(())
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.chunks.iter().sum()
    }

    /// The file.
    pub(crate) fn finish(self, bad: BTreeMap<Digest, u64>) -> Result<Vec<u8>, RowsError> {
        let layout = Layout { version: VERSION, chunks: self.chunks, bad };
        let mut writer = match self.writer {
            Some((writer, _)) => writer,
            None => ArrowWriter::try_new(Vec::new(), Batch::new(Vec::new()).records().schema(), Some(properties()))?,
        };
        let layout = serde_json::to_string(&layout).map_err(|error| RowsError::Layout(error.to_string()))?;
        writer.append_key_value_metadata(KeyValue::new(LAYOUT.to_owned(), layout));
        Ok(writer.into_inner()?)
    }
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by("runner".to_owned())
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(usize::MAX))
        .build()
}

/// Reads a shard's rows chunk by chunk, as they were written.
pub(crate) struct RowsReader {
    reader: ParquetRecordBatchReader,
    layout: Layout,
    next: usize,
    /// Rows read ahead, in order.
    pending: VecDeque<Batch>,
}

impl RowsReader {
    /// Opens a file to read `id` and these columns. Columns that it lacks are an error if it has rows.
    pub(crate) fn open(file: Bytes, columns: &[String]) -> Result<Self, RowsError> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let layout = layout(builder.metadata().file_metadata().key_value_metadata())?;
        let fields = builder.schema().fields().clone();
        let missing = columns.iter().find(|column| !fields.iter().any(|field| field.name() == *column));
        if let (Some(missing), true) = (missing, layout.chunks.iter().any(|&rows| rows > 0)) {
            return Err(RowsError::Layout(format!("they have no column `{missing}`")));
        }
        let roots = (0..fields.len()).filter(|&i| fields[i].name() == ID || columns.contains(fields[i].name()));
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = builder.with_projection(mask).with_batch_size(READ_ROWS).build()?;
        Ok(Self { reader, layout, next: 0, pending: VecDeque::new() })
    }

    /// The layout.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    fn chunk(&mut self, rows: usize) -> Result<Batch, RowsError> {
        let mut parts = Vec::new();
        let mut missing = rows;
        while missing > 0 {
            let batch = match self.pending.pop_front() {
                Some(batch) => batch,
                None => match self.reader.next() {
                    Some(records) => Batch::from_records(records.map_err(ParquetError::from)?)?,
                    None => return Err(RowsError::Layout(format!("{missing} rows are missing"))),
                },
            };
            if batch.len() > missing {
                self.pending.push_front(batch.slice(missing, batch.len() - missing));
            }
            let part = batch.slice(0, missing);
            missing -= part.len();
            parts.push(part);
        }
        Ok(match parts.len() {
            0 => Batch::new(Vec::new()),
            1 => parts.remove(0),
            _ => Batch::concat(&parts)?,
        })
    }
}

impl Iterator for RowsReader {
    type Item = Result<Batch, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = *self.layout.chunks.get(self.next)?;
        self.next += 1;
        Some(self.chunk(rows))
    }
}

fn layout(metadata: Option<&Vec<KeyValue>>) -> Result<Layout, RowsError> {
    let text =
        metadata.into_iter().flatten().find(|entry| entry.key == LAYOUT).and_then(|entry| entry.value.as_deref());
    let text = text.ok_or_else(|| RowsError::Layout("the file says nothing about its chunks".to_owned()))?;
    let layout: Layout = serde_json::from_str(text).map_err(|error| RowsError::Layout(error.to_string()))?;
    if layout.version > VERSION {
        return Err(RowsError::Layout(format!("version {} is newer than this program's {VERSION}", layout.version)));
    }
    Ok(layout)
}

/// One batch as a file, in chunks of `chunk` rows.
pub(crate) fn write_batch(batch: &Batch, chunk: usize) -> Result<Vec<u8>, RowsError> {
    let mut writer = RowsWriter::default();
    for start in (0..batch.len()).step_by(chunk) {
        writer.push(&batch.slice(start, chunk))?;
    }
    writer.finish(BTreeMap::new())
}

#[cfg(test)]
mod tests {
    use runner_contract::{ColumnData, ImageForm, ImageRef, ImagesBuilder};

    use super::*;

    fn batch(start: usize, rows: usize) -> Batch {
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        for i in 0..rows {
            images.push(ImageRef::Pixels { height: 1, width: 1, channels: 1, data: &[(start + i) as u8] }).unwrap();
        }
        let values = (0..rows * 2).map(|i| (start + i) as f32 / 3.0).collect();
        let meta = BTreeMap::from([("logit_scale".to_owned(), "100".to_owned()), ("a".to_owned(), "b".to_owned())]);
        Batch::new((start..start + rows).map(|i| format!("row/{i}")).collect())
            .with("image", ColumnData::Images(images))
            .unwrap()
            .with_metadata("embedding", ColumnData::Embeddings(values, 2, Digest::of(b"m")), meta)
            .unwrap()
            .with("captions", ColumnData::Texts((0..rows).map(|i| vec!["x".to_owned(); i % 3]).collect()))
            .unwrap()
    }

    fn file(sizes: &[usize]) -> Vec<u8> {
        let mut writer = RowsWriter::default();
        let mut start = 0;
        for &rows in sizes {
            writer.push(&if rows == 0 { Batch::new(Vec::new()) } else { batch(start, rows) }).unwrap();
            start += rows;
        }
        writer.finish(BTreeMap::from([(Digest::of(b"k"), 2)])).unwrap()
    }

    #[test]
    fn rows_come_back_in_the_chunks_that_they_were_written_in() {
        let sizes = [3, 0, 1500, 700, 0];
        let all = ["image".to_owned(), "embedding".to_owned(), "captions".to_owned()];
        let mut reader = RowsReader::open(file(&sizes).into(), &all).unwrap();
        assert_eq!(reader.layout().bad, BTreeMap::from([(Digest::of(b"k"), 2)]));
        let mut start = 0;
        for rows in sizes {
            let chunk = reader.next().unwrap().unwrap();
            assert_eq!(chunk.len(), rows);
            if rows > 0 {
                assert_eq!(chunk, batch(start, rows));
                assert_eq!(chunk.metadata("embedding", "logit_scale").as_deref(), Some("100"));
            }
            start += rows;
        }
        assert!(reader.next().is_none());
    }

    #[test]
    fn only_the_columns_asked_for_are_read() {
        let mut reader = RowsReader::open(file(&[4]).into(), &["captions".to_owned()]).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().schema().names(), "id, captions");
        assert!(RowsReader::open(file(&[4]).into(), &["nope".to_owned()]).is_err());
        assert!(RowsReader::open(file(&[0]).into(), &["nope".to_owned()]).is_ok());
    }

    #[test]
    fn equal_rows_give_equal_bytes() {
        assert_eq!(file(&[64, 64, 7]), file(&[64, 64, 7]));
        assert_ne!(file(&[64, 64, 7]), file(&[64, 64, 8]));
    }

    #[test]
    fn damaged_files_are_errors() {
        let whole = file(&[64, 5]);
        for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
            let read = RowsReader::open(whole[..cut].to_vec().into(), &[]);
            assert!(read.is_err());
        }
    }
}
