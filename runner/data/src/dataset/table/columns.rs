//! What type the columns of a text file have.

use std::collections::BTreeSet;

use runner_contract::ColumnType;
use serde_json::Value;

use super::{LABEL, rows::Format};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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

impl Kind {
    pub(super) fn column(self) -> Option<ColumnType> {
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
pub(super) struct Seen {
    texts: bool,
    lists: bool,
    integers: bool,
    numbers: bool,
    booleans: bool,
    other: bool,
    /// All texts are lists in JSON (CSV only).
    not_lists: bool,
    smallest: Option<i64>,
    pub(super) largest: Option<i64>,
    pub(super) names: BTreeSet<String>,
}

/// Most classes that are named by texts.
pub(super) const MOST_CLASSES: usize = 100_000;

impl Seen {
    /// Takes a value in; the cells of a CSV file are texts that may look like something else.
    pub(super) fn add(&mut self, value: &Value, format: Format, is_label: bool) {
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

    pub(super) fn kind(&self, source: &str, format: Format) -> Result<Kind, String> {
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
pub(super) fn list(cell: &str) -> Option<Vec<String>> {
    cell.starts_with('[').then(|| serde_json::from_str(cell).ok()).flatten()
}

/// What a CSV cell looks like: an integer or a number as JSON writes them, `true` or `false`, else text.
pub(super) fn typed(cell: &str) -> Value {
    match serde_json::from_str(cell) {
        // `007` and ` 7` stay text: written back they would be something else.
        Ok(Value::Number(number)) if number.is_f64() || number.to_string() == cell => Value::Number(number),
        Ok(Value::Bool(value)) => Value::Bool(value),
        _ => Value::String(cell.to_owned()),
    }
}
