//! Finds what could be read instead of an input that does not fit.

use std::collections::BTreeMap;

use runner_contract::{Input, Kind, Output, Problem};
use serde_json::Value;

use crate::{
    bind::{Binder, Instance},
    declare::{Declared, Origin},
    flow::Given,
};

/// Outputs that are tried for one input.
const MAX_TRIED: usize = 16;
/// Outputs that are tried in all for a pipeline, so that many mistakes cost little.
const MAX_TOTAL: usize = 64;

/// The output that an input port could read: another one of the stage that it reads, else the nearest before it with
/// which the kind finds nothing wrong with the port.
pub(crate) fn alternative(
    binder: &Binder<'_>,
    kind: &dyn Kind,
    stage: &Declared<'_>,
    settings: &Value,
    received: &BTreeMap<String, Input>,
    port: &str,
) -> Option<String> {
    let input = stage.inputs.iter().find(|input| input.port.name == port)?;
    let Origin::Stage(link, now) = &input.from else { return None };
    let named = |index: usize, output: &str| -> Option<String> {
        let declared = binder.stages.get(index)?;
        let first = declared.kind?.info().outputs.first()?.name;
        Some(if output == first { declared.name.to_owned() } else { format!("{}.{output}", declared.name) })
    };
    // Stages that are fanned out have no one name.
    let ready = |index: usize| match binder.instances.get(index).map(Vec::as_slice) {
        Some([Instance::Ready(position, given)]) => Some((*position, index, given)),
        _ => None,
    };
    let beside = ready(link.stage);
    let mut others: Vec<_> = (0..binder.stages.len()).filter(|index| *index != link.stage).filter_map(ready).collect();
    others.sort_by_key(|(position, ..)| std::cmp::Reverse(*position));
    let outputs = beside.into_iter().chain(others).flat_map(|(_, index, given)| {
        given
            .iter()
            .filter(move |(name, _)| index != link.stage || Some(name.as_str()) != *now)
            .map(move |g| (index, g))
    });
    for (index, (name, Given { output, .. })) in outputs.take(MAX_TRIED) {
        let Output::Rows(schema) = output else { continue };
        binder.tried.set(binder.tried.get() + 1);
        if binder.tried.get() > MAX_TOTAL {
            return None;
        }
        let mut received = received.clone();
        received.insert(port.to_owned(), Input::Rows(schema.clone()));
        let fits = match kind.bind(settings, &received) {
            Ok(_) => true,
            Err(problems) => !problems.iter().any(|problem| is_about(problem, port)),
        };
        if fits {
            return named(index, name);
        }
    }
    None
}

/// Whether a problem is one of an input port.
fn is_about(problem: &Problem, port: &str) -> bool {
    matches!(problem.path.as_slice(), [inputs, name, ..] if inputs == "inputs" && name == port)
}
