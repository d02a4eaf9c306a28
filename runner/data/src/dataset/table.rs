//! CSV, TSV and JSON Lines: a row a picture, with captions, labels and whatever else stands beside it.
//!
//! The file is read through once when it is opened: every row is checked, types are found, and the place of every row is
//! remembered; after that, chunks are read from their places, so that memory does not grow with captions.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, ID, ImageForm, ImageRef, ImagesBuilder, KeyHasher, Schema,
};
use serde_json::{Map, Value};

use super::{
    IMAGE, LABEL, Table, batch_error,
    folder::{Digests, size_of},
    layout::Layout,
    numbered, numbered_key,
};
use crate::{DataError, error::read};

/// Names of a column of picture paths, which becomes `image`.
const IMAGE_NAMES: [&str; 7] = ["image", "image_path", "path", "file_name", "filename", "file", "filepath"];

/// Rows of a text file.
pub(super) struct TextTable {
    name: String,
    path: PathBuf,
    format: Format,
    /// The columns of the file, in its order.
    fields: Vec<Field>,
    classes: Option<Vec<String>>,
    schema: Schema,
    layout: Layout,
    /// Where each row starts (bytes), and the line that it starts on.
    places: Vec<(u64, u64)>,
    digests: Digests,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Separated(u8),
    JsonLines,
}

/// A column of the file.
struct Field {
    /// In the file.
    source: String,
    /// In the dataset: `id` and `image` have fixed names.
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Id,
    Image,
    Text,
    Texts,
    Label,
    NamedLabel,
    Integer,
    Number,
    Boolean,
}

/// A row of the file: where it starts, on which line, and its values in the order of the fields.
struct Row {
    start: u64,
    line: u64,
    values: Vec<Value>,
}

