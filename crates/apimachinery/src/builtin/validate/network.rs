//! Rules of kinds around pods: networks, volumes, autoscalers.

use serde_json::{Map, Value};

use super::{immutable, list, not_negative, one_of, pods, port_or_name, text};
use crate::field::{self, FieldError};
use crate::names;

pub(super) fn autoscaler(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    let least = spec["minReplicas"].as_i64().unwrap_or(1);
    if least < 1 {
        let why = "must be greater than or equal to 1";
        errors.push(FieldError::invalid("spec.minReplicas", &spec["minReplicas"], why));
    }
    match spec["maxReplicas"].as_i64() {
        None => {}
        Some(most) if most < 1 => {
            errors.push(FieldError::invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than 0"));
        }
        Some(most) if most < least => {
            let why = "must be greater than or equal to `minReplicas`";
            errors.push(FieldError::invalid("spec.maxReplicas", &spec["maxReplicas"], why));
        }
        Some(_) => {}
    }
    for name in ["kind", "name"] {
        if text(&spec["scaleTargetRef"], name).is_empty() {
            errors.push(FieldError::required(field::child("spec.scaleTargetRef", name), ""));
        }
    }
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    for (i, metric) in list(spec, "metrics").iter().enumerate() {
        one_of(&field::child(&field::index("spec.metrics", i), "type"), &metric["type"], &TYPES, errors);
    }
}

pub(super) fn ingress(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    if spec["defaultBackend"].is_null() && list(spec, "rules").is_empty() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", spec, why));
    }
    if !spec["defaultBackend"].is_null() {
        backend("spec.defaultBackend", &spec["defaultBackend"], errors);
    }
    for (i, rule) in list(spec, "rules").iter().enumerate() {
        let here = field::index("spec.rules", i);
        let host = text(rule, "host");
        let plain = host.strip_prefix("*.").unwrap_or(host);
        if !host.is_empty() {
            let path = field::child(&here, "host");
            errors.extend(names::dns_subdomain(plain).iter().map(|why| FieldError::invalid(&path, &rule["host"], why)));
        }
        if rule["http"].is_null() {
            continue;
        }
        let paths = field::child(&here, "http.paths");
        if list(&rule["http"], "paths").is_empty() {
            errors.push(FieldError::required(&paths, ""));
        }
        for (j, path) in list(&rule["http"], "paths").iter().enumerate() {
            ingress_path(&field::index(&paths, j), path, errors);
        }
    }
}

fn ingress_path(here: &str, path: &Value, errors: &mut Vec<FieldError>) {
    let given = text(path, "path");
    match path["pathType"].as_str() {
        None => errors.push(FieldError::required(field::child(here, "pathType"), "pathType must be specified")),
        Some(kind) => {
            let allowed = ["Exact", "ImplementationSpecific", "Prefix"];
            one_of(&field::child(here, "pathType"), &path["pathType"], &allowed, errors);
            let needs_root = kind != "ImplementationSpecific" || !given.is_empty();
            if needs_root && !given.starts_with('/') {
                errors.push(FieldError::invalid(field::child(here, "path"), &path["path"], "must be an absolute path"));
            }
        }
    }
    backend(&field::child(here, "backend"), &path["backend"], errors);
}

fn backend(here: &str, backend: &Value, errors: &mut Vec<FieldError>) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_null(), resource.is_null()) {
        (true, true) => errors.push(FieldError::required(here, "port name or number is required")),
        (false, false) => {
            let why = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(here, backend, why));
        }
        (true, false) => {}
        (false, true) => {
            let here = field::child(here, "service");
            if text(service, "name").is_empty() {
                errors.push(FieldError::required(field::child(&here, "name"), ""));
            }
            let port = &service["port"];
            if port["name"].is_null() == port["number"].is_null() {
                errors.push(FieldError::required(&here, "port name or number is required"));
            } else {
                let name = if port["name"].is_null() { "number" } else { "name" };
                port_or_name(&field::child(&here, &format!("port.{name}")), &port[name], errors);
            }
        }
    }
}

