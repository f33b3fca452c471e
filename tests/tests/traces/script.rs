//! Scripts: text to commands.

use std::time::Duration;

use serde_json::Value;

use crate::kinds::Kind;

/// A story.
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) nodes: u32,
    pub(crate) lines: Vec<Line>,
}

/// A line of a script, as it is echoed, and what it means.
pub(crate) struct Line {
    pub(crate) echo: String,
    pub(crate) meaning: Meaning,
}

pub(crate) enum Meaning {
    Comment,
    Command(Command),
}

pub(crate) enum Command {
    Follow(Vec<Kind>),
    Hide(Vec<String>),
    Apply(Vec<Value>),
    Patch {
        kind: Kind,
        name: String,
        subresource: Option<String>,
        patch: Value,
    },
    Delete {
        kind: Kind,
        name: String,
        how: How,
    },
    Evict {
        pod: String,
        every: Option<Duration>,
    },
    Cordon {
        node: String,
        unschedulable: bool,
    },
    Power {
        node: String,
        on: bool,
    },
    Wait {
        kind: Kind,
        name: String,
        tests: Vec<Test>,
    },
    Advance(Duration),
    Show(Kind),
    /// A path of the API, asked for as it is.
    Get(String),
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy)]
pub(crate) enum How {
    Background,
    Foreground,
    Orphan,
}

/// What a wait waits for.
pub(crate) enum Test {
    Gone,
    /// The first word of a value, or all of it.
    Is(String, String),
    AtLeast(String, i64),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the first line must be `cluster seed=N nodes=N`, not `{0}`")]
    First(String),
    #[error("`{0}`: no such command; main.rs lists them")]
    Command(String),
    #[error("`{line}`: {what}")]
    Words { line: String, what: String },
    #[error("`{line}`: the block is no YAML: {why}")]
    Yaml { line: String, why: String },
}

/// Reads a script.
///
/// # Errors
/// The line that is not understood, and why.
pub(crate) fn parse(text: &str) -> Result<Script, Error> {
    let mut lines = text.lines().peekable();
    let first = lines.next().unwrap_or_default();
    let number = |key: &str| first.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    let (Some("cluster"), Some(seed), Some(nodes)) = (first.split(' ').next(), number("seed="), number("nodes="))
    else {
        return Err(Error::First(first.to_owned()));
    };
    let mut script = Script { seed, nodes: u32::try_from(nodes).unwrap_or(u32::MAX), lines: Vec::new() };
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let echo = line.trim_end().to_owned();
        if line.starts_with('#') {
            script.lines.push(Line { echo, meaning: Meaning::Comment });
            continue;
        }
        let mut block = String::new();
        while let Some(inner) = lines.next_if(|next| next.starts_with("  ") || next.trim().is_empty()) {
            block.push_str(inner.strip_prefix("  ").unwrap_or_default());
            block.push('\n');
        }
        let meaning = Meaning::Command(command(&echo, &block)?);
        script.lines.push(Line { echo, meaning });
    }
    Ok(script)
}

fn documents(line: &str, block: &str) -> Result<Vec<Value>, Error> {
    let parts = block.split("---\n").filter(|part| !part.trim().is_empty());
    parts
        .map(|part| {
            serde_saphyr::from_str(part).map_err(|error| Error::Yaml { line: line.to_owned(), why: error.to_string() })
        })
        .collect()
}

fn command(line: &str, block: &str) -> Result<Command, Error> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let wrong = |what: &str| Error::Words { line: line.to_owned(), what: what.to_owned() };
    let kind = |word: &str| Kind::find(word).ok_or_else(|| wrong(&format!("no kind `{word}`; kinds.rs lists them")));
    let time = |word: &str| word.parse().map(Duration::from_secs_f64).map_err(|_| wrong("time is a number of seconds"));
    Ok(match words.as_slice() {
        ["follow", kinds @ ..] => Command::Follow(kinds.iter().map(|word| kind(word)).collect::<Result<_, _>>()?),
        ["hide", reasons @ ..] => Command::Hide(reasons.iter().map(|word| (*word).to_owned()).collect()),
        ["apply"] => Command::Apply(documents(line, block)?),
        ["patch", of, name, rest @ ..] => {
            let mut documents = documents(line, block)?;
            let (Some(patch), true) = (documents.pop(), documents.is_empty()) else {
                return Err(wrong("a patch has one document"));
            };
            let subresource = rest.first().map(|word| (*word).to_owned());
            Command::Patch { kind: kind(of)?, name: (*name).to_owned(), subresource, patch }
        }
        ["delete", of, name, rest @ ..] => {
            let how = match rest {
                [] => How::Background,
                ["foreground"] => How::Foreground,
                ["orphan"] => How::Orphan,
                _ => return Err(wrong("say `foreground`, `orphan` or nothing")),
            };
            Command::Delete { kind: kind(of)?, name: (*name).to_owned(), how }
        }
        ["evict", pod] => Command::Evict { pod: (*pod).to_owned(), every: None },
        ["evict", pod, "every", period] => Command::Evict { pod: (*pod).to_owned(), every: Some(time(period)?) },
        [word @ ("cordon" | "uncordon"), node] => {
            Command::Cordon { node: (*node).to_owned(), unschedulable: *word == "cordon" }
        }
        ["node", word @ ("down" | "up"), node] => Command::Power { node: (*node).to_owned(), on: *word == "up" },
        ["wait", of, name, tests @ ..] if !tests.is_empty() => Command::Wait {
            kind: kind(of)?,
            name: (*name).to_owned(),
            tests: tests
                .iter()
                .map(|word| test(word).ok_or_else(|| wrong("a test is label=value, label>=N or gone")))
                .collect::<Result<_, _>>()?,
        },
        ["advance", period] => Command::Advance(time(period)?),
        ["get", path] => Command::Get((*path).to_owned()),
        ["show", of] => Command::Show(kind(of)?),
        _ => return Err(Error::Command(line.to_owned())),
    })
}

fn test(word: &str) -> Option<Test> {
    if word == "gone" {
        return Some(Test::Gone);
    }
    if let Some((label, number)) = word.split_once(">=") {
        return Some(Test::AtLeast(label.to_owned(), number.parse().ok()?));
    }
    let (label, value) = word.split_once('=')?;
    Some(Test::Is(label.to_owned(), value.to_owned()))
}
