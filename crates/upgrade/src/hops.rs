//! Through which versions a change goes (pure): releases are tested from one minor version to the next, so where the
//! releases in between are known they are gone through, one ordinary change after another.

use std::collections::BTreeSet;

use kubevirt_release::version::semantic;
use semver::Version;

/// Whether a minor version lies between the two, on the way up. Only semantic versions of one major version tell.
pub fn skips(from: &str, to: &str) -> bool {
    match (semantic(from), semantic(to)) {
        (Some(from), Some(to)) => from.major == to.major && to.minor > from.minor + 1,
        _ => false,
    }
}

/// Whether a released version is one to go through between two others.
pub fn is_between(from: &str, version: &str, to: &str) -> bool {
    match (semantic(from), semantic(version), semantic(to)) {
        (Some(from), Some(version), Some(to)) => lies_between(&from, &version, &to),
        _ => false,
    }
}

/// Nobody is led through what was not released.
fn lies_between(from: &Version, version: &Version, to: &Version) -> bool {
    let same_line = (from.major, to.major) == (version.major, version.major);
    same_line && version.pre.is_empty() && from.minor < version.minor && version.minor < to.minor
}

/// The versions to go through on the way from one that runs, in order; the last is the one that is wanted. `known` are those
/// that can be had. Nothing lies in between on the way back, nor where versions do not say which is the next.
pub fn hops<'a>(running: &str, wanted: &'a str, known: &'a BTreeSet<String>) -> Vec<&'a str> {
    let mut hops = Vec::new();
    if let (Some(mut from), Some(to)) = (semantic(running), semantic(wanted)) {
        while let Some((version, name)) = between(&from, &to, known) {
            hops.push(name);
            from = version;
        }
    }
    hops.push(wanted);
    hops
}

/// The version to be brought about now on the way from one that runs.
pub fn next<'a>(running: &str, wanted: &'a str, known: &'a BTreeSet<String>) -> &'a str {
    hops(running, wanted, known).first().copied().unwrap_or(wanted)
}

/// The highest patch of the next known minor version between two.
fn between<'a>(from: &Version, to: &Version, known: &'a BTreeSet<String>) -> Option<(Version, &'a str)> {
    let versions = known.iter().filter_map(|name| Some((semantic(name)?, name.as_str())));
    versions
        .filter(|(version, _)| lies_between(from, version, to))
        .min_by_key(|(version, _)| (version.minor, std::cmp::Reverse(version.patch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(running: &str, wanted: &str, known: &[&str]) -> Vec<String> {
        let known = known.iter().map(ToString::to_string).collect();
        hops(running, wanted, &known).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_next_minor_version_is_gone_through_at_its_highest_patch() {
        assert_eq!(way("v1.7.0", "v1.9.1", &["v1.8.0", "v1.8.3", "v1.8.10", "v1.9.0"]), ["v1.8.10", "v1.9.1"]);
        assert_eq!(way("v0.1.0", "v0.3.0", &["v0.2.0"]), ["v0.2.0", "v0.3.0"]);
        assert_eq!(way("v1.5.2", "v1.9.0", &["v1.8.0", "v1.6.1", "v1.7.0"]), ["v1.6.1", "v1.7.0", "v1.8.0", "v1.9.0"]);
        assert_eq!(way("v1.5.2", "v1.9.0", &["v1.7.0"]), ["v1.7.0", "v1.9.0"], "as far as versions are known");
        let known = ["v1.8.3".to_owned()].into();
        assert_eq!(next("v1.7.0", "v1.9.1", &known), "v1.8.3");
        assert_eq!(next("v1.8.3", "v1.9.1", &known), "v1.9.1");
        assert!(is_between("v1.7.0", "v1.8.3", "v1.9.1") && !is_between("v1.8.0", "v1.8.3", "v1.9.1"));
    }

    #[test]
    fn elsewhere_it_is_one_hop() {
        for (running, wanted, known) in [
            ("v1.7.0", "v1.9.1", ""),
            ("v1.7.0", "v1.9.1", "v1.7.5"),
            ("v1.7.0", "v1.9.1", "v1.9.0"),
            ("v1.7.0", "v1.9.1", "v1.8.0-rc.1"),
            ("v1.7.0", "v1.9.1", "v2.8.0"),
            ("v1.7.0", "v2.1.0", "v1.8.0"),
            ("v1.7.0", "v1.8.2", "v1.8.0"),
            ("v1.9.1", "v1.7.0", "v1.8.0"),
            ("v1.9.1", "v1.9.1", "v1.8.0"),
            ("devel", "v1.9.1", "v1.8.0"),
            ("v1.7.0", "latest", "v1.8.0"),
        ] {
            assert_eq!(way(running, wanted, &[known]), [wanted], "{running} to {wanted} with {known}");
        }
    }
}
