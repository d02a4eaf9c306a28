//! YAML text to a typed, validated pipeline, with diagnostics that know line and column.
//!
//! Pure: what kinds, models and datasets offer comes from a [`Registry`] and a [`Resolver`]. The text goes through
//! these steps, each of which passes over what an earlier one found wrong, so that all mistakes are reported at once:
//!
//! 1. `yaml`: a tree whose values know their places
//! 2. `check` against `language`: the keys, and the types behind them
//! 3. `include`: the stages and parameters of other files, joined with the pipeline's own
//! 4. `params`: parameters and overrides
//! 5. `declare`: kinds, references to stages, ports
//! 6. `order` and `matrix`: circles, and the instances of each stage
//! 7. `bind`: for each instance its expressions, settings and columns, with its kind
//! 8. `gates`

mod axes;
mod bind;
mod check;
mod declare;
mod diagnostic;
pub mod drawing;
mod duration;
mod expression;
mod flow;
mod gates;
mod include;
mod json_schema;
mod language;
mod lines;
mod matrix;
mod options;
mod order;
mod params;
mod pipeline;
mod reference;
mod report;
mod secret;
mod source;
mod template;
mod yaml;

use std::collections::BTreeMap;

use runner_contract::{Registry, Resolver};

use crate::{
    bind::Binder,
    check::{Check, Subject},
    include::Joined,
    matrix::Matrices,
    params::{Params, References},
    report::{Mistake, Report, Span},
    source::Sources,
    yaml::{Data, Node},
};

pub use diagnostic::{Diagnostic, Place, Related};
pub use language::schema;
pub use pipeline::{Device, Gate, InputRef, Pipeline, StageDef};
pub use secret::fill_secrets;
pub use yaml::MAX_BYTES;

/// Reads and checks a pipeline. Every mistake is reported, not the first; they come in the order of the file.
///
/// `path` stands in messages, and is where the paths of included files begin. `set` holds `--set name=value` overrides,
/// as split at the first `=`; of several for one parameter the last counts.
pub fn load(
    path: &str,
    bytes: &[u8],
    set: &[(String, String)],
    registry: &dyn Registry,
    resolver: &dyn Resolver,
) -> Result<Pipeline, Vec<Diagnostic>> {
    let (mut report, mut sources) = (Report::default(), Sources::default());
    let pipeline = match sources.add(path, bytes, yaml::MAX_BYTES) {
        (_, Ok(())) => read(path, set, registry, resolver, &mut sources, &mut report),
        (_, Err(mistake)) => {
            report.add(mistake);
            None
        }
    };
    match pipeline {
        Some(mut pipeline) if report.len() == 0 => {
            let (text, includes) = sources.into_texts();
            pipeline.text = text;
            pipeline.includes = includes.collect();
            Ok(pipeline)
        }
        _ => Err(report.into_diagnostics(&sources, set)),
    }
}

fn read(
    path: &str,
    set: &[(String, String)],
    registry: &dyn Registry,
    resolver: &dyn Resolver,
    sources: &mut Sources,
    report: &mut Report,
) -> Option<Pipeline> {
    let root = match yaml::parse(sources.last()) {
        Ok(root) => root,
        Err(mistakes) => {
            report.extend(mistakes);
            return None;
        }
    };
    if !matches!(root.data, Data::Map(_)) {
        let mistake = Mistake::at(root.span, format!("a pipeline is a mapping, found {}", root.noun()));
        report.add(mistake.hint("begin with `version: 1`, `name:` and `stages:`"));
        return None;
    }
    let language = language::language(root.get("include").is_some());
    let subject = Subject { key: "key", owner: "", language: true, partial: false };
    let start = Span::of(root.span.start, root.span.start + 1);
    Check { root: &language, subject, report }.value(&root, &language, "a pipeline", start);
    let Joined { root, complete } = include::join(root, path, &language, resolver, sources, report);

    let references = References::new(resolver);
    let params = Params::read(root.get("params"), set, &references, complete, report);
    let stages = declare::read(root.get("stages"), registry, complete, report);
    let order = order::sort(&stages, report);
    let matrices = Matrices::read(root.get("matrix"), &stages, &order, &params, report);
    params.report_late(report);
    let mut binder = Binder {
        stages: &stages,
        matrices: &matrices,
        params: &params,
        references: &references,
        instances: Vec::new(),
        defs: Vec::new(),
        skipped: Vec::new(),
    };
    binder.run(&order, report);
    let gates = gates::read(root.get("gates"), &binder, report);
    let name = |key| root.get(key).and_then(Node::text).map(str::to_owned);
    Some(Pipeline {
        name: name("name")?,
        description: name("description"),
        params: params.values(),
        stages: binder.defs,
        skipped: binder.skipped,
        gates,
        text: String::new(),
        includes: BTreeMap::new(),
        environment: references.variables(),
    })
}
