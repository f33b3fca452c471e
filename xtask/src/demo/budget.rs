//! Where the time of a change of version goes: of each step, how long pods ended and came up, and what lies between.
//!
//! Both are heard from the API while it happens, because the API keeps times in whole seconds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Deserialize as _;
use serde_json::Value;

/// Seconds that the steps of a change may take beyond what its pods need.
pub(super) const GOAL: f64 = 3.0;

/// From a moment to another, in seconds since the change was asked for.
type Span = (f64, f64);

/// One step of the change.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spent {
    pub(super) step: String,
    pub(super) wall: f64,
    /// At least one of the pods it replaces was ending, or on its way to Ready.
    pub(super) critical: f64,
}

impl Spent {
    pub(super) fn overhead(&self) -> f64 {
        self.wall - self.critical
    }
}

/// What was heard of one object at a moment.
struct Heard {
    at: Instant,
    gone: bool,
    object: Value,
}

type Log = Arc<Mutex<Vec<Heard>>>;

/// Listens to pods and plans until it is asked; its programs end with it.
pub(super) struct Budget {
    listeners: Vec<Child>,
    log: Log,
}

impl Drop for Budget {
    fn drop(&mut self) {
        for listener in &mut self.listeners {
            let _ = listener.kill();
            let _ = listener.wait();
        }
    }
}

impl Budget {
    /// # Errors
    /// kubectl cannot be run.
    pub(super) fn start(kubeconfig: &Path) -> Result<Self> {
        let mut budget = Self { listeners: Vec::new(), log: Arc::default() };
        for kind in ["pods", "upgradeplans", "kubevirts"] {
            let arguments = ["get", kind, "-n", "kubevirt", "-w", "-o", "json", "--output-watch-events"];
            let mut command = Command::new("kubectl");
            command.env("KUBECONFIG", kubeconfig).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().context("run kubectl get -w")?;
            let stdout = child.stdout.take().expect("stdout was piped");
            budget.listeners.push(child);
            let log = Arc::clone(&budget.log);
            std::thread::spawn(move || {
                let mut events = serde_json::Deserializer::from_reader(std::io::BufReader::new(stdout));
                while let Ok(mut event) = Value::deserialize(&mut events) {
                    let heard =
                        Heard { at: Instant::now(), gone: event["type"] == "DELETED", object: event["object"].take() };
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
                }
            });
        }
        Ok(budget)
    }

    /// The steps of the change to `version` that was asked for after a moment, in order.
    pub(super) fn spent(&self, version: &str, after: Instant) -> Vec<Spent> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // A client's own start is no time of the change: it begins when the server has its request.
        let asks = |heard: &&Heard| heard.object["kind"] == "KubeVirt" && heard.object["spec"]["imageTag"] == version;
        let asked = log.iter().filter(|heard| heard.at >= after).find(asks).map_or(after, |heard| heard.at);
        let since = |at: Instant| at.saturating_duration_since(asked).as_secs_f64();
        let after: Vec<(f64, bool, &Value)> = log
            .iter()
            .filter(|heard| heard.at >= asked)
            .map(|heard| (since(heard.at), heard.gone, &heard.object))
            .collect();
        let busy = pods(&after);
        let steps = steps(&after, version);
        steps
            .into_iter()
            .map(|(step, (began, ended))| {
                let own = busy.get(&step).map(Vec::as_slice).unwrap_or_default();
                Spent { critical: covered(own, (began, ended)), wall: ended - began, step }
            })
            .collect()
    }
}

/// When pods were ending or on their way to Ready, by component.
fn pods(heard: &[(f64, bool, &Value)]) -> BTreeMap<String, Vec<Span>> {
    let mut spans: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    // Since when a pod ends or comes up.
    let mut ending: BTreeMap<&str, f64> = BTreeMap::new();
    let mut coming: BTreeMap<&str, f64> = BTreeMap::new();
    for (at, gone, pod) in heard.iter().filter(|(_, _, object)| object["kind"] == "Pod") {
        let component = pod["metadata"]["labels"]["kubevirt.io"].as_str().unwrap_or_default();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let is_ready = conditions.into_iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
        let is_leaving = !pod["metadata"]["deletionTimestamp"].is_null();
        let mut add = |from: Option<f64>| {
            if let Some(from) = from {
                spans.entry(component.to_owned()).or_default().push((from, *at));
            }
        };
        if *gone {
            add(ending.remove(name));
            coming.remove(name);
        } else if is_leaving {
            ending.entry(name).or_insert(*at);
        } else if is_ready {
            add(coming.remove(name));
        } else {
            coming.entry(name).or_insert(*at);
        }
    }
    spans
}

