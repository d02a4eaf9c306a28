//! CSV, TSV and JSON Lines.

use proptest::prelude::*;
use runner_contract::{ColumnType, ImageRef};
use runner_data::Catalog;

use crate::{all, error, ids, open, png, sparse, write};

#[test]
fn csv_rows_have_pictures_captions_and_labels() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "data/img/a.png", &png(1));
    write(root.path(), "data/img/b.png", &png(2));
    let csv = "path,caption,captions,label,score\nimg/a.png,\"a cat,\nasleep\",\"[\"\"x\"\",\"\"y\"\"]\",dog,1.5\nimg/b.png,7,[],cat,2\n";
    write(root.path(), "data/pets.csv", csv.as_bytes());
    let pets = open(root.path(), "data/pets.csv");
    let types: Vec<_> =
        pets.schema().columns.iter().map(|column| (column.name.as_str(), column.kind.clone())).collect();
    assert_eq!(
        types,
        [
            ("image", ColumnType::Image),
            ("caption", ColumnType::Text),
            ("captions", ColumnType::Texts),
            ("label", ColumnType::Label),
            ("score", ColumnType::Number)
        ]
    );
    let rows = all(pets.as_ref(), None);
    assert_eq!(ids(&rows), ["pets/00000", "pets/00001"]);
    assert_eq!(rows.text("caption").unwrap().iter().flatten().collect::<Vec<_>>(), ["a cat,\nasleep", "7"]);
    assert_eq!(rows.texts("captions").unwrap(), [vec!["x".to_owned(), "y".to_owned()], vec![]]);
    assert_eq!(
        (rows.integers("label").unwrap(), pets.classes().unwrap()),
        (&[1, 0][..], &["cat".to_owned(), "dog".to_owned()][..])
    );
    assert_eq!(rows.numbers("score").unwrap(), [1.5, 2.0]);
    assert_eq!(rows.images("image").unwrap()[1], ImageRef::Encoded { bytes: &png(2), path: "img/b.png" });
}

#[test]
fn json_lines_are_typed_and_may_name_their_rows() {
    let root = tempfile::tempdir().unwrap();
    let lines = "{\"id\":\"x\",\"captions\":[\"a\",\"b\"],\"label\":1,\"n\":3,\"ok\":true}\n\n{\"n\":4,\"ok\":false,\"id\":\"y\",\"captions\":[],\"label\":0}";
    write(root.path(), "t.jsonl", lines.as_bytes());
    let table = open(root.path(), "t.jsonl");
    let rows = all(table.as_ref(), None);
    assert_eq!(ids(&rows), ["x", "y"]);
    assert_eq!((rows.integers("n").unwrap(), rows.integers("label").unwrap()), (&[3, 4][..], &[1, 0][..]));
    assert_eq!((rows.booleans("ok").unwrap().value(0), table.classes().unwrap().len()), (true, 2));
}

#[test]
fn a_bad_row_is_named_with_its_line() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a.png", &png(1));
    let csv = |text: &str| {
        write(root.path(), "t.csv", text.as_bytes());
        error(root.path(), "t.csv").replace(&root.path().display().to_string(), "DIR")
    };
    assert_eq!(csv(""), "DIR/t.csv, line 1: empty: expected a line of column names");
    assert_eq!(csv("path,caption\n"), "DIR/t.csv: no rows");
    assert_eq!(
        csv("path,caption\na.png,x\na.png\n"),
        "DIR/t.csv, line 3: 1 values, but there are 2 columns (path, caption)"
    );
    let missing = csv("path,caption\na.png,\"x\ny\"\nb.png,z\n");
    assert!(missing.starts_with("DIR/t.csv, line 4: row 1: cannot read DIR/b.png"), "{missing}");
    assert!(csv("path,label\na.png,-1\n").contains("column `label`: label -1 is below 0"));
    assert!(csv("id,n\nx,1\nx,2\n").contains("line 3: row 1: id `x` is empty or stands twice"));
    assert!(csv("n,n\n1,2\n").contains("column `n` stands twice"));
    let jsonl = |text: &str| {
        write(root.path(), "t.jsonl", text.as_bytes());
        error(root.path(), "t.jsonl").replace(&root.path().display().to_string(), "DIR")
    };
    assert_eq!(jsonl("{\"a\":1}\n{\"b\":2}\n"), "DIR/t.jsonl, line 2: no key `a`, which the first row has");
    assert_eq!(jsonl("{\"a\":1}\n{\"a\":2,\"b\":2}\n"), "DIR/t.jsonl, line 2: key `b`, which the first row lacks");
    assert!(jsonl("{\"a\":1}\n{\"a\":").contains("line 2: not a JSON object"));
    assert!(jsonl("{\"a\":1}\n{\"a\":null}\n").contains("column `a`: values of several types, null, or nested"));
}

