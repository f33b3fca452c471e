//! Cells that need more than one field.

use jiff::Timestamp;
use serde_json::Value;

use crate::jsonpaths::selector_text;
use crate::verbs::metadata_text;

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";

pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn nonempty(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

pub(super) fn or_none(value: &Value) -> String {
    nonempty(value).unwrap_or(NONE).to_owned()
}

pub(super) fn or_unknown(value: &Value) -> String {
    nonempty(value).unwrap_or(UNKNOWN).to_owned()
}

pub(super) fn or_not_applicable(value: &Value) -> String {
    match value {
        Value::Null => "N/A".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Entries of a map or list.
pub(super) fn count(value: &Value) -> usize {
    value.as_object().map(serde_json::Map::len).or(value.as_array().map(Vec::len)).unwrap_or(0)
}

pub(super) fn join(value: &Value) -> String {
    items(value).map(str_of).collect::<Vec<_>>().join(",")
}

pub(super) fn selector(value: &Value) -> String {
    let text = selector_text(value);
    if text.is_empty() { NONE.to_owned() } else { text }
}

pub(super) fn containers(template: &Value, field: &str) -> String {
    items(&template["spec"]["containers"]).map(|container| str_of(&container[field])).collect::<Vec<_>>().join(",")
}

/// How long ago, in the short form of `kubectl`.
pub(crate) fn age(since: &str, now: Timestamp) -> String {
    let Ok(since) = since.parse::<Timestamp>() else { return UNKNOWN.to_owned() };
    duration(now.as_second() - since.as_second())
}

/// Seconds in the short form of `kubectl`: two units where one would be too coarse.
pub(super) fn duration(seconds: i64) -> String {
    // The calendar in seconds; a year has no leap day here.
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        let rest = (seconds % big) / small;
        if rest == 0 {
            format!("{}{big_unit}", seconds / big)
        } else {
            format!("{}{big_unit}{rest}{small_unit}", seconds / big)
        }
    };
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        // A second ahead is a difference of clocks, no mistake.
        -1 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(DAY, "d", HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

pub(super) fn node_status(node: &Value) -> String {
    let ready = items(&node["status"]["conditions"]).find(|condition| condition["type"] == "Ready");
    let mut status = match ready.map(|condition| str_of(&condition["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

pub(super) fn node_roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" => nonempty(value),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

pub(super) fn node_address(node: &Value, kind: &str) -> String {
    items(&node["status"]["addresses"])
        .find(|address| address["type"] == kind)
        .map_or(NONE.to_owned(), |address| or_none(&address["address"]))
}

pub(super) fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let given = join(&spec["externalIPs"]);
    let ingress = items(&service["status"]["loadBalancer"]["ingress"])
        .filter_map(|entry| nonempty(&entry["ip"]).or(nonempty(&entry["hostname"])))
        .collect::<Vec<_>>()
        .join(",");
    match str_of(&spec["type"]) {
        "ExternalName" => or_none(&spec["externalName"]),
        "LoadBalancer" if ingress.is_empty() && given.is_empty() => "<pending>".to_owned(),
        "LoadBalancer" => [ingress, given].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(","),
        _ if given.is_empty() => NONE.to_owned(),
        _ => given,
    }
}

pub(super) fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = items(&service["spec"]["ports"])
        .map(|port| {
            let (number, protocol) = (port["port"].as_i64().unwrap_or(0), port["protocol"].as_str().unwrap_or("TCP"));
            match port["nodePort"].as_i64().filter(|node| *node > 0) {
                Some(node) => format!("{number}:{node}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}

/// The first three, and how many more.
fn first_three(all: &[String]) -> String {
    match all.len() {
        0 => NONE.to_owned(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

pub(super) fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(&object["subsets"]) {
        for address in items(&subset["addresses"]) {
            let ip = str_of(&address["ip"]);
            let ports: Vec<i64> = items(&subset["ports"]).filter_map(|port| port["port"].as_i64()).collect();
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{ip}:{port}")));
        }
    }
    first_three(&all)
}

pub(super) fn slice_ports(object: &Value) -> String {
    let all: Vec<String> = items(&object["ports"])
        .map(|port| port["port"].as_i64().map_or("*".to_owned(), |number| number.to_string()))
        .collect();
    if all.is_empty() { "<unset>".to_owned() } else { first_three(&all) }
}

pub(super) fn slice_endpoints(object: &Value) -> String {
    let all: Vec<String> = items(&object["endpoints"])
        .flat_map(|endpoint| {
            items(&endpoint["addresses"]).map(|address| str_of(address).to_owned()).collect::<Vec<_>>()
        })
        .collect();
    if all.is_empty() { "<unset>".to_owned() } else { first_three(&all) }
}

pub(super) fn controller(object: &Value) -> String {
    let owner = items(&object["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true);
    let Some(owner) = owner else { return NONE.to_owned() };
    let group = str_of(&owner["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
    let kind = str_of(&owner["kind"]).to_lowercase();
    let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    format!("{kind}/{}", str_of(&owner["name"]))
}

pub(super) fn job_status(job: &Value) -> String {
    let is = |kind: &str| {
        items(&job["status"]["conditions"]).any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let status = if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if !metadata_text(job, "deletionTimestamp").is_empty() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else {
        "Running"
    };
    status.to_owned()
}

pub(super) fn job_completions(job: &Value) -> String {
    let done = job["status"]["succeeded"].as_i64().unwrap_or(0);
    match (job["spec"]["completions"].as_i64(), job["spec"]["parallelism"].as_i64().unwrap_or(0)) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    }
}

pub(super) fn job_duration(job: &Value, now: Timestamp) -> String {
    let time = |field: &str| job["status"][field].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    match (time("startTime"), time("completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => duration(end.unwrap_or(now).as_second() - start.as_second()),
    }
}

pub(super) fn api_service(object: &Value) -> String {
    let service = &object["spec"]["service"];
    match nonempty(&service["name"]) {
        Some(name) => format!("{}/{name}", str_of(&service["namespace"])),
        None => "Local".to_owned(),
    }
}

pub(super) fn api_service_available(object: &Value) -> String {
    let available = items(&object["status"]["conditions"]).find(|condition| condition["type"] == "Available");
    match available {
        Some(condition) if condition["status"] == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", str_of(&condition["status"]), str_of(&condition["reason"])),
        None => "Unknown".to_owned(),
    }
}

/// A field under either of its two spellings.
fn either<'a>(event: &'a Value, core: &str, other: &str) -> &'a Value {
    if event[core].is_null() { &event[other] } else { &event[core] }
}

fn first_time(event: &Value) -> &str {
    nonempty(either(event, "firstTimestamp", "deprecatedFirstTimestamp")).unwrap_or(str_of(&event["eventTime"]))
}

pub(super) fn event_first_seen(event: &Value, now: Timestamp) -> String {
    age(first_time(event), now)
}

pub(super) fn event_last_seen(event: &Value, now: Timestamp) -> String {
    let last = nonempty(&event["series"]["lastObservedTime"])
        .or(nonempty(either(event, "lastTimestamp", "deprecatedLastTimestamp")))
        .unwrap_or(first_time(event));
    age(last, now)
}

pub(super) fn event_object(event: &Value) -> String {
    let object = either(event, "involvedObject", "regarding");
    format!("{}/{}", str_of(&object["kind"]).to_lowercase(), str_of(&object["name"]))
}

pub(super) fn event_field(event: &Value, field: &str) -> String {
    str_of(&either(event, "involvedObject", "regarding")[field]).to_owned()
}

pub(super) fn event_source(event: &Value) -> String {
    let source = either(event, "source", "deprecatedSource");
    let component =
        nonempty(&source["component"]).unwrap_or(str_of(either(event, "reportingComponent", "reportingController")));
    let host = nonempty(&source["host"]).unwrap_or(str_of(&event["reportingInstance"]));
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

pub(super) fn event_message(event: &Value) -> String {
    str_of(either(event, "message", "note")).trim().to_owned()
}

pub(super) fn event_count(event: &Value) -> i64 {
    let series = event["series"]["count"].as_i64();
    series.or(either(event, "count", "deprecatedCount").as_i64()).filter(|count| *count > 0).unwrap_or(1)
}
