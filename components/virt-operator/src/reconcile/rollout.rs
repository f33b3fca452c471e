//! The pace at which DaemonSets roll (pure): part of the wanted object, because it depends on how far the roll-out is.

use std::collections::BTreeMap;

use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_api::names::annotation;
use kubevirt_apply::differs;
use kubevirt_release::{Kind, Object, ObjectKey};
use kubevirt_upgrade::canary::{self, Pace};
use serde_json::{Value, json};

use super::World;
use super::build::observed;
use super::snapshot::Workloads;

const UNAVAILABLE: &str = "/spec/updateStrategy/rollingUpdate/maxUnavailable";
/// A tenth of the nodes, in the words that clients look for.
const TENTH: &str = "10%";

/// Gives each wanted DaemonSet the pace that its roll-out has come to. One whose pace the CR's changes set keeps that.
pub(crate) fn pace(
    finals: &mut BTreeMap<ObjectKey, Object>,
    cr: &KubeVirt,
    target: &str,
    world: &World,
    workloads: &Workloads,
) {
    // An installation has nothing that could be put at risk.
    let Some(observed) = observed(cr) else { return };
    for (key, wanted) in finals.iter_mut().filter(|(key, _)| key.kind == Kind::DaemonSet) {
        let Some(live) = world.objects.get(key) else { continue };
        if wanted.at(UNAVAILABLE).and_then(of).is_none() {
            continue;
        }
        let Some(workload) = workloads.get(key) else { continue };
        let changes = observed.id != target || is_newer(live, cr);
        // A node that is not there has no pod that works; it must not take the place of one that could change.
        let absent = if observed.id == target { 0 } else { i64::try_from(world.absent.len()).unwrap_or_default() };
        let count = |pace| unavailable(pace, absent, workload.wanted);
        let paces = [Pace::Canary, Pace::Spread].into_iter();
        let has = paces.rev().find(|pace| live.pointer(UNAVAILABLE) == Some(&count(*pace))).unwrap_or(Pace::Canary);
        set(wanted, count(canary::pace(workload, has, changes)));
        // A template that is still to be written begins with one node.
        let mut as_it_is = wanted.clone();
        set(&mut as_it_is, count(has));
        if differs(&as_it_is, live).is_some() {
            set(wanted, count(Pace::Canary));
        }
    }
}

/// Whether it was last written for a state of the CR that has not been complete yet.
fn is_newer(live: &Value, cr: &KubeVirt) -> bool {
    let written =
        live.pointer("/metadata/annotations").and_then(|all| all.get(annotation::GENERATION)?.as_str()?.parse().ok());
    let complete = cr.status.as_ref().and_then(|status| status.observed_generation);
    written > complete
}

fn of(unavailable: &Value) -> Option<Pace> {
    match unavailable {
        Value::Number(number) if number.as_u64() == Some(1) => Some(Pace::Canary),
        Value::String(text) if text == TENTH => Some(Pace::Spread),
        _ => None,
    }
}

/// A pace as it is written, with room for the nodes that are not there.
fn unavailable(pace: Pace, absent: i64, nodes: i64) -> Value {
    match (pace, absent) {
        (Pace::Canary, absent) => json!(1 + absent),
        (Pace::Spread, 0) => json!(TENTH),
        (Pace::Spread, absent) => json!((nodes + 9) / 10 + absent),
    }
}

fn set(daemon_set: &mut Object, unavailable: Value) {
    if let Some(place) = daemon_set.value_mut().pointer_mut(UNAVAILABLE) {
        *place = unavailable;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pods::SuitePod;
    use crate::reconcile::snapshot::workloads;

    fn cr(observed_generation: i64) -> KubeVirt {
        serde_json::from_value(
            json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "kubevirt"},
            "spec": {}, "status": {"observedKubeVirtVersion": "v1", "observedDeploymentID": "id",
                "observedGeneration": observed_generation}}),
        )
        .expect("a custom resource")
    }

    fn daemon_set(version: &str, unavailable: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "virt-handler", "namespace": "kubevirt", "annotations": {"kubevirt.io/generation": "7"}},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "updateStrategy": {"rollingUpdate": {"maxUnavailable": unavailable}},
                "template": {"metadata": {"labels": {"a": "b", "version": version}}}}})
    }

    /// The pace of a DaemonSet of which one of two pods is new and ready.
    fn paced(wanted: Value, mut live: Value, complete: i64) -> Value {
        live["status"] = json!({"desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberReady": 2});
        let wanted = Object::from_value(wanted).expect("an object");
        let key = wanted.key();
        let pod = |name: &str, revision: &str, created: &str| {
            let pod = json!({"metadata": {"name": name, "namespace": "kubevirt", "creationTimestamp": created,
                "labels": {"a": "b", "controller-revision-hash": revision}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            let pod: SuitePod = serde_json::from_value(pod).expect("a pod");
            (name.into(), pod.facts)
        };
        let world = World {
            objects: [(key.clone(), Arc::new(live))].into(),
            pods: Arc::new(BTreeMap::from([
                pod("a", "old", "2026-01-01T00:00:00Z"),
                pod("b", "new", "2026-01-01T00:00:09Z"),
            ])),
            ..World::default()
        };
        let mut finals = BTreeMap::from([(key.clone(), wanted)]);
        pace(&mut finals, &cr(complete), "id", &world, &workloads(&world));
        finals[&key].at(UNAVAILABLE).cloned().expect("a number of nodes")
    }

    #[test]
    fn a_change_of_a_label_alone_spreads_like_any_other() {
        assert_eq!(paced(daemon_set("2", json!(1)), daemon_set("2", json!(1)), 6), json!("10%"));
        assert_eq!(paced(daemon_set("2", json!(1)), daemon_set("2", json!("10%")), 6), json!("10%"));
    }

    #[test]
    fn a_template_that_is_not_written_yet_begins_with_one_node() {
        assert_eq!(paced(daemon_set("3", json!(1)), daemon_set("2", json!("10%")), 6), json!(1));
    }

    #[test]
    fn nodes_that_are_not_there_take_nobodys_place() {
        assert_eq!(unavailable(Pace::Canary, 0, 30), json!(1));
        assert_eq!(unavailable(Pace::Spread, 0, 30), json!("10%"));
        assert_eq!(unavailable(Pace::Canary, 2, 30), json!(3));
        assert_eq!(unavailable(Pace::Spread, 2, 30), json!(5));
    }

    #[test]
    fn a_pace_that_was_asked_for_stays() {
        assert_eq!(paced(daemon_set("2", json!("50%")), daemon_set("2", json!(1)), 6), json!("50%"));
    }
}
