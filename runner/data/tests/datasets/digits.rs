//! MNIST's test digits inside the program, and other files in the format IDX.

use proptest::prelude::*;
use runner_contract::ImageRef;
use runner_data::{Catalog, read_idx};

use crate::{all, error, open, write};

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
}
