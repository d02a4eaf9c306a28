//! MNIST, Fashion-MNIST and other pictures in IDX files.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, ImageForm, ImageRef, ImagesBuilder, KeyHasher, Schema,
};

use super::{
    About, IMAGE, LABEL, Table, batch_error,
    idx::{check_length, fill, header, is_gzip, read_idx},
    layout::Layout,
    memory::{FileStamp, Remembered},
    numbered, numbered_key,
};
use crate::{DataError, decode::MOST_BYTES, file};

/// The names of Fashion-MNIST's classes, as its authors give them.
pub(super) const FASHION_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// The 10,000 test digits, inside the program (see `embedded/README.md`).
static TEST_IMAGES: &[u8] = include_bytes!("../../embedded/t10k-images-idx3-ubyte.gz");
static TEST_LABELS: &[u8] = include_bytes!("../../embedded/t10k-labels-idx1-ubyte.gz");
/// BLAKE3 of their unpacked data, so that planning unpacks nothing.
const TEST_IMAGES_DIGEST: &str = "62c9752da955a5f6cf87e8fea82fb85adea9c199f26fa8adc00d032b43aa6798";
const TEST_LABELS_DIGEST: &str = "b29e79e6a09ffb715252a3d80992b501bf8065a5bd18265b2a1f5ac5c3ff3fd2";

/// The test digits share one unpacked copy in the whole process.
static TEST: OnceLock<(Arc<Values>, Arc<Values>)> = OnceLock::new();

/// Pictures of one size, with labels where there is a file of them.
pub(super) struct Digits {
    about: About,
    images: Arc<Values>,
    labels: Option<Arc<Values>>,
}

impl Digits {
    /// MNIST's test split, from inside the program.
    pub(super) fn embedded_test() -> Result<Self, DataError> {
        let (images, labels) = TEST.get_or_init(|| {
            let values = |bytes, sizes: &[usize], name: &str, digest: &str| {
                Arc::new(Values {
                    sizes: sizes.to_vec(),
                    file: format!("embedded {name}"),
                    store: Store::Packed(Cow::Borrowed(bytes), OnceLock::new()),
                    digest: digest.parse::<Digest>().map_or_else(|_| OnceLock::new(), OnceLock::from),
                    origin: None,
                    remembered: Remembered::default(),
                })
            };
            (
                values(TEST_IMAGES, &[10_000, 28, 28], "t10k-images-idx3-ubyte.gz", TEST_IMAGES_DIGEST),
                values(TEST_LABELS, &[10_000], "t10k-labels-idx1-ubyte.gz", TEST_LABELS_DIGEST),
            )
        });
        Self::new("mnist/test", images.clone(), Some(labels.clone()), Some(digit_names()))
    }

    /// From files on disk, plain or gzip. Without `classes` they are called by their numbers.
    pub(super) fn open(
        name: &str,
        images: &Path,
        labels: Option<&Path>,
        classes: Option<Vec<String>>,
        remembered: &Remembered,
    ) -> Result<Self, DataError> {
        let open = |path| Values::open(path, remembered).map(Arc::new);
        Self::new(name, open(images)?, labels.map(open).transpose()?, classes)
    }

    fn new(
        name: &str,
        images: Arc<Values>,
        labels: Option<Arc<Values>>,
        classes: Option<Vec<String>>,
    ) -> Result<Self, DataError> {
        let wrong = |message| Err(DataError::format_at(&images.file, "header", message));
        let (count, size) = match images.sizes[..] {
            [count, height, width] => (count, height * width),
            [count, height, width, channels @ (1 | 3)] => (count, height * width * channels),
            _ => return wrong(format!("sizes {:?}, expected [count, height, width]", images.sizes)),
        };
        if count == 0 || size == 0 {
            return wrong(format!("sizes {:?}: no pictures", images.sizes));
        }
        let mut columns = vec![Column::new(IMAGE, ColumnType::Image)];
        let mut names = None;
        if let Some(labels) = &labels {
            if labels.sizes != [count] {
                let message = format!("sizes {:?}, but {} holds {count} pictures", labels.sizes, images.file);
                return Err(DataError::format_at(&labels.file, "header", message));
            }
            columns.push(Column::new(LABEL, ColumnType::Label));
            names = match classes {
                Some(classes) => Some(classes),
                None => {
                    let largest = labels.range(0..count)?.iter().max().copied().unwrap_or(0);
                    Some((0..=largest).map(|label| label.to_string()).collect())
                }
            };
        }
        let layout = Layout::new(std::iter::repeat_n(size as u64, count));
        let about = About { name: name.to_owned(), schema: Schema::new(columns), classes: names, layout };
        Ok(Self { about, images, labels })
    }

