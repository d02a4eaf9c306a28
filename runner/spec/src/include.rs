//! Joins the stages and parameters of the files that a pipeline includes with its own.

use std::collections::HashMap;

use runner_contract::Resolver;
use serde_json::Value;

use crate::{
    check::{Check, Subject},
    repair,
    report::{Mistake, Report, Span},
    source::Sources,
    template::is_template,
    yaml::{self, Data, Entry, Node, Parsed},
};

/// Files that include each other in a row.
const MAX_DEPTH: usize = 8;
/// Files that a pipeline may consist of.
const MAX_FILES: usize = 64;
/// `include:` items in all files, those of files that are reached again as well.
const MAX_ITEMS: usize = 256;

/// A pipeline with everything that it includes.
pub(crate) struct Joined {
    /// The pipeline's own keys, with all stages and parameters in place of its own.
    pub(crate) root: Node,
    /// Every file could be read: a name that is not there is nowhere.
    pub(crate) complete: bool,
}

/// Reads what `root` includes. Stages of included files stand before those of the file that includes them.
pub(crate) fn join(
    mut root: Node,
    path: &str,
    language: &Value,
    resolver: &dyn Resolver,
    sources: &mut Sources,
    report: &mut Report,
) -> Joined {
    let mut reader = Reader {
        language,
        resolver,
        sources,
        report,
        complete: true,
        items: 0,
        values: 0,
        params: HashMap::new(),
        open: vec![normal(path)],
        stages: Vec::new(),
        names: HashMap::new(),
    };
    let params = reader.contents(&root, path);
    let Reader { complete, stages, report, .. } = reader;
    let include = root.entries().iter().find(|entry| entry.key == "include").map(|entry| entry.span);
    if let (Some(include), Data::Map(entries)) = (include, &mut root.data) {
        if complete && stages.is_empty() && !entries.iter().any(|entry| entry.key == "stages") {
            let mistake = Mistake::at(include, "no stages, neither here nor in the included files");
            report.add(mistake.hint("add `stages:`"));
        }
        entries.retain(|entry| !["params", "stages", "include"].contains(&entry.key.as_str()));
        let span = root.span;
        let map = |entries| Node { span, data: Data::Map(entries) };
        entries.push(Entry { key: "params".to_owned(), span, value: map(params) });
        entries.push(Entry { key: "stages".to_owned(), span, value: map(stages) });
    }
    Joined { root, complete }
}

struct Reader<'a> {
    /// The schema of the language.
    language: &'a Value,
    resolver: &'a dyn Resolver,
    sources: &'a mut Sources,
    report: &'a mut Report,
    complete: bool,
    /// `include:` items so far.
    items: usize,
    /// Values in the included files so far.
    values: usize,
    /// What the parameters of each file are that was read, with those of the files that it includes.
    params: HashMap<String, Vec<Entry>>,
    /// The files that are being read, each included by the one before.
    open: Vec<String>,
    /// The stages so far.
    stages: Vec<Entry>,
    /// Where each name stands first.
    names: HashMap<String, Span>,
}

