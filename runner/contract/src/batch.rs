//! A batch of rows: Arrow columns behind typed accessors, with the row ids in front.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, StructArray, UInt32Array,
    builder::{ListBuilder, StringBuilder},
};
use arrow_schema::{ArrowError, DataType, Field};

use crate::{Column, ColumnType, Digest, ID, ImageRef, ImagesBuilder, Schema};

/// A batch is not what was expected of it.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// No such column.
    #[error("no column `{name}`: this batch has {have}")]
    Missing {
        /// The column asked for.
        name: String,
        /// The columns there are.
        have: String,
    },
    /// The column has another type.
    #[error("column `{name}` holds {found}, expected {expected}")]
    Type {
        /// The column.
        name: String,
        /// Its Arrow type.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// Columns of different lengths, or batches of different columns.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// The values of one column, before they become Arrow arrays.
pub enum ColumnData {
    /// `Text`
    Text(Vec<String>),
    /// `Texts`
    Texts(Vec<Vec<String>>),
    /// `Label`
    Labels(Vec<i64>),
    /// `Integer`
    Integers(Vec<i64>),
    /// `Number`
    Numbers(Vec<f64>),
    /// `Boolean`
    Booleans(Vec<bool>),
    /// `Embedding`: `[rows, dim]` row-major, and the space.
    Embeddings(Vec<f32>, usize, Digest),
    /// `Scores`: `[rows, width]` row-major.
    Scores(Vec<f32>, usize),
    /// `Image`
    Images(ImagesBuilder),
}

impl ColumnData {
    /// The logical type and the Arrow array.
    pub(crate) fn into_parts(self) -> Result<(ColumnType, ArrayRef), ArrowError> {
        Ok(match self {
            Self::Text(values) => (ColumnType::Text, Arc::new(StringArray::from(values))),
            Self::Texts(rows) => {
                let mut builder =
                    ListBuilder::new(StringBuilder::new()).with_field(Field::new("item", DataType::Utf8, false));
                for row in rows {
                    builder.append_value(row.into_iter().map(Some));
                }
                (ColumnType::Texts, Arc::new(builder.finish()))
            }
            Self::Labels(values) => (ColumnType::Label, Arc::new(Int64Array::from(values))),
            Self::Integers(values) => (ColumnType::Integer, Arc::new(Int64Array::from(values))),
            Self::Numbers(values) => (ColumnType::Number, Arc::new(Float64Array::from(values))),
            Self::Booleans(values) => (ColumnType::Boolean, Arc::new(BooleanArray::from(values))),
            Self::Embeddings(values, dim, space) => (ColumnType::Embedding { dim, space }, vectors(values, dim)?),
            Self::Scores(values, width) => (ColumnType::Scores, vectors(values, width)?),
            Self::Images(builder) => (ColumnType::Image, builder.finish()?),
        })
    }
}

fn vectors(values: Vec<f32>, width: usize) -> Result<ArrayRef, ArrowError> {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let width = i32::try_from(width).map_err(|_| ArrowError::InvalidArgumentError("vector too long".into()))?;
    Ok(Arc::new(FixedSizeListArray::try_new(item, width, Arc::new(Float32Array::from(values)), None)?))
}

/// Rows with ids, as typed columns. Cheap to clone: the columns are shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    records: RecordBatch,
}

