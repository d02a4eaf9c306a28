//! Image columns: their two forms, and how one is built.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, StringArray, StructArray, UInt32Array, builder::BinaryBuilder};
use arrow_schema::{ArrowError, Field};

use crate::BatchError;

/// One picture of an image column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageRef<'a> {
    /// A file's bytes (PNG, JPEG, …) and where they came from.
    Encoded {
        /// The file.
        bytes: &'a [u8],
        /// Its path or name, for messages and export.
        path: &'a str,
    },
    /// Decoded pixels, u8, `[height, width, channels]`, channels 1 (grey) or 3 (RGB).
    Pixels {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// 1 or 3.
        channels: usize,
        /// `height · width · channels` bytes.
        data: &'a [u8],
    },
}

/// In which form an image column holds its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageForm {
    /// Files.
    Encoded,
    /// Decoded.
    Pixels,
}

/// Collects an image column; all its pictures have one form.
pub struct ImagesBuilder {
    form: ImageForm,
    sizes: [Vec<u32>; 3],
    data: Box<BinaryBuilder>,
    path: Vec<String>,
}

impl ImagesBuilder {
    /// An empty column of that form.
    pub fn new(form: ImageForm) -> Self {
        Self { form, sizes: Default::default(), data: Box::default(), path: Vec::new() }
    }

    /// Adds a picture. It must have the column's form and a size that fits its data.
    pub fn push(&mut self, image: ImageRef<'_>) -> Result<(), BatchError> {
        let mismatch = |found: &str| {
            Err(BatchError::Type { name: "image".into(), found: found.to_owned(), expected: "images of one form" })
        };
        match (self.form, image) {
            (ImageForm::Encoded, ImageRef::Encoded { bytes, path }) => {
                self.data.append_value(bytes);
                self.path.push(path.to_owned());
            }
            (ImageForm::Pixels, ImageRef::Pixels { height, width, channels, data }) => {
                if data.len() != height * width * channels {
                    return mismatch("pixels of another size than said");
                }
                for (builder, size) in self.sizes.iter_mut().zip([height, width, channels]) {
                    builder.push(u32::try_from(size).unwrap_or(u32::MAX));
                }
                self.data.append_value(data);
            }
            (ImageForm::Encoded, _) => return mismatch("pixels among files"),
            (ImageForm::Pixels, _) => return mismatch("a file among pixels"),
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let field = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), false);
        let data: ArrayRef = Arc::new(self.data.finish());
        let parts: Vec<(&str, ArrayRef)> = match self.form {
            ImageForm::Encoded => vec![("bytes", data), ("path", Arc::new(StringArray::from(self.path)))],
            ImageForm::Pixels => {
                let [height, width, channels] = self.sizes.map(|size| Arc::new(UInt32Array::from(size)) as ArrayRef);
                vec![("height", height), ("width", width), ("channels", channels), ("data", data)]
            }
        };
        let fields: Vec<_> = parts.iter().map(|(name, array)| field(name, array)).collect();
        let arrays = parts.into_iter().map(|(_, array)| array).collect();
        Ok(Arc::new(StructArray::try_new(fields.into(), arrays, None)?))
    }
}
