//! Rows of CSV, TSV and JSON Lines files, from any place on.

use std::{
    cell::Cell,
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    rc::Rc,
};

use serde_json::{Map, Value};

use crate::{DataError, error::short};

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
            let mut records = Records::new(input, separator);
            let record = records.next().map_err(|(_, message)| wrong(message))?;
            let Some(record) = record else {
                return Err(wrong("empty: expected a line of column names".into()));
            };
            check_number(record.len()).map_err(wrong)?;
            let names = record.iter().enumerate();
            let names = names.map(|(i, name)| if i == 0 { name.trim_start_matches('\u{FEFF}') } else { name });
            columns = names.map(|name| name.trim().to_owned()).collect();
            first = (records.reader.position().byte(), records.reader.position().line());
        }
        Format::JsonLines => {
            let mut line = String::new();
            let mut start = (0, 1);
            while line.trim().is_empty() {
                start.0 += line.len() as u64;
                start.1 += u64::from(!line.is_empty());
                line.clear();
                let read = read_line(&mut input, &mut line);
                let unreadable = |message| DataError::format_at(&file, format!("line {}", start.1), message);
                if read.map_err(unreadable)? == 0 {
                    return Err(wrong("empty: expected an object a line".into()));
                }
            }
            let object: Map<String, Value> =
                serde_json::from_str(line.trim_start_matches('\u{FEFF}').trim()).map_err(|error| {
                    DataError::format_at(
                        &file,
                        format!("line {}", start.1),
                        format!("not a JSON object: {}", short(&error.to_string())),
                    )
                })?;
            check_number(object.len()).map_err(wrong)?;
            columns = object.keys().cloned().collect();
            first = start;
        }
    }
    if columns.is_empty() || columns.iter().any(String::is_empty) {
        return Err(wrong(format!("a column without a name: {}", short(&format!("{columns:?}")))));
    }
    let mut names = HashSet::with_capacity(columns.len());
    if let Some(twice) = columns.iter().find(|name| !names.insert(name.as_str())) {
        return Err(wrong(format!("column `{}` stands twice", short(twice))));
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
            let mut records = Records::new(input, separator);
            let next = move || records.next().transpose();
            Box::new(std::iter::from_fn(next).map(move |record| {
                let record = record.map_err(|(at, message)| wrong(line + at - 1, message))?;
                let position = record.position().map_or((0, 0), |position| (position.byte(), position.line() - 1));
                let (start, line) = (start + position.0, line + position.1);
                if record.len() != columns.len() {
                    let message = format!(
                        "{} values, but there are {} columns ({})",
                        record.len(),
                        columns.len(),
                        short(&columns.join(", "))
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

/// Most columns of a table.
const MOST_COLUMNS: usize = 4096;

fn check_number(columns: usize) -> Result<(), String> {
    match columns > MOST_COLUMNS {
        true => Err(format!("{columns} columns, expected at most {MOST_COLUMNS}")),
        false => Ok(()),
    }
}

/// The longest line or row that is read, so that a file without line ends cannot fill the memory.
pub(super) const MOST_LINE: u64 = 64 << 20;

/// The records of a separated file.
struct Records {
    reader: csv::Reader<Rationed>,
    /// How many bytes more may be read for the record at hand.
    left: Rc<Cell<u64>>,
}

impl Records {
    fn new(input: BufReader<File>, separator: u8) -> Self {
        let left = Rc::new(Cell::new(0));
        let input = Rationed { input, left: left.clone() };
        let mut builder = csv::ReaderBuilder::new();
        let reader = builder.delimiter(separator).has_headers(false).flexible(true).from_reader(input);
        Self { reader, left }
    }

    /// The next record; an error comes with its line.
    fn next(&mut self) -> Result<Option<csv::StringRecord>, (u64, String)> {
        let line = self.reader.position().line();
        let mut record = csv::StringRecord::new();
        self.left.set(MOST_LINE);
        match self.reader.read_record(&mut record) {
            Ok(more) => Ok(more.then_some(record)),
            Err(error) => Err((error.position().map_or(line, csv::Position::line), short(&error.to_string()))),
        }
    }
}

/// What is read until the ration is used up. The library keeps a whole record in memory, however long.
struct Rationed {
    input: BufReader<File>,
    left: Rc<Cell<u64>>,
}

impl Read for Rationed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            let message = format!("a row of more than {MOST_LINE} bytes: is there a quote that nothing closes?");
            return Err(io::Error::other(message));
        }
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.input.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

pub(super) fn read_line(input: &mut impl BufRead, text: &mut String) -> Result<usize, String> {
    let length = input.by_ref().take(MOST_LINE).read_line(text).map_err(|error| error.to_string())?;
    if length as u64 == MOST_LINE { Err(format!("longer than {MOST_LINE} bytes")) } else { Ok(length) }
}

/// The values of a JSON object, in the order of the columns.
pub(super) fn object(text: &str, columns: &[String]) -> Result<Vec<Value>, String> {
    let mut object: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object: {}", short(&error.to_string())))?;
    let values = columns.iter().map(|column| {
        object.remove(column).ok_or_else(|| format!("no key `{}`, which the first row has", short(column)))
    });
    let values = values.collect::<Result<Vec<_>, _>>()?;
    match object.keys().next() {
        Some(extra) => Err(format!("key `{}`, which the first row lacks", short(extra))),
        None => Ok(values),
    }
}
