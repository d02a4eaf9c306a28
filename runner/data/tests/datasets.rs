//! Datasets: what rows they have, how they are cut, what keys depend on.

#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use runner_contract::{Batch, ColumnType, Digest, ImageRef, ShardInfo};
use runner_data::{Catalog, Dataset, FileStamp, Limits, Memory, OpenOptions, Pixels, decode, encode_png, read_idx};

fn all(dataset: &dyn Dataset, limit: Option<usize>) -> Batch {
    let columns: Vec<String> = dataset.schema().columns.iter().map(|column| column.name.clone()).collect();
    let mut batches = Vec::new();
    for (shard, info) in dataset.shards(limit).unwrap().iter().enumerate() {
        let chunks = dataset.read(shard, limit, &columns).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(chunks.iter().map(Batch::len).sum::<usize>(), info.rows);
        assert!(chunks.iter().all(|chunk| (1..=64).contains(&chunk.len())));
        batches.extend(chunks);
    }
    Batch::concat(&batches).unwrap()
}

fn ids(batch: &Batch) -> Vec<String> {
    batch.ids().unwrap().iter().flatten().map(str::to_owned).collect()
}

fn png(value: u8) -> Vec<u8> {
    encode_png(Pixels { height: 1, width: 1, channels: 1, data: vec![value] }.as_ref()).unwrap()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn open(root: &Path, reference: &str) -> Arc<dyn Dataset> {
    Catalog::new(root).with_cache(root.join("cache")).open(reference).unwrap()
}

fn error(root: &Path, reference: &str) -> String {
    match Catalog::new(root).with_cache(root.join("cache")).open(reference) {
        Ok(dataset) => panic!("{} opened", dataset.name()),
        Err(error) => error.to_string(),
    }
}

/// The keys of a column, shard by shard.
fn keys(infos: &[ShardInfo], column: &str) -> Vec<String> {
    infos.iter().map(|info| info.columns[column].to_string()).collect()
}

#[test]
fn the_test_digits_are_in_the_program() {
    let digits = Catalog::new("/nowhere").with_cache("/nowhere").open("mnist:test").unwrap();
    assert_eq!((digits.len(), digits.schema().names()), (10_000, "id, image, label".into()));
    assert_eq!(
        digits.shards(None).unwrap().iter().map(|info| info.rows).collect::<Vec<_>>(),
        [vec![1024; 9], vec![784]].concat()
    );
    let rows = all(digits.as_ref(), Some(100));
    assert_eq!(rows.ids().unwrap().value(42), "mnist/test/00042");
    assert_eq!(rows.integers("label").unwrap()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    let images = rows.images("image").unwrap();
    let ImageRef::Pixels { height: 28, width: 28, channels: 1, data } = images[0] else { panic!("{:?}", images[0]) };
    assert_eq!(data.iter().map(|value| u64::from(*value)).sum::<u64>(), 18_454);
    let counts = all(digits.as_ref(), None).integers("label").unwrap().iter().fold([0; 10], |mut counts, label| {
        counts[*label as usize] += 1;
        counts
    });
    assert_eq!(counts, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    let (_, classes) = digits.side("classes").unwrap();
    assert_eq!(classes.text("name").unwrap().value(7), "7");
    assert_eq!(classes.integers("label").unwrap(), (0..10).collect::<Vec<_>>());
    assert!(digits.side("other").unwrap_err().to_string().contains("`rows` and `classes`"));
}

#[test]
fn a_limit_cuts_rows_and_changes_no_full_shards_key() {
    let digits = open(Path::new("."), "mnist:test");
    let (whole, cut) = (digits.shards(None).unwrap(), digits.shards(Some(1500)).unwrap());
    assert_eq!(cut.iter().map(|info| info.rows).collect::<Vec<_>>(), [1024, 476]);
    assert_eq!((cut[0].ids, &cut[0].columns), (whole[0].ids, &whole[0].columns));
    assert_ne!((cut[1].ids, &cut[1].columns), (whole[1].ids, &whole[1].columns));
    assert_eq!(all(digits.as_ref(), Some(1500)), all(digits.as_ref(), None).slice(0, 1500));
}

#[test]
fn only_the_columns_asked_for_are_read() {
    let digits = open(Path::new("."), "mnist:test");
    let chunk = digits.read(0, Some(3), &["label".into()]).unwrap().next().unwrap().unwrap();
    assert_eq!(chunk.schema().names(), "id, label");
    let unknown = digits.read(0, None, &["caption".into()]).err().unwrap().to_string();
    assert_eq!(unknown, "dataset mnist/test has no column `caption`: it has id, image, label");
}

#[test]
fn repeated_datasets_have_ids_of_their_own() {
    let catalog = Catalog::new(".");
    let twice = catalog.open_all(&["mnist:test".into(), "mnist:test".into()], &OpenOptions::default()).unwrap();
    assert_eq!(twice.len(), 20_000);
    let rows = ids(&all(twice.as_ref(), None));
    assert_eq!(rows.iter().collect::<HashSet<_>>().len(), 20_000);
    assert_eq!((rows[0].as_str(), rows[10_000].as_str()), ("mnist/test/00000", "2:mnist/test/00000"));
    let infos = twice.shards(None).unwrap();
    // The pictures are the same, the rows are not.
    assert_eq!(infos[0].columns, infos[10].columns);
    assert_ne!(infos[0].ids, infos[10].ids);
    assert_eq!(infos[0].ids, catalog.open("mnist:test").unwrap().shards(None).unwrap()[0].ids);
    assert_eq!(all(twice.as_ref(), Some(10_001)).len(), 10_001);
}

#[test]
fn an_image_folder_has_a_class_a_sub_folder() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("pets");
    write(&folder, "dog/b.png", &png(2));
    write(&folder, "cat/a.png", &png(1));
    write(&folder, "cat/deep/c.PNG", &png(3));
    write(&folder, "cat/notes.txt", b"no picture");
    write(&folder, ".hidden/x.png", &png(9));
    write(&folder, "empty/readme.md", b"");
    let pets = open(root.path(), "pets");
    assert_eq!(pets.classes().unwrap(), ["cat", "dog"]);
    let rows = all(pets.as_ref(), None);
    assert_eq!(ids(&rows), ["pets/cat/a.png", "pets/cat/deep/c.PNG", "pets/dog/b.png"]);
    assert_eq!(rows.integers("label").unwrap(), [0, 0, 1]);
    assert_eq!(rows.images("image").unwrap()[2], ImageRef::Encoded { bytes: &png(2), path: "dog/b.png" });

    // Another picture changes the images' key and not the labels'.
    let before = pets.shards(None).unwrap();
    write(&folder, "dog/b.png", &png(5));
    let after = open(root.path(), "pets").shards(None).unwrap();
    assert_ne!(keys(&before, "image"), keys(&after, "image"));
    assert_eq!((keys(&before, "label"), before[0].ids), (keys(&after, "label"), after[0].ids));
}

#[test]
fn a_flat_folder_has_no_labels() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "flat/2.png", &png(2));
    write(root.path(), "flat/1.png", &png(1));
    let flat = open(root.path(), "flat");
    assert_eq!(flat.schema().names(), "id, image");
    assert_eq!(ids(&all(flat.as_ref(), None)), ["flat/1.png", "flat/2.png"]);
    assert!(flat.side("classes").is_err());

    write(root.path(), "flat/sub/3.png", &png(3));
    assert!(error(root.path(), "flat").contains("pictures both directly in it (1.png) and in sub-folders (sub)"));
    fs::create_dir(root.path().join("none")).unwrap();
    assert!(error(root.path(), "none").contains("no pictures in it"));
}

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

