//! Every reason for which a change of version waits, is held or is undone says in docs/upgrades.md what to do about it.

const PAGE: &str = include_str!("../../../../docs/upgrades.md");

/// Where codes are given to reasons.
const SOURCES: [(&str, &str); 4] = [
    ("reason.rs", include_str!("../reason.rs")),
    ("health.rs", include_str!("../health.rs")),
    ("preflight.rs", include_str!("../preflight.rs")),
    ("input.rs", include_str!("../input.rs")),
];

/// The codes in the `fn code` of a source.
fn codes(source: &str) -> Vec<&str> {
    let body = source.split_once("fn code(").expect("a source with codes").1;
    let body = body.split_once("\n    }\n").expect("an end of the function").0;
    body.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).collect()
}

#[test]
fn every_reason_has_an_entry() {
    let table = PAGE.split_once("## What to do for each reason").expect("the section").1;
    let mut seen = 0;
    for (name, source) in SOURCES {
        for code in codes(source) {
            seen += 1;
            let row = table.lines().find(|line| line.starts_with("| ") && line.contains(&format!("`{code}`")));
            let advice = row.and_then(|row| row.split('|').nth(3)).unwrap_or_default();
            assert!(!advice.trim().is_empty(), "{name}: {code} has no advice in docs/upgrades.md");
        }
    }
    assert!(seen > 20, "only {seen} codes were found");
}

/// Reasons for which a change does not even begin. The operator's are those with which it refuses to follow the custom resource.
#[test]
fn every_refusal_has_an_entry() {
    let table = PAGE.split_once("## What to do for each reason").expect("the section").1;
    let named = |source: &'static str, mark: &'static str| -> Vec<&str> {
        let is_name = |c: char| c.is_ascii_alphanumeric();
        let words = source.split(mark).skip(1).filter_map(|rest| rest.split(|c| !is_name(c)).next());
        words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase())).collect()
    };
    let refusals = named(include_str!("../../../../components/virt-operator/src/reconcile/validate.rs"), "Reason::");
    let pending = named(include_str!("../../../../components/virt-operator/src/reconcile/mod.rs"), "ConditionReason::");
    let of_virtctl = codes(include_str!("../../../../components/virtctl/src/upgrade/mod.rs"));
    assert!(
        refusals.contains(&"TargetUnavailable") && pending.contains(&"StrategyPending"),
        "{refusals:?} {pending:?}"
    );
    assert!(of_virtctl.contains(&"NoUpgrade"), "{of_virtctl:?}");
    for code in refusals.into_iter().chain(pending).chain(of_virtctl) {
        assert!(table.contains(&format!("`{code}`")), "{code} has no advice in docs/upgrades.md");
    }
}
