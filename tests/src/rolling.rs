//! Watches from inside the server how virt-handler goes over the nodes: every commit, not samples, and every request of
//! the operator. What it holds the roll-out against comes from the contract and from the DaemonSet, not from the planner.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nanokube::{After, Call, Faults, Nanokube, Transition};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{NAMESPACE, OPERATOR};

/// The DaemonSet that is watched.
const NAME: &str = "virt-handler";

/// Nodes that may be without virt-handler at once: one until a new pod was ready somewhere, then a tenth of them, rounded up.
pub fn allowed(nodes: u32, proven: bool) -> u32 {
    if proven { nodes.div_ceil(10).max(1) } else { 1 }
}

/// How often as many nodes as are allowed have to be taken: the first alone, then the others by tenths.
pub fn ideal_waves(nodes: u32) -> u32 {
    1 + nodes.saturating_sub(1).div_ceil(allowed(nodes, true))
}

/// What one node's change consists of, as the commits show it.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    /// The old pod's deletion was asked for.
    asked: Option<Instant>,
    gone: Option<Instant>,
    /// The new one was bound to the node.
    bound: Option<Instant>,
    ready: Option<Instant>,
}

impl Moments {
    /// Termination, pull, start and readiness: what nobody can shorten who replaces a pod.
    fn needed(&self) -> Option<Duration> {
        Some((self.gone? - self.asked?) + (self.ready? - self.bound?))
    }
}

/// The operator's requests, its lease aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// All but watches.
    pub requests: u32,
    /// Those among them that write nothing.
    pub reads: u32,
    /// Writes of the custom resource's status among them.
    pub statuses: u32,
    /// Watches that were opened; they go with time.
    pub watches: u32,
}

/// How a roll-out went.
#[derive(Clone, Debug)]
pub struct Rolled {
    pub nodes: u32,
    /// Commits about virt-handler and its pods, after each of which it was counted.
    pub commits: u64,
    /// The most nodes that were without virt-handler at once.
    pub most_unavailable: u32,
    /// The longest time for which a node was.
    pub longest: Duration,
    /// Where more nodes were without it than may be.
    pub exceeded: Vec<String>,
    /// Nodes whose pod was replaced by a ready one of the new version.
    pub replaced: u32,
    /// From the first deletion to the last pod's readiness.
    pub took: Duration,
    /// What the replacement of the first node's pod needs, and of the others on average.
    pub first: Duration,
    pub others: Duration,
    pub asked: Asked,
}

impl Rolled {
    /// How long it takes if each wave takes what a replacement needs and nothing lies between them.
    pub fn ideal(&self) -> Duration {
        self.first + self.others * ideal_waves(self.nodes).saturating_sub(1)
    }
}

#[derive(Default)]
struct State {
    seen: u64,
    /// The version that is rolled out, once it is.
    to: Option<String>,
    nodes: u32,
    /// What the DaemonSet allows by itself, as written.
    granted: Value,
    /// Pods that serve, by node that has ever had one.
    serving: BTreeMap<String, u32>,
    /// Nodes among them that have none, and since when.
    without: BTreeMap<String, Instant>,
    longest: Duration,
    moments: BTreeMap<String, Moments>,
    /// Nodes that have had a ready pod of the new version.
    replaced: u32,
    commits: u64,
    most: u32,
    exceeded: Vec<String>,
    asked: Asked,
}

/// See the module. It changes nothing.
pub struct Rolling {
    api: OnceLock<Nanokube>,
    /// How many nodes have a ready pod of the new version.
    replaced: watch::Sender<u32>,
    state: Mutex<State>,
}

impl Default for Rolling {
    fn default() -> Self {
        Self { api: OnceLock::new(), replaced: watch::Sender::new(0), state: Mutex::default() }
    }
}

impl Rolling {
    /// Gives it the server to look into, once that exists.
    pub fn attach(&self, api: Nanokube) {
        // Err: attached already.
        let _ = self.api.set(api);
    }

    /// Counts from here on, where every node has a pod that serves; `to` is the version that comes.
    pub fn begin(&self, to: &str) {
        self.observe();
        let mut state = self.lock();
        let seen = state.seen;
        let (granted, serving) = (state.granted.take(), std::mem::take(&mut state.serving));
        let nodes = u32::try_from(serving.len()).unwrap_or(u32::MAX);
        let without = std::mem::take(&mut state.without);
        *state = State { seen, granted, serving, without, nodes, to: Some(to.to_owned()), ..State::default() };
    }

    /// Waits until so many nodes have a ready pod of the new version.
    pub async fn reaches(&self, nodes: u32) {
        // The sender lives as long as this.
        let _ = self.replaced.subscribe().wait_for(|replaced| *replaced >= nodes).await;
    }

