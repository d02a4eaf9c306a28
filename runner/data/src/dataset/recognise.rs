//! What lies at a place: which kind of dataset, and why it is taken for that.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Dataset, Sharded, brace, cifar,
    folder::{Folder, Hints, is_picture},
    hf::HfParquet,
    imagenet::{self, Truth},
    memory::Remembered,
    mnist,
    place::{Entry, Place},
    table,
    webdataset::{Labels, WebDataset},
};
use crate::DataError;

/// What is recognised: the dataset, and a line that says what it was taken for.
pub(super) type Recognised = (Arc<dyn Dataset>, String);

/// Most bytes of a file of class names.
const MOST_NAMES: u64 = 16 << 20;

/// What is asked for.
#[derive(Clone)]
pub(super) struct Request {
    /// As the user wrote it, for messages.
    pub(super) reference: String,
    pub(super) place: Place,
    pub(super) split: Option<String>,
    /// What ids start with.
    pub(super) name: String,
    pub(super) hints: Hints,
    pub(super) remembered: Remembered,
    /// Where what was learnt of files may be kept.
    pub(super) cache: PathBuf,
}

/// The names that people have for a split, the one asked for first.
fn names_of(split: &str) -> Vec<&str> {
    let families: [&[&str]; 3] = [&["train", "training"], &["val", "validation", "valid", "dev"], &["test", "testing"]];
    let family = families.iter().find(|family| family.contains(&split)).copied().unwrap_or_default();
    std::iter::once(split).chain(family.iter().copied().filter(|name| *name != split)).collect()
}

/// Whether a folder of this name is a split rather than a class.
pub(super) fn is_split(name: &str) -> bool {
    names_of(name).len() > 1
}

/// Whether a name holds a word: `val` in `imagenet-val-000.tar`, not in `interval.tar`.
fn has_word(name: &str, word: &str) -> bool {
    name.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphabetic()).any(|part| part == word)
}

fn is_tar(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end))
}

fn is_parquet(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".parquet")
}

impl Request {
    fn wrong(&self, message: impl Into<String>) -> DataError {
        DataError::Reference { reference: self.reference.clone(), message: message.into() }
    }

    /// The same for another place, with a split that is found.
    fn at(&self, place: Place) -> Self {
        Self { place, split: None, ..self.clone() }
    }

    /// Opens what lies there.
    pub(super) fn open(&self) -> Result<Recognised, DataError> {
        let text = self.place.to_string();
        if brace::is_pattern(&text) {
            return self.pattern(&text);
        }
        if let Some(entry) = self.place.file()? {
            return self.file(&text, entry);
        }
        let children = self.place.children()?;
        if children.files.is_empty() && children.folders.is_empty() {
            let what = if matches!(&self.place, Place::Disk(path) if path.exists()) {
                "is empty: no pictures in it"
            } else {
                "does not exist"
            };
            return Err(self.wrong(format!("{text} {what}")));
        }
        match &self.split {
            Some(split) => self.split(split, &children.files, &children.folders),
            None => self.folder(&children.files, &children.folders),
        }
    }

    fn pattern(&self, text: &str) -> Result<Recognised, DataError> {
        let expanded = brace::expand(text).map_err(|message| self.wrong(message))?;
        let place = |text: &String| match &self.place {
            Place::Disk(_) => Place::Disk(text.into()),
            Place::Bucket(objects, _) => Place::Bucket(objects.clone(), text.clone()),
        };
        let places: Vec<Place> = expanded.iter().map(place).collect();
        let files = self.seen(places)?;
        match expanded.first() {
            Some(first) if is_tar(first) => self.tars(files),
            Some(first) if is_parquet(first) => self.parquets(files),
            _ => Err(self.wrong("a pattern of files that are neither .tar, .tar.gz nor .parquet")),
        }
    }

    /// The files of these names; those that are missing are an error.
    fn seen(&self, places: Vec<Place>) -> Result<Vec<(Place, Entry)>, DataError> {
        let (mut found, mut missing) = (Vec::with_capacity(places.len()), Vec::new());
        for place in places {
            match place.file()? {
                Some(entry) => found.push((place, entry)),
                None => missing.push(place.to_string()),
            }
        }
        match missing.split_first() {
            None => Ok(found),
            Some((first, [])) => Err(self.wrong(format!("{first} does not exist"))),
            Some((first, more)) => Err(self.wrong(format!(
                "{first} does not exist, nor do {} more of {}",
                more.len(),
                found.len() + more.len() + 1
            ))),
        }
    }

