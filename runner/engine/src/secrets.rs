//! The values that `${{ secrets.NAME }}` stands for: put in just before a stage is opened, taken out of everything that is
//! said. Keys, plans and records only ever see the name.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use runner_contract::StageError;
use runner_spec::fill_secrets;
use serde_json::Value;

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// By name.
    values: BTreeMap<String, String>,
    /// The values, longest first, so that one that is a part of another does not show its rest; also as JSON writes them.
    hide: Vec<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Secrets {
    pub(crate) fn new(values: &BTreeMap<String, String>) -> Self {
        let mut hide: Vec<String> = Vec::new();
        for value in values.values().filter(|value| !value.is_empty()) {
            let quoted = Value::String(value.clone()).to_string();
            hide.extend([quoted.trim_matches('"').to_owned(), format!("{value:?}").trim_matches('"').to_owned()]);
            hide.push(value.clone());
        }
        hide.sort_by_key(|value| std::cmp::Reverse(value.len()));
        hide.dedup();
        Self { values: values.clone(), hide }
    }

    /// A stage's settings with the values of the secrets that they mention.
    pub(crate) fn fill(&self, settings: &Value, mentioned: &[String]) -> Result<Value, StageError> {
        let filled = fill_secrets(settings, mentioned, &|name| self.values.get(name).cloned());
        filled.map_err(|name| StageError::new(format!("the secret `{name}` is not set")))
    }

    /// A text without them.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for value in &self.hide {
            if text.contains(value.as_str()) {
                text = Cow::Owned(text.replace(value.as_str(), HIDDEN));
            }
        }
        text
    }

    /// The same, of a text that is ours.
    pub(crate) fn redacted(&self, text: String) -> String {
        if self.hide.is_empty() { text } else { self.redact(&text).into_owned() }
    }

    /// JSON without them.
    pub(crate) fn redact_value(&self, value: Value) -> Value {
        if self.hide.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.redacted(text)),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.redact_value(item)).collect()),
            Value::Object(map) => {
                Value::Object(map.into_iter().map(|(name, value)| (name, self.redact_value(value))).collect())
            }
            other => other,
        }
    }

    /// An error without them.
    pub(crate) fn redact_error(&self, error: StageError) -> StageError {
        if self.hide.is_empty() {
            return error;
        }
        let text = error.to_string();
        match self.redact(&text) {
            Cow::Borrowed(_) => error,
            Cow::Owned(hidden) => StageError::Failed(hidden),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        Secrets::new(&values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn names_become_values_and_values_become_stars() {
        let secrets = secrets(&[("token", "s3cr\"et"), ("short", "s3"), ("empty", "")]);
        let settings = json!({"url": "https://u:${{ secrets.token }}@h", "n": 1});
        let filled = secrets.fill(&settings, &["token".to_owned()]).unwrap();
        assert_eq!(filled, json!({"url": "https://u:s3cr\"et@h", "n": 1}));
        for said in ["cannot reach https://u:s3cr\"et@h", "{\"url\":\"s3cr\\\"et\"}", "Err(\"s3cr\\\"et\")", "s3"] {
            let hidden = secrets.redact(said);
            assert!(hidden.contains(HIDDEN) && !hidden.contains("s3"), "{hidden}");
        }
        assert_eq!(secrets.redact("nothing"), "nothing");
        let unknown = secrets.fill(&json!("${{ secrets.nope }}"), &["nope".to_owned()]).unwrap_err();
        assert_eq!(unknown.to_string(), "the secret `nope` is not set");
    }
}
