//! The real tree is clean, and one planted violation of each invariant is found.

use super::rules::RULES;
use super::{Tree, source};
use crate::paths;

/// `(invariant, file, text appended to it)`; a file that does not exist is created.
const PLANTS: &[(&str, &str, &str)] = &[
    ("I1", "crates/upgrade/src/planted.rs", "//! Planted.\nfn now() -> std::time::SystemTime { loop {} }\n"),
    ("I1", "crates/upgrade/src/planted.rs", "//! Planted.\nuse std::collections::HashMap;\n"),
    ("I1", "crates/release/src/planted.rs", "//! Planted.\nasync fn render() {}\n"),
    ("I1", "crates/apimachinery/src/planted.rs", "//! Planted.\nfn id() -> u64 { rand::random() }\n"),
    ("I1", "components/virt-operator/src/reconcile/build.rs", "\nfn read() { let _ = std::fs::read(\"x\"); }\n"),
    ("I1", "crates/upgrade/src/planted.rs", "//! Planted.\nuse std::{fs, time};\nfn f() { fs::read(\"x\"); }\n"),
    ("I1", "crates/upgrade/src/planted.rs", "//! Planted.\nfn f(s: std::hash::RandomState) {}\n"),
    ("I1", "components/virt-operator/src/reconcile/snapshot.rs", "\nfn f() { tokio::time::Instant::now(); }\n"),
    ("I2", "crates/upgrade/Cargo.toml", "\n[dependencies.tokio]\nworkspace = true\n"),
    ("I2", "crates/upgrade/Cargo.toml", "\n[target.'cfg(unix)'.dependencies]\ntokio = { workspace = true }\n"),
    ("I3", "components/virt-operator/src/planted.rs", "//! Planted.\nfn write() { client.request::<Pod>(request); }\n"),
    ("I3", "crates/runtime/src/planted.rs", "//! Planted.\nfn write(api: Api) { api.delete(\"x\", &params); }\n"),
    (
        "I4",
        "crates/apply/src/planted.rs",
        "//! Planted.\nfn f() { self.request(&k, api.delete(n, &p)); api.delete(n, &p); }\n",
    ),
    ("I4", "crates/apply/src/planted.rs", "//! Planted.\nfn f() { api.create(&rehearsed, &v); }\n"),
    ("I4", "crates/apply/src/planted.rs", "//! Planted.\nfn rehearsed() -> PostParams { PostParams::default() }\n"),
    ("I5", "crates/apply/src/planted.rs", "//! Planted.\n\nstatic RETRIES: u32 = 7;\n"),
    (
        "I6",
        "components/virt-operator/src/planted.rs",
        "//! Planted.\nfn f() { c.reason = Some(\"Because\".to_owned()); }\n",
    ),
    ("I8", "crates/nanokube/src/planted.rs", "//! Planted.\nconst KIND: &str = \"VirtualMachineInstance\";\n"),
    ("I9", "crates/nodes/Cargo.toml", "\n[dependencies.nanokube]\nworkspace = true\n"),
    ("I11", "crates/apply/src/planted.rs", "//! Planted.\nmod helpers {}\n"),
    ("I12", "crates/apply/src/planted/tests.rs", "//! Planted.\nfn t() { std::thread::park_timeout(SECOND); }\n"),
    ("I2", "crates/upgrade/Cargo.toml", "\n[dependencies]\ntokio = { workspace = true }\n"),
    ("I2", "crates/api/Cargo.toml", "\n[dependencies]\nkube = { workspace = true, features = [\"client\"] }\n"),
    (
        "I3",
        "components/virt-operator/src/planted.rs",
        "//! Planted.\nfn write(api: Api) { api.delete(\"x\", &params); }\n",
    ),
    ("I4", "crates/apply/src/planted.rs", "//! Planted.\nfn write(api: Api) { api.delete(\"x\", &params); }\n"),
    ("I5", "crates/apply/src/planted.rs", "//! Planted.\n\nconst RETRIES: u32 = 7;\n"),
    (
        "I5",
        "crates/runtime/src/planted.rs",
        "//! Planted.\nfn wait() { tokio::time::timeout(Duration::from_secs(7), work); }\n",
    ),
    (
        "I6",
        "crates/upgrade/src/planted.rs",
        "//! Planted.\nfn code(self) -> &'static str {\n    match self {\n        Self::A => \"PlantedReason\",\n    }\n}\n",
    ),
    (
        "I6",
        "components/virt-operator/src/planted.rs",
        "//! Planted.\nfn condition() -> C { C { reason: \"Because\".into() } }\n",
    ),
    (
        "I7",
        "crates/apply/src/planted.rs",
        "//! Planted.\n#[derive(Debug, Error)]\nenum A { X }\n#[derive(Debug, Error)]\nenum B { X }\n",
    ),
    ("I7", "crates/apply/src/planted.rs", "//! Planted.\nfn f() -> anyhow::Result<()> { Ok(()) }\n"),
    ("I8", "crates/nanokube/src/planted.rs", "//! Planted.\nconst NAME: &str = \"virt-api\";\n"),
    ("I9", "crates/nodes/Cargo.toml", "\n[dependencies]\nnanokube = { workspace = true }\n"),
    ("I10", "crates/planted/Cargo.toml", "[package]\n"),
    ("I11", "crates/apply/src/utils.rs", "//! Planted.\n"),
    ("I11", "crates/apply/src/planted.rs", "fn no_module_doc() {}\n"),
    ("I11", "crates/apply/src/planted.rs", concat!("//! Planted.\n// FIX", "ME later\n")),
    ("I12", "crates/apply/src/planted/tests.rs", "//! Planted.\nasync fn t() { tokio::time::sleep(SECOND).await; }\n"),
];

#[test]
fn the_tree_keeps_every_invariant() {
    let tree = Tree::load(&paths::root()).unwrap();
    for rule in RULES {
        let violations = (rule.check)(&tree);
        assert!(violations.is_empty(), "{} {}: {violations:#?}", rule.id, rule.invariant);
    }
}

#[test]
fn a_planted_violation_of_each_invariant_is_found() {
    let tree = Tree::load(&paths::root()).unwrap();
    for &(id, path, text) in PLANTS {
        let rule = RULES.iter().find(|rule| rule.id == id).unwrap();
        let before = (rule.check)(&tree).len();
        let mut planted = tree.clone();
        planted.0.entry(path.to_owned()).or_default().push_str(text);
        let after = (rule.check)(&planted).len();
        assert!(after > before, "{id} does not see what was planted in {path}:\n{text}");
    }
}

#[test]
fn every_invariant_has_a_plant_and_a_line_in_the_architecture() {
    let tree = Tree::load(&paths::root()).unwrap();
    for rule in RULES {
        assert!(PLANTS.iter().any(|(id, ..)| *id == rule.id), "{} has no planted violation", rule.id);
        assert!(
            tree.text("ARCHITECTURE.md").contains(&format!("| {} |", rule.id)),
            "{} is not in ARCHITECTURE.md",
            rule.id
        );
    }
}

#[test]
fn strings_comments_and_test_modules_are_no_code() {
    let text = "let a = \"HashMap\"; // HashMap\nlet b = r#\"HashMap\"#; let c = 'H';\n#[cfg(test)]\nmod tests { use HashMap; }\nHashMap";
    assert_eq!(source::lines_with(&source::shipped(text), "HashMap"), [5]);
    assert_eq!(source::lines_with(&source::shipped("random; rand::x"), "rand"), [1]);
}
