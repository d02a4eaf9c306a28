//! What scalars without quotes are: nothing, booleans, numbers or text. `serde_yaml` says so.

use serde_json::Number;

use crate::yaml::Data;

/// Whether a scalar without quotes could be something else than text.
pub(crate) fn is_open(text: &str) -> bool {
    let word = |text: &str| ["true", "false", "null"].iter().any(|word| text.eq_ignore_ascii_case(word));
    let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && text != "-";
    text == "~"
        || (word(text) || number(text)) && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-._".contains(&c))
}

/// Reads scalars for which [`is_open`] holds, all at once. `None`: a number that is not finite.
pub(crate) fn resolve(texts: Vec<String>) -> Vec<Option<Data>> {
    use serde_yaml::Value as Yaml;
    let list: String = texts.iter().map(|text| format!("- {text}\n")).collect();
    let values: Vec<Yaml> = serde_yaml::from_str(&list).unwrap_or_default();
    let mut values = values.into_iter();
    let read = |text| match values.next() {
        Some(Yaml::Null) => Some(Data::Null),
        Some(Yaml::Bool(value)) => Some(Data::Boolean(value)),
        Some(Yaml::Number(value)) => json_number(&value).map(Data::Number),
        _ => Some(Data::Text(text)),
    };
    texts.into_iter().map(read).collect()
}

fn json_number(value: &serde_yaml::Number) -> Option<Number> {
    let whole = value.as_i64().map(Number::from).or_else(|| value.as_u64().map(Number::from));
    whole.or_else(|| value.as_f64().and_then(Number::from_f64))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::yaml;

    #[test]
    fn scalars_are_what_yaml_1_2_says() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("Null", json!(null)),
            ("nul", json!("nul")),
            ("True", json!(true)),
            ("yes", json!("yes")),
            ("7", json!(7)),
            ("+7", json!(7)),
            ("-7", json!(-7)),
            ("0x1F", json!(31)),
            ("007", json!("007")),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            (".5", json!(0.5)),
            ("-1e3", json!(-1000.0)),
            ("1_000", json!("1_000")),
            ("1.2.3", json!("1.2.3")),
            ("--5", json!("--5")),
            ("nan", json!("nan")),
            ("12:30", json!("12:30")),
            ("3 apples", json!("3 apples")),
            (".", json!(".")),
        ];
        let text: String = cases.iter().map(|(text, _)| format!("- {text}\n")).collect();
        let Ok(read) = yaml::parse(&text) else { panic!("not read") };
        assert!(read.mistakes.is_empty());
        let expected: Vec<Value> = cases.into_iter().map(|(_, value)| value).collect();
        assert_eq!(read.root.to_json(), Value::Array(expected));
        for text in [".inf", "-.Inf", "+.INF", ".nan"] {
            assert_eq!(yaml::parse(text).map(|read| read.mistakes.len()).unwrap_or(9), 1, "{text}");
        }
    }
}
