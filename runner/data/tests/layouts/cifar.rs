//! CIFAR's binaries.

use runner_data::{Catalog, LABEL};

use crate::{all, error, put, rows};

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
