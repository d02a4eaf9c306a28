use std::{fs, path::Path};

use proptest::{collection, prelude::*, sample};
use serde_json::{Number, Value};

use super::*;

/// The texts of the cases.
fn seeds() -> Vec<String> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let paths = ["valid", "invalid", "shared", "tests"].iter().flat_map(|folder| {
        fs::read_dir(cases.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    });
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// Values of another reader of YAML, as far as they are values of the language.
fn other(value: serde_yaml::Value) -> Option<Value> {
    use serde_yaml::Value as Yaml;
    Some(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => value.into(),
        Yaml::Number(value) => match (value.as_i64(), value.as_u64()) {
            (Some(value), _) => value.into(),
            (None, Some(value)) => value.into(),
            (None, None) => Number::from_f64(value.as_f64()?)?.into(),
        },
        Yaml::String(value) => value.into(),
        Yaml::Sequence(items) => items.into_iter().map(other).collect::<Option<_>>()?,
        Yaml::Mapping(map) => {
            let entries = map.into_iter().map(|(key, value)| Some((key.as_str()?.to_owned(), other(value)?)));
            Value::Object(entries.collect::<Option<_>>()?)
        }
        Yaml::Tagged(_) => return None,
    })
}

/// Whether two readers read a text alike, where both read it at all. They need not agree on
/// a last line that has no break.
fn agree(text: &str) -> Result<(), TestCaseError> {
    let text = &format!("{}\n", text.trim_end_matches([' ', '\t']));
    let Ok(Parsed { root, mistakes, .. }) = parse(text) else { return Ok(()) };
    if text.starts_with(['|', '>']) {
        // They differ in how a text block that is all of a document may be indented.
        return Ok(());
    }
    let (true, Ok(value)) = (mistakes.is_empty(), serde_yaml::from_str(text)) else { return Ok(()) };
    if let Some(value) = other(value) {
        prop_assert_eq!(root.to_json(), value, "{:?}", text);
    }
    Ok(())
}

/// Pieces of YAML.
const PIECES: [&str; 40] = [
    "a: ",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    "|\n  ",
    ">\n  ",
    "|-\n  ",
    ">+\n  ",
    "|2\n   ",
    "x",
    "y z",
    "1",
    "1.5",
    "0x1f",
    "007",
    "-",
    "~",
    "null",
    "true",
    "'it''s'",
    "\"a\\n\\u00e9\"",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "#c",
    " # c\n",
    "&a ",
    "*a",
    "é",
    "\r\n",
    "  ",
    "b: 2",
    "? ",
    "'",
    "\"",
    "\\\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn pieces_are_read_as_others_read_them(pieces in collection::vec(sample::select(PIECES.to_vec()), 1..24)) {
        agree(&pieces.concat())?;
    }

    #[test]
    fn pipelines_are_read_as_others_read_them(
        seed in sample::select(seeds()),
        edits in collection::vec((any::<sample::Index>(), 0..6_usize, sample::select(PIECES.to_vec())), 0..4),
    ) {
        let mut text: Vec<char> = seed.chars().collect();
        for (at, cut, piece) in edits {
            let at = if text.is_empty() { 0 } else { at.index(text.len()) };
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
        }
        agree(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn scalars_are_read_as_others_read_them(text in "[-+0-9a-fxobeE._~]{1,12}|[.](inf|nan|INF)|(t|T)rue|[A-Za-z0-9 ]{1,8}") {
        agree(&text)?;
        agree(&format!("a: {text}\nb: '{text}'\nc: [{text}]"))?;
    }
}
