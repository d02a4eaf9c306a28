//! The layouts in which people have their datasets: ImageNet's, WebDataset, CIFAR's binaries.

#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use runner_contract::{Batch, ImageRef};
use runner_data::{Catalog, Dataset, IMAGE, LABEL, OpenOptions, imagenet_classes, imagenet_synsets};

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

/// Pictures of ImageNet's validation set: number, label, content.
fn pictures() -> Vec<(usize, usize, Vec<u8>)> {
    (1..=40).map(|number| (number, number * 37 % 1000, format!("picture {number}").into_bytes())).collect()
}

/// A root with the pictures in every layout that people have.
fn imagenet() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let (mut flat_tar, mut web) = (Vec::new(), Vec::new());
    let names: Vec<String> = pictures().iter().map(|(number, ..)| format!("ILSVRC2012_val_{number:08}")).collect();
    let files: Vec<[String; 2]> = names.iter().map(|name| [format!("{name}.JPEG"), format!("{name}.cls")]).collect();
    let classes: Vec<String> = pictures().iter().map(|(_, label, _)| label.to_string()).collect();
    let pictures = pictures();
    for (i, (_, label, content)) in pictures.iter().enumerate() {
        let file = &files[i][0];
        put(root.path(), &format!("flat/val/{file}"), content);
        put(root.path(), &format!("synsets/val/{}/{file}", imagenet_synsets()[*label]), content);
        flat_tar.push((file.as_str(), content.as_slice()));
        web.extend([(file.as_str(), content.as_slice()), (files[i][1].as_str(), classes[i].as_bytes())]);
    }
    put(root.path(), "tar/ILSVRC2012_img_val.tar", &tar(&flat_tar));
    put(root.path(), "web/val/0.tar", &tar(&web[..50]));
    put(root.path(), "web/val/1.tar", &tar(&web[50..]));
    // The development kit counts classes in another order than that of the synsets.
    let id_of = |label: usize| (label * 7 + 3) % 1000 + 1;
    let truth: String = pictures.iter().map(|(_, label, _)| format!("{}\n", id_of(*label))).collect();
    let map: String = (0..1000).map(|label| format!("{} {} name\n", imagenet_synsets()[label], id_of(label))).collect();
    put(root.path(), "flat/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.as_bytes());
    put(root.path(), "flat/ILSVRC2012_devkit_t12/data/map_clsloc.txt", map.as_bytes());
    let kit = tar(&[
        ("ILSVRC2012_devkit_t12/readme.txt", b"hello"),
        ("ILSVRC2012_devkit_t12/data/map_clsloc.txt", map.as_bytes()),
        ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.as_bytes()),
    ]);
    put(root.path(), "tar/ILSVRC2012_devkit_t12.tar.gz", &gzip(&kit));
    root
}

fn at(root: &Path, layout: &str) -> Catalog {
    Catalog::new("/nowhere").with_aliases(BTreeMap::from([("imagenet".to_owned(), root.join(layout))]))
}

#[test]
fn imagenets_validation_set_has_the_same_rows_in_every_layout() {
    let root = imagenet();
    let expected: Vec<_> = pictures()
        .into_iter()
        .map(|(number, label, content)| (format!("ILSVRC2012_val_{number:08}"), label as i64, content))
        .collect();
    for layout in ["flat", "synsets", "tar", "web"] {
        let dataset = at(root.path(), layout).open("imagenet:val").unwrap();
        assert_eq!(dataset.classes(), Some(imagenet_classes()), "{layout}");
        let name = |id: &str| id.rsplit('/').next().unwrap().to_owned();
        let found: Vec<_> =
            rows(dataset.as_ref()).into_iter().map(|(id, label, bytes)| (name(&id), label, bytes)).collect();
        assert_eq!(found, expected, "{layout}");
    }
    let [flat, synsets] = ["flat", "synsets"].map(|layout| at(root.path(), layout).open("imagenet:val").unwrap());
    let keys = |dataset: &dyn Dataset| format!("{:?}", dataset.shards(None).unwrap());
    assert_eq!(keys(flat.as_ref()), keys(synsets.as_ref()), "what was computed from one is found for the other");
}

