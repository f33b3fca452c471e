//! The ready-made types as users know them, and the objects for Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use kubevirt_api::kubevirt::KubeVirtSpec;
use serde_json::json;

use super::alerts::{ALERTS, EXTERNAL, NOT_SHIPPED, metrics};
use super::monitoring::{Monitor, Runbooks, monitor, objects};
use super::*;
use crate::desired::product_labels;

fn names(kind: Kind) -> Vec<String> {
    types(kind, &product_labels(&KubeVirtSpec::default())).iter().map(|object| object.name().to_owned()).collect()
}

#[test]
fn there_are_as_many_types_as_users_know_each_once() {
    let all = names(Kind::VirtualMachineClusterInstancetype);
    assert_eq!(all.len(), 65);
    let by_series = |series: &str| all.iter().filter(|name| name.starts_with(&format!("{series}."))).count();
    let counts = ["cx1", "d1", "m1", "n1", "o1", "rt1", "u1"].map(by_series);
    assert_eq!(counts, [12, 10, 10, 6, 9, 8, 10]);
    let preferences = names(Kind::VirtualMachineClusterPreference);
    assert_eq!(preferences.len(), 54);
    for names in [all, preferences] {
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}

#[test]
fn a_type_is_what_its_series_and_size_say() {
    let all = types(Kind::VirtualMachineClusterInstancetype, &product_labels(&KubeVirtSpec::default()));
    let spec = |name: &str| all.iter().find(|object| object.name() == name).expect("it exists").at("/spec").cloned();
    assert_eq!(spec("u1.nano"), Some(json!({"cpu": {"guest": 1}, "memory": {"guest": "512Mi"}})));
    assert_eq!(
        spec("cx1.medium1gi"),
        Some(json!({
            "cpu": {"guest": 1, "maxSockets": 1, "dedicatedCPUPlacement": true, "isolateEmulatorThread": true,
                    "numa": {"guestMappingPassthrough": {}}},
            "ioThreadsPolicy": "auto",
            "memory": {"guest": "2Gi", "hugepages": {"pageSize": "1Gi"}},
        }))
    );
    assert_eq!(
        spec("o1.large"),
        Some(json!({"cpu": {"guest": 2}, "memory": {"guest": "8Gi", "overcommitPercent": 50}}))
    );
    let one = all.iter().find(|object| object.name() == "m1.xlarge1gi").expect("it exists");
    assert_eq!(one.label("instancetype.kubevirt.io/hugepages"), Some("1Gi"));
    assert_eq!(one.label("app.kubernetes.io/managed-by"), Some("virt-operator"));
    assert_eq!(one.label("app.kubernetes.io/component"), Some("kubevirt"));
}

#[test]
fn a_preference_is_what_its_system_needs() {
    let all = types(Kind::VirtualMachineClusterPreference, &product_labels(&KubeVirtSpec::default()));
    let spec = |name: &str| all.iter().find(|object| object.name() == name).expect("it exists").at("/spec").cloned();
    assert_eq!(
        spec("fedora.arm64"),
        Some(json!({
            "annotations": {"vm.kubevirt.io/os": "linux"},
            "devices": {"preferredDiskBus": "virtio", "preferredInterfaceModel": "virtio", "preferredRng": {}},
            "preferredArchitecture": "arm64",
            "requirements": {"architecture": "arm64", "cpu": {"guest": 1}, "memory": {"guest": "2Gi"}},
        }))
    );
    let windows = spec("windows.11.virtio").expect("a spec");
    assert_eq!(windows["firmware"]["preferredEfi"], json!({"secureBoot": true, "persistent": true}));
    assert_eq!(windows["devices"]["preferredTPM"], json!({"persistent": true}));
    assert_eq!(windows["requirements"]["cpu"]["guest"], 2);
    assert_eq!(windows["preferredTerminationGracePeriodSeconds"], 3600);
    assert_eq!(spec("windows.xp").expect("a spec")["annotations"]["kubevirt.io/disablePCIHole64"], "true");
}

fn spec(fields: serde_json::Value) -> KubeVirtSpec {
    serde_json::from_value(fields).expect("a spec")
}

#[test]
fn prometheus_is_where_its_account_is_and_the_platform_s_own_comes_first() {
    let everywhere: BTreeSet<String> = ["monitoring", "openshift-monitoring", "mine"].map(Into::into).into();
    let found =
        |fields, with: &BTreeSet<String>| monitor(&spec(fields), with).map(|m| (m.namespace, m.service_monitors));
    let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    assert_eq!(found(json!({}), &everywhere), pair("openshift-monitoring", "openshift-monitoring"));
    assert_eq!(found(json!({}), &["monitoring".to_owned()].into()), pair("monitoring", "monitoring"));
    assert_eq!(found(json!({"monitorNamespace": "mine"}), &everywhere), pair("mine", "mine"));
    assert_eq!(found(json!({"monitorNamespace": "other"}), &everywhere), None);
    assert_eq!(found(json!({"serviceMonitorNamespace": "there"}), &everywhere), pair("openshift-monitoring", "there"));
    assert_eq!(found(json!({}), &BTreeSet::new()), None);
}

#[test]
fn prometheus_gets_rights_an_address_and_rules() {
    let one =
        Monitor { namespace: "monitoring".into(), account: "prometheus-k8s".into(), service_monitors: "sm".into() };
    let made = objects("kubevirt", &one, &KubeVirtSpec::default(), &Runbooks::default());
    let keys: Vec<String> = made.iter().map(|object| object.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "Role kubevirt/kubevirt-monitoring",
            "RoleBinding kubevirt/kubevirt-monitoring",
            "ServiceMonitor sm/prometheus-kubevirt-rules",
            "PrometheusRule kubevirt/prometheus-kubevirt-rules",
        ]
    );
    assert!(made.iter().all(|object| is_extra(&object.key())));
    assert_eq!(made[1].at("/subjects/0/namespace"), Some(&json!("monitoring")));
    assert_eq!(made[2].at("/spec/namespaceSelector/matchNames/0"), Some(&json!("kubevirt")));
    let collected = spec(json!({"configuration": {"developerConfiguration": {"featureGates": ["VMStatsCollector"]}}}));
    assert_eq!(objects("kubevirt", &one, &collected, &Runbooks::default()).len(), 3);
}