    fn file(&self, text: &str, entry: Entry) -> Result<Recognised, DataError> {
        if is_tar(text) {
            return self.tars(vec![(self.place.clone(), entry)]);
        }
        if is_parquet(text) {
            return self.parquets(vec![(self.place.clone(), entry)]);
        }
        let Place::Disk(path) = &self.place else {
            return Err(self.wrong("of a bucket, tar and Parquet files and folders of pictures are read"));
        };
        let extension =
            path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "csv" | "tsv" | "jsonl" | "ndjson" => {
                let table = table::open(&self.name, path, &extension, self.remembered.clone())?;
                Ok((Arc::new(Sharded::new(table)), format!("a table of rows (.{extension})")))
            }
            _ if mnist::idx_role(path).is_some() => {
                let labels = mnist::labels_beside(path);
                let digits = mnist::Digits::open(&self.name, path, labels.as_deref(), None, &self.remembered)?;
                Ok((Arc::new(Sharded::new(digits)), "IDX files, as MNIST has them".to_owned()))
            }
            _ => Err(self.wrong(format!(
                "{text} is not a dataset: expected a folder of pictures, .tar or .parquet files, a .csv, .tsv or .jsonl file, or IDX files (…-images-idx3-ubyte)"
            ))),
        }
    }

    // ------------------------------------------------------------------------------------------------------- folders

    fn folder(&self, files: &[String], folders: &[String]) -> Result<Recognised, DataError> {
        let binaries = ["train", "test"].into_iter().filter_map(|split| Some((split, self.binaries(split)?)));
        match binaries.collect::<Vec<_>>().as_slice() {
            [] => {}
            [(_, open)] => return open(),
            [_, ..] => return Err(self.which_split(&["train", "test"])),
        }
        if files.iter().any(|name| is_tar(name)) {
            let tars: Vec<&String> = files.iter().filter(|name| is_tar(name) && !name.contains("devkit")).collect();
            if !tars.is_empty() {
                return self.tars(self.seen(natural(&tars).iter().map(|name| self.place.join(name)).collect())?);
            }
        }
        if files.iter().any(|name| is_parquet(name)) {
            return self.parquets_of(files, None);
        }
        let pictures = files.iter().any(|name| is_picture(Path::new(name)));
        let splits: Vec<&str> = folders.iter().map(String::as_str).filter(|name| is_split(name)).collect();
        if !pictures && !splits.is_empty() && splits.len() == folders.len() {
            return Err(self.which_split(&splits));
        }
        if !pictures && folders.len() == 1 && folders[0] == "data" {
            let data = self.at(self.place.join("data"));
            let children = data.place.children()?;
            if children.files.iter().any(|name| is_parquet(name)) {
                return data.parquets_of(&children.files, None);
            }
        }
        self.pictures()
    }

    /// The error for a folder of splits, of which none was named.
    fn which_split(&self, splits: &[&str]) -> DataError {
        let reference = &self.reference;
        let ways = splits.iter().map(|split| format!("{reference}:{split}")).collect::<Vec<_>>().join(" or ");
        let number = match splits.len() {
            1 => "one split",
            2 => "two splits",
            _ => "splits",
        };
        self.wrong(format!("it holds {number}: write {ways}"))
    }

    fn split(&self, split: &str, files: &[String], folders: &[String]) -> Result<Recognised, DataError> {
        for name in names_of(split) {
            if let Some(open) = self.binaries(name) {
                return open();
            }
        }
        for name in names_of(split) {
            for folder in [
                name.to_owned(),
                format!("Data/CLS-LOC/{name}"),
                format!("ILSVRC/Data/CLS-LOC/{name}"),
                format!("ILSVRC2012_img_{name}"),
            ] {
                let first = folder.split('/').next().unwrap_or(name);
                if !folders.iter().any(|there| there == first) {
                    continue;
                }
                let place = self.place.join(&folder);
                let children = place.children()?;
                if !children.files.is_empty() || !children.folders.is_empty() {
                    let inner = self.at(place);
                    return inner.folder(&children.files, &children.folders);
                }
            }
            let tars: Vec<&String> = files.iter().filter(|file| is_tar(file) && has_word(file, name)).collect();
            if !tars.is_empty() {
                return self.tars(self.seen(natural(&tars).iter().map(|name| self.place.join(name)).collect())?);
            }
            if files.iter().any(|file| is_parquet(file) && has_word(file, name)) {
                return self.parquets_of(files, Some(name));
            }
            if folders.iter().any(|folder| folder == "data") {
                let data = self.at(self.place.join("data"));
                let children = data.place.children()?;
                if children.files.iter().any(|file| is_parquet(file) && has_word(file, name)) {
                    return data.parquets_of(&children.files, Some(name));
                }
            }
        }
        let there: Vec<&str> = files.iter().chain(folders).take(8).map(String::as_str).collect();
        let looked = names_of(split).into_iter().map(|name| format!("{name}/")).collect::<Vec<_>>().join(", ");
        Err(self.wrong(format!(
            "no files of that split in {}: expected a folder {looked}, IDX or CIFAR files, or tar or Parquet files with the word `{split}` in their names; there are {}",
            self.place,
            there.join(", ")
        )))
    }

    /// How to open the files of a split in a format of one file for each.
    fn binaries<'a>(&'a self, split: &'a str) -> Option<Box<dyn Fn() -> Result<Recognised, DataError> + 'a>> {
        let name = move || format!("{}/{split}", self.name);
        if let Place::Disk(folder) = &self.place
            && let Some((images, labels)) = mnist::find_split(folder, split)
        {
            return Some(Box::new(move || {
                let digits = mnist::Digits::open(&name(), &images, Some(&labels), None, &self.remembered)?;
                let stem = images.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                Ok((Arc::new(Sharded::new(digits)), format!("IDX files, as MNIST has them ({stem})")))
            }));
        }
        let found = cifar::Files::find(&self.place, split).ok().flatten()?;
        Some(Box::new(move || {
            let (dataset, what) = cifar::Cifar::open(&name(), &found, &self.remembered)?;
            Ok((Arc::new(Sharded::new(dataset)), what))
        }))
    }

    /// A folder of pictures: by class, or ImageNet's validation pictures in one folder.
    fn pictures(&self) -> Result<Recognised, DataError> {
        let listed = self.place.list()?;
        let pictures = || listed.iter().filter(|entry| is_picture(Path::new(&entry.path)));
        let flat = pictures().next().is_some() && pictures().all(|entry| !entry.path.contains('/'));
        // Beside splits there may lie what has no pictures: annotations, the development kit.
        let mut classes: Vec<&str> = pictures().filter_map(|entry| Some(entry.path.split_once('/')?.0)).collect();
        classes.dedup();
        if !flat && !classes.is_empty() && classes.iter().all(|class| is_split(class)) {
            return Err(self.which_split(&classes));
        }
        let numbered = pictures().all(|entry| imagenet::number_of(&entry.path).is_some());
        let mut hints = self.hints.clone();
        if flat && numbered {
            hints.truth = self.truth()?;
            if hints.truth.is_none() && hints.imagenet {
                return Err(self.no_truth());
            }
        }
        let mut what = match (&hints.truth, flat) {
            (Some(truth), true) => format!("ImageNet's validation pictures in one folder, labels from {}", truth.file),
            (None, true) if numbered => {
                "ImageNet's validation pictures in one folder, without labels (no ground truth beside them)".to_owned()
            }
            (_, true) => "pictures in one folder, without labels".to_owned(),
            (_, false) => "pictures in a sub-folder for each class".to_owned(),
        };
        let name = if numbered && (flat || hints.imagenet) { "imagenet/val".to_owned() } else { self.name.clone() };
        let folder = Folder::open(&name, &self.place, listed, &hints, self.remembered.clone())?;
        if !flat && super::Table::about(&folder).classes.as_deref() == Some(imagenet::imagenet_classes()) {
            what = "ImageNet: pictures in a sub-folder for each synset, with curated class names".to_owned();
        }
        Ok((Arc::new(Sharded::new(folder)), what))
    }

    // ---------------------------------------------------------------------------------------------------------- tars

    fn tars(&self, files: Vec<(Place, Entry)>) -> Result<Recognised, DataError> {
        let is_validation = files.iter().all(|(place, _)| place.stem().starts_with("ILSVRC2012_img_val"));
        let folder = files.first().and_then(|(place, _)| place.parent());
        let mut what = match files.len() {
            1 => "WebDataset: one tar file".to_owned(),
            n => format!("WebDataset: {n} tar files"),
        };
        let mut labels = Labels { classes: self.hints.classes.clone(), truth: None };
        if is_validation {
            let truth = self.truth_near(folder.as_ref())?.ok_or_else(|| self.no_truth())?;
            what = format!("ImageNet's validation pictures in a tar file, labels from {}", truth.file);
            labels = Labels { classes: Some(imagenet::imagenet_classes().to_vec()), truth: Some(truth) };
        } else if labels.classes.is_some() {
            what.push_str(", class names from settings");
        } else if let Some((names, from)) = class_names(folder.as_ref())? {
            let _ = write!(what, ", class names from {from}");
            labels.classes = Some(names);
        } else if self.hints.imagenet {
            what.push_str(", ImageNet's class names");
            labels.classes = Some(imagenet::imagenet_classes().to_vec());
        }
        let name = if is_validation { "imagenet/val" } else { &self.name };
        let dataset = WebDataset::open(name, files, labels, self.remembered.clone(), &self.cache)?;
        if dataset.schema().get(super::LABEL).is_some() && dataset.classes().is_none() {
            what.push_str(", without class names (no classnames.txt beside it, none in settings)");
        }
        Ok((Arc::new(dataset), what))
    }

    /// ImageNet's ground truth in this folder or in those above it.
    fn truth(&self) -> Result<Option<Arc<Truth>>, DataError> {
        self.truth_near(Some(&self.place))
    }

    fn truth_near(&self, place: Option<&Place>) -> Result<Option<Arc<Truth>>, DataError> {
        let mut place = place.cloned();
        // As far up as `ILSVRC/Data/CLS-LOC/val` lies below what holds the labels.
        for _ in 0..5 {
            let Some(folder) = place else { break };
            if let Some(truth) = Truth::find(&folder)? {
                return Ok(Some(Arc::new(truth)));
            }
            place = folder.parent();
        }
        Ok(None)
    }

    fn no_truth(&self) -> DataError {
        self.wrong(format!(
            "no labels for the validation pictures in or above {}: put ILSVRC2012_devkit_t12.tar.gz there, or its data/ folder \
             (ILSVRC2012_validation_ground_truth.txt with meta.mat), imagenet_2012_validation_synset_labels.txt, LOC_val_solution.csv or val.txt",
            self.place
        ))
    }

    // ------------------------------------------------------------------------------------------------------- Parquet

    fn parquets_of(&self, files: &[String], word: Option<&str>) -> Result<Recognised, DataError> {
        let all: Vec<&String> = files.iter().filter(|name| is_parquet(name)).collect();
        let splits: Vec<&str> = ["train", "validation", "val", "test"]
            .into_iter()
            .filter(|split| all.iter().any(|name| has_word(name, split)))
            .collect();
        let chosen: Vec<&String> = match word {
            Some(word) => all.into_iter().filter(|name| has_word(name, word)).collect(),
            None if splits.len() > 1 => return Err(self.which_split(&splits)),
            None => all,
        };
        self.parquets(self.seen(natural(&chosen).iter().map(|name| self.place.join(name)).collect())?)
    }

    fn parquets(&self, files: Vec<(Place, Entry)>) -> Result<Recognised, DataError> {
        let what = match files.len() {
            1 => "Parquet: one file".to_owned(),
            n => format!("Parquet: {n} files"),
        };
        let dataset = HfParquet::open(&self.name, files, self.hints.classes.clone(), self.remembered.clone())?;
        Ok((Arc::new(dataset), what))
    }
}

