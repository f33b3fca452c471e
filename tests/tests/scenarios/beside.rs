//! What stands beside the suite follows what the cluster serves, without a restart: objects for Prometheus, OpenShift's
//! constraints, ready-made types.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kubevirt_release::extras::alerts::{ALERTS, EXTERNAL, metrics};
use kubevirt_release::extras::monitoring::{ACCESS, NAME};
use kubevirt_release::{Kind, Object};
use kubevirt_tests::{NAMESPACE, World, condition_of, quiet_for, simulate, until, until_gone};
use serde_json::{Value, json};

use crate::support::{install, object};

/// A definition as another program brings it: its content is of no concern here.
pub(crate) fn definition(kind: Kind) -> Object {
    let scope = if kind.namespaced() { "Namespaced" } else { "Cluster" };
    object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", kind.plural(), kind.group())},
        "spec": {
            "group": kind.group(), "scope": scope,
            "names": {"plural": kind.plural(), "kind": kind.name(), "singular": kind.name().to_lowercase(),
                      "listKind": format!("{}List", kind.name())},
            "versions": [{"name": kind.version(), "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    }))
}

pub(crate) fn account(namespace: &str) -> [Object; 2] {
    [
        object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})),
        object(json!({"apiVersion": "v1", "kind": "ServiceAccount",
                      "metadata": {"name": "prometheus-k8s", "namespace": namespace}})),
    ]
}

pub(crate) async fn says(world: &World, condition: &str, reason: &str) -> Value {
    world
        .kubevirt_until(&format!("{condition}: {reason}"), |kubevirt| {
            condition_of(kubevirt, condition)["reason"] == reason
        })
        .await
}

#[test]
fn what_prometheus_needs_follows_its_definitions_and_its_account() {
    simulate(async {
        let world = World::start(1, 1);
        install(&world, "v0.1.0").await;
        let operators = world.count("virt-operator").await;
        says(&world, "MonitoringReady", "MonitoringNotServed").await;

        let definitions = [Kind::ServiceMonitor, Kind::PrometheusRule].map(definition);
        world.apply(&definitions).await;
        says(&world, "MonitoringReady", "MonitorAccountMissing").await;

        world.apply(&account("monitoring")).await;
        let monitors = |namespace: &str| world.api(Kind::ServiceMonitor, Some(namespace));
        let rules = world.api(Kind::PrometheusRule, Some(NAMESPACE));
        let bindings = world.api(Kind::RoleBinding, Some(NAMESPACE));
        says(&world, "MonitoringReady", "MonitoringDeployed").await;
        let rule = rules.get(NAME).await.expect("the rule exists").data;
        assert_eq!(rule["spec"]["groups"][0]["rules"].as_array().map(Vec::len), Some(ALERTS.len()));
        monitors("monitoring").get(NAME).await.expect("it is where the account is");
        let binding = bindings.get(ACCESS).await.expect("the account is let in").data;
        assert_eq!(binding["subjects"][0]["namespace"], "monitoring");

        // What somebody changes or deletes comes back.
        let patch = Patch::Merge(json!({"spec": {"groups": []}}));
        rules.patch(NAME, &PatchParams::default(), &patch).await.expect("the edit is accepted");
        until(&rules, NAME, "whole again", |rule| rule.data["spec"]["groups"][0]["name"] == "kubevirt.alerts").await;
        bindings.delete(ACCESS, &DeleteParams::default()).await.expect("it is deleted");
        until(&bindings, ACCESS, "there again", |_| true).await;

        // The platform's own Prometheus comes first, wherever it comes from.
        world.apply(&account("openshift-monitoring")).await;
        until(&monitors("openshift-monitoring"), NAME, "moved", |_| true).await;
        until_gone(&monitors("monitoring"), NAME).await;
        let moved = |binding: &DynamicObject| binding.data["subjects"][0]["namespace"] == "openshift-monitoring";
        until(&bindings, ACCESS, "for the other account", moved).await;
        world.patch_kubevirt(json!({"monitorNamespace": "monitoring"})).await;
        until(&monitors("monitoring"), NAME, "as asked for", |_| true).await;

        // A part that is not served takes nothing else with it.
        let all = world.api(Kind::CustomResourceDefinition, None);
        let of_monitors = definitions[0].name();
        all.delete(of_monitors, &DeleteParams::default()).await.expect("it is deleted");
        until_gone(&all, of_monitors).await;
        quiet_for(Duration::from_secs(60)).await;
        world.apply(&definitions[..1]).await;
        until(&monitors("monitoring"), NAME, "there again", |_| true).await;

        world
            .api(Kind::ServiceAccount, Some("monitoring"))
            .delete("prometheus-k8s", &DeleteParams::default())
            .await
            .unwrap();
        until_gone(&monitors("monitoring"), NAME).await;
        until_gone(&rules, NAME).await;
        until_gone(&bindings, ACCESS).await;
        let last = says(&world, "MonitoringReady", "MonitorAccountMissing").await;
        assert_eq!(condition_of(&last, "Available")["status"], "True");
        assert_eq!(world.count("virt-operator").await, operators);

        let since = world.requests().len();
        quiet_for(Duration::from_secs(120)).await;
        assert_eq!(world.operator_writes(since), [""; 0]);
    });
}

