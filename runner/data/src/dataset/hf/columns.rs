//! What the columns of a Parquet file are, and their values.

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, LargeBinaryArray, LargeListArray, LargeStringArray, ListArray, RecordBatch, StringArray, StructArray,
    UInt8Array, UInt16Array, UInt32Array,
};
use arrow_schema::{DataType, Field as ArrowField};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use runner_contract::{
    Batch, Column, ColumnData, ColumnType, ID, ImageForm, ImageRef, ImagesBuilder, Schema, StageError,
};
use serde_json::Value;

use super::super::{IMAGE, LABEL};
use crate::decode::too_large;

/// Where Hugging Face's datasets keep their features, in the schema's metadata.
const FEATURES: &str = "huggingface";

/// The columns of a dataset and where they are in its files.
pub(super) struct Fields {
    pub(super) schema: Schema,
    pub(super) classes: Option<Vec<String>>,
    fields: Vec<Field>,
}

/// A column, and the field of the file that it is read from.
struct Field {
    name: String,
    source: String,
    position: usize,
    kind: ColumnType,
    data: DataType,
}

/// What a field of this type becomes; `None` is left out.
fn kind(field: &ArrowField) -> Option<ColumnType> {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8);
    Some(match field.data_type() {
        DataType::Struct(parts) => {
            let bytes = parts.iter().find(|part| part.name() == "bytes")?;
            matches!(bytes.data_type(), DataType::Binary | DataType::LargeBinary).then_some(ColumnType::Image)?
        }
        kind if is_text(kind) => ColumnType::Text,
        DataType::List(item) | DataType::LargeList(item) if is_text(item.data_type()) => ColumnType::Texts,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => ColumnType::Integer,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => ColumnType::Integer,
        DataType::Float32 | DataType::Float64 => ColumnType::Number,
        DataType::Boolean => ColumnType::Boolean,
        _ => return None,
    })
}

/// The columns of a file. One of pictures is called `image`, and one of classes `label`, as everywhere here.
pub(super) fn fields(file: &ArrowReaderMetadata, classes: Option<Vec<String>>) -> Result<Fields, String> {
    let features = features(file)?;
    let names_of = |source: &str| -> Option<Vec<String>> {
        let feature = features.get(source)?;
        let names = feature.get("names").filter(|_| feature.get("_type") == Some(&Value::from("ClassLabel")))?;
        names.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let arrow = file.schema();
    let kinds: Vec<(usize, &ArrowField, ColumnType)> = (0..)
        .zip(arrow.fields())
        .filter(|(_, field)| field.name() != ID)
        .filter_map(|(position, field)| Some((position, field.as_ref(), kind(field)?)))
        .collect();
    let pictures: Vec<&str> = kinds
        .iter()
        .filter(|(_, _, kind)| *kind == ColumnType::Image)
        .map(|(_, field, _)| field.name().as_str())
        .collect();
    let picture = pictures.iter().find(|name| **name == IMAGE).or(pictures.first()).copied();
    let integers =
        || kinds.iter().filter(|(_, _, kind)| *kind == ColumnType::Integer).map(|(_, field, _)| field.name().as_str());
    let label = integers()
        .find(|name| *name == LABEL)
        .or_else(|| ["fine_label", "labels"].into_iter().find(|name| integers().any(|other| other == *name)))
        .or_else(|| integers().find(|name| names_of(name).is_some()));
    let label = label.map(str::to_owned);
    let mut fields: Vec<Field> = Vec::new();
    for (position, field, kind) in kinds {
        let source = field.name().clone();
        let (name, kind) = match () {
            () if picture == Some(source.as_str()) => (IMAGE.to_owned(), kind),
            () if label.as_ref() == Some(&source) => (LABEL.to_owned(), ColumnType::Label),
            () => (source.clone(), kind),
        };
        if fields.iter().any(|field| field.name == name) {
            return Err(format!("two columns would be called `{name}`: rename one"));
        }
        fields.push(Field { name, source, position, kind, data: field.data_type().clone() });
    }
    if fields.is_empty() {
        return Err("no column of pictures, texts or numbers in it".to_owned());
    }
    let classes = label.as_ref().and_then(|label| classes.or_else(|| names_of(label)));
    let schema = Schema::new(fields.iter().map(|field| Column::new(&field.name, field.kind.clone())));
    Ok(Fields { schema, classes, fields })
}

/// The features that the file's metadata name; nothing where there are none.
fn features(file: &ArrowReaderMetadata) -> Result<Value, String> {
    let metadata = file.metadata().file_metadata().key_value_metadata();
    let text =
        metadata.into_iter().flatten().find(|entry| entry.key == FEATURES).and_then(|entry| entry.value.as_deref());
    let text = text.or_else(|| file.schema().metadata().get(FEATURES).map(String::as_str));
    let Some(text) = text else { return Ok(Value::Null) };
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("its `{FEATURES}` metadata are no JSON: {error}"))?;
    Ok(value.pointer("/info/features").cloned().unwrap_or(Value::Null))
}

