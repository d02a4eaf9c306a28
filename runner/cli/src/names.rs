//! Names of stages and columns on the command line, held against the pipeline before anything runs.

use std::collections::BTreeSet;

use runner_contract::{Output, Schema};
use runner_spec::{Pipeline, StageDef};

use crate::failure::Failure;

/// Fails unless the pipeline has stages of these names: full ones, or names in the file.
pub(crate) fn stages<'a>(pipeline: &Pipeline, names: impl IntoIterator<Item = &'a String>) -> Result<(), Failure> {
    let known = |name: &String| pipeline.stages.iter().any(|stage| stage.name == *name || stage.base == *name);
    let Some(name) = names.into_iter().find(|name| !known(name)) else { return Ok(()) };
    if pipeline.skipped.contains(name) {
        return Err(Failure::Usage { message: format!("stage `{name}` is left out by its `when`"), hint: None });
    }
    let there = pipeline.stages.iter().map(|stage| stage.base.as_str());
    Err(Failure::usage(format!("no stage is called `{name}`"), format!("there are {}", listed(there))))
}

/// Fails unless the pipeline has rows of that name, `data` or `split.train`, with these columns.
pub(crate) fn rows(pipeline: &Pipeline, target: &str, columns: Option<&[String]>) -> Result<(), Failure> {
    let fits = |stage: &StageDef, port: &str| stage.name == target || format!("{}.{port}", stage.name) == target;
    let all = || pipeline.stages.iter().flat_map(|stage| row_ports(stage).map(move |(port, rows)| (stage, port, rows)));
    let schemas: Vec<&Schema> = all().filter(|(stage, port, _)| fits(stage, port)).map(|(_, _, rows)| rows).collect();
    let Some(first) = schemas.first() else {
        let there = listed(all().map(|(stage, _, _)| stage.name.as_str()));
        return Err(Failure::usage(format!("no stage `{target}` has rows"), format!("those that have: {there}")));
    };
    // Which of several ports is meant, the engine decides.
    let known = |column: &String| schemas.iter().any(|rows| rows.get(column).is_some());
    match columns.into_iter().flatten().find(|column| !known(column)) {
        Some(column) => {
            Err(Failure::usage(format!("`{target}` has no column `{column}`"), format!("it has {}", first.names())))
        }
        None => Ok(()),
    }
}

fn row_ports(stage: &StageDef) -> impl Iterator<Item = (&str, &Schema)> {
    stage.outputs.iter().filter_map(|(port, output)| match output {
        Output::Rows(rows) => Some((port.as_str(), rows)),
        Output::Model(_) => None,
    })
}

/// Each name once, sorted.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}
