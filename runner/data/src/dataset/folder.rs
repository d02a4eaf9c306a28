//! A folder of pictures: a class a sub-folder, or flat; on disk or in a bucket.

use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, ImageForm, ImageRef, ImagesBuilder, KeyHasher, Schema,
};

use super::{
    About, IMAGE, LABEL, Table, batch_error, imagenet,
    imagenet::Truth,
    layout::Layout,
    memory::{Digests, Remembered, Wanted},
    place::{Entry, Place, Version},
};
use crate::DataError;

/// Extensions of files that are taken for pictures.
pub(super) const EXTENSIONS: [&str; 13] =
    ["png", "jpg", "jpeg", "jpe", "gif", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];

/// Pictures in a folder, by path.
pub(super) struct Folder {
    about: About,
    root: Place,
    files: Vec<File>,
    /// Its pictures are ImageNet's validation pictures: ids are their names, wherever they lie.
    by_name: bool,
    digests: Digests,
}

struct File {
    entry: Entry,
    label: u32,
}

/// What is known of a folder besides what lies in it.
#[derive(Clone, Default)]
pub(super) struct Hints {
    /// The name of each class, in the order of the sub-folders' names.
    pub(super) classes: Option<Vec<String>>,
    /// Its sub-folders are some of ImageNet's synsets: all 1,000 are classes.
    pub(super) imagenet: bool,
    /// The labels of ImageNet's validation pictures, for a flat folder.
    pub(super) truth: Option<Arc<Truth>>,
}

impl Folder {
    /// Takes the pictures among the files that lie in a folder. Every sub-folder with pictures is a class, in the order of
    /// their names.
    pub(super) fn open(
        name: &str,
        root: &Place,
        listed: Vec<Entry>,
        hints: &Hints,
        remembered: Remembered,
    ) -> Result<Self, DataError> {
        let pictures: Vec<Entry> = listed.into_iter().filter(|entry| is_picture(Path::new(&entry.path))).collect();
        let is_flat = |entry: &Entry| !entry.path.contains('/');
        let (flat, deep) =
            (pictures.iter().find(|entry| is_flat(entry)), pictures.iter().find(|entry| !is_flat(entry)));
        let numbered = !pictures.is_empty() && pictures.iter().all(|entry| imagenet::number_of(&entry.path).is_some());
        let (classes, mut files) = match (flat, deep) {
            (None, None) => return Err(root.failed(format!("no pictures in it ({})", EXTENSIONS.join(", ")))),
            (Some(file), Some(deep)) => {
                let class = deep.path.split('/').next().unwrap_or_default();
                let file = &file.path;
                return Err(root.failed(format!(
                    "pictures both directly in it ({file}) and in sub-folders ({class}): expected a sub-folder for each class, or a flat folder"
                )));
            }
            (Some(_), None) => match hints.truth.as_ref().filter(|_| numbered) {
                None => (None, pictures.into_iter().map(|entry| File { entry, label: 0 }).collect()),
                Some(truth) => {
                    let label = |entry: Entry| {
                        let label = truth.of(&entry.path).map_err(|message| root.failed(message))?;
                        Ok(File { entry, label: label as u32 })
                    };
                    let files = pictures.into_iter().map(label).collect::<Result<Vec<_>, DataError>>()?;
                    (Some(imagenet::imagenet_classes().to_vec()), files)
                }
            },
            (None, Some(_)) => classed(root, pictures, hints)?,
        };
        if numbered {
            // The same rows in the same order, whether in one folder or in one for each class.
            files.sort_by_key(|file| imagenet::number_of(&file.entry.path));
            let number = |file: &File| imagenet::number_of(&file.entry.path);
            if let Some([a, b]) = files.array_windows().find(|[a, b]| number(a) == number(b)) {
                return Err(root.failed(format!("one picture lies there twice: {} and {}", a.entry.path, b.entry.path)));
            }
        }
        let layout = Layout::new(files.iter().map(|file| file.entry.size));
        let mut columns = vec![Column::new(IMAGE, ColumnType::Image)];
        if classes.is_some() {
            columns.push(Column::new(LABEL, ColumnType::Label));
        }
        let about = About { name: name.to_owned(), schema: Schema::new(columns), classes, layout };
        Ok(Self { about, root: root.clone(), files, by_name: numbered, digests: Digests::new(remembered) })
    }

