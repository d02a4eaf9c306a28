//! How to run a recorded run again: the commands, as a shell takes them.

use std::path::{Component, Path, PathBuf};

use runner_store::Run;
use serde_json::Value;

/// Commands that do again what a run did. They need the run's record, and not the pipeline's file.
pub(crate) fn script(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    if !run.folder.is_empty() {
        lines.push(format!("cd {}", quoted(&run.folder)));
    }
    let file = if run.includes.is_empty() {
        None
    } else {
        // Files that include others are read from a folder that holds them all.
        let folder = format!("run-{}", run.id);
        lines.push(format!("runner show {} --pipeline -o {folder}", run.id));
        Some(format!("{folder}/{}", inside(&file(run)).display()))
    };
    let mut words = Vec::new();
    for (name, value) in variables(run) {
        words.push(format!("{name}={}", quoted(&value)));
    }
    words.push("runner run".to_owned());
    words.push(file.as_deref().map_or_else(|| "-".to_owned(), quoted));
    for (name, value) in run.params.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        words.push(format!("--set {}", quoted(&format!("{name}={value}"))));
    }
    if let Some(limit) = run.limit {
        words.push(format!("--limit {limit}"));
    }
    let call = words.join(" ");
    lines.push(match file {
        Some(_) => call,
        None => format!("runner show {} --pipeline | {call}", run.id),
    });
    lines
}

/// The pipeline's file, as it was named when it was run.
pub(crate) fn file(run: &Run) -> PathBuf {
    let file = run.environment.get("file").and_then(Value::as_str).filter(|file| *file != "-");
    PathBuf::from(file.unwrap_or("pipeline.yaml"))
}

/// A path that stays in the folder that it is put into: what leads out of it is left out.
pub(crate) fn inside(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir)).fold(
        PathBuf::new(),
        |mut path, part| {
            match part {
                Component::ParentDir => drop(path.pop()),
                part => path.push(part),
            }
            path
        },
    )
}

/// The variables of the environment that the pipeline read.
pub(crate) fn variables(run: &Run) -> Vec<(String, String)> {
    let variables = run.environment.get("env").and_then(Value::as_object).into_iter().flatten();
    variables.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// A word of a command, in quotes where a shell needs them.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_read_more_into_them() {
        assert_eq!(quoted("pipelines/x.yaml"), "pipelines/x.yaml");
        assert_eq!(quoted("t=[\"it's {}\"]"), r#"'t=["it'\''s {}"]'"#);
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn recorded_files_stay_in_their_folder() {
        assert_eq!(inside(Path::new("../../etc/x.yaml")), Path::new("etc/x.yaml"));
        assert_eq!(inside(Path::new("/a/../b/x.yaml")), Path::new("b/x.yaml"));
    }
}
