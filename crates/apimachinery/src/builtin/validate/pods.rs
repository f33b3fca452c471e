//! Rules of pods and pod templates.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Unique, immutable, item_name, list, not_negative, one_of, port, port_or_name, text};
use crate::field::{self, FieldError};
use crate::names;
use crate::quantity::Quantity;

const RESTART: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PULL: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

pub(super) fn pod(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    spec("spec", &new["spec"], errors);
    if let Some(old) = old {
        change(&new["spec"], &old["spec"], errors);
    }
}

/// Of a pod's specification only few fields may change.
fn change(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let rest = |spec: &Value| {
        let mut spec = spec.clone();
        for containers in ["containers", "initContainers"] {
            for c in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
                c.as_object_mut().map(|c| c.remove("image"));
            }
        }
        if let Some(map) = spec.as_object_mut() {
            for name in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
                map.remove(name);
            }
            // Written by other endpoints: the binding and the one for ephemeral containers.
            map.remove("nodeName");
            map.remove("ephemeralContainers");
        }
        spec
    };
    let kept = list(old, "tolerations").iter().all(|t| list(new, "tolerations").contains(t));
    let gates_shrink = list(new, "schedulingGates").iter().all(|g| list(old, "schedulingGates").contains(g));
    if rest(new) != rest(old) || !kept || !gates_shrink {
        let why = "of a pod that exists only images, activeDeadlineSeconds and terminationGracePeriodSeconds may \
                   change, tolerations be added and scheduling gates be removed";
        errors.push(FieldError::forbidden("spec", why));
    }
    if !old["nodeName"].is_null() {
        immutable("spec.nodeName", &new["nodeName"], &old["nodeName"], errors);
    }
}

/// A template: its labels, annotations and specification.
pub(super) fn template(path: &str, template: &Value, errors: &mut Vec<FieldError>) {
    let meta = field::child(path, "metadata");
    errors.extend(names::labels(&field::child(&meta, "labels"), &template["metadata"]["labels"]));
    spec(&field::child(path, "spec"), &template["spec"], errors);
}

fn spec(path: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let at = |name: &str| field::child(path, name);
    let volumes = volumes(&at("volumes"), list(spec, "volumes"), errors);
    if list(spec, "containers").is_empty() {
        errors.push(FieldError::required(at("containers"), ""));
    }
    let mut unique = Unique::new();
    for name in ["initContainers", "containers"] {
        for (i, c) in list(spec, name).iter().enumerate() {
            container(&field::index(&at(name), i), c, name == "initContainers", &volumes, &mut unique, errors);
        }
    }
    one_of(&at("restartPolicy"), &spec["restartPolicy"], &RESTART, errors);
    one_of(&at("dnsPolicy"), &spec["dnsPolicy"], &DNS, errors);
    for name in ["terminationGracePeriodSeconds", "activeDeadlineSeconds"] {
        not_negative(&at(name), &spec[name], errors);
    }
    errors.extend(names::labels(&at("nodeSelector"), &spec["nodeSelector"]));
    for (name, rule) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("priorityClassName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
    ] {
        let name_given = text(spec, name);
        if !name_given.is_empty() {
            errors.extend(rule(name_given).iter().map(|why| FieldError::invalid(at(name), &spec[name], why)));
        }
    }
    for (i, t) in list(spec, "tolerations").iter().enumerate() {
        toleration(&field::index(&at("tolerations"), i), t, errors);
    }
    for (i, c) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let here = field::index(&at("topologySpreadConstraints"), i);
        if c["maxSkew"].as_i64().is_none_or(|n| n <= 0) {
            errors.push(FieldError::invalid(
                field::child(&here, "maxSkew"),
                &c["maxSkew"],
                "must be greater than zero",
            ));
        }
        let allowed = ["DoNotSchedule", "ScheduleAnyway"];
        one_of(&field::child(&here, "whenUnsatisfiable"), &c["whenUnsatisfiable"], &allowed, errors);
    }
}

