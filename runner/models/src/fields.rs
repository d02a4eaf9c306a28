//! Reading an object of a `config.json`: every mistake names its field, what was expected and what was found.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::ModelError;

/// One object of a configuration, and where it stands.
pub(crate) struct Fields<'a> {
    /// The file, for messages.
    file: &'a str,
    /// `text_config.`, or nothing.
    place: String,
    /// The values. `null` counts as left out.
    map: Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The outermost object of a file's text.
    pub(crate) fn parse(file: &'a str, text: &str) -> Result<Self, ModelError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| ModelError::file(file, format!("not JSON: {error}")))?;
        Ok(Self { file, place: String::new(), map: object(file, "the configuration", &value)?.clone() })
    }

    /// An object inside this one. Old checkpoints have `NAME_dict` beside `NAME`; where it is not null it wins whole,
    /// its missing values being the defaults, as in transformers.
    pub(crate) fn section(&self, name: &str) -> Result<Fields<'a>, ModelError> {
        let dict = format!("{name}_dict");
        let chosen = [dict.as_str(), name].into_iter().find_map(|key| Some((key, self.get(key)?)));
        let map = match chosen {
            Some((key, value)) => object(self.file, key, value)?.clone(),
            None => Map::new(),
        };
        Ok(Fields { file: self.file, place: format!("{name}."), map })
    }

    /// A value, unless it is left out.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// All values that are not left out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value))
    }

    /// The error that a field is.
    pub(crate) fn wrong(&self, name: &str, expected: &str, value: &Value) -> ModelError {
        self.problem(&format!("{name}: expected {expected}, found {}", found(value)))
    }

    /// An error of this object; the problem begins with a field's name.
    pub(crate) fn problem(&self, problem: &str) -> ModelError {
        ModelError::file(self.file, format!("{}{problem}", self.place))
    }

    /// A whole number, or the default.
    pub(crate) fn number(&self, name: &str, default: usize, range: RangeInclusive<usize>) -> Result<usize, ModelError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        whole(value, &range).ok_or_else(|| {
            self.wrong(name, &format!("a whole number from {} to {}", range.start(), range.end()), value)
        })
    }

    /// As many whole numbers, or the defaults.
    pub(crate) fn numbers<const N: usize>(
        &self,
        name: &str,
        default: [usize; N],
        range: RangeInclusive<usize>,
    ) -> Result<[usize; N], ModelError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let numbers = value.as_array().and_then(|values| values.iter().map(|value| whole(value, &range)).collect());
        numbers.and_then(|numbers: Vec<usize>| numbers.try_into().ok()).ok_or_else(|| {
            self.wrong(name, &format!("{N} whole numbers from {} to {}", range.start(), range.end()), value)
        })
    }

    /// A number, or the default.
    pub(crate) fn real(&self, name: &str, default: f32) -> Result<f32, ModelError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.as_f64().map(|number| number as f32);
        number.filter(|number| number.is_finite()).ok_or_else(|| self.wrong(name, "a number", value))
    }

    /// One of some words, or the default.
    pub(crate) fn word<'w>(&self, name: &str, default: &'w str, words: &[&'w str]) -> Result<&'w str, ModelError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        words.iter().find(|word| value == **word).copied().ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            self.wrong(name, &words.join(" or "), value)
        })
    }
}

fn whole(value: &Value, range: &RangeInclusive<usize>) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| range.contains(number))
}

fn object<'a>(file: &str, what: &str, value: &'a Value) -> Result<&'a Map<String, Value>, ModelError> {
    value
        .as_object()
        .ok_or_else(|| ModelError::file(file, format!("{what}: expected an object, found {}", found(value))))
}

/// A value in an error message: itself if short, else its type.
fn found(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return format!("`{text}`");
    }
    let kind = match value {
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
        _ => "a long value",
    };
    kind.to_owned()
}