impl Reader<'_> {
    /// Joins what a file includes and holds, and gives its parameters.
    fn contents(&mut self, root: &Node, name: &str) -> Vec<Entry> {
        let mut params: Vec<Entry> = Vec::new();
        let own = root.get("params").map(Node::entries).unwrap_or_default();
        let items = match root.get("include").map(|node| &node.data) {
            Some(Data::List(items)) => items.as_slice(),
            _ => &[],
        };
        for item in items {
            let Some(path) = item.text().filter(|path| !path.is_empty() && !is_template(path)) else {
                self.complete = false;
                continue;
            };
            let Some(theirs) = self.file(name, path, item.span) else {
                self.complete = false;
                continue;
            };
            for param in theirs {
                self.param(&mut params, param, own);
            }
        }
        for entry in own {
            match params.iter_mut().find(|param| param.key == entry.key) {
                Some(theirs) => {
                    let kind = |entry: &Entry| entry.value.get("type").and_then(Node::text).map(str::to_owned);
                    if let (Some(ours), Some(kind)) = (kind(entry), kind(theirs))
                        && ours != kind
                    {
                        let at = entry.value.get("type").map_or(entry.span, |node| node.span);
                        let message = format!("parameter `{}` is a `{kind}` where it was declared first", entry.key);
                        let mistake = Mistake::at(at, message).also(theirs.span, "declared first here");
                        self.report.add(mistake.hint(format!("write `type: {kind}`, or rename it")));
                    }
                    *theirs = entry.clone();
                }
                None => params.push(entry.clone()),
            }
        }
        let stages = root.get("stages").map(Node::entries).unwrap_or_default();
        for entry in stages {
            // The same name twice in one file is a duplicate key, and was reported.
            if let Some(&first) = self.names.get(&entry.key) {
                let message = format!("stage `{}` was declared already", entry.key);
                let mistake = Mistake::at(entry.span, message).also(first, "declared first here");
                self.report.add(mistake.hint("rename one of them"));
            }
            self.stages.push(entry.clone());
        }
        for entry in stages {
            self.names.entry(entry.key.clone()).or_insert(entry.span);
        }
        params
    }

    /// Takes a parameter of an included file, unless the including file declares it itself.
    fn param(&mut self, params: &mut Vec<Entry>, param: Entry, own: &[Entry]) {
        match params.iter().find(|other| other.key == param.key) {
            None => params.push(param),
            Some(other) if other.span == param.span || own.iter().any(|own| own.key == param.key) => {}
            Some(other) => {
                let meaning =
                    |entry: &Entry| ["type", "default", "values"].map(|key| entry.value.get(key).map(Node::to_json));
                if meaning(other) != meaning(&param) {
                    let message = format!("parameter `{}` is declared twice, in different ways", param.key);
                    let mistake = Mistake::at(param.span, message).also(other.span, "declared first here");
                    self.report.add(mistake.hint("declare it in the file that includes both: that declaration counts"));
                }
            }
        }
    }

    /// Reads one file, if it was not read before, and gives its parameters.
    fn file(&mut self, from: &str, path: &str, span: Span) -> Option<Vec<Entry>> {
        self.items += 1;
        if self.items > MAX_ITEMS || self.report.is_full() {
            let message = format!("more than {MAX_ITEMS} files in the `include:` lists of a pipeline");
            self.fail(Mistake::at(span, message), self.items == MAX_ITEMS + 1);
            return None;
        }
        if path.contains("://") {
            self.fail(Mistake::at(span, "only files can be included, not addresses"), true);
            return None;
        }
        let (name, bytes) = match self.resolver.include(from, path) {
            Ok(file) => file,
            Err(message) => {
                let hint = match from.rsplit_once('/') {
                    Some((folder, _)) => format!("the path is relative to the folder of this file, `{folder}`"),
                    None => "the path is relative to the folder of this file".to_owned(),
                };
                self.fail(Mistake::at(span, message).hint(hint), true);
                return None;
            }
        };
        let key = normal(&name);
        if let Some(first) = self.open.iter().position(|open| *open == key) {
            let circle: Vec<_> = self.open.iter().skip(first).chain([&key]).map(|name| format!("`{name}`")).collect();
            let message = if circle.len() == 2 {
                "the file includes itself".to_owned()
            } else {
                format!("files include each other in a circle: {}", circle.join(" → "))
            };
            self.fail(Mistake::at(span, message).hint("remove one of the `include:`s"), true);
            return None;
        }
        if let Some(params) = self.params.get(&key) {
            return Some(params.clone());
        }
        let limit = match () {
            () if self.open.len() > MAX_DEPTH => format!("files include each other more than {MAX_DEPTH} deep"),
            () if self.params.len() + 1 >= MAX_FILES => format!("a pipeline of more than {MAX_FILES} files"),
            () => String::new(),
        };
        if !limit.is_empty() {
            self.fail(Mistake::at(span, limit), true);
            return None;
        }
        // From now on the file counts as read: what is wrong with it is said once.
        self.params.insert(key.clone(), Vec::new());
        let most = yaml::MAX_BYTES.saturating_sub(self.sources.bytes());
        let (base, readable) = self.sources.add(&name, &bytes, most);
        if let Err(mistake) = readable {
            self.fail(mistake, true);
            return None;
        }
        let most = yaml::MAX_NODES.saturating_sub(self.values);
        let Parsed { mut root, values, mistakes } = match yaml::parse_part(self.sources.last(), base, most) {
            Ok(parsed) => parsed,
            Err(mistake) => {
                self.fail(mistake, true);
                return None;
            }
        };
        self.report.extend(mistakes);
        self.values += values;
        if !matches!(root.data, Data::Map(_)) {
            let mistake = Mistake::at(root.span, format!("an included file is a mapping, found {}", root.noun()));
            self.fail(mistake.hint("begin with `stages:`"), true);
            return None;
        }
        let subject = Subject { key: "key", owner: "of an included file", language: true, partial: false };
        let start = Span::of(root.span.start, root.span.start + 1);
        if let Some(schema) = self.language.pointer("/$defs/included") {
            let mut check = Check { root: self.language, subject, report: self.report };
            check.value(&root, schema, "an included file", start);
        }
        repair::repair(&mut root, self.language);
        self.open.push(key.clone());
        let params = self.contents(&root, &name);
        self.open.pop();
        self.params.insert(key, params.clone());
        Some(params)
    }

    /// A file could not be read.
    fn fail(&mut self, mistake: Mistake, say: bool) {
        self.complete = false;
        if say {
            self.report.add(mistake);
        }
    }
}

/// A path without `.` and `..`, as far as that can be said without looking.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split(['/', '\\']) {
        match part {
            "." => {}
            ".." if parts.last().is_some_and(|last| !["", ".."].contains(last)) => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn a_file_has_one_name() {
        assert_eq!(normal("./a/../b.yaml"), "b.yaml");
        assert_eq!(normal("../x/./b.yaml"), "../x/b.yaml");
        assert_eq!(normal("../../b.yaml"), "../../b.yaml");
        assert_eq!(normal("/a/b/../c.yaml"), "/a/c.yaml");
        assert_eq!(normal("a\\b.yaml"), "a/b.yaml");
    }
}
