//! Reads rows of settings as typed columns, and says everything that is wrong with them.

use std::collections::{HashMap, HashSet};

use runner_contract::{Column, ID, Problem};
use serde_json::{Map, Value};

use super::{Cells, Holds, Settings};

/// Columns that rows may have.
const MAX_COLUMNS: usize = 256;
/// Problems after which no more are looked for.
const MAX_PROBLEMS: usize = 200;

/// Columns of one length.
pub(super) struct Table {
    pub(super) ids: Vec<String>,
    /// In the order in which the rows first have them.
    pub(super) cells: Vec<(String, Cells)>,
}

impl Table {
    /// Reads the rows, or says what is wrong with each.
    pub(super) fn read(settings: &Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let rows = &settings.rows;
        if rows.is_empty() && settings.columns.is_empty() {
            let problem = Problem::setting("rows", "no rows");
            return Err(vec![problem.hint("give at least one, or say with `columns:` what they would have")]);
        }
        if let Some(classes) = &settings.classes {
            unique_classes(classes, &mut problems);
        }
        let ids = ids(rows, &mut problems);
        let mut names: Vec<&String> = Vec::new();
        let mut seen = HashSet::new();
        for name in rows.iter().flat_map(Map::keys).chain(settings.columns.keys()) {
            if name != ID && seen.insert(name) {
                names.push(name);
            }
        }
        if names.len() > MAX_COLUMNS {
            let message = format!("{} columns, more than {MAX_COLUMNS}", names.len());
            return Err(vec![Problem::setting("rows", message).hint("all rows have the same columns")]);
        }
        let mut cells = Vec::new();
        for name in names {
            if problems.len() > MAX_PROBLEMS {
                break;
            }
            let present: Vec<_> = rows.iter().enumerate().filter_map(|(i, row)| Some((i, row.get(name)?))).collect();
            if present.len() < rows.len() {
                lacking(name, rows, &ids, &present, &mut problems);
            }
            let holds = match settings.columns.get(name) {
                Some(holds) => *holds,
                None => match guess(name, &present) {
                    Ok(holds) => holds,
                    Err(problem) => {
                        problems.push(problem);
                        continue;
                    }
                },
            };
            let mut column = Reader { name, holds, classes: settings.classes.as_deref(), problems: &mut problems };
            cells.push((name.clone(), column.read(&present)));
        }
        if problems.is_empty() { Ok(Self { ids, cells }) } else { Err(problems) }
    }

    /// What the columns hold.
    pub(super) fn columns(&self) -> Vec<Column> {
        self.cells.iter().map(|(name, cells)| cells.column(name)).collect()
    }

    /// The paths of pictures, each with its row and column.
    pub(super) fn pictures(&self) -> impl Iterator<Item = ((usize, &str), &str)> {
        self.cells.iter().flat_map(|(name, cells)| {
            let paths = if let Cells::Image(paths) = cells { paths.as_slice() } else { &[] };
            paths.iter().enumerate().map(move |(row, path)| ((row, name.as_str()), path.as_str()))
        })
    }
}

fn at(row: usize, column: Option<&str>, message: String) -> Problem {
    let mut path = vec!["with".to_owned(), "rows".to_owned(), row.to_string()];
    path.extend(column.map(str::to_owned));
    Problem { path, message, hint: None }
}

fn unique_classes(classes: &[String], problems: &mut Vec<Problem>) {
    let mut seen = HashSet::new();
    for (i, class) in classes.iter().enumerate() {
        if !seen.insert(class) {
            let path = vec!["with".into(), "classes".into(), i.to_string()];
            problems.push(Problem { path, message: format!("the class `{class}` twice"), hint: None });
        }
    }
}

/// The ids of the rows: those given, else their places.
fn ids(rows: &[Map<String, Value>], problems: &mut Vec<Problem>) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    rows.iter()
        .enumerate()
        .map(|(i, row)| {
            let id = match row.get(ID) {
                None => i.to_string(),
                Some(Value::String(id)) if !id.is_empty() => id.clone(),
                Some(Value::Number(id)) if !id.is_f64() => id.to_string(),
                Some(other) => {
                    problems.push(at(i, Some(ID), format!("`id`: expected text, found {}", noun(other))));
                    i.to_string()
                }
            };
            if let Some(first) = seen.insert(id.clone(), i) {
                let message = format!("the id `{id}` twice: row {} has it, too", first + 1);
                problems.push(at(i, Some(ID), message));
            }
            id
        })
        .collect()
}

fn lacking(
    name: &str,
    rows: &[Map<String, Value>],
    ids: &[String],
    present: &[(usize, &Value)],
    problems: &mut Vec<Problem>,
) {
    let have: HashSet<_> = present.iter().map(|(i, _)| *i).collect();
    for i in (0..rows.len()).filter(|i| !have.contains(i)).take(MAX_PROBLEMS) {
        let id = ids.get(i).map_or("", String::as_str);
        let problem = at(i, None, format!("row `{id}` lacks the column `{name}`"));
        problems.push(problem.hint("all rows have the same columns"));
    }
}

