//! The words of messages about values.

use serde_json::Value;

use crate::{
    expression::is_name,
    report::{Mistake, Span},
    yaml::{Data, Node},
};

/// The mistake that a bad name is.
pub(crate) fn not_a_name(span: Span, text: &str) -> Mistake {
    Mistake::at(span, format!("`{text}` is not a name"))
        .hint("a name has letters, digits, `_` and `-`, and begins with a letter or `_`")
}

/// A name in backticks, unless it is words already.
pub(super) fn quoted(name: &str) -> String {
    if name.contains(['`', ' ']) { name.to_owned() } else { format!("`{name}`") }
}

pub(super) fn items_word(count: u64) -> &'static str {
    if count == 1 { "item" } else { "items" }
}

/// A mapping to write instead of something else.
pub(super) fn example(node: &Node, schemas: &[&Value]) -> Option<String> {
    let required = schemas.iter().find_map(|schema| schema.get("required")?.as_array()?.first()?.as_str())?;
    let value = match &node.data {
        Data::Text(text) if text.chars().count() <= 40 => text.clone(),
        Data::Number(_) | Data::Boolean(_) => node.to_json().to_string(),
        _ => String::new(),
    };
    Some(match (required, value.is_empty()) {
        ("uses", false) if is_name(&value) => format!("write `{{uses: {value}}}`"),
        ("uses", _) => "write `{uses: KIND}`".to_owned(),
        ("type", false) => {
            let kind = match &node.data {
                Data::Number(number) if number.is_f64() => "number",
                Data::Number(_) => "integer",
                Data::Boolean(_) => "boolean",
                _ => "string",
            };
            format!("write `{{type: {kind}, default: {value}}}`")
        }
        ("type", true) => "write `{type: string}`".to_owned(),
        ("metric", false) if matches!(node.data, Data::Number(_)) => {
            format!("write `{{metric: STAGE.METRIC, min: {value}}}`")
        }
        ("metric", _) => "write `{metric: STAGE.METRIC, min: NUMBER}`".to_owned(),
        _ => return None,
    })
}

/// The first sentence of a description, without its full stop.
pub(super) fn line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.split(". ").next().unwrap_or_default().trim_end_matches('.')
}

/// Whether two scalars have one type.
pub(super) fn fits_word(word: &Value, value: &Value) -> bool {
    std::mem::discriminant(word) == std::mem::discriminant(value)
}

/// What a value is, with the value itself where it is short.
pub(super) fn found(node: &Node) -> String {
    match &node.data {
        Data::Text(text) if text.chars().count() <= 40 && !text.contains('\n') => format!("text `{text}`"),
        Data::Boolean(_) | Data::Number(_) => format!("{} `{}`", node.noun(), node.to_json()),
        _ => node.noun().to_owned(),
    }
}
