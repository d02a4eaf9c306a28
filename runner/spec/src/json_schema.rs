//! What a JSON Schema says, as far as the check asks.

use serde_json::{Map, Value};

use crate::{
    duration::DURATION_PATTERN,
    template::is_template,
    yaml::{Data, Node},
};

/// The pattern of text with an expression in it, where the language allows one.
pub(crate) const EXPRESSION_PATTERN: &str = r"\$\{\{";
/// The pattern of names of stages, parameters, matrix keys and gates.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_-]*$";

/// The pattern of devices.
pub(crate) const DEVICE_PATTERN: &str = "^(cpu|cuda(:[0-9]+)?)$";

/// Whether a schema is that of text with an expression in it.
pub(crate) fn is_expression(schema: &Map<String, Value>) -> bool {
    schema.get("pattern").and_then(Value::as_str) == Some(EXPRESSION_PATTERN)
}

/// Follows `$ref`s inside the document.
pub(crate) fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..16 {
        let Some(pointer) = schema.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix('#')) else {
            return schema;
        };
        let Some(target) = root.pointer(pointer) else { return schema };
        schema = target;
    }
    schema
}

/// The constants that a schema consists of, if it does.
pub(crate) fn choices<'a>(root: &'a Value, schema: &'a Map<String, Value>) -> Vec<&'a Value> {
    if let Some(value) = schema.get("const") {
        return vec![value];
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.iter().collect();
    }
    for keyword in ["oneOf", "anyOf"] {
        if let Some(Value::Array(branches)) = schema.get(keyword) {
            let parts = branches.iter().map(|branch| {
                resolve(root, branch).as_object().map(|branch| match (branch.get("const"), branch.get("enum")) {
                    (Some(value), _) => vec![value],
                    (None, Some(Value::Array(values))) => values.iter().collect(),
                    (None, _) => Vec::new(),
                })
            });
            let parts: Vec<_> = parts.map(Option::unwrap_or_default).collect();
            if parts.iter().all(|part| !part.is_empty()) {
                return parts.into_iter().flatten().collect();
            }
        }
    }
    Vec::new()
}

/// The key whose constant tells the alternatives apart.
pub(crate) fn tag_of(root: &Value, branches: &[&Value]) -> Option<String> {
    let properties = branches.first()?.get("properties")?.as_object()?;
    let constant = |branch: &Value, key: &str| {
        let schema = branch.get("properties").and_then(|all| all.get(key)).map(|schema| resolve(root, schema));
        schema.and_then(Value::as_object).is_some_and(|schema| !choices(root, schema).is_empty())
    };
    properties.keys().find(|key| branches.iter().all(|branch| constant(branch, key))).cloned()
}

/// Whether the JSON type of a value is one that the schema takes.
pub(crate) fn fits(node: &Node, schema: &Map<String, Value>) -> bool {
    let fits = |name: &str| match &node.data {
        Data::Null => name == "null",
        Data::Broken => true,
        Data::Boolean(_) => name == "boolean",
        Data::Number(number) => name == "number" || name == "integer" && !number.is_f64(),
        Data::Text(text) => name == "string" && (is_template(text) || !is_expression(schema)),
        Data::List(_) => name == "array",
        Data::Map(_) => name == "object",
    };
    match schema.get("type") {
        Some(Value::String(name)) => fits(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(fits),
        _ => choices(&Value::Null, schema).iter().all(|word| word.is_string() == matches!(node.data, Data::Text(_))),
    }
}

/// The types that a schema takes, in words.
pub(crate) fn wanted(root: &Value, schema: &Value) -> Vec<String> {
    let schema = resolve(root, schema);
    let word = |name: &str| {
        match name {
            "null" => "nothing",
            "boolean" => "a boolean",
            "integer" => "an integer",
            "number" => "a number",
            "string" if schema.get("title").is_some_and(|title| title == "an expression") => "an expression",
            "string" => match schema.get("pattern").and_then(Value::as_str) {
                Some(EXPRESSION_PATTERN) => "",
                Some(DURATION_PATTERN) => "a duration",
                _ => "text",
            },
            "array" => match schema.get("items").map(|items| wanted(root, items)).unwrap_or_default().as_slice() {
                [one] if one == "text" => "a list of text",
                [one] if one == "a number" => "a list of numbers",
                [one] if one == "an integer" => "a list of integers",
                _ => "a list",
            },
            "object" => "a mapping",
            _ => "another value",
        }
        .to_owned()
    };
    match schema.get("type") {
        Some(Value::String(name)) => vec![word(name)],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(word).collect(),
        _ => {
            let words = schema.as_object().map(|schema| choices(root, schema)).unwrap_or_default();
            words.iter().map(|word| format!("`{}`", plain(word))).collect()
        }
    }
}

/// A scalar as people write it.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
