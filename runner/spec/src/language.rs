//! The keys of the language, as one JSON Schema: pipelines are checked against it, and editors complete from it.

use runner_contract::{InputPort, Kind, PortKind, Registry};
use serde_json::{Map, Value, json};

use crate::{
    duration::DURATION_PATTERN,
    json_schema::{DEVICE_PATTERN, EXPRESSION_PATTERN, NAME_PATTERN},
    test_file,
};

/// The types of parameters.
pub(crate) const PARAM_TYPES: [&str; 9] =
    ["string", "integer", "number", "boolean", "list", "choice", "path", "model", "dataset"];
/// The greatest value of `retries`.
pub(crate) const MAX_RETRIES: u32 = 10;

/// A share of rows: `1%`, `0.5%`.
const SHARE_PATTERN: &str = "^(100|[0-9]{1,2}(\\.[0-9]+)?)%$";

/// The JSON Schema of pipelines with these kinds, for editors: `schemas/pipeline.schema.json`.
pub fn schema(registry: &dyn Registry) -> Value {
    let mut root = language(true);
    root["anyOf"] = json!([{"required": ["stages"]}, {"required": ["include"]}]);
    let kinds = registry.kinds();
    let uses = kinds.iter().map(|kind| {
        let info = kind.info();
        json!({"const": info.name, "description": info.summary})
    });
    root["$defs"]["stage"]["properties"]["uses"]["oneOf"] = uses.collect();
    let cases: Vec<_> = kinds.iter().map(|kind| case(*kind)).collect();
    root["$defs"]["stage"]["allOf"] = cases.into();
    if let Some(definitions) = root["$defs"].as_object_mut() {
        definitions.extend(test_file::definitions());
    }
    for kind in &kinds {
        let info = kind.info();
        for (name, definition) in info.settings.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            root["$defs"][format!("{}.{name}", info.name)] = open_to_expressions(definition, info.name);
        }
    }
    root
}

