//! No text makes the language panic, and every refusal says where.

#![expect(clippy::unwrap_used, reason = "a broken test shall fail loudly")]

mod toy;

use std::{fs, path::Path};

use proptest::{collection, prelude::*, sample};
use runner_spec::{Diagnostic, Place, load};

/// Loads a text; if it is refused, checks that every mistake has a place inside it.
fn judge(bytes: &[u8], set: &[(String, String)]) -> Result<(), Vec<Diagnostic>> {
    let all = match load("p.yaml", bytes, set, &toy::toys(), &toy::Shelf) {
        Ok(_) => return Ok(()),
        Err(all) => all,
    };
    assert!(!all.is_empty(), "refused without a reason");
    let lines = String::from_utf8_lossy(bytes).split('\n').count();
    for one in &all {
        let places = [Some(&one.place), one.related.as_ref().map(|related| &related.place)];
        for place in places.into_iter().flatten() {
            let Place::File { file, line, column, width, source, start } = place else { continue };
            assert!(*line >= 1 && (*line <= lines || file != "p.yaml"), "line {line} of {lines}: {one}");
            let length = source.chars().count() + start - 1;
            assert!(column >= start, "column {column} before {start}: {one}");
            assert!(*column >= 1 && *column <= length + 1, "column {column} of {length}: {one}");
            let cut = source.chars().count() >= 400;
            assert!(*width >= 1 && (cut || column + width <= length.max(1) + 2), "width {width}: {one}");
        }
        assert!(!one.message.is_empty() && !one.render(true).is_empty());
    }
    Err(all)
}

/// The texts of the cases.
fn seeds() -> Vec<Vec<u8>> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = ["valid", "invalid"]
        .iter()
        .flat_map(|folder| fs::read_dir(cases.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Words that mean something to the language or to YAML.
const WORDS: [&str; 34] = [
    "${{",
    "}}",
    "params.",
    "matrix.",
    "&a ",
    "*a",
    "!",
    "|\n",
    ">-\n",
    "- ",
    ": ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "\n",
    "\n  ",
    "\t",
    "'",
    "\"",
    "\\",
    "null",
    "1e999",
    "data",
    "uses: encode",
    "inputs:",
    "matrix: {a: [1, 2]}",
    "---\n",
    "%YAML 1.1\n",
    "\u{feff}",
    "🎉",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in collection::vec(any::<u8>(), 0..400)) {
        let _ = judge(&bytes, &[]);
    }

    #[test]
    fn random_text_never_panics(text in "[a-z:{}\\[\\]\"'$&*!|>%@#,?\\- \n\t.=]{0,200}") {
        let _ = judge(text.as_bytes(), &[("x".to_owned(), text.clone())]);
    }

    #[test]
    fn mutated_pipelines_never_panic(
        seed in sample::select(seeds()),
        edits in collection::vec((any::<sample::Index>(), 0..20_usize, sample::select(WORDS.to_vec())), 1..6),
        set in collection::vec(("[a-z_]{1,8}", ".{0,12}"), 0..3),
    ) {
        let mut bytes = seed;
        for (at, cut, word) in edits {
            let at = if bytes.is_empty() { 0 } else { at.index(bytes.len()) };
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, word.bytes());
        }
        let _ = judge(&bytes, &set);
    }
}

#[test]
fn a_byte_less_never_panics() {
    for seed in seeds().iter().filter(|seed| seed.len() < 700) {
        for end in 0..seed.len() {
            let _ = judge(&seed[..end], &[]);
        }
    }
}

#[test]
fn brackets_and_dollars_at_the_very_start_never_panic() {
    for text in ["[${{]:\0 b!! *0]\n", "${{", "{{", "${", "[${", "a: [${{ x }}", "{", "$"] {
        let _ = judge(text.as_bytes(), &[]);
    }
}

#[test]
fn the_order_of_mistakes_is_that_of_the_file() {
    let text = "version: 2\nname: a b\nstages:\n  data: {uses: nothing}\n  more: {uses: dataset, keep: 1}\n";
    let all = judge(text.as_bytes(), &[]).unwrap_err();
    let lines: Vec<_> =
        all.iter().filter_map(|one| if let Place::File { line, .. } = one.place { Some(line) } else { None }).collect();
    assert_eq!(lines, [1, 2, 4, 5, 5]);
}

#[test]
fn diagnostics_are_json_with_exact_places() {
    let text = "version: 1\nname: t\nstages: {data: {uses: datset, with: {source: 'mnist:test'}}}\n";
    let all = judge(text.as_bytes(), &[("x".to_owned(), "1".to_owned())]).unwrap_err();
    let expected = serde_json::json!([
        {
            "place": {"in": "set", "name": "x", "text": "1"},
            "message": "unknown parameter `x`",
            "hint": "the pipeline has no `params:`",
        },
        {
            "place": {
                "in": "file", "file": "p.yaml", "line": 3, "column": 23, "width": 6,
                "source": "stages: {data: {uses: datset, with: {source: 'mnist:test'}}}",
            },
            "message": "unknown kind `datset`",
            "hint": "did you mean `dataset`?",
        },
    ]);
    assert_eq!(serde_json::to_value(&all).unwrap(), expected);
}
