//! `prompts`: class names put into templates, or the prompts that a file has for them.

mod settings;

use std::{collections::BTreeMap, path::PathBuf};

use runner_contract::{
    Column, ColumnData, ColumnType, Context, Input, Inputs, KindInfo, PortKind, Prepared, Problem, Produced, Shape,
    Stage, StageError, Stream,
};
use runner_data::file;
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
};
use settings::{Label, Settings};

/// Where the name goes in a template.
const BLANK: &str = "{}";
/// Most bytes of a file of prompts.
const MOST_BYTES: u64 = 64 << 20;

struct Prompts {
    folder: PathBuf,
}

pub(crate) fn kind(services: &Services) -> Defined<impl Definition> {
    Defined::new(Prompts { folder: services.folder.clone() })
}

impl Definition for Prompts {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "prompts",
            version: 1,
            summary: "class names put into templates, one prompt a template; or the prompts that a file has for each class",
            shape: Shape::Expand,
            inputs: const { &[input("classes", PortKind::Rows, "rows with a `name`: a dataset's `classes`, `texts`")] },
            outputs: const { &[output("rows", "one row a class and template: `text`, `template`")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn resolve(&self, mut settings: Settings) -> Result<Settings, Problem> {
        let Some(path) = settings.file.take() else { return Ok(settings) };
        if !settings.prompts.is_empty() {
            return Err(Problem::setting("file", "`prompts` are given as well").hint("remove one of them"));
        }
        let wrong = |reason: String| {
            Problem::setting("file", format!("`{path}`: {reason}"))
                .hint("a JSON object from class names to lists of prompts: {\"cat\": [\"a photo of a cat.\"]}")
        };
        let text = file::read(&self.folder.join(&path), MOST_BYTES).map_err(|error| wrong(error.to_string()))?;
        settings.prompts = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if settings.prompts.is_empty() {
            return Err(wrong("no prompts in it".to_owned()));
        }
        Ok(settings)
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let (templates, prompts) = (&settings.templates.0, &settings.prompts);
        match (templates.is_empty(), prompts.is_empty()) {
            (true, true) => binding.problem(
                Problem::setting("templates", "no templates").hint("write `templates: [\"a photo of a {}.\"]`"),
            ),
            (false, false) => {
                let problem = Problem::setting("templates", "the prompts are given by class, templates do nothing");
                binding.problem(problem.hint("remove `templates`, or `file` and `prompts`"));
            }
            _ => {}
        }
        for (i, template) in templates.iter().enumerate() {
            if !template.contains(BLANK) {
                let path = vec!["with".into(), "templates".into(), i.to_string()];
                let message = format!("the template `{template}` has no `{BLANK}` for the name");
                let hint = Some(format!("write where the name goes: `{} {BLANK}`", template.trim_end()));
                binding.problem(Problem { path, message, hint });
            }
        }
        if let Some((name, _)) = prompts.iter().find(|(_, prompts)| prompts.is_empty()) {
            binding.problem(Problem::setting("prompts", format!("class `{name}` has an empty list of prompts")));
        }
        binding.column("classes", &settings.column, "text", |kind| *kind == ColumnType::Text);
        let mut columns = vec![Column::new("text", ColumnType::Text)];
        if !templates.is_empty() {
            columns.push(Column::new("template", ColumnType::Text));
        }
        if settings.label == Label::Prompt {
            if !prompts.is_empty() {
                let message = "classes of one's own need templates: prompts by class are of any number";
                binding.problem(Problem::setting("label", message));
            }
            binding.column("classes", "label", "label", |kind| *kind == ColumnType::Label);
            columns.push(Column::new("label", ColumnType::Label));
            columns.push(Column::new("name", ColumnType::Text));
        }
        binding.gives("rows", columns);
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Stream(Box::new(Fill(settings))))
    }
}

struct Fill(Settings);

impl Stream for Fill {
    fn apply(&self, _: &Context, inputs: &Inputs, _: Prepared) -> Result<BTreeMap<String, Produced>, StageError> {
        let Settings { templates, prompts, column, label, .. } = &self.0;
        let templates = &templates.0;
        let rows = crate::port(inputs, "classes")?;
        let names = rows.text(column)?;
        if templates.is_empty() {
            let (mut take, mut texts) = (Vec::new(), Vec::new());
            for (row, name) in (0u32..).zip(names.iter().flatten()) {
                let own = prompts.get(name).ok_or_else(|| {
                    StageError::new(format!("there are no prompts for the class `{name}`; {}", some(prompts.keys())))
                })?;
                take.extend(std::iter::repeat_n(row, own.len()));
                texts.extend(own.iter().cloned());
            }
            let produced = Produced { take: Some(take), ..Produced::default() };
            return Ok(BTreeMap::from([("rows".to_owned(), produced.column("text", ColumnData::Text(texts))?)]));
        }
        let take = (0..rows.len() as u32).flat_map(|row| std::iter::repeat_n(row, templates.len())).collect();
        let texts: Vec<_> =
            names.iter().flatten().flat_map(|name| templates.iter().map(move |t| t.replace(BLANK, name))).collect();
        let of = (0..rows.len()).flat_map(|_| templates.iter().cloned()).collect();
        let mut produced = Produced { take: Some(take), ..Produced::default() }
            .column("text", ColumnData::Text(texts.clone()))?
            .column("template", ColumnData::Text(of))?;
        if *label == Label::Prompt {
            let n = templates.len() as i64;
            let labels = rows.integers("label")?.iter().flat_map(|label| (0..n).map(move |k| label * n + k)).collect();
            produced = produced.column("label", ColumnData::Labels(labels))?.column("name", ColumnData::Text(texts))?;
        }
        Ok(BTreeMap::from([("rows".to_owned(), produced)]))
    }
}

/// The classes that there are prompts for, a few of them.
fn some<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let n = names.len();
    let first: Vec<_> = names.take(5).map(|name| format!("`{name}`")).collect();
    format!("there are some for {}{}", first.join(", "), if n > first.len() { ", …" } else { "" })
}

