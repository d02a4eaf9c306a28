//! Datasets: files of rows, opened as `dataset` does and read to the end.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use runner_data::{Catalog, read_idx};

/// A folder of this process's own, in memory where there is such.
pub fn folder(name: &str) -> PathBuf {
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_owned() } else { env::temp_dir() };
    let folder = base.join(format!("runner-fuzz-{name}-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder for the fuzzed file");
    folder
}

/// Most rows that are read.
const ROWS: usize = 1000;

fn read(name: &str, file: &str, bytes: &[u8]) {
    let folder = folder(name);
    let path = folder.join(file);
    if fs::write(&path, bytes).is_err() {
        return;
    }
    // A batch of CIFAR is known by the folder that it lies in.
    let reference = if name == "cifar" { folder.clone() } else { path };
    let catalog = Catalog::new(&folder).with_cache(folder.join("cache"));
    let Some(reference) = reference.to_str() else { return };
    let Ok(dataset) = catalog.open(reference) else { return };
    let columns: Vec<String> = dataset.schema().columns.iter().map(|column| column.name.clone()).collect();
    let Ok(shards) = dataset.shards(Some(ROWS)) else { return };
    for shard in 0..shards.len() {
        let Ok(chunks) = dataset.read(shard, Some(ROWS), &columns) else { continue };
        for chunk in chunks.map_while(Result::ok) {
            assert!(chunk.len() <= ROWS);
        }
    }
}

/// A WebDataset shard.
pub fn tar(bytes: &[u8]) {
    let packed = bytes.starts_with(&[0x1F, 0x8B]);
    read("tar", if packed { "shard.tar.gz" } else { "shard.tar" }, bytes);
}

/// A table of Parquet.
pub fn parquet(bytes: &[u8]) {
    read("parquet", "table.parquet", bytes);
}

/// A table of comma-separated values.
pub fn csv(bytes: &[u8]) {
    read("csv", "table.csv", bytes);
}

/// A table of JSON lines.
pub fn jsonl(bytes: &[u8]) {
    read("jsonl", "table.jsonl", bytes);
}

/// MNIST's format.
pub fn idx(bytes: &[u8]) {
    if let Ok(idx) = read_idx(bytes, "fuzzed") {
        assert_eq!(idx.data.len(), idx.sizes.iter().product::<usize>());
    }
}

/// A batch of CIFAR-10.
pub fn cifar(bytes: &[u8]) {
    read("cifar", "test_batch.bin", bytes);
}
