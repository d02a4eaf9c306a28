//! CSV, TSV and JSON Lines: a row a picture, with captions, labels and whatever else stands beside it.
//!
//! The file is read through once when it is opened: every row is checked, types are found, and the place of every row is
//! remembered; after that, chunks are read from their places, so that memory does not grow with captions.

mod columns;
mod rows;

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    path::{Path, PathBuf},
};

use runner_contract::{Batch, Column, ColumnData, Digest, ID, ImageForm, ImageRef, ImagesBuilder, KeyHasher, Schema};
use serde_json::Value;

use columns::{Kind, Seen, list, typed};
use rows::{Format, Row, header, rows};

use super::{
    About, IMAGE, LABEL, Table, batch_error,
    layout::Layout,
    memory::{Digests, FileStamp, Remembered, Wanted},
    numbered, numbered_key,
};
use crate::{
    DataError,
    decode::{MOST_BYTES, too_large},
    error::short,
    file,
};

/// Names of a column of picture paths, which becomes `image`.
const IMAGE_NAMES: [&str; 7] = ["image", "image_path", "path", "file_name", "filename", "file", "filepath"];

/// What is remembered of a file: the keys of its columns. Raised when keys are made in another way.
const KEYS: &str = "keys/1";

/// Rows of a text file.
pub(super) struct TextTable {
    about: About,
    path: PathBuf,
    format: Format,
    /// The columns of the file, in its order.
    fields: Vec<Field>,
    /// Where each row starts (bytes), and the line that it starts on.
    places: Vec<(u64, u64)>,
    digests: Digests,
    /// The file, as it was before it was read.
    stamp: Option<FileStamp>,
    remembered: Remembered,
}

/// A column of the file.
struct Field {
    /// In the file.
    source: String,
    /// In the dataset: `id` and `image` have fixed names.
    name: String,
    kind: Kind,
}

