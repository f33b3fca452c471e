//! Which nodes are not there, as far as a roll-out asks: only metadata of nodes is watched, so a node is looked at when a
//! pod of virt-handler on it has been unready for longer than a restart takes, and no other has become ready meanwhile. A
//! roll-out that goes on asks nothing, however slowly it does: its requests must not grow with the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use kubevirt_api::names::label;
use kubevirt_release::images;
use kubevirt_upgrade::Absence;

use crate::pods::{PodFacts, Pods};

/// A pod of virt-handler stops and starts in a few seconds; a kubelet that fell silent is noticed after forty, so whoever asks
/// earlier asks again.
const PATIENCE: SignedDuration = SignedDuration::from_secs(45);

/// The same nodes are asked about once a minute, so that one that came back is noticed although its pod stays unready.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// Some pods may become ready for ever while others never do. After this long a pod's node is looked at all the same.
const LONG: SignedDuration = SignedDuration::from_secs(300);

/// So many nodes are asked about one by one in a minute; when more are late they are listed.
const EACH: usize = 10;

/// Nodes of one page of a list: some megabytes of the server's text, of which a few bytes a node are kept.
const PAGE: u32 = 500;

/// One node is needed; of ten, some are there.
const FIRST_NODES: u32 = 10;

/// What was found, and when.
#[derive(Debug, Default)]
struct Look {
    /// When all that were late were asked about; since then only others have been.
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
    /// When it will be time if nothing happens until then.
    pub async fn look(&self, client: &Client, pods: &Pods, now: Timestamp) -> Option<Timestamp> {
        let late = Late::of(pods, now);
        let question = {
            let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Who is late no more is there.
            look.found.retain(|node, _| late.nodes.contains(node));
            question(&look, &late, now)
        };
        let (is_due, asked, found) = match question {
            Question::None => return late.stands_at(now),
            Question::Each { nodes, is_due } => {
                let found = each(client, &nodes).await;
                (is_due, nodes, found)
            }
            Question::All => match all(client, &late.nodes).await {
                Ok(found) => (true, late.nodes, found),
                Err(error) => {
                    tracing::warn!(%error, "nodes could not be looked at");
                    (true, late.nodes, BTreeMap::new())
                }
            },
        };
        let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due {
            *look = Look { at: Some(now), asked, found };
        } else {
            look.asked.extend(asked);
            look.found.extend(found);
        }
        None
    }
}

async fn each(client: &Client, nodes: &BTreeSet<String>) -> BTreeMap<String, Absence> {
    let api: Api<Node> = Api::all(client.clone());
    let mut found = BTreeMap::new();
    for name in nodes {
        match api.get_opt(name).await {
            Ok(Some(node)) => found.extend(absence(&node).map(|absence| (name.clone(), absence))),
            Ok(None) => drop(found.insert(name.clone(), Absence::Unreachable)),
            Err(error) => tracing::warn!(node = name, %error, "a node could not be looked at"),
        }
    }
    found
}

/// Those of some nodes that are not there, by a list of all.
async fn all(client: &Client, late: &BTreeSet<String>) -> Result<BTreeMap<String, Absence>, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let mut found: BTreeMap<String, Absence> = late.iter().map(|node| (node.clone(), Absence::Unreachable)).collect();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let nodes = api.list(&page).await?;
        for node in &nodes.items {
            let name = node.name_any();
            match absence(node) {
                Some(absence) if late.contains(&name) => drop(found.insert(name, absence)),
                _ => drop(found.remove(&name)),
            }
        }
        match nodes.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Pods of DaemonSets that are unready for longer than they take to start.
#[derive(Debug, Default)]
struct Late {
    nodes: BTreeSet<String>,
    /// How long the first of them has been so.
    longest: SignedDuration,
    /// When a pod of a DaemonSet last became ready.
    progress: Option<Timestamp>,
}

impl Late {
    fn of(pods: &Pods, now: Timestamp) -> Self {
        let mut late = Self::default();
        // What only brings images says of a node that it lacks them, not that it is not there.
        let is_puller = |pod: &&PodFacts| pod.labels.labels.get(label::KUBEVIRT).is_some_and(|of| of == images::NAME);
        for pod in pods.values().filter(|pod| pod.of_nodes && !is_puller(pod)) {
            let Some(since) = pod.since else { continue };
            if pod.not_ready.is_none() {
                late.progress = late.progress.max(Some(since));
                continue;
            }
            let waits = now.duration_since(since);
            if waits >= PATIENCE {
                late.nodes.extend(pod.node.as_deref().map(str::to_owned));
                late.longest = late.longest.max(waits);
            }
        }
        late
    }

