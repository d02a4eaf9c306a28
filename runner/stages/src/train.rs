//! `train`: a model from pictures and captions.

mod examples;
mod history;
mod settings;
mod validation;

use std::collections::BTreeMap;

use runner_contract::{
    ColumnType, Context, Digest, Input, Job, JobContext, KindInfo, Modality, ModelInfo, Need, Outcome, OutputPort,
    PortKind, Problem, Random, Shape, Stage, StageError,
};
use runner_data::ClipTokenizer;
use runner_models::{
    safetensors::Dtype,
    train::{ClipTrainer, TrainBatch},
};
use serde_json::{Value, json};

use crate::{
    Binding, Defined, Definition, Services,
    codec::{Reader, Writer},
    definition::{input, optional},
};
use examples::{Batches, Columns, Examples};
use history::History;
use settings::{Precision, Settings};
use validation::Validation;

struct Train;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Train)
}

impl Definition for Train {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "train",
            version: 2,
            summary: "a CLIP model from pictures and captions",
            shape: Shape::Job,
            inputs: const {
                &[
                    input(
                        "train",
                        PortKind::Rows,
                        "rows with a picture and `captions` (`claims` and `facts` where known)",
                    ),
                    optional("validation", PortKind::Rows, "rows that are not trained on, for the validation accuracy"),
                    optional("classes", PortKind::Whole, "class names, for zero-shot validation by `label`"),
                ]
            },
            outputs: const {
                &[OutputPort {
                    name: "model",
                    kind: PortKind::Model,
                    summary: "the trained model, one safetensors file",
                }]
            },
            expensive: true,
            device: true,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        settings.check(binding);
        bind_rows(settings, "train", binding);
        if binding.has("validation") {
            if binding.has("classes") {
                binding.column("validation", "label", "label", |kind| *kind == ColumnType::Label);
                binding.column("classes", "label", "label", |kind| *kind == ColumnType::Label);
                binding.column("classes", "name", "text", |kind| *kind == ColumnType::Text);
                bind_image(settings, "validation", binding);
            } else {
                bind_rows(settings, "validation", binding);
            }
        } else if binding.has("classes") {
            binding.problem(
                Problem::input("classes", "class names without rows to validate on")
                    .hint("connect `validation` too, for instance `split.validation`"),
            );
        }
        let encodes = vec![Modality::Image, Modality::Text];
        let dim = Some(settings.architecture.dim);
        // What stands for the identity until it is known: the language and the engine fill in their own.
        let identity = Digest::of(b"train");
        binding.gives_model("model", ModelInfo { identity, family: "clip".into(), encodes, dim, classes: None });
    }

    fn open(&self, settings: Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let Some(Input::Rows(schema)) = inputs.get("train") else {
            return Err(StageError::new("`train` needs rows to train on"));
        };
        let columns = Columns::of(&settings, schema);
        let validation = match inputs.get("validation") {
            Some(Input::Rows(schema)) => Some(Columns::of(&settings, schema)),
            _ => None,
        };
        let zero_shot = inputs.contains_key("classes");
        Ok(Stage::Job(Box::new(Training { settings, columns, validation, zero_shot })))
    }
}

fn bind_image(settings: &Settings, port: &str, binding: &mut Binding<'_>) {
    if binding.column(port, &settings.image, "images", |kind| *kind == ColumnType::Image).is_some() {
        binding.reads(port, Need::pixels(&settings.image));
    }
}

fn bind_rows(settings: &Settings, port: &str, binding: &mut Binding<'_>) {
    bind_image(settings, port, binding);
    let captions = |kind: &ColumnType| matches!(kind, ColumnType::Text | ColumnType::Texts);
    binding.column(port, &settings.captions, "text or texts", captions);
    let Some(schema) = binding.schema(port) else { return };
    for need in Columns::of(settings, schema).needs() {
        binding.reads(port, need);
    }
}

struct Training {
    settings: Settings,
    columns: Columns,
    validation: Option<Columns>,
    zero_shot: bool,
}

/// Where training is.
struct State {
    trainer: ClipTrainer,
    history: History,
}

