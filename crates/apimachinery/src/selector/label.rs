//! Label selectors: the text form of queries and the JSON form inside objects.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::names;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted; empty for the operators that take none.
    pub values: BTreeSet<String>,
}

/// A conjunction of requirements. Without any it means every object; [`LabelSelector::nothing`] means none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    none: bool,
}

/// A label selector that cannot be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LabelSelectorError {
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Expected { found: String, expected: &'static str },
    #[error("unable to parse requirement: {0}")]
    Key(String),
    #[error("unable to parse requirement: {0}")]
    Value(String),
    #[error("for '{0}' operator, values set can't be empty")]
    NoValues(&'static str),
    #[error("values set must be empty for exists and does not exist")]
    NeedlessValues,
    #[error("for '{0}' operator, the value must be an integer")]
    NotANumber(&'static str),
    #[error("\"{0}\" is not a valid label selector operator")]
    Operator(String),
    #[error("the label selector is not an object with matchLabels and matchExpressions")]
    Shape,
}

impl LabelSelector {
    /// A selector that means no object: what an absent selector of a controller is.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), none: true }
    }

    /// Whether every object is meant.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.none
    }

    /// Reads the JSON form (`matchLabels`, `matchExpressions`). `null` means no object.
    ///
    /// # Errors
    /// A wrong shape, operator, key or value.
    pub fn from_json(value: &Value) -> Result<Self, LabelSelectorError> {
        let map = match value {
            Value::Null => return Ok(Self::nothing()),
            Value::Object(map) => map,
            _ => return Err(LabelSelectorError::Shape),
        };
        let mut requirements = Vec::new();
        match map.get("matchLabels") {
            None | Some(Value::Null) => {}
            Some(Value::Object(labels)) => {
                for (key, v) in labels {
                    let v = v.as_str().ok_or(LabelSelectorError::Shape)?;
                    requirements.push(Requirement::new(key, Operator::In, [v])?);
                }
            }
            Some(_) => return Err(LabelSelectorError::Shape),
        }
        match map.get("matchExpressions") {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => {
                for e in list {
                    let key = e.get("key").and_then(Value::as_str).ok_or(LabelSelectorError::Shape)?;
                    let operator = match e.get("operator").and_then(Value::as_str).unwrap_or_default() {
                        "In" => Operator::In,
                        "NotIn" => Operator::NotIn,
                        "Exists" => Operator::Exists,
                        "DoesNotExist" => Operator::DoesNotExist,
                        other => return Err(LabelSelectorError::Operator(other.to_owned())),
                    };
                    let values = e.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                    requirements.push(Requirement::new(key, operator, values.iter().filter_map(Value::as_str))?);
                }
            }
            Some(_) => return Err(LabelSelectorError::Shape),
        }
        Ok(Self { requirements, none: false })
    }

    /// A selector for exactly these labels, as in the selector of a Service.
    pub fn from_labels(labels: &Map<String, Value>) -> Self {
        let requirements = labels.iter().map(|(key, v)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: v.as_str().map(str::to_owned).into_iter().collect(),
        });
        Self { requirements: requirements.collect(), none: false }
    }

    /// Whether labels (an object of texts, or nothing) meet every requirement.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        !self.none && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether an object's labels meet every requirement.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(object.pointer("/metadata/labels").and_then(Value::as_object))
    }
}

impl Requirement {
    /// A requirement with a checked key and values.
    ///
    /// # Errors
    /// The key or a value is not one a label can have, or the operator does not take such values.
    pub fn new<'a>(
        key: &str,
        operator: Operator,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LabelSelectorError> {
        let values: BTreeSet<String> = values.into_iter().map(str::to_owned).collect();
        if let Some(problem) = names::label_key(key).into_iter().next() {
            return Err(LabelSelectorError::Key(problem));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err(LabelSelectorError::NoValues(if operator == Operator::In { "in" } else { "notin" }));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(LabelSelectorError::NeedlessValues);
            }
            Operator::GreaterThan | Operator::LessThan => {
                let sign = if operator == Operator::GreaterThan { "gt" } else { "lt" };
                if values.len() != 1 || values.iter().any(|v| v.parse::<i64>().is_err()) {
                    return Err(LabelSelectorError::NotANumber(sign));
                }
            }
            _ => {}
        }
        for v in &values {
            if let Some(problem) = names::label_value(v).into_iter().next() {
                return Err(LabelSelectorError::Value(problem));
            }
        }
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether labels meet the requirement.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let have = labels.and_then(|l| l.get(&self.key)).and_then(Value::as_str);
        let number = |s: &str| s.parse::<i64>().ok();
        let limit = || self.values.first().and_then(|v| number(v));
        match (self.operator, have) {
            (Operator::In, Some(v)) => self.values.contains(v),
            (Operator::NotIn, Some(v)) => !self.values.contains(v),
            (Operator::NotIn | Operator::DoesNotExist, None) | (Operator::Exists, Some(_)) => true,
            (Operator::GreaterThan, Some(v)) => number(v).zip(limit()).is_some_and(|(v, limit)| v > limit),
            (Operator::LessThan, Some(v)) => number(v).zip(limit()).is_some_and(|(v, limit)| v < limit),
            (_, None) | (Operator::DoesNotExist, Some(_)) => false,
        }
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, LabelSelectorError> {
        let mut read = Reader { tokens: tokens(text), at: 0 };
        let mut requirements = Vec::new();
        if read.tokens.is_empty() {
            return Ok(Self::default());
        }
        loop {
            requirements.push(read.requirement()?);
            match read.next().as_deref() {
                None => break,
                Some(",") if read.peek().is_some() => {}
                Some(",") => return Err(expected(None, "identifier after ','")),
                Some(other) => return Err(expected(Some(other), "',' or 'end of string'")),
            }
        }
        Ok(Self { requirements, none: false })
    }
}

