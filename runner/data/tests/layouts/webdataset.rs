//! WebDataset's tar files.

use std::fs;

use runner_data::Catalog;

use crate::{all, error, gzip, put, rows, tar};

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
