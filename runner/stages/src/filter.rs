//! `filter`: rows whose columns meet conditions.

use std::collections::BTreeMap;

use runner_contract::{
    Batch, ColumnType, Context, Input, Inputs, KindInfo, Need, PortKind, Prepared, Problem, Produced, Shape, Stage,
    StageError, Stream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Conditions by column. A row stays if it meets all of them.
    #[serde(rename = "where")]
    conditions: BTreeMap<String, Condition>,
}

/// A condition on one column.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Condition {
    /// The value is one of these.
    #[serde(default, rename = "in")]
    among: Option<Vec<Value>>,
    /// The value is none of these.
    #[serde(default)]
    not_in: Option<Vec<Value>>,
    /// The value is at least this.
    #[serde(default)]
    min: Option<f64>,
    /// The value is at most this.
    #[serde(default)]
    max: Option<f64>,
}

struct Filter;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Filter)
}

impl Definition for Filter {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "filter",
            version: 1,
            summary: "rows whose columns meet conditions",
            shape: Shape::Filter,
            inputs: const { &[input("rows", PortKind::Rows, "any rows")] },
            outputs: const { &[output("rows", "the rows that meet every condition")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        if settings.conditions.is_empty() {
            binding.problem(Problem::setting("where", "no conditions").hint("write `where: {label: {in: [0, 1]}}`"));
        }
        let Some(schema) = binding.schema("rows") else { return };
        for (name, condition) in &settings.conditions {
            let problem = |below: &str, message: String| {
                let mut path = vec!["with".to_owned(), "where".into(), name.clone()];
                path.extend((!below.is_empty()).then(|| below.to_owned()));
                Problem { path, message, hint: None }
            };
            let Some(column) = schema.get(name) else {
                binding.problem(problem("", format!("no column `{name}`: the rows have {}", schema.names())));
                continue;
            };
            let Some(kind) = Scalar::of(&column.kind) else {
                let message = format!("column `{name}` holds {}: only single values can be compared", column.kind);
                binding.problem(problem("", message));
                continue;
            };
            if condition.is_empty() {
                binding.problem(problem("", "no condition".into()).hint("write `in`, `not_in`, `min` or `max`"));
            }
            if kind != Scalar::Number && (condition.min.is_some() || condition.max.is_some()) {
                binding.problem(problem("", format!("`min` and `max` need numbers, `{name}` holds {}", column.kind)));
            }
            for (below, values) in [("in", &condition.among), ("not_in", &condition.not_in)] {
                for value in values.iter().flatten().filter(|value| !kind.fits(value)) {
                    binding
                        .problem(problem(below, format!("{value} cannot be in `{name}`, which holds {}", column.kind)));
                }
            }
            binding.reads("rows", Need::column(name));
        }
        binding.gives("rows", []);
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Stream(Box::new(Conditions(settings.conditions))))
    }
}

/// How a column's values are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scalar {
    Text,
    Number,
    Boolean,
}

impl Scalar {
    fn of(kind: &ColumnType) -> Option<Self> {
        match kind {
            ColumnType::Text => Some(Self::Text),
            ColumnType::Label | ColumnType::Integer | ColumnType::Number => Some(Self::Number),
            ColumnType::Boolean => Some(Self::Boolean),
            _ => None,
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
        }
    }
}

impl Condition {
    fn is_empty(&self) -> bool {
        self.among.is_none() && self.not_in.is_none() && self.min.is_none() && self.max.is_none()
    }

    fn holds(&self, value: &Value) -> bool {
        let listed = |list: &[Value]| list.iter().any(|other| equal(value, other));
        let number = value.as_f64();
        self.among.as_deref().is_none_or(listed)
            && !self.not_in.as_deref().is_some_and(listed)
            && self.min.is_none_or(|min| number.is_some_and(|x| x >= min))
            && self.max.is_none_or(|max| number.is_some_and(|x| x <= max))
    }
}

/// Equal values; 1 equals 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

struct Conditions(BTreeMap<String, Condition>);

impl Stream for Conditions {
    fn apply(&self, _: &Context, inputs: &Inputs, _: Prepared) -> Result<BTreeMap<String, Produced>, StageError> {
        let rows = crate::port(inputs, "rows")?;
        let mut keep = vec![true; rows.len()];
        for (name, condition) in &self.0 {
            for (keep, value) in keep.iter_mut().zip(values(rows, name)?) {
                *keep = *keep && condition.holds(&value);
            }
        }
        let take = (0u32..).zip(keep).filter_map(|(i, keep)| keep.then_some(i)).collect();
        Ok(BTreeMap::from([("rows".to_owned(), Produced { take: Some(take), ..Produced::default() })]))
    }
}

/// A column's values, comparable.
fn values(rows: &Batch, name: &str) -> Result<Vec<Value>, StageError> {
    Ok(match rows.kind(name) {
        Some(ColumnType::Text) => rows.text(name)?.iter().flatten().map(Value::from).collect(),
        Some(ColumnType::Boolean) => rows.booleans(name)?.iter().flatten().map(Value::from).collect(),
        Some(ColumnType::Number) => rows.numbers(name)?.iter().copied().map(Value::from).collect(),
        _ => rows.integers(name)?.iter().copied().map(Value::from).collect(),
    })
}

#[cfg(test)]
mod tests {
    use runner_contract::ColumnData;
    use serde_json::json;

    use super::*;
    use crate::testing::{apply, problems, rows};

    fn sample() -> Batch {
        Batch::new(["a", "b", "c", "d"].map(str::to_owned).to_vec())
            .with("label", ColumnData::Labels(vec![0, 1, 2, 1]))
            .unwrap()
            .with("weight", ColumnData::Numbers(vec![0.5, 1.5, 2.5, 3.5]))
            .unwrap()
            .with("kind", ColumnData::Text(["x", "y", "y", "z"].map(str::to_owned).to_vec()))
            .unwrap()
            .with("old", ColumnData::Booleans(vec![true, false, true, true]))
            .unwrap()
    }

    fn kept(conditions: Value) -> String {
        let out = apply("filter", json!({"where": conditions}), &[("rows", sample())]);
        out["rows"].ids().unwrap().iter().flatten().collect()
    }

    #[test]
    fn rows_that_meet_every_condition_stay() {
        assert_eq!(kept(json!({"label": {"in": [1, 2]}})), "bcd");
        assert_eq!(kept(json!({"label": {"not_in": [1]}, "old": {"in": [true]}})), "ac");
        assert_eq!(kept(json!({"weight": {"min": 1.5, "max": 2.5}})), "bc");
        assert_eq!(kept(json!({"kind": {"in": ["y"]}, "label": {"min": 2}})), "c");
        assert_eq!(kept(json!({"label": {"in": []}})), "");
    }

    #[test]
    fn conditions_that_cannot_hold_are_named() {
        let settings = json!({"where": {"kind": {"in": [1], "min": 0}, "wieght": {"min": 1}, "old": {}}});
        assert_eq!(
            problems("filter", settings, &rows(&[("rows", &sample())])),
            [
                "with.where.kind: `min` and `max` need numbers, `kind` holds text",
                "with.where.kind.in: 1 cannot be in `kind`, which holds text",
                "with.where.old: no condition (write `in`, `not_in`, `min` or `max`)",
                "with.where.wieght: no column `wieght`: the rows have id, label, weight, kind, old",
            ]
        );
    }
}
