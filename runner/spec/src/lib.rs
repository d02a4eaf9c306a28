//! YAML text to a typed, validated pipeline, with diagnostics that know line and column.
//!
//! Pure: what kinds, models and datasets offer comes from a [`Registry`] and a [`Resolver`]. The text goes through
//! these steps, each of which passes over what an earlier one found wrong, so that all mistakes are reported at once:
//!
//! 1. `yaml`: a tree whose values know their places
//! 2. `check` against `language`: the keys, and the types behind them
//! 3. `params`: parameters and overrides
//! 4. `declare`: kinds, references to stages, ports
//! 5. `order` and `matrix`: circles, and the instances of each stage
//! 6. `bind`: for each instance its expressions, settings and columns, with its kind
//! 7. `gates`

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
mod template;
mod yaml;

use runner_contract::{Registry, Resolver};

use crate::{
    bind::Binder,
    check::{Check, Subject},
    matrix::Matrices,
    params::{Params, References},
    report::{Mistake, Report, Span},
    yaml::{Data, Node},
};

pub use diagnostic::{Diagnostic, Place};
pub use language::schema;
pub use pipeline::{Device, Gate, InputRef, Pipeline, StageDef};

/// Reads and checks a pipeline. Every mistake is reported, not the first; they come in the order of the file.
///
/// `path` stands in messages only. `set` holds `--set name=value` overrides, as split at the first `=`; of several for
/// one parameter the last counts.
pub fn load(
    path: &str,
    bytes: &[u8],
    set: &[(String, String)],
    registry: &dyn Registry,
    resolver: &dyn Resolver,
) -> Result<Pipeline, Vec<Diagnostic>> {
    let mut report = Report::default();
    if bytes.len() > yaml::MAX_BYTES {
        let message = format!("{} bytes, more than the {} that a pipeline may have", bytes.len(), yaml::MAX_BYTES);
        report.add(Mistake::at(Span::default(), message));
        return Err(report.into_diagnostics(path, "", set));
    }
    let lossy = String::from_utf8_lossy(bytes);
    let text = lossy.strip_prefix('\u{feff}').unwrap_or(&lossy);
    let pipeline = match std::str::from_utf8(bytes) {
        Ok(_) => read(text, set, registry, resolver, &mut report),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).map(String::from_utf8_lossy).unwrap_or_default();
            let at = before.trim_start_matches('\u{feff}').chars().count();
            let mistake = Mistake::at(Span::of(at, at + 1), "the file is not UTF-8 text");
            report.add(mistake.hint("save it as UTF-8"));
            None
        }
    };
    match pipeline {
        Some(pipeline) if report.len() == 0 => Ok(pipeline),
        _ => Err(report.into_diagnostics(path, text, set)),
    }
}

fn read(
    text: &str,
    set: &[(String, String)],
    registry: &dyn Registry,
    resolver: &dyn Resolver,
    report: &mut Report,
) -> Option<Pipeline> {
    let root = match yaml::parse(text) {
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
    let language = language::language();
    let subject = Subject { key: "key", owner: "", language: true, partial: false };
    let start = Span::of(root.span.start, root.span.start + 1);
    Check { root: &language, subject, report }.value(&root, &language, "a pipeline", start);

    let references = References::new(resolver);
    let params = Params::read(root.get("params"), set, &references, report);
    let stages = declare::read(root.get("stages"), registry, report);
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
        text: text.to_owned(),
    })
}
