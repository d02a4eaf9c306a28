//! `runner kinds [KIND]`

use std::fmt::Write as _;

use runner_contract::{KindInfo, PortKind, Registry};
use serde_json::{Value, json};

use crate::{
    Exit,
    app::App,
    failure::Failure,
    output::{Paint, table},
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The kind to explain
    #[arg(value_name = "KIND")]
    kind: Option<String>,
}

pub(crate) fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let registry = runner_stages::registry(&app.services(&app.folder)?);
    let output = app.output;
    match &args.kind {
        Some(name) => {
            let Some(kind) = registry.kind(name) else {
                let names: Vec<_> = registry.kinds().iter().map(|kind| kind.info().name).collect();
                return Err(Failure::usage(format!("no kind `{name}`"), format!("the kinds are {}", names.join(", "))));
            };
            if output.json {
                output.document(&document(kind.info()))?;
            } else {
                output.text(&explain(kind.info(), output.paint))?;
            }
        }
        None if output.json => {
            output.document(&registry.kinds().iter().map(|kind| document(kind.info())).collect::<Vec<_>>())?;
        }
        None => {
            let row = |info: &KindInfo| vec![info.name.to_owned(), word(&json!(info.shape)), info.summary.to_owned()];
            let rows: Vec<_> = registry.kinds().iter().map(|kind| row(kind.info())).collect();
            output.text(&table(&[("kind", false), ("shape", false), ("", false)], &rows, output.paint))?;
            output.text("runner kinds KIND explains one\n")?;
        }
    }
    Ok(Exit::Done)
}

fn document(info: &KindInfo) -> Value {
    let inputs: Vec<_> = info
        .inputs
        .iter()
        .map(|port| json!({"name": port.name, "kind": port.kind, "optional": port.optional, "summary": port.summary}))
        .collect();
    let outputs: Vec<_> = info
        .outputs
        .iter()
        .map(|port| json!({"name": port.name, "kind": port.kind, "summary": port.summary}))
        .collect();
    json!({
        "name": info.name,
        "version": info.version,
        "summary": info.summary,
        "shape": info.shape,
        "inputs": inputs,
        "outputs": outputs,
        "settings": info.settings,
    })
}

fn explain(info: &KindInfo, paint: Paint) -> String {
    let mut text = format!("{} ({})\n{}\n", paint.bold(info.name), word(&json!(info.shape)), info.summary);
    let kind = |kind: PortKind| word(&json!(kind));
    let inputs: Vec<_> = info
        .inputs
        .iter()
        .map(|port| {
            let optional = if port.optional { ", may be left out" } else { "" };
            vec![port.name.to_owned(), kind(port.kind), format!("{}{optional}", port.summary)]
        })
        .collect();
    let outputs: Vec<_> =
        info.outputs.iter().map(|port| vec![port.name.to_owned(), kind(port.kind), port.summary.to_owned()]).collect();
    for (title, rows) in [("inputs", inputs), ("outputs", outputs)] {
        if !rows.is_empty() {
            let _ = write!(text, "\n{}", table(&[(title, false), ("", false), ("", false)], &rows, paint));
        }
    }
    let rows = settings(&info.settings);
    if !rows.is_empty() {
        let columns = [("with", false), ("type", false), ("default", false), ("", false)];
        let _ = write!(text, "\n{}", table(&columns, &rows, paint));
    }
    text
}

/// Name, type, default and description of each setting, from the JSON Schema.
fn settings(schema: &Value) -> Vec<Vec<String>> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let required = |name: &str| {
        schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|it| it == name))
    };
    properties
        .iter()
        .map(|(name, property)| {
            let default = match property.get("default") {
                Some(Value::Null) | None if required(name) => "required".to_owned(),
                Some(Value::Null) | None => String::new(),
                Some(default) => short(default),
            };
            let about = property.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
            vec![name.clone(), type_of(schema, property), default, about]
        })
        .collect()
}

/// A type in a word or two: `string`, `integer or null`, `one of top1, top5`.
fn type_of(root: &Value, property: &Value) -> String {
    let each = |list: &Vec<Value>| list.iter().map(|one| type_of(root, one)).collect::<Vec<_>>().join(" or ");
    let words = |list: &Vec<Value>| list.iter().map(word).collect::<Vec<_>>().join(", ");
    if let Some(name) = property.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
        return root.get("$defs").and_then(|defs| defs.get(name)).map_or(name.to_owned(), |it| type_of(root, it));
    }
    if let Some(values) = property.get("enum").and_then(Value::as_array) {
        return format!("one of {}", words(values));
    }
    if let Some(value) = property.get("const") {
        return word(value);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(list) = property.get(key).and_then(Value::as_array) {
            return each(list);
        }
    }
    match property.get("type") {
        Some(Value::Array(list)) => list.iter().map(word).collect::<Vec<_>>().join(" or "),
        Some(Value::String(name)) if name == "array" => match property.get("items") {
            Some(items) => format!("list of {}", type_of(root, items)),
            None => "list".to_owned(),
        },
        Some(name) => word(name),
        None => "any".to_owned(),
    }
}

/// A default in a table: 0.002 and not the f64 next to its f32, and nothing long.
fn short(value: &Value) -> String {
    let text = match value.as_f64().filter(|_| !value.is_i64() && !value.is_u64()) {
        Some(number) if f64::from(number as f32) == number => (number as f32).to_string(),
        _ => word(value),
    };
    if text.chars().count() <= 40 {
        return text;
    }
    if value.is_object() { "{…}".to_owned() } else { format!("{}…", text.chars().take(39).collect::<String>()) }
}

/// A JSON value without the quotes of a string.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