#[test]
fn rows_without_end_are_refused_with_their_line() {
    let root = tempfile::tempdir().unwrap();
    for (name, start, message) in [
        ("t.csv", "", "t.csv, line 1: a row of more than 67108864 bytes"),
        ("t.csv", "\"", "t.csv, line 1: a row of more than 67108864 bytes"),
        ("t.csv", "a,b\n1,2\n3,\"", "t.csv, line 3: a row of more than 67108864 bytes"),
        ("t.jsonl", "\n", "t.jsonl, line 2: longer than 67108864 bytes"),
        ("t.jsonl", "{\"a\":1}\n", "t.jsonl, line 2: longer than 67108864 bytes"),
    ] {
        sparse(&root.path().join(name), start.as_bytes(), 3 << 30);
        let error = error(root.path(), name);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_table_has_a_bounded_number_of_columns() {
    let root = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..200_000).map(|i| format!("c{i}")).collect();
    let object: Vec<String> = names.iter().map(|name| format!("\"{name}\":1")).collect();
    write(root.path(), "t.csv", names.join(",").as_bytes());
    write(root.path(), "t.jsonl", format!("{{{}}}", object.join(",")).as_bytes());
    for table in ["t.csv", "t.jsonl"] {
        assert!(error(root.path(), table).contains("line 1: 200000 columns, expected at most 4096"));
    }
    let names = names[..4096].join(",");
    write(root.path(), "t.csv", format!("{names}\n{names}\n").as_bytes());
    assert_eq!(open(root.path(), "t.csv").schema().columns.len(), 4096);
}

#[test]
fn messages_quote_a_table_without_its_control_characters() {
    let root = tempfile::tempdir().unwrap();
    for (table, message) in [
        ("path\n\u{1b}[2J.png\n", "/\\u{1b}[2J.png: No such file"),
        ("\u{1b}[2J,\u{1b}[2J\n1,2\n", "column `\\u{1b}[2J` stands twice"),
        ("\u{1b}[2J,b\n1\n", "2 columns (\\u{1b}[2J, b)"),
        ("id\n\u{1b}[2J\n\u{1b}[2J\n", "id `\\u{1b}[2J` is empty or stands twice"),
    ] {
        write(root.path(), "t.csv", table.as_bytes());
        let error = error(root.path(), "t.csv");
        assert!(error.contains(message), "{error}");
    }
    write(root.path(), "t.jsonl", "{\"a\":1}\n{\"a\":1,\"\\u001b[2J\":1}\n".as_bytes());
    assert!(error(root.path(), "t.jsonl").contains("key `\\u{1b}[2J`, which"));
}

#[cfg(unix)]
#[test]
fn a_row_that_names_no_regular_file_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    for path in ["/dev/zero", "."] {
        write(root.path(), "t.csv", format!("path\n{path}\n").as_bytes());
        let error = error(root.path(), "t.csv");
        assert!(error.contains("line 2: row 0: cannot read") && error.contains("expected a regular file"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_table_opens_and_reads_or_is_an_error(text in "(a|b|label|id|,|\n|\"|1|2.5|-3|true|\\[\"x\"\\]|\\{|\\}|:|é|\r\n| ){0,40}", jsonl in any::<bool>()) {
        let root = tempfile::tempdir().unwrap();
        let name = if jsonl { "t.jsonl" } else { "t.csv" };
        write(root.path(), name, text.as_bytes());
        if let Ok(table) = Catalog::new(root.path()).open(name) {
            prop_assert_eq!(all(table.as_ref(), None).len(), table.len());
        }
    }

    #[test]
    fn a_csv_file_gives_back_the_texts_that_were_written(rows in prop::collection::vec(("\\PC{0,12}", "[a-z\n\",]{1,8}"), 1..200)) {
        let root = tempfile::tempdir().unwrap();
        let mut writer = csv::Writer::from_path(root.path().join("t.csv")).unwrap();
        writer.write_record(["first", "second"]).unwrap();
        for (first, second) in &rows {
            writer.write_record([format!("x{first}"), format!("y{second}")]).unwrap();
        }
        writer.flush().unwrap();
        let table = open(root.path(), "t.csv");
        let read = all(table.as_ref(), None);
        for (i, (first, second)) in rows.iter().enumerate() {
            prop_assert_eq!(read.text("first").unwrap().value(i), format!("x{first}"));
            prop_assert_eq!(read.text("second").unwrap().value(i), format!("y{second}"));
        }
    }
}
