//! Durations as people write them: `30s`, `10m`, `1h 30m`.

use std::time::Duration;

use serde_json::Value;

use crate::expression::{Fault, noun};

/// The pattern by which the language's schema knows text that is a duration.
pub(crate) const DURATION_PATTERN: &str = "^ *([0-9]+(\\.[0-9]+)? *[A-Za-z]+ *)+$";
/// The longest that a duration may be.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The duration that a value of an expression is.
pub(crate) fn of_value(value: &Value) -> Result<Duration, Fault> {
    match value {
        Value::String(text) => of_text(text),
        Value::Number(number) => Err(Fault::new(format!("`{number}` has no unit")).hint(hint_for(number))),
        value => Err(Fault::new(format!("a duration is text such as `10m`, not {}", noun(value)))),
    }
}

/// The duration that a text is.
pub(crate) fn of_text(text: &str) -> Result<Duration, Fault> {
    let shown: String = text.chars().take(24).collect();
    let units = "write numbers with units, `ms`, `s`, `m`, `h` or `d`: `30s`, `10m`, `1h 30m`";
    if let Ok(number) = text.trim().parse::<serde_json::Number>() {
        return Err(Fault::new(format!("`{number}` has no unit")).hint(hint_for(&number)));
    }
    let duration =
        humantime::parse_duration(text).map_err(|_| Fault::new(format!("`{shown}` is not a duration")).hint(units))?;
    if duration.is_zero() {
        return Err(Fault::new(format!("`{shown}` is no time at all")).hint("write more, or leave it out"));
    }
    if duration > LONGEST {
        return Err(Fault::new(format!("`{shown}` is longer than a year")).hint("write less, or leave it out"));
    }
    Ok(duration)
}

/// What a number without a unit probably means.
pub(crate) fn hint_for(number: &serde_json::Number) -> String {
    match number.as_u64() {
        Some(seconds @ 1..) => format!("write `{seconds}s` for seconds, `{seconds}m` for minutes"),
        _ => "write a number and its unit: `30s`, `10m`, `1h 30m`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let seconds = |text| of_text(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("10m"), Ok(600.0));
        assert_eq!(seconds("1h 30m"), Ok(5400.0));
        assert_eq!(seconds("250ms"), Ok(0.25));
        assert_eq!(seconds("2 days"), Ok(172_800.0));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_to_write() {
        let refused = |text| of_text(text).unwrap_err();
        assert_eq!(refused("600").hint.unwrap(), "write `600s` for seconds, `600m` for minutes");
        assert_eq!(refused("ten minutes").message, "`ten minutes` is not a duration");
        assert_eq!(refused("-5s").message, "`-5s` is not a duration");
        assert_eq!(refused("0s").message, "`0s` is no time at all");
        assert_eq!(refused("1000 days").message, "`1000 days` is longer than a year");
        assert_eq!(refused("99999999999999999999999h").message, "`99999999999999999999999h` is not a duration");
        assert_eq!(refused("").message, "`` is not a duration");
    }
}