#[test]
fn what_prometheus_cannot_be_given_is_told_and_holds_nothing_up() {
    simulate(async {
        let world = World::start(1, 1);
        world.apply(&[Kind::ServiceMonitor, Kind::PrometheusRule].map(definition)).await;
        world.apply(&account("monitoring")).await;
        install(&world, "v0.1.0").await;
        says(&world, "MonitoringReady", "MonitoringDeployed").await;
        world.patch_kubevirt(json!({"serviceMonitorNamespace": "nowhere"})).await;
        let kubevirt = says(&world, "MonitoringReady", "MonitoringRefused").await;
        let message = condition_of(&kubevirt, "MonitoringReady")["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("nowhere"), "{message}");
        assert_eq!(condition_of(&kubevirt, "Available")["status"], "True");
        world.apply(&account("nowhere")[..1]).await;
        says(&world, "MonitoringReady", "MonitoringDeployed").await;
    });
}

#[test]
fn constraints_come_and_go_with_openshift_s_api() {
    simulate(async {
        let world = World::start(1, 1);
        install(&world, "v0.1.0").await;
        let (kind, names) = (Kind::SecurityContextConstraints, ["kubevirt-controller", "kubevirt-handler"]);
        let constraints = world.api(kind, None);
        world.apply(&[definition(kind)]).await;
        for name in names {
            until(&constraints, name, "there", |one| one.data["users"][0].is_string()).await;
        }
        let found = constraints.list(&ListParams::default()).await.expect("they are listed");
        assert_eq!(found.items.len(), names.len());
        let patch = Patch::Merge(json!({"allowPrivilegedContainer": true}));
        constraints.patch(names[0], &PatchParams::default(), &patch).await.expect("the edit is accepted");
        until(&constraints, names[0], "reverted", |one| one.data["allowPrivilegedContainer"] == false).await;
        let definitions = world.api(Kind::CustomResourceDefinition, None);
        definitions.delete(definition(kind).name(), &DeleteParams::default()).await.expect("it is deleted");
        until_gone(&definitions, definition(kind).name()).await;
        quiet_for(Duration::from_secs(90)).await;
        let kubevirt =
            world.kubevirt_until("available", |kubevirt| condition_of(kubevirt, "Available")["status"] == "True");
        assert_eq!(condition_of(&kubevirt.await, "Progressing")["status"], "False");
    });
}

/// What a pod answers at its port of metrics.
async fn scrape(world: &World, pod: &DynamicObject) -> String {
    let address: IpAddr = pod.data["status"]["podIP"].as_str().expect("it runs").parse().expect("an address");
    let net = world.cluster.network.host(IpAddr::from([10, 96, 0, 9]));
    let answer = kubevirt_runtime::testing::get(net.as_ref(), SocketAddr::new(address, 8443), "/metrics").await;
    answer.expect("the pod answers").1
}

/// The metrics that components expose, by the component's name.
async fn exposed(world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
    let mut exposed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pod in pods.list(&ListParams::default().labels("prometheus.kubevirt.io=true")).await.expect("pods").items {
        let text = scrape(world, &pod).await;
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned);
        exposed.entry(pod.labels()["kubevirt.io"].clone()).or_default().extend(names);
    }
    exposed
}

#[test]
fn there_is_a_metric_behind_every_alert() {
    simulate(async {
        let world = World::start(1, 1);
        install(&world, "v0.1.0").await;
        let exposed = exposed(&world).await;
        let components: Vec<&String> = exposed.keys().collect();
        assert_eq!(components, ["virt-api", "virt-controller", "virt-handler", "virt-operator"]);
        for alert in ALERTS {
            let expression = alert.expression(NAMESPACE);
            for metric in metrics(&expression) {
                let is_external = EXTERNAL.iter().any(|(name, _)| *name == metric);
                // An alert about one component looks at that component's pods.
                let mut looked_at = exposed.iter().filter(|(component, _)| {
                    !expression.contains("pod=~") || expression.contains(&format!("{component}-"))
                });
                let is_exposed = looked_at.any(|(_, names)| names.contains(&metric));
                assert!(is_external || is_exposed, "{}: nothing exposes {metric}: {exposed:#?}", alert.name);
            }
        }
    });
}