    /// What a picture is called: its path, or its name alone.
    fn called<'a>(&self, file: &'a File) -> &'a str {
        let path = &file.entry.path;
        if self.by_name { path.rsplit('/').next().unwrap_or(path) } else { path }
    }

    fn id(&self, file: &File) -> String {
        let called = self.called(file);
        let called = if self.by_name { called.split('.').next().unwrap_or(called) } else { called };
        format!("{}/{called}", self.about.name)
    }
}

/// Pictures in sub-folders, with the classes that these stand for.
fn classed(root: &Place, pictures: Vec<Entry>, hints: &Hints) -> Result<(Option<Vec<String>>, Vec<File>), DataError> {
    let class = |entry: &Entry| entry.path.split('/').next().unwrap_or_default().to_owned();
    let mut folders: Vec<String> = pictures.iter().map(class).collect();
    folders.dedup();
    let synsets: Option<Vec<usize>> = folders.iter().map(|folder| imagenet::label_of(folder)).collect();
    let (names, labels): (Vec<String>, Vec<usize>) = match (synsets, &hints.classes) {
        (Some(labels), None) if hints.imagenet || labels.len() == imagenet::imagenet_classes().len() => {
            (imagenet::imagenet_classes().to_vec(), labels)
        }
        // Some of ImageNet's classes are a dataset of their own, with the same names.
        (Some(labels), None) => {
            let name = |&label: &usize| imagenet::imagenet_classes().get(label).cloned().unwrap_or_default();
            (labels.iter().map(name).collect(), (0..folders.len()).collect())
        }
        (None, None) if hints.imagenet => {
            let other = folders.iter().find(|folder| imagenet::label_of(folder).is_none());
            let other = other.map(String::as_str).unwrap_or_default();
            return Err(root.failed(format!("sub-folder {other} is no synset of ImageNet such as n01440764")));
        }
        (None, None) => (folders.clone(), (0..folders.len()).collect()),
        (_, Some(names)) if names.len() == folders.len() => (names.clone(), (0..folders.len()).collect()),
        (_, Some(names)) => {
            let (names, folders) = (names.len(), folders.len());
            return Err(root.failed(format!("{names} class names for {folders} sub-folders with pictures")));
        }
    };
    let labels: BTreeMap<&str, usize> = folders.iter().map(String::as_str).zip(labels).collect();
    let file = |entry: Entry| {
        let label = labels.get(class(&entry).as_str()).copied().unwrap_or(0);
        File { entry, label: label as u32 }
    };
    Ok((Some(names), pictures.into_iter().map(file).collect()))
}

impl Table for Folder {
    fn about(&self) -> &About {
        &self.about
    }

    fn batch(&self, rows: Range<usize>, wanted: &dyn Fn(&str) -> bool) -> Result<Batch, DataError> {
        let files = &self.files[rows];
        let mut batch = Batch::new(files.iter().map(|file| self.id(file)).collect());
        if wanted(IMAGE) {
            let mut images = ImagesBuilder::new(ImageForm::Encoded);
            for file in files {
                let entry = &file.entry;
                let bytes = self.root.join(&entry.path).read_picture(entry)?;
                images.push(ImageRef::Encoded { bytes: &bytes, path: self.called(file) }).map_err(batch_error)?;
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
        for (file, digest) in files.iter().zip(self.contents(rows)?) {
            // Validation pictures have the same key wherever they lie.
            ids = ids.part("path", self.called(file).as_bytes());
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

impl Folder {
    /// The digest of each picture's content.
    fn contents(&self, rows: Range<usize>) -> Result<Vec<Digest>, DataError> {
        let files = &self.files[rows.clone()];
        // Of files on disk, only the content tells.
        let known: Vec<_> = files.iter().map(|file| file.entry.version.digest(file.entry.size)).collect();
        let unknown = rows.zip(files).zip(&known).filter(|(_, known)| known.is_none());
        let read = match &self.root {
            Place::Disk(root) => {
                let wanted = |((row, File { entry, .. }), _): ((usize, &File), _)| Wanted {
                    row,
                    path: root.join(&entry.path),
                    seen: match entry.version {
                        Version::Modified(modified) => modified.map(|modified| (entry.size, modified)),
                        Version::Tag(_) | Version::Nothing => None,
                    },
                };
                self.digests.of(&unknown.map(wanted).collect::<Vec<_>>())?
            }
            Place::Bucket(..) => Vec::new(),
        };
        let mut read = read.into_iter();
        let digests: Option<Vec<Digest>> = known.into_iter().map(|known| known.or_else(|| read.next())).collect();
        digests.ok_or_else(|| self.root.failed("objects without ETags cannot be told apart"))
    }
}

/// Whether the extension is one of a picture.
pub(super) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}