impl Fields {
    /// Whether another file has these columns.
    pub(super) fn fit(&self, other: &ArrowReaderMetadata) -> bool {
        let schema = other.schema();
        self.fields.iter().all(|field| {
            let there = schema.fields().get(field.position);
            there.is_some_and(|there| *there.name() == field.source && *there.data_type() == field.data)
        })
    }

    /// The fields of these columns.
    pub(super) fn wanted(&self, dataset: &str, columns: &[String]) -> Result<Vec<usize>, StageError> {
        let place = |name: &String| {
            let place = self.fields.iter().position(|field| field.name == *name);
            place.ok_or_else(|| {
                let have = self.schema.names();
                StageError::new(format!("dataset {dataset} has no column `{name}`: it has {have}"))
            })
        };
        columns.iter().map(place).collect()
    }

    /// Where fields are in the file.
    pub(super) fn roots(&self, wanted: &[usize]) -> Vec<usize> {
        wanted.iter().map(|&field| self.fields[field].position).collect()
    }

    /// Adds the wanted columns of records to a batch of as many rows.
    pub(super) fn batch(&self, batch: Batch, records: &[RecordBatch], wanted: &[usize]) -> Result<Batch, String> {
        let mut batch = batch;
        for &field in wanted {
            let Field { name, source, kind, .. } = &self.fields[field];
            let arrays: Option<Vec<&ArrayRef>> = records.iter().map(|part| part.column_by_name(source)).collect();
            let arrays = arrays.ok_or_else(|| format!("column `{source}` is not there"))?;
            let data = self.column(kind, &arrays).map_err(|message| format!("column `{source}`: {message}"))?;
            batch = batch.with(name, data).map_err(|error| format!("column `{source}`: {error}"))?;
        }
        Ok(batch)
    }

    fn column(&self, kind: &ColumnType, arrays: &[&ArrayRef]) -> Result<ColumnData, String> {
        let integers = || -> Result<Vec<i64>, String> {
            let values: Vec<Option<i64>> = all(arrays, integers)?;
            values.into_iter().collect::<Option<_>>().ok_or_else(|| "a row without a value".to_owned())
        };
        Ok(match kind {
            ColumnType::Image => {
                let mut images = ImagesBuilder::new(ImageForm::Encoded);
                for array in arrays {
                    pictures(array, &mut images)?;
                }
                ColumnData::Images(images)
            }
            ColumnType::Text => {
                let texts: Vec<Option<String>> = all(arrays, texts)?;
                ColumnData::Text(texts.into_iter().map(Option::unwrap_or_default).collect())
            }
            ColumnType::Texts => ColumnData::Texts(all(arrays, lists)?),
            ColumnType::Label => {
                let labels = integers()?;
                let classes = self.classes.as_ref().map_or(i64::MAX, |classes| classes.len() as i64);
                match labels.iter().find(|label| !(0..classes).contains(*label)) {
                    Some(label) if classes < i64::MAX => {
                        return Err(format!("label {label}, but there are {classes} classes"));
                    }
                    Some(label) => return Err(format!("label {label}, expected a class number from 0")),
                    None => ColumnData::Labels(labels),
                }
            }
            ColumnType::Integer => ColumnData::Integers(integers()?),
            ColumnType::Number => ColumnData::Numbers(all(arrays, numbers)?),
            ColumnType::Boolean => {
                let values: Vec<Option<bool>> = all(arrays, |array| {
                    let values = array.as_any().downcast_ref::<BooleanArray>()?;
                    Some(values.iter().collect())
                })?;
                let values: Option<Vec<bool>> = values.into_iter().collect();
                ColumnData::Booleans(values.ok_or("a row without a value")?)
            }
            other => return Err(format!("{other} columns are not read")),
        })
    }
}

