//! `prompts`: class names put into templates.

use std::collections::BTreeMap;

use runner_contract::{
    Column, ColumnData, ColumnType, Context, Input, Inputs, KindInfo, PortKind, Prepared, Problem, Produced, Shape,
    Stage, StageError, Stream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
};

/// Where the name goes in a template.
const BLANK: &str = "{}";

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Sentences with `{}` where the name goes. Every row gives one prompt a template.
    templates: Vec<String>,
    /// The text column that goes into the templates.
    #[serde(default = "name")]
    column: String,
    /// What a prompt's label is.
    #[serde(default)]
    label: Label,
}

fn name() -> String {
    "name".into()
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Label {
    /// Prompts of one class share its label, for `pool`.
    #[default]
    Class,
    /// Every prompt is a class of its own: its label is `label · templates + template`, its name the prompt.
    Prompt,
}

struct Prompts;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Prompts)
}

impl Definition for Prompts {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "prompts",
            version: 1,
            summary: "class names put into templates, one prompt a template",
            shape: Shape::Expand,
            inputs: const { &[input("classes", PortKind::Rows, "rows with a `name`: a dataset's `classes`, `texts`")] },
            outputs: const { &[output("rows", "one row a class and template")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        if settings.templates.is_empty() {
            binding.problem(
                Problem::setting("templates", "no templates").hint("write `templates: [\"a photo of a {}.\"]`"),
            );
        }
        for (i, template) in settings.templates.iter().enumerate() {
            if !template.contains(BLANK) {
                let path = vec!["with".into(), "templates".into(), i.to_string()];
                let message = format!("the template `{template}` has no `{BLANK}` for the name");
                let hint = Some(format!("write where the name goes: `{} {BLANK}`", template.trim_end()));
                binding.problem(Problem { path, message, hint });
            }
        }
        binding.column("classes", &settings.column, "text", |kind| *kind == ColumnType::Text);
        let mut columns = vec![Column::new("text", ColumnType::Text)];
        if settings.label == Label::Prompt {
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
        let Settings { templates, column, label } = &self.0;
        let rows = crate::port(inputs, "classes")?;
        let names = rows.text(column)?;
        let take = (0..rows.len() as u32).flat_map(|row| std::iter::repeat_n(row, templates.len())).collect();
        let texts: Vec<_> =
            names.iter().flatten().flat_map(|name| templates.iter().map(move |t| t.replace(BLANK, name))).collect();
        let mut produced =
            Produced { take: Some(take), ..Produced::default() }.column("text", ColumnData::Text(texts.clone()))?;
        if *label == Label::Prompt {
            let n = templates.len() as i64;
            let labels = rows.integers("label")?.iter().flat_map(|label| (0..n).map(move |k| label * n + k)).collect();
            produced = produced.column("label", ColumnData::Labels(labels))?.column("name", ColumnData::Text(texts))?;
        }
        Ok(BTreeMap::from([("rows".to_owned(), produced)]))
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::Batch;
    use serde_json::json;

    use super::*;
    use crate::testing::{apply, problems, rows};

    fn classes() -> Batch {
        Batch::new(vec!["0".into(), "1".into()])
            .with("label", ColumnData::Labels(vec![0, 1]))
            .unwrap()
            .with("name", ColumnData::Text(vec!["cat".into(), "dog".into()]))
            .unwrap()
    }

    #[test]
    fn every_class_goes_into_every_template() {
        let settings = json!({"templates": ["a {}.", "{} and {}"]});
        let out = apply("prompts", settings, &[("classes", classes())]);
        let texts: Vec<_> = out["rows"].text("text").unwrap().iter().flatten().map(str::to_owned).collect();
        assert_eq!(texts, ["a cat.", "cat and cat", "a dog.", "dog and dog"]);
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
