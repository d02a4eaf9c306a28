//! ImageNet in the layouts that people have.

use std::{collections::BTreeMap, fs, path::Path};

use runner_data::{Catalog, Dataset, OpenOptions, imagenet_classes, imagenet_synsets};

use crate::{error, gzip, put, rows, tar};

/// Pictures of ImageNet's validation set: number, label, content.
fn pictures() -> Vec<(usize, usize, Vec<u8>)> {
    (1..=40).map(|number| (number, number * 37 % 1000, format!("picture {number}").into_bytes())).collect()
}

/// A root with the pictures in every layout that people have.
pub(crate) fn imagenet() -> tempfile::TempDir {
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

pub(crate) fn at(root: &Path, layout: &str) -> Catalog {
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
