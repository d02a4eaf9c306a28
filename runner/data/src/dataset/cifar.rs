//! CIFAR-10 and CIFAR-100 in their binary version: records of labels and 32×32 planes of red, green and blue.
//!
//! Format: <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::{collections::BTreeMap, ops::Range, sync::OnceLock};

use rayon::prelude::*;
use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, ImageForm, ImageRef, ImagesBuilder, KeyHasher, Schema,
};

use super::{
    About, IMAGE, LABEL, Table, batch_error,
    layout::Layout,
    memory::Remembered,
    numbered, numbered_key,
    place::{Entry, Place},
};
use crate::DataError;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// CIFAR-100's 20 groups of classes, as a column.
const COARSE: &str = "coarse_label";
/// Most bytes of a file of names.
const MOST_NAMES: u64 = 1 << 20;
const CLASSES_10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The files of a split.
pub(super) struct Files {
    parts: Vec<(Place, Entry)>,
    /// Labels in front of a record's pixels: 1, or 2 of which the second counts.
    labels: usize,
    names: Option<Place>,
}

impl Files {
    /// Looks for a split, `train` or `test`, in a folder, or in the one that the published archive unpacks to.
    pub(super) fn find(folder: &Place, split: &str) -> Result<Option<Self>, DataError> {
        let ten: &[&str] = match split {
            "train" => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            "test" => &["test_batch.bin"],
            _ => return Ok(None),
        };
        let hundred = format!("{split}.bin");
        let ways: [(&str, &str, usize, &[&str]); 4] = [
            ("", "batches.meta.txt", 1, ten),
            ("cifar-10-batches-bin/", "batches.meta.txt", 1, ten),
            ("", "fine_label_names.txt", 2, &[&hundred]),
            ("cifar-100-binary/", "fine_label_names.txt", 2, &[&hundred]),
        ];
        let children = folder.children()?;
        for (below, names, labels, parts) in ways {
            // Other datasets, too, call a file test.bin.
            let here = match below.strip_suffix('/') {
                Some(inner) => children.folders.iter().any(|name| name == inner),
                None if labels == 2 => children.files.iter().any(|name| name == names),
                None => parts.first().is_some_and(|part| children.files.iter().any(|name| name == part)),
            };
            if !here {
                continue;
            }
            let mut found = Vec::new();
            for part in parts {
                let place = folder.join(&format!("{below}{part}"));
                let entry =
                    place.file()?.ok_or_else(|| place.failed("no such file, but others of its split are there"))?;
                found.push((place, entry));
            }
            let names = Some(folder.join(&format!("{below}{names}")));
            let names = match names {
                Some(names) => names.file()?.map(|_| names),
                None => None,
            };
            return Ok(Some(Self { parts: found, labels, names }));
        }
        Ok(None)
    }
}

/// Rows of a split.
pub(super) struct Cifar {
    about: About,
    parts: Vec<Part>,
    labels: usize,
    remembered: Remembered,
}

struct Part {
    place: Place,
    entry: Entry,
    /// Its rows among all.
    rows: Range<usize>,
    digest: OnceLock<Digest>,
}

impl Cifar {
    pub(super) fn open(name: &str, files: &Files, remembered: &Remembered) -> Result<(Self, String), DataError> {
        let record = files.labels + 3 * PLANE;
        let mut parts: Vec<Part> = Vec::new();
        for (place, entry) in &files.parts {
            if entry.size == 0 || entry.size % record as u64 != 0 {
                let message = format!(
                    "{} bytes are no number of records of {record} bytes: it is cut off or something else",
                    entry.size
                );
                return Err(place.failed(message));
            }
            let start = parts.last().map_or(0, |part| part.rows.end);
            let rows = start..start + (entry.size / record as u64) as usize;
            parts.push(Part { place: place.clone(), entry: entry.clone(), rows, digest: OnceLock::new() });
        }
        let classes = match &files.names {
            Some(place) => {
                let text = place.read_text(MOST_NAMES)?;
                text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
            }
            None if files.labels == 1 => CLASSES_10.map(str::to_owned).to_vec(),
            None => (0..100).map(|label| label.to_string()).collect(),
        };
        let mut columns = vec![Column::new(IMAGE, ColumnType::Image), Column::new(LABEL, ColumnType::Label)];
        columns.extend((files.labels == 2).then(|| Column::new(COARSE, ColumnType::Integer)));
        let layout = Layout::new(std::iter::repeat_n(3 * PLANE as u64, parts.last().map_or(0, |part| part.rows.end)));
        let about = About { name: name.to_owned(), schema: Schema::new(columns), classes: Some(classes), layout };
        let kind = if files.labels == 1 { "CIFAR-10" } else { "CIFAR-100" };
        let what = format!(
            "{kind}, binary version, {} of it",
            match parts.len() {
                1 => "one file".to_owned(),
                n => format!("{n} files"),
            }
        );
        Ok((Self { about, parts, labels: files.labels, remembered: remembered.clone() }, what))
    }