fn expected(found: Option<&str>, expected: &'static str) -> LabelSelectorError {
    LabelSelectorError::Expected { found: found.unwrap_or_default().to_owned(), expected }
}

/// Splits a selector into words and signs.
fn tokens(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let sign = match c {
            '(' | ')' | ',' => c.to_string(),
            '=' if chars.next_if_eq(&'=').is_some() => "==".into(),
            '!' if chars.next_if_eq(&'=').is_some() => "!=".into(),
            '=' | '!' | '<' | '>' => c.to_string(),
            c if c.is_whitespace() => String::new(),
            c => {
                word.push(c);
                continue;
            }
        };
        if !word.is_empty() {
            out.push(std::mem::take(&mut word));
        }
        if !sign.is_empty() {
            out.push(sign);
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

struct Reader {
    tokens: Vec<String>,
    at: usize,
}

/// What may follow a key.
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

impl Reader {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Option<String> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn word(&mut self) -> Result<String, LabelSelectorError> {
        match self.next() {
            Some(w) if !is_sign(&w) => Ok(w),
            other => Err(expected(other.as_deref(), "identifier")),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        if self.peek() == Some("!") {
            self.at += 1;
            let key = self.word()?;
            return Requirement::new(&key, Operator::DoesNotExist, []);
        }
        let key = self.word()?;
        let operator = match self.peek() {
            None | Some(",") => return Requirement::new(&key, Operator::Exists, []),
            Some("=" | "==" | "in") => Operator::In,
            Some("!=" | "notin") => Operator::NotIn,
            Some(">" | "gt") => Operator::GreaterThan,
            Some("<" | "lt") => Operator::LessThan,
            Some(other) => return Err(expected(Some(other), OPERATORS)),
        };
        let sign = self.next().unwrap_or_default();
        let values = if matches!(sign.as_str(), "in" | "notin") {
            self.values()?
        } else if matches!(self.peek(), None | Some(",")) {
            vec![String::new()]
        } else {
            vec![self.word()?]
        };
        Requirement::new(&key, operator, values.iter().map(String::as_str))
    }

    fn values(&mut self) -> Result<Vec<String>, LabelSelectorError> {
        match self.next().as_deref() {
            Some("(") => {}
            other => return Err(expected(other, "'('")),
        }
        let mut out = Vec::new();
        loop {
            match self.peek().map(str::to_owned).as_deref() {
                Some(sign @ ("," | ")")) => {
                    out.push(String::new());
                    if sign == ")" {
                        self.at += 1;
                        return Ok(out);
                    }
                    self.at += 1;
                }
                _ => {
                    out.push(self.word()?);
                    match self.next().as_deref() {
                        Some(",") => {}
                        Some(")") => return Ok(out),
                        other => return Err(expected(other, "',' or ')'")),
                    }
                }
            }
        }
    }
}

fn is_sign(token: &str) -> bool {
    matches!(token, "(" | ")" | "," | "=" | "==" | "!=" | "!" | "<" | ">")
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator, values } = self;
        let first = values.first().map_or("", String::as_str);
        let all = || values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match operator {
            Operator::In if values.len() == 1 => write!(f, "{key}={first}"),
            Operator::NotIn if values.len() == 1 => write!(f, "{key}!={first}"),
            Operator::In => write!(f, "{key} in ({})", all()),
            Operator::NotIn => write!(f, "{key} notin ({})", all()),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{first}"),
            Operator::LessThan => write!(f, "{key}<{first}"),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            write!(f, "{}{r}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
