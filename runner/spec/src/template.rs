//! Text leaves with `${{ … }}` in them, and their substitution in a tree.

use serde_json::Value;

use crate::{
    expression::{Expression, Fault, Scope, Stop, noun},
    report::{Mistake, Report, Span},
    yaml::{Data, Entry, Node},
};

/// How an expression begins. `$${{` is the text `${{`.
pub(crate) const OPEN: &str = "${{";

/// A piece of a text leaf.
#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Expression(Expression),
}

/// Whether a text has an expression, or an escaped one, in it.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains(OPEN)
}

/// Splits a text at its expressions.
fn pieces(text: &str) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let (before, behind) = (&rest[..at], &rest[at + OPEN.len()..]);
        if let Some(before) = before.strip_suffix('$') {
            plain.push_str(before);
            plain.push_str(OPEN);
            rest = behind;
            continue;
        }
        let Some(end) = end_of_expression(behind) else {
            return Err(Fault::new("an expression without its `}}`")
                .hint("write `$${{` for the text `${{`")
                .focus(&rest[at..]));
        };
        plain.push_str(before);
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Expression(Expression::parse(&behind[..end])?));
        rest = &behind[end + 2..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// Position of the `}}` that closes an expression: the first outside quotes.
fn end_of_expression(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut last = '\0';
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '}' if !quoted && last == '}' => return Some(at - 1),
            _ => {}
        }
        last = c;
    }
    None
}

/// Calls `see` with each matrix key that a leaf mentions; reports what cannot be parsed.
pub(crate) fn matrix_keys(text: &str, see: &mut impl FnMut(&str)) -> Result<(), Fault> {
    for piece in pieces(text)? {
        if let Piece::Expression(expression) = piece {
            expression.matrix_keys(see);
        }
    }
    Ok(())
}

/// The value of a text leaf: of its expression, if that fills it, else text.
pub(crate) fn evaluate(text: &str, scope: &impl Scope) -> Result<Value, Stop> {
    let pieces = pieces(text)?;
    if let [Piece::Expression(expression)] = pieces.as_slice() {
        return expression.evaluate(scope);
    }
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Expression(expression) => match expression.evaluate(scope)? {
                Value::String(text) => out.push_str(&text),
                value @ (Value::Number(_) | Value::Bool(_)) => out.push_str(&value.to_string()),
                value => {
                    return Err(Fault::new(format!("{} cannot stand inside text", noun(&value)))
                        .hint("let the expression be the whole value")
                        .into());
                }
            },
        }
    }
    Ok(Value::String(out))
}

/// What a substituted tree is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quality {
    /// Every expression has a value.
    Whole,
    /// Some do not; their leaves are left as they were.
    Poisoned,
}

/// The tree with every text leaf evaluated. Leaves without a value are reported and removed from lists and mappings.
pub(crate) fn substitute(node: &Node, scope: &impl Scope, report: &mut Report) -> (Option<Node>, Quality) {
    let mut quality = Quality::Whole;
    let span = node.span;
    let data = match &node.data {
        Data::Text(text) if is_template(text) => match evaluate(text, scope) {
            Ok(value) => return (Some(Node::of_json(&value, span)), Quality::Whole),
            Err(stop) => {
                report_stop(stop, span, report);
                return (None, Quality::Poisoned);
            }
        },
        Data::List(items) => {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                let (item, worth) = substitute(item, scope, report);
                kept.extend(item);
                quality = if worth == Quality::Poisoned { worth } else { quality };
            }
            Data::List(kept)
        }
        Data::Map(entries) => {
            let mut kept = Vec::with_capacity(entries.len());
            for entry in entries {
                let (value, worth) = substitute(&entry.value, scope, report);
                kept.extend(value.map(|value| Entry { key: entry.key.clone(), span: entry.span, value }));
                quality = if worth == Quality::Poisoned { worth } else { quality };
            }
            Data::Map(kept)
        }
        Data::Broken => return (None, Quality::Poisoned),
        data => data.clone(),
    };
    (Some(Node { span, data }), quality)
}

/// Reports why a leaf has no value, unless that was reported already.
pub(crate) fn report_stop(stop: Stop, span: Span, report: &mut Report) {
    if let Stop::Fault(fault) = stop {
        report.add(fault.at(span));
    }
}

impl Fault {
    /// The mistake that this is in a leaf.
    pub(crate) fn at(self, span: Span) -> Mistake {
        let mut mistake = Mistake::at(span, self.message).maybe_hint(self.hint);
        mistake.focus = self.focus;
        mistake
    }
}