#[test]
fn each_alert_has_what_prometheus_and_people_need() {
    let one = Monitor { namespace: "monitoring".into(), account: "p".into(), service_monitors: "monitoring".into() };
    let env: BTreeMap<String, String> = [("RUNBOOK_URL_TEMPLATE".into(), "https://runbooks/%s.html".into())].into();
    let runbooks = Runbooks::from_env(&env).expect("a template");
    let made = objects("suite", &one, &KubeVirtSpec::default(), &runbooks);
    let rules = made[3].at("/spec/groups/0/rules").and_then(serde_json::Value::as_array).expect("rules");
    assert_eq!(rules.len(), ALERTS.len());
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        assert_eq!(rule["annotations"]["runbook_url"], format!("https://runbooks/{name}.html"));
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 20), "{name}: {text}");
        }
        let expression = rule["expr"].as_str().expect("an expression");
        assert!(!expression.contains("{ns}"), "{name}");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().expect("a severity")));
        assert!(!metrics(expression).is_empty(), "{name} looks at something");
        let count = |c: char| expression.matches(c).count();
        assert_eq!((count('('), count('{'), count('[')), (count(')'), count('}'), count(']')), "{name}");
    }
    let names: BTreeSet<&str> = ALERTS.iter().map(|alert| alert.name).collect();
    assert_eq!(names.len(), ALERTS.len());
    assert!(NOT_SHIPPED.iter().all(|(name, _)| !names.contains(name)));
}

#[test]
fn a_runbook_template_has_one_place_for_the_alert() {
    for template in ["https://runbooks/", "https://%s/%s"] {
        let env: BTreeMap<String, String> = [("RUNBOOK_URL_TEMPLATE".into(), template.into())].into();
        assert!(Runbooks::from_env(&env).is_err(), "{template}");
    }
    assert_eq!(Runbooks::default().page("X"), "https://kubevirt.io/monitoring/runbooks/X");
}

#[test]
fn the_metrics_of_an_expression_are_found() {
    let found = |expression: &str| metrics(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        found("sum by (pod, le) (rate(a_total{b=\"c\",d=~\"(4|5)..\"}[5m])) / on (pod) b > 1e3"),
        ["a_total", "b"]
    );
    assert_eq!(found("max(x) == 0 and (y or vector(0)) unless z offset 5m"), ["x", "y", "z"]);
    assert_eq!(found("time() - m:n > 900"), ["m:n"]);
}

#[test]
fn no_metric_is_listed_as_external_that_no_alert_looks_at() {
    let asked: BTreeSet<String> = ALERTS.iter().flat_map(|alert| metrics(&alert.expression("kubevirt"))).collect();
    for (metric, _) in EXTERNAL {
        assert!(asked.contains(*metric), "{metric}");
    }
}

const PAGE: &str = "../../docs/monitoring.md";

fn document() -> String {
    use std::fmt::Write as _;
    let mut out =
        String::from("| alert | looks at | severity | after | means | what to do |\n|---|---|---|---|---|---|\n");
    let code = |names: BTreeSet<String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    for alert in ALERTS {
        let (looks, severity) = (code(metrics(&alert.expression("kubevirt"))), alert.severity.word());
        let _ = writeln!(
            out,
            "| {} | {looks} | {severity} | {} | {} | {} |",
            alert.name, alert.window, alert.summary, alert.advice
        );
    }
    out.push_str("\n### Metrics of other programs\n\n| metric | of |\n|---|---|\n");
    EXTERNAL.iter().for_each(|(metric, whose)| out.push_str(&format!("| `{metric}` | {whose} |\n")));
    out.push_str("\n### Alerts that do not ship\n\n| alert | why not |\n|---|---|\n");
    NOT_SHIPPED.iter().for_each(|(alert, why)| out.push_str(&format!("| {alert} | {why} |\n")));
    out
}

#[test]
fn the_documentation_lists_the_alerts_as_they_are() {
    let page = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).expect("the page");
    let between = page.split_once("<!-- alerts -->\n").and_then(|(_, tail)| tail.split_once("<!-- end of alerts -->"));
    let listed = between.map(|(listed, _)| listed.trim()).unwrap_or_default();
    assert_eq!(listed, document().trim(), "docs/monitoring.md, between the marks, is to be:\n{}", document());
}
