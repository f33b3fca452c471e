//! The paths of printer columns: `.a.b`, `.a['b.c']`, `.list[0]`, `.list[*].name`,
//! `.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// A path, read once and used for many objects.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Negative counts from the end.
    Index(i64),
    All,
    /// The items whose value at the path compares like this.
    Filter(Vec<Step>, Comparison, Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
}

/// A path that cannot be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("JSON path {path:?}, at character {at}: {problem}")]
pub struct JsonPathError {
    pub path: String,
    /// Counted from 0.
    pub at: usize,
    pub problem: String,
}

impl JsonPath {
    /// Reads a path; braces around it and a leading `$` are allowed.
    ///
    /// # Errors
    /// The text is not one of the forms this module knows.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let inner = inner.strip_prefix('$').unwrap_or(inner);
        let mut read = Reader { text: inner.as_bytes(), at: 0 };
        let steps = read.steps().and_then(|steps| {
            if read.at == read.text.len() { Ok(steps) } else { Err("expected '.' or '['".to_owned()) }
        });
        match steps {
            Ok(steps) => Ok(Self(steps)),
            Err(problem) => Err(JsonPathError { path: text.to_owned(), at: read.at, problem }),
        }
    }

    /// Every value the path leads to, in order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        find(&self.0, value)
    }

    /// The first value the path leads to: what a column shows.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.find(value).into_iter().next()
    }
}

fn find<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for v in found {
            match step {
                Step::Field(name) => next.extend(v.get(name)),
                Step::Index(i) => {
                    let list = v.as_array().map(Vec::as_slice).unwrap_or_default();
                    let back = usize::try_from(i.unsigned_abs()).unwrap_or(usize::MAX);
                    let i = if *i < 0 { list.len().checked_sub(back) } else { Some(back) };
                    next.extend(i.and_then(|i| list.get(i)));
                }
                Step::All => match v {
                    Value::Array(list) => next.extend(list),
                    Value::Object(map) => next.extend(map.values()),
                    _ => {}
                },
                Step::Filter(path, how, want) => {
                    for item in v.as_array().into_iter().flatten() {
                        let equal = find(path, item).first().is_some_and(|have| *have == want);
                        if equal == (*how == Comparison::Equal) {
                            next.push(item);
                        }
                    }
                }
            }
        }
        found = next;
    }
    found
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn takes(&mut self, word: &str) -> bool {
        let fits = self.text[self.at..].starts_with(word.as_bytes());
        if fits {
            self.at += word.len();
        }
        fits
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.takes(word) { Ok(()) } else { Err(format!("expected {word:?}")) }
    }

    fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    fn steps(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                Some(b'.') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'.') => return Err("searching all levels ('..') is not supported".into()),
                        Some(b'*') => {
                            self.at += 1;
                            steps.push(Step::All);
                        }
                        // `.` alone is the object itself, and `.[0]` is `[0]`.
                        Some(b'[') => {}
                        None if steps.is_empty() => {}
                        _ => steps.push(Step::Field(self.name()?)),
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    steps.push(self.bracket()?);
                }
                _ => return Ok(steps),
            }
        }
    }

    /// A field's name; a dot inside it is written `\.`.
    fn name(&mut self) -> Result<String, String> {
        let mut out = Vec::new();
        while let Some(b) = self.peek() {
            match b {
                b'\\' => {
                    self.at += 1;
                    out.push(self.peek().ok_or("nothing follows '\\'")?);
                }
                b'.' | b'[' | b']' | b' ' | b'=' | b'!' | b')' | b'<' | b'>' => break,
                _ => out.push(b),
            }
            self.at += 1;
        }
        if out.is_empty() {
            return Err("expected a field name".into());
        }
        String::from_utf8(out).map_err(|_| "a field name is not UTF-8".into())
    }

    fn bracket(&mut self) -> Result<Step, String> {
        let step = match self.peek() {
            Some(b'*') => {
                self.at += 1;
                Step::All
            }
            Some(b'\'' | b'"') => Step::Field(self.quoted()?),
            Some(b'?') => {
                self.at += 1;
                self.expect("(")?;
                self.spaces();
                self.expect("@")?;
                let path = self.steps()?;
                self.spaces();
                let how = if self.takes("==") {
                    Comparison::Equal
                } else if self.takes("!=") {
                    Comparison::NotEqual
                } else {
                    return Err("expected == or !=".into());
                };
                self.spaces();
                let want = self.literal()?;
                self.spaces();
                self.expect(")")?;
                Step::Filter(path, how, want)
            }
            _ => Step::Index(self.word().parse().map_err(|_| "expected an index, '*', a quoted name or '?'")?),
        };
        self.expect("]")?;
        Ok(step)
    }

    fn word(&mut self) -> &str {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'+')) {
            self.at += 1;
        }
        std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default()
    }

    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.peek().ok_or("expected a quoted text")?;
        self.at += 1;
        let mut out = Vec::new();
        while let Some(b) = self.peek() {
            self.at += 1;
            match b {
                b'\\' => {
                    out.push(self.peek().ok_or("nothing follows '\\'")?);
                    self.at += 1;
                }
                b if b == quote => return String::from_utf8(out).map_err(|_| "a name is not UTF-8".into()),
                b => out.push(b),
            }
        }
        Err("the quoted text does not end".into())
    }

    fn literal(&mut self) -> Result<Value, String> {
        match self.peek() {
            Some(b'\'' | b'"') => self.quoted().map(Value::String),
            _ => {
                serde_json::from_str(self.word()).map_err(|_| "expected a quoted text, a number, true or false".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds() {
        let object = json!({
            "metadata": {"name": "x", "labels": {"a.b/c": "label"}},
            "spec": {"list": [{"n": 1}, {"n": 2}, {"n": 3}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Live", "status": "False"}]},
        });
        for (path, want) in [
            (".metadata.name", json!(["x"])),
            ("{.metadata.name}", json!(["x"])),
            ("$.metadata.name", json!(["x"])),
            (".metadata.labels['a.b/c']", json!(["label"])),
            (r".metadata.labels.a\.b/c", json!(["label"])),
            (".spec.list[0].n", json!([1])),
            (".spec.list[-1].n", json!([3])),
            (".spec.list[7].n", json!([])),
            (".spec.list[*].n", json!([1, 2, 3])),
            (".spec.list[?(@.n==2)]", json!([{"n": 2}])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type == 'Live')].status", json!(["False"])),
            (".status.conditions[?(@.type != 'Live')].status", json!(["True"])),
            (".nothing.here", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap();
            assert_eq!(json!(found.find(&object)), want, "{path}");
        }
    }

    #[test]
    fn refuses() {
        for path in ["name", ".a[", ".a[x]", ".a[?(@.b)]", ".a..b", ".a['b", ".a[?(@.b==c)]", ".a."] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
