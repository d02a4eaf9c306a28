//! `encode`: pictures or texts to embeddings, by a model's tower for them.

use std::{collections::BTreeMap, sync::Arc};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Context, Digest, Input, Inputs, KindInfo, Modality, ModelInfo, Need,
    PortKind, Prepared, Problem, Produced, Schema, Shape, Stage, StageError, Stream,
};
use runner_models::{Clip, Hub, Loaded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, LOGIT_SCALE, Services,
    definition::{input, output},
    pixels::{Buffers, Pixels},
};

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The column to encode. Left out: the one that the model can encode; of several texts `text`, of several
    /// images `image`.
    #[serde(default)]
    column: Option<String>,
    /// Cut texts that are longer than the model's context; otherwise they are an error.
    #[serde(default)]
    truncate: bool,
}

struct Encode {
    hub: Arc<Hub>,
}

pub(crate) fn kind(services: &Services) -> Defined<impl Definition> {
    Defined::new(Encode { hub: services.hub.clone() })
}

impl Definition for Encode {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "encode",
            version: 3,
            summary: "pictures or texts to embeddings",
            shape: Shape::Map,
            inputs: const {
                &[
                    input("rows", PortKind::Rows, "rows with a picture or a text"),
                    input("model", PortKind::Model, "the model that encodes"),
                ]
            },
            outputs: const { &[output("rows", "`embedding`, not normalised")] },
            expensive: true,
            device: true,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let (schema, model) = (binding.schema("rows"), binding.model("model"));
        let (Some(schema), Some(model)) = (schema, model) else { return };
        match choose(settings.column.as_deref(), schema, model) {
            Ok((column, _)) => binding.reads("rows", Need::column(column)),
            Err(problem) => binding.problem(problem),
        }
        match model.dim {
            Some(dim) => {
                let kind = ColumnType::Embedding { dim, space: model.identity };
                binding.gives("rows", [Column::new("embedding", kind)]);
            }
            None => binding.problem(Problem::input("model", format!("a {} model makes no embeddings", model.family))),
        }
    }

    fn open(&self, settings: Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let (Some(Input::Rows(schema)), Some(Input::Model(model))) = (inputs.get("rows"), inputs.get("model")) else {
            return Err(StageError::new("`encode` needs rows and a model"));
        };
        let (column, modality) =
            choose(settings.column.as_deref(), schema, model).map_err(|problem| StageError::new(problem.message))?;
        let encoder = Encoder { hub: self.hub.clone(), column, truncate: settings.truncate };
        Ok(Stage::Stream(match modality {
            Modality::Image => Box::new(Images { encoder, inputs: Buffers::default() }),
            Modality::Text => Box::new(Texts(encoder)),
        }))
    }
}

/// What a model's tower for a modality reads.
fn modality(model: &ModelInfo, kind: &ColumnType) -> Option<Modality> {
    let modality = match kind {
        ColumnType::Image => Modality::Image,
        ColumnType::Text => Modality::Text,
        _ => return None,
    };
    model.encodes.contains(&modality).then_some(modality)
}