    /// When a roll-out that goes on at present will be said to stand.
    fn stands_at(&self, now: Timestamp) -> Option<Timestamp> {
        let at = self.progress?.saturating_add(PATIENCE).ok()?;
        (!self.nodes.is_empty() && at > now).then_some(at)
    }
}

/// What is to be asked now.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    None,
    /// `is_due`: of all that are late.
    Each {
        nodes: BTreeSet<String>,
        is_due: bool,
    },
    All,
}

fn question(look: &Look, late: &Late, now: Timestamp) -> Question {
    let Late { nodes, longest, progress } = late;
    // The clocks of nodes may be ahead of this one, but not by long.
    let goes_on = progress.is_some_and(|at| now.duration_since(at).abs() < PATIENCE) && *longest < LONG;
    if nodes.is_empty() || goes_on {
        return Question::None;
    }
    let is_due = look.at.is_none_or(|at| now.duration_since(at) >= AGAIN || now < at);
    let asked: BTreeSet<String> = if is_due { nodes.clone() } else { nodes - &look.asked };
    let has_room = is_due || look.asked.len() + asked.len() <= EACH;
    match asked.len() {
        0 => Question::None,
        1..=EACH if has_room => Question::Each { nodes: asked, is_due },
        _ if is_due => Question::All,
        _ => Question::None,
    }
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
                "metadata": {"name": name, "creationTimestamp": at(0).to_string(), "ownerReferences": [{"kind": owner}],
                    "labels": {label::KUBEVIRT: name}},
                "spec": {"nodeName": format!("node-of-{name}")},
                "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at(since).to_string()}]},
            }))
            .expect("a pod");
            (name.into(), pod.facts)
        };
        let pods = Pods::new(BTreeMap::from([
            pod("late", "DaemonSet", "False", 0),
            pod("starting", "DaemonSet", "False", 15),
            pod("fine", "DaemonSet", "True", 0),
            pod("other", "ReplicaSet", "False", 0),
            pod(images::NAME, "DaemonSet", "False", 0),
        ]));
        let late = Late::of(&pods, at(50));
        assert_eq!(late.nodes, ["node-of-late".to_owned()].into());
        assert_eq!((late.longest, late.progress), (SignedDuration::from_secs(50), Some(at(0))));
    }

    #[test]
    fn a_roll_out_that_goes_on_asks_nothing_and_one_that_stands_asks_a_bounded_number() {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).expect("a time");
        let nodes =
            |count: usize| -> BTreeSet<String> { (0..count).map(|number| format!("node{number:02}")).collect() };
        let late = |count: usize, longest: i64, progress: i64| Late {
            nodes: nodes(count),
            longest: SignedDuration::from_secs(longest),
            progress: Some(at(progress)),
        };
        let never = Look::default();
        assert_eq!(question(&never, &late(3, 60, 90), at(100)), Question::None, "one became ready ten seconds ago");
        assert_eq!(question(&never, &late(0, 0, 0), at(100)), Question::None);
        assert_eq!(question(&never, &late(3, 60, 50), at(100)), Question::Each { nodes: nodes(3), is_due: true });
        assert_eq!(question(&never, &late(3, 300, 90), at(400)), Question::Each { nodes: nodes(3), is_due: true });
        assert_eq!(question(&never, &late(11, 60, 50), at(100)), Question::All);
        let looked = Look { at: Some(at(100)), asked: nodes(3), found: BTreeMap::new() };
        assert_eq!(question(&looked, &late(3, 60, 80), at(130)), Question::None, "nobody new, and not a minute later");
        assert_eq!(question(&looked, &late(2, 90, 80), at(160)), Question::Each { nodes: nodes(2), is_due: true });
        let new = ["node03".to_owned()].into();
        assert_eq!(question(&looked, &late(4, 60, 80), at(130)), Question::Each { nodes: new, is_due: false });
        assert_eq!(question(&looked, &late(11, 60, 80), at(130)), Question::None, "more than are asked in a minute");
        assert_eq!(question(&looked, &late(11, 90, 80), at(160)), Question::All);
        assert_eq!(
            question(&looked, &late(3, 60, 110), at(50)),
            Question::Each { nodes: nodes(3), is_due: true },
            "the clock was put back"
        );
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
