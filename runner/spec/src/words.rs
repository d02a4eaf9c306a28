//! Words that were meant by others: misspelt ones, and those of other languages.

/// Comparisons made for "did you mean", so that many misspelt names among many names cost nothing.
const MAX_COMPARISONS: usize = 10_000;

/// What the language calls things, and what others call them.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("stages", &["jobs", "steps", "tasks", "nodes"]),
    ("params", &["parameters", "variables", "vars", "arguments", "args"]),
    ("include", &["includes", "import", "imports", "extends"]),
    ("gates", &["checks", "thresholds", "assertions"]),
    ("matrix", &["strategy", "foreach", "for_each", "sweep", "grid"]),
    ("uses", &["kind", "type", "op", "operator", "action"]),
    ("with", &["settings", "config", "configuration", "params", "parameters", "args", "arguments", "options"]),
    ("inputs", &["from", "reads"]),
    ("needs", &["depends_on", "depends-on", "dependson", "depends", "after", "requires", "dependencies"]),
    ("when", &["if", "condition", "only_if", "enabled"]),
    ("keep", &["store", "save", "persist"]),
    ("device", &["gpu"]),
    ("retries", &["retry", "attempts", "max_retries"]),
    ("timeout", &["timeout-minutes", "timeout_minutes", "timeout_seconds", "time_limit", "time-limit", "deadline"]),
    ("max_bad", &["max_errors", "max_failures", "tolerance", "skip_errors"]),
    ("min", &["minimum", "at_least", "gte"]),
    ("max", &["maximum", "at_most", "lte"]),
    ("type", &["kind"]),
    ("values", &["choices", "options", "enum"]),
    ("default", &["value"]),
    ("description", &["desc", "summary", "title", "help"]),
    ("integer", &["int"]),
    ("boolean", &["bool"]),
    ("string", &["str", "text"]),
    ("number", &["float", "double"]),
    ("list", &["array", "sequence"]),
    ("choice", &["enum", "select"]),
    ("path", &["file", "dir", "directory", "folder"]),
];

/// The candidate that was probably meant by a word, if one was. `comparisons` counts what that cost so far.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    comparisons: &mut usize,
) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    let allowed = 1 + usize::from(length > 3) + usize::from(length > 8);
    let word = word.to_lowercase();
    let synonyms = || SYNONYMS.iter().filter(|(_, others)| others.contains(&word.as_str())).map(|(known, _)| *known);
    let mut best = None;
    for candidate in candidates {
        if synonyms().any(|known| known == candidate) {
            return Some(candidate);
        }
        if candidate.len().abs_diff(word.len()) > 2 * allowed {
            continue;
        }
        *comparisons += 1;
        if *comparisons > MAX_COMPARISONS {
            break;
        }
        let distance = strsim::osa_distance(&word, &candidate.to_lowercase());
        if distance <= allowed && distance < length && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_and_foreign_words_are_understood() {
        let keys = ["uses", "with", "inputs", "needs", "matrix", "when", "retries", "timeout"];
        let meant = |word| nearest(word, keys, &mut 0);
        assert_eq!(meant("wehn"), Some("when"));
        assert_eq!(meant("Uses"), Some("uses"));
        assert_eq!(meant("if"), Some("when"));
        assert_eq!(meant("depends_on"), Some("needs"));
        assert_eq!(meant("params"), Some("with"));
        assert_eq!(meant("colour"), None);
        assert_eq!(nearest("int", ["string", "integer"], &mut 0), Some("integer"));
        assert_eq!(nearest("datta", ["data", "date"], &mut 0), Some("data"));
    }
}