/// A file of zeros behind some bytes, which takes no room on disk.
fn sparse(path: &Path, start: &[u8], size: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, start).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
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

/// Why the picture of a row cannot be decoded.
fn unusable(batch: &Batch, row: usize) -> String {
    let ImageRef::Encoded { bytes, path } = batch.images("image").unwrap()[row] else { panic!("decoded") };
    decode(bytes, path, &Limits::default()).unwrap_err().to_string()
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

#[test]
fn a_picture_file_that_is_too_large_is_one_unusable_picture() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "pets/a.png", &png(1));
    sparse(&root.path().join("pets/b.png"), &png(2), (512 << 20) + 1);
    write(root.path(), "t.csv", b"path\npets/a.png\npets/b.png\n");
    for reference in ["pets", "t.csv"] {
        let rows = all(open(root.path(), reference).as_ref(), None);
        assert_eq!(rows.images("image").unwrap().len(), 2);
        let error = unusable(&rows, 1);
        assert!(
            error.ends_with("b.png: cannot decode the image: 536870913 bytes is over the limit of 536870912"),
            "{error}"
        );
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_in_a_folder_is_passed_over_or_one_unusable_picture() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("pets");
    write(&folder, "cat/a.png", &png(1));
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
    link("nowhere", "cat/notes.txt");
    link("nowhere", "cat/b.png");
    link("c.png", "cat/c.png");
    link("a.png", "cat/d.png");
    link("/dev/zero", "cat/e.png");
    let pets = open(root.path(), "pets");
    let rows = all(pets.as_ref(), None);
    assert_eq!(ids(&rows), ["a", "b", "c", "d", "e"].map(|name| format!("pets/cat/{name}.png")));
    for row in [1, 2, 4] {
        assert!(unusable(&rows, row).contains("a link that leads nowhere, or not a regular file"));
    }
    assert_eq!(rows.images("image").unwrap()[3], ImageRef::Encoded { bytes: &png(1), path: "cat/d.png" });
    // The link that leads somewhere again is another picture.
    let before = pets.shards(None).unwrap();
    write(&folder, "cat/nowhere", &png(7));
    assert_ne!(keys(&before, "image"), keys(&open(root.path(), "pets").shards(None).unwrap(), "image"));
}