    fn images(&self, rows: &Range<usize>) -> Result<ImagesBuilder, DataError> {
        let (height, width, channels) = match self.images.sizes[..] {
            [_, height, width] => (height, width, 1),
            [_, height, width, channels] => (height, width, channels),
            _ => return Err(DataError::format(&self.images.file, "not pictures")),
        };
        let size = height * width * channels;
        let bytes = self.images.range(rows.start * size..rows.end * size)?;
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        for data in bytes.chunks_exact(size) {
            images.push(ImageRef::Pixels { height, width, channels, data }).map_err(batch_error)?;
        }
        Ok(images)
    }

    fn labels(&self, labels: &Values, rows: &Range<usize>) -> Result<Vec<i64>, DataError> {
        let classes = self.about.classes.as_ref().map_or(0, Vec::len);
        let bytes = labels.range(rows.clone())?;
        let checked = bytes.iter().zip(rows.clone()).map(|(&label, row)| match usize::from(label) < classes {
            true => Ok(i64::from(label)),
            false => {
                let message = format!("label {label}, but there are {classes} classes");
                Err(DataError::format_at(&labels.file, format!("row {row}"), message))
            }
        });
        checked.collect()
    }
}

/// MNIST's classes are called by their numerals, which its usual prompt (`a photo of the number: "{}".`) expects.
pub(super) fn digit_names() -> Vec<String> {
    (0..10).map(|digit| digit.to_string()).collect()
}

impl Table for Digits {
    fn about(&self) -> &About {
        &self.about
    }

    fn batch(&self, rows: Range<usize>, wanted: &dyn Fn(&str) -> bool) -> Result<Batch, DataError> {
        let mut batch = Batch::new(rows.clone().map(|row| numbered(&self.about.name, row)).collect());
        if wanted(IMAGE) {
            batch = batch.with(IMAGE, ColumnData::Images(self.images(&rows)?)).map_err(batch_error)?;
        }
        if let Some(labels) = self.labels.as_ref().filter(|_| wanted(LABEL)) {
            batch = batch.with(LABEL, ColumnData::Labels(self.labels(labels, &rows)?)).map_err(batch_error)?;
        }
        Ok(batch)
    }

    fn keys(&self, rows: Range<usize>) -> Result<(Digest, BTreeMap<String, Digest>), DataError> {
        let key = |values: &Values| -> Result<Digest, DataError> {
            let bound = |row: usize| (row as u64).to_le_bytes();
            let whole = KeyHasher::new("idx-rows/1").digest("file", &values.digest()?);
            Ok(whole.part("start", &bound(rows.start)).part("end", &bound(rows.end)).finish())
        };
        let mut columns = BTreeMap::from([(IMAGE.to_owned(), key(&self.images)?)]);
        if let Some(labels) = &self.labels {
            columns.insert(LABEL.to_owned(), key(labels)?);
        }
        Ok((numbered_key(&self.about.name, &rows), columns))
    }
}

/// The values of an IDX file, wherever they are.
struct Values {
    sizes: Vec<usize>,
    /// For messages.
    file: String,
    store: Store,
    /// Of the unpacked data, sizes included: the same for plain and packed files.
    digest: OnceLock<Digest>,
    /// The file, as it was when it was opened.
    origin: Option<(PathBuf, FileStamp)>,
    remembered: Remembered,
}

/// The part of a file that [`Values::digest`] is of.
const DATA: &str = "idx data/1";

enum Store {
    /// A plain file: ranges are read from it.
    Plain(PathBuf, u64),
    /// Gzip: unpacked once, whole, when first needed.
    Packed(Cow<'static, [u8]>, OnceLock<Vec<u8>>),
}

impl Values {
    fn open(path: &Path, remembered: &Remembered) -> Result<Self, DataError> {
        let stamp = FileStamp::of(path).map_err(DataError::io("read", path))?;
        let name = path.display().to_string();
        let mut file = File::open(path).map_err(DataError::io("read", path))?;
        let mut start = [0; 20];
        let length = fill(&mut file, &mut start).map_err(DataError::io("read", path))?;
        let (sizes, store) = if is_gzip(&start[..length]) {
            let bytes = file::read(path, MOST_BYTES).map_err(DataError::io("read", path))?;
            let idx = read_idx(&bytes, &name)?;
            (idx.sizes, Store::Packed(Cow::Borrowed(&[]), OnceLock::from(idx.data)))
        } else {
            let (sizes, offset) = header(&start[..length], &name)?;
            let found = file.metadata().map_err(DataError::io("read", path))?.len();
            let expected = sizes.iter().map(|&size| size as u64).product();
            check_length(&sizes, found.saturating_sub(offset as u64), expected, &name)?;
            (sizes, Store::Plain(path.to_owned(), offset as u64))
        };
        let origin = stamp.map(|stamp| (path.to_owned(), stamp));
        Ok(Self { sizes, file: name, store, digest: OnceLock::new(), origin, remembered: remembered.clone() })
    }

