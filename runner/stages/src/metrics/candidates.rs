//! What the columns of a `scores` column stand for.

use std::collections::HashMap;

use runner_contract::{Batch, StageError};

use crate::score::{LABELS, NAMES, PROBABILITIES, UNIT};

/// The classes that a `scores` column scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidates {
    pub(super) names: Vec<String>,
    pub(super) labels: Vec<i64>,
    /// The scores are probabilities, not logits.
    pub(super) probabilities: bool,
    /// Where each label stands; the first of equals.
    places: HashMap<i64, usize>,
    /// The metadata that this was read from, to know it again without reading.
    raw: [Option<String>; 3],
}

impl Candidates {
    pub(super) fn new(names: Vec<String>, labels: Vec<i64>, probabilities: bool) -> Self {
        let mut places = HashMap::new();
        for (place, &label) in labels.iter().enumerate() {
            places.entry(label).or_insert(place);
        }
        Self { names, labels, probabilities, places, raw: Default::default() }
    }

    /// Reads them from the column's metadata; without, they are numbered.
    pub(super) fn of_scores(rows: &Batch, column: &str) -> Result<Self, StageError> {
        let (_, width) = rows.vectors(column)?;
        let raw = Self::raw(rows, column);
        let labels: Vec<i64> = match &raw[0] {
            Some(text) => parse(text, column)?,
            None => (0..width as i64).collect(),
        };
        let names: Vec<String> = match &raw[1] {
            Some(text) => parse(text, column)?,
            None => labels.iter().map(i64::to_string).collect(),
        };
        if labels.len() != width || names.len() != width {
            return Err(StageError::new(format!(
                "column `{column}` has {width} scores a row, but names {} candidates",
                names.len()
            )));
        }
        let probabilities = raw[2].as_deref() == Some(PROBABILITIES);
        Ok(Self { raw, ..Self::new(names, labels, probabilities) })
    }

    fn raw(rows: &Batch, column: &str) -> [Option<String>; 3] {
        [LABELS, NAMES, UNIT].map(|key| rows.metadata(column, key))
    }

    /// Whether a column's candidates are certainly these.
    pub(super) fn are_those_of(&self, rows: &Batch, column: &str) -> bool {
        self.raw[1].is_some() && self.raw == Self::raw(rows, column)
    }

    /// The same classes in the same order.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.names == other.names && self.labels == other.labels && self.probabilities == other.probabilities
    }

    pub(super) fn place(&self, label: i64) -> Option<usize> {
        self.places.get(&label).copied()
    }

    pub(super) fn name(&self, label: i64) -> String {
        let name = self.place(label).and_then(|place| self.names.get(place));
        name.cloned().unwrap_or_else(|| format!("label {label}"))
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, column: &str) -> Result<T, StageError> {
    serde_json::from_str(text).map_err(|error| StageError::because(format!("metadata of column `{column}`"), error))
}
