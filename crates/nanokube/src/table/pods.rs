//! The pod table: its status column says why a pod is not running.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, or_none};
use super::columns::{Column, pod_column};

pub(super) fn columns(name: Column, age_column: Column) -> Vec<Column> {
    vec![
        name,
        pod_column("Ready", 0, |o, _| json!(ready(o))),
        pod_column("Status", 0, |o, _| json!(status(o))),
        pod_column("Restarts", 0, |o, now| json!(restarts(o, now))),
        age_column,
        pod_column("IP", 1, |o, _| json!(or_none(&o["status"]["podIP"]))),
        pod_column("Node", 1, |o, _| json!(or_none(&o["spec"]["nodeName"]))),
        pod_column("Nominated Node", 1, |o, _| json!(or_none(&o["status"]["nominatedNodeName"]))),
        pod_column("Readiness Gates", 1, |o, _| json!(gates(o))),
    ]
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn ready(pod: &Value) -> String {
    let count = list(&pod["spec"]["containers"]).count();
    let ready = list(&pod["status"]["containerStatuses"])
        .filter(|container| container["ready"] == true && container["state"]["running"].is_object())
        .count();
    format!("{ready}/{count}")
}

/// The reason of the worst container, or the phase.
pub(super) fn status(pod: &Value) -> String {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let mut reason = text(&pod["status"]["reason"])
        .or_else(|| text(&pod["status"]["phase"]))
        .unwrap_or_else(|| "Unknown".to_owned());
    let gated = list(&pod["status"]["conditions"])
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    if gated {
        "SchedulingGated".clone_into(&mut reason);
    }
    let initializing = init_reason(pod);
    if let Some(init) = &initializing {
        reason.clone_from(init);
    }
    if initializing.is_none() {
        let mut running = false;
        for container in list(&pod["status"]["containerStatuses"]).collect::<Vec<_>>().into_iter().rev() {
            let (waiting, ended) = (&container["state"]["waiting"], &container["state"]["terminated"]);
            if let Some(why) = text(&waiting["reason"]) {
                reason = why;
            } else if let Some(why) = text(&ended["reason"]) {
                reason = why;
            } else if ended.is_object() {
                reason = match ended["signal"].as_i64().filter(|signal| *signal != 0) {
                    Some(signal) => format!("Signal:{signal}"),
                    None => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
                };
            } else if container["ready"] == true && container["state"]["running"].is_object() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            let ready = list(&pod["status"]["conditions"])
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            (if ready { "Running" } else { "NotReady" }).clone_into(&mut reason);
        }
    }
    let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if pod["metadata"]["deletionTimestamp"].is_string() {
        if pod["status"]["reason"] == "NodeLost" {
            return "Unknown".to_owned();
        }
        if !over {
            return "Terminating".to_owned();
        }
    }
    reason
}

/// `Init:...` while the initial containers are not through.
fn init_reason(pod: &Value) -> Option<String> {
    let total = list(&pod["spec"]["initContainers"]).count();
    for (index, container) in list(&pod["status"]["initContainerStatuses"]).enumerate() {
        let restarts = list(&pod["spec"]["initContainers"])
            .any(|spec| spec["name"] == container["name"] && spec["restartPolicy"] == "Always");
        if restarts && container["started"] == true {
            continue;
        }
        let (waiting, ended) = (&container["state"]["waiting"], &container["state"]["terminated"]);
        if ended.is_object() {
            let code = ended["exitCode"].as_i64().unwrap_or(0);
            if code == 0 {
                continue;
            }
            let why = ended["reason"].as_str().filter(|text| !text.is_empty());
            return Some(why.map_or_else(|| format!("Init:ExitCode:{code}"), |why| format!("Init:{why}")));
        }
        return Some(match waiting["reason"].as_str() {
            Some(why) if !why.is_empty() && why != "PodInitializing" => format!("Init:{why}"),
            _ => format!("Init:{index}/{total}"),
        });
    }
    None
}

fn restarts(pod: &Value, now: Timestamp) -> String {
    let count: i64 = list(&pod["status"]["containerStatuses"])
        .map(|container| container["restartCount"].as_i64().unwrap_or(0))
        .sum();
    let last = list(&pod["status"]["containerStatuses"])
        .filter_map(|container| container["lastState"]["terminated"]["finishedAt"].as_str())
        .max();
    match last.filter(|_| count > 0) {
        Some(last) => format!("{count} ({} ago)", age(last, now)),
        None => count.to_string(),
    }
}

fn gates(pod: &Value) -> String {
    let all: Vec<&Value> = list(&pod["spec"]["readinessGates"]).collect();
    if all.is_empty() {
        return "<none>".to_owned();
    }
    let open = all
        .iter()
        .filter(|gate| {
            list(&pod["status"]["conditions"])
                .any(|condition| condition["type"] == gate["conditionType"] && condition["status"] == "True")
        })
        .count();
    format!("{open}/{}", all.len())
}
