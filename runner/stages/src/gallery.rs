//! `gallery`: pictures side by side with what the rows say about them, as one PNG.

use std::collections::BTreeMap;

use runner_contract::{
    Access, Accumulator, Batch, Column, ColumnData, ColumnType, Context, File, Fold, Input, Inputs, KindInfo, Need,
    Outcome, PortKind, Problem, Shape, Stage, StageError,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
    pictures::{Grid, Picture, Tile, grouped},
};

/// The most pictures that fit into one that a person looks at.
const MOST: usize = 400;

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The column with the pictures. Left out: `image`.
    #[serde(default = "image")]
    column: String,
    /// One or two columns whose values stand below each picture: texts, labels, numbers.
    #[serde(default)]
    captions: Vec<String>,
    /// What stands above all. Left out: nothing.
    #[serde(default)]
    title: String,
    /// How many pictures are shown: the first ones, at most 400.
    #[serde(default = "most")]
    #[schemars(range(min = 1, max = 400))]
    most: usize,
}

fn image() -> String {
    "image".into()
}

fn most() -> usize {
    64
}

struct Gallery;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Gallery)
}

impl Definition for Gallery {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "gallery",
            version: 1,
            summary: "pictures side by side with what the rows say about them, as a PNG",
            shape: Shape::Fold,
            inputs: const { &[input("rows", PortKind::Rows, "rows with a picture")] },
            outputs: const { &[output("rows", "the rows shown: `caption`")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        binding.column("rows", &settings.column, "pictures", |kind| *kind == ColumnType::Image);
        for caption in settings.captions.iter().filter(|caption| *caption != runner_contract::ID) {
            binding.column("rows", caption, "text, a label or a number", is_caption);
        }
        if settings.captions.len() > 2 {
            binding.problem(Problem::setting("captions", "there is room for two lines"));
        }
        if !(1..=MOST).contains(&settings.most) {
            binding.problem(Problem::setting("most", format!("expected 1 to {MOST}")));
        }
        binding.gives("rows", [Column::new("caption", ColumnType::Text)]);
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Fold(Box::new(Drawing(settings))))
    }
}

fn is_caption(kind: &ColumnType) -> bool {
    matches!(kind, ColumnType::Text | ColumnType::Label | ColumnType::Integer | ColumnType::Number)
}

struct Drawing(Settings);

/// The first rows of a shard, and how many there are.
#[derive(Default, Deserialize, Serialize)]
struct Shown {
    /// Ids and the lines below the pictures.
    rows: Vec<(String, Vec<String>)>,
    /// Rows in all.
    n: u64,
}

impl Fold for Drawing {
    fn start(&self, _: &Context) -> Result<Box<dyn Accumulator>, StageError> {
        Ok(Box::new(Taking { settings: self.0.clone(), shown: Shown::default() }))
    }

    fn merge(&self, context: &Context, partials: Vec<Vec<u8>>, access: &dyn Access) -> Result<Outcome, StageError> {
        let mut all = Shown::default();
        for partial in &partials {
            let shown: Shown = serde_json::from_slice(partial)
                .map_err(|error| StageError::because("a partial of `gallery`", error))?;
            all.n += shown.n;
            all.rows.extend(shown.rows);
            all.rows.truncate(self.0.most);
        }
        context.check()?;
        let ids: Vec<_> = all.rows.iter().map(|(id, _)| id.clone()).collect();
        let mut outcome = Outcome::default();
        if !ids.is_empty() {
            let pictures = access.rows("rows")?.fetch(&ids, &[Need::pixels(&self.0.column)])?;
            let name = "gallery.png".to_owned();
            outcome.files.push(File { name, bytes: self.grid(&all, &pictures)?.png()? });
        }
        let captions = all.rows.into_iter().map(|(_, lines)| lines.join(", ")).collect();
        outcome.rows.insert("rows".to_owned(), Batch::new(ids).with("caption", ColumnData::Text(captions))?);
        Ok(outcome)
    }
}

