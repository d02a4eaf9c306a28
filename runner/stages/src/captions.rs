//! `captions`: varied sentences about pictures of known classes, for training.
//!
//! Every caption says what it claims, and every picture what holds of it, so that training knows which captions are true
//! of other pictures of a batch. Some class–attribute combinations are never put into words, see [`is_held_out`].

mod language;
mod measure;

use std::collections::BTreeMap;

use runner_contract::{
    Column, ColumnData, ColumnType, Context, ImageRef, Input, Inputs, KindInfo, Need, PortKind, Prepared, Problem,
    Produced, Random, Shape, Stage, StageError, Stream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use language::{HELD_OUT_TEMPLATES, Subject, is_held_out};
pub use measure::Measures;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
};

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Captions a picture.
    #[serde(default = "count")]
    count: usize,
    /// Another seed says it in other words.
    #[serde(default)]
    seed: u64,
    /// The column with the pictures.
    #[serde(default = "image")]
    column: String,
    /// Attributes that exclude each other, such as `[thick, thin]`, to evaluate combinations of class and attribute. Adds
    /// `combination`: class · attributes + attribute, as `prompts` numbers them with `label: prompt`; −1 where not
    /// exactly one attribute holds clearly. Adds `held_out`: whether training leaves this combination out.
    #[serde(default)]
    combination: Vec<String>,
}

fn count() -> usize {
    8
}

fn image() -> String {
    "image".into()
}

struct Captions;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Captions)
}

impl Definition for Captions {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "captions",
            version: 1,
            summary: "varied captions of pictures whose class is known",
            shape: Shape::Map,
            inputs: const {
                &[
                    input("rows", PortKind::Rows, "rows with a picture and its `label`"),
                    input("classes", PortKind::Whole, "the classes' names: a dataset's `classes`"),
                ]
            },
            outputs: const { &[output("rows", "`captions`, what each `claims`, and the `facts` of the picture")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let image = binding.column("rows", &settings.column, "images", |kind| *kind == ColumnType::Image);
        if image.is_some() {
            binding.reads("rows", Need::pixels(&settings.column));
        }
        binding.column("rows", "label", "label", |kind| *kind == ColumnType::Label);
        binding.column("classes", "label", "label", |kind| *kind == ColumnType::Label);
        binding.column("classes", "name", "text", |kind| *kind == ColumnType::Text);
        if !(1..=64).contains(&settings.count) {
            binding
                .problem(Problem::setting("count", format!("{} captions a picture, expected 1 to 64", settings.count)));
        }
        for (i, word) in settings.combination.iter().enumerate() {
            if !language::attributes().any(|attribute| attribute == word) {
                let known = language::attributes().collect::<Vec<_>>().join(", ");
                binding.problem(Problem {
                    path: vec!["with".into(), "combination".into(), i.to_string()],
                    message: format!("no attribute `{word}`"),
                    hint: Some(format!("there are {known}")),
                });
            }
        }
        let mut columns = vec![
            Column::new("captions", ColumnType::Texts),
            Column::new("claims", ColumnType::Texts),
            Column::new("facts", ColumnType::Texts),
        ];
        if !settings.combination.is_empty() {
            columns.push(Column::new("combination", ColumnType::Label));
            columns.push(Column::new("held_out", ColumnType::Boolean));
        }
        binding.gives("rows", columns);
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Stream(Box::new(Describe(settings))))
    }
}

/// A sentence about a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// The sentence.
    pub text: String,
    /// What it claims, see [`Described::facts`].
    pub claims: Vec<String>,
}

/// What can be said of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Sentences, some more general than others.
    pub captions: Vec<Caption>,
    /// Claims that are not false of the picture: `class:3`, `digit`, `thick`. Attributes count from a softer bound on than
    /// in captions, so that a picture near the bound is neither called thick nor held against the word.
    pub facts: Vec<String>,
}

/// Writes `count` captions of a picture of that subject. Equal arguments give equal captions.
///
/// `id` names the picture; draws are keyed by it and the seed.
pub fn describe(subject: &Subject, image: ImageRef<'_>, count: usize, seed: u64, id: &str) -> Option<Described> {
    let measures = Measures::of(image)?;
    let mut random = Random::new(seed, "captions", id);
    let captions = (0..count).map(|_| subject.caption(&measures, &mut random)).collect();
    Some(Described { captions, facts: subject.facts(&measures) })
}

struct Describe(Settings);

impl Describe {
    /// The combination's label, and whether it is held out.
    fn combination(&self, subject: &Subject, label: i64, measures: &Measures) -> (i64, bool) {
        let words = &self.0.combination;
        let holding: Vec<_> = (0i64..).zip(words).filter(|(_, word)| subject.clearly(measures, word)).collect();
        match holding.as_slice() {
            [(i, word)] => (label * words.len() as i64 + i, is_held_out(subject.name(), word)),
            _ => (-1, false),
        }
    }
}

