//! The layouts in which people have their datasets: ImageNet's, WebDataset, CIFAR's binaries, Hugging Face's Parquet.

#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

mod cifar;
mod hugging_face;
mod imagenet;
mod parts;
mod webdataset;

use std::{fs, io::Write, path::Path};

use runner_contract::{Batch, ImageRef};
use runner_data::{Catalog, Dataset, IMAGE, LABEL};

/// Every row of a dataset: id, label and the bytes of its picture.
fn rows(dataset: &dyn Dataset) -> Vec<(String, i64, Vec<u8>)> {
    let columns = [IMAGE, LABEL].map(str::to_owned);
    let mut rows = Vec::new();
    for shard in 0..dataset.shards(None).unwrap().len() {
        for batch in dataset.read(shard, None, &columns).unwrap() {
            let batch = batch.unwrap();
            let ids = batch.ids().unwrap();
            for (i, image) in batch.images(IMAGE).unwrap().into_iter().enumerate() {
                let bytes = match image {
                    ImageRef::Encoded { bytes, .. } => bytes.to_vec(),
                    ImageRef::Pixels { data, .. } => data.to_vec(),
                };
                rows.push((ids.value(i).to_owned(), batch.integers(LABEL).unwrap()[i], bytes));
            }
        }
    }
    rows
}

fn all(dataset: &dyn Dataset, columns: &[&str]) -> Batch {
    let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
    let shards = 0..dataset.shards(None).unwrap().len();
    let chunks = shards.flat_map(|shard| dataset.read(shard, None, &columns).unwrap().collect::<Vec<_>>());
    Batch::concat(&chunks.collect::<Result<Vec<_>, _>>().unwrap()).unwrap()
}

fn put(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn error(root: &Path, reference: &str) -> String {
    Catalog::new(root).open(reference).err().unwrap().to_string()
}

#[test]
fn a_folder_of_splits_is_none_of_classes() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "one/val/a.png", b"p");
    put(root.path(), "beside/validation/a.png", b"p");
    put(root.path(), "beside/annotations/a.xml", b"<a/>");
    put(root.path(), "two/val/a.png", b"p");
    put(root.path(), "two/train/a.png", b"p");
    put(root.path(), "two/annotations/a.xml", b"<a/>");
    let said = |name| error(root.path(), name);
    assert!(said("one").ends_with("it holds one split: write one:val"), "{}", said("one"));
    assert!(said("beside").ends_with("it holds one split: write beside:validation"), "{}", said("beside"));
    assert!(said("two").ends_with("it holds two splits: write two:train or two:val"), "{}", said("two"));
    assert_eq!(Catalog::new(root.path()).open("beside:val").unwrap().len(), 1);
}