/// From a step's beginning to its end, as the plan to this version tells them, in order.
fn steps(heard: &[(f64, bool, &Value)], version: &str) -> Vec<(String, Span)> {
    let mut order: Vec<String> = Vec::new();
    let mut began: BTreeMap<String, f64> = BTreeMap::new();
    let mut ended: BTreeMap<String, f64> = BTreeMap::new();
    let is_it = |object: &Value| object["kind"] == "UpgradePlan" && object["spec"]["to"]["version"] == version;
    for (at, _, plan) in heard.iter().filter(|(_, _, object)| is_it(object)) {
        for step in plan["status"]["steps"].as_array().into_iter().flatten() {
            let name = step["name"].as_str().unwrap_or_default().to_owned();
            if !order.contains(&name) {
                order.push(name.clone());
            }
            let state = step["state"].as_str().unwrap_or_default();
            if state != "Pending" {
                began.entry(name.clone()).or_insert(*at);
            }
            if state == "Done" {
                ended.entry(name).or_insert(*at);
            }
        }
    }
    // A step begins where the one before it has ended: what is told of it later is time of its own.
    let mut last = 0.0;
    let mut spans = Vec::new();
    for name in order {
        let Some(end) = ended.get(&name).copied() else { continue };
        let end = f64::max(end, last);
        spans.push((name, (last, end)));
        last = end;
    }
    spans
}

/// How much of a span others cover together.
fn covered(spans: &[Span], (from, to): Span) -> f64 {
    let mut clipped: Vec<Span> = spans.iter().map(|(a, b)| (a.max(from), b.min(to))).filter(|(a, b)| a < b).collect();
    clipped.sort_by(|left, right| left.0.total_cmp(&right.0));
    let (mut sum, mut reached) = (0.0, from);
    for (a, b) in clipped {
        if b > reached {
            sum += b - a.max(reached);
            reached = b;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_that_overlap_count_once_and_what_lies_outside_not_at_all() {
        assert!((covered(&[(0.0, 2.0), (1.0, 3.0), (5.0, 9.0)], (1.0, 6.0)) - 3.0).abs() < 1e-9);
        assert!(covered(&[], (0.0, 5.0)).abs() < 1e-9);
    }

    fn pod(name: &str, ready: bool, leaving: bool) -> Value {
        json!({"kind": "Pod", "metadata": {"name": name, "labels": {"kubevirt.io": "virt-api"},
            "deletionTimestamp": leaving.then_some("now")},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    #[test]
    fn what_is_neither_ending_nor_coming_up_is_overhead() {
        let plan = |first: &str, second: &str| {
            json!({"kind": "UpgradePlan", "spec": {"to": {"version": "v2"}}, "status": {"steps": [
                {"name": "crds", "state": first}, {"name": "virt-api", "state": second}]}})
        };
        let other = json!({"kind": "UpgradePlan", "spec": {"to": {"version": "v1"}},
            "status": {"steps": [{"name": "crds", "state": "Done"}]}});
        let log = [
            (0.1, false, other),
            (0.2, false, plan("InProgress", "Pending")),
            (1.0, false, plan("Done", "InProgress")),
            (1.5, false, pod("new", false, false)),
            (3.5, false, pod("new", true, false)),
            (4.0, false, pod("old", true, true)),
            (5.0, true, pod("old", true, true)),
            (6.0, false, plan("Done", "Done")),
        ];
        let heard: Vec<(f64, bool, &Value)> = log.iter().map(|(at, gone, object)| (*at, *gone, object)).collect();
        let steps = steps(&heard, "v2");
        assert_eq!(steps, [("crds".to_owned(), (0.0, 1.0)), ("virt-api".to_owned(), (1.0, 6.0))]);
        assert_eq!(pods(&heard)["virt-api"], [(1.5, 3.5), (4.0, 5.0)]);
        assert!((covered(&pods(&heard)["virt-api"], steps[1].1) - 3.0).abs() < 1e-9);
    }
}
