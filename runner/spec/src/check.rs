//! Checks a tree against a JSON Schema, and reports every mistake at its place.
//!
//! It understands what `schemars` derives and what the language's own schema uses. Keywords beyond that are passed
//! over: the kind's own check has the last word.

use serde_json::{Map, Value};

use crate::{
    duration::{self, DURATION_PATTERN},
    expression::is_name,
    json_schema::{DEVICE_PATTERN, NAME_PATTERN, choices, fits, is_expression, plain, resolve, tag_of, wanted},
    options::device,
    report::{Mistake, Report, Span},
    template::is_template,
    yaml::{Data, Entry, Node, repeated},
};

mod words;

use words::{example, fits_word, found, items_word, line, not_a_name, quoted};

/// Schemas inside each other, against references in a circle.
const MAX_DEPTH: usize = 80;

/// What is being checked, for the words of messages.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// What a key is called: `key`, `setting`.
    pub(crate) key: &'static str,
    /// Whose keys they are, in the message: `of kind `prompts``; may be empty.
    pub(crate) owner: &'a str,
    /// Whether text with an expression is refused where the schema does not name it.
    pub(crate) language: bool,
    /// Whether parts of the tree are not known, so that nothing can be said to be missing.
    pub(crate) partial: bool,
}

/// A check of one tree.
pub(crate) struct Check<'a> {
    /// The schema that `$ref`s start from.
    pub(crate) root: &'a Value,
    /// The words.
    pub(crate) subject: Subject<'a>,
    /// Where mistakes go.
    pub(crate) report: &'a mut Report,
}

impl<'a> Check<'a> {
    /// Checks a value. `name` is what it is called (`templates`), `place` where to report what is missing from it.
    pub(crate) fn value(&mut self, node: &Node, schema: &Value, name: &str, place: Span) {
        self.descend(node, schema, name, place, 0);
    }

    fn descend(&mut self, node: &Node, schema: &Value, name: &str, place: Span, depth: usize) {
        let go_on = depth < MAX_DEPTH && !self.report.is_full();
        let Some(schema) = resolve(self.root, schema).as_object().filter(|_| go_on) else { return };
        if matches!(node.data, Data::Broken) {
            return;
        }
        if let Data::Text(text) = &node.data
            && self.subject.language
            && is_template(text)
        {
            if !self.allows_expression(schema, 0) {
                let mistake = Mistake::at(node.span, format!("an expression cannot stand in `{name}`"));
                self.report.add(mistake.hint("write the value itself; `$${{` is the text `${{`"));
            }
            return;
        }
        let words = choices(self.root, schema);
        if !words.is_empty() {
            return self.choice(node, &words, name);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(Value::Array(branches)) = schema.get(keyword) {
                self.branches(node, branches, name, place, depth);
            }
        }
        if let Some(Value::Array(parts)) = schema.get("allOf") {
            for part in parts {
                self.descend(node, part, name, place, depth + 1);
            }
        }
        if !fits(node, schema) {
            return self.wrong_type(node, &[&Value::Object(schema.clone())], name);
        }
        match &node.data {
            Data::Number(number) => self.number(node.span, number.as_f64().unwrap_or(0.0), schema, name),
            Data::Text(text) => self.text(node.span, text, schema, name),
            Data::List(items) => self.list(node, items, schema, name, depth),
            Data::Map(entries) => self.map(entries, schema, name, place, depth),
            Data::Null | Data::Boolean(_) | Data::Broken => {}
        }
    }

    fn add(&mut self, span: Span, message: String) {
        self.report.add(Mistake::at(span, message));
    }

    fn allows_expression(&self, schema: &Map<String, Value>, depth: usize) -> bool {
        let branches = ["anyOf", "oneOf"].into_iter().filter_map(|keyword| schema.get(keyword)?.as_array()).flatten();
        is_expression(schema)
            || depth < 8
                && branches
                    .filter_map(|branch| resolve(self.root, branch).as_object())
                    .any(|branch| self.allows_expression(branch, depth + 1))
    }