impl Batch {
    /// A batch of these rows without columns yet.
    pub fn new(ids: Vec<String>) -> Self {
        let ids = StringArray::from(ids);
        let schema = arrow_schema::Schema::new(vec![Field::new(ID, DataType::Utf8, false)]);
        let records = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids)]);
        Self { records: records.unwrap_or_else(|_| RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty()))) }
    }

    /// Takes Arrow records whose first column is `id`.
    pub fn from_records(records: RecordBatch) -> Result<Self, BatchError> {
        let batch = Self { records };
        batch.typed::<StringArray>(ID, "row ids (utf8)")?;
        Ok(batch)
    }

    /// Adds a column, or replaces the one of that name.
    pub fn with(self, name: &str, data: ColumnData) -> Result<Self, BatchError> {
        self.with_metadata(name, data, BTreeMap::new())
    }

    /// Adds a column with free metadata that travels with it (see [`Batch::metadata`]).
    pub fn with_metadata(
        self,
        name: &str,
        data: ColumnData,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self, BatchError> {
        let (kind, array) = data.into_parts()?;
        let mut field = Column::new(name, kind).field(array.data_type().clone());
        field.metadata_mut().extend(metadata);
        self.with_array(field, array)
    }

    /// Adds a column that is an Arrow array already, or replaces the one of that name.
    pub fn with_array(self, field: Field, array: ArrayRef) -> Result<Self, BatchError> {
        let schema = self.records.schema();
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        let mut arrays = self.records.columns().to_vec();
        match fields.iter().position(|old| old.name() == field.name()) {
            Some(i) => (fields[i], arrays[i]) = (Arc::new(field), array),
            None => {
                fields.push(Arc::new(field));
                arrays.push(array);
            }
        }
        Ok(Self { records: RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), arrays)? })
    }

    /// The Arrow records, `id` first.
    pub fn records(&self) -> &RecordBatch {
        &self.records
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.records.num_rows()
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The logical schema: every column but `id` that names its type.
    pub fn schema(&self) -> Schema {
        Schema::new(self.records.schema().fields().iter().filter_map(|field| Column::of_field(field)))
    }

    /// The row ids.
    pub fn ids(&self) -> Result<&StringArray, BatchError> {
        self.typed(ID, "row ids (utf8)")
    }

    /// Whether there is such a column.
    pub fn has(&self, name: &str) -> bool {
        self.records.column_by_name(name).is_some()
    }

    /// The Arrow array of a column.
    pub fn array(&self, name: &str) -> Result<&ArrayRef, BatchError> {
        self.records.column_by_name(name).ok_or_else(|| {
            let schema = self.records.schema();
            let have = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
            BatchError::Missing { name: name.to_owned(), have }
        })
    }

    /// A free metadata value of a column, for instance the names of the candidates of a `scores` column.
    pub fn metadata(&self, column: &str, key: &str) -> Option<String> {
        self.records.schema().field_with_name(column).ok()?.metadata().get(key).cloned()
    }

    /// The logical type of a column.
    pub fn kind(&self, name: &str) -> Option<ColumnType> {
        Column::of_field(self.records.schema().field_with_name(name).ok()?).map(|column| column.kind)
    }

    fn typed<T: Array + 'static>(&self, name: &str, expected: &'static str) -> Result<&T, BatchError> {
        let array = self.array(name)?;
        array.as_any().downcast_ref().ok_or_else(|| BatchError::Type {
            name: name.to_owned(),
            found: array.data_type().to_string(),
            expected,
        })
    }

    /// A text column.
    pub fn text(&self, name: &str) -> Result<&StringArray, BatchError> {
        self.typed(name, "text")
    }

    /// A column of several texts a row.
    pub fn texts(&self, name: &str) -> Result<Vec<Vec<String>>, BatchError> {
        let lists: &ListArray = self.typed(name, "texts")?;
        let wrong =
            || BatchError::Type { name: name.to_owned(), found: lists.data_type().to_string(), expected: "texts" };
        lists
            .iter()
            .map(|row| {
                let row = row.ok_or_else(wrong)?;
                let row = row.as_any().downcast_ref::<StringArray>().ok_or_else(wrong)?;
                Ok(row.iter().flatten().map(str::to_owned).collect())
            })
            .collect()
    }

    /// A label or integer column.
    pub fn integers(&self, name: &str) -> Result<&[i64], BatchError> {
        Ok(self.typed::<Int64Array>(name, "integers")?.values())
    }

    /// A number column.
    pub fn numbers(&self, name: &str) -> Result<&[f64], BatchError> {
        Ok(self.typed::<Float64Array>(name, "numbers")?.values())
    }

    /// A truth-value column.
    pub fn booleans(&self, name: &str) -> Result<&BooleanArray, BatchError> {
        self.typed(name, "booleans")
    }

    /// An embedding or scores column: `[rows, width]` row-major, and the width.
    pub fn vectors(&self, name: &str) -> Result<(&[f32], usize), BatchError> {
        let lists: &FixedSizeListArray = self.typed(name, "vectors of f32")?;
        let width = usize::try_from(lists.value_length()).unwrap_or(0);
        let values = lists.values().as_any().downcast_ref::<Float32Array>().ok_or_else(|| BatchError::Type {
            name: name.to_owned(),
            found: lists.data_type().to_string(),
            expected: "vectors of f32",
        })?;
        let start = lists.offset() * width;
        Ok((&values.values()[start..start + lists.len() * width], width))
    }

    /// The pictures of an image column, encoded or as pixels.
    pub fn images(&self, name: &str) -> Result<Vec<ImageRef<'_>>, BatchError> {
        let images: &StructArray = self.typed(name, "images")?;
        let wrong =
            || BatchError::Type { name: name.to_owned(), found: images.data_type().to_string(), expected: "images" };
        fn part<'a, T: 'static>(images: &'a StructArray, name: &str) -> Option<&'a T> {
            images.column_by_name(name)?.as_any().downcast_ref()
        }
        if let Some(data) = part::<BinaryArray>(images, "data") {
            let size = |name| part::<UInt32Array>(images, name).ok_or_else(wrong);
            let (height, width, channels) = (size("height")?, size("width")?, size("channels")?);
            Ok((0..images.len())
                .map(|i| ImageRef::Pixels {
                    height: height.value(i) as usize,
                    width: width.value(i) as usize,
                    channels: channels.value(i) as usize,
                    data: data.value(i),
                })
                .collect())
        } else {
            let bytes = part::<BinaryArray>(images, "bytes").ok_or_else(wrong)?;
            let path = part::<StringArray>(images, "path").ok_or_else(wrong)?;
            Ok((0..images.len()).map(|i| ImageRef::Encoded { bytes: bytes.value(i), path: path.value(i) }).collect())
        }
    }

    /// The rows at these positions, in this order; a position may stand more than once.
    pub fn take(&self, rows: &[u32]) -> Result<Self, BatchError> {
        let rows = UInt32Array::from(rows.to_vec());
        Ok(Self { records: arrow_select::take::take_record_batch(&self.records, &rows)? })
    }

    /// Rows `offset..offset + length`, sharing their memory. Out of range is cut.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let offset = offset.min(self.len());
        Self { records: self.records.slice(offset, length.min(self.len() - offset)) }
    }

    /// `id` and these columns only; names that are not there are passed over.
    pub fn select(&self, names: &[&str]) -> Result<Self, BatchError> {
        let schema = self.records.schema();
        let keep: Vec<_> = (0..schema.fields().len())
            .filter(|&i| i == 0 || names.contains(&schema.field(i).name().as_str()))
            .collect();
        Ok(Self { records: self.records.project(&keep)? })
    }

    /// All rows of `batches`, which have the same columns.
    pub fn concat(batches: &[Self]) -> Result<Self, BatchError> {
        let Some(first) = batches.first() else { return Ok(Self::new(Vec::new())) };
        let records = arrow_select::concat::concat_batches(&first.records.schema(), batches.iter().map(Self::records))?;
        Ok(Self { records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageForm;

    fn sample() -> Batch {
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        for i in 0..3u8 {
            images.push(ImageRef::Pixels { height: 1, width: 2, channels: 1, data: &[i, i + 1] }).unwrap();
        }
        let space = Digest::of(b"model");
        Batch::new(vec!["a".into(), "b".into(), "c".into()])
            .with("image", ColumnData::Images(images))
            .unwrap()
            .with("label", ColumnData::Labels(vec![2, 0, 1]))
            .unwrap()
            .with("embedding", ColumnData::Embeddings(vec![0., 1., 2., 3., 4., 5.], 2, space))
            .unwrap()
            .with("captions", ColumnData::Texts(vec![vec!["x".into(), "y".into()], vec![], vec!["z".into()]]))
            .unwrap()
    }

    #[test]
    fn a_slice_reads_the_same_rows() {
        let batch = sample().slice(1, 2);
        assert_eq!(batch.ids().unwrap().value(0), "b");
        assert_eq!(batch.vectors("embedding").unwrap(), (&[2., 3., 4., 5.][..], 2));
        assert_eq!(batch.integers("label").unwrap(), [0, 1]);
        assert_eq!(batch.texts("captions").unwrap(), [vec![], vec!["z".to_owned()]]);
        let pixels = ImageRef::Pixels { height: 1, width: 2, channels: 1, data: &[1, 2] };
        assert_eq!(batch.images("image").unwrap()[0], pixels);
    }

    #[test]
    fn take_and_concat_keep_types() {
        let batch = sample();
        let all = Batch::concat(&[batch.take(&[2]).unwrap(), batch.take(&[0, 1]).unwrap()]).unwrap();
        assert_eq!(all.integers("label").unwrap(), [1, 2, 0]);
        assert_eq!(all.schema(), batch.schema());
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_named() {
        let batch = sample();
        assert_eq!(
            batch.text("caption").unwrap_err().to_string(),
            "no column `caption`: this batch has id, image, label, embedding, captions"
        );
        assert_eq!(batch.text("label").unwrap_err().to_string(), "column `label` holds Int64, expected text");
    }
}
