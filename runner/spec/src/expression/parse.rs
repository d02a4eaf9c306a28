//! Reads expressions, and says what was probably meant by what is none.

use serde_json::{Number, Value};

use super::{Expression, Fault, LEVELS, is_name, shorten};
use crate::report::Report;

/// Operators and parentheses inside each other.
const MAX_DEPTH: usize = 32;

/// The text that is still to be read.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text.trim() }
    }

    pub(super) fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Operators of `LEVELS[level]` and whatever binds more tightly.
    pub(super) fn level(&mut self, level: usize, depth: usize) -> Result<Expression, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::new("an expression nested too deeply"));
        }
        let Some(operators) = LEVELS.get(level) else { return self.unary(depth) };
        let mut left = self.level(level + 1, depth)?;
        let mut operands = 1;
        while let Some((_, operator)) = operators.iter().find(|(token, _)| self.eat(token)) {
            operands += 1;
            if operands > MAX_DEPTH {
                return Err(Fault::new(format!("more than {MAX_DEPTH} operands in a row")));
            }
            let right = self.level(level + 1, depth)?;
            left = Expression::Binary(*operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self, depth: usize) -> Result<Expression, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::new("an expression nested too deeply"));
        }
        if self.eat("!") {
            return Ok(Expression::Not(Box::new(self.unary(depth + 1)?)));
        }
        if self.eat("(") {
            let inner = self.level(0, depth + 1)?;
            return if self.eat(")") { Ok(inner) } else { Err(Fault::new("a `(` without its `)` in an expression")) };
        }
        self.skip();
        match self.rest.chars().next() {
            None => Err(Fault::new("an expression that ends too early")),
            Some('\'') => self.quoted(),
            Some('"') => Err(Fault::new("text in an expression stands in single quotes").focus(self.rest)),
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(),
            Some(_) => self.name(),
        }
    }

    /// The longest beginning whose characters `keep` holds for.
    fn take(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// `'text'`, with `''` for a quote.
    fn quoted(&mut self) -> Result<Expression, Fault> {
        let mut text = String::new();
        loop {
            self.rest = self.rest.get(1..).unwrap_or_default();
            text.push_str(self.take(|c| c != '\''));
            if self.rest.is_empty() {
                return Err(Fault::new("text without its closing quote in an expression"));
            }
            self.rest = self.rest.get(1..).unwrap_or_default();
            if !self.rest.starts_with('\'') {
                return Ok(Expression::Literal(Value::String(text)));
            }
            text.push('\'');
        }
    }

    fn number(&mut self) -> Result<Expression, Fault> {
        let text = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'));
        let number = text.parse::<i64>().ok().map(Number::from);
        number
            .or_else(|| text.parse().ok().and_then(Number::from_f64))
            .map(|number| Expression::Literal(Value::Number(number)))
            .ok_or_else(|| Fault::new(format!("`{}` is not a number", shorten(text))).focus(text))
    }

    fn name(&mut self) -> Result<Expression, Fault> {
        let text = self.take(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
        let fault = |message: String| Fault::new(message).focus(text);
        match text.split_once('.') {
            Some(("params", name)) if is_name(name) => Ok(Expression::Param(name.to_owned())),
            Some(("matrix", key)) if is_name(key) => Ok(Expression::Matrix(key.to_owned())),
            Some(("env", name)) if is_name(name) => Ok(Expression::Environment(name.to_owned())),
            Some(("secrets", name)) if is_name(name) => Ok(Expression::Secret(name.to_owned())),
            _ if text == "true" => Ok(Expression::Literal(true.into())),
            _ if text == "false" => Ok(Expression::Literal(false.into())),
            _ if text.is_empty() => {
                Err(Fault::new(format!("unexpected `{}` in an expression", shorten(self.rest))).focus(self.rest))
            }
            Some(("params" | "matrix" | "env" | "secrets", _)) => {
                Err(fault(format!("`{}` does not name a value", shorten(text))))
            }
            Some((context, name)) => {
                let fault = fault(format!("unknown context `{}` in an expression", shorten(context)));
                Err(match meant(context) {
                    Some(meant) => fault.hint(format!("did you mean `{meant}.{}`?", shorten(name))),
                    None => fault.hint(
                        "there are `params.NAME`, `matrix.KEY`, `env.NAME` and `secrets.NAME`; what stages make is not known \
                         before the run, but `gates:` hold conditions on metrics",
                    ),
                })
            }
            None => {
                let fault = fault(format!("unknown name `{}` in an expression", shorten(text)));
                Err(match (meant(text), self.rest.trim_start().starts_with('(')) {
                    _ if text == "not" => fault.hint("negation is `!`"),
                    _ if matches!(text, "yes" | "on" | "True" | "TRUE") => fault.hint("write `true`"),
                    _ if matches!(text, "no" | "off" | "False" | "FALSE") => fault.hint("write `false`"),
                    (_, true) => fault.hint("there are no functions in expressions"),
                    (Some(meant), _) => fault.hint(format!("write `{meant}.NAME`")),
                    (None, _) => fault.hint(format!("a parameter is `params.{0}`, text is `'{0}'`", shorten(text))),
                })
            }
        }
    }
}

/// What to write instead of an operator of another language.
pub(super) fn operator_meant(rest: &str) -> Option<&'static str> {
    let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    Some(match (word.to_ascii_lowercase().as_str(), rest.chars().next()?) {
        ("and", _) | (_, '&') => "both is `&&`",
        ("or", _) | (_, '|') => "either is `||`",
        ("not", _) => "negation is `!`",
        ("in" | "contains" | "matches", _) => "there are `==`, `!=`, `<`, `<=`, `>` and `>=`",
        (_, '=') => "equality is `==`",
        (_, '+' | '-' | '*' | '/' | '%') => "there is no arithmetic in expressions",
        (_, '?' | ':') => "there is no choice in expressions: make two stages with `when:`",
        (_, '(') => "there are no functions in expressions",
        (_, '[') => "write `params.NAME` for a value by its name",
        _ => return None,
    })
}

/// The context that was meant by a word that is none.
fn meant(word: &str) -> Option<&'static str> {
    let synonyms = [
        ("params", "params parameters parameter param inputs vars variables var"),
        ("matrix", "matrix matrices strategy"),
        ("env", "env environment environ envs"),
        ("secrets", "secrets secret"),
    ];
    let word = word.to_lowercase();
    let exact = synonyms.iter().find(|(_, words)| words.split(' ').any(|known| known == word));
    exact
        .map(|(context, _)| *context)
        .or_else(|| Report::default().nearest(&word, synonyms.iter().map(|(context, _)| *context)))
}