pub(super) fn policy(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    for (i, kind) in list(spec, "policyTypes").iter().enumerate() {
        one_of(&field::index("spec.policyTypes", i), kind, &["Egress", "Ingress"], errors);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in list(spec, direction).iter().enumerate() {
            let here = field::index(&field::child("spec", direction), i);
            for (j, port) in list(rule, "ports").iter().enumerate() {
                let here = field::index(&field::child(&here, "ports"), j);
                one_of(&field::child(&here, "protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"], errors);
                if !port["port"].is_null() {
                    port_or_name(&field::child(&here, "port"), &port["port"], errors);
                }
            }
            for (j, peer) in list(rule, peers).iter().enumerate() {
                let here = field::index(&field::child(&here, peers), j);
                let given = peer.as_object().map_or(0, Map::len);
                if given == 0 {
                    errors.push(FieldError::required(&here, "must specify a peer"));
                } else if !peer["ipBlock"].is_null() && given > 1 {
                    let why = "may not specify both ipBlock and another peer";
                    errors.push(FieldError::forbidden(&here, why));
                }
            }
        }
    }
}

pub(super) fn slice(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let kind = text(new, "addressType");
    if kind.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    }
    one_of("addressType", &new["addressType"], &["FQDN", "IPv4", "IPv6"], errors);
    for (i, endpoint) in list(new, "endpoints").iter().enumerate() {
        let here = field::child(&field::index("endpoints", i), "addresses");
        if list(endpoint, "addresses").is_empty() {
            errors.push(FieldError::required(&here, "must contain at least 1 address"));
        }
        for (j, address) in list(endpoint, "addresses").iter().enumerate() {
            let given = address.as_str().unwrap_or_default();
            let fits = match kind {
                "IPv4" => given.parse::<std::net::Ipv4Addr>().is_ok(),
                "IPv6" => given.parse::<std::net::Ipv6Addr>().is_ok(),
                _ => names::dns_subdomain(given).is_empty(),
            };
            if !fits {
                let why = format!("must be an address of type {kind}");
                errors.push(FieldError::invalid(field::index(&here, j), address, &why));
            }
        }
    }
    if let Some(old) = old {
        immutable("addressType", &new["addressType"], &old["addressType"], errors);
    }
}

pub(super) fn volume(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    if list(spec, "accessModes").is_empty() {
        errors.push(FieldError::required("spec.accessModes", ""));
    }
    if spec["capacity"].as_object().is_none_or(Map::is_empty) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    let policies = ["Delete", "Recycle", "Retain"];
    one_of("spec.persistentVolumeReclaimPolicy", &spec["persistentVolumeReclaimPolicy"], &policies, errors);
    const PLAIN: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let sources = spec.as_object().into_iter().flat_map(Map::keys).filter(|name| !PLAIN.contains(&name.as_str()));
    match sources.collect::<Vec<_>>().as_slice() {
        [] => errors.push(FieldError::required("spec", "must specify a volume type")),
        [_] => {}
        [_, more, ..] => {
            errors.push(FieldError::forbidden(field::child("spec", more), "may not specify more than 1 volume type"));
        }
    }
}

pub(super) fn runtime_class(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let why = names::dns_label(text(new, "handler"));
    errors.extend(why.iter().map(|why| FieldError::invalid("handler", &new["handler"], why)));
    if let Some(old) = old {
        immutable("handler", &new["handler"], &old["handler"], errors);
    }
}

pub(super) fn replication(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    for count in ["replicas", "minReadySeconds"] {
        not_negative(&field::child("spec", count), &spec[count], errors);
    }
    let selector = spec["selector"].as_object();
    if selector.is_none_or(Map::is_empty) {
        errors.push(FieldError::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if selector.is_some_and(|selector| selector.iter().any(|(key, value)| labels[key] != *value)) {
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels, why));
    }
    pods::template("spec.template", &spec["template"], errors);
}