/// The values of all parts, one after the other.
fn all<T>(arrays: &[&ArrayRef], values: impl Fn(&ArrayRef) -> Option<Vec<T>>) -> Result<Vec<T>, String> {
    let mut all = Vec::new();
    for array in arrays {
        all.extend(values(array).ok_or_else(|| format!("unexpected values of type {}", array.data_type()))?);
    }
    Ok(all)
}

fn integers(array: &ArrayRef) -> Option<Vec<Option<i64>>> {
    macro_rules! as_any_of {
        ($($array:ty),*) => {
            $(if let Some(values) = array.as_any().downcast_ref::<$array>() {
                return Some(values.iter().map(|value| value.map(i64::from)).collect());
            })*
        };
    }
    as_any_of!(Int64Array, Int32Array, Int16Array, Int8Array, UInt32Array, UInt16Array, UInt8Array);
    None
}

/// Numbers; what is not there is not a number.
fn numbers(array: &ArrayRef) -> Option<Vec<f64>> {
    if let Some(values) = array.as_any().downcast_ref::<Float64Array>() {
        return Some(values.iter().map(|value| value.unwrap_or(f64::NAN)).collect());
    }
    let values = array.as_any().downcast_ref::<Float32Array>()?;
    Some(values.iter().map(|value| value.map_or(f64::NAN, f64::from)).collect())
}

fn texts(array: &ArrayRef) -> Option<Vec<Option<String>>> {
    if let Some(values) = array.as_any().downcast_ref::<StringArray>() {
        return Some(values.iter().map(|value| value.map(str::to_owned)).collect());
    }
    let values = array.as_any().downcast_ref::<LargeStringArray>()?;
    Some(values.iter().map(|value| value.map(str::to_owned)).collect())
}

fn lists(array: &ArrayRef) -> Option<Vec<Vec<String>>> {
    let row = |row: Option<ArrayRef>| match row {
        None => Some(Vec::new()),
        Some(row) => Some(texts(&row)?.into_iter().flatten().collect()),
    };
    if let Some(values) = array.as_any().downcast_ref::<ListArray>() {
        return values.iter().map(row).collect();
    }
    array.as_any().downcast_ref::<LargeListArray>()?.iter().map(row).collect()
}

/// Pictures' files. One that is not there is an empty file: unusable when somebody decodes it.
fn pictures(array: &ArrayRef, images: &mut ImagesBuilder) -> Result<(), String> {
    let wrong = || format!("unexpected values of type {}", array.data_type());
    let parts = array.as_any().downcast_ref::<StructArray>().ok_or_else(wrong)?;
    let bytes = parts.column_by_name("bytes").ok_or_else(wrong)?;
    let paths = parts.column_by_name("path").and_then(texts);
    for row in 0..parts.len() {
        let content = match bytes.as_any().downcast_ref::<BinaryArray>() {
            Some(bytes) if bytes.is_valid(row) => bytes.value(row),
            Some(_) => &[],
            None => match bytes.as_any().downcast_ref::<LargeBinaryArray>().ok_or_else(wrong)? {
                bytes if bytes.is_valid(row) => bytes.value(row),
                _ => &[],
            },
        };
        let path = paths.as_ref().and_then(|paths| paths.get(row)?.as_deref()).unwrap_or_default();
        let instead = too_large(content.len() as u64);
        let bytes = instead.as_deref().unwrap_or(content);
        images.push(ImageRef::Encoded { bytes, path }).map_err(|error| error.to_string())?;
    }
    Ok(())
}