/// The class names beside tars: in their folder, or in the one above, as CLIP_benchmark has it.
fn class_names(folder: Option<&Place>) -> Result<Option<(Vec<String>, String)>, DataError> {
    let Some(folder) = folder else { return Ok(None) };
    for place in [Some(folder.clone()), folder.parent()].into_iter().flatten() {
        let file = place.join("classnames.txt");
        if file.file()?.is_some() {
            let text = file.read_text(MOST_NAMES)?;
            let names: Vec<String> = text.lines().map(str::trim).map(str::to_owned).collect();
            if names.is_empty() {
                return Err(file.failed("no class names in it: expected one a line"));
            }
            return Ok(Some((names, file.to_string())));
        }
    }
    Ok(None)
}

/// Names sorted as people count: `2.tar` before `10.tar`.
fn natural<'a>(names: &[&'a String]) -> Vec<&'a String> {
    fn parts(name: &str) -> Vec<(bool, u128, &str)> {
        let mut parts = Vec::new();
        let mut rest = name;
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (part, behind) = rest.split_at(end);
            parts.push((!digits, if digits { part.parse().unwrap_or(u128::MAX) } else { 0 }, part));
            rest = behind;
        }
        parts
    }
    let mut sorted = names.to_vec();
    sorted.sort_by(|a, b| parts(a).cmp(&parts(b)));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tars_are_read_in_the_order_of_their_numbers() {
        let names = ["10.tar", "2.tar", "a-9.tar", "a-10.tar", "1.tar"].map(str::to_owned);
        let sorted = natural(&names.iter().collect::<Vec<_>>()).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(sorted, ["1.tar", "2.tar", "10.tar", "a-9.tar", "a-10.tar"]);
    }

    #[test]
    fn splits_are_words_of_names() {
        assert!(has_word("imagenet-val-000.tar", "val") && has_word("validation-00000-of-00014.parquet", "validation"));
        assert!(!has_word("interval-0.tar", "val") && !has_word("medieval.tar", "val"));
        assert_eq!(names_of("validation"), ["validation", "val", "valid", "dev"]);
        assert_eq!(names_of("extra"), ["extra"]);
    }
}
