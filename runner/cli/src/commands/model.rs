//! `runner model import|list|show|verify|tokenize|preprocess|export`

use std::{
    collections::BTreeMap,
    io::{BufRead, Read as _},
    path::{Path, PathBuf},
};

use runner_contract::ImageRef;
use runner_models::{
    Classifier, Clip, Decision, Hub, Loaded, TowerConfig, VisionConfig,
    safetensors::{self, Dtype, Tensor},
};
use runner_spec::Device;
use serde_json::{Value, json};

use crate::{
    Exit,
    app::App,
    failure::Failure,
    files::{self, MAX_PICTURE},
    output::{escaped, number, table},
};

/// The longest line that is tokenized, in bytes: a tokenizer takes sixty times as much.
const MAX_LINE: u64 = 1 << 20;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Bring a model of any format into the library, as one file, and say what was decided
    Import {
        /// The model: a folder, a file, hf:ORG/NAME@REVISION, open_clip:NAME=PATH, openai:PATH
        #[arg(value_name = "MODEL")]
        model: String,
        /// Its name there: then it is imported:NAME [default: that of its file or folder]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// What a state dict is, where it does not say: openai, or open_clip:ViT-B-32
        #[arg(long = "as", value_name = "KIND")]
        kind: Option<String>,
    },
    /// List the models inside the program and those in the library
    List,
    /// Show a model's architecture and its card
    Show {
        /// The model: builtin:NAME, imported:NAME, hf:ORG/NAME, a folder, a file
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Check that a model is whole: digest, shapes, finite values; and that it computes what is expected
    Verify {
        /// The model
        #[arg(value_name = "MODEL")]
        model: String,
        /// Expected values: a safetensors file with pixels and images or logits, ids and texts
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// How far values may be off, relative to the largest
        #[arg(long, value_name = "SHARE", default_value = "0.0001")]
        tolerance: f32,
        /// Where to compute: cpu, cuda, cuda:N
        #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
        device: Device,
    },
    /// Turn lines on stdin into token ids
    Tokenize {
        /// The model
        #[arg(long, value_name = "MODEL", default_value = "builtin:mini-clip")]
        model: String,
        /// Pad to the model's context
        #[arg(long)]
        pad: bool,
    },
    /// Turn a picture into a model's input, pixel_values [1, 3, height, width]
    Preprocess {
        /// The picture
        #[arg(value_name = "IMAGE")]
        image: PathBuf,
        /// The model
        #[arg(long, value_name = "MODEL", default_value = "builtin:mini-clip")]
        model: String,
        /// The safetensors file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Write a model as a folder in Hugging Face's layout
    Export {
        /// The model
        #[arg(value_name = "MODEL")]
        model: String,
        /// The folder to make
        #[arg(short, long, value_name = "FOLDER")]
        output: PathBuf,
    },
}

pub(crate) fn run(command: &Command, app: &App<'_>) -> Result<Exit, Failure> {
    let hub = app.services(&app.folder)?.hub;
    match command {
        Command::Import { model, name, kind } => import(&hub, model, name.as_deref(), kind.as_deref(), app)?,
        Command::Verify { model, against, tolerance, device } => {
            return verify(&hub, model, against.as_deref(), *tolerance, *device, app);
        }
        Command::List => list(&hub, app)?,
        Command::Show { model } => show(&hub, model, app)?,
        Command::Tokenize { model, pad } => tokenize(&hub, model, *pad, app)?,
        Command::Preprocess { image, model, output } => preprocess(&hub, image, model, output, app)?,
        Command::Export { model, output } => {
            hub.export(model, output)?;
            if app.output.json {
                app.output.document(&json!({"model": model, "folder": output}))?;
            }
            app.output.text(&format!("{}: {model}\n", output.display()))?;
        }
    }
    Ok(Exit::Done)
}

fn import(hub: &Hub, model: &str, name: Option<&str>, kind: Option<&str>, app: &App<'_>) -> Result<(), Failure> {
    let reference = match kind {
        None => model.to_owned(),
        Some("openai") => format!("openai:{model}"),
        Some(kind) if kind.starts_with("open_clip:") => format!("{kind}={model}"),
        Some(kind) => {
            return Err(Failure::usage(
                format!("--as {kind}: no such kind"),
                "--as openai, or --as open_clip:ViT-B-32",
            ));
        }
    };
    let name = name.map_or_else(|| Hub::default_name(&reference), str::to_owned);
    let found = hub.import(&reference, &name)?;
    if app.output.json {
        let decision = |it: &Decision| json!({"about": it.about, "taken": it.taken, "from": it.from});
        return app.output.document(&json!({
            "model": found.reference,
            "file": found.path,
            "identity": found.info.identity,
            "family": found.info.family,
            "dim": found.info.dim,
            "decisions": found.decisions.iter().map(decision).collect::<Vec<_>>(),
        }));
    }
    let rows: Vec<_> = found.decisions.into_iter().map(|it| vec![it.about.to_owned(), it.taken, it.from]).collect();
    let head = [(found.reference.as_str(), false), ("taken", false), ("from", false)];
    app.output.text(&table(&head, &rows, app.output.paint))
}

/// Reads a device.
fn device(text: &str) -> Result<Device, &'static str> {
    Device::parse(text).ok_or("there are cpu, cuda and cuda:N")
}