impl Job for Training {
    fn run(&self, context: &JobContext<'_>) -> Result<Outcome, StageError> {
        let examples = Examples::read(context, "train", &self.columns)?;
        let validation = match &self.validation {
            None => None,
            Some(_) if self.zero_shot => Some(Validation::zero_shot(context, &self.settings)?),
            Some(columns) => Some(Validation::captions(context, columns, self.settings.seed)?),
        };
        let batch = self.settings.batch.min(examples.len());
        let per_epoch = (examples.len() / batch) as u64;
        let steps = self.settings.epochs * per_epoch;
        let tokenizer = self.settings.tokenizer(&examples)?;
        let batches = Batches::new(&self.settings, &examples, &tokenizer, context.base.threads)?;
        let mut state = self.start(context, tokenizer, steps)?;
        let mut order = (u64::MAX, Vec::new());
        while state.history.steps() < steps {
            context.check(|| state.write())?;
            let step = state.history.steps();
            let (epoch, place) = (step / per_epoch, (step % per_epoch) as usize);
            if order.0 != epoch {
                order = (epoch, shuffled(examples.len(), self.settings.seed, epoch));
            }
            let rows = order.1.get(place * batch..(place + 1) * batch).unwrap_or_default();
            let made = batches.make(rows, epoch)?;
            let (pixels, texts) = (&made.pixels, &made.texts);
            let stats = state
                .trainer
                .step(&TrainBatch { pixels, texts, true_pairs: made.true_pairs.as_deref() })
                .map_err(crate::stage_error)?;
            if !stats.loss.is_finite() {
                return Err(StageError::new(format!(
                    "the loss is {} at step {}; a lower `learning_rate` or a longer `warmup` may help",
                    stats.loss, stats.step
                )));
            }
            state.history.push(&stats);
            context.progress.metric("loss", stats.step, f64::from(stats.loss));
            context.progress.metric("logit_scale", stats.step, f64::from(stats.logit_scale));
            let last = stats.step == steps;
            if let Some(validation) = &validation
                && (last || stats.step % self.settings.validate_every.unwrap_or(per_epoch) == 0)
            {
                let clip = state.trainer.clip().map_err(crate::stage_error)?;
                let accuracy = validation.accuracy(&clip, context.base.threads)?;
                state.history.validate(stats.step, accuracy);
                context.progress.metric(validation.metric(), stats.step, accuracy);
            }
            context.progress.step(stats.step, steps, &state.history.note(validation.as_ref()));
            if stats.step % self.settings.checkpoint_every == 0 && !last {
                context.checkpoint.save(state.write())?;
            }
        }
        self.outcome(&state, examples.len(), validation.as_ref())
    }
}

impl Training {
    /// From the checkpoint, or from the beginning.
    fn start(&self, context: &JobContext<'_>, tokenizer: ClipTokenizer, steps: u64) -> Result<State, StageError> {
        if let Some(bytes) = context.checkpoint.load()? {
            return State::read(&bytes, &context.base);
        }
        let setup = self.settings.setup(tokenizer, steps);
        let trainer = ClipTrainer::new(setup, context.base.threads, context.base.gpu).map_err(crate::stage_error)?;
        Ok(State { trainer, history: History::default() })
    }

    fn outcome(&self, state: &State, rows: usize, validation: Option<&Validation>) -> Result<Outcome, StageError> {
        let precision = match self.settings.precision {
            Precision::F16 => Dtype::F16,
            Precision::F32 => Dtype::F32,
        };
        let mut metrics = state.history.metrics(validation);
        metrics.insert("rows".into(), rows as f64);
        let card = json!({
            "version": 1,
            "trained_on": {"rows": rows, "steps": state.history.steps()},
            "settings": self.settings,
            "figures": metrics,
        });
        let model = state.trainer.export(precision, Some(card.to_string()));
        metrics.insert("bytes".into(), model.len() as f64);
        Ok(Outcome {
            models: BTreeMap::from([("model".to_owned(), model)]),
            metrics,
            files: state.history.files(validation)?,
            ..Outcome::default()
        })
    }
}

impl State {
    fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new(1);
        self.history.write(&mut writer);
        writer.bytes(&self.trainer.save());
        writer.finish()
    }

    fn read(bytes: &[u8], context: &Context) -> Result<Self, StageError> {
        let mut reader = Reader::new(bytes, 1, "the training checkpoint")?;
        let history = History::read(&mut reader)?;
        let trainer =
            ClipTrainer::load(reader.bytes()?.to_vec(), context.threads, context.gpu).map_err(crate::stage_error)?;
        reader.finish()?;
        Ok(Self { trainer, history })
    }
}

