//! Folders of pictures, and pictures that cannot be had.

use std::fs;

use runner_contract::{Batch, ImageRef};
use runner_data::{Limits, decode};

use crate::{all, error, ids, keys, open, png, sparse, write};

#[test]
fn an_image_folder_has_a_class_a_sub_folder() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("pets");
    write(&folder, "dog/b.png", &png(2));
    write(&folder, "cat/a.png", &png(1));
    write(&folder, "cat/deep/c.PNG", &png(3));
    write(&folder, "cat/notes.txt", b"no picture");
    write(&folder, ".hidden/x.png", &png(9));
    write(&folder, "empty/readme.md", b"");
    let pets = open(root.path(), "pets");
    assert_eq!(pets.classes().unwrap(), ["cat", "dog"]);
    let rows = all(pets.as_ref(), None);
    assert_eq!(ids(&rows), ["pets/cat/a.png", "pets/cat/deep/c.PNG", "pets/dog/b.png"]);
    assert_eq!(rows.integers("label").unwrap(), [0, 0, 1]);
    assert_eq!(rows.images("image").unwrap()[2], ImageRef::Encoded { bytes: &png(2), path: "dog/b.png" });

    // Another picture changes the images' key and not the labels'.
    let before = pets.shards(None).unwrap();
    write(&folder, "dog/b.png", &png(5));
    let after = open(root.path(), "pets").shards(None).unwrap();
    assert_ne!(keys(&before, "image"), keys(&after, "image"));
    assert_eq!((keys(&before, "label"), before[0].ids), (keys(&after, "label"), after[0].ids));
}

#[test]
fn a_flat_folder_has_no_labels() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "flat/2.png", &png(2));
    write(root.path(), "flat/1.png", &png(1));
    let flat = open(root.path(), "flat");
    assert_eq!(flat.schema().names(), "id, image");
    assert_eq!(ids(&all(flat.as_ref(), None)), ["flat/1.png", "flat/2.png"]);
    assert!(flat.side("classes").is_err());

    write(root.path(), "flat/sub/3.png", &png(3));
    assert!(error(root.path(), "flat").contains("pictures both directly in it (1.png) and in sub-folders (sub)"));
    fs::create_dir(root.path().join("none")).unwrap();
    assert!(error(root.path(), "none").contains("no pictures in it"));
}

/// Why the picture of a row cannot be decoded.
fn unusable(batch: &Batch, row: usize) -> String {
    let ImageRef::Encoded { bytes, path } = batch.images("image").unwrap()[row] else { panic!("decoded") };
    decode(bytes, path, &Limits::default()).unwrap_err().to_string()
}

#[test]
fn a_picture_file_that_is_too_large_is_one_unusable_picture() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "pets/a.png", &png(1));
    sparse(&root.path().join("pets/b.png"), &png(2), (512 << 20) + 1);
    write(root.path(), "t.csv", b"path\npets/a.png\npets/b.png\n");
    for reference in ["pets", "t.csv"] {
        let rows = all(open(root.path(), reference).as_ref(), None);
        assert_eq!(rows.images("image").unwrap().len(), 2);
        let error = unusable(&rows, 1);
        assert!(
            error.ends_with("b.png: cannot decode the image: 536870913 bytes is over the limit of 536870912"),
            "{error}"
        );
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_in_a_folder_is_passed_over_or_one_unusable_picture() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("pets");
    write(&folder, "cat/a.png", &png(1));
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
    link("nowhere", "cat/notes.txt");
    link("nowhere", "cat/b.png");
    link("c.png", "cat/c.png");
    link("a.png", "cat/d.png");
    link("/dev/zero", "cat/e.png");
    let pets = open(root.path(), "pets");
    let rows = all(pets.as_ref(), None);
    assert_eq!(ids(&rows), ["a", "b", "c", "d", "e"].map(|name| format!("pets/cat/{name}.png")));
    for row in [1, 2, 4] {
        assert!(unusable(&rows, row).contains("a link that leads nowhere, or not a regular file"));
    }
    assert_eq!(rows.images("image").unwrap()[3], ImageRef::Encoded { bytes: &png(1), path: "cat/d.png" });
    // The link that leads somewhere again is another picture.
    let before = pets.shards(None).unwrap();
    write(&folder, "cat/nowhere", &png(7));
    assert_ne!(keys(&before, "image"), keys(&open(root.path(), "pets").shards(None).unwrap(), "image"));
}
