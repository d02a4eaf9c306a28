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
mod fits;
mod flow;
mod gates;
mod include;
mod json_schema;
mod language;
mod lines;
mod matrix;
mod node;
mod options;
mod order;
mod params;
mod pipeline;
mod reference;
mod repair;
mod report;
mod scalar;
mod secret;
mod source;
mod syntax;
mod template;
mod test_file;
mod words;
mod yaml;

use std::{cell::Cell, collections::BTreeMap};

use runner_contract::{Registry, Resolver};

use crate::{
    bind::Binder,
    check::{Check, Subject},
    include::Joined,
    matrix::Matrices,
    params::{Params, References},
    report::{Mistake, Report, Span},
    source::Sources,
    yaml::{Data, Node, Parsed},
};

pub use diagnostic::{Diagnostic, Place, Related};
pub use language::schema;
pub use pipeline::{Device, Gate, InputRef, MaxBad, Pipeline, StageDef};
pub use secret::fill_secrets;
pub use test_file::{
    Expect, ExpectedGate, ExpectedMetric, ExpectedNumber, ExpectedRow, ExpectedRows, ExpectedValue, TestCase, TestFile,
    load_tests, same,
};
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
    Loader { path, set, test: None, registry, resolver, sources: Sources::default(), report: Report::default() }
        .load(bytes)
}

/// Reads and checks a pipeline for one of the tests beside it: with its overrides, its rows in place of those of
/// sources, and everything that it expects compared with what there is. Stages whose rows are expected are kept.
///
/// The case's mistakes have places in the file of tests.
pub fn load_case(
    path: &str,
    bytes: &[u8],
    tests: &TestFile,
    case: &TestCase,
    registry: &dyn Registry,
    resolver: &dyn Resolver,
) -> Result<Pipeline, Vec<Diagnostic>> {
    let (sources, report) = (Sources::default(), Report::default());
    let loader = Loader { path, set: &case.set, test: Some((tests, case)), registry, resolver, sources, report };
    let mut pipeline = loader.load(bytes)?;
    let found = test_file::check(case, &mut pipeline, registry);
    if found.is_empty() { Ok(pipeline) } else { Err(found) }
}

/// What a pipeline is read with, and what was found.
struct Loader<'a> {
    path: &'a str,
    set: &'a [(String, String)],
    test: Option<(&'a TestFile, &'a TestCase)>,
    registry: &'a dyn Registry,
    resolver: &'a dyn Resolver,
    sources: Sources,
    report: Report,
}

impl Loader<'_> {
    fn load(mut self, bytes: &[u8]) -> Result<Pipeline, Vec<Diagnostic>> {
        let pipeline = match self.sources.add(self.path, bytes, yaml::MAX_BYTES) {
            (_, Ok(())) => self.read(),
            (_, Err(mistake)) => {
                self.report.add(mistake);
                None
            }
        };
        match pipeline {
            Some(mut pipeline) if self.report.len() == 0 => {
                let (text, includes) = self.sources.into_texts();
                pipeline.text = text;
                // The file of tests is no part of the pipeline.
                let tests = self.test.map(|(tests, _)| tests.name());
                pipeline.includes = includes.filter(|(name, _)| tests != Some(name.as_str())).collect();
                Ok(pipeline)
            }
            _ => Err(self.report.into_diagnostics(&self.sources, self.set)),
        }
    }

    fn read(&mut self) -> Option<Pipeline> {
        let report = &mut self.report;
        let mut root = match yaml::parse(self.sources.last()) {
            Ok(Parsed { root, mistakes, .. }) => {
                report.extend(mistakes);
                root
            }
            Err(mistake) => {
                report.add(mistake);
                return None;
            }
        };
        if !matches!(root.data, Data::Map(_)) {
            let empty = self.sources.last().trim().is_empty();
            let found = if empty { "the file is empty".to_owned() } else { root.noun().to_owned() };
            let message = if empty { found } else { format!("a pipeline is a mapping, found {found}") };
            report.add(Mistake::at(root.span, message).hint("begin with `version: 1`, `name:` and `stages:`"));
            return None;
        }
        let language = language::language(root.get("include").is_some());
        let subject = Subject { key: "key", owner: "", language: true, partial: false };
        let start = Span::of(root.span.start, root.span.start + 1);
        let before = report.len();
        Check { root: &language, subject, report }.value(&root, &language, "a pipeline", start);
        if report.len() > before {
            repair::repair(&mut root, &language);
        }
        let Joined { root, complete } =
            include::join(root, self.path, &language, self.resolver, &mut self.sources, report);
        let mut rows = Vec::new();
        if let Some((tests, case)) = self.test {
            let base = tests.add_to(&mut self.sources);
            rows = tests.rows_of(case, base);
            report.place_sets(case.set_spans(base));
        }

        let references = References::new(self.resolver);
        let params = Params::read(root.get("params"), self.set, &references, complete, report);
        let stages = declare::read(root.get("stages"), &rows, self.registry, complete, report);
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
            tried: Cell::default(),
        };
        let mut gates = Vec::new();
        if !matrices.full {
            binder.run(&order, report);
            gates = gates::read(root.get("gates"), &binder, report);
        }
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
}
