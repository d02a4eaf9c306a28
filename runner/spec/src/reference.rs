//! References to stages: `data`, `data.classes`, `metrics[model=b32].top1`.

use crate::expression::is_name;

/// A reference as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// The stage's name.
    pub(crate) stage: &'a str,
    /// The matrix coordinates given, key and value name.
    pub(crate) pins: Vec<(&'a str, &'a str)>,
    /// What stands behind the dot: a port, a metric.
    pub(crate) rest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Reads a reference; `None` if the text is none.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let end = text.find(['[', '.']).unwrap_or(text.len());
        let (stage, mut rest) = text.split_at(end);
        let mut pins = Vec::new();
        if let Some(inside) = rest.strip_prefix('[') {
            let (list, behind) = inside.split_once(']')?;
            for pin in list.split(',') {
                let (key, label) = pin.split_once('=')?;
                pins.push((key.trim(), label.trim()));
            }
            rest = behind;
        }
        let rest = match rest.strip_prefix('.') {
            Some("") => return None,
            Some(rest) => Some(rest),
            None if rest.is_empty() => None,
            None => return None,
        };
        (is_name(stage) && pins.iter().all(|(key, label)| is_name(key) && is_label(label))).then_some(Self {
            stage,
            pins,
            rest,
        })
    }
}

/// Whether a text can name a matrix value inside brackets.
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.chars().count() <= 100
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "[],='\"`{}".contains(c))
}

/// The full name of an instance: `metrics[model=b32,seed=1]`.
pub(crate) fn instance_name(base: &str, coordinates: &[(String, String)]) -> String {
    if coordinates.is_empty() {
        return base.to_owned();
    }
    let inside: Vec<_> = coordinates.iter().map(|(key, label)| format!("{key}={label}")).collect();
    format!("{base}[{}]", inside.join(","))
}
