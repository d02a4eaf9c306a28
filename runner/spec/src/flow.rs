//! What flows between the instances of stages: columns, rows that belong together, and how both are made.

use std::collections::BTreeMap;

use runner_contract::{
    Bound, Column, ColumnType, Digest, Input, KeyHasher, Kind, Output, PARENT, PortKind, Schema, Shape,
};
use serde_json::json;

use crate::{
    declare::Declared,
    pipeline::InputRef,
    report::{Mistake, Report, Span},
};

/// What an output port gives, and which rows.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) output: Output,
    /// The rows, as the output port that first had them: equal for ports whose rows can be joined by id.
    pub(crate) lineage: (usize, String),
    /// How it is made.
    pub(crate) key: Digest,
}

/// What the connected ports of an instance receive.
#[derive(Default)]
pub(crate) struct Connected {
    pub(crate) inputs: BTreeMap<String, InputRef>,
    pub(crate) received: BTreeMap<String, Input>,
    /// How each input is made, by port.
    pub(crate) keys: Vec<(String, Digest)>,
    /// Whose rows the `rows` ports read, in the order of the kind's ports.
    pub(crate) lineages: Vec<(&'static str, (usize, String), Span)>,
}

/// Whether the `rows` ports of a stage that reads them side by side have the same rows.
pub(crate) fn same_rows(kind: &dyn Kind, stage: &Declared<'_>, connected: &Connected, report: &mut Report) -> bool {
    let info = kind.info();
    let Some(((first, lineage, _), others)) = connected.lineages.split_first() else { return true };
    let mut same = true;
    if matches!(info.shape, Shape::Source | Shape::Job) {
        return same;
    }
    for (port, other, span) in others {
        if other != lineage {
            same = false;
            let message = format!(
                "stage `{}` reads `{first}` and `{port}` side by side, but they hold different rows",
                stage.name
            );
            report.add(
                Mistake::at(*span, message).hint(
                    "both must come from the same output, through stages that neither multiply nor group the rows",
                ),
            );
        }
    }
    same
}

/// What the ports of a bound stage give.
pub(crate) fn gives(kind: &dyn Kind, position: usize, bound: &Bound, connected: &Connected) -> BTreeMap<String, Given> {
    let info = kind.info();
    let mut key = KeyHasher::new("spec/stage/1")
        .part("kind", info.name.as_bytes())
        .json("version", &json!(info.version))
        .json("settings", &bound.settings);
    for (port, input) in &connected.keys {
        key = key.digest(port, input);
    }
    let key = key.finish();
    let streams = matches!(info.shape, Shape::Map | Shape::Filter | Shape::Expand | Shape::Group);
    let first = info.inputs.iter().filter(|port| port.kind == PortKind::Rows).find_map(|port| {
        if let Some(Input::Rows(schema)) = connected.received.get(port.name) { Some(schema) } else { None }
    });
    let splits = info.outputs.len() > 1;
    let output = |port: &str, output: &Output| match output {
        Output::Rows(produced) if streams => {
            let mut schema = first.cloned().unwrap_or_default();
            if info.shape == Shape::Expand {
                schema = schema.with(&Schema::new([Column::new(PARENT, ColumnType::Text)]));
            }
            Output::Rows(schema.with(produced))
        }
        Output::Rows(produced) => Output::Rows(produced.clone()),
        Output::Model(model) => {
            let mut model = model.clone();
            model.identity =
                KeyHasher::new("spec/model/1").digest("stage", &key).part("port", port.as_bytes()).finish();
            Output::Model(model)
        }
    };
    let lineage = |port: &str| match connected.lineages.first() {
        Some((_, lineage, _)) if info.shape == Shape::Map || info.shape == Shape::Filter && !splits => lineage.clone(),
        _ => (position, port.to_owned()),
    };
    let entry = |(port, given): (&String, &Output)| {
        let key = KeyHasher::new("spec/port/1").digest("stage", &key).part("port", port.as_bytes()).finish();
        (port.clone(), Given { output: output(port, given), lineage: lineage(port), key })
    };
    bound.outputs.iter().map(entry).collect()
}
