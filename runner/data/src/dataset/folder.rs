//! A folder of pictures: a class a sub-folder, or flat without classes.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, ImageForm, ImageRef, ImagesBuilder, KeyHasher, Schema,
};

use super::{
    About, IMAGE, LABEL, Table, batch_error,
    layout::Layout,
    memory::{Digests, Remembered, Wanted, modified},
};
use crate::{DataError, error::read};

/// Extensions of files that are taken for pictures.
pub(super) const EXTENSIONS: [&str; 13] =
    ["png", "jpg", "jpeg", "jpe", "gif", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];

/// How deep sub-folders are followed, so that a link to a parent ends.
const MOST_DEPTH: usize = 12;

/// Pictures in a folder, by path.
pub(super) struct Folder {
    about: About,
    root: PathBuf,
    files: Vec<Entry>,
    digests: Digests,
}

struct Entry {
    /// Below the folder, with `/` between.
    path: String,
    seen: Seen,
    label: u32,
}

/// A file's size, and when it was last changed (nanoseconds since 1970), where the system says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    size: u64,
    modified: Option<i64>,
}

impl Folder {
    /// Lists the folder. Every sub-folder with pictures is a class, in the order of their names.
    pub(super) fn open(name: &str, root: &Path, remembered: Remembered) -> Result<Self, DataError> {
        let wrong = |message: String| Err(DataError::format(root.display().to_string(), message));
        let mut flat = Vec::new();
        let mut by_class = Vec::new();
        for (child, path, is_folder) in list(root)? {
            if is_folder {
                let mut files = Vec::new();
                walk(&path, &child, MOST_DEPTH, &mut files)?;
                if !files.is_empty() {
                    by_class.push((child, files));
                }
            } else if is_picture(&path) {
                flat.push((child, see(&path)?));
            }
        }
        let (classes, found) = match (flat.is_empty(), by_class.is_empty()) {
            (true, true) => return wrong(format!("no pictures in it ({})", EXTENSIONS.join(", "))),
            (false, false) => {
                let (file, class) = (&flat[0].0, &by_class[0].0);
                return wrong(format!(
                    "pictures both directly in it ({file}) and in sub-folders ({class}): expected a sub-folder for each class, or a flat folder"
                ));
            }
            (false, true) => (None, flat.into_iter().map(|(path, seen)| (path, seen, 0)).collect::<Vec<_>>()),
            (true, false) => {
                let names = by_class.iter().map(|(class, _)| class.clone()).collect();
                let labelled = by_class.into_iter().zip(0u32..);
                let files = labelled
                    .flat_map(|((_, files), label)| files.into_iter().map(move |(path, seen)| (path, seen, label)));
                (Some(names), files.collect())
            }
        };
        let layout = Layout::new(found.iter().map(|(_, seen, _)| seen.size));
        let files: Vec<Entry> = found.into_iter().map(|(path, seen, label)| Entry { path, seen, label }).collect();
        let mut columns = vec![Column::new(IMAGE, ColumnType::Image)];
        if classes.is_some() {
            columns.push(Column::new(LABEL, ColumnType::Label));
        }
        let about = About { name: name.to_owned(), schema: Schema::new(columns), classes, layout };
        Ok(Self { about, root: root.to_owned(), files, digests: Digests::new(remembered) })
    }
}

impl Table for Folder {
    fn about(&self) -> &About {
        &self.about
    }

    fn batch(&self, rows: Range<usize>, wanted: &dyn Fn(&str) -> bool) -> Result<Batch, DataError> {
        let files = &self.files[rows];
        let mut batch = Batch::new(files.iter().map(|file| format!("{}/{}", self.about.name, file.path)).collect());
        if wanted(IMAGE) {
            let mut images = ImagesBuilder::new(ImageForm::Encoded);
            for file in files {
                let bytes = read(&self.root.join(&file.path))?;
                images.push(ImageRef::Encoded { bytes: &bytes, path: &file.path }).map_err(batch_error)?;
            }
            batch = batch.with(IMAGE, ColumnData::Images(images)).map_err(batch_error)?;
        }
        if wanted(LABEL) && self.about.classes.is_some() {
            let labels = files.iter().map(|file| i64::from(file.label)).collect();
            batch = batch.with(LABEL, ColumnData::Labels(labels)).map_err(batch_error)?;
        }
        Ok(batch)
    }

    fn keys(&self, rows: Range<usize>) -> Result<(Digest, BTreeMap<String, Digest>), DataError> {
        let mut ids = KeyHasher::new("ids/1").part("name", self.about.name.as_bytes());
        let (mut images, mut labels) = (KeyHasher::new("files/1"), KeyHasher::new("labels/1"));
        let files = &self.files[rows.clone()];
        let wanted = |(row, file): (usize, &Entry)| Wanted {
            row,
            path: self.root.join(&file.path),
            seen: file.seen.modified.map(|modified| (file.seen.size, modified)),
        };
        let paths: Vec<_> = rows.zip(files).map(wanted).collect();
        for (file, digest) in files.iter().zip(self.digests.of(&paths)?) {
            ids = ids.part("path", file.path.as_bytes());
            images = images.digest("file", &digest);
            labels = labels.part("label", &file.label.to_le_bytes());
        }
        let mut columns = BTreeMap::from([(IMAGE.to_owned(), images.finish())]);
        if self.about.classes.is_some() {
            columns.insert(LABEL.to_owned(), labels.finish());
        }
        Ok((ids.finish(), columns))
    }
}

/// Whether the extension is one of a picture.
pub(super) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

pub(super) fn size_of(path: &Path) -> Result<u64, DataError> {
    Ok(see(path)?.size)
}

fn see(path: &Path) -> Result<Seen, DataError> {
    let found = fs::metadata(path).map_err(DataError::io("read", path))?;
    Ok(Seen { size: found.len(), modified: modified(&found) })
}

/// Name, path and whether it is a folder, of everything in a folder but hidden files, by name.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf, bool)>, DataError> {
    let failed = || DataError::io("list", folder);
    let mut children = Vec::new();
    for child in fs::read_dir(folder).map_err(failed())? {
        let child = child.map_err(failed())?;
        let path = child.path();
        let Ok(name) = child.file_name().into_string() else {
            return Err(DataError::format(path.display().to_string(), "its name is not UTF-8: rename it"));
        };
        if name.starts_with('.') {
            continue;
        }
        // What the listing says already is not asked for again; links are followed.
        let is_folder = child.file_type().ok().filter(|kind| !kind.is_symlink());
        let is_folder = is_folder.map_or_else(|| path.is_dir(), |kind| kind.is_dir());
        children.push((name, path, is_folder));
    }
    children.sort();
    Ok(children)
}

/// Collects path below the dataset's folder, size and time of every picture below `folder`.
fn walk(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<(String, Seen)>) -> Result<(), DataError> {
    if depth == 0 {
        return Err(DataError::format(folder.display().to_string(), "folders nested too deep, or a link in a circle"));
    }
    for (name, path, is_folder) in list(folder)? {
        let below = format!("{prefix}/{name}");
        if is_folder {
            walk(&path, &below, depth - 1, files)?;
        } else if is_picture(&path) {
            files.push((below, see(&path)?));
        }
    }
    Ok(())
}
