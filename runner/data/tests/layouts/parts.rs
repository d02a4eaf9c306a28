//! Some of a dataset's rows: samples, and rows read at will.

use runner_contract::Batch;
use runner_data::{Amount, Catalog, Choice, Dataset, IMAGE, LABEL, OpenOptions, Pick, subset};

use crate::{
    gzip,
    hugging_face::parquet,
    imagenet::{at, imagenet},
    put, rows, tar,
};

#[test]
fn a_sample_is_the_same_from_every_layout_and_grows_with_its_size() {
    let root = imagenet();
    let sample = |layout: &str, amount, pick, stratified| {
        let dataset =
            subset(at(root.path(), layout).open("imagenet:val").unwrap(), Choice { amount, pick, stratified }).unwrap();
        let found = rows(dataset.as_ref());
        assert_eq!(dataset.len(), found.len());
        assert_eq!(dataset.shards(None).unwrap().iter().map(|shard| shard.rows).sum::<usize>(), found.len());
        found.into_iter().map(|(id, ..)| id.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let ten = sample("flat", Amount::Rows(10), Pick::Random(7), false);
    assert!(ten.len() == 10 && ten.is_sorted());
    for layout in ["synsets", "tar", "web"] {
        assert_eq!(sample(layout, Amount::Share(0.25), Pick::Random(7), false), ten, "{layout}");
    }
    let twenty = sample("web", Amount::Rows(20), Pick::Random(7), false);
    assert!(ten.iter().all(|id| twenty.contains(id)));
    assert_ne!(sample("flat", Amount::Rows(10), Pick::Random(8), false), ten);
    let first = sample("web", Amount::Rows(3), Pick::First, false);
    assert_eq!(first, ["ILSVRC2012_val_00000001", "ILSVRC2012_val_00000002", "ILSVRC2012_val_00000003"]);
    assert_eq!(sample("flat", Amount::Rows(1000), Pick::Random(0), true).len(), 40);

    for class in ["a", "b"] {
        for i in 0..20 {
            put(root.path(), &format!("classes/{class}/{i}.png"), format!("{class}{i}").as_bytes());
        }
    }
    put(root.path(), "classes/c/only.png", b"c");
    let dataset = Catalog::new(root.path()).open("classes").unwrap();
    let half = subset(dataset, Choice { amount: Amount::Rows(20), pick: Pick::Random(0), stratified: true }).unwrap();
    let mut labels: Vec<i64> = rows(half.as_ref()).into_iter().map(|(_, label, _)| label).collect();
    labels.sort_unstable();
    assert_eq!([0, 1].map(|class| labels.iter().filter(|label| **label == class).count()), [10, 10]);
    let flat = Catalog::new(root.path()).open("flat/val").unwrap();
    let limited = subset(flat, Choice { amount: Amount::Rows(10), pick: Pick::Random(7), stratified: false }).unwrap();
    assert_eq!(limited.shards(Some(4)).unwrap()[0].rows, 4);
    let read = limited.read(0, Some(4), &[]).unwrap().map(|batch| batch.unwrap().len());
    assert_eq!(read.sum::<usize>(), 4);
}

/// Rows at these places of each shard, and the same ones of a whole reading.
fn at_will(dataset: &dyn Dataset, columns: &[&str]) {
    let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
    for shard in 0..dataset.shards(None).unwrap().len() {
        let whole = dataset.read(shard, None, &columns).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let whole = Batch::concat(&whole).unwrap();
        let last = whole.len() as u32 - 1;
        for mut places in [vec![0], vec![last], vec![0, 1, last], (0..=last).step_by(3).collect::<Vec<_>>()] {
            places.dedup();
            let some = dataset.rows(shard, None, &places, &columns).unwrap();
            assert_eq!(some, whole.take(&places).unwrap(), "{} {places:?}", dataset.name());
        }
        assert!(dataset.rows(shard, None, &[last + 1], &columns).is_err(), "{}", dataset.name());
    }
}

#[test]
fn a_few_rows_are_the_same_as_in_a_whole_reading() {
    let root = imagenet();
    for layout in ["flat", "synsets", "tar", "web"] {
        at_will(at(root.path(), layout).open("imagenet:val").unwrap().as_ref(), &[IMAGE, LABEL]);
    }
    let (one, two): (Vec<String>, Vec<String>) = (0..9).map(|i| (format!("a{i}.png"), format!("a{i}.txt"))).unzip();
    let members = one.iter().zip(&two).flat_map(|(png, txt)| [(png.as_str(), &b"p"[..]), (txt.as_str(), b" a cat\n")]);
    let packed = gzip(&tar(&members.collect::<Vec<_>>()));
    put(root.path(), "packed.tar.gz", &packed);
    put(root.path(), "rows.parquet", &parquet());
    let catalog = Catalog::new(root.path());
    at_will(catalog.open("packed.tar.gz").unwrap().as_ref(), &[IMAGE, "text"]);
    at_will(catalog.open("rows.parquet").unwrap().as_ref(), &[IMAGE, LABEL]);
    at_will(catalog.open("mnist:test").unwrap().as_ref(), &[IMAGE, LABEL]);
    let twice = ["rows.parquet", "rows.parquet"].map(str::to_owned);
    at_will(catalog.open_all(&twice, &OpenOptions::default()).unwrap().as_ref(), &[IMAGE, LABEL]);
    let choice = Choice { amount: Amount::Rows(1500), pick: Pick::Random(1), stratified: true };
    at_will(subset(catalog.open("mnist:test").unwrap(), choice).unwrap().as_ref(), &[IMAGE, LABEL]);
}