/// The column to encode: the one named, or the only one that fits, or of each sort the one with the usual name.
pub(crate) fn choose(column: Option<&str>, schema: &Schema, model: &ModelInfo) -> Result<(String, Modality), Problem> {
    if let Some(name) = column {
        let column = schema.get(name).ok_or_else(|| {
            Problem::setting("column", format!("no column `{name}`: the rows have {}", schema.names()))
        })?;
        let chosen = modality(model, &column.kind).ok_or_else(|| {
            let message = format!("column `{name}` holds {}, which the model does not encode", column.kind);
            Problem::setting("column", message)
        })?;
        return Ok((name.to_owned(), chosen));
    }
    let fitting: Vec<_> = schema
        .columns
        .iter()
        .filter(|column| column.name != runner_contract::PARENT)
        .filter_map(|column| Some((column.name.as_str(), modality(model, &column.kind)?)))
        .collect();
    let usual = |name: &str, modality| match (name, modality) {
        ("image", Modality::Image) | ("text", Modality::Text) => true,
        (_, modality) => fitting.iter().filter(|(_, other)| *other == modality).count() == 1,
    };
    let chosen: Vec<_> = fitting.iter().filter(|&&(name, modality)| usual(name, modality)).collect();
    // `image`, or `text`, or one of them beside unusual ones of its own sort.
    match chosen.as_slice() {
        [(name, modality)] if fitting.iter().all(|(_, other)| other == modality) => Ok(((*name).to_owned(), *modality)),
        _ if fitting.is_empty() => {
            Err(Problem::input("rows", format!("no column that the model encodes: the rows have {}", schema.names())))
        }
        _ => {
            let names = fitting.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let problem = Problem::input("rows", format!("the model could encode each of {names}"));
            Err(problem.hint(format!("say which: `with: {{column: {}}}`", fitting[0].0)))
        }
    }
}

/// What both towers need.
struct Encoder {
    hub: Arc<Hub>,
    column: String,
    truncate: bool,
}

impl Encoder {
    fn load(&self, context: &Context) -> Result<(Arc<Loaded>, Digest), StageError> {
        let model = context.model("model")?;
        let loaded = self.hub.load_on(model, context.gpu).map_err(crate::stage_error)?;
        Ok((loaded, model.identity))
    }

    fn produced(
        model: &Loaded,
        space: Digest,
        values: Vec<f32>,
        output: Produced,
    ) -> Result<BTreeMap<String, Produced>, StageError> {
        let scale = model.logit_scale().map(|scale| (LOGIT_SCALE.to_owned(), scale.to_string()));
        let data = ColumnData::Embeddings(values, model.dim(), space);
        Ok(BTreeMap::from([("rows".to_owned(), output.column_with("embedding", data, scale.into_iter().collect())?)]))
    }
}

struct Images {
    encoder: Encoder,
    inputs: Buffers,
}

impl Stream for Images {
    fn prepare(&self, context: &Context, inputs: &Inputs) -> Result<Prepared, StageError> {
        let (model, _) = self.encoder.load(context)?;
        let rows = crate::port(inputs, "rows")?;
        Ok(Box::new(self.inputs.fill(model.preprocess(), rows, &self.encoder.column, context.threads)?))
    }

    fn apply(
        &self,
        context: &Context,
        _: &Inputs,
        prepared: Prepared,
    ) -> Result<BTreeMap<String, Produced>, StageError> {
        let Pixels { values, output, n } = *downcast::<Pixels>(prepared)?;
        let (model, space) = self.encoder.load(context)?;
        let embeddings = model.encode_images(&values, n, context.threads).map_err(crate::stage_error)?;
        self.inputs.put_back(values);
        Encoder::produced(&model, space, embeddings, output)
    }
}

struct Texts(Encoder);

impl Texts {
    fn tokenize(&self, clip: &Clip, rows: &Batch) -> Result<Vec<Vec<u32>>, StageError> {
        let tokenizer = clip.tokenizer().map_err(crate::stage_error)?;
        let (context, uncut) = (tokenizer.context(), tokenizer.clone().with_context(1 << 20));
        let ids = rows.ids()?;
        let texts = rows.text(&self.0.column)?;
        let mut all = Vec::with_capacity(rows.len());
        for (i, text) in texts.iter().flatten().enumerate() {
            let failed = |error| StageError::because(format!("row `{}`", ids.value(i)), error);
            let tokens = tokenizer.encode(text).map_err(failed)?;
            if tokens.len() >= context && !self.0.truncate {
                let length = uncut.encode(text).map_err(failed)?.len();
                if length > context {
                    return Err(StageError::new(format!(
                        "row `{}`: the text has {length} tokens, the model takes {context}; shorten it, or set `truncate: true` under `with:`",
                        ids.value(i)
                    )));
                }
            }
            all.push(tokens);
        }
        Ok(all)
    }
}

