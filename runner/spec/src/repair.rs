//! Reads misspelt keys as what was meant, once they are reported: so that what they hold is checked as well.

use serde_json::Value;

use crate::{
    report::Report,
    yaml::{Data, Node},
};

/// Renames the keys of a pipeline, its stages, parameters and gates that are none to those that were meant, and joins
/// sections that stand twice.
pub(crate) fn repair(root: &mut Node, language: &Value) {
    let mut report = Report::default();
    rename(root, &keys(language, ""), &mut report);
    for section in ["params", "stages", "gates", "matrix"] {
        join(root, section);
    }
    // Parameters have the keys of the largest of the alternatives: `choice`.
    let sections = [
        ("stages", keys(language, "/$defs/stage")),
        ("gates", keys(language, "/$defs/gate")),
        ("params", { ["type", "description", "default", "values"].map(str::to_owned).to_vec() }),
    ];
    let Data::Map(entries) = &mut root.data else { return };
    for (section, keys) in sections {
        let Some(Data::Map(members)) = entries.iter_mut().find(|e| e.key == section).map(|e| &mut e.value.data) else {
            continue;
        };
        members.iter_mut().for_each(|member| rename(&mut member.value, &keys, &mut report));
    }
}

/// The keys that a part of the language has.
fn keys(language: &Value, part: &str) -> Vec<String> {
    let properties = language.pointer(&format!("{part}/properties")).and_then(Value::as_object);
    properties.into_iter().flat_map(|all| all.keys().cloned()).collect()
}

fn rename(node: &mut Node, keys: &[String], report: &mut Report) {
    let Data::Map(entries) = &mut node.data else { return };
    for index in 0..entries.len() {
        let Some(key) = entries.get(index).map(|entry| &entry.key).filter(|key| !keys.contains(*key)) else { continue };
        let meant = report.nearest(key, keys.iter().map(String::as_str)).map(str::to_owned);
        if let Some(meant) = meant.filter(|meant| entries.iter().all(|entry| entry.key != *meant))
            && let Some(entry) = entries.get_mut(index)
        {
            entry.key = meant;
        }
    }
}

/// Moves what later sections of a name hold into the first.
fn join(root: &mut Node, section: &str) {
    let Data::Map(entries) = &mut root.data else { return };
    let Some(first) = entries.iter().position(|entry| entry.key == section) else { return };
    let mut more = Vec::new();
    for entry in entries.iter_mut().skip(first + 1).filter(|entry| entry.key == section) {
        if let Data::Map(members) = &mut entry.value.data {
            more.append(members);
        }
    }
    if let Some(Data::Map(members)) = entries.get_mut(first).map(|entry| &mut entry.value.data) {
        members.append(&mut more);
    }
}
