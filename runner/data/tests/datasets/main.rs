//! Datasets: what rows they have, how they are cut, what keys depend on.

#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

mod digits;
mod folders;
mod memory;
mod tables;

use std::{collections::HashSet, fs, path::Path, sync::Arc};

use runner_contract::{Batch, ShardInfo};
use runner_data::{Catalog, Dataset, OpenOptions, Pixels, encode_png};

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

/// A file of zeros behind some bytes, which takes no room on disk.
fn sparse(path: &Path, start: &[u8], size: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, start).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
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