/// Opens a table by its extension.
pub(super) fn open(name: &str, path: &Path, extension: &str) -> Result<TextTable, DataError> {
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
                size_of(&path).map_err(|error| wrong(format!("row {}: {error}", places.len())))?
            }
        };
        if let Some(column) = id {
            let id = text(&row.values[column]);
            if id.is_empty() || !ids.insert(id.clone()) {
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
    for (i, (source, seen)) in sources.iter().zip(&seen).enumerate() {
        let kind = match () {
            () if Some(i) == id => Kind::Id,
            () if Some(i) == image => Kind::Image,
            () => seen
                .kind(source, format)
                .map_err(|message| DataError::format(&file, format!("column `{source}`: {message}")))?,
        };
        let name = if kind == Kind::Image { IMAGE.to_owned() } else { source.clone() };
        if fields.iter().any(|field: &Field| field.name == name) {
            return Err(DataError::format(file, format!("two columns are called `{name}`")));
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
    let (name, path, digests) = (name.to_owned(), path.to_owned(), Digests::default());
    Ok(TextTable { name, path, format, fields, classes, schema, layout: Layout::new(sizes), places, digests })
}

impl Kind {
    fn column(self) -> Option<ColumnType> {
        Some(match self {
            Self::Id => return None,
            Self::Image => ColumnType::Image,
            Self::Text => ColumnType::Text,
            Self::Texts => ColumnType::Texts,
            Self::Label | Self::NamedLabel => ColumnType::Label,
            Self::Integer => ColumnType::Integer,
            Self::Number => ColumnType::Number,
            Self::Boolean => ColumnType::Boolean,
        })
    }
}

/// What was seen of a column's values.
#[derive(Clone, Default)]
struct Seen {
    texts: bool,
    lists: bool,
    integers: bool,
    numbers: bool,
    booleans: bool,
    other: bool,
    /// All texts are lists in JSON (CSV only).
    not_lists: bool,
    smallest: Option<i64>,
    largest: Option<i64>,
    names: BTreeSet<String>,
}

/// Most classes that are named by texts.
const MOST_CLASSES: usize = 100_000;

impl Seen {
    /// Takes a value in; the cells of a CSV file are texts that may look like something else.
    fn add(&mut self, value: &Value, format: Format, is_label: bool) {
        if let Value::String(text) = value {
            self.not_lists |= list(text).is_none();
            if is_label && self.names.len() <= MOST_CLASSES {
                self.names.insert(text.clone());
            }
        }
        let typed = match (value, format) {
            (Value::String(cell), Format::Separated(_)) => &typed(cell),
            (value, _) => value,
        };
        match typed {
            Value::String(_) => self.texts = true,
            Value::Number(number) => match number.as_i64() {
                Some(integer) => {
                    self.integers = true;
                    self.smallest = Some(self.smallest.map_or(integer, |least| least.min(integer)));
                    self.largest = Some(self.largest.map_or(integer, |most| most.max(integer)));
                }
                None => self.numbers = true,
            },
            Value::Bool(_) => self.booleans = true,
            Value::Array(items) if items.iter().all(Value::is_string) => self.lists = true,
            _ => self.other = true,
        }
    }

    fn kind(&self, source: &str, format: Format) -> Result<Kind, String> {
        let Self { mut texts, lists, mut integers, mut numbers, mut booleans, other, .. } = *self;
        let found = [texts, lists, integers || numbers, booleans].into_iter().filter(|seen| *seen).count();
        if format != Format::JsonLines && found > 1 {
            // Some captions look like numbers.
            (texts, integers, numbers, booleans) = (true, false, false, false);
        } else if other || found != 1 {
            return Err("values of several types, null, or nested: expected texts, lists of texts, numbers or truth values throughout".into());
        }
        if source == LABEL {
            return match (integers && !numbers, texts) {
                (true, _) if self.smallest < Some(0) => Err(format!("label {} is below 0", self.smallest.unwrap_or(0))),
                (true, _) if self.largest >= Some(MOST_CLASSES as i64) => {
                    Err(format!("label {} is over the limit of {MOST_CLASSES} classes", self.largest.unwrap_or(0)))
                }
                (true, _) => Ok(Kind::Label),
                (_, true) if self.names.len() > MOST_CLASSES => Err(format!("more than {MOST_CLASSES} class names")),
                (_, true) => Ok(Kind::NamedLabel),
                _ => Err("labels are class numbers from 0 or class names".into()),
            };
        }
        Ok(match () {
            () if lists => Kind::Texts,
            () if texts && format != Format::JsonLines && !self.not_lists => Kind::Texts,
            () if texts => Kind::Text,
            () if booleans => Kind::Boolean,
            () if numbers => Kind::Number,
            () => Kind::Integer,
        })
    }
}

/// The texts of a CSV cell that holds a JSON list of them.
fn list(cell: &str) -> Option<Vec<String>> {
    cell.starts_with('[').then(|| serde_json::from_str(cell).ok()).flatten()
}

/// A value as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The path of a picture, relative to the table's folder.
fn picture(table: &Path, value: &Value) -> Result<PathBuf, String> {
    let path = value.as_str().filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| format!("the path of the picture is {value}, expected a text"))?;
    Ok(table.parent().unwrap_or(Path::new("")).join(path))
}

/// The columns, and where the first row starts: byte and line.
fn header(path: &Path, format: Format) -> Result<(Vec<String>, (u64, u64)), DataError> {
    let file = path.display().to_string();
    let mut input = BufReader::new(File::open(path).map_err(DataError::io("read", path))?);
    let wrong = |message: String| DataError::format_at(&file, "line 1", message);
    let columns: Vec<String>;
    let first;
    match format {
        Format::Separated(separator) => {
            let mut reader = csv::ReaderBuilder::new().delimiter(separator).has_headers(false).from_reader(input);
            let mut record = csv::StringRecord::new();
            let any = reader.read_record(&mut record).map_err(|error| wrong(error.to_string()))?;
            if !any {
                return Err(wrong("empty: expected a line of column names".into()));
            }
            let names = record.iter().enumerate();
            let names = names.map(|(i, name)| if i == 0 { name.trim_start_matches('\u{FEFF}') } else { name });
            columns = names.map(|name| name.trim().to_owned()).collect();
            first = (reader.position().byte(), reader.position().line());
        }
        Format::JsonLines => {
            let mut line = String::new();
            let mut start = (0, 1);
            while line.trim().is_empty() {
                start.0 += line.len() as u64;
                start.1 += u64::from(!line.is_empty());
                line.clear();
                if input.read_line(&mut line).map_err(DataError::io("read", path))? == 0 {
                    return Err(wrong("empty: expected an object a line".into()));
                }
            }
            let object: Map<String, Value> =
                serde_json::from_str(line.trim_start_matches('\u{FEFF}').trim()).map_err(|error| {
                    DataError::format_at(&file, format!("line {}", start.1), format!("not a JSON object: {error}"))
                })?;
            columns = object.keys().cloned().collect();
            first = start;
        }
    }
    if columns.is_empty() || columns.iter().any(String::is_empty) {
        return Err(wrong(format!("a column without a name: {columns:?}")));
    }
    if let Some(twice) = columns.iter().enumerate().find_map(|(i, name)| columns[..i].contains(name).then_some(name)) {
        return Err(wrong(format!("column `{twice}` stands twice")));
    }
    Ok((columns, first))
}

type RowIterator<'a> = Box<dyn Iterator<Item = Result<Row, DataError>> + 'a>;

/// The rows from a place on.
fn rows<'a>(
    path: &'a Path,
    format: Format,
    columns: &'a [String],
    (start, line): (u64, u64),
) -> Result<RowIterator<'a>, DataError> {
    let mut input = BufReader::new(File::open(path).map_err(DataError::io("read", path))?);
    input.seek(SeekFrom::Start(start)).map_err(DataError::io("read", path))?;
    let wrong = move |line: u64, message: String| {
        DataError::format_at(path.display().to_string(), format!("line {line}"), message)
    };
    Ok(match format {
        Format::Separated(separator) => {
            let reader =
                csv::ReaderBuilder::new().delimiter(separator).has_headers(false).flexible(true).from_reader(input);
            Box::new(reader.into_records().map(move |record| {
                let record = record.map_err(|error| {
                    let at = error.position().map_or(line, |position| line + position.line() - 1);
                    wrong(at, error.to_string())
                })?;
                let position = record.position().map_or((0, 0), |position| (position.byte(), position.line() - 1));
                let (start, line) = (start + position.0, line + position.1);
                if record.len() != columns.len() {
                    let message = format!(
                        "{} values, but there are {} columns ({})",
                        record.len(),
                        columns.len(),
                        columns.join(", ")
                    );
                    return Err(wrong(line, message));
                }
                Ok(Row { start, line, values: record.iter().map(Value::from).collect() })
            }))
        }
        Format::JsonLines => {
            let (mut start, mut line) = (start, line);
            Box::new(std::iter::from_fn(move || {
                loop {
                    let mut text = String::new();
                    match read_line(&mut input, &mut text) {
                        Ok(0) => return None,
                        Ok(length) => {
                            let here = (start, line);
                            start += length as u64;
                            line += 1;
                            let trimmed = text.trim_start_matches('\u{FEFF}').trim();
                            if !trimmed.is_empty() {
                                let values = object(trimmed, columns).map_err(|message| wrong(here.1, message));
                                return Some(values.map(|values| Row { start: here.0, line: here.1, values }));
                            }
                        }
                        Err(message) => {
                            let here = line;
                            // Nothing after an unreadable line can be trusted.
                            let _ = input.seek(SeekFrom::End(0));
                            return Some(Err(wrong(here, message)));
                        }
                    }
                }
            }))
        }
    })
}

