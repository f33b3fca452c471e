//! Pod affinity and anti-affinity: where a pod may or would rather be, seen from the pods that run already.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodAffinityTerm};
use kube::core::{Selector, SelectorExt};

use super::Room;
use crate::cache::{Name, Store};

/// A term that can be asked questions.
struct Term<'a> {
    selector: Option<Selector>,
    namespaces: BTreeSet<String>,
    topology: &'a str,
}

fn read<'a>(term: &'a PodAffinityTerm, owner: &Pod, known: &Store<Namespace>) -> Term<'a> {
    let mut selector = term.label_selector.clone();
    if let Some(selector) = &mut selector {
        // These keys take their values from the pod that asks.
        let labels = owner.metadata.labels.clone().unwrap_or_default();
        for key in term.match_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
            }
        }
    }
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if let Some(chosen) = &term.namespace_selector
        && let Ok(chosen) = Selector::try_from(chosen.clone())
    {
        for (name, namespace) in known.iter() {
            if chosen.matches(namespace.metadata.labels.as_ref().unwrap_or(&BTreeMap::new())) {
                namespaces.insert(name.name.clone());
            }
        }
    } else if namespaces.is_empty() {
        namespaces.extend(owner.metadata.namespace.clone());
    }
    Term {
        selector: selector.and_then(|selector| Selector::try_from(selector).ok()),
        namespaces,
        topology: &term.topology_key,
    }
}

impl Term<'_> {
    fn matches(&self, pod: &Pod) -> bool {
        let inside = pod.metadata.namespace.as_ref().is_some_and(|namespace| self.namespaces.contains(namespace));
        inside
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(pod.metadata.labels.as_ref().unwrap_or(&BTreeMap::new())))
    }
}

fn domain<'a>(node: &'a Node, topology: &str) -> Option<&'a String> {
    node.metadata.labels.as_ref()?.get(topology)
}

fn required(pod: &Pod, anti: bool) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let terms = if anti {
        affinity.and_then(|it| {
            it.pod_anti_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_deref()
        })
    } else {
        affinity.and_then(|it| it.pod_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_deref())
    };
    terms.unwrap_or_default()
}

/// Topology values in which some pod matches, per term.
type Domains = BTreeMap<(usize, String), i64>;

/// What the pods that run mean for one pod that is to be placed.
pub(super) struct Neighbours<'a> {
    affinity: Vec<Term<'a>>,
    anti: Vec<Term<'a>>,
    with: Domains,
    against: Domains,
    /// Topology key and value in which a running pod refuses this one.
    refused: BTreeSet<(String, String)>,
    /// Topology key and value with the weight that preferences give it.
    liked: BTreeMap<(String, String), i64>,
    /// Whether the pod satisfies its own affinity: then the first one may go anywhere.
    own: bool,
}

/// Why a node is not for a pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Refusal {
    Affinity,
    AntiAffinity,
    ExistingAntiAffinity,
}

impl<'a> Neighbours<'a> {
    pub(super) fn of(pod: &'a Pod, rooms: &BTreeMap<String, Room<'_>>, known: &Store<Namespace>) -> Self {
        let affinity: Vec<_> = required(pod, false).iter().map(|term| read(term, pod, known)).collect();
        let anti: Vec<_> = required(pod, true).iter().map(|term| read(term, pod, known)).collect();
        let preferences = preferences(pod, known);
        let own = affinity.iter().all(|term| term.matches(pod));
        let mut it = Self {
            affinity,
            anti,
            with: Domains::new(),
            against: Domains::new(),
            refused: BTreeSet::new(),
            liked: BTreeMap::new(),
            own,
        };
        for room in rooms.values() {
            for other in &room.pods {
                it.count(room.node, other, pod, &preferences, known);
            }
        }
        it
    }

    fn count(&mut self, node: &Node, other: &Pod, pod: &Pod, liked: &[(i64, Term<'a>)], known: &Store<Namespace>) {
        for (terms, domains) in [(&self.affinity, &mut self.with), (&self.anti, &mut self.against)] {
            for (index, term) in terms.iter().enumerate() {
                if term.matches(other)
                    && let Some(value) = domain(node, term.topology)
                {
                    *domains.entry((index, value.clone())).or_default() += 1;
                }
            }
        }
        for term in required(other, true) {
            if let Some(value) = domain(node, &term.topology_key)
                && read(term, other, known).matches(pod)
            {
                self.refused.insert((term.topology_key.clone(), value.clone()));
            }
        }
        for (weight, term) in liked {
            if term.matches(other)
                && let Some(value) = domain(node, term.topology)
            {
                *self.liked.entry((term.topology.to_owned(), value.clone())).or_default() += weight;
            }
        }
    }

    /// Whether the pod may go to a node.
    pub(super) fn refusal(&self, node: &Node) -> Option<Refusal> {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let here = |index: usize, term: &Term<'_>, domains: &Domains| {
            domain(node, term.topology).is_some_and(|value| domains.contains_key(&(index, value.clone())))
        };
        let affine = self.affinity.iter().enumerate().all(|(index, term)| here(index, term, &self.with));
        let first = self.with.is_empty() && self.own;
        let placed = self.affinity.iter().all(|term| domain(node, term.topology).is_some());
        let opens = first && placed;
        if !(affine || opens) {
            return Some(Refusal::Affinity);
        }
        if self.anti.iter().enumerate().any(|(index, term)| here(index, term, &self.against)) {
            return Some(Refusal::AntiAffinity);
        }
        let refused = self.refused.iter().any(|(key, value)| labels.get(key) == Some(value));
        refused.then_some(Refusal::ExistingAntiAffinity)
    }

    /// How much the pod would like a node for the pods that run near it.
    pub(super) fn score(&self, node: &Node) -> i64 {
        let Some(labels) = &node.metadata.labels else { return 0 };
        self.liked.iter().filter(|((key, value), _)| labels.get(key) == Some(value)).map(|(_, weight)| weight).sum()
    }
}

fn preferences<'a>(pod: &'a Pod, known: &Store<Namespace>) -> Vec<(i64, Term<'a>)> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let near = affinity
        .and_then(|it| it.pod_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_deref());
    let far = affinity
        .and_then(|it| it.pod_anti_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_deref());
    let near = near.unwrap_or_default().iter().map(|term| (i64::from(term.weight), &term.pod_affinity_term));
    let far = far.unwrap_or_default().iter().map(|term| (-i64::from(term.weight), &term.pod_affinity_term));
    near.chain(far).map(|(weight, term)| (weight, read(term, pod, known))).collect()
}

/// The namespace and name of the set a pod belongs to, for spreading its pods.
pub(super) fn family(pod: &Pod) -> Option<Name> {
    let uid = crate::cache::controller_uid(&pod.metadata)?;
    Some(Name::new(pod.metadata.namespace.clone().unwrap_or_default(), uid))
}