#[test]
fn ground_truth_is_read_from_any_file_that_people_have() {
    let root = imagenet();
    let kit = root.path().join("flat/ILSVRC2012_devkit_t12");
    let open = || at(root.path(), "flat").open("imagenet:val");
    let expected = rows(open().unwrap().as_ref());
    fs::remove_file(kit.join("data/map_clsloc.txt")).unwrap();
    let message = open().err().unwrap().to_string();
    assert!(message.contains("mean nothing without meta.mat or map_clsloc.txt"), "{message}");
    fs::remove_dir_all(&kit).unwrap();
    let message = open().err().unwrap().to_string();
    assert!(
        message.contains("no labels for the validation pictures") && message.contains("LOC_val_solution.csv"),
        "{message}"
    );

    let lines =
        |line: &dyn Fn(usize, usize) -> String| pictures().iter().map(|(n, l, _)| line(*n, *l)).collect::<String>();
    let synset = |label: usize| imagenet_synsets()[label];
    for (name, text) in [
        ("imagenet_2012_validation_synset_labels.txt", lines(&|_, l| format!("{}\n", synset(l)))),
        ("val.txt", lines(&|n, l| format!("ILSVRC2012_val_{n:08}.JPEG {l}\n"))),
        (
            "LOC_val_solution.csv",
            format!(
                "ImageId,PredictionString\n{}",
                lines(&|n, l| format!("ILSVRC2012_val_{n:08},{} 1 2 3 4 \n", synset(l)))
            ),
        ),
    ] {
        put(root.path(), &format!("flat/{name}"), text.as_bytes());
        assert_eq!(rows(open().unwrap().as_ref()), expected, "{name}");
        put(root.path(), &format!("flat/{name}"), b"ILSVRC2012_val_00000001 n99999999\n");
        let message = open().err().unwrap().to_string();
        assert!(message.contains(name) && message.contains("line 1"), "{message}");
        fs::remove_file(root.path().join("flat").join(name)).unwrap();
    }
    put(root.path(), "flat/val.txt", b"ILSVRC2012_val_00000001.JPEG 65\n");
    let message = open().err().unwrap().to_string();
    assert!(message.contains("has no label for picture 2"), "{message}");
}

#[test]
fn synset_folders_are_classes_with_names_that_people_know() {
    let root = tempfile::tempdir().unwrap();
    for synset in ["n01440764", "n02124075"] {
        put(root.path(), &format!("some/train/{synset}/{synset}_1.JPEG"), b"x");
    }
    let open =
        |reference: &str, options: &OpenOptions| Catalog::new(root.path()).open_with(reference, options).unwrap();
    let some = open("some:train", &OpenOptions::default());
    assert_eq!(some.classes().unwrap(), ["tench", "Egyptian Mau"]);
    let named = open("some:train", &OpenOptions { classes: Some(vec!["a".into(), "b".into()]) });
    assert_eq!(named.classes().unwrap(), ["a", "b"]);
    let full = at(root.path(), "some").open("imagenet:train").unwrap();
    assert_eq!(full.classes().unwrap().len(), 1000);
    let labels: Vec<i64> = rows(full.as_ref()).into_iter().map(|(_, label, _)| label).collect();
    assert_eq!(labels, [0, 285]);
    assert!(error(root.path(), "some").contains("holds one split: write some:train"), "{}", error(root.path(), "some"));
    let message = error(root.path(), "some:test");
    assert!(message.contains("no files of that split") && message.contains("there are train"), "{message}");
    assert!(
        error(root.path(), "imagenet:val").contains("[datasets] imagenet ="),
        "{}",
        error(root.path(), "imagenet:val")
    );
}