impl Drawing {
    fn grid(&self, shown: &Shown, pictures: &Batch) -> Result<Grid, StageError> {
        let (ids, images) = (pictures.ids()?, pictures.images(&self.0.column)?);
        let places: BTreeMap<_, _> = ids.iter().flatten().zip(&images).collect();
        let tile = |(id, lines): &(String, Vec<String>)| {
            let line = |i: usize| lines.get(i).cloned().unwrap_or_default();
            Tile::new(**places.get(id.as_str())?, line(0), line(1))
        };
        let tiles: Vec<_> = shown.rows.iter().filter_map(tile).collect();
        let subtitle = format!("{} of {}", grouped(tiles.len() as u64), grouped(shown.n));
        Ok(Grid { title: self.0.title.clone(), subtitle, tiles })
    }
}

struct Taking {
    settings: Settings,
    shown: Shown,
}

impl Accumulator for Taking {
    fn push(&mut self, inputs: &Inputs) -> Result<(), StageError> {
        let rows = crate::port(inputs, "rows")?;
        self.shown.n += rows.len() as u64;
        let more = rows.slice(0, rows.len().min(self.settings.most - self.shown.rows.len()));
        let columns = self.settings.captions.iter().map(|column| lines(&more, column));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for (i, id) in more.ids()?.iter().flatten().enumerate() {
            let own = columns.iter().filter_map(|column| column.get(i).cloned()).collect();
            self.shown.rows.push((id.to_owned(), own));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, StageError> {
        serde_json::to_vec(&self.shown).map_err(|error| StageError::because("a partial of `gallery`", error))
    }
}

/// A column's values for people.
fn lines(rows: &Batch, column: &str) -> Result<Vec<String>, StageError> {
    Ok(match rows.kind(column) {
        Some(ColumnType::Number) => rows.numbers(column)?.iter().map(|value| format!("{value:.3}")).collect(),
        Some(ColumnType::Label | ColumnType::Integer) => {
            rows.integers(column)?.iter().map(|value| value.to_string()).collect()
        }
        _ => rows.text(column)?.iter().map(|text| text.unwrap_or_default().to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use runner_contract::{ImageForm, ImageRef, ImagesBuilder};
    use serde_json::json;

    use super::*;
    use crate::testing::{fold, problems, rows};

    fn shard(name: &str, n: usize) -> Batch {
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        for _ in 0..n {
            images.push(ImageRef::Pixels { height: 2, width: 3, channels: 1, data: &[9; 6] }).unwrap();
        }
        Batch::new((0..n).map(|i| format!("{name}{i}")).collect())
            .with("image", ColumnData::Images(images))
            .unwrap()
            .with("class", ColumnData::Text(vec!["a cat".into(); n]))
            .unwrap()
            .with("confidence", ColumnData::Numbers(vec![0.51234; n]))
            .unwrap()
    }

    #[test]
    fn the_first_rows_are_shown_with_their_captions() {
        let settings = json!({"captions": ["class", "confidence"], "most": 3});
        let outcome = fold("gallery", settings, &[vec![shard("a", 2)], vec![shard("b", 4)]]).unwrap();
        assert_eq!(outcome.files[0].name, "gallery.png");
        assert!(outcome.files[0].bytes.starts_with(b"\x89PNG"));
        let shown = &outcome.rows["rows"];
        assert_eq!(shown.ids().unwrap().iter().flatten().collect::<Vec<_>>(), ["a0", "a1", "b0"]);
        assert_eq!(shown.text("caption").unwrap().value(0), "a cat, 0.512");
    }

    #[test]
    fn no_rows_give_no_picture() {
        let outcome = fold("gallery", json!({}), &[vec![shard("a", 0)]]).unwrap();
        assert!(outcome.files.is_empty());
    }

    #[test]
    fn captions_of_other_columns_are_refused() {
        let batch = shard("a", 1);
        let found = problems("gallery", json!({"captions": ["clas"]}), &rows(&[("rows", &batch)]));
        assert!(found[0].starts_with("inputs.rows: no column `clas`"), "{found:?}");
        let three = json!({"captions": ["class", "class", "class"]});
        assert_eq!(
            problems("gallery", three, &rows(&[("rows", &batch)])),
            ["with.captions: there is room for two lines"]
        );
    }
}
