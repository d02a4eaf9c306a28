//! Secrets in settings: their text until a stage is opened, and their values from then on.

use serde_json::Value;

use crate::expression::{Fault, Stop, is_name};

/// How the text of a secret begins and ends.
const OPEN: &str = "${{ secrets.";
const CLOSE: &str = " }}";

/// What stands for a secret in bound settings, keys and records.
pub(crate) fn placeholder(name: &str) -> String {
    format!("{OPEN}{name}{CLOSE}")
}

/// A secret where none may stand.
pub(crate) fn misplaced(name: &str) -> Stop {
    let fault = Fault::new(format!("the secret `{name}` cannot stand here")).focus(format!("secrets.{name}"));
    fault.hint("secrets stand in the settings of a stage (`with:`) only").into()
}

/// Settings with the values of secrets in place of `${{ secrets.NAME }}`, for the names that `secrets` lists
/// ([`crate::StageDef::secrets`]). The error is the name of one that `value` does not know.
///
/// Only for the moment in which a stage is opened: what comes back must not be shown or recorded.
pub fn fill_secrets(
    settings: &Value,
    secrets: &[String],
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<Value, String> {
    Ok(match settings {
        Value::String(text) if !secrets.is_empty() => Value::String(fill(text, secrets, value)?),
        Value::Array(items) => {
            items.iter().map(|item| fill_secrets(item, secrets, value)).collect::<Result<_, _>>().map(Value::Array)?
        }
        Value::Object(map) => {
            let filled = map.iter().map(|(key, part)| Ok((key.clone(), fill_secrets(part, secrets, value)?)));
            filled.collect::<Result<_, String>>().map(Value::Object)?
        }
        other => other.clone(),
    })
}

/// One text. What a secret's value holds is not looked at again.
fn fill(text: &str, secrets: &[String], value: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once(OPEN) {
        out.push_str(before);
        let name = behind.split_once(CLOSE).map(|(name, _)| name);
        match name.filter(|name| is_name(name) && secrets.iter().any(|secret| secret == name)) {
            Some(name) => {
                out.push_str(&value(name).ok_or_else(|| name.to_owned())?);
                rest = behind.get(name.len() + CLOSE.len()..).unwrap_or_default();
            }
            None => {
                out.push_str(OPEN);
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_of_the_stage_are_filled_in_and_nothing_else() {
        let value = |name: &str| (name != "GONE").then(|| format!("<{name} ${{{{ secrets.A }}}}>"));
        let settings = json!({"a": "Bearer ${{ secrets.A }}!${{ secrets.B }}", "b": ["${{ secrets.C }}", 1, null]});
        let filled = fill_secrets(&settings, &["A".into(), "B".into()], &value).unwrap();
        assert_eq!(filled["a"], "Bearer <A ${{ secrets.A }}>!<B ${{ secrets.A }}>");
        assert_eq!(filled["b"], json!(["${{ secrets.C }}", 1, null]));
        let settings = json!(placeholder("GONE"));
        assert_eq!(fill_secrets(&settings, &["GONE".into()], &value), Err("GONE".to_owned()));
        assert_eq!(fill_secrets(&json!("${{ secrets.A"), &["A".into()], &value), Ok(json!("${{ secrets.A")));
    }
}