/// The longest line that is read, so that a file without line ends cannot fill the memory.
const MOST_LINE: u64 = 64 << 20;

fn read_line(input: &mut impl BufRead, text: &mut String) -> Result<usize, String> {
    let length = input.by_ref().take(MOST_LINE).read_line(text).map_err(|error| error.to_string())?;
    if length as u64 == MOST_LINE { Err(format!("longer than {MOST_LINE} bytes")) } else { Ok(length) }
}

/// What a CSV cell looks like: an integer or a number as JSON writes them, `true` or `false`, else text.
fn typed(cell: &str) -> Value {
    match serde_json::from_str(cell) {
        // `007` and ` 7` stay text: written back they would be something else.
        Ok(Value::Number(number)) if number.is_f64() || number.to_string() == cell => Value::Number(number),
        Ok(Value::Bool(value)) => Value::Bool(value),
        _ => Value::String(cell.to_owned()),
    }
}

/// The values of a JSON object, in the order of the columns.
fn object(text: &str, columns: &[String]) -> Result<Vec<Value>, String> {
    let mut object: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    let values = columns
        .iter()
        .map(|column| object.remove(column).ok_or_else(|| format!("no key `{column}`, which the first row has")));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    match object.keys().next() {
        Some(extra) => Err(format!("key `{extra}`, which the first row lacks")),
        None => Ok(values),
    }
}

impl TextTable {
    fn rows(&self, rows: Range<usize>) -> Result<Vec<Row>, DataError> {
        let Some(&place) = self.places.get(rows.start) else { return Ok(Vec::new()) };
        let sources: Vec<String> = self.fields.iter().map(|field| field.source.clone()).collect();
        let read =
            self::rows(&self.path, self.format, &sources, place)?.take(rows.len()).collect::<Result<Vec<_>, _>>()?;
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
                format!("column `{}`: {message}", field.source),
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
                let classes = self.classes.as_deref().unwrap_or_default();
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
                    let bytes = read(&path).map_err(|error| changed(row, &error.to_string()))?;
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
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn classes(&self) -> Option<&[String]> {
        self.classes.as_deref()
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn batch(&self, rows: Range<usize>, wanted: &dyn Fn(&str) -> bool) -> Result<Batch, DataError> {
        let read = self.rows(rows.clone())?;
        let mut batch = Batch::new(match self.id_column() {
            None => rows.map(|row| numbered(&self.name, row)).collect(),
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
        let read = self.rows(rows.clone())?;
        let mut ids = numbered_key(&self.name, &rows);
        let mut columns = BTreeMap::new();
        for (i, field) in self.fields.iter().enumerate() {
            let mut key = KeyHasher::new("values/1").part("type", format!("{:?}", field.kind).as_bytes());
            for (row, number) in read.iter().zip(rows.clone()) {
                let value = &row.values[i];
                key = match field.kind {
                    Kind::Image => {
                        let file = self.path.display().to_string();
                        let path = picture(&self.path, value)
                            .map_err(|message| DataError::format_at(file, format!("line {}", row.line), message))?;
                        key.digest("file", &self.digests.of(number, &path)?)
                    }
                    _ => key.json("value", value),
                };
            }
            if field.kind == Kind::NamedLabel {
                // Labels are positions among all names.
                for class in self.classes.iter().flatten() {
                    key = key.part("class", class.as_bytes());
                }
            }
            match field.kind {
                Kind::Id => ids = key.finish(),
                _ => {
                    columns.insert(field.name.clone(), key.finish());
                }
            }
        }
        Ok((ids, columns))
    }
}
