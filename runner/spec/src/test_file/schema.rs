//! The keys of a file of tests, as a JSON Schema.

use serde_json::{Map, Value, json};

use crate::json_schema::NAME_PATTERN;

/// The schema of a file of tests.
pub(super) fn tests() -> Value {
    let mut root = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions()});
    let tests = root.pointer("/$defs/tests").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(root) = root.as_object_mut() {
        root.extend(tests);
    }
    root
}

/// Its definitions, to stand among those of the language.
pub(crate) fn definitions() -> Map<String, Value> {
    let row = |description: &str| {
        json!({
            "type": "object",
            "description": description,
            "required": ["id"],
            "properties": {"id": {"type": ["string", "integer"], "description": "The row's id."}},
        })
    };
    let all = json!({
        "tests": {
            "type": "object",
            "description": "Tests of the pipeline beside this file.",
            "required": ["cases"],
            "additionalProperties": false,
            "properties": {
                "version": {"const": 1, "description": "Version of the language: 1."},
                "description": {"type": "string", "description": "What they are for, for people."},
                "cases": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/case"}, "description": "The tests."},
            },
        },
        "case": {
            "type": "object",
            "description": "A run of the pipeline, and what is expected of it.",
            "required": ["name", "expect"],
            "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "minLength": 1, "description": "The name of the test."},
                "set": {
                    "type": "object",
                    "propertyNames": {"pattern": NAME_PATTERN},
                    "description": "Values of parameters, as `--set` gives them.",
                },
                "limit": {"type": "integer", "minimum": 1, "description": "Rows of every dataset to read at most."},
                "rows": {
                    "type": "object",
                    "propertyNames": {"pattern": NAME_PATTERN},
                    "description": "By source stage: the rows that it gives instead of its own; or the settings of kind `rows`.",
                    "additionalProperties": {"anyOf": [
                        {"type": "array", "items": {"type": "object"}},
                        {
                            "type": "object",
                            "required": ["rows"],
                            "additionalProperties": false,
                            "properties": {
                                "rows": {"type": "array", "items": {"type": "object"}, "description": "The rows."},
                                "columns": {"type": "object", "description": "What columns hold, where their values do not tell."},
                                "classes": {"type": "array", "items": {"type": "string"}, "description": "The names of the classes."},
                            },
                        },
                    ]},
                },
                "expect": {"$ref": "#/$defs/expect", "description": "What is expected of the run."},
            },
        },
        "expect": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": false,
            "properties": {
                "error": {"type": "string", "minLength": 1, "description": "The run must fail with a message that has this text in it."},
                "gates": {
                    "type": "object",
                    "description": "By gate: whether it passes.",
                    "additionalProperties": {"enum": ["passed", "failed"]},
                },
                "metrics": {
                    "type": "object",
                    "description": "By metric, `STAGE.METRIC`: its value, or bounds.",
                    "additionalProperties": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/number"}]},
                },
                "rows": {
                    "type": "object",
                    "description": "By stage or `STAGE.OUTPUT`: rows that it gives, by id; or their count, too.",
                    "additionalProperties": {"anyOf": [
                        {"type": "array", "minItems": 1, "items": row("A row with the columns to compare.")},
                        {
                            "type": "object",
                            "minProperties": 1,
                            "additionalProperties": false,
                            "properties": {
                                "count": {"type": "integer", "minimum": 0, "description": "How many rows there are."},
                                "tolerance": tolerance(),
                                "rows": {
                                    "type": "array",
                                    "items": row("A row with the columns to compare."),
                                    "description": "Some of the rows, by id, with the columns to compare.",
                                },
                            },
                        },
                    ]},
                },
            },
        },
        "number": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": false,
            "properties": {
                "equals": {"type": "number", "description": "The value."},
                "tolerance": tolerance(),
                "min": {"type": "number", "description": "The least value."},
                "max": {"type": "number", "description": "The greatest value."},
            },
        },
    });
    if let Value::Object(all) = all { all } else { Map::new() }
}

fn tolerance() -> Value {
    json!({"type": "number", "minimum": 0, "description": "By how much a number may differ; 0.00001 of it unless said otherwise."})
}