#[test]
fn samples_of_tars_are_rows_in_order() {
    let root = tempfile::tempdir().unwrap();
    let shard = |first: usize| {
        let members: Vec<(String, Vec<u8>)> = (first..first + 70)
            .flat_map(|i| {
                [
                    (format!("a/{i:04}.jpg"), format!("picture {i}").into_bytes()),
                    (format!("a/{i:04}.cls"), format!("{}\n", i % 3).into_bytes()),
                    (format!("a/{i:04}.txt"), format!("one {i}\ntwo {i}\n").into_bytes()),
                    (format!("a/{i:04}.json"), format!("{{\"i\": {i}}}").into_bytes()),
                    (format!("a/{i:04}.npy"), b"not for us".to_vec()),
                ]
            })
            .collect();
        tar(&members.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect::<Vec<_>>())
    };
    for (number, first) in [(0, 0), (1, 70), (2, 140)] {
        put(root.path(), &format!("plain/{number:02}.tar"), &shard(first));
        put(root.path(), &format!("packed/{number:02}.tar.gz"), &gzip(&shard(first)));
    }
    put(root.path(), "classnames.txt", b"red\ngreen\nblue\n");
    let catalog = Catalog::new(root.path()).with_cache(root.path().join("cache"));
    let plain = catalog.open("plain/{00..02}.tar").unwrap();
    assert_eq!((plain.len(), plain.is_counted()), (210, true));
    assert_eq!(plain.classes().unwrap(), ["red", "green", "blue"]);
    assert_eq!(plain.schema().names(), "id, image, label, text, captions, json");
    let found = rows(plain.as_ref());
    assert_eq!(found[71], ("plain/a/0071".into(), 2, b"picture 71".to_vec()));
    assert_eq!(found.len(), 210);
    let texts = all(plain.as_ref(), &["text", "captions", "json"]);
    assert_eq!(texts.text("text").unwrap().value(209), "one 209\ntwo 209");
    assert_eq!(texts.texts("captions").unwrap()[209], ["one 209", "two 209"]);
    assert_eq!(texts.text("json").unwrap().value(3), "{\"i\": 3}");

    // A packed tar is counted when it was read, and may be named by its folder.
    let packed = catalog.open("packed").unwrap();
    assert!(!packed.is_counted());
    let same: Vec<_> = rows(packed.as_ref()).into_iter().map(|(id, ..)| id.replace("packed", "plain")).collect();
    assert_eq!(same, found.iter().map(|(id, ..)| id.clone()).collect::<Vec<_>>());
    assert_eq!((packed.len(), packed.is_counted()), (210, true));
    // Its labels and texts are remembered by its content: nothing is unpacked for them again.
    let fresh = Catalog::new(root.path()).with_cache(root.path().join("cache"));
    assert_eq!(fs::read_dir(root.path().join("cache/index")).unwrap().count(), 3);
    let texts = all(fresh.open("packed").unwrap().as_ref(), &["label", "captions"]);
    assert_eq!(
        (texts.integers("label").unwrap()[71], texts.texts("captions").unwrap()[209][1].as_str()),
        (2, "two 209")
    );

    for dataset in
        [&plain, &packed, &Catalog::new(root.path()).with_cache(root.path().join("cache")).open("packed").unwrap()]
    {
        let shards = dataset.shards(Some(100)).unwrap();
        assert_eq!(shards.iter().map(|shard| shard.rows).collect::<Vec<_>>(), [70, 30]);
        let read = dataset.read(1, Some(100), &[]).unwrap().map(|batch| batch.unwrap().len());
        assert_eq!(read.sum::<usize>(), 30);
        let whole = dataset.shards(None).unwrap();
        assert_eq!((shards[0].ids, &shards[0].columns), (whole[0].ids, &whole[0].columns));
        assert_ne!(shards[1].ids, whole[1].ids);
    }
}

