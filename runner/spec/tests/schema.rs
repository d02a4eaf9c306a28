//! The JSON Schema for editors.

mod toy;

use std::{fs, path::Path};

use serde_json::Value;

#[test]
fn the_schema_is_what_it_was() {
    let found = format!("{:#}\n", runner_spec::schema(&toy::toys()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/schema.json");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &found).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == found, "UPDATE_EXPECT=1 rewrites {}", path.display());
}

#[test]
fn every_reference_in_the_schema_leads_somewhere() {
    fn walk(root: &Value, value: &Value, seen: &mut usize) {
        if let Some(at) = value.get("$ref").and_then(Value::as_str) {
            assert!(root.pointer(at.trim_start_matches('#')).is_some(), "{at}");
            *seen += 1;
        }
        match value {
            Value::Object(map) => map.values().for_each(|value| walk(root, value, seen)),
            Value::Array(items) => items.iter().for_each(|value| walk(root, value, seen)),
            _ => {}
        }
    }
    let (root, mut seen) = (runner_spec::schema(&toy::toys()), 0);
    walk(&root, &root, &mut seen);
    assert!(seen > 20);
}
