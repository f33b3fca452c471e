//! The dependencies a Cargo.toml names, in whichever of TOML's forms.

/// One dependency that ships (development dependencies do not).
pub(super) struct Dependency<'a> {
    /// 1-based.
    pub(super) line: usize,
    pub(super) name: &'a str,
    /// The line, or the lines of a table of its own.
    pub(super) text: String,
}

/// The dependencies of a package: `[dependencies]`, `[dependencies.NAME]`, and the same of a target or a build script.
pub(super) fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut found: Vec<Dependency<'_>> = Vec::new();
    // Inside a list of dependencies, inside the table of one, or elsewhere.
    let (mut list, mut table) = (false, false);
    for (i, line) in manifest.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let (parent, last) = header.rsplit_once('.').unwrap_or(("", header));
            let ships = |name: &str| {
                let name = name.rsplit('.').next().unwrap_or_default();
                matches!(name, "dependencies" | "build-dependencies")
            };
            (list, table) = (ships(header), ships(parent));
            if table {
                found.push(Dependency { line: i, name: last, text: String::new() });
            }
        } else if list && !line.is_empty() && !line.starts_with('#') {
            let name = line.split([' ', '=', '.']).next().unwrap_or_default().trim_matches('"');
            found.push(Dependency { line: i, name, text: line.to_owned() });
        } else if table && let Some(last) = found.last_mut() {
            last.text.push_str(line);
        }
    }
    found
}
