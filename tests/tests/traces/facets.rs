//! What a transcript shows of an object: a few labelled values per kind.
//!
//! | kind | labels |
//! |---|---|
//! | all | `deleting`: the grace period of a deletion under way; `holds`: finalizers that keep it |
//! | deployment | `replicas` wanted, `image`, `strategy` with surge/unavailable, `paused`; of its status `total`, `updated`, `ready`, `available`; `Available`, `Progressing`, `ReplicaFailure` with their reasons |
//! | replicaset | `size` wanted; of its status `total`, `ready`, `available` |
//! | daemonset | `image`, `strategy` with surge/unavailable; of its status `desired`, `current`, `updated`, `ready`, `available`, `unavailable`, `misscheduled` |
//! | pod | `node`, `phase`, `ready` with the reason while it is false, `waiting` with its reason (the usual ones at a start aside), `restarts`, `exit` of the last run, `disruption` with its reason |
//! | node | `Ready` with its reason, `unschedulable`, `taints` |
//! | budget | `healthy` as current/desired, `expected` pods, `allowed` disruptions, `disrupted` pods, `DisruptionAllowed` with its reason |
//! | namespace | `phase`, and every condition with its reason |
//! | endpoints, endpointslice | pods that are `ready`, and `unready` |
//! | apiservice | `service`, `Available` with its reason |
//! | validatingwebhook | each webhook with its failure policy |

use serde_json::Value;

use crate::kinds::Kind;
use crate::names::Names;