fn toleration(path: &str, t: &Value, errors: &mut Vec<FieldError>) {
    one_of(&field::child(path, "operator"), &t["operator"], &["Equal", "Exists", "Gt", "Lt"], errors);
    one_of(&field::child(path, "effect"), &t["effect"], &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
    let exists = text(t, "operator") == "Exists";
    if text(t, "key").is_empty() {
        if !exists {
            let why = "must be Exists without a key: it then tolerates every taint";
            errors.push(FieldError::invalid(field::child(path, "operator"), &t["operator"], why));
        }
    } else {
        let why = names::label_key(text(t, "key"));
        errors.extend(why.iter().map(|why| FieldError::invalid(field::child(path, "key"), &t["key"], why)));
    }
    if exists && !text(t, "value").is_empty() {
        let why = "a value makes no sense with Exists";
        errors.push(FieldError::invalid(field::child(path, "operator"), t, why));
    }
}

/// The names of the volumes; exactly one source each.
fn volumes(path: &str, volumes: &[Value], errors: &mut Vec<FieldError>) -> BTreeSet<String> {
    let mut unique = Unique::new();
    let mut known = BTreeSet::new();
    for (i, v) in volumes.iter().enumerate() {
        let path = field::index(path, i);
        item_name(&path, v, &mut unique, errors);
        known.insert(text(v, "name").to_owned());
        let sources: Vec<&String> =
            v.as_object().into_iter().flat_map(Map::keys).filter(|name| *name != "name").collect();
        match sources.as_slice() {
            [] => errors.push(FieldError::required(&path, "must specify a volume type")),
            [_] => {}
            [_, more, ..] => {
                errors
                    .push(FieldError::forbidden(field::child(&path, more), "may not specify more than 1 volume type"));
            }
        }
    }
    known
}

fn container(
    path: &str,
    c: &Value,
    init: bool,
    volumes: &BTreeSet<String>,
    unique: &mut Unique,
    errors: &mut Vec<FieldError>,
) {
    let at = |name: &str| field::child(path, name);
    item_name(path, c, unique, errors);
    let image = text(c, "image");
    if image.is_empty() {
        errors.push(FieldError::required(at("image"), ""));
    } else if image.trim() != image {
        errors.push(FieldError::invalid(at("image"), &c["image"], "must not have leading or trailing whitespace"));
    }
    one_of(&at("imagePullPolicy"), &c["imagePullPolicy"], &PULL, errors);
    one_of(&at("terminationMessagePolicy"), &c["terminationMessagePolicy"], &["File", "FallbackToLogsOnError"], errors);
    ports(&at("ports"), list(c, "ports"), errors);
    for (i, e) in list(c, "env").iter().enumerate() {
        env(&field::index(&at("env"), i), e, errors);
    }
    let mut paths = Unique::new();
    for (i, m) in list(c, "volumeMounts").iter().enumerate() {
        let path = field::index(&at("volumeMounts"), i);
        let name = text(m, "name");
        if name.is_empty() {
            errors.push(FieldError::required(field::child(&path, "name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(field::child(&path, "name"), &m["name"]));
        }
        let path = field::child(&path, "mountPath");
        if text(m, "mountPath").is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !paths.0.insert(text(m, "mountPath").to_owned()) {
            errors.push(FieldError::invalid(path, &m["mountPath"], "must be unique"));
        }
    }
    resources(&at("resources"), &c["resources"], errors);
    let sidecar = text(c, "restartPolicy") == "Always";
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if c[name].is_null() {
            continue;
        }
        if init && !sidecar {
            let why = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(at(name), why));
        }
        probe(&at(name), &c[name], name, errors);
    }
    for name in ["postStart", "preStop"] {
        let hook = &c["lifecycle"][name];
        if !hook.is_null() {
            handler(&field::child(&at("lifecycle"), name), hook, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
        }
    }
}

fn ports(path: &str, ports: &[Value], errors: &mut Vec<FieldError>) {
    let mut unique = Unique::new();
    for (i, p) in ports.iter().enumerate() {
        let at = |name: &str| field::child(&field::index(path, i), name);
        if !text(p, "name").is_empty() {
            let why = names::port_name(text(p, "name"));
            errors.extend(why.iter().map(|why| FieldError::invalid(at("name"), &p["name"], why)));
            unique.check(&at("name"), &p["name"], errors);
        }
        match p["containerPort"].as_i64() {
            None | Some(0) => errors.push(FieldError::required(at("containerPort"), "")),
            Some(_) => port(&at("containerPort"), &p["containerPort"], errors),
        }
        if !p["hostPort"].is_null() {
            port(&at("hostPort"), &p["hostPort"], errors);
        }
        one_of(&at("protocol"), &p["protocol"], &PROTOCOLS, errors);
    }
}

fn env(path: &str, e: &Value, errors: &mut Vec<FieldError>) {
    let name = text(e, "name");
    if name.is_empty() {
        errors.push(FieldError::required(field::child(path, "name"), ""));
    } else if name.contains('=') || !name.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        let why = "must be printable characters without '='";
        errors.push(FieldError::invalid(field::child(path, "name"), &e["name"], why));
    }
    let from = &e["valueFrom"];
    if from.is_null() {
        return;
    }
    let path = field::child(path, "valueFrom");
    if !text(e, "value").is_empty() {
        errors.push(FieldError::invalid(&path, &json!(""), "may not be specified when `value` is not empty"));
    }
    if from.as_object().is_none_or(|m| m.len() != 1) {
        errors.push(FieldError::invalid(&path, &json!(""), "must specify exactly one source of the value"));
    }
}

fn resources(path: &str, resources: &Value, errors: &mut Vec<FieldError>) {
    let amount = |v: &Value| v.as_str().and_then(|t| t.parse::<Quantity>().ok());
    for kind in ["limits", "requests"] {
        for (name, v) in resources[kind].as_object().into_iter().flatten() {
            let path = field::key(&field::child(path, kind), name);
            match amount(v) {
                None => errors.push(FieldError::invalid(&path, v, "must be an amount such as 500m or 64Mi")),
                Some(q) if q.milli() < 0 => {
                    errors.push(FieldError::invalid(&path, v, "must be greater than or equal to 0"));
                }
                Some(_) => {}
            }
            let errors_of_name = names::label_key(name);
            errors.extend(errors_of_name.iter().map(|why| FieldError::invalid(&path, &json!(name), why)));
        }
    }
    for (name, asked) in resources["requests"].as_object().into_iter().flatten() {
        let (asked_for, limit) = (amount(asked), amount(&resources["limits"][name]));
        if let (Some(a), Some(l)) = (asked_for, limit)
            && a > l
        {
            let why = format!("must be less than or equal to {name} limit of {}", text(&resources["limits"], name));
            errors.push(FieldError::invalid(field::child(path, "requests"), asked, &why));
        }
    }
}

fn probe(path: &str, probe: &Value, name: &str, errors: &mut Vec<FieldError>) {
    handler(path, probe, &HANDLERS, errors);
    for count in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(&field::child(path, count), &probe[count], errors);
    }
    if name != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        errors.push(FieldError::invalid(
            field::child(path, "successThreshold"),
            &probe["successThreshold"],
            "must be 1",
        ));
    }
}

/// Exactly one way to ask.
fn handler(path: &str, handler: &Value, known: &[&str], errors: &mut Vec<FieldError>) {
    let given: Vec<&&str> = known.iter().filter(|n| !handler[**n].is_null()).collect();
    match given.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a handler type")),
        [_] => {}
        [_, more, ..] => {
            errors.push(FieldError::forbidden(field::child(path, more), "may not specify more than 1 handler type"));
        }
    }
    let get = &handler["httpGet"];
    if !get.is_null() {
        let path = field::child(path, "httpGet");
        port_or_name(&field::child(&path, "port"), &get["port"], errors);
        one_of(&field::child(&path, "scheme"), &get["scheme"], &["HTTP", "HTTPS"], errors);
    }
    let tcp = &handler["tcpSocket"];
    if !tcp.is_null() {
        port_or_name(&field::child(&field::child(path, "tcpSocket"), "port"), &tcp["port"], errors);
    }
    if !handler["exec"].is_null() && list(&handler["exec"], "command").is_empty() {
        errors.push(FieldError::required(field::child(&field::child(path, "exec"), "command"), ""));
    }
}
