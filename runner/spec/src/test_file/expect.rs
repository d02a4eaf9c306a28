//! What tests expect, and how it is compared with what came.

use std::fmt;

use serde_json::Value;

use crate::{diagnostic::Place, pipeline::Pipeline, reference::Reference};

/// By how much a number may differ where no tolerance is given: this share of it, or this much below one.
const TOLERANCE: f64 = 1e-5;

/// A gate that passes or does not.
#[derive(Clone, Debug)]
pub struct ExpectedGate {
    /// Its name: `top1`, `top1[model=b32]`.
    pub gate: String,
    /// Whether it passes.
    pub passed: bool,
    /// Where that stands.
    pub place: Place,
}

/// A metric and its value or bounds.
#[derive(Clone, Debug)]
pub struct ExpectedMetric {
    /// The metric: `metrics.top1`.
    pub metric: String,
    /// What it is.
    pub number: ExpectedNumber,
    /// Where that stands.
    pub place: Place,
}

/// A number that is given, or bounds. At least one of `equals`, `min` and `max` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExpectedNumber {
    /// The value.
    pub equals: Option<f64>,
    /// By how much it may differ from `equals`.
    pub tolerance: Option<f64>,
    /// The least value.
    pub min: Option<f64>,
    /// The greatest value.
    pub max: Option<f64>,
}

/// Rows of a stage's output.
#[derive(Clone, Debug)]
pub struct ExpectedRows {
    /// The output as written: `scored`, `split.train`, `scored[model=b32]`.
    pub output: String,
    /// How many rows there are, and where that stands.
    pub count: Option<(usize, Place)>,
    /// Some of the rows.
    pub rows: Vec<ExpectedRow>,
    /// By how much numbers may differ.
    pub tolerance: Option<f64>,
    /// Where its name stands.
    pub place: Place,
}

/// A row by its id.
#[derive(Clone, Debug)]
pub struct ExpectedRow {
    /// The id.
    pub id: String,
    /// The columns to compare.
    pub values: Vec<ExpectedValue>,
    /// Where the row stands.
    pub place: Place,
}

/// The value of a row in a column.
#[derive(Clone, Debug)]
pub struct ExpectedValue {
    /// The column.
    pub column: String,
    /// Text, a number, a boolean, or a list of texts or numbers.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
}

impl ExpectedRows {
    /// The output meant: the position of the stage in the pipeline, and the port.
    pub fn target<'p>(&self, pipeline: &'p Pipeline) -> Option<(usize, &'p str)> {
        let reference = Reference::parse(&self.output)?;
        let stage = self.output.strip_suffix(reference.rest.unwrap_or_default()).unwrap_or(&self.output);
        let position = pipeline.stage(stage.strip_suffix('.').unwrap_or(stage))?;
        let outputs = &pipeline.stages.get(position)?.outputs;
        let port = match reference.rest {
            Some(port) => outputs.keys().find(|name| *name == port)?,
            // The first port is `rows` wherever there is one of that name.
            None if outputs.len() == 1 => outputs.keys().next()?,
            None => outputs.keys().find(|name| *name == "rows")?,
        };
        Some((position, port))
    }
}

impl ExpectedNumber {
    /// Whether a number is what was expected.
    pub fn holds(&self, number: f64) -> bool {
        self.equals.is_none_or(|equals| near(equals, number, self.tolerance))
            && self.min.is_none_or(|min| number >= min)
            && self.max.is_none_or(|max| number <= max)
    }
}

impl fmt::Display for ExpectedNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(equals) = self.equals {
            let tolerance = self.tolerance.map(|tolerance| format!(" ± {tolerance}")).unwrap_or_default();
            parts.push(format!("{equals}{tolerance}"));
        }
        parts.extend(self.min.map(|min| format!("at least {min}")));
        parts.extend(self.max.map(|max| format!("at most {max}")));
        f.write_str(&parts.join(", "))
    }
}

fn near(expected: f64, found: f64, tolerance: Option<f64>) -> bool {
    let tolerance = tolerance.unwrap_or(TOLERANCE * expected.abs().max(1.0));
    // What is written with few digits may stand at the very edge.
    (expected - found).abs() <= tolerance * (1.0 + 1e-9)
}

/// Whether a value is what was expected; numbers, in lists as well, may differ by the tolerance.
pub fn same(expected: &Value, found: &Value, tolerance: Option<f64>) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if near(a, b, tolerance))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, tolerance)),
        _ => expected == found,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_may_differ_a_little() {
        let number = |equals, tolerance| ExpectedNumber { equals: Some(equals), tolerance, ..Default::default() };
        assert!(number(0.97, None).holds(0.970_000_1) && !number(0.97, None).holds(0.971));
        assert!(number(1e6, None).holds(1e6 + 5.0) && !number(1e6, Some(0.0)).holds(1e6 + 5.0));
        assert!(number(0.97, Some(0.01)).holds(0.96) && !number(0.97, Some(0.01)).holds(0.959));
        assert!(!number(1.0, None).holds(f64::NAN));
        let bounds = ExpectedNumber { min: Some(0.5), max: Some(1.0), ..Default::default() };
        assert!(bounds.holds(0.5) && bounds.holds(1.0) && !bounds.holds(0.49) && !bounds.holds(1.1));
        assert_eq!(bounds.to_string(), "at least 0.5, at most 1");
        assert_eq!(number(0.97, Some(0.01)).to_string(), "0.97 ± 0.01");
    }

    #[test]
    fn values_are_compared_by_what_they_are() {
        assert!(same(&json!([0.1, 2]), &json!([0.100_000_1, 2.0]), None));
        assert!(!same(&json!([0.1, 2]), &json!([0.1]), None));
        assert!(!same(&json!("1"), &json!(1), None));
        assert!(same(&json!(1), &json!(1.4), Some(0.5)));
        assert!(same(&json!(9_007_199_254_740_993_i64), &json!(9_007_199_254_740_993_i64), Some(0.0)));
    }
}