    /// What was seen since [`Rolling::begin`].
    pub fn end(&self) -> Rolled {
        self.observe();
        let state = self.lock();
        let mut done: Vec<&Moments> = state.moments.values().filter(|moments| moments.ready.is_some()).collect();
        done.sort_by_key(|moments| moments.asked);
        let needed: Vec<Duration> = done.iter().filter_map(|moments| moments.needed()).collect();
        let first = needed.first().copied().unwrap_or_default();
        let rest = needed.get(1..).unwrap_or_default();
        let others = rest.iter().sum::<Duration>() / u32::try_from(rest.len().max(1)).unwrap_or(u32::MAX);
        let began = done.iter().filter_map(|moments| moments.asked).min();
        let ended = done.iter().filter_map(|moments| moments.ready).max();
        Rolled {
            nodes: state.nodes,
            commits: state.commits,
            most_unavailable: state.most,
            longest: state.without.values().map(Instant::elapsed).chain([state.longest]).max().unwrap_or_default(),
            exceeded: state.exceeded.clone(),
            replaced: state.replaced,
            took: began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended - began),
            first,
            others,
            asked: state.asked.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters are whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every commit since the last look.
    fn observe(&self) {
        let Some(api) = self.api.get() else { return };
        let mut state = self.lock();
        for transition in api.transitions_after(state.seen) {
            state.seen = transition.revision();
            if transition.namespace() != NAMESPACE {
                continue;
            }
            match &*transition.resource {
                "pods" if is_one(&transition) => state.pod(&transition),
                "daemonsets.apps" if transition.name() == NAME => {
                    let granted = "/spec/updateStrategy/rollingUpdate/maxUnavailable";
                    state.granted =
                        transition.after().and_then(|set| set.pointer(granted)).cloned().unwrap_or_default();
                }
                _ => continue,
            }
            state.judge(transition.name());
        }
        let replaced = state.replaced;
        self.replaced.send_if_modified(|known| std::mem::replace(known, replaced) != replaced);
    }
}

/// Whether it is about a pod of virt-handler.
fn is_one(transition: &Transition) -> bool {
    let pod = transition.after().or(transition.before());
    pod.is_some_and(|pod| pod["metadata"]["labels"]["kubevirt.io"] == NAME)
}

fn node(pod: &Value) -> Option<&str> {
    pod.pointer("/spec/nodeName").and_then(Value::as_str)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn is_leaving(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

/// A pod that is on its way out may still answer, and counts no longer.
fn serves(pod: Option<&Value>) -> Option<&str> {
    pod.filter(|pod| is_ready(pod) && !is_leaving(pod)).and_then(node)
}

impl State {
    fn pod(&mut self, transition: &Transition) {
        let (before, after) = (transition.before(), transition.after());
        let (had, has) = (serves(before), serves(after));
        if had != has {
            if let Some(node) = had
                && let Some(count) = self.serving.get_mut(node)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.without.insert(node.to_owned(), Instant::now());
                }
            }
            if let Some(node) = has {
                *self.serving.entry(node.to_owned()).or_default() += 1;
                let since = self.without.remove(node);
                self.longest = self.longest.max(since.map_or(Duration::ZERO, |since| since.elapsed()));
            }
        }
        let Some(to) = &self.to else { return };
        let Some(pod) = after.or(before) else { return };
        let Some(node) = node(pod) else { return };
        let now = Instant::now();
        let version = pod.pointer("/metadata/annotations/kubevirt.io~1install-strategy-version");
        let moments = self.moments.entry(node.to_owned()).or_default();
        if version.and_then(Value::as_str) == Some(to) {
            moments.bound.get_or_insert(now);
            if has.is_some() && moments.ready.is_none() {
                moments.ready = Some(now);
                self.replaced += 1;
            }
            return;
        }
        if is_leaving(pod) || after.is_none() {
            moments.asked.get_or_insert(now);
        }
        if after.is_none() {
            moments.gone.get_or_insert(now);
        }
    }

    /// Counts after a commit.
    fn judge(&mut self, name: &str) {
        if self.to.is_none() {
            return;
        }
        self.commits += 1;
        let unavailable = u32::try_from(self.without.len()).unwrap_or(u32::MAX);
        self.most = self.most.max(unavailable);
        let granted = match &self.granted {
            Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            Value::String(share) => share.strip_suffix('%').and_then(|percent| {
                let percent: u32 = percent.parse().ok()?;
                Some((self.nodes * percent).div_ceil(100))
            }),
            _ => None,
        };
        let may = allowed(self.nodes, self.replaced > 0).min(granted.unwrap_or(1));
        if unavailable > may {
            let Self { nodes, commits, .. } = self;
            self.exceeded.push(format!(
                "commit {commits}, {name}: {unavailable} of {nodes} nodes without a pod that serves, {may} may be"
            ));
        }
    }
}

impl Faults for Rolling {
    fn after(&self, call: Call<'_>, _: u16) -> After {
        if call.request.is_write() {
            self.observe();
        }
        let resource = call.request.resource.as_ref();
        let is_lease = resource.is_some_and(|path| path.plural == "leases");
        if call.user.name == OPERATOR && !is_lease {
            let mut state = self.lock();
            if call.request.verb == "watch" {
                state.asked.watches += 1;
            } else {
                let is_write = call.request.is_write();
                state.asked.requests += 1;
                state.asked.reads += u32::from(!is_write);
                let is_status = resource.is_some_and(|path| path.plural == "kubevirts" && path.subresource == "status");
                state.asked.statuses += u32::from(is_write && is_status);
            }
        }
        After::Reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_then_a_tenth_rounded_up() {
        assert_eq!([3, 10, 11, 5000].map(|nodes| allowed(nodes, true)), [1, 1, 2, 500]);
        assert_eq!(allowed(5000, false), 1);
        assert_eq!([1, 3, 100, 5000].map(ideal_waves), [1, 3, 11, 11]);
    }
}