/// Labels with their values, in the order in which they are shown.
pub(crate) type Facets = Vec<(&'static str, String)>;

/// Reasons to wait that every pod has on its way.
const USUAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

struct Shown {
    facets: Facets,
}

impl Shown {
    fn add(&mut self, label: &'static str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.facets.push((label, value));
        }
    }

    /// Values that are there, one after the other.
    fn fields(&mut self, from: &Value, fields: &[(&'static str, &str)]) {
        for (label, field) in fields {
            self.add(label, plain(&from[*field]));
        }
    }

    fn conditions(&mut self, object: &Value, kinds: &[&'static str]) {
        for kind in kinds {
            self.add(kind, condition(object, kind));
        }
    }
}

/// A value as text; nothing for what is absent.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `status reason` of a condition.
fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |found| {
        format!("{} {}", plain(&found["status"]), plain(&found["reason"])).trim().to_owned()
    })
}

fn image(object: &Value) -> String {
    plain(object.pointer("/spec/template/spec/containers/0/image").unwrap_or(&Value::Null))
}

fn strategy(strategy: &Value) -> String {
    let rolling = &strategy["rollingUpdate"];
    let kind = plain(&strategy["type"]);
    match rolling {
        Value::Null => kind,
        _ => format!("{kind} surge={} unavailable={}", plain(&rolling["maxSurge"]), plain(&rolling["maxUnavailable"])),
    }
}

/// What is shown of an object.
pub(crate) fn facets(kind: Kind, object: &Value, names: &Names) -> Facets {
    let mut shown = Shown { facets: Vec::new() };
    let (spec, status) = (&object["spec"], &object["status"]);
    match kind.word {
        "deployment" => {
            shown.fields(spec, &[("replicas", "replicas")]);
            shown.add("image", image(object));
            shown.add("strategy", strategy(&spec["strategy"]));
            shown.fields(spec, &[("paused", "paused")]);
            let counts = [
                ("total", "replicas"),
                ("updated", "updatedReplicas"),
                ("ready", "readyReplicas"),
                ("available", "availableReplicas"),
            ];
            shown.fields(status, &counts);
            shown.conditions(object, &["Available", "Progressing", "ReplicaFailure"]);
        }
        "replicaset" => {
            shown.fields(spec, &[("size", "replicas")]);
            shown.fields(
                status,
                &[("total", "replicas"), ("ready", "readyReplicas"), ("available", "availableReplicas")],
            );
        }
        "daemonset" => {
            shown.add("image", image(object));
            shown.add("strategy", strategy(&spec["updateStrategy"]));
            let counts = [
                ("desired", "desiredNumberScheduled"),
                ("current", "currentNumberScheduled"),
                ("updated", "updatedNumberScheduled"),
                ("ready", "numberReady"),
                ("available", "numberAvailable"),
                ("unavailable", "numberUnavailable"),
            ];
            shown.fields(status, &counts);
            shown.add("misscheduled", plain(&status["numberMisscheduled"]).trim_matches('0'));
        }
        "pod" => pod(&mut shown, object),
        "node" => node(&mut shown, object),
        "budget" => budget(&mut shown, object, names),
        "namespace" => {
            shown.fields(status, &[("phase", "phase")]);
            let conditions = [
                "NamespaceDeletionDiscoveryFailure",
                "NamespaceDeletionGroupVersionParsingFailure",
                "NamespaceDeletionContentFailure",
                "NamespaceContentRemaining",
                "NamespaceFinalizersRemaining",
            ];
            shown.conditions(object, &conditions);
        }
        "endpoints" => {
            let subsets = || object["subsets"].as_array().into_iter().flatten();
            let addresses = |field: &str| {
                let addresses = subsets().flat_map(|subset| subset[field].as_array().into_iter().flatten());
                listed(addresses.map(|address| target(address, names)))
            };
            shown.add("ready", addresses("addresses"));
            shown.add("unready", addresses("notReadyAddresses"));
        }
        "endpointslice" => {
            let endpoints = |ready: bool| {
                let all = object["endpoints"].as_array().into_iter().flatten();
                listed(all.filter(|it| (it["conditions"]["ready"] != false) == ready).map(|it| target(it, names)))
            };
            shown.add("ready", endpoints(true));
            shown.add("unready", endpoints(false));
        }
        "apiservice" => {
            if !spec["service"].is_null() {
                shown.add(
                    "service",
                    format!("{}/{}", plain(&spec["service"]["namespace"]), plain(&spec["service"]["name"])),
                );
            }
            shown.conditions(object, &["Available"]);
        }
        "validatingwebhook" => {
            let webhooks = object["webhooks"].as_array().into_iter().flatten();
            shown.add(
                "webhooks",
                listed(webhooks.map(|it| format!("{} {}", plain(&it["name"]), plain(&it["failurePolicy"])))),
            );
        }
        _ => {}
    }
    let meta = &object["metadata"];
    if !meta["deletionTimestamp"].is_null() {
        let grace = plain(&meta["deletionGracePeriodSeconds"]);
        shown.add("deleting", if grace.is_empty() { "yes".to_owned() } else { format!("{grace}s") });
    }
    let finalizers = meta["finalizers"].as_array().into_iter().flatten().map(plain);
    shown.add("holds", listed(finalizers));
    shown.facets
}

fn listed(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    items.sort();
    items.join(",")
}

/// The pod behind an address.
fn target(address: &Value, names: &Names) -> String {
    match address["targetRef"]["name"].as_str() {
        Some(name) => names.of(name),
        None => plain(&address["ip"]),
    }
}

fn pod(shown: &mut Shown, object: &Value) {
    let status = &object["status"];
    shown.fields(&object["spec"], &[("node", "nodeName")]);
    shown.fields(status, &[("phase", "phase")]);
    let ready = condition(object, "Ready");
    let ready = match ready.split_once(' ') {
        // The reason every pod has on its way.
        Some(("False", "ContainersNotReady")) => "False".to_owned(),
        _ => ready,
    };
    shown.add("ready", ready);
    let containers = || {
        let of = |list: &'static str| status[list].as_array().into_iter().flatten();
        of("initContainerStatuses").chain(of("containerStatuses"))
    };
    let waiting = containers().map(|it| plain(&it["state"]["waiting"]["reason"]));
    shown.add("waiting", listed(waiting.filter(|reason| !reason.is_empty() && !USUAL.contains(&reason.as_str()))));
    let restarts: i64 = containers().filter_map(|it| it["restartCount"].as_i64()).sum();
    if restarts > 0 {
        shown.add("restarts", restarts.to_string());
    }
    let exits = containers().filter_map(|it| {
        let ended = it.pointer("/lastState/terminated").filter(|ended| !ended.is_null())?;
        Some(format!("{} {}", plain(&ended["exitCode"]), plain(&ended["reason"])))
    });
    shown.add("exit", listed(exits));
    shown.add("disruption", condition(object, "DisruptionTarget"));
}

fn node(shown: &mut Shown, object: &Value) {
    shown.conditions(object, &["Ready"]);
    shown.fields(&object["spec"], &[("unschedulable", "unschedulable")]);
    let taints = object["spec"]["taints"].as_array().into_iter().flatten();
    let taints = taints.map(|taint| {
        let key = plain(&taint["key"]);
        format!("{}:{}", key.strip_prefix("node.kubernetes.io/").unwrap_or(&key), plain(&taint["effect"]))
    });
    shown.add("taints", listed(taints));
}

fn budget(shown: &mut Shown, object: &Value, names: &Names) {
    let status = &object["status"];
    if !status["desiredHealthy"].is_null() {
        let number = |field: &str| status[field].as_i64().unwrap_or(0);
        shown.add("healthy", format!("{}/{}", number("currentHealthy"), number("desiredHealthy")));
        shown.add("expected", number("expectedPods").to_string());
        shown.add("allowed", number("disruptionsAllowed").to_string());
    }
    let disrupted = status["disruptedPods"].as_object().into_iter().flat_map(|pods| pods.keys());
    shown.add("disrupted", listed(disrupted.map(|name| names.of(name))));
    shown.conditions(object, &["DisruptionAllowed"]);
}

/// The labels whose values differ, as `label before -> after`.
pub(crate) fn difference(before: &Facets, after: &Facets) -> Vec<String> {
    let value = |facets: &Facets, label: &str| {
        facets.iter().find(|(known, _)| *known == label).map_or("-".to_owned(), |(_, value)| value.clone())
    };
    let added = after.iter().map(|(label, _)| *label);
    let lost = before.iter().map(|(label, _)| *label).filter(|label| after.iter().all(|(known, _)| known != label));
    added
        .chain(lost)
        .filter_map(|label| {
            let (old, new) = (value(before, label), value(after, label));
            (old != new).then(|| format!("{label} {old} -> {new}"))
        })
        .collect()
}
