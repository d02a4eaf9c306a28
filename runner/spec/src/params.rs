//! Parameters: their types, their defaults, and `--set`.

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
};

use runner_contract::{ModelInfo, Problem, Resolver};
use serde_json::{Number, Value};

use crate::{
    expression::{Fault, Stop},
    language,
    report::{At, Mistake, Report},
    yaml::{self, Data, Node, Parsed},
};

/// Answers of the resolver, each asked for once.
pub(crate) struct References<'a> {
    resolver: &'a dyn Resolver,
    models: RefCell<BTreeMap<String, Result<ModelInfo, Problem>>>,
    variables: RefCell<BTreeMap<String, Option<String>>>,
    secrets: RefCell<BTreeMap<String, bool>>,
}

impl<'a> References<'a> {
    pub(crate) fn new(resolver: &'a dyn Resolver) -> Self {
        Self { resolver, models: RefCell::default(), variables: RefCell::default(), secrets: RefCell::default() }
    }

    /// The value of an environment variable.
    pub(crate) fn environment(&self, name: &str) -> Result<Value, Stop> {
        let mut variables = self.variables.borrow_mut();
        let value = variables.entry(name.to_owned()).or_insert_with(|| self.resolver.environment(name));
        value.clone().map(Value::String).ok_or_else(|| {
            Fault::new(format!("the environment variable `{name}` is not set"))
                .hint(format!("set it first: `export {name}=VALUE`"))
                .focus(format!("env.{name}"))
                .into()
        })
    }

    /// The environment variables asked for that are set.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let variables = self.variables.borrow();
        variables.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    /// Whether a secret has a value.
    pub(crate) fn has_secret(&self, name: &str) -> bool {
        let mut secrets = self.secrets.borrow_mut();
        *secrets.entry(name.to_owned()).or_insert_with(|| self.resolver.secret(name).is_some())
    }

    /// What a model offers.
    pub(crate) fn model(&self, reference: &str) -> Result<ModelInfo, Problem> {
        if let Some(known) = self.models.borrow().get(reference) {
            return known.clone();
        }
        let answer = self.resolver.model(reference);
        self.models.borrow_mut().insert(reference.to_owned(), answer.clone());
        answer
    }
}

/// A parameter with its value.
struct Param<'a> {
    kind: &'a str,
    /// Where the value was given.
    at: At,
    /// The value; `None` if it is missing or wrong, which was reported.
    value: Option<Value>,
    /// Whether the model or dataset that it names exists; asked when a stage first uses it.
    usable: OnceCell<bool>,
}

/// The parameters of a pipeline.
pub(crate) struct Params<'a> {
    params: BTreeMap<&'a str, Param<'a>>,
    pub(crate) references: &'a References<'a>,
    /// No file is missing in which others may be declared.
    pub(crate) complete: bool,
    /// What was found wrong while values were asked for.
    late: RefCell<Vec<Mistake>>,
}

impl<'a> Params<'a> {
    /// Reads `params:` and applies the overrides. The shape of the section was checked before.
    pub(crate) fn read(
        section: Option<&'a Node>,
        set: &[(String, String)],
        references: &'a References<'a>,
        complete: bool,
        report: &mut Report,
    ) -> Self {
        let mut params = BTreeMap::new();
        for entry in section.map(Node::entries).unwrap_or_default() {
            let kind = entry.value.get("type").and_then(Node::text).unwrap_or_default();
            let default = entry.value.get("default");
            let values: Vec<_> = match entry.value.get("values").map(Node::to_json) {
                Some(Value::Array(values)) => values,
                _ => Vec::new(),
            };
            let given = set.iter().rposition(|(name, _)| *name == entry.key);
            let (at, value) = match (given, default) {
                (Some(index), _) => {
                    let text = set.get(index).map(|(_, text)| text.as_str()).unwrap_or_default();
                    let value = match typed(kind, text, &values) {
                        Ok(value) => Some(value),
                        Err(fault) => {
                            let mut mistake = fault.at(crate::report::Span::default());
                            mistake.at = At::Set(index);
                            report.add(mistake);
                            None
                        }
                    };
                    (At::Set(index), value)
                }
                (None, Some(node)) => {
                    let value = node.to_json();
                    let fits = right_type(kind, &value) && (kind != "choice" || values.contains(&value));
                    if !fits && kind == "choice" && !values.is_empty() && !matches!(node.data, Data::Broken) {
                        let mistake = Mistake::at(node.span, format!("the default is none of {}", listed(&values)));
                        report.add(mistake.hint("add it to `values:`, or choose one of them"));
                    }
                    (At::Text(node.span), fits.then_some(value))
                }
                (None, None) => {
                    let known = language::PARAM_TYPES.contains(&kind);
                    if known {
                        report.add(
                            Mistake::at(entry.span, format!("parameter `{}` has no value", entry.key))
                                .hint(format!("give one with `--set {}=…`, or a `default:`", entry.key)),
                        );
                    }
                    (At::Text(entry.span), None)
                }
            };
            params.insert(entry.key.as_str(), Param { kind, at, value, usable: OnceCell::new() });
        }
        for (index, (name, _)) in set.iter().enumerate() {
            if complete && !params.contains_key(name.as_str()) {
                let hint = report.suggest(name, params.keys().copied());
                let mut mistake = Mistake::at(crate::report::Span::default(), format!("unknown parameter `{name}`"));
                mistake.at = At::Set(index);
                report.add(mistake.maybe_hint(hint.or_else(|| Some(known_params(params.keys().copied())))));
            }
        }
        Self { params, references, complete, late: RefCell::default() }
    }

