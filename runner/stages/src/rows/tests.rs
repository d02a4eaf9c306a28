use runner_contract::{Output, Stage};
use serde_json::json;

use super::*;
use crate::testing::{bind, open, problems};

fn read(settings: Value, limit: Option<usize>) -> (Vec<ShardInfo>, Batch) {
    let names: Vec<String> = match &bind("rows", settings.clone(), &[]).unwrap().outputs["rows"] {
        Output::Rows(schema) => schema.columns.iter().map(|column| column.name.clone()).collect(),
        Output::Model(_) => panic!("rows"),
    };
    let Stage::Source(source) = open("rows", settings, &[]) else { panic!("a source") };
    let chunks: Result<Vec<_>, _> = source.read(0, limit, &names).unwrap().collect();
    (source.shards(limit).unwrap(), Batch::concat(&chunks.unwrap()).unwrap())
}

#[test]
fn columns_are_what_their_values_look_like() {
    let (_, rows) = read(
        json!({
            "rows": [
                {"id": "a", "text": "a cat", "label": "cat", "n": 1, "x": 0.5, "ok": true, "captions": ["a", "b"]},
                {"id": 7, "text": "a dog", "label": 1, "n": -2, "x": 1, "ok": false, "captions": []},
            ],
            "classes": ["cat", "dog"],
        }),
        None,
    );
    assert_eq!(rows.ids().unwrap().value(1), "7");
    assert_eq!(rows.text("text").unwrap().value(0), "a cat");
    assert_eq!(rows.integers("label").unwrap(), [0, 1]);
    assert_eq!(rows.kind("label"), Some(ColumnType::Label));
    assert_eq!(rows.integers("n").unwrap(), [1, -2]);
    assert_eq!(rows.numbers("x").unwrap(), [0.5, 1.0]);
    assert!(rows.booleans("ok").unwrap().value(0));
    assert_eq!(rows.texts("captions").unwrap(), [vec!["a".to_owned(), "b".to_owned()], vec![]]);
}

#[test]
fn vectors_have_one_length_and_can_be_compared() {
    let settings = json!({
        "rows": [{"a": [1, 0], "b": [0.5, 0.5, 1]}, {"a": [0, 1], "b": [1, 2, 3]}],
        "columns": {"a": "embedding", "b": "scores"},
    });
    let (_, rows) = read(settings, None);
    assert_eq!(rows.vectors("a").unwrap(), ([1.0, 0.0, 0.0, 1.0].as_slice(), 2));
    assert_eq!(rows.kind("a"), Some(ColumnType::Embedding { dim: 2, space: space(2) }));
    assert_eq!(rows.vectors("b").unwrap().1, 3);
}

#[test]
fn a_limit_cuts_the_rows_and_content_makes_the_key() {
    let settings = |last: &str| {
        let text = |i: i32| if i == 99 { last.to_owned() } else { i.to_string() };
        let rows: Vec<_> = (0..100).map(|i| json!({"text": text(i)})).collect();
        json!({ "rows": rows })
    };
    let (whole, rows) = read(settings("x"), None);
    assert_eq!((whole[0].rows, rows.len()), (100, 100));
    let (other, _) = read(settings("y"), None);
    assert_ne!(whole[0].columns, other[0].columns);
    let (cut, rows) = read(settings("x"), Some(70));
    assert_eq!((cut[0].rows, rows.len()), (70, 70));
    assert_eq!(cut[0].columns, read(settings("y"), Some(70)).0[0].columns);
}

#[test]
fn pictures_are_read_from_their_paths_and_keyed_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    std::fs::write(&path, b"not looked at here").unwrap();
    let settings = json!({"rows": [{"image": path.to_str().unwrap(), "label": 3}]});
    let (first, rows) = read(settings.clone(), None);
    let images = rows.images("image").unwrap();
    assert!(matches!(images[0], ImageRef::Encoded { bytes: b"not looked at here", .. }));
    std::fs::write(&path, b"another").unwrap();
    assert_ne!(first[0].columns["image"], read(settings, None).0[0].columns["image"]);
    let lost = json!({"rows": [{"image": "no/such.png"}]});
    assert_eq!(problems("rows", lost, &[]), ["with.rows.0.image: there is no file `no/such.png`"]);
}

#[test]
fn classes_are_an_output_where_they_are_given() {
    let settings = json!({"rows": [{"label": "b"}], "classes": ["a", "b"]});
    assert!(bind("rows", settings.clone(), &[]).unwrap().outputs.contains_key("classes"));
    assert!(!bind("rows", json!({"rows": [{"label": 0}]}), &[]).unwrap().outputs.contains_key("classes"));
    let Stage::Source(source) = open("rows", settings, &[]) else { panic!("a source") };
    let (_, classes) = source.side("classes").unwrap();
    assert_eq!(classes.text("name").unwrap().value(1), "b");
    assert_eq!(classes.integers("label").unwrap(), [0, 1]);
}

#[test]
fn rows_may_be_none_if_their_columns_are_known() {
    let settings = json!({"rows": [], "columns": {"text": "text", "image": "image"}});
    let Stage::Source(source) = open("rows", settings, &[]) else { panic!("a source") };
    assert_eq!(source.shards(None).unwrap()[0].rows, 0);
    assert_eq!(problems("rows", json!({"rows": []}), &[]).len(), 1);
}

#[test]
fn every_wrong_value_is_named_in_its_place() {
    let found = problems(
        "rows",
        json!({
            "rows": [
                {"id": "a", "text": "x", "label": "cat", "image": 7, "n": 1},
                {"id": "a", "text": 5, "label": 2, "image": "", "n": "one"},
                {"id": [], "label": -1, "image": "x.png", "n": 2},
            ],
            "classes": ["cat", "dog", "cat"],
            "columns": {"n": "integer"},
        }),
        &[],
    );
    assert_eq!(
        found,
        [
            "with.classes.2: the class `cat` twice",
            "with.rows.1.id: the id `a` twice: row 1 has it, too",
            "with.rows.2.id: `id`: expected text, found a list",
            "with.rows.2: row `2` lacks the column `text` (all rows have the same columns)",
            "with.rows.1.text: `text`: expected text, found `5`",
            "with.rows.2.label: `label`: expected one of the 3 `classes`, or its number, found `-1`",
            "with.rows.0.image: `image`: expected the path of a picture, found `7`",
            "with.rows.1.image: `image`: expected the path of a picture, found ``",
            "with.rows.1.n: `n`: expected an integer, found `one`",
        ]
    );
    let found = problems("rows", json!({"rows": [{"v": [1, 2]}, {"v": [1]}]}), &[]);
    assert_eq!(found, ["with.rows: column `v` can be embeddings or scores (say which: `columns: {v: embedding}`)"]);
    let found = problems("rows", json!({"rows": [{"v": [1, 2]}, {"v": [1]}], "columns": {"v": "scores"}}), &[]);
    assert_eq!(found, ["with.rows.1.v: `v`: 1 numbers, expected 2"]);
}