    /// The parts that hold some of these rows, with the rows counted from the part's first.
    fn within(&self, rows: &Range<usize>) -> impl Iterator<Item = (&Part, Range<usize>)> {
        let rows = rows.clone();
        self.parts.iter().filter_map(move |part| {
            let (start, end) = (rows.start.max(part.rows.start), rows.end.min(part.rows.end));
            (start < end).then(|| (part, start - part.rows.start..end - part.rows.start))
        })
    }

    /// Records of these rows, one after the other.
    fn records(&self, rows: &Range<usize>) -> Result<Vec<u8>, DataError> {
        let record = (self.labels + 3 * PLANE) as u64;
        let mut bytes = Vec::new();
        for (part, rows) in self.within(rows) {
            let range = rows.start as u64 * record..rows.end as u64 * record;
            bytes.extend(part.place.read_range(&part.entry, range)?);
        }
        Ok(bytes)
    }
}

impl Table for Cifar {
    fn about(&self) -> &About {
        &self.about
    }

    fn batch(&self, rows: Range<usize>, wanted: &dyn Fn(&str) -> bool) -> Result<Batch, DataError> {
        let bytes = self.records(&rows)?;
        let records = || bytes.chunks_exact(self.labels + 3 * PLANE);
        let mut batch = Batch::new(rows.clone().map(|row| numbered(&self.about.name, row)).collect());
        if wanted(IMAGE) {
            let mut images = ImagesBuilder::new(ImageForm::Pixels);
            for record in records() {
                let planes = &record[self.labels..];
                let data: Vec<u8> = (0..3 * PLANE).map(|i| planes[i % 3 * PLANE + i / 3]).collect();
                let pixels = ImageRef::Pixels { height: SIDE, width: SIDE, channels: 3, data: &data };
                images.push(pixels).map_err(batch_error)?;
            }
            batch = batch.with(IMAGE, ColumnData::Images(images)).map_err(batch_error)?;
        }
        if wanted(LABEL) {
            let classes = self.about.classes.as_ref().map_or(0, Vec::len);
            let mut labels = Vec::with_capacity(rows.len());
            for (record, row) in records().zip(rows) {
                let label = record[self.labels - 1];
                if usize::from(label) >= classes {
                    let part = self.parts.iter().find(|part| part.rows.contains(&row));
                    let file = part.map(|part| part.place.to_string()).unwrap_or_default();
                    let message = format!("label {label}, but there are {classes} classes");
                    return Err(DataError::format_at(file, format!("row {row}"), message));
                }
                labels.push(i64::from(label));
            }
            batch = batch.with(LABEL, ColumnData::Labels(labels)).map_err(batch_error)?;
        }
        if self.labels == 2 && wanted(COARSE) {
            let labels = records().map(|record| i64::from(record[0])).collect();
            batch = batch.with(COARSE, ColumnData::Integers(labels)).map_err(batch_error)?;
        }
        Ok(batch)
    }

    fn keys(&self, rows: Range<usize>) -> Result<(Digest, BTreeMap<String, Digest>), DataError> {
        let digests: Vec<(Digest, Range<usize>)> = self
            .within(&rows)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|(part, rows)| Ok((part.digest(&self.remembered)?, rows)))
            .collect::<Result<_, DataError>>()?;
        let key = |column: &str| {
            let mut key = KeyHasher::new("cifar-rows/1").part("column", column.as_bytes());
            for (digest, rows) in &digests {
                let bound = |row: usize| (row as u64).to_le_bytes();
                key = key.digest("file", digest).part("start", &bound(rows.start)).part("end", &bound(rows.end));
            }
            key.finish()
        };
        let columns = self.about.schema.columns.iter().map(|column| (column.name.clone(), key(&column.name)));
        Ok((numbered_key(&self.about.name, &rows), columns.collect()))
    }
}

impl Part {
    fn digest(&self, remembered: &Remembered) -> Result<Digest, DataError> {
        match self.digest.get() {
            Some(digest) => Ok(*digest),
            None => {
                let digest = self.place.digest(&self.entry, remembered)?;
                Ok(*self.digest.get_or_init(|| digest))
            }
        }
    }
}
