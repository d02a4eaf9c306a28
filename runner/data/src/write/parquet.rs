//! Parquet that other programs open: pictures are files (`struct<bytes, path>`, as Hugging Face's datasets have them).

use std::{fs::File, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use runner_contract::{Batch, ColumnData, ColumnType, ID, ImageForm, ImageRef, ImagesBuilder};

use crate::{DataError, encode_png};

pub(super) struct Parquet {
    /// Until the first rows say what columns there are.
    file: Option<File>,
    writer: Option<ArrowWriter<File>>,
}

impl Parquet {
    pub(super) fn new(file: File) -> Self {
        Self { file: Some(file), writer: None }
    }

    pub(super) fn push(&mut self, rows: &Batch) -> Result<(), DataError> {
        let rows = with_files(rows)?;
        self.write(rows.records())
    }

    pub(super) fn finish(&mut self) -> Result<(), DataError> {
        if self.writer.is_none() {
            // No rows: a file that says so.
            let schema = arrow_schema::Schema::new(vec![Field::new(ID, DataType::Utf8, false)]);
            self.write(&RecordBatch::new_empty(Arc::new(schema)))?;
        }
        match self.writer.take() {
            Some(writer) => writer.close().map(drop).map_err(invalid),
            None => Ok(()),
        }
    }

    fn write(&mut self, records: &RecordBatch) -> Result<(), DataError> {
        if let Some(file) = self.file.take() {
            self.writer = Some(ArrowWriter::try_new(file, records.schema(), None).map_err(invalid)?);
        }
        match &mut self.writer {
            Some(writer) => writer.write(records).map_err(invalid),
            None => Ok(()),
        }
    }
}

/// The rows with pixels as PNG files.
fn with_files(rows: &Batch) -> Result<Batch, DataError> {
    let mut out = rows.clone();
    for column in rows.schema().matching(|kind| *kind == ColumnType::Image) {
        let images = rows.images(&column.name).map_err(invalid)?;
        if !images.iter().any(|image| matches!(image, ImageRef::Pixels { .. })) {
            continue;
        }
        let mut files = ImagesBuilder::new(ImageForm::Encoded);
        for (image, id) in images.iter().zip(rows.ids().map_err(invalid)?) {
            let bytes = encode_png(*image)?;
            let path = format!("{}.png", id.unwrap_or_default());
            files.push(ImageRef::Encoded { bytes: &bytes, path: &path }).map_err(invalid)?;
        }
        out = out.with(&column.name, ColumnData::Images(files)).map_err(invalid)?;
    }
    Ok(out)
}

fn invalid(error: impl std::fmt::Display) -> DataError {
    DataError::Invalid(error.to_string())
}
