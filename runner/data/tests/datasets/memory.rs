//! What is remembered of files, so that they are not read again.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use runner_contract::Digest;
use runner_data::{Catalog, FileStamp, Memory};

use crate::{png, write};

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
