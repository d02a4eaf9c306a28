//! Which class each validation picture shows, from the files that people have for it.

use std::collections::HashMap;

use runner_contract::{Digest, KeyHasher};

use super::{
    super::{place::Place, tar::Members},
    label_of, matlab,
};
use crate::DataError;

/// Most bytes of a file of labels.
const MOST_BYTES: u64 = 64 << 20;
/// Most pictures, and thus the largest number in a picture's name that is believed.
const MOST_PICTURES: usize = 10_000_000;
/// What the names of validation pictures begin with.
const PREFIX: &str = "ILSVRC2012_val_";

/// Labels in the order of the development kit's own ids: 1 to 1,000, which is not the order of the synsets.
const DEVKIT: &str = "ILSVRC2012_validation_ground_truth.txt";
/// A synset a line.
const SYNSETS: &str = "imagenet_2012_validation_synset_labels.txt";
/// `ImageId,PredictionString`: the synset, then boxes.
const SOLUTION: &str = "LOC_val_solution.csv";
/// `ILSVRC2012_val_00000001.JPEG 65`
const LIST: &str = "val.txt";

/// The label of each validation picture.
pub(in super::super) struct Truth {
    /// By the number in the picture's name, from 1.
    labels: Vec<Option<u16>>,
    /// Where it was found.
    pub(in super::super) file: String,
    /// Of the labels.
    pub(in super::super) digest: Digest,
}

/// The number in a validation picture's name: `…/ILSVRC2012_val_00000293.JPEG`, with or without an extension.
pub(in super::super) fn number_of(path: &str) -> Option<usize> {
    let name = path.rsplit('/').next()?;
    let digits = name.strip_prefix(PREFIX)?;
    let digits = digits.split(['.', '_']).next()?;
    (digits.len() == 8).then(|| digits.parse().ok()).flatten().filter(|number| *number > 0)
}

impl Truth {
    /// Looks for labels in a folder: in it, and where the development kit is unpacked or packed beside it.
    pub(in super::super) fn find(folder: &Place) -> Result<Option<Self>, DataError> {
        let kit = ["", "data/", "devkit/data/", "ILSVRC2012_devkit_t12/data/"];
        for below in kit {
            let place = |name: &str| folder.join(&format!("{below}{name}"));
            if let Some(text) = text(&place(DEVKIT))? {
                let classes = match text_of_classes(&|name| text_bytes(&place(name)))? {
                    Some(classes) => classes,
                    None => return Err(no_classes(&place(DEVKIT).to_string())),
                };
                return Self::by_id(&text, &classes, &place(DEVKIT).to_string()).map(Some);
            }
            for (name, read) in
                [(SYNSETS, Self::by_synset as fn(&str, &str) -> _), (SOLUTION, Self::by_name), (LIST, Self::by_name)]
            {
                if let Some(text) = text(&place(name))? {
                    return read(&text, &place(name).to_string()).map(Some);
                }
            }
        }
        for name in ["ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar"] {
            let place = folder.join(name);
            if place.file()?.is_some() {
                return Self::packed(&place).map(Some);
            }
        }
        Ok(None)
    }

    /// From the development kit as it is published.
    fn packed(kit: &Place) -> Result<Self, DataError> {
        let Some(entry) = kit.file()? else { return Err(kit.failed("no such file")) };
        let input = kit.open(&entry, 0)?;
        let file = kit.to_string();
        let mut members = match file.ends_with(".gz") {
            true => {
                let input = std::io::BufReader::new(input);
                Members::new(Box::new(flate2::bufread::MultiGzDecoder::new(input)), &file, 0, None)
            }
            false => Members::new(input, &file, 0, Some(entry.size)),
        };
        let mut found: HashMap<&str, Vec<u8>> = HashMap::new();
        while let Some(member) = members.next()? {
            let wanted = [DEVKIT, META, MAP].into_iter().find(|name| member.name.ends_with(&format!("data/{name}")));
            if let Some(name) = wanted {
                found.insert(name, members.read(&member, MOST_BYTES)?);
            }
        }
        let Some(labels) = found.get(DEVKIT) else {
            return Err(kit.failed(format!("no data/{DEVKIT} in it")));
        };
        let classes = text_of_classes(&|name| Ok(found.get(name).cloned()))?;
        let classes = classes.ok_or_else(|| no_classes(&file))?;
        Self::by_id(&String::from_utf8_lossy(labels), &classes, &format!("{DEVKIT} in {file}"))
    }