fn verify(
    hub: &Hub,
    model: &str,
    against: Option<&Path>,
    tolerance: f32,
    device: Device,
    app: &App<'_>,
) -> Result<Exit, Failure> {
    let against = against.map(|path| app.folder.join(path));
    let gpu = match device {
        Device::Cpu => None,
        Device::Cuda(index) => Some(index),
    };
    let found = hub.verify(model, against.as_deref(), app.threads, gpu)?;
    let off = found.differences.iter().filter(|(_, difference)| difference.is_nan() || *difference > tolerance);
    let off: Vec<_> = off.map(|(name, difference)| format!("{name} are off by {difference:.1e}")).collect();
    if app.output.json {
        let differences: serde_json::Map<_, _> =
            found.differences.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        app.output.document(&json!({
            "model": model,
            "identity": found.identity,
            "tensors": found.tensors,
            "parameters": found.parameters,
            "differences": differences,
            "verified": off.is_empty(),
        }))?;
    } else {
        let mut rows = vec![
            vec!["identity".to_owned(), found.identity.to_string()],
            vec!["tensors".to_owned(), format!("{}, of the shapes that the configuration says", found.tensors)],
            vec!["parameters".to_owned(), format!("{}, all finite", found.parameters)],
        ];
        let differences = found.differences.iter();
        rows.extend(differences.map(|(name, value)| vec![(*name).to_owned(), format!("off by {value:.1e} at most")]));
        app.output.text(&table(&[(model, false), ("", false)], &rows, app.output.paint))?;
    }
    match off.as_slice() {
        [] => Ok(Exit::Done),
        off => Err(Failure::failed(format!("{model}: {}, more than {tolerance:.1e}", off.join(", ")))),
    }
}

fn list(hub: &Hub, app: &App<'_>) -> Result<(), Failure> {
    let mut models = Vec::new();
    for reference in Hub::builtin().chain(hub.imported()?) {
        let info = hub.info(&reference)?;
        models.push((reference, info));
    }
    if app.output.json {
        let document: Vec<_> = models
            .iter()
            .map(|(reference, info)| json!({"model": reference, "family": info.family, "dim": info.dim}))
            .collect();
        return app.output.document(&document);
    }
    let rows: Vec<_> = models
        .into_iter()
        .map(|(reference, info)| vec![reference, info.family, info.dim.map(|dim| dim.to_string()).unwrap_or_default()])
        .collect();
    app.output.text(&table(&[("model", false), ("family", false), ("embedding", true)], &rows, app.output.paint))
}

fn show(hub: &Hub, model: &str, app: &App<'_>) -> Result<(), Failure> {
    let (info, loaded, card) = (hub.info(model)?, hub.open(model)?, hub.card(model)?);
    // A card is JSON, or text where somebody wrote it by hand.
    let card = card.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
    let (facts, mut document) = match loaded.as_ref() {
        Loaded::Clip(clip) => clip_facts(clip)?,
        Loaded::Classifier(classifier) => classifier_facts(classifier),
    };
    if app.output.json {
        document["model"] = json!(model);
        document["family"] = json!(info.family);
        document["identity"] = json!(info.identity);
        document["dim"] = json!(loaded.dim());
        document["card"] = json!(card);
        return app.output.document(&document);
    }
    let general =
        [("family", info.family), ("identity", info.identity.short()), ("embedding", loaded.dim().to_string())];
    let mut rows: Vec<Vec<String>> =
        general.into_iter().chain(facts).map(|(name, value)| vec![name.to_owned(), value]).collect();
    match card {
        Some(Value::Object(card)) => {
            let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            rows.extend(card.into_iter().map(|(name, value)| vec![name, text(value)]));
        }
        Some(other) => rows.push(vec!["card".to_owned(), other.as_str().unwrap_or_default().to_owned()]),
        None => {}
    }
    app.output.text(&table(&[(model, false), ("", false)], &rows, app.output.paint))
}