/// The schema of the language alone: what stands behind `with:` and which kinds there are is left open. A pipeline that
/// `includes` files may have no stages of its own.
pub(crate) fn language(includes: bool) -> Value {
    let or_expression = |schema: Value, description: &str| json!({"description": description, "anyOf": [schema, {"$ref": "#/$defs/expression"}]});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of runner",
        "type": "object",
        "required": if includes { json!(["version", "name"]) } else { json!(["version", "name", "stages"]) },
        "additionalProperties": false,
        "properties": {
            "version": {"const": 1, "description": "Version of the language: 1."},
            "name": {"type": "string", "pattern": NAME_PATTERN, "description": "Name of the pipeline, under which runs are recorded."},
            "description": {"type": "string", "description": "What it is for, for people."},
            "include": include(),
            "params": {
                "type": "object",
                "description": "Parameters: typed values that `--set NAME=VALUE` overrides and `${{ params.NAME }}` reads.",
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": {"$ref": "#/$defs/param"},
            },
            "matrix": {"$ref": "#/$defs/matrix", "description": "Fans out every stage that mentions one of its keys, and what depends on it."},
            "stages": {
                "type": "object",
                "description": "The stages, by name.",
                "minProperties": 1,
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": {"$ref": "#/$defs/stage"},
            },
            "gates": {
                "type": "object",
                "description": "Conditions on metrics; a run that misses one ends with exit code 3.",
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": {"$ref": "#/$defs/gate"},
            },
        },
        "$defs": {
            "expression": {"type": "string", "pattern": EXPRESSION_PATTERN, "description": "`${{ params.NAME }}`, `${{ matrix.KEY }}`, `${{ env.NAME }}` or, in `with`, `${{ secrets.NAME }}`."},
            "included": {
                "type": "object",
                "description": "A file that pipelines include.",
                "additionalProperties": false,
                "minProperties": 1,
                "properties": {
                    "version": {"const": 1, "description": "Version of the language: 1."},
                    "description": {"type": "string", "description": "What it is for, for people."},
                    "include": include(),
                    "params": {"$ref": "#/properties/params"},
                    "stages": {"$ref": "#/properties/stages"},
                },
            },
            "param": {"oneOf": params()},
            "matrix": {
                "type": "object",
                "description": "Keys with the values that each takes: a list, or a mapping from short names to values.",
                "minProperties": 1,
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": {"anyOf": [
                    {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"], "anyOf": [
                        {"type": ["string", "number", "boolean"]}, {"$ref": "#/$defs/expression"},
                    ]}},
                    {"type": "object", "minProperties": 1},
                    {"$ref": "#/$defs/expression"},
                ]},
            },
            "stage": {
                "type": "object",
                "required": ["uses"],
                "additionalProperties": false,
                "properties": {
                    "uses": {"type": "string", "description": "The kind of stage."},
                    "with": {"type": ["object", "null"], "description": "Settings of the kind."},
                    "inputs": {
                        "description": "What the input ports read: a stage or `stage.port` for the first port, or a mapping from port to reference.",
                        "anyOf": [
                            {"type": "string"},
                            {"type": "object", "additionalProperties": or_expression(json!({"type": "string"}), "A stage, `stage.port`, or a model.")},
                            {"$ref": "#/$defs/expression"},
                        ],
                    },
                    "needs": {
                        "description": "Stages to wait for without reading them.",
                        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "uniqueItems": true}],
                    },
                    "matrix": {"$ref": "#/$defs/matrix", "description": "Fans out this stage and what depends on it."},
                    "when": {
                        "description": "Whether the stage takes part: a boolean or an expression.",
                        "anyOf": [{"type": "boolean"}, {"type": "string", "title": "an expression"}, {"$ref": "#/$defs/expression"}],
                    },
                    "keep": or_expression(json!({"type": "boolean"}), "Store the results even where recomputing them is cheap."),
                    "cache": or_expression(json!({"type": "boolean"}), "Whether results come from and go to the cache; true unless said otherwise."),
                    "device": or_expression(json!({"type": "string", "pattern": DEVICE_PATTERN}), "Where to compute: `cpu`, `cuda` or `cuda:N`."),
                    "retries": or_expression(json!({"type": "integer", "minimum": 0, "maximum": MAX_RETRIES}), "How often a task that failed is tried again; 0 unless said otherwise."),
                    "timeout": or_expression(json!({"type": "string", "pattern": DURATION_PATTERN}), "How long one attempt of one task may take: `30s`, `10m`, `1h 30m`."),
                    "max_bad": or_expression(
                        json!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SHARE_PATTERN}]}),
                        "How many rows may be unusable before the run fails: a number, or a share such as `1%`; 0 for none. One in a hundred unless said otherwise, and ten in any case.",
                    ),
                },
            },
            "gate": {
                "type": "object",
                "required": ["metric"],
                "additionalProperties": false,
                "properties": {
                    "metric": {"type": "string", "description": "`STAGE.METRIC`; of one instance, `STAGE[KEY=VALUE].METRIC`."},
                    "min": or_expression(json!({"type": "number"}), "The least value that passes."),
                    "max": or_expression(json!({"type": "number"}), "The greatest value that passes."),
                },
            },
        },
    })
}

fn include() -> Value {
    json!({
        "type": "array",
        "description": "Files whose stages and parameters are joined with these, relative to this file.",
        "uniqueItems": true,
        "items": {"type": "string", "minLength": 1},
    })
}