impl Stream for Describe {
    fn apply(&self, context: &Context, inputs: &Inputs, _: Prepared) -> Result<BTreeMap<String, Produced>, StageError> {
        let rows = crate::port(inputs, "rows")?;
        let classes = context.whole("classes")?;
        let names = classes.text("name")?;
        let subjects: BTreeMap<i64, Subject> =
            classes.integers("label")?.iter().copied().zip(names.iter().flatten().map(Subject::new)).collect();
        let (ids, labels, images) = (rows.ids()?, rows.integers("label")?, rows.images(&self.0.column)?);
        let (mut captions, mut claims, mut facts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut combinations, mut held_out, mut take) = (Vec::new(), Vec::new(), Vec::new());
        let mut produced = Produced::default();
        for (i, (&label, &image)) in labels.iter().zip(&images).enumerate() {
            let id = ids.value(i);
            let subject = subjects.get(&label).ok_or_else(|| {
                StageError::new(format!("row `{id}`: label {label} is none of the {} classes", subjects.len()))
            })?;
            let Some(described) = describe(subject, image, self.0.count, self.0.seed, id) else {
                produced.bad.push((id.to_owned(), "the picture has no pixels".into()));
                continue;
            };
            if let Some(measures) = Measures::of(image) {
                let (combination, held) = self.combination(subject, label, &measures);
                combinations.push(combination);
                held_out.push(held);
            }
            claims.push(described.captions.iter().map(|caption| caption.claims.join(";")).collect());
            captions.push(described.captions.into_iter().map(|caption| caption.text).collect());
            facts.push(described.facts);
            take.push(i as u32);
        }
        produced.take = (take.len() < rows.len()).then_some(take);
        let mut produced = produced
            .column("captions", ColumnData::Texts(captions))?
            .column("claims", ColumnData::Texts(claims))?
            .column("facts", ColumnData::Texts(facts))?;
        if !self.0.combination.is_empty() {
            produced = produced
                .column("combination", ColumnData::Labels(combinations))?
                .column("held_out", ColumnData::Booleans(held_out))?;
        }
        Ok(BTreeMap::from([("rows".to_owned(), produced)]))
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::{Batch, ImageForm, ImagesBuilder};
    use serde_json::json;

    use super::*;
    use crate::testing::{problems, rows, try_apply};

    /// Two vertical strokes, one of 6 pixels, one of 1.
    fn strokes() -> Batch {
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        for wide in [6, 1] {
            let data: Vec<u8> = (0..784).map(|i| if (10..10 + wide).contains(&(i % 28)) { 255 } else { 0 }).collect();
            images.push(ImageRef::Pixels { height: 28, width: 28, channels: 1, data: &data }).unwrap();
        }
        Batch::new(vec!["a".into(), "b".into()])
            .with("image", ColumnData::Images(images))
            .unwrap()
            .with("label", ColumnData::Labels(vec![1, 0]))
            .unwrap()
    }

    fn classes() -> Batch {
        Batch::new(vec!["0".into(), "1".into()])
            .with("label", ColumnData::Labels(vec![0, 1]))
            .unwrap()
            .with("name", ColumnData::Text(vec!["0".into(), "1".into()]))
            .unwrap()
    }

    #[test]
    fn captions_depend_on_the_seed_and_the_picture_alone() {
        let with = |seed, batch| {
            let settings = json!({"seed": seed, "count": 5});
            try_apply("captions", settings, &[("rows", batch)], &[("classes", classes())]).unwrap()["rows"].clone()
        };
        let all = with(0, strokes());
        assert_eq!(all.texts("captions").unwrap()[1], with(0, strokes().slice(1, 1)).texts("captions").unwrap()[0]);
        assert_ne!(all.texts("captions").unwrap(), with(1, strokes()).texts("captions").unwrap());
        let (captions, claims) = (all.texts("captions").unwrap(), all.texts("claims").unwrap());
        assert!(captions.iter().zip(&claims).all(|(captions, claims)| captions.len() == 5 && claims.len() == 5));
        assert!(all.texts("facts").unwrap()[0].contains(&"thick".to_owned()));
    }

    #[test]
    fn combinations_are_numbered_as_prompts_are() {
        let settings = json!({"combination": ["thick", "thin"]});
        let out = try_apply("captions", settings, &[("rows", strokes())], &[("classes", classes())]).unwrap();
        // A thick 1 and a thin 0; training leaves the thin 0 out.
        assert_eq!(out["rows"].integers("combination").unwrap(), [2, 1]);
        let held_out: Vec<_> = out["rows"].booleans("held_out").unwrap().iter().flatten().collect();
        assert_eq!(held_out, [false, true]);
    }

    #[test]
    fn an_attribute_that_does_not_exist_is_named() {
        let inputs = rows(&[("rows", &strokes()), ("classes", &classes())]);
        let found = problems("captions", json!({"combination": ["thick", "thinn"]}), &inputs);
        assert!(found[0].starts_with("with.combination.1: no attribute `thinn` (there are thin, thick"), "{found:?}");
    }
}