    /// The value of a parameter for an expression.
    pub(crate) fn value(&self, name: &str) -> Result<Value, Stop> {
        let Some(param) = self.params.get(name) else {
            if !self.complete {
                return Err(Stop::Poisoned);
            }
            let hint = Report::default()
                .suggest(name, self.params.keys().copied())
                .unwrap_or_else(|| known_params(self.params.keys().copied()));
            return Err(Fault::new(format!("unknown parameter `{name}`"))
                .hint(hint)
                .focus(format!("params.{name}"))
                .into());
        };
        let value = param.value.clone().ok_or(Stop::Poisoned)?;
        let usable = *param.usable.get_or_init(|| {
            let reference = value.as_str().unwrap_or_default();
            let answer = match param.kind {
                "model" => self.references.model(reference).map(|_| ()),
                "dataset" => self.references.resolver.dataset(reference),
                _ => Ok(()),
            };
            let Err(Problem { message, hint, .. }) = answer else { return true };
            self.late.borrow_mut().push(Mistake { at: param.at, message, hint, focus: None, also: None });
            false
        });
        if usable { Ok(value) } else { Err(Stop::Poisoned) }
    }

    /// Reports what was found wrong since the last call.
    pub(crate) fn report_late(&self, report: &mut Report) {
        report.extend(self.late.borrow_mut().drain(..));
    }

    /// All values, by name.
    pub(crate) fn values(&self) -> BTreeMap<String, Value> {
        self.params.iter().filter_map(|(name, param)| Some(((*name).to_owned(), param.value.clone()?))).collect()
    }
}

fn known_params<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.take(20).collect();
    if names.is_empty() {
        "the pipeline has no `params:`".to_owned()
    } else {
        format!("the parameters are {}", names.join(", "))
    }
}

fn listed(values: &[Value]) -> String {
    let values: Vec<_> = values
        .iter()
        .map(|value| format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    values.join(", ")
}

fn right_type(kind: &str, value: &Value) -> bool {
    match kind {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "list" => value.is_array(),
        "choice" => !value.is_object() && !value.is_array() && !value.is_null(),
        "string" => value.is_string(),
        "path" | "model" | "dataset" => value.as_str().is_some_and(|text| !text.is_empty()),
        _ => false,
    }
}

/// Reads the text of an override as a value of the parameter's type.
fn typed(kind: &str, text: &str, values: &[Value]) -> Result<Value, Fault> {
    let expected = |what: &str| Fault::new(format!("expected {what}, found `{}`", text.escape_debug()));
    match kind {
        "string" => Ok(text.into()),
        "path" | "model" | "dataset" if text.is_empty() => Err(Fault::new(format!("an empty {kind}"))),
        "path" | "model" | "dataset" => Ok(text.into()),
        "integer" => text.trim().parse::<i64>().map(Value::from).map_err(|_| expected("an integer")),
        "number" => {
            let number = text.trim().parse::<i64>().ok().map(Number::from);
            let number = number.or_else(|| text.trim().parse().ok().and_then(Number::from_f64));
            number.map(Value::Number).ok_or_else(|| expected("a number"))
        }
        "boolean" => text.trim().parse::<bool>().map(Value::Bool).map_err(|_| expected("`true` or `false`")),
        "choice" => {
            let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let found = values.iter().find(|value| shown(value) == text);
            found.cloned().ok_or_else(|| {
                let fault = expected(&format!("one of {}", listed(values)));
                match Report::default().suggest(text, values.iter().filter_map(Value::as_str)) {
                    Some(hint) => fault.hint(hint),
                    None => fault,
                }
            })
        }
        "list" if text.trim_start().starts_with('[') => match yaml::parse(text) {
            Ok(Parsed { root, mistakes, .. }) if mistakes.is_empty() && matches!(root.data, Data::List(_)) => {
                Ok(root.to_json())
            }
            _ => Err(expected("a list").hint("write `--set 'NAME=[\"one\", \"two\"]'`")),
        },
        "list" if text.trim().is_empty() => Ok(Value::Array(Vec::new())),
        "list" => Ok(text.split(',').map(|item| Value::from(item.trim())).collect()),
        _ => Err(Fault::new("a value for a parameter without a type")),
    }
}
