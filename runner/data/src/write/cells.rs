//! Rows as text, for CSV and JSON lines.

use runner_contract::{Batch, BatchError, ColumnType, ImageRef};

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// Text.
    Text(String),
    /// Anything else, as JSON.
    Json(String),
}

impl Cell {
    /// As CSV has it.
    pub(super) fn plain(&self) -> &str {
        match self {
            Self::Json(text) if text == "null" => "",
            Self::Text(text) | Self::Json(text) => text,
        }
    }

    /// As JSON has it.
    pub(super) fn json(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Json(text) => text.clone(),
        }
    }
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The columns besides `id`.
pub(super) fn names(batch: &Batch) -> Vec<String> {
    batch.schema().columns.into_iter().map(|column| column.name).collect()
}

/// The cells of every row, with their columns' names, `id` first.
pub(super) fn rows(batch: &Batch) -> Result<Vec<Vec<(String, Cell)>>, BatchError> {
    let ids = batch.ids()?;
    let mut rows: Vec<Vec<_>> = ids
        .iter()
        .map(|id| vec![(runner_contract::ID.to_owned(), Cell::Text(id.unwrap_or_default().to_owned()))])
        .collect();
    for column in batch.schema().columns {
        let cells = column_cells(batch, &column.name, &column.kind)?;
        for (row, cell) in rows.iter_mut().zip(cells) {
            row.push((column.name.clone(), cell));
        }
    }
    Ok(rows)
}

fn column_cells(batch: &Batch, name: &str, kind: &ColumnType) -> Result<Vec<Cell>, BatchError> {
    let strings = |row: &Vec<String>| Cell::Json(serde_json::Value::from(row.as_slice()).to_string());
    Ok(match kind {
        ColumnType::Text => batch.text(name)?.iter().map(|it| Cell::Text(it.unwrap_or_default().to_owned())).collect(),
        ColumnType::Texts => batch.texts(name)?.iter().map(strings).collect(),
        ColumnType::Label | ColumnType::Integer => {
            batch.integers(name)?.iter().map(|it| Cell::Json(it.to_string())).collect()
        }
        ColumnType::Number => batch.numbers(name)?.iter().map(|&it| Cell::Json(number(it.is_finite(), it))).collect(),
        ColumnType::Boolean => {
            batch.booleans(name)?.iter().map(|it| Cell::Json(it.unwrap_or_default().to_string())).collect()
        }
        ColumnType::Embedding { .. } | ColumnType::Scores => {
            let (values, width) = batch.vectors(name)?;
            (0..batch.len())
                .map(|row| {
                    let values = values.iter().skip(row * width).take(width);
                    let values: Vec<_> = values.map(|&it| number(it.is_finite(), it)).collect();
                    Cell::Json(format!("[{}]", values.join(",")))
                })
                .collect()
        }
        ColumnType::Image => batch.images(name)?.iter().map(image).collect(),
    })
}

/// The shortest text that gives the number back; JSON has no other than finite ones.
fn number(finite: bool, value: impl std::fmt::Display) -> String {
    if finite { value.to_string() } else { "null".to_owned() }
}

/// A file's path, or the size of what never was a file.
fn image(image: &ImageRef<'_>) -> Cell {
    match image {
        ImageRef::Encoded { path, .. } => Cell::Text((*path).to_owned()),
        ImageRef::Pixels { height, width, channels, .. } => {
            Cell::Json(format!("{{\"height\":{height},\"width\":{width},\"channels\":{channels}}}"))
        }
    }
}
