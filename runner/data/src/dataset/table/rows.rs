//! Rows of CSV, TSV and JSON Lines files, from any place on.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use serde_json::{Map, Value};

use crate::DataError;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Separated(u8),
    JsonLines,
}

/// A row of the file: where it starts, on which line, and its values in the order of the fields.
pub(super) struct Row {
    pub(super) start: u64,
    pub(super) line: u64,
    pub(super) values: Vec<Value>,
}

/// The columns, and where the first row starts: byte and line.
pub(super) fn header(path: &Path, format: Format) -> Result<(Vec<String>, (u64, u64)), DataError> {
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

pub(super) type RowIterator<'a> = Box<dyn Iterator<Item = Result<Row, DataError>> + 'a>;

/// The rows from a place on.
pub(super) fn rows<'a>(
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
pub(super) const MOST_LINE: u64 = 64 << 20;

pub(super) fn read_line(input: &mut impl BufRead, text: &mut String) -> Result<usize, String> {
    let length = input.by_ref().take(MOST_LINE).read_line(text).map_err(|error| error.to_string())?;
    if length as u64 == MOST_LINE { Err(format!("longer than {MOST_LINE} bytes")) } else { Ok(length) }
}

/// The values of a JSON object, in the order of the columns.
pub(super) fn object(text: &str, columns: &[String]) -> Result<Vec<Value>, String> {
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
