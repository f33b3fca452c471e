use super::*;

fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> Rule {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Rule { verbs: own(verbs), groups: own(groups), resources: own(resources), names: own(names), paths: Vec::new() }
}

fn asked<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
    Attributes { verb, group, resource, name, ..Attributes::default() }
}

#[test]
fn a_rule_allows_what_it_names_and_nothing_else() {
    let pods = rule(&[""], &["pods"], &[], &["get", "list"]);
    assert!(pods.allows(&asked("get", "", "pods", "p")));
    assert!(!pods.allows(&asked("delete", "", "pods", "p")));
    assert!(!pods.allows(&asked("get", "apps", "pods", "p")));
    assert!(!pods.allows(&asked("get", "", "pods/status", "p")), "a subresource is another resource");
    let named = rule(&[""], &["configmaps"], &["a"], &["*"]);
    assert!(named.allows(&asked("update", "", "configmaps", "a")));
    assert!(!named.allows(&asked("update", "", "configmaps", "b")));
    assert!(!named.allows(&asked("list", "", "configmaps", "")), "a list has no name");
    let scale = rule(&["*"], &["*/scale"], &[], &["get"]);
    assert!(scale.allows(&asked("get", "apps", "deployments/scale", "d")));
    assert!(!scale.allows(&asked("get", "apps", "deployments", "d")));
}

#[test]
fn paths_match_whole_or_by_prefix() {
    let rule = Rule {
        verbs: vec!["get".to_owned()],
        paths: vec!["/apis/*".to_owned(), "/version".to_owned()],
        ..Rule::default()
    };
    let may = |path: &str| rule.allows(&Attributes { verb: "get", path, ..Attributes::default() });
    assert!(may("/apis/apps/v1") && may("/version"));
    assert!(!may("/version/x") && !may("/metrics"));
}