#[test]
fn tars_that_are_no_dataset_are_refused_with_the_sample() {
    let root = tempfile::tempdir().unwrap();
    let read = |members: &[(&str, &[u8])]| {
        put(root.path(), "x.tar", &tar(members));
        let catalog = Catalog::new(root.path()).with_cache(root.path().join("cache"));
        let dataset = catalog.open("x.tar").map_err(|error| error.to_string())?;
        let columns: Vec<String> = dataset.schema().columns.iter().map(|column| column.name.clone()).collect();
        dataset.shards(None).map_err(|error| error.to_string())?;
        dataset
            .read(0, None, &columns)
            .unwrap()
            .map(|batch| batch.map(|batch| batch.len()))
            .sum::<Result<usize, _>>()
            .map_err(|error| error.to_string())
    };
    let (jpg, cls) = (b"picture".as_slice(), b"1".as_slice());
    assert_eq!(read(&[("a.jpg", jpg), ("a.cls", cls), ("b.cls", cls), ("b.jpg", jpg)]), Ok(2));
    for (members, part) in [
        (vec![("a.jpg", jpg), ("a.cls", cls), ("b.jpg", jpg)], "sample `b`: it has no cls, which the first sample has"),
        (
            vec![("a.jpg", jpg), ("b.jpg", jpg), ("a.cls", cls)],
            "sample `a` stands twice, or its members do not lie together",
        ),
        (vec![("a.jpg", jpg), ("a.png", jpg)], "sample `a` has two members for its picture: a.jpg and a.png"),
        (vec![("a.jpg", jpg), ("a.cls", b"cat")], "`a.cls` holds \"cat\", expected a class number from 0"),
        (vec![("a.jpg", jpg), ("a.cls", b"-1")], "expected a class number"),
        (vec![("README", jpg)], "no samples in it"),
        (vec![], "no samples in it"),
    ] {
        let message = read(&members).unwrap_err();
        assert!(message.contains(part) && message.contains("x.tar"), "{message}\nexpected: {part}");
    }
    let whole = gzip(&tar(&[("a.jpg", jpg), ("b.jpg", &[7; 9000])]));
    put(root.path(), "cut.tar.gz", &whole[..whole.len() - 20]);
    let message = error(root.path(), "cut.tar.gz");
    assert!(message.contains("cut.tar.gz, byte") && message.contains("cut off"), "{message}");
    assert!(error(root.path(), "no-{0..3}.tar").contains("no-0.tar does not exist, nor do 3 more of 4"));
    assert!(error(root.path(), "no-{0..x}.tar").contains("expected two numbers"));
}

/// A record of CIFAR: labels, then the planes of one colour.
fn record(labels: &[u8], colour: [u8; 3]) -> Vec<u8> {
    labels.iter().copied().chain(colour.into_iter().flat_map(|value| [value; 1024])).collect()
}

#[test]
fn cifars_binaries_are_read_with_their_names() {
    let root = tempfile::tempdir().unwrap();
    for number in 1..=5 {
        put(root.path(), &format!("c10/data_batch_{number}.bin"), &record(&[number], [number, 20, 30]).repeat(2));
    }
    put(root.path(), "c10/test_batch.bin", &record(&[9], [1, 2, 3]));
    put(
        root.path(),
        "c10/batches.meta.txt",
        b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
    );
    let catalog = Catalog::new(root.path());
    let train = catalog.open("c10:train").unwrap();
    let found = rows(train.as_ref());
    assert_eq!((found.len(), train.classes().unwrap()[3].as_str()), (10, "cat"));
    assert_eq!(
        (found[5].0.as_str(), found[5].1, &found[5].2[..6]),
        ("c10/train/00005", 3, &[3, 20, 30, 3, 20, 30][..])
    );
    assert!(error(root.path(), "c10").contains("two splits: write c10:train or c10:test"));

    put(root.path(), "c100/cifar-100-binary/test.bin", &record(&[4, 2], [9, 8, 7]));
    put(root.path(), "c100/cifar-100-binary/fine_label_names.txt", b"apple\naquarium_fish\nbaby\n");
    let test = catalog.open("c100:test").unwrap();
    assert_eq!(rows(test.as_ref())[0].1, 2);
    assert_eq!(all(test.as_ref(), &["coarse_label"]).integers("coarse_label").unwrap(), [4]);

    put(root.path(), "c10/test_batch.bin", &[0; 3000]);
    let message = error(root.path(), "c10:test");
    assert!(message.contains("3000 bytes are no number of records of 3073 bytes"), "{message}");
    put(root.path(), "c10/test_batch.bin", &record(&[10], [0; 3]));
    let dataset = Catalog::new(root.path()).open("c10:test").unwrap();
    let message = dataset.read(0, None, &[LABEL.to_owned()]).unwrap().find_map(Result::err).unwrap().to_string();
    assert!(message.contains("test_batch.bin, row 0: label 10, but there are 10 classes"), "{message}");
}

#[test]
fn what_was_recognised_is_said() {
    let root = imagenet();
    let said = |layout: &str| at(root.path(), layout).recognise("imagenet:val", &OpenOptions::default()).unwrap().1;
    assert!(said("flat").starts_with("ImageNet's validation pictures in one folder, labels from "), "{}", said("flat"));
    assert_eq!(said("synsets"), "ImageNet: pictures in a sub-folder for each synset, with curated class names");
    assert!(
        said("tar").contains("in a tar file, labels from ILSVRC2012_validation_ground_truth.txt in"),
        "{}",
        said("tar")
    );
    assert_eq!(said("web"), "WebDataset: 2 tar files, ImageNet's class names");
}

