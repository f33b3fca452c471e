//! Columns of kinds that the controllers here do not act on: storage, network, quotas, autoscaling and the like.

use serde_json::{Value, json};

use super::cells::{self, age, items};
use super::columns::{Cell, Column, age_column, number, text, wide};
use crate::verbs::metadata_text;

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";

fn text_at(object: &Value, path: &str) -> String {
    match object.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn or(found: String, otherwise: &str) -> String {
    if found.is_empty() { otherwise.to_owned() } else { found }
}

fn joined(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
}

/// What a kind's columns are, between name and age, if this module knows it.
pub(super) fn of(group: &str, plural: &str) -> Option<Vec<Column>> {
    let containers: Cell = |o, _| json!(cells::containers(&o["spec"]["template"], "name"));
    let images: Cell = |o, _| json!(cells::containers(&o["spec"]["template"], "image"));
    Some(match (group, plural) {
        ("", "componentstatuses") => vec![
            text("Status", |o, _| json!(if o["conditions"][0]["status"] == "True" { "Healthy" } else { "Unhealthy" })),
            text("Message", |o, _| json!(text_at(o, "/conditions/0/message"))),
            text("Error", |o, _| json!(text_at(o, "/conditions/0/error"))),
        ],
        ("", "podtemplates") => vec![
            text("Containers", |o, _| json!(cells::containers(&o["template"], "name"))),
            text("Images", |o, _| json!(cells::containers(&o["template"], "image"))),
            text("Pod Labels", |o, _| json!(cells::selector(&o["template"]["metadata"]["labels"]))),
        ],
        ("", "replicationcontrollers") => vec![
            number("Desired", |o, _| json!(o["spec"]["replicas"].as_i64().unwrap_or(0))),
            number("Current", |o, _| json!(o["status"]["replicas"].as_i64().unwrap_or(0))),
            number("Ready", |o, _| json!(o["status"]["readyReplicas"].as_i64().unwrap_or(0))),
            age_column(),
            wide("Containers", containers),
            wide("Images", images),
            wide("Selector", |o, _| json!(cells::selector(&o["spec"]["selector"]))),
        ],
        ("", "resourcequotas") => {
            vec![text("Request", |o, _| json!(quota(o, false))), text("Limit", |o, _| json!(quota(o, true)))]
        }
        ("", "limitranges") => {
            vec![super::columns::column("Created At", "date", 0, "", |o, _| {
                json!(metadata_text(o, "creationTimestamp"))
            })]
        }
        ("", "serviceaccounts") => Vec::new(),
        ("", "persistentvolumes") => vec![
            text("Capacity", |o, _| json!(text_at(o, "/spec/capacity/storage"))),
            text("Access Modes", |o, _| json!(modes(&o["spec"]["accessModes"]))),
            text("Reclaim Policy", |o, _| json!(text_at(o, "/spec/persistentVolumeReclaimPolicy"))),
            text("Status", |o, _| json!(phase(o))),
            text("Claim", |o, _| {
                let claim = &o["spec"]["claimRef"];
                json!(if claim.is_null() {
                    String::new()
                } else {
                    format!("{}/{}", text_at(claim, "/namespace"), text_at(claim, "/name"))
                })
            }),
            text("StorageClass", |o, _| json!(text_at(o, "/spec/storageClassName"))),
            text("VolumeAttributesClass", |o, _| json!(or(text_at(o, "/spec/volumeAttributesClassName"), UNSET))),
            text("Reason", |o, _| json!(text_at(o, "/status/reason"))),
            age_column(),
            wide("VolumeMode", |o, _| json!(or(text_at(o, "/spec/volumeMode"), UNSET))),
        ],
        ("", "persistentvolumeclaims") => vec![
            text("Status", |o, _| json!(phase(o))),
            text("Volume", |o, _| json!(text_at(o, "/spec/volumeName"))),
            text("Capacity", |o, _| {
                let bound = !text_at(o, "/spec/volumeName").is_empty();
                json!(if bound { text_at(o, "/status/capacity/storage") } else { String::new() })
            }),
            text("Access Modes", |o, _| {
                let bound = !text_at(o, "/spec/volumeName").is_empty();
                json!(if bound { modes(&o["status"]["accessModes"]) } else { String::new() })
            }),
            text("StorageClass", |o, _| json!(text_at(o, "/spec/storageClassName"))),
            text("VolumeAttributesClass", |o, _| json!(or(text_at(o, "/spec/volumeAttributesClassName"), UNSET))),
            age_column(),
            wide("VolumeMode", |o, _| json!(or(text_at(o, "/spec/volumeMode"), UNSET))),
        ],
        ("batch", "cronjobs") => vec![
            text("Schedule", |o, _| json!(text_at(o, "/spec/schedule"))),
            text("Timezone", |o, _| json!(or(text_at(o, "/spec/timeZone"), NONE))),
            text("Suspend", |o, _| json!(if o["spec"]["suspend"] == true { "True" } else { "False" })),
            number("Active", |o, _| json!(cells::count(&o["status"]["active"]))),
            text("Last Schedule", |o, now| {
                json!(o["status"]["lastScheduleTime"].as_str().map_or(NONE.to_owned(), |time| age(time, now)))
            }),
            age_column(),
            wide("Containers", |o, _| json!(cells::containers(&o["spec"]["jobTemplate"]["spec"]["template"], "name"))),
            wide("Images", |o, _| json!(cells::containers(&o["spec"]["jobTemplate"]["spec"]["template"], "image"))),
            wide("Selector", |o, _| json!(cells::selector(&o["spec"]["jobTemplate"]["spec"]["selector"]))),
        ],
        ("autoscaling", _) => vec![
            text("Reference", |o, _| {
                let target = &o["spec"]["scaleTargetRef"];
                json!(format!("{}/{}", text_at(target, "/kind"), text_at(target, "/name")))
            }),
            text("Targets", |o, _| json!(targets(o))),
            text("MinPods", |o, _| json!(or(text_at(o, "/spec/minReplicas"), UNSET))),
            number("MaxPods", |o, _| json!(o["spec"]["maxReplicas"].as_i64().unwrap_or(0))),
            number("Replicas", |o, _| json!(o["status"]["currentReplicas"].as_i64().unwrap_or(0))),
        ],
        ("networking.k8s.io", "ingresses") => vec![
            text("Class", |o, _| json!(or(text_at(o, "/spec/ingressClassName"), NONE))),
            text("Hosts", |o, _| {
                let hosts = joined(items(&o["spec"]["rules"]).map(|rule| text_at(rule, "/host")));
                json!(or(hosts, "*"))
            }),
            text("Address", |o, _| {
                let points = items(&o["status"]["loadBalancer"]["ingress"]);
                json!(joined(points.map(|point| or(text_at(point, "/ip"), &text_at(point, "/hostname")))))
            }),
            text("Ports", |o, _| json!(if cells::count(&o["spec"]["tls"]) > 0 { "80, 443" } else { "80" })),
        ],
        ("networking.k8s.io", "ingressclasses") => vec![
            text("Controller", |o, _| json!(text_at(o, "/spec/controller"))),
            text("Parameters", |o, _| {
                let given = &o["spec"]["parameters"];
                let group = text_at(given, "/apiGroup");
                let kind = text_at(given, "/kind");
                let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
                json!(if given.is_null() { NONE.to_owned() } else { format!("{kind}/{}", text_at(given, "/name")) })
            }),
        ],
        ("networking.k8s.io", "networkpolicies") => {
            vec![text("Pod-Selector", |o, _| json!(cells::selector(&o["spec"]["podSelector"])))]
        }
        ("networking.k8s.io", "ipaddresses") => vec![text("ParentRef", |o, _| {
            let parent = &o["spec"]["parentRef"];
            let parts = ["/group", "/resource", "/namespace", "/name"].map(|part| text_at(parent, part));
            let [group, resource, namespace, name] = parts;
            let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
            json!([resource, namespace, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
        })],
        ("networking.k8s.io", "servicecidrs") => {
            vec![text("CIDRs", |o, _| json!(cells::join(&o["spec"]["cidrs"])))]
        }
        ("certificates.k8s.io", _) => vec![
            age_column(),
            text("SignerName", |o, _| json!(text_at(o, "/spec/signerName"))),
            text("Requestor", |o, _| json!(text_at(o, "/spec/username"))),
            text("RequestedDuration", |o, _| {
                json!(o["spec"]["expirationSeconds"].as_i64().map_or(NONE.to_owned(), cells::duration))
            }),
            text("Condition", |o, _| json!(request_state(o))),
        ],
        ("node.k8s.io", "runtimeclasses") => vec![text("Handler", |o, _| json!(text_at(o, "/handler")))],
        ("rbac.authorization.k8s.io", "clusterrolebindings" | "rolebindings") => vec![
            text("Role", |o, _| json!(format!("{}/{}", text_at(o, "/roleRef/kind"), text_at(o, "/roleRef/name")))),
            age_column(),
            wide("Users", |o, _| json!(subjects(o, "User"))),
            wide("Groups", |o, _| json!(subjects(o, "Group"))),
            wide("ServiceAccounts", |o, _| json!(subjects(o, "ServiceAccount"))),
        ],
        ("scheduling.k8s.io", "priorityclasses") => vec![
            number("Value", |o, _| json!(o["value"].as_i64().unwrap_or(0))),
            super::columns::column("Global-Default", "boolean", 0, "", |o, _| json!(o["globalDefault"] == true)),
            age_column(),
            text("PreemptionPolicy", |o, _| json!(or(text_at(o, "/preemptionPolicy"), "PreemptLowerPriority"))),
        ],
        ("storage.k8s.io", "storageclasses") => vec![
            text("Provisioner", |o, _| json!(text_at(o, "/provisioner"))),
            text("ReclaimPolicy", |o, _| json!(or(text_at(o, "/reclaimPolicy"), "Delete"))),
            text("VolumeBindingMode", |o, _| json!(or(text_at(o, "/volumeBindingMode"), "Immediate"))),
            text("AllowVolumeExpansion", |o, _| json!(o["allowVolumeExpansion"] == true)),
        ],
        ("storage.k8s.io", "csidrivers") => vec![
            super::columns::column("AttachRequired", "boolean", 0, "", |o, _| {
                json!(o["spec"]["attachRequired"] != false)
            }),
            super::columns::column("PodInfoOnMount", "boolean", 0, "", |o, _| {
                json!(o["spec"]["podInfoOnMount"] == true)
            }),
            super::columns::column("StorageCapacity", "boolean", 0, "", |o, _| {
                json!(o["spec"]["storageCapacity"] == true)
            }),
            text("TokenRequests", |o, _| {
                let audiences = items(&o["spec"]["tokenRequests"]).map(|request| text_at(request, "/audience"));
                json!(or(joined(audiences), UNSET))
            }),
            super::columns::column("RequiresRepublish", "boolean", 0, "", |o, _| {
                json!(o["spec"]["requiresRepublish"] == true)
            }),
            text("Modes", |o, _| json!(or(cells::join(&o["spec"]["volumeLifecycleModes"]), "Persistent"))),
        ],
        ("storage.k8s.io", "csinodes") => vec![number("Drivers", |o, _| json!(cells::count(&o["spec"]["drivers"])))],
        ("storage.k8s.io", "volumeattachments") => vec![
            text("Attacher", |o, _| json!(text_at(o, "/spec/attacher"))),
            text("PV", |o, _| json!(text_at(o, "/spec/source/persistentVolumeName"))),
            text("Node", |o, _| json!(text_at(o, "/spec/nodeName"))),
            super::columns::column("Attached", "boolean", 0, "", |o, _| json!(o["status"]["attached"] == true)),
        ],
        ("storage.k8s.io", "volumeattributesclasses") => {
            vec![text("DriverName", |o, _| json!(text_at(o, "/driverName")))]
        }
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => vec![
            text("PriorityLevel", |o, _| json!(text_at(o, "/spec/priorityLevelConfiguration/name"))),
            number("MatchingPrecedence", |o, _| json!(o["spec"]["matchingPrecedence"].as_i64().unwrap_or(0))),
            text("DistinguisherMethod", |o, _| json!(or(text_at(o, "/spec/distinguisherMethod/type"), NONE))),
            age_column(),
            text("MissingPL", |o, _| {
                let dangling = items(&o["status"]["conditions"]).find(|condition| condition["type"] == "Dangling");
                json!(dangling.map_or("?".to_owned(), |condition| text_at(condition, "/status")))
            }),
        ],
        ("flowcontrol.apiserver.k8s.io", _) => vec![
            text("Type", |o, _| json!(text_at(o, "/spec/type"))),
            text("NominalConcurrencyShares", |o, _| {
                json!(or(text_at(o, "/spec/limited/nominalConcurrencyShares"), NONE))
            }),
            text("Queues", |o, _| json!(or(text_at(o, "/spec/limited/limitResponse/queuing/queues"), NONE))),
            text("HandSize", |o, _| json!(or(text_at(o, "/spec/limited/limitResponse/queuing/handSize"), NONE))),
            text("QueueLengthLimit", |o, _| {
                json!(or(text_at(o, "/spec/limited/limitResponse/queuing/queueLengthLimit"), NONE))
            }),
        ],
        ("resource.k8s.io", "resourceclaims") => vec![text("State", |o, _| {
            let allocated = !o["status"]["allocation"].is_null();
            let mut states = vec![if allocated { "allocated" } else { "pending" }];
            states.extend((cells::count(&o["status"]["reservedFor"]) > 0).then_some("reserved"));
            json!(states.join(","))
        })],
        ("resource.k8s.io", "resourceslices") => vec![
            text("Node", |o, _| json!(text_at(o, "/spec/nodeName"))),
            text("Driver", |o, _| json!(text_at(o, "/spec/driver"))),
            text("Pool", |o, _| json!(text_at(o, "/spec/pool/name"))),
        ],
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => vec![
            number("Validations", |o, _| json!(cells::count(&o["spec"]["validations"]))),
            text("ParamKind", |o, _| {
                let kind = &o["spec"]["paramKind"];
                let shown = format!("{}/{}", text_at(kind, "/apiVersion"), text_at(kind, "/kind"));
                json!(if kind.is_null() { UNSET.to_owned() } else { shown })
            }),
        ],
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => vec![
            text("PolicyName", |o, _| json!(text_at(o, "/spec/policyName"))),
            text("ParamRef", |o, _| {
                let param = &o["spec"]["paramRef"];
                let namespace = or(text_at(param, "/namespace"), "*");
                let named = text_at(param, "/name");
                let what = if named.is_empty() { cells::selector(&param["selector"]) } else { named };
                json!(if param.is_null() { UNSET.to_owned() } else { format!("{namespace}/{what}") })
            }),
        ],
        _ => return None,
    })
}

fn phase(object: &Value) -> String {
    let going = !metadata_text(object, "deletionTimestamp").is_empty();
    if going { "Terminating".to_owned() } else { text_at(object, "/status/phase") }
}

/// Access modes in their short form.
fn modes(value: &Value) -> String {
    let short = |mode: &Value| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    joined(items(value).map(|mode| short(mode).to_owned()))
}

/// What is used of what is allowed, of limits or of all else.
fn quota(object: &Value, limits: bool) -> String {
    let hard = object["status"]["hard"].as_object().or(object["spec"]["hard"].as_object());
    let mut parts: Vec<String> = Vec::new();
    for (name, most) in hard.into_iter().flatten().filter(|(name, _)| name.starts_with("limits.") == limits) {
        let used = object["status"]["used"][name].as_str().unwrap_or("0");
        parts.push(format!("{name}: {used}/{}", most.as_str().unwrap_or_default()));
    }
    parts.join(", ")
}

fn subjects(object: &Value, kind: &str) -> String {
    let of_kind = items(&object["subjects"]).filter(|subject| subject["kind"] == kind);
    let named = of_kind.map(|subject| match kind {
        "ServiceAccount" => format!("{}/{}", text_at(subject, "/namespace"), text_at(subject, "/name")),
        _ => text_at(subject, "/name"),
    });
    named.collect::<Vec<_>>().join(", ")
}

fn request_state(object: &Value) -> String {
    let has = |kind: &str| items(&object["status"]["conditions"]).any(|condition| condition["type"] == kind);
    let mut states = vec![match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }];
    states.extend(has("Failed").then_some("Failed"));
    states.extend((!object["status"]["certificate"].is_null()).then_some("Issued"));
    states.join(",")
}

/// Metrics as `what: current/wanted`; nobody measures here, so the current value is unknown until somebody writes it.
fn targets(object: &Value) -> String {
    let percent = &object["spec"]["targetCPUUtilizationPercentage"];
    let mut parts: Vec<String> = Vec::new();
    if let Some(percent) = percent.as_i64() {
        let now = object["status"]["currentCPUUtilizationPercentage"].as_i64();
        parts.push(format!("cpu: {}/{percent}%", now.map_or("<unknown>".to_owned(), |now| format!("{now}%"))));
    }
    for (index, metric) in items(&object["spec"]["metrics"]).enumerate() {
        let kind = text_at(metric, "/type");
        let part = &metric[kind[..1.min(kind.len())].to_lowercase() + kind.get(1..).unwrap_or_default()];
        let now = &object["status"]["currentMetrics"][index];
        let now = &now[kind[..1.min(kind.len())].to_lowercase() + kind.get(1..).unwrap_or_default()]["current"];
        let target = &part["target"];
        let shown = match target["averageUtilization"].as_i64() {
            Some(wanted) => {
                let known = now["averageUtilization"].as_i64();
                format!("{}/{wanted}%", known.map_or("<unknown>".to_owned(), |now| format!("{now}%")))
            }
            None => {
                let wanted = or(text_at(target, "/averageValue"), &text_at(target, "/value"));
                format!("{}/{wanted}", or(or(text_at(now, "/averageValue"), &text_at(now, "/value")), "<unknown>"))
            }
        };
        let name = text_at(part, "/name");
        parts.push(if name.is_empty() { shown } else { format!("{name}: {shown}") });
    }
    if parts.is_empty() { NONE.to_owned() } else { parts.join(", ") }
}