    /// Bytes of the data.
    fn range(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>, DataError> {
        match &self.store {
            Store::Plain(path, offset) => {
                let mut file = File::open(path).map_err(DataError::io("read", path))?;
                let mut bytes = vec![0; range.len()];
                file.seek(SeekFrom::Start(offset + range.start as u64))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(DataError::io("read", path))?;
                Ok(Cow::Owned(bytes))
            }
            Store::Packed(packed, unpacked) => {
                let data = match unpacked.get() {
                    Some(data) => data,
                    None => {
                        let idx = read_idx(packed, &self.file)?;
                        unpacked.get_or_init(|| idx.data)
                    }
                };
                let bytes = data.get(range.clone());
                let bytes = bytes.ok_or_else(|| DataError::format(&self.file, format!("holds no bytes {range:?}")))?;
                Ok(Cow::Borrowed(bytes))
            }
        }
    }

    fn digest(&self) -> Result<Digest, DataError> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let part = [DATA.to_owned()];
        if let Some((_, stamp)) = &self.origin
            && let Some([digest]) = self.remembered.parts(stamp, &part).as_deref()
        {
            return Ok(*self.digest.get_or_init(|| *digest));
        }
        let mut hasher = blake3::Hasher::new();
        for size in &self.sizes {
            hasher.update(&(*size as u64).to_le_bytes());
        }
        let total: usize = self.sizes.iter().product();
        for start in (0..total).step_by(1 << 20) {
            hasher.update(&self.range(start..total.min(start + (1 << 20)))?);
        }
        let digest = *self.digest.get_or_init(|| hasher.finalize().into());
        if let Some((path, stamp)) = &self.origin {
            self.remembered.keep(stamp, path, part.map(|part| (part, digest)));
        }
        Ok(digest)
    }
}

/// The images and labels of a split among the files of a folder, plain or packed.
pub(super) fn find_split(folder: &Path, split: &str) -> Option<(PathBuf, PathBuf)> {
    let stem = match split {
        "test" => "t10k",
        other => other,
    };
    let find = |what: &str| {
        let names = [format!("{stem}-{what}-ubyte"), format!("{stem}-{}-ubyte", what.replacen("-idx", ".idx", 1))];
        let candidates = names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]);
        candidates.into_iter().find(|path| path.is_file())
    };
    Some((find("images-idx3")?, find("labels-idx1")?))
}

/// Whether a file is named as IDX files are.
pub(super) fn idx_role(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    (name.ends_with("idx3-ubyte") || name.ends_with(".idx3") || name.ends_with("idx4-ubyte")).then_some(name)
}

/// The labels of an images file: the same name with `labels` and `idx1`.
pub(super) fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?.replace("images", "labels").replace("idx3", "idx1");
    let plain = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
    let packed = format!("{plain}.gz");
    [plain, packed].into_iter().map(|name| images.with_file_name(name)).find(|path| path != images && path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_digits_have_the_digests_that_keys_are_made_of() {
        let digits = Digits::embedded_test().unwrap();
        let fresh = |values: &Values| {
            let store = Store::Packed(Cow::Owned(values.range(0..0).map(|_| Vec::new()).unwrap()), OnceLock::new());
            let data = values.range(0..values.sizes.iter().product()).unwrap().into_owned();
            let Store::Packed(_, cell) = &store else { unreachable!() };
            cell.set(data).unwrap();
            let remembered = Remembered::default();
            let (sizes, file, digest) = (values.sizes.clone(), String::new(), OnceLock::new());
            Values { sizes, file, store, digest, origin: None, remembered }.digest().unwrap()
        };
        assert_eq!(fresh(&digits.images).to_string(), TEST_IMAGES_DIGEST);
        assert_eq!(fresh(digits.labels.as_ref().unwrap()).to_string(), TEST_LABELS_DIGEST);
    }
}
