//! Which nodes are not there, as far as a roll-out asks: only metadata of nodes is watched, so a node is looked at when a
//! pod of virt-handler on it has been unready for longer than a restart takes. A healthy roll-out asks nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use kubevirt_upgrade::Absence;

use crate::pods::{PodFacts, Pods};

/// A pod of virt-handler stops and starts in a few seconds; a kubelet that fell silent is noticed after forty.
const PATIENCE: SignedDuration = SignedDuration::from_secs(20);

/// The same nodes are asked about once a minute, so that one that came back is noticed although its pod stays unready.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// How many nodes are asked about at once: a roll-out has no more than a wave's nodes unready at a time, and what is left
/// over has its turn a minute later.
const AT_ONCE: usize = 20;

/// One node is needed; of ten, some are there.
const FIRST_NODES: u32 = 10;

/// What was found, and when.
#[derive(Debug, Default)]
struct Look {
    at: Option<Timestamp>,
    asked: BTreeSet<String>,
    found: BTreeMap<String, Absence>,
}

/// What is known of nodes that are not there, and of those of which one goes first.
#[derive(Debug, Default)]
pub struct Absent(Mutex<Look>, Mutex<Choice>);

/// The nodes of which one goes first.
#[derive(Debug, Default)]
struct Choice {
    selector: Option<BTreeMap<String, String>>,
    at: Option<Timestamp>,
    nodes: BTreeSet<String>,
}

impl Absent {
    pub fn now(&self) -> BTreeMap<String, Absence> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).found.clone()
    }

    /// The nodes of which one goes first.
    pub fn first(&self) -> BTreeSet<String> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).nodes.clone()
    }

    /// Asks which nodes a policy means by the first one, when it says so for the first time and once a minute after that.
    pub async fn choose(&self, client: &Client, selector: Option<&BTreeMap<String, String>>, now: Timestamp) {
        {
            let mut choice = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let is_same = choice.selector.as_ref() == selector;
            let is_fresh = choice.at.is_some_and(|at| now.duration_since(at) < AGAIN && now >= at);
            if selector.is_none() {
                *choice = Choice::default();
            }
            if selector.is_none() || (is_same && is_fresh) {
                return;
            }
        }
        let Some(labels) = selector else { return };
        let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let some = ListParams::default().labels(&pairs.join(",")).limit(FIRST_NODES);
        let api: Api<PartialObjectMeta<Node>> = Api::all(client.clone());
        match api.list(&some).await {
            Ok(found) => {
                let nodes = found.items.iter().map(|node| node.name_any()).collect();
                let choice = Choice { selector: selector.cloned(), at: Some(now), nodes };
                *self.1.lock().unwrap_or_else(PoisonError::into_inner) = choice;
            }
            Err(error) => tracing::warn!(%error, "which nodes go first could not be asked"),
        }
    }

    /// Asks about the nodes that make a roll-out wait, if it is time to. A node that cannot be asked about counts as there.
    pub async fn look(&self, client: &Client, pods: &Pods, now: Timestamp) {
        let suspects = suspects(pods, now);
        {
            let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = look.at.is_none_or(|at| now.duration_since(at) >= AGAIN || now < at);
            if suspects.is_subset(&look.asked) && (!is_due || suspects.is_empty()) {
                // Who is no suspect any more is there.
                look.found.retain(|node, _| suspects.contains(node));
                return;
            }
        }
        let api: Api<Node> = Api::all(client.clone());
        let mut found = BTreeMap::new();
        for name in suspects.iter().take(AT_ONCE) {
            match api.get_opt(name).await {
                Ok(Some(node)) => found.extend(absence(&node).map(|absence| (name.clone(), absence))),
                Ok(None) => drop(found.insert(name.clone(), Absence::Unreachable)),
                Err(error) => tracing::warn!(node = name, %error, "a node could not be looked at"),
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Look { at: Some(now), asked: suspects, found };
    }
}

/// The nodes on which a pod of a DaemonSet is unready for longer than it takes to start.
fn suspects(pods: &Pods, now: Timestamp) -> BTreeSet<String> {
    let is_late = |pod: &&PodFacts| {
        let since = pod.since.filter(|_| pod.of_nodes && pod.not_ready.is_some());
        since.is_some_and(|since| now.duration_since(since) >= PATIENCE)
    };
    pods.values().filter(is_late).filter_map(|pod| pod.node.as_deref().map(str::to_owned)).collect()
}

fn absence(node: &Node) -> Option<Absence> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    match ready.map(|condition| condition.status.as_str()) {
        Some("True") => {
            node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default().then_some(Absence::Cordoned)
        }
        Some("False") => Some(Absence::NotReady),
        _ => Some(Absence::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pods::SuitePod;

    #[test]
    fn only_nodes_of_pods_that_are_late_are_looked_at() {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).expect("a time");
        let pod = |name: &str, owner: &str, ready: &str, since: i64| {
            let pod: SuitePod = serde_json::from_value(json!({
                "metadata": {"name": name, "creationTimestamp": at(0).to_string(), "ownerReferences": [{"kind": owner}]},
                "spec": {"nodeName": format!("node-of-{name}")},
                "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at(since).to_string()}]},
            }))
            .expect("a pod");
            (name.to_owned(), pod.facts)
        };
        let pods: Pods = [
            pod("late", "DaemonSet", "False", 0),
            pod("starting", "DaemonSet", "False", 15),
            pod("fine", "DaemonSet", "True", 0),
            pod("other", "ReplicaSet", "False", 0),
        ]
        .into();
        assert_eq!(suspects(&pods, at(25)), ["node-of-late".to_owned()].into());
    }

    #[test]
    fn a_node_is_there_when_it_is_ready_and_in_service() {
        let node = |ready: &str, cordoned: bool| -> Node {
            serde_json::from_value(json!({
                "spec": {"unschedulable": cordoned},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .expect("a node")
        };
        assert_eq!(absence(&node("True", false)), None);
        assert_eq!(absence(&node("True", true)), Some(Absence::Cordoned));
        assert_eq!(absence(&node("False", false)), Some(Absence::NotReady));
        assert_eq!(absence(&node("Unknown", true)), Some(Absence::Unreachable));
        assert_eq!(absence(&Node::default()), Some(Absence::Unreachable));
    }
}