impl Stream for Texts {
    fn prepare(&self, context: &Context, inputs: &Inputs) -> Result<Prepared, StageError> {
        let (model, _) = self.0.load(context)?;
        let clip = model.clip().map_err(crate::stage_error)?;
        Ok(Box::new(self.tokenize(clip, crate::port(inputs, "rows")?)?))
    }

    fn apply(
        &self,
        context: &Context,
        _: &Inputs,
        prepared: Prepared,
    ) -> Result<BTreeMap<String, Produced>, StageError> {
        let tokens = downcast::<Vec<Vec<u32>>>(prepared)?;
        let (model, space) = self.0.load(context)?;
        let clip = model.clip().map_err(crate::stage_error)?;
        let embeddings = clip.encode_texts(&tokens, context.threads).map_err(crate::stage_error)?;
        Encoder::produced(&model, space, embeddings, Produced::default())
    }
}

pub(crate) fn downcast<T: 'static>(prepared: Prepared) -> Result<Box<T>, StageError> {
    prepared.downcast().map_err(|_| StageError::new("it was given another stage's preparation"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(encodes: &[Modality]) -> ModelInfo {
        let (identity, encodes) = (Digest::of(b"m"), encodes.to_vec());
        ModelInfo { identity, family: "clip".into(), encodes, dim: Some(4), classes: None }
    }

    fn chosen(columns: &[(&str, ColumnType)], encodes: &[Modality], column: Option<&str>) -> Result<String, String> {
        let schema = Schema::new(columns.iter().map(|(name, kind)| Column::new(*name, kind.clone())));
        choose(column, &schema, &model(encodes)).map(|(name, _)| name).map_err(|problem| problem.message)
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_and_no_reason_to_compute_elsewhere() {
        let hub = Arc::new(Hub::new(std::path::PathBuf::new()));
        let info = hub.info("builtin:mini-clip").unwrap();
        let source = runner_contract::ModelSource::Reference("builtin:mini-clip".to_owned());
        let mut context = crate::testing::context(&[]);
        context.models.insert("model".to_owned(), runner_contract::Model { identity: info.identity, source });
        let encoder = Encoder { hub, column: "text".to_owned(), truncate: false };
        assert!(encoder.load(&context).is_ok());
        context.gpu = Some(999);
        assert!(encoder.load(&context).is_err());
    }

    #[test]
    fn the_column_follows_from_what_the_rows_have() {
        const BOTH: &[Modality] = &[Modality::Image, Modality::Text];
        use ColumnType::{Image, Label, Text};
        assert_eq!(chosen(&[("image", Image), ("label", Label)], BOTH, None).unwrap(), "image");
        assert_eq!(chosen(&[("picture", Image)], BOTH, None).unwrap(), "picture");
        let prompts = [("label", Label), ("name", Text), ("text", Text), ("parent", Text)];
        assert_eq!(chosen(&prompts, BOTH, None).unwrap(), "text");
        assert_eq!(chosen(&[("image", Image), ("text", Text)], &[Modality::Text], None).unwrap(), "text");
        assert_eq!(chosen(&[("image", Image), ("text", Text)], BOTH, Some("image")).unwrap(), "image");

        let ambiguous = chosen(&[("image", Image), ("text", Text)], BOTH, None).unwrap_err();
        assert_eq!(ambiguous, "the model could encode each of `image`, `text`");
        assert!(chosen(&[("a", Text), ("b", Text)], BOTH, None).is_err());
        let none = chosen(&[("label", Label)], BOTH, None).unwrap_err();
        assert_eq!(none, "no column that the model encodes: the rows have id, label");
        assert!(chosen(&[("image", Image)], &[Modality::Text], Some("image")).is_err());
        assert!(chosen(&[("image", Image)], BOTH, Some("imaeg")).is_err());
    }
}