    fn choice(&mut self, node: &Node, words: &[&Value], name: &str) {
        let value = node.to_json();
        if words.contains(&&value) {
            return;
        }
        let list = words.iter().map(|word| format!("`{}`", plain(word))).collect::<Vec<_>>().join(", ");
        let found = match &node.data {
            Data::Text(_) | Data::Boolean(_) | Data::Number(_) if words.iter().any(|word| fits_word(word, &value)) => {
                format!("`{}`", plain(&value))
            }
            Data::Text(_) | Data::Boolean(_) | Data::Number(_) => found(node),
            _ => node.noun().to_owned(),
        };
        let one_of = if words.len() == 1 { "" } else { "one of " };
        let hint = self.report.suggest(&plain(&value), words.iter().filter_map(|word| word.as_str()));
        let hint = hint.or_else(|| match words {
            [only] => Some(format!("write `{}`", plain(only))),
            _ => None,
        });
        let mistake = Mistake::at(node.span, format!("`{name}`: expected {one_of}{list}, found {found}"));
        self.report.add(mistake.maybe_hint(hint));
    }

    /// Alternatives: the one that fits the value is the one meant.
    fn branches(&mut self, node: &Node, branches: &[Value], name: &str, place: Span, depth: usize) {
        let resolved: Vec<_> = branches.iter().map(|branch| resolve(self.root, branch)).collect();
        let fits = |branch: &&Value| branch.as_object().is_none_or(|branch| fits(node, branch));
        let fitting: Vec<_> = resolved.iter().copied().filter(fits).collect();
        match fitting.as_slice() {
            [] => return self.wrong_type(node, &resolved, name),
            [only] => return self.descend(node, only, name, place, depth + 1),
            _ => {}
        }
        if let Some(tag) = tag_of(self.root, &fitting) {
            return self.tagged(node, &fitting, &tag, name, place, depth);
        }
        // Several could be meant: any of them may pass, else the one with the fewest mistakes speaks.
        let mut best: Option<Report> = None;
        for branch in fitting {
            let mut report = Report::default();
            Check { root: self.root, subject: self.subject, report: &mut report }.descend(
                node,
                branch,
                name,
                place,
                depth + 1,
            );
            if best.as_ref().is_none_or(|best| report.len() < best.len()) {
                best = Some(report);
            }
        }
        self.report.extend(best.into_iter().flat_map(Report::into_mistakes));
    }

