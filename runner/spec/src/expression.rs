//! Expressions: `params.x`, `matrix.y`, `env.z`, `secrets.s`, literals, comparisons and `&&`, `||`, `!`.

use serde_json::Value;

mod parse;

use parse::{Reader, operator_meant};

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    /// `'text'`, `1.5`, `true`
    Literal(Value),
    /// `params.name`
    Param(String),
    /// `matrix.key`
    Matrix(String),
    /// `env.NAME`
    Environment(String),
    /// `secrets.NAME`
    Secret(String),
    /// `!a`
    Not(Box<Expression>),
    /// `a == b` and the others
    Binary(Operator, Box<Expression>, Box<Expression>),
}

/// What stands between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
}

/// Operators by how tightly they bind, loosest first. Longer ones stand before their prefixes.
const LEVELS: [&[(&str, Operator)]; 3] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        ("<=", Operator::LessEqual),
        (">=", Operator::GreaterEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ],
];

/// An expression that cannot be read or evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What is wrong.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) hint: Option<String>,
    /// The part of the expression that is meant.
    pub(crate) focus: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, focus: None }
    }

    /// Says what the value is of.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.message = format!("`{name}`: {}", self.message);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn focus(mut self, focus: impl Into<String>) -> Self {
        self.focus = Some(focus.into());
        self
    }
}

/// What names stand for.
pub(crate) trait Scope {
    /// The value of a parameter.
    fn param(&self, name: &str) -> Result<Value, Stop>;
    /// The value of a matrix key.
    fn matrix(&self, key: &str) -> Result<Value, Stop>;
    /// The value of an environment variable.
    fn environment(&self, name: &str) -> Result<Value, Stop>;
    /// The text that stands for a secret.
    fn secret(&self, name: &str) -> Result<Value, Stop>;
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It rests on something that was reported already.
    Poisoned,
    /// It is wrong itself.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Expression {
    /// Reads the text between `${{` and `}}`.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut reader = Reader::new(text);
        if reader.rest.is_empty() {
            return Err(Fault::new("an empty expression").hint("write `${{ params.NAME }}` or `${{ matrix.KEY }}`"));
        }
        let expression = reader.level(0, 0)?;
        reader.skip();
        if reader.rest.is_empty() {
            return Ok(expression);
        }
        let fault = Fault::new(format!("unexpected `{}` in an expression", shorten(reader.rest))).focus(reader.rest);
        Err(match operator_meant(reader.rest) {
            Some(hint) => fault.hint(hint),
            None => fault,
        })
    }

    /// Calls `see` with the name of every matrix key that it mentions.
    pub(crate) fn matrix_keys<'a>(&'a self, see: &mut impl FnMut(&'a str)) {
        match self {
            Self::Matrix(key) => see(key),
            Self::Not(inner) => inner.matrix_keys(see),
            Self::Binary(_, left, right) => {
                left.matrix_keys(see);
                right.matrix_keys(see);
            }
            Self::Literal(_) | Self::Param(_) | Self::Environment(_) | Self::Secret(_) => {}
        }
    }

    /// The value. Both sides of `&&` and `||` are evaluated, so that mistakes on either are found.
    pub(crate) fn evaluate(&self, scope: &impl Scope) -> Result<Value, Stop> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Param(name) => scope.param(name),
            Self::Matrix(key) => scope.matrix(key),
            Self::Environment(name) => scope.environment(name),
            Self::Secret(name) => scope.secret(name),
            Self::Not(inner) => Ok(Value::Bool(!truth(&inner.operand(scope)?, "!")?)),
            Self::Binary(operator, left, right) => {
                Ok(Value::Bool(operator.apply(&left.operand(scope)?, &right.operand(scope)?)?))
            }
        }
    }
}

impl Expression {
    /// The value beside an operator, where no secret can stand: nothing may depend on its value.
    fn operand(&self, scope: &impl Scope) -> Result<Value, Stop> {
        if let Self::Secret(name) = self {
            let fault = Fault::new("a secret cannot be compared").focus(format!("secrets.{name}"));
            return Err(fault.hint(format!("let `${{{{ secrets.{name} }}}}` stand alone or within text")).into());
        }
        self.evaluate(scope)
    }
}

impl Operator {
    fn text(self) -> &'static str {
        LEVELS
            .iter()
            .flat_map(|level| level.iter())
            .find(|(_, operator)| *operator == self)
            .map_or("", |(text, _)| text)
    }

    fn apply(self, left: &Value, right: &Value) -> Result<bool, Fault> {
        let ordering = || match (left, right) {
            (Value::Number(a), Value::Number(b)) => {
                a.as_f64().partial_cmp(&b.as_f64()).ok_or_else(|| Fault::new("numbers that cannot be compared"))
            }
            (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
            _ => Err(Fault::new(format!(
                "`{}` compares two numbers or two texts, not {} and {}",
                self.text(),
                noun(left),
                noun(right)
            ))),
        };
        Ok(match self {
            Self::Or => truth(left, "||")? | truth(right, "||")?,
            Self::And => truth(left, "&&")? & truth(right, "&&")?,
            Self::Equal => equal(left, right),
            Self::Unequal => !equal(left, right),
            Self::Less => ordering()?.is_lt(),
            Self::LessEqual => ordering()?.is_le(),
            Self::Greater => ordering()?.is_gt(),
            Self::GreaterEqual => ordering()?.is_ge(),
        })
    }
}

/// Equality of JSON values, with numbers compared by value: `1 == 1.0`.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => left == right,
    }
}

fn truth(value: &Value, operator: &str) -> Result<bool, Fault> {
    value.as_bool().ok_or_else(|| {
        Fault::new(format!("`{operator}` wants a boolean, not {}", noun(value)))
            .hint("compare it: `params.x == 'y'` is a boolean")
    })
}

/// What a value is, for messages.
pub(crate) fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// At most 24 characters of a text, for messages.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(24).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Whether a text is a name: of a stage, parameter, matrix key or gate.
pub(crate) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
