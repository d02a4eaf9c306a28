//! What a scalar without quotes is: nothing, a boolean, a number or text, as YAML 1.2 has it.

use serde_json::Number;

use crate::yaml::Data;

/// Reads a scalar without quotes. `None`: a number that is not finite.
pub(crate) fn resolve(text: String) -> Option<Data> {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Data::Null),
        "true" | "True" | "TRUE" => return Some(Data::Boolean(true)),
        "false" | "False" | "FALSE" => return Some(Data::Boolean(false)),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ => {}
    }
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text.as_str()),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Some(Data::Text(text));
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return None;
    }
    if let Some(number) = integer(negative, digits) {
        return Some(Data::Number(number));
    }
    // `007` is text: a number would lose its zeros.
    let padded = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if !padded => Number::from_f64(number).map(Data::Number),
        _ => Some(Data::Text(text)),
    }
}

/// A whole number: decimal, `0x`, `0o` or `0b`.
fn integer(negative: bool, digits: &str) -> Option<Number> {
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let based = prefixes.iter().find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, *radix)));
    let (digits, radix) = match based {
        Some(based) => based,
        None if digits.len() > 1 && digits.starts_with('0') => return None,
        None => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0_i64.checked_sub_unsigned(value).map(Number::from) } else { Some(value.into()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{report::Span, yaml::Node};

    fn read(text: &str) -> Option<Value> {
        Some(Node { span: Span::default(), data: resolve(text.to_owned())? }.to_json())
    }

    #[test]
    fn scalars_are_what_yaml_1_2_says() {
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("True", json!(true)),
            ("yes", json!("yes")),
            ("7", json!(7)),
            ("+7", json!(7)),
            ("-7", json!(-7)),
            ("0x1F", json!(31)),
            ("-0b11", json!(-3)),
            ("0o17", json!(15)),
            ("007", json!("007")),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("5.", json!(5.0)),
            ("-1e3", json!(-1000.0)),
            ("00.5", json!(0.5)),
            ("1_000", json!("1_000")),
            ("1.2.3", json!("1.2.3")),
            ("--5", json!("--5")),
            ("0x", json!("0x")),
            ("0x-5", json!("0x-5")),
            ("inf", json!("inf")),
            ("nan", json!("nan")),
            ("12:30", json!("12:30")),
            (".", json!(".")),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in [".inf", "-.Inf", "+.INF", ".nan", "1e999", "-1e999"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