    /// Alternatives that a key tells apart: `{type: model, …}` or `{type: list, …}`.
    fn tagged<'b>(&mut self, node: &Node, branches: &[&'b Value], tag: &str, name: &str, place: Span, depth: usize)
    where
        'a: 'b,
    {
        let root = self.root;
        let words = |branch: &'b Value| {
            let schema = resolve(root, branch.get("properties")?.get(tag)?).as_object()?;
            Some(choices(root, schema))
        };
        let Some(value) = node.get(tag) else {
            let mistake = Mistake::at(place, format!("{} needs the {} `{tag}`", quoted(name), self.subject.key));
            let words: Vec<_> = branches.iter().filter_map(|branch| words(branch)).flatten().map(plain).collect();
            return self.report.add(mistake.hint(format!("add `{tag}:`, one of {}", words.join(", "))));
        };
        let found = value.to_json();
        if let Some(branch) = branches.iter().find(|branch| words(branch).is_some_and(|words| words.contains(&&found)))
        {
            return self.descend(node, branch, name, place, depth + 1);
        }
        let words: Vec<_> = branches.iter().filter_map(|branch| words(branch)).flatten().collect();
        self.choice(value, &words, tag);
    }

    fn wrong_type(&mut self, node: &Node, schemas: &[&Value], name: &str) {
        let is_name_of = |schema: &&Value| schema.get("pattern").and_then(Value::as_str) == Some(NAME_PATTERN);
        if matches!(node.data, Data::Number(_) | Data::Boolean(_)) && schemas.iter().any(is_name_of) {
            return self.report.add(not_a_name(node.span, &node.to_json().to_string()));
        }
        let mut wanted: Vec<_> = schemas.iter().flat_map(|schema| wanted(self.root, schema)).collect();
        wanted.dedup();
        wanted.retain(|word| !word.is_empty());
        if wanted.len() > 1 {
            wanted.retain(|word| word != "nothing");
        }
        let mistake =
            Mistake::at(node.span, format!("`{name}`: expected {}, found {}", wanted.join(" or "), found(node)));
        let wants = |noun: &str| wanted.iter().any(|word| word == noun);
        let hint = match &node.data {
            Data::Text(text) if wants("a boolean") && matches!(text.to_lowercase().as_str(), "yes" | "on") => {
                Some("write `true`".to_owned())
            }
            Data::Text(text) if wants("a boolean") && matches!(text.to_lowercase().as_str(), "no" | "off") => {
                Some("write `false`".to_owned())
            }
            Data::Text(text) if wants("an integer") && text.parse::<i64>().is_ok() => {
                Some("remove the quotes".to_owned())
            }
            Data::Text(text) if wants("a number") && text.parse::<f64>().is_ok() => {
                Some("remove the quotes".to_owned())
            }
            Data::Number(number) if wants("a duration") => Some(duration::hint_for(number)),
            Data::Text(text) if wants("a boolean") && text.parse::<bool>().is_ok() => {
                Some("remove the quotes".to_owned())
            }
            Data::Number(number) if wants("a boolean") && matches!(number.as_u64(), Some(0 | 1)) => {
                Some(format!("write `{}`", number.as_u64() == Some(1)))
            }
            Data::Number(_) | Data::Boolean(_) if wants("text") => {
                Some(format!("put it in quotes: `\"{}\"`", node.to_json()))
            }
            Data::Number(_) | Data::Boolean(_) | Data::Text(_) if wanted.iter().any(|w| w.starts_with("a list")) => {
                Some(format!("write `[{}]`", node.to_json()))
            }
            _ => example(node, schemas),
        };
        self.report.add(mistake.maybe_hint(hint));
    }

    fn number(&mut self, span: Span, value: f64, schema: &Map<String, Value>, name: &str) {
        let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        let message = match () {
            () if bound("minimum").is_some_and(|least| value < least) => format!("at least {}", schema["minimum"]),
            () if bound("maximum").is_some_and(|most| value > most) => format!("at most {}", schema["maximum"]),
            () if bound("exclusiveMinimum").is_some_and(|least| value <= least) => {
                format!("more than {}", schema["exclusiveMinimum"])
            }
            () if bound("exclusiveMaximum").is_some_and(|most| value >= most) => {
                format!("less than {}", schema["exclusiveMaximum"])
            }
            () => return,
        };
        self.add(span, format!("`{name}`: must be {message}, found {value}"));
    }

    fn text(&mut self, span: Span, text: &str, schema: &Map<String, Value>, name: &str) {
        let length = text.chars().count() as u64;
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let fault = match schema.get("pattern").and_then(Value::as_str) {
            Some(NAME_PATTERN) if !is_name(text) => return self.report.add(not_a_name(span, text)),
            Some(DURATION_PATTERN) => duration::of_text(text).err().map(|fault| fault.named(name)),
            Some(DEVICE_PATTERN) => device(&text.into()).err(),
            _ => None,
        };
        if let Some(fault) = fault {
            self.report.add(fault.at(span));
        } else if limit("minLength").is_some_and(|least| length < least) {
            let message = if text.is_empty() { "must not be empty" } else { "is too short" };
            self.add(span, format!("`{name}` {message}"));
        } else if limit("maxLength").is_some_and(|most| length > most) {
            self.add(span, format!("`{name}` is too long: {length} characters"));
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &Map<String, Value>, name: &str, depth: usize) {
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let length = items.len() as u64;
        if let Some(least) = limit("minItems").filter(|least| length < *least && !self.subject.partial) {
            self.add(node.span, format!("`{name}` needs at least {least} {}, found {length}", items_word(least)));
        }
        if let Some(most) = limit("maxItems").filter(|most| length > *most) {
            self.add(node.span, format!("`{name}` takes at most {most} {}, found {length}", items_word(most)));
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true))
            && let Some(item) = repeated(items)
        {
            self.add(item.span, format!("`{name}` has the same item twice"));
        }
        let prefix = schema.get("prefixItems").and_then(Value::as_array);
        for (i, item) in items.iter().enumerate() {
            let schema = prefix.and_then(|prefix| prefix.get(i)).or_else(|| schema.get("items"));
            if let Some(schema) = schema {
                self.descend(item, schema, &format!("{name}[{i}]"), item.span, depth + 1);
            }
        }
    }

    fn map(&mut self, entries: &[Entry], schema: &Map<String, Value>, name: &str, place: Span, depth: usize) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        let names = schema.get("propertyNames").and_then(|names| names.get("pattern")).and_then(Value::as_str);
        // A misspelt key is not also called missing.
        let mut meant = Vec::new();
        for Entry { key, span, value } in entries {
            if self.report.is_full() {
                return;
            }
            if names == Some(NAME_PATTERN) && !is_name(key) {
                self.report.add(not_a_name(*span, key));
            } else if let Some(schema) = properties.and_then(|properties| properties.get(key)) {
                self.descend(value, schema, key, *span, depth + 1);
            } else if others == Some(&Value::Bool(false)) {
                let known = self.unknown_key(key, *span, properties);
                meant.extend(known);
                // Its value is checked as that of the key that was meant.
                if let Some(known) = known.filter(|known| entries.iter().all(|entry| entry.key != *known))
                    && let Some(schema) = properties.and_then(|properties| properties.get(known))
                {
                    self.descend(value, schema, known, *span, depth + 1);
                }
            } else if let Some(schema) = others {
                self.descend(value, schema, key, *span, depth + 1);
            }
        }
        let least = schema.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
        if !self.subject.partial && (entries.len() as u64) < least {
            self.add(place, format!("{} must not be empty", quoted(name)));
        }
        let required = schema.get("required").and_then(Value::as_array).filter(|_| !self.subject.partial);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if !meant.contains(&key) && !entries.iter().any(|entry| entry.key == key) {
                let summary = properties.and_then(|all| all.get(key)?.get("description")?.as_str());
                let mistake = Mistake::at(place, format!("{} needs the {} `{key}`", quoted(name), self.subject.key));
                self.report.add(mistake.maybe_hint(self.what_to_add(key, properties, summary)));
            }
        }
    }

    /// What a missing key could be: its choices, or what it is for.
    fn what_to_add(&self, key: &str, properties: Option<&Map<String, Value>>, summary: Option<&str>) -> Option<String> {
        let schema = properties.and_then(|all| all.get(key)).map(|schema| resolve(self.root, schema));
        let words = schema.and_then(Value::as_object).map(|schema| choices(self.root, schema)).unwrap_or_default();
        match words.as_slice() {
            [] => summary.map(|summary| format!("add `{key}:` ({})", line(summary))),
            [word] => Some(format!("add `{key}: {}`", plain(word))),
            words => {
                let words: Vec<_> = words.iter().map(|word| format!("`{}`", plain(word))).collect();
                Some(format!("add `{key}:`, one of {}", words.join(", ")))
            }
        }
    }

    /// Reports a key that there is not, and gives the one that was probably meant.
    fn unknown_key<'k>(
        &mut self,
        key: &str,
        span: Span,
        properties: Option<&'k Map<String, Value>>,
    ) -> Option<&'k str> {
        let Subject { key: word, owner, .. } = self.subject;
        let owner = if owner.is_empty() { String::new() } else { format!(" {owner}") };
        let mistake = Mistake::at(span, format!("unknown {word} `{key}`{owner}"));
        let known = || properties.into_iter().flat_map(Map::keys).map(String::as_str);
        let meant = self.report.nearest(key, known());
        let hint = match (meant, known().collect::<Vec<_>>()) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, known) if known.is_empty() => format!("there are no {word}s here"),
            (None, known) => format!("the {word}s are {}", known.join(", ")),
        };
        self.report.add(mistake.hint(hint));
        meant
    }
}
