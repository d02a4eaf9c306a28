//! `classify`: pictures by a supervised model's own classes.

use std::{collections::BTreeMap, sync::Arc};

use runner_contract::{
    Column, ColumnData, ColumnType, Context, Input, Inputs, KindInfo, Need, PortKind, Prepared, Problem, Produced,
    Shape, Stage, StageError, Stream,
};
use runner_models::{Hub, Loaded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
    encode::{choose, downcast},
    pixels::{Buffers, Pixels},
    score::{LABELS, NAMES},
    vectors::{best, softmax},
};

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The column with the pictures. Left out: the only one, or of several `image`.
    #[serde(default)]
    column: Option<String>,
}

struct Classify {
    hub: Arc<Hub>,
}

pub(crate) fn kind(services: &Services) -> Defined<impl Definition> {
    Defined::new(Classify { hub: services.hub.clone() })
}

impl Definition for Classify {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "classify",
            version: 3,
            summary: "pictures by a supervised model's own classes",
            shape: Shape::Map,
            inputs: const {
                &[
                    input("rows", PortKind::Rows, "rows with a picture"),
                    input("model", PortKind::Model, "a classifier: a ResNet, an EfficientNet-Lite"),
                ]
            },
            outputs: const {
                &[output(
                    "rows",
                    "`scores`, the logit of each class; `prediction`, the largest, its `class` and its `confidence`, the softmax",
                )]
            },
            expensive: true,
            device: true,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let (schema, model) = (binding.schema("rows"), binding.model("model"));
        let (Some(schema), Some(model)) = (schema, model) else { return };
        if model.classes.is_none() {
            let message = format!("a {} model has no classes of its own", model.family);
            let hint = "to compare pictures with texts, `encode` both and `score` them";
            binding.problem(Problem::input("model", message).hint(hint));
            return;
        }
        match choose(settings.column.as_deref(), schema, model) {
            Ok((column, _)) => binding.reads("rows", Need::column(column)),
            Err(problem) => binding.problem(problem),
        }
        let columns = [
            ("scores", ColumnType::Scores),
            ("prediction", ColumnType::Label),
            ("class", ColumnType::Text),
            ("confidence", ColumnType::Number),
        ];
        binding.gives("rows", columns.map(|(name, kind)| Column::new(name, kind)));
    }

    fn open(&self, settings: Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let (Some(Input::Rows(schema)), Some(Input::Model(model))) = (inputs.get("rows"), inputs.get("model")) else {
            return Err(StageError::new("`classify` needs rows and a model"));
        };
        let (column, _) =
            choose(settings.column.as_deref(), schema, model).map_err(|problem| StageError::new(problem.message))?;
        let hub = self.hub.clone();
        Ok(Stage::Stream(Box::new(Classes { hub, column, inputs: Buffers::default() })))
    }
}

struct Classes {
    hub: Arc<Hub>,
    column: String,
    inputs: Buffers,
}

impl Classes {
    fn load(&self, context: &Context) -> Result<Arc<Loaded>, StageError> {
        self.hub.load_on(context.model("model")?, context.gpu).map_err(crate::stage_error)
    }
}

impl Stream for Classes {
    fn prepare(&self, context: &Context, inputs: &Inputs) -> Result<Prepared, StageError> {
        let model = self.load(context)?;
        let rows = crate::port(inputs, "rows")?;
        Ok(Box::new(self.inputs.fill(model.preprocess(), rows, &self.column, context.threads)?))
    }

    fn apply(
        &self,
        context: &Context,
        _: &Inputs,
        prepared: Prepared,
    ) -> Result<BTreeMap<String, Produced>, StageError> {
        let Pixels { values, output, n } = *downcast::<Pixels>(prepared)?;
        let model = self.load(context)?;
        let classifier = model.classifier().map_err(crate::stage_error)?;
        let names = classifier.classes();
        let scores = classifier.logits(&values, n, context.threads).map_err(crate::stage_error)?;
        self.inputs.put_back(values);
        let (mut predictions, mut classes, mut confidence) = (Vec::new(), Vec::new(), Vec::new());
        for row in scores.chunks_exact(names.len().max(1)) {
            let class = best(row).ok_or_else(|| StageError::new("the model has no classes"))?;
            let mut probabilities = row.to_vec();
            softmax(&mut probabilities);
            predictions.push(class as i64);
            classes.push(names[class].clone());
            confidence.push(f64::from(probabilities[class]));
        }
        let labels: Vec<_> = (0..names.len()).collect();
        let metadata = BTreeMap::from([
            (NAMES.to_owned(), Value::from(names).to_string()),
            (LABELS.to_owned(), Value::from(labels).to_string()),
        ]);
        let output = output
            .column_with("scores", ColumnData::Scores(scores, names.len()), metadata)?
            .column("prediction", ColumnData::Labels(predictions))?
            .column("class", ColumnData::Text(classes))?
            .column("confidence", ColumnData::Numbers(confidence))?;
        Ok(BTreeMap::from([("rows".to_owned(), output)]))
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::{Batch, Digest, ImageForm, ImageRef, ImagesBuilder, Modality, ModelInfo};
    use serde_json::json;

    use super::*;
    use crate::testing::{problems, rows};

    fn pictures() -> Batch {
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        images.push(ImageRef::Pixels { height: 1, width: 2, channels: 1, data: &[0, 255] }).unwrap();
        Batch::new(vec!["a".into()]).with("image", ColumnData::Images(images)).unwrap()
    }

    fn model(classes: Option<usize>, encodes: Vec<Modality>) -> Input {
        let family = if classes.is_some() { "torchvision_resnet" } else { "clip" };
        Input::Model(ModelInfo { identity: Digest::of(b"m"), family: family.into(), encodes, dim: Some(4), classes })
    }

    #[test]
    fn a_model_without_classes_of_its_own_is_refused() {
        let mut inputs = rows(&[("rows", &pictures())]);
        inputs.push(("model".into(), model(None, vec![Modality::Image, Modality::Text])));
        let found = problems("classify", json!({}), &inputs);
        assert!(found[0].starts_with("inputs.model: a clip model has no classes of its own (to compare"), "{found:?}");
    }

    #[test]
    fn rows_without_pictures_are_refused() {
        let texts = Batch::new(vec!["a".into()]).with("text", ColumnData::Text(vec!["b".into()])).unwrap();
        let mut inputs = rows(&[("rows", &texts)]);
        inputs.push(("model".into(), model(Some(2), vec![Modality::Image])));
        let found = problems("classify", json!({}), &inputs);
        assert_eq!(found, ["inputs.rows: no column that the model encodes: the rows have id, text"]);
    }
}