#[cfg(test)]
mod tests {
    use runner_contract::Batch;
    use serde_json::json;

    use super::*;
    use crate::testing::{apply, bind, problems, rows, try_apply};

    fn classes() -> Batch {
        Batch::new(vec!["0".into(), "1".into()])
            .with("label", ColumnData::Labels(vec![0, 1]))
            .unwrap()
            .with("name", ColumnData::Text(vec!["cat".into(), "dog".into()]))
            .unwrap()
    }

    fn texts(batch: &Batch, column: &str) -> Vec<String> {
        batch.text(column).unwrap().iter().flatten().map(str::to_owned).collect()
    }

    #[test]
    fn every_class_goes_into_every_template() {
        let settings = json!({"templates": ["a {}.", "{} and {}"]});
        let out = apply("prompts", settings, &[("classes", classes())]);
        assert_eq!(texts(&out["rows"], "text"), ["a cat.", "cat and cat", "a dog.", "dog and dog"]);
        assert_eq!(texts(&out["rows"], "template"), ["a {}.", "{} and {}", "a {}.", "{} and {}"]);
        assert_eq!(out["rows"].integers("label").unwrap(), [0, 0, 1, 1]);
    }

    #[test]
    fn prompts_can_be_classes_of_their_own() {
        let settings = json!({"templates": ["thick {}", "thin {}"], "label": "prompt"});
        let out = apply("prompts", settings, &[("classes", classes())]);
        assert_eq!(out["rows"].integers("label").unwrap(), [0, 1, 2, 3]);
        assert_eq!(out["rows"].text("name").unwrap().value(3), "thin dog");
    }

    #[test]
    fn the_templates_of_imagenet_have_a_name() {
        let inputs = rows(&[("classes", &classes())]);
        let bound = bind("prompts", json!({"templates": "imagenet"}), &inputs).unwrap();
        assert_eq!(bound.settings["templates"].as_array().unwrap().len(), 80);
        let more = bind("prompts", json!({"templates": ["imagenet", "my {}"]}), &inputs).unwrap();
        assert_eq!(more.settings["templates"].as_array().unwrap().len(), 81);
        let found = problems("prompts", json!({"templates": "imagnet"}), &inputs);
        assert!(found[0].contains("no set of templates `imagnet`"), "{found:?}");
    }

    #[test]
    fn a_class_has_prompts_of_its_own_from_a_file() {
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), r#"{"cat": ["fur", "claws"], "dog": "a bark"}"#).unwrap();
        let settings = json!({"file": file.path()});
        let out = apply("prompts", settings.clone(), &[("classes", classes())]);
        assert_eq!(texts(&out["rows"], "text"), ["fur", "claws", "a bark"]);
        // The content is what results are keyed by, not the name.
        let inputs = rows(&[("classes", &classes())]);
        let bound = bind("prompts", settings.clone(), &inputs).unwrap();
        assert_eq!(bound.settings["prompts"], json!({"cat": ["fur", "claws"], "dog": ["a bark"]}));
        assert_eq!(bound.settings["file"], json!(null));

        std::fs::write(file.path(), r#"{"cat": ["fur"]}"#).unwrap();
        let error = try_apply("prompts", settings.clone(), &[("classes", classes())], &[]).unwrap_err().to_string();
        assert!(error.starts_with("there are no prompts for the class `dog`; there are some for `cat`"), "{error}");
        for bad in ["[]", "{", "{\"cat\": 3}", "{}"] {
            std::fs::write(file.path(), bad).unwrap();
            let found = problems("prompts", settings.clone(), &inputs);
            assert!(found.len() == 1 && found[0].starts_with("with.file: "), "{bad}: {found:?}");
        }
    }

    #[test]
    fn a_template_without_a_blank_is_named_with_what_to_write() {
        let found = problems("prompts", json!({"templates": ["a photo of a "]}), &rows(&[("classes", &classes())]));
        assert_eq!(
            found,
            [
                "with.templates.0: the template `a photo of a ` has no `{}` for the name (write where the name goes: `a photo of a {}`)"
            ]
        );
    }
}
