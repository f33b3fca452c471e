//! Field selectors: `metadata.name=x,spec.nodeName!=y`.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// A conjunction of comparisons of fields with texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

/// A field selector that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldSelectorError {
    #[error("invalid selector: {0:?}; can't understand {1:?}")]
    Syntax(String, String),
    #[error("invalid field selector: {0:?} ends in a backslash, or escapes what needs no escape")]
    Escape(String),
    #[error("{field:?} is not a known field selector: only {}", quoted(known))]
    Unknown { field: String, known: Vec<String> },
}

fn quoted(known: &[String]) -> String {
    known.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>().join(", ")
}

impl FieldSelector {
    /// Whether every object is meant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields the selector names.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|t| t.field.as_str())
    }

    /// The value a field must have, when the selector fixes it: how a server finds a single object.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// Refuses fields a resource cannot be selected by.
    ///
    /// # Errors
    /// A field outside `known`.
    pub fn only(&self, known: &[&str]) -> Result<(), FieldSelectorError> {
        match self.0.iter().find(|t| !known.contains(&t.field.as_str())) {
            None => Ok(()),
            Some(t) => Err(FieldSelectorError::Unknown {
                field: t.field.clone(),
                known: known.iter().map(|k| (*k).to_owned()).collect(),
            }),
        }
    }

    /// Whether an object is meant. A field that is absent counts as empty.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|t| {
            let have = t.field.split('.').try_fold(object, |v, name| v.get(name));
            let have = match have {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(s)) => s.clone(),
                Some(other) => other.to_string(),
            };
            (have == t.value) == t.equal
        })
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, FieldSelectorError> {
        let mut terms = Vec::new();
        for part in split(text) {
            if part.is_empty() {
                continue;
            }
            let wrong = || FieldSelectorError::Syntax(text.to_owned(), part.to_owned());
            let (at, len, equal) = operator(part).ok_or_else(wrong)?;
            let (field, value) = (&part[..at], &part[at + len..]);
            terms.push(Term { field: field.to_owned(), equal, value: unescape(value)? });
        }
        Ok(Self(terms))
    }
}

/// Splits at commas that are not escaped.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            b',' if !escaped => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            b'\\' if !escaped => {
                escaped = true;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
    out.push(&text[start..]);
    out
}

/// Where the comparison stands, how long it is, and whether it asks for equality.
fn operator(term: &str) -> Option<(usize, usize, bool)> {
    (0..term.len()).filter(|i| term.is_char_boundary(*i)).find_map(|i| {
        let rest = &term[i..];
        if rest.starts_with("!=") {
            Some((i, 2, false))
        } else if rest.starts_with("==") {
            Some((i, 2, true))
        } else if rest.starts_with('=') {
            Some((i, 1, true))
        } else {
            None
        }
    })
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let wrong = || FieldSelectorError::Escape(value.to_owned());
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return Err(wrong()),
            },
            ',' | '=' => return Err(wrong()),
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.0.iter().enumerate() {
            let value = t.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            let (comma, how) = (if i == 0 { "" } else { "," }, if t.equal { "=" } else { "!=" });
            write!(f, "{comma}{}{how}{value}", t.field)?;
        }
        Ok(())
    }
}