/// What a column holds, from its name and values.
fn guess(name: &str, values: &[(usize, &Value)]) -> Result<Holds, Problem> {
    match name {
        "image" => return Ok(Holds::Image),
        "label" => return Ok(Holds::Label),
        _ => {}
    }
    let all = |fits: fn(&Value) -> bool| values.iter().all(|(_, value)| fits(value));
    let texts = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
    let numbers = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_number));
    let problem = |message: String| Problem::setting("rows", message);
    Ok(match () {
        () if all(Value::is_string) => Holds::Text,
        () if all(Value::is_boolean) => Holds::Boolean,
        () if all(|value| value.is_i64()) => Holds::Integer,
        () if all(Value::is_number) => Holds::Number,
        () if all(texts) => Holds::Texts,
        () if all(numbers) => {
            return Err(problem(format!("column `{name}` can be embeddings or scores"))
                .hint(format!("say which: `columns: {{{name}: embedding}}`")));
        }
        () => match values.first() {
            // The first value says what is meant; the others are reported as they are read.
            Some((_, Value::String(_))) => Holds::Text,
            Some((_, Value::Bool(_))) => Holds::Boolean,
            Some((_, Value::Number(_))) => Holds::Number,
            Some((_, Value::Array(items))) if items.iter().all(Value::is_string) => Holds::Texts,
            _ => {
                return Err(problem(format!("column `{name}` has values that no column can hold"))
                    .hint("a value is text, a number, a boolean, a list of texts or a list of numbers"));
            }
        },
    })
}

/// Reads the values of one column.
struct Reader<'a> {
    name: &'a str,
    holds: Holds,
    classes: Option<&'a [String]>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn read(&mut self, values: &[(usize, &Value)]) -> Cells {
        match self.holds {
            Holds::Image => Cells::Image(self.all(values, "the path of a picture", text)),
            Holds::Text => Cells::Text(self.all(values, "text", |value| value.as_str().map(str::to_owned))),
            Holds::Texts => Cells::Texts(self.all(values, "a list of texts", |value| {
                value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            })),
            Holds::Label => {
                let classes = self.classes;
                let expected = match classes {
                    Some(classes) => format!("one of the {} `classes`, or its number", classes.len()),
                    None => "the number of a class, from 0 (names need `classes:`)".to_owned(),
                };
                Cells::Label(self.all(values, &expected, |value| label(value, classes)))
            }
            Holds::Integer => Cells::Integer(self.all(values, "an integer", Value::as_i64)),
            Holds::Number => Cells::Number(self.all(values, "a number", Value::as_f64)),
            Holds::Boolean => Cells::Boolean(self.all(values, "a boolean", Value::as_bool)),
            Holds::Embedding => {
                let (values, width) = self.vectors(values);
                Cells::Embedding(values, width)
            }
            Holds::Scores => {
                let (values, width) = self.vectors(values);
                Cells::Scores(values, width)
            }
        }
    }

    fn all<T>(&mut self, values: &[(usize, &Value)], expected: &str, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        let mut out = Vec::with_capacity(values.len());
        for (row, value) in values {
            match read(value) {
                Some(value) => out.push(value),
                None if self.problems.len() > MAX_PROBLEMS => break,
                None => {
                    let message = format!("`{}`: expected {expected}, found {}", self.name, noun(value));
                    self.problems.push(at(*row, Some(self.name), message));
                }
            }
        }
        out
    }

    fn vectors(&mut self, values: &[(usize, &Value)]) -> (Vec<f32>, usize) {
        let read = |value: &Value| -> Option<Vec<f32>> {
            value.as_array()?.iter().map(|item| Some(item.as_f64()? as f32)).collect()
        };
        let vectors = self.all(values, "a list of numbers", read);
        let width = vectors.first().map_or(0, Vec::len);
        for ((row, _), vector) in values.iter().zip(&vectors) {
            if vector.len() != width || width == 0 {
                let message = format!("`{}`: {} numbers, expected {}", self.name, vector.len(), width.max(1));
                self.problems.push(at(*row, Some(self.name), message));
            }
        }
        (vectors.into_iter().flatten().collect(), width)
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn label(value: &Value, classes: Option<&[String]>) -> Option<i64> {
    let fits =
        |label: &i64| usize::try_from(*label).is_ok_and(|label| classes.is_none_or(|classes| label < classes.len()));
    match value {
        Value::Number(number) => number.as_i64().filter(fits),
        Value::String(name) => classes?.iter().position(|class| class == name).map(|label| label as i64),
        _ => None,
    }
}

fn noun(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::String(text) if text.chars().count() > 40 => "text".to_owned(),
        other => format!("`{}`", other.as_str().map_or_else(|| other.to_string(), str::to_owned)),
    }
}
