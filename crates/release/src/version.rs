//! Which of two versions is the newer one.
//!
//! Semantic versions are compared as such. Any other pair is looked up in the order of releases that `release.json`
//! gives. What neither knows counts as an upgrade: its order protects guests best.

use semver::Version;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Same,
    Upgrade,
    Downgrade,
}

/// How going from one version to another is to be treated. `releases` is the order of releases, oldest first.
pub fn direction(from: &str, to: &str, releases: &[impl AsRef<str>]) -> Direction {
    if from == to {
        return Direction::Same;
    }
    let order = match (semantic(from), semantic(to)) {
        (Some(from), Some(to)) => Some(from.cmp_precedence(&to)),
        _ => {
            let place = |v: &str| releases.iter().position(|r| r.as_ref() == v);
            place(from).zip(place(to)).map(|(from, to)| from.cmp(&to))
        }
    };
    match order {
        Some(std::cmp::Ordering::Greater) => Direction::Downgrade,
        Some(std::cmp::Ordering::Equal) => Direction::Same,
        Some(std::cmp::Ordering::Less) | None => Direction::Upgrade,
    }
}

/// A version tag as a semantic version; a leading `v` and a missing minor or patch number are allowed.
pub fn semantic(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let missing = match numbers.split('.').count() {
        1 => ".0.0",
        2 => ".0",
        _ => "",
    };
    Version::parse(&format!("{numbers}{missing}{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Downgrade, Same, Upgrade};

    #[test]
    fn versions_are_ordered() {
        const RELEASES: &[&str] = &["devel-1", "devel-2", "v1.0.0"];
        for (from, to, expected) in [
            ("v0.1.0", "v0.2.0", Upgrade),
            ("v0.10.0", "v0.9.0", Downgrade),
            ("v1.0.0-rc.1", "v1.0.0", Upgrade),
            ("v1.0.0", "1.0.0", Same),
            ("v0.30", "v0.29.1", Downgrade),
            ("devel-1", "devel-2", Upgrade),
            ("devel-2", "devel-1", Downgrade),
            ("v1.0.0", "devel-1", Downgrade),
            ("latest", "v1.0.0", Upgrade),
            ("v1.0.0", "latest", Upgrade),
            ("latest", "latest", Same),
        ] {
            assert_eq!(direction(from, to, RELEASES), expected, "{from} to {to}");
        }
    }
}