/// What there is to say about a model: for people, and as JSON.
type Facts = (Vec<(&'static str, String)>, Value);

fn clip_facts(clip: &Clip) -> Result<Facts, Failure> {
    let (vision, text) = (&clip.config().vision, &clip.config().text);
    let tower = |tower: &TowerConfig| format!("{} layers, width {}, {} heads", tower.layers, tower.width, tower.heads);
    let size = vision.image_size();
    let (images, image_tower) = match vision {
        VisionConfig::Vit(vit) => (format!("{size} × {size}, patches of {}", vit.patch_size), tower(&vit.tower)),
        VisionConfig::ResNet(resnet) => (
            format!("{size} × {size}"),
            format!("modified ResNet, {:?} blocks, width {}, {} heads", resnet.layers, resnet.width, resnet.heads),
        ),
    };
    let patch_size = match vision {
        VisionConfig::Vit(vit) => Some(vit.patch_size),
        VisionConfig::ResNet(_) => None,
    };
    let (vocabulary, context) = (clip.tokenizer()?.vocab_size(), clip.tokenizer()?.context());
    let facts = vec![
        ("logit scale", number(clip.logit_scale().into())),
        ("images", images),
        ("image tower", image_tower),
        ("text tower", tower(&text.tower)),
        ("tokens", format!("{vocabulary} in the vocabulary, {context} a text")),
    ];
    let document = json!({
        "logit_scale": clip.logit_scale(),
        "image_size": size,
        "patch_size": patch_size,
        "vocabulary": vocabulary,
        "context": context,
    });
    Ok((facts, document))
}

fn classifier_facts(classifier: &Classifier) -> Facts {
    let (size, classes) = (classifier.config().image_size, classifier.classes());
    let names: Vec<_> = classes.iter().take(3).map(String::as_str).collect();
    let more = if classes.len() > names.len() { ", …" } else { "" };
    let facts = vec![
        ("images", format!("{size} × {size}")),
        ("classes", format!("{}: {}{more}", classes.len(), names.join(", "))),
    ];
    (facts, json!({"image_size": size, "classes": classes}))
}

fn tokenize(hub: &Hub, model: &str, pad: bool, app: &App<'_>) -> Result<(), Failure> {
    let loaded = hub.open(model)?;
    let clip = loaded.clip()?;
    let tokenizer = clip.tokenizer()?;
    let mut ids = Vec::new();
    lines(std::io::stdin().lock(), |line| {
        ids.push(if pad { tokenizer.encode_padded(line) } else { tokenizer.encode(line) }?);
        Ok(())
    })?;
    if app.output.json {
        let mut text = serde_json::to_string(&ids).map_err(Failure::failed)?;
        text.push('\n');
        return app.output.raw(text.as_bytes());
    }
    for ids in ids {
        let ids: Vec<_> = ids.iter().map(|&id| format!("{id}:{}", tokenizer.token(id).unwrap_or_default())).collect();
        app.output.text(&format!("{}\n", escaped(&ids.join(" "))))?;
    }
    Ok(())
}

/// Gives each line of stdin. A line is what stands before a line feed, and nothing else ends one.
fn lines(mut input: impl BufRead, mut each: impl FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    for number in 1u64.. {
        bytes.clear();
        let mut line = input.by_ref().take(MAX_LINE + 1);
        let read = line.read_until(b'\n', &mut bytes).map_err(Failure::file("read", Path::new("stdin")))?;
        if read == 0 {
            break;
        }
        let wrong = |problem: String| Failure::failed(format!("stdin, line {number}: {problem}"));
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if line.len() as u64 > MAX_LINE {
            return Err(wrong(format!("longer than {} MiB, expected a text a line", MAX_LINE >> 20)));
        }
        each(std::str::from_utf8(line).map_err(|_| wrong("not UTF-8 text".to_owned()))?)?;
    }
    Ok(())
}

fn preprocess(hub: &Hub, image: &Path, model: &str, output: &Path, app: &App<'_>) -> Result<(), Failure> {
    let bytes = files::read(image, MAX_PICTURE)?;
    let loaded = hub.open(model)?;
    let name = image.display().to_string();
    let values = loaded.preprocess().apply(ImageRef::Encoded { bytes: &bytes, path: &name })?;
    let (height, width) = loaded.preprocess().size();
    let tensor = Tensor { name: "pixel_values", shape: &[1, 3, height, width], values: &values };
    let file = safetensors::write(&[tensor], Dtype::F32, &BTreeMap::new());
    std::fs::write(output, file).map_err(Failure::file("write", output))?;
    if app.output.json {
        app.output.document(&json!({"file": output, "pixel_values": [1, 3, height, width]}))?;
    }
    app.output.text(&format!("{}: pixel_values [1, 3, {height}, {width}]\n", output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let ended = lines(input, |line| {
            found.push(line.to_owned());
            Ok(())
        });
        ended.map(|()| found).map_err(|failure| failure.to_string())
    }

    #[test]
    fn only_a_line_feed_ends_a_line() {
        assert_eq!(read(b"").unwrap(), [""; 0]);
        assert_eq!(read(b"\n").unwrap(), [""]);
        assert_eq!(read(b"a\r\n\nb\x0cc").unwrap(), ["a\r", "", "b\u{c}c"]);
        assert_eq!(read(b"a\n\n").unwrap(), ["a", ""]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_told_by_its_number() {
        let most = usize::try_from(MAX_LINE).unwrap();
        let long = |length| [&b"a\n"[..], &vec![b'x'; length], b"\nb\n"].concat();
        assert_eq!(read(&long(most)).unwrap().len(), 3);
        assert_eq!(read(&long(most + 1)).unwrap_err(), "stdin, line 2: longer than 1 MiB, expected a text a line");
        assert_eq!(read(b"a\nb\xff\n").unwrap_err(), "stdin, line 2: not UTF-8 text");
    }
}