    /// A line a picture: an id of the development kit. `classes` has the label of each id.
    fn by_id(text: &str, classes: &HashMap<usize, usize>, file: &str) -> Result<Self, DataError> {
        Self::by_line(text, file, |line| {
            let id = line.parse::<usize>().map_err(|_| format!("`{line}`, expected an id from 1 to 1000"))?;
            classes.get(&id).copied().ok_or_else(|| format!("id {id} is of no class"))
        })
    }

    /// A line a picture: a synset.
    fn by_synset(text: &str, file: &str) -> Result<Self, DataError> {
        Self::by_line(text, file, |line| label_of(line).ok_or_else(|| format!("`{line}` is no synset of ImageNet")))
    }

    fn by_line(text: &str, file: &str, label: impl Fn(&str) -> Result<usize, String>) -> Result<Self, DataError> {
        let mut labels = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let label = label(line.trim());
            let label = label.map_err(|message| DataError::format_at(file, format!("line {}", number + 1), message))?;
            labels.push(u16::try_from(label).ok());
        }
        Self::new(labels, file)
    }

    /// A line a picture: its name, and a label from 0 or a synset.
    fn by_name(text: &str, file: &str) -> Result<Self, DataError> {
        let mut labels: Vec<Option<u16>> = Vec::new();
        for (line, content) in text.lines().enumerate() {
            let content = content.trim().trim_start_matches('\u{FEFF}');
            if content.is_empty() || content.starts_with("ImageId") {
                continue;
            }
            let wrong = |message: String| DataError::format_at(file, format!("line {}", line + 1), message);
            let mut words = content.split([',', ' ', '\t']).filter(|word| !word.is_empty());
            let (name, label) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let number = number_of(name).filter(|number| *number <= MOST_PICTURES);
            let number = number.ok_or_else(|| wrong(format!("`{name}`, expected a name such as {PREFIX}00000001")))?;
            let label = label_of(label).or_else(|| label.parse().ok()).filter(|label| *label < 1000);
            let label =
                label.ok_or_else(|| wrong("expected a synset or a label from 0 to 999 behind the name".into()))?;
            if labels.len() < number {
                labels.resize(number, None);
            }
            if let Some(place) = labels.get_mut(number - 1) {
                *place = u16::try_from(label).ok();
            }
        }
        Self::new(labels, file)
    }

    fn new(labels: Vec<Option<u16>>, file: &str) -> Result<Self, DataError> {
        if labels.is_empty() {
            return Err(DataError::format(file, "no labels in it"));
        }
        let bytes: Vec<u8> = labels.iter().flat_map(|label| label.unwrap_or(u16::MAX).to_le_bytes()).collect();
        let digest = KeyHasher::new("ground-truth/1").part("labels", &bytes).finish();
        Ok(Self { labels, file: file.to_owned(), digest })
    }

    /// The label of a picture of this name.
    pub(in super::super) fn of(&self, name: &str) -> Result<usize, String> {
        let number = number_of(name).ok_or_else(|| {
            format!("`{name}` is not called as validation pictures are ({PREFIX}00000001): its label is not known")
        })?;
        let label = number.checked_sub(1).and_then(|at| self.labels.get(at)).copied().flatten();
        label.map(usize::from).ok_or_else(|| format!("{} has no label for picture {number}", self.file))
    }
}

/// The ids of the development kit: a MATLAB file, or a table of text.
const META: &str = "meta.mat";
/// `n02119789 1 kit_fox`
const MAP: &str = "map_clsloc.txt";

fn no_classes(file: &str) -> DataError {
    DataError::format(
        file,
        format!("its ids mean nothing without {META} or {MAP}, which the development kit has beside it: put one there"),
    )
}

/// What `read` gives for a file of the development kit: its content, if it is there.
type Content = Result<Option<Vec<u8>>, DataError>;

/// The label of each id of the development kit.
fn text_of_classes(read: &dyn Fn(&str) -> Content) -> Result<Option<HashMap<usize, usize>>, DataError> {
    let pairs: Vec<(usize, String)> = if let Some(bytes) = read(META)? {
        matlab::synsets(&bytes).map_err(|message| DataError::format(META, message))?
    } else if let Some(bytes) = read(MAP)? {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let synset = words.next()?.to_owned();
            Some((words.next()?.parse().ok()?, synset))
        };
        text.lines().filter_map(line).collect()
    } else {
        return Ok(None);
    };
    Ok(Some(pairs.into_iter().filter_map(|(id, synset)| Some((id, label_of(&synset)?))).collect()))
}

fn text_bytes(place: &Place) -> Content {
    if place.file()?.is_none() {
        return Ok(None);
    }
    place.read(MOST_BYTES).map(Some)
}

fn text(place: &Place) -> Result<Option<String>, DataError> {
    if place.file()?.is_none() {
        return Ok(None);
    }
    place.read_text(MOST_BYTES).map(Some)
}
