//! Checks the invariants of ARCHITECTURE.md on the text of the tree. What the compiler or clippy can check is not here.

mod manifest;
mod rules;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::term;
use rules::RULES;

/// The text files of a checkout by their path from the root.
#[derive(Clone, Default)]
struct Tree(BTreeMap<String, String>);

/// A place that breaks an invariant.
#[derive(Debug)]
struct Violation {
    path: String,
    /// 1-based; 0 when the whole file is meant.
    line: usize,
    what: String,
}

impl Tree {
    fn load(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.walk(root, root)?;
        Ok(tree)
    }

    fn walk(&mut self, root: &Path, dir: &Path) -> Result<()> {
        for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !matches!(name, ".git" | "target" | "dist") {
                    self.walk(root, &path)?;
                }
            } else if let Some("rs" | "toml" | "md" | "yaml" | "txt" | "sh") = path.extension().and_then(|e| e.to_str())
            {
                let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                let relative = path.strip_prefix(root).expect("walked from the root").to_string_lossy().into_owned();
                self.0.insert(relative, text);
            }
        }
        Ok(())
    }

    fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// Rust files below any of the given folders.
    fn rust<'a>(&'a self, folders: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let below = move |path: &str| folders.iter().any(|folder| path.starts_with(folder));
        self.0
            .iter()
            .filter(move |(path, _)| path.ends_with(".rs") && below(path))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// Prints one row per invariant and fails when any is broken.
///
/// # Errors
/// The number of violations; each was printed with its place.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::load(root)?;
    let mut broken = 0;
    let mut rows = Vec::new();
    for rule in RULES {
        let violations = (rule.check)(&tree);
        for Violation { path, line, what } in &violations {
            println!("  {path}:{line}: {what} [{}]", rule.id);
        }
        let verdict = if violations.is_empty() { "holds".to_owned() } else { format!("{} broken", violations.len()) };
        rows.push(vec![rule.id.to_owned(), verdict, rule.invariant.to_owned()]);
        broken += violations.len();
    }
    term::table(&["ID", "VERDICT", "INVARIANT"], &rows);
    if broken > 0 {
        bail!("{broken} violations of the invariants in ARCHITECTURE.md");
    }
    Ok(())
}