/// The order of the rows in an epoch.
fn shuffled(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<_> = (0..n).collect();
    Random::new(seed, "train/order", &epoch.to_string()).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicBool};

    use runner_contract::{Batch, CheckpointSlot, ColumnData, Context, ImageForm, ImageRef, ImagesBuilder, Progress};

    use super::*;
    use crate::testing::{Memory, bind, open, problems, rows};

    /// Pictures of a bar at one of four places, with its place in words.
    fn bars(n: usize, first: usize) -> Batch {
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        let (mut texts, mut claims, mut facts) = (Vec::new(), Vec::new(), Vec::new());
        for i in first..first + n {
            let data: Vec<u8> = (0..64).map(|at| if at / 16 == i % 4 { 200 + (i % 50) as u8 } else { 0 }).collect();
            images.push(ImageRef::Pixels { height: 8, width: 8, channels: 1, data: &data }).unwrap();
            let name = ["first", "second", "third", "fourth"][i % 4];
            texts.push(vec![format!("the {name}"), format!("a {name} bar")]);
            claims.push(vec![name.to_owned(), format!("{name};bar")]);
            facts.push(vec![name.to_owned(), "bar".to_owned()]);
        }
        Batch::new((first..first + n).map(|i| format!("bar/{i}")).collect())
            .with("image", ColumnData::Images(images))
            .unwrap()
            .with("captions", ColumnData::Texts(texts))
            .unwrap()
            .with("claims", ColumnData::Texts(claims))
            .unwrap()
            .with("facts", ColumnData::Texts(facts))
            .unwrap()
    }

    fn settings(epochs: u64) -> Value {
        let tower = json!({"width": 16, "layers": 1, "heads": 2});
        json!({
            "objective": "contrastive", "epochs": epochs, "batch": 16, "learning_rate": 0.01, "warmup": 2,
            "vocabulary": 600, "context": 8, "checkpoint_every": 3, "validate_every": 4,
            "augment": {"translate": 0.05},
            "architecture": {"image_size": 8, "patch_size": 4, "dim": 8, "image": tower, "text": tower},
        })
    }

    /// Keeps the checkpoint, and stops the run when it has been saved so many times.
    #[derive(Default)]
    struct Slot {
        bytes: Mutex<Option<Vec<u8>>>,
        saves: Mutex<usize>,
        stop: Option<(usize, std::sync::Arc<AtomicBool>)>,
    }

    impl CheckpointSlot for Slot {
        fn load(&self) -> Result<Option<Vec<u8>>, StageError> {
            Ok(self.bytes.lock().unwrap().clone())
        }

        fn save(&self, bytes: Vec<u8>) -> Result<(), StageError> {
            *self.bytes.lock().unwrap() = Some(bytes);
            *self.saves.lock().unwrap() += 1;
            if let Some((after, cancelled)) = &self.stop
                && *self.saves.lock().unwrap() == *after
            {
                cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        }
    }

    #[derive(Default)]
    struct Heard(Mutex<BTreeMap<String, Vec<(u64, f64)>>>);

    impl Progress for Heard {
        fn step(&self, _: u64, _: u64, _: &str) {}

        fn metric(&self, name: &str, step: u64, value: f64) {
            self.0.lock().unwrap().entry(name.to_owned()).or_default().push((step, value));
        }
    }

    fn train(settings: Value, slot: &Slot, threads: usize) -> (Result<Outcome, StageError>, Heard) {
        let (train, validation) = (bars(64, 0), bars(16, 64));
        let batches = [("train", train.clone()), ("validation", validation.clone())];
        let Stage::Job(job) = open("train", settings, &batches) else { panic!("not a job") };
        let cancelled = slot.stop.as_ref().map(|(_, cancelled)| cancelled.clone()).unwrap_or_default();
        let memory = Memory(batches.map(|(port, batch)| (port.to_owned(), batch)).into());
        let heard = Heard::default();
        let context =
            JobContext { base: Context::new(threads, cancelled), access: &memory, checkpoint: slot, progress: &heard };
        (job.run(&context), heard)
    }

    #[test]
    fn training_learns_which_caption_belongs_to_which_picture() {
        let (outcome, heard) = train(settings(40), &Slot::default(), 1);
        let outcome = outcome.unwrap();
        let heard = heard.0.into_inner().unwrap();
        let losses = &heard["loss"];
        assert_eq!(losses.len(), 160);
        assert!(losses[159].1 < 0.5 * losses[0].1, "{losses:?}");
        assert!(outcome.metrics["validation.recall1"] > 0.8, "{:?}", outcome.metrics);
        let names: Vec<_> = outcome.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["loss.png", "accuracy.png", "training.csv"]);
    }

    #[test]
    fn a_killed_training_goes_on_to_the_same_model() {
        let (whole, _) = train(settings(3), &Slot::default(), 1);
        let whole = whole.unwrap();
        let mut slot = Slot { stop: Some((2, Default::default())), ..Slot::default() };
        let (stopped, _) = train(settings(3), &slot, 1);
        assert!(matches!(stopped, Err(StageError::Cancelled)));
        slot.stop = None;
        let (resumed, _) = train(settings(3), &slot, 2);
        let resumed = resumed.unwrap();
        assert!(whole.models["model"] == resumed.models["model"], "other weights after a resume with two threads");
        assert_eq!(whole.files, resumed.files);
        assert_eq!(whole.metrics, resumed.metrics);
    }

    #[test]
    fn what_cannot_be_trained_with_is_named() {
        let rows = rows(&[("train", &bars(2, 0))]);
        let bound = bind("train", settings(1), &rows).unwrap();
        assert!(bound.consumes["train"].contains(&Need::pixels("image")));
        assert!(bound.consumes["train"].contains(&Need::column("facts")));
        let mut wrong = settings(0);
        wrong["architecture"]["patch_size"] = 3.into();
        let found = problems("train", wrong, &rows);
        assert_eq!(
            found,
            [
                "with.epochs: expected at least 1",
                "with.architecture: expected a `patch_size` that divides `image_size`"
            ]
        );
        assert!(problems("train", json!({"objective": "contrastive", "epoch": 3}), &rows)[0].contains("epoch"));
    }
}