#[test]
fn classes_of_joined_datasets_are_joined_by_name() {
    let root = tempfile::tempdir().unwrap();
    for (path, value) in [("a/cat/1.png", 1), ("a/dog/2.png", 2), ("b/bird/3.png", 3), ("b/dog/4.png", 4)] {
        write(root.path(), path, &png(value));
    }
    let joined = Catalog::new(root.path()).open_all(&["a".into(), "b".into()], &OpenOptions::default()).unwrap();
    assert_eq!(joined.classes().unwrap(), ["cat", "dog", "bird"]);
    assert_eq!(all(joined.as_ref(), None).integers("label").unwrap(), [0, 1, 2, 1]);
    write(root.path(), "flat/1.png", &png(1));
    let mixed = Catalog::new(root.path())
        .open_all(&["a".into(), "flat".into()], &OpenOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert_eq!(mixed, "cannot join datasets of other columns or types: a has id, image, label, flat has id, image");
}

/// An IDX file of these sizes.
fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    bytes.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn idx_files_read_alike_plain_and_packed() {
    let root = tempfile::tempdir().unwrap();
    let (images, labels) = (idx(&[3, 1, 2], &[1, 2, 3, 4, 5, 6]), idx(&[3], &[0, 2, 1]));
    for (folder, pack) in [("plain", false), ("packed", true)] {
        let (images, labels) = if pack { (gzip(&images), gzip(&labels)) } else { (images.clone(), labels.clone()) };
        let end = if pack { ".gz" } else { "" };
        write(root.path(), &format!("{folder}/x/train-images-idx3-ubyte{end}"), &images);
        write(root.path(), &format!("{folder}/x/train-labels-idx1-ubyte{end}"), &labels);
    }
    let (plain, packed) = (open(root.path(), "plain/x"), open(root.path(), "packed/x"));
    assert_eq!(plain.name(), "x/train");
    assert_eq!(plain.classes().unwrap(), ["0", "1", "2"]);
    assert_eq!(all(plain.as_ref(), None), all(packed.as_ref(), None));
    let infos = (plain.shards(None).unwrap(), packed.shards(None).unwrap());
    assert_eq!((infos.0[0].ids, &infos.0[0].columns), (infos.1[0].ids, &infos.1[0].columns));
    assert!(error(root.path(), "plain/x:test").contains("no files of that split"));

    // As the cache of `fetch` holds them.
    write(root.path(), "cache/fashion-mnist/train-images-idx3-ubyte", &images);
    write(root.path(), "cache/fashion-mnist/train-labels-idx1-ubyte", &labels);
    assert_eq!(open(root.path(), "fashion-mnist:train").classes().unwrap()[0], "T-shirt/top");
    assert!(error(root.path(), "fashion-mnist:test").contains("hint: runner dataset fetch fashion-mnist"));
}

#[test]
fn references_that_mean_nothing_say_what_does() {
    let root = tempfile::tempdir().unwrap();
    assert!(error(root.path(), "mnist").contains("expected mnist:train or mnist:test"));
    let nothing = error(root.path(), "nothing");
    assert!(
        nothing.contains("does not exist, and it is none of mnist:test, mnist:train, fashion-mnist:test"),
        "{nothing}"
    );
    write(root.path(), "notes.txt", b"x");
    assert!(error(root.path(), "notes.txt").contains("is not a dataset: expected a folder of pictures"));
    assert!(Catalog::new(".").open_all(&[], &OpenOptions::default()).is_err());
}

#[test]
fn damaged_idx_files_are_named() {
    let error = |bytes: &[u8]| read_idx(bytes, "f").unwrap_err().to_string();
    assert_eq!(
        error(b"PNG"),
        "f, header: not an IDX file: it begins with two zero bytes, a type and a number of dimensions"
    );
    assert_eq!(error(&[0, 0, 13, 1]), "f, header: values of type 0x0D: only unsigned bytes (0x08) are read");
    assert_eq!(error(&[0, 0, 8, 3, 0, 0]), "f, header: cut off: 6 bytes of 16");
    assert!(error(&idx(&[3, 2], &[1; 5])).contains("5 bytes of data, but sizes [3, 2] make 6"));
    assert!(error(&idx(&[u32::MAX, u32::MAX, 2], &[])).contains("over the limit"));
    let packed = gzip(&idx(&[3], &[1; 3]));
    assert!(error(&packed[..packed.len() - 10]).contains("gzip"));
    // A header that promises little before much data.
    assert!(error(&gzip(&idx(&[3], &[1; 4000]))).contains("unpacks to more than"));
    // Zeros pack too well to be pictures.
    let zeros = error(&gzip(&idx(&[20 << 20], &vec![0; 20 << 20])));
    assert!(zeros.contains("more than 64 times as many"), "{zeros}");
    assert_eq!(read_idx(&gzip(&idx(&[8 << 20], &vec![0; 8 << 20])), "f").unwrap().data.len(), 8 << 20);
}

proptest! {
    #[test]
    fn random_bytes_are_an_idx_file_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64), start in 0usize..3) {
        let start: &[u8] = [&b""[..], &[0, 0, 8, 1], &[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3]][start];
        if let Ok(idx) = read_idx(&[start, &bytes].concat(), "f") {
            prop_assert_eq!(idx.data.len(), idx.sizes.iter().product::<usize>());
        }
    }

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

