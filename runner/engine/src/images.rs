//! Decodes image columns where a stage wants pixels: once a chunk, whoever asks.

use std::sync::Arc;

use arrow_array::ArrayRef;
use rayon::prelude::*;
use runner_contract::{Batch, BatchError, ColumnData, ImageForm, ImageRef, ImagesBuilder};

use crate::{Decode, Decoded};

/// What was decoded in a chunk already.
#[derive(Default)]
pub(crate) struct DecodedImages(Vec<(ArrayRef, Pixels)>);

/// A decoded column: pixels of the rows that could be decoded, and why the others could not.
#[derive(Clone)]
pub(crate) struct Pixels {
    array: ArrayRef,
    /// Positions of the rows that could be decoded.
    pub(crate) good: Vec<u32>,
    /// Positions and reasons of the others.
    pub(crate) bad: Vec<(u32, String)>,
}

impl DecodedImages {
    /// The pixels of a column, or `None` if it holds pixels already.
    pub(crate) fn pixels(
        &mut self,
        batch: &Batch,
        column: &str,
        decode: &Decode,
    ) -> Result<Option<Pixels>, BatchError> {
        let array = batch.array(column)?;
        let known = self.0.iter().find(|(source, _)| Arc::ptr_eq(source, array));
        if let Some((_, pixels)) = known {
            return Ok(Some(pixels.clone()));
        }
        let images = batch.images(column)?;
        if images.iter().all(|image| matches!(image, ImageRef::Pixels { .. })) {
            return Ok(None);
        }
        let decoded: Vec<Result<Decoded, String>> = images
            .par_iter()
            .map(|image| match image {
                ImageRef::Encoded { bytes, path } => decode(bytes, path),
                ImageRef::Pixels { .. } => Err("pixels among files".to_owned()),
            })
            .collect();
        let (mut builder, mut good, mut bad) = (ImagesBuilder::new(ImageForm::Pixels), Vec::new(), Vec::new());
        for (row, decoded) in (0..).zip(decoded) {
            match decoded {
                Ok(Decoded { height, width, channels, data }) => {
                    builder.push(ImageRef::Pixels { height, width, channels, data: &data })?;
                    good.push(row);
                }
                Err(reason) => bad.push((row, reason)),
            }
        }
        let rows = Batch::new(vec![String::new(); good.len()]).with(column, ColumnData::Images(builder))?;
        let pixels = Pixels { array: rows.array(column)?.clone(), good, bad };
        self.0.push((array.clone(), pixels.clone()));
        Ok(Some(pixels))
    }
}

impl Pixels {
    /// The rows that could be decoded, with the pixels in place of the files.
    pub(crate) fn replace(&self, batch: &Batch, column: &str) -> Result<Batch, BatchError> {
        let good = if self.bad.is_empty() { batch.clone() } else { batch.take(&self.good)? };
        let field = good.records().schema().field_with_name(column)?.clone();
        good.with_array(field.with_data_type(self.array.data_type().clone()), self.array.clone())
    }
}
