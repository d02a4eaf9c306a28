//! What stands under `with:` of `prompts`.

use std::{collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Sentences with `{}` where the name goes; every row gives one prompt a template. `imagenet`, alone or in the list, stands for
    /// the 80 templates that CLIP's authors used for ImageNet.
    #[serde(default)]
    pub(super) templates: Templates,
    /// A JSON file with prompts for each class, instead of templates: an object from names to lists of prompts.
    #[serde(default)]
    pub(super) file: Option<String>,
    /// Prompts for each class by its name, instead of a file.
    #[serde(default)]
    pub(super) prompts: BTreeMap<String, Several>,
    /// The text column that goes into the templates.
    #[serde(default = "name")]
    pub(super) column: String,
    /// What a prompt's label is.
    #[serde(default)]
    pub(super) label: Label,
}

fn name() -> String {
    "name".into()
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Label {
    /// Prompts of one class share its label, for `pool`.
    #[default]
    Class,
    /// Every prompt is a class of its own: its label is `label · templates + template`, its name the prompt.
    Prompt,
}

/// Templates, or the name of a set of them. Kept as a list, so that a set and its sentences are the same settings.
#[derive(Clone, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Templates(pub(super) Vec<String>);

/// The name of the 80 templates for ImageNet.
const IMAGENET: &str = "imagenet";

/// The sentences of a set of that name.
fn set(name: &str) -> Option<Vec<String>> {
    (name == IMAGENET).then(|| runner_data::imagenet_templates().into_iter().map(str::to_owned).collect())
}

impl<'de> Deserialize<'de> for Templates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Templates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of templates, or `imagenet`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Templates, E> {
                let unknown = || E::custom(format!("no set of templates `{name}`: there is `{IMAGENET}`"));
                set(name).map(Templates).ok_or_else(unknown)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Templates, A::Error> {
                let items = list(items)?.into_iter();
                Ok(Templates(items.flat_map(|item| set(&item).unwrap_or_else(|| vec![item])).collect()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Templates {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Templates".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }
}

/// One text or several.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Several(Vec<String>);

impl std::ops::Deref for Several {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Several {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Several;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a prompt or a list of prompts")
            }

            fn visit_str<E: de::Error>(self, one: &str) -> Result<Several, E> {
                Ok(Several(vec![one.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Several, A::Error> {
                list(items).map(Several)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Several {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Several".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }
}

fn list<'de, A: de::SeqAccess<'de>>(mut items: A) -> Result<Vec<String>, A::Error> {
    let mut all = Vec::new();
    while let Some(item) = items.next_element()? {
        all.push(item);
    }
    Ok(all)
}