/// Remembers in memory, and counts what it is asked and told.
#[derive(Default)]
struct Notebook {
    known: Mutex<HashMap<FileStamp, Digest>>,
    told: Mutex<Vec<FileStamp>>,
}

impl Memory for Notebook {
    fn recall(&self, files: &[FileStamp]) -> Vec<Option<Digest>> {
        let known = self.known.lock().unwrap();
        files.iter().map(|file| known.get(file).copied()).collect()
    }

    fn remember(&self, files: &[(FileStamp, Digest)]) {
        self.told.lock().unwrap().extend(files.iter().map(|(file, _)| file.clone()));
        self.known.lock().unwrap().extend(files.iter().cloned());
    }
}

/// Makes a file look as if it had been changed `seconds` ago.
fn age(path: &Path, seconds: u64) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn files_that_stay_as_they_are_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let files = ["set/a/1.png", "set/a/2.png", "set/b/3.png", "rows.csv", "pairs.jsonl", "x-images-idx3-ubyte"];
    (0..3).for_each(|i| write(root, files[i], &png(i as u8)));
    write(root, "rows.csv", b"id,caption,label\nx,one,cat\ny,two,dog\n");
    write(root, "pairs.jsonl", b"{\"image\": \"set/a/1.png\", \"caption\": \"one\"}\n");
    write(root, "x-images-idx3-ubyte", &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 9]);
    let notebook = Arc::new(Notebook::default());
    let keys = |reference: &str| {
        let catalog = Catalog::new(root).with_cache(root.join("cache")).with_memory(notebook.clone());
        catalog.open(reference).unwrap().shards(None).unwrap()
    };
    let told = || std::mem::take(&mut *notebook.told.lock().unwrap());
    let sources = ["set", "rows.csv", "pairs.jsonl", "x-images-idx3-ubyte"];

    // What was just written may be written again before the clock ticks: it is not remembered.
    let fresh: Vec<_> = sources.map(|source| format!("{:?}", keys(source))).to_vec();
    assert_eq!(told(), []);
    files.iter().for_each(|file| age(&root.join(file), 60));
    let aged: Vec<_> = sources.map(|source| format!("{:?}", keys(source))).to_vec();
    let first = told();
    // Three pictures, one of them also from the table, three columns of rows.csv, and the IDX data.
    assert_eq!(first.len(), 3 + 3 + 1, "{first:?}");
    assert!(first.iter().all(|file| Path::new(&file.path).is_absolute()));
    let again: Vec<_> = sources.map(|source| format!("{:?}", keys(source))).to_vec();
    assert_eq!(told(), []);
    assert_eq!((&aged, &again), (&fresh, &fresh), "remembered or not, the keys are the same");

    // Another content of the same size, at another time.
    write(root, "set/a/1.png", &png(200));
    age(&root.join("set/a/1.png"), 30);
    let changed = keys("set");
    assert_ne!(format!("{changed:?}"), fresh[0]);
    assert_eq!(told().len(), 1);
}
