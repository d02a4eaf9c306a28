//! `brightness`: how bright each picture is.

use std::collections::BTreeMap;

use runner_contract::{
    Column, ColumnData, ColumnType, Context, ImageRef, Input, Inputs, KindInfo, Need, PortKind, Prepared, Produced,
    Shape, Stage, StageError, Stream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
};

/// What stands under `with:`. Doc comments become help; unknown settings are refused with a suggestion.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The column with the pictures.
    #[serde(default = "image")]
    column: String,
}

fn image() -> String {
    "image".into()
}

struct Brightness;

/// Makes the kind. `Services` offers datasets and models to kinds that need them.
pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Brightness)
}

impl Definition for Brightness {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "brightness",
            version: 1, // part of every cache key: raise it when results change
            summary: "how bright each picture is, from 0 to 1",
            shape: Shape::Map,
            inputs: const { &[input("rows", PortKind::Rows, "rows with a picture")] },
            outputs: const { &[output("rows", "`brightness`")] },
            expensive: false, // cheap to compute again, so it is not stored
            device: false,
            settings: Value::Null, // filled in from the type above
        }
    }

    /// Before anything runs: which columns are read, which come out, and what is wrong.
    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        binding.column("rows", &settings.column, "images", |kind| *kind == ColumnType::Image);
        binding.reads("rows", Need::pixels(&settings.column)); // decoded, once for all stages that ask
        binding.gives("rows", [Column::new("brightness", ColumnType::Number)]);
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Stream(Box::new(Mean(settings))))
    }
}

struct Mean(Settings);

impl Stream for Mean {
    /// One chunk of rows at a time, on any thread, in any order.
    fn apply(&self, _: &Context, inputs: &Inputs, _: Prepared) -> Result<BTreeMap<String, Produced>, StageError> {
        let rows = crate::port(inputs, "rows")?;
        let means = rows.images(&self.0.column)?.into_iter().map(mean).collect();
        let produced = Produced::default().column("brightness", ColumnData::Numbers(means))?;
        Ok(BTreeMap::from([("rows".to_owned(), produced)]))
    }
}

fn mean(image: ImageRef<'_>) -> f64 {
    let (ImageRef::Pixels { data, .. } | ImageRef::Encoded { bytes: data, .. }) = image;
    data.iter().map(|&value| f64::from(value)).sum::<f64>() / (255.0 * data.len().max(1) as f64)
}