/// A Parquet file as Hugging Face's `datasets` writes it: 5 rows, in row groups of 2.
fn parquet() -> Vec<u8> {
    use std::{collections::HashMap, sync::Arc};

    use arrow_array::{
        ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray,
        builder::{ListBuilder, StringBuilder},
    };
    use arrow_schema::{DataType, Field, Fields, Schema};
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};

    let features = r#"{"info": {"features": {"img": {"_type": "Image"}, "fine_label": {"names": ["apple", "bear", "cup"], "_type": "ClassLabel"}}}}"#;
    let parts =
        Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)]);
    let bytes: ArrayRef =
        Arc::new(BinaryArray::from_opt_vec(vec![Some(b"p0"), Some(b"p1"), None, Some(b"p3"), Some(b"p4")]));
    let paths: ArrayRef = Arc::new(StringArray::from(vec![Some("0.png"), None, None, Some("3.png"), Some("4.png")]));
    let images: ArrayRef = Arc::new(StructArray::new(parts, vec![bytes, paths], None));
    let mut captions = ListBuilder::new(StringBuilder::new());
    for row in 0..5 {
        captions.append_value([Some(format!("one {row}")), Some(format!("two {row}"))]);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("img", images),
        ("fine_label", Arc::new(Int64Array::from(vec![2, 0, 1, 1, 0]))),
        ("captions", Arc::new(captions.finish())),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Schema::new(fields).with_metadata(HashMap::from([("huggingface".to_owned(), features.to_owned())]));
    let rows = RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn hugging_faces_parquet_is_read_with_names_and_captions() {
    let root = tempfile::tempdir().unwrap();
    let file = parquet();
    for name in
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]
    {
        put(root.path(), &format!("hf/{name}"), &file);
    }
    let catalog = Catalog::new(root.path());
    let train = catalog.open("hf:train").unwrap();
    assert_eq!(train.classes().unwrap(), ["apple", "bear", "cup"]);
    assert_eq!((train.schema().names().as_str(), train.len()), ("id, image, label, captions", 10));
    let found = rows(train.as_ref());
    let short: Vec<_> = found.iter().map(|(_, label, bytes)| (*label, std::str::from_utf8(bytes).unwrap())).collect();
    assert_eq!(short[..5], [(2, "p0"), (0, "p1"), (1, ""), (1, "p3"), (0, "p4")]);
    assert_eq!(short[..5], short[5..]);
    let ids: std::collections::HashSet<_> = found.iter().map(|(id, ..)| id).collect();
    assert_eq!(ids.len(), 10);
    assert_eq!(all(train.as_ref(), &["captions"]).texts("captions").unwrap()[9], ["one 4", "two 4"]);
    let limited = train.shards(Some(8)).unwrap();
    assert_eq!(limited.iter().map(|shard| shard.rows).collect::<Vec<_>>(), [5, 3]);
    let cut: usize = train.read(1, Some(8), &["label".to_owned()]).unwrap().map(|batch| batch.unwrap().len()).sum();
    assert_eq!(cut, 3);
    assert!(error(root.path(), "hf").contains("two splits: write hf:train or hf:test"), "{}", error(root.path(), "hf"));

    put(root.path(), "cut.parquet", &file[..file.len() - 9]);
    put(root.path(), "text.parquet", b"PAR1 this is no parquet file PAR1");
    for name in ["cut.parquet", "text.parquet"] {
        let message = error(root.path(), name);
        assert!(message.contains(name) && message.contains("not a Parquet file that can be read"), "{message}");
    }
}

#[test]
fn a_sample_is_the_same_from_every_layout_and_grows_with_its_size() {
    use runner_data::{Amount, Choice, Pick, subset};
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
    let choice = runner_data::Choice {
        amount: runner_data::Amount::Rows(1500),
        pick: runner_data::Pick::Random(1),
        stratified: true,
    };
    at_will(runner_data::subset(catalog.open("mnist:test").unwrap(), choice).unwrap().as_ref(), &[IMAGE, LABEL]);
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