/// One alternative for each type of parameter.
fn params() -> Vec<Value> {
    let types = [
        ("string", "Text.", json!({"type": "string"})),
        ("integer", "A whole number.", json!({"type": "integer"})),
        ("number", "A number.", json!({"type": "number"})),
        ("boolean", "`true` or `false`.", json!({"type": "boolean"})),
        ("list", "A list.", json!({"type": "array"})),
        ("choice", "One of `values`.", json!({"type": ["string", "number", "boolean"]})),
        ("path", "A file or folder, relative to where `runner` is started.", json!({"type": "string", "minLength": 1})),
        ("model", "A reference to a model.", json!({"type": "string", "minLength": 1})),
        ("dataset", "A reference to a dataset.", json!({"type": "string", "minLength": 1})),
    ];
    types
        .into_iter()
        .map(|(name, summary, mut default)| {
            default["description"] = "The value where `--set` gives none; without it the parameter is required.".into();
            let mut schema = json!({
                "type": "object",
                "required": ["type"],
                "additionalProperties": false,
                "properties": {
                    "type": {"const": name, "description": summary},
                    "description": {"type": "string", "description": "What it is for, for people."},
                    "default": default,
                },
            });
            if name == "choice" {
                schema["required"] = json!(["type", "values"]);
                schema["properties"]["values"] = json!({
                    "type": "array",
                    "minItems": 1,
                    "uniqueItems": true,
                    "items": {"type": ["string", "number", "boolean"]},
                    "description": "What there is to choose from.",
                });
            }
            schema
        })
        .collect()
}

/// What a stage of one kind may have.
fn case(kind: &dyn Kind) -> Value {
    let info = kind.info();
    let mut settings = open_to_expressions(&info.settings, info.name);
    if let Some(settings) = settings.as_object_mut() {
        for key in ["$schema", "$defs", "title"] {
            settings.remove(key);
        }
    }
    let mut required = Vec::new();
    if settings.get("required").and_then(Value::as_array).is_some_and(|keys| !keys.is_empty()) {
        required.push("with");
    } else {
        settings = json!({"anyOf": [settings, {"type": "null"}]});
    }
    if info.inputs.iter().any(|port| !port.optional) {
        required.push("inputs");
    }
    json!({
        "if": {"properties": {"uses": {"const": info.name}}, "required": ["uses"]},
        "then": {"properties": {"with": settings, "inputs": inputs(info.inputs)}, "required": required},
    })
}

fn inputs(ports: &[InputPort]) -> Value {
    let Some(first) = ports.first() else { return Value::Bool(false) };
    let properties: Map<_, _> = ports
        .iter()
        .map(|port| {
            let what = match port.kind {
                PortKind::Rows => "Rows",
                PortKind::Whole => "A whole dataset",
                PortKind::Model => "A model",
            };
            (port.name.to_owned(), json!({"type": "string", "description": format!("{what}: {}", port.summary)}))
        })
        .collect();
    let required: Vec<_> = ports.iter().filter(|port| !port.optional).map(|port| port.name).collect();
    let map = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    if required.iter().all(|name| *name == first.name) {
        json!({"anyOf": [{"type": "string", "description": first.summary}, map]})
    } else {
        map
    }
}

/// A kind's schema in which every value may also be an expression, and whose references name the kind.
fn open_to_expressions(schema: &Value, kind: &str) -> Value {
    let Some(schema) = schema.as_object() else { return schema.clone() };
    let value = |schema: &Value| {
        let mut inner = open_to_expressions(schema, kind);
        let mut outer = Map::new();
        if let Some(inner) = inner.as_object_mut() {
            for key in ["description", "default"] {
                if let Some(kept) = inner.shift_remove(key) {
                    outer.insert(key.to_owned(), kept);
                }
            }
        }
        outer.insert("anyOf".to_owned(), json!([inner, {"$ref": "#/$defs/expression"}]));
        Value::Object(outer)
    };
    let mut out = Map::new();
    for (key, part) in schema {
        let part = match (key.as_str(), part) {
            ("properties", Value::Object(all)) => {
                Value::Object(all.iter().map(|(name, schema)| (name.clone(), value(schema))).collect())
            }
            ("items" | "additionalProperties", Value::Object(_)) => value(part),
            ("prefixItems", Value::Array(parts)) => parts.iter().map(value).collect(),
            ("anyOf" | "oneOf" | "allOf", Value::Array(parts)) => {
                parts.iter().map(|part| open_to_expressions(part, kind)).collect()
            }
            ("$ref", Value::String(at)) => at.replacen("#/$defs/", &format!("#/$defs/{kind}."), 1).into(),
            _ => part.clone(),
        };
        out.insert(key.clone(), part);
    }
    Value::Object(out)
}