/// Opens a table by its extension.
pub(super) fn open(name: &str, path: &Path, extension: &str, remembered: Remembered) -> Result<TextTable, DataError> {
    let stamp = FileStamp::of(path).map_err(DataError::io("read", path))?;
    let format = match extension {
        "csv" => Format::Separated(b','),
        "tsv" => Format::Separated(b'\t'),
        _ => Format::JsonLines,
    };
    let file = path.display().to_string();
    let (sources, first) = header(path, format)?;
    let mut seen = vec![Seen::default(); sources.len()];
    let image = IMAGE_NAMES.iter().find_map(|name| sources.iter().position(|source| source == name));
    let id = sources.iter().position(|source| source == ID);
    let (mut places, mut sizes, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
    for row in rows(path, format, &sources, first)? {
        let row = row?;
        let wrong = |message: String| DataError::format_at(&file, format!("line {}", row.line), message);
        for (i, value) in row.values.iter().enumerate() {
            seen[i].add(value, format, sources[i] == LABEL);
        }
        let size = match image {
            None => 64,
            Some(column) => {
                let path = picture(path, &row.values[column]).map_err(wrong)?;
                let found = file::plain(&path).map_err(DataError::io("read", &path));
                found.map_err(|error| wrong(format!("row {}: {error}", places.len())))?.len()
            }
        };
        if let Some(column) = id {
            let id = text(&row.values[column]);
            if id.is_empty() || !ids.insert(id.clone()) {
                let id = short(&id);
                return Err(wrong(format!("row {}: id `{id}` is empty or stands twice", places.len())));
            }
        }
        places.push((row.start, row.line));
        sizes.push(size);
    }
    if places.is_empty() {
        return Err(DataError::format(file, "no rows"));
    }
    let mut fields = Vec::with_capacity(sources.len());
    let mut names = HashSet::new();
    for (i, (source, seen)) in sources.iter().zip(&seen).enumerate() {
        let kind = match () {
            () if Some(i) == id => Kind::Id,
            () if Some(i) == image => Kind::Image,
            () => seen
                .kind(source, format)
                .map_err(|message| DataError::format(&file, format!("column `{}`: {message}", short(source))))?,
        };
        let name = if kind == Kind::Image { IMAGE.to_owned() } else { source.clone() };
        if !names.insert(name.clone()) {
            return Err(DataError::format(file, format!("two columns are called `{}`", short(&name))));
        }
        fields.push(Field { source: source.clone(), name, kind });
    }
    let label = fields.iter().position(|field| matches!(field.kind, Kind::Label | Kind::NamedLabel));
    let classes = label.map(|i| match fields[i].kind {
        Kind::NamedLabel => seen[i].names.iter().cloned().collect(),
        _ => (0..=seen[i].largest.unwrap_or(0)).map(|label| label.to_string()).collect(),
    });
    let columns = fields.iter().filter_map(|field| Some(Column::new(&field.name, field.kind.column()?)));
    let schema = Schema::new(columns);
    let about = About { name: name.to_owned(), schema, classes, layout: Layout::new(sizes) };
    let (path, digests) = (path.to_owned(), Digests::new(remembered.clone()));
    Ok(TextTable { about, path, format, fields, places, digests, stamp, remembered })
}

/// A value as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The path of a picture, relative to the table's folder.
fn picture(table: &Path, value: &Value) -> Result<PathBuf, String> {
    let path = value.as_str().filter(|path| !path.is_empty());
    let path =
        path.ok_or_else(|| format!("the path of the picture is {}, expected a text", short(&value.to_string())))?;
    Ok(table.parent().unwrap_or(Path::new("")).join(path))
}

/// A picture's file, or what stands for one that is too large.
fn read_picture(path: &Path) -> Result<Vec<u8>, DataError> {
    let read = || match too_large(file::plain(path)?.len()) {
        Some(instead) => Ok(instead),
        None => file::read(path, MOST_BYTES),
    };
    read().map_err(DataError::io("read", path))
}

impl TextTable {
    fn rows(&self, rows: Range<usize>) -> Result<Vec<Row>, DataError> {
        let Some(&place) = self.places.get(rows.start) else { return Ok(Vec::new()) };
        let sources: Vec<String> = self.fields.iter().map(|field| field.source.clone()).collect();
        let read =
            rows::rows(&self.path, self.format, &sources, place)?.take(rows.len()).collect::<Result<Vec<_>, _>>()?;
        if read.len() != rows.len() {
            return Err(DataError::format(self.path.display().to_string(), "it became shorter while it was read"));
        }
        Ok(read)
    }

    fn column(&self, i: usize, rows: &[Row]) -> Result<ColumnData, DataError> {
        let field = &self.fields[i];
        let changed = |row: &Row, message: &str| {
            let place = format!("line {}", row.line);
            DataError::format_at(
                self.path.display().to_string(),
                place,
                format!("column `{}`: {message}", short(&field.source)),
            )
        };
        fn each<T>(
            rows: &[Row],
            i: usize,
            changed: impl Fn(&Row, &str) -> DataError,
            value: impl Fn(&Value) -> Option<T>,
        ) -> Result<Vec<T>, DataError> {
            let value =
                |row: &Row| value(&row.values[i]).ok_or_else(|| changed(row, "another type than when it was opened"));
            rows.iter().map(value).collect()
        }
        Ok(match field.kind {
            Kind::Id | Kind::Text => ColumnData::Text(each(rows, i, changed, |value| Some(text(value)))?),
            Kind::Texts => ColumnData::Texts(each(rows, i, changed, |value| match value {
                Value::String(cell) => list(cell),
                Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
                _ => None,
            })?),
            Kind::Label => ColumnData::Labels(each(rows, i, changed, |value| self.typed(value).as_i64())?),
            Kind::NamedLabel => {
                let classes = self.about.classes.as_deref().unwrap_or_default();
                let label = |value: &Value| classes.binary_search(&text(value)).ok().map(|label| label as i64);
                ColumnData::Labels(each(rows, i, changed, label)?)
            }
            Kind::Integer => ColumnData::Integers(each(rows, i, changed, |value| self.typed(value).as_i64())?),
            Kind::Number => ColumnData::Numbers(each(rows, i, changed, |value| self.typed(value).as_f64())?),
            Kind::Boolean => ColumnData::Booleans(each(rows, i, changed, |value| self.typed(value).as_bool())?),
            Kind::Image => {
                let mut images = ImagesBuilder::new(ImageForm::Encoded);
                for row in rows {
                    let path = picture(&self.path, &row.values[i]).map_err(|message| changed(row, &message))?;
                    let bytes = read_picture(&path).map_err(|error| changed(row, &error.to_string()))?;
                    let path = text(&row.values[i]);
                    images.push(ImageRef::Encoded { bytes: &bytes, path: &path }).map_err(batch_error)?;
                }
                ColumnData::Images(images)
            }
        })
    }

    /// A value as its column's type: what a CSV cell looks like, a JSON value as it is.
    fn typed(&self, value: &Value) -> Value {
        match (value, self.format) {
            (Value::String(cell), Format::Separated(_)) => typed(cell),
            (value, _) => value.clone(),
        }
    }

    fn id_column(&self) -> Option<usize> {
        self.fields.iter().position(|field| field.kind == Kind::Id)
    }
}

impl Table for TextTable {
    fn about(&self) -> &About {
        &self.about
    }

    fn batch(&self, rows: Range<usize>, wanted: &dyn Fn(&str) -> bool) -> Result<Batch, DataError> {
        let read = self.rows(rows.clone())?;
        let mut batch = Batch::new(match self.id_column() {
            None => rows.map(|row| numbered(&self.about.name, row)).collect(),
            Some(id) => read.iter().map(|row| text(&row.values[id])).collect(),
        });
        for (i, field) in self.fields.iter().enumerate() {
            if field.kind != Kind::Id && wanted(&field.name) {
                batch = batch.with(&field.name, self.column(i, &read)?).map_err(batch_error)?;
            }
        }
        Ok(batch)
    }

    fn keys(&self, rows: Range<usize>) -> Result<(Digest, BTreeMap<String, Digest>), DataError> {
        // Where everything comes from the one file, everything may be remembered.
        let own = self.fields.iter().all(|field| field.kind != Kind::Image);
        let parts: Vec<String> = self
            .fields
            .iter()
            .map(|field| format!("{KEYS} {}..{} {:?} {}", rows.start, rows.end, field.kind, field.name))
            .collect();
        let known = self.stamp.as_ref().filter(|_| own).and_then(|stamp| self.remembered.parts(stamp, &parts));
        let keys = match known {
            Some(keys) => keys,
            None => {
                let keys = self.read_keys(rows.clone())?;
                if let Some(stamp) = self.stamp.as_ref().filter(|_| own) {
                    self.remembered.keep(stamp, &self.path, parts.into_iter().zip(keys.iter().copied()));
                }
                keys
            }
        };
        let (mut ids, mut columns) = (numbered_key(&self.about.name, &rows), BTreeMap::new());
        for (field, key) in self.fields.iter().zip(keys) {
            match field.kind {
                Kind::Id => ids = key,
                _ => drop(columns.insert(field.name.clone(), key)),
            }
        }
        Ok((ids, columns))
    }
}

impl TextTable {
    /// The key of each field's values in these rows.
    fn read_keys(&self, rows: Range<usize>) -> Result<Vec<Digest>, DataError> {
        let read = self.rows(rows.clone())?;
        let mut keys = Vec::with_capacity(self.fields.len());
        for (i, field) in self.fields.iter().enumerate() {
            let mut key = KeyHasher::new("values/1").part("type", format!("{:?}", field.kind).as_bytes());
            if field.kind == Kind::Image {
                let mut pictures = Vec::with_capacity(read.len());
                for (row, number) in read.iter().zip(rows.clone()) {
                    let path = picture(&self.path, &row.values[i]).map_err(|message| {
                        DataError::format_at(self.path.display().to_string(), format!("line {}", row.line), message)
                    })?;
                    pictures.push(Wanted { row: number, path, seen: None });
                }
                for digest in self.digests.of(&pictures)? {
                    key = key.digest("file", &digest);
                }
            } else {
                for row in &read {
                    key = key.json("value", &row.values[i]);
                }
            }
            if field.kind == Kind::NamedLabel {
                // Labels are positions among all names.
                for class in self.about.classes.iter().flatten() {
                    key = key.part("class", class.as_bytes());
                }
            }
            keys.push(key.finish());
        }
        Ok(keys)
    }
}
