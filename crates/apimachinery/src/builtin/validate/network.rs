//! Rules of the network around services: what comes in by name, and who may talk to whom.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::at::{At, Found};
use super::{jobs, selectors};
use crate::field::FieldError;
use crate::names;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// The old way to name the class of an ingress.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// The longest name of a controller of ingresses.
const CONTROLLER_MAX: usize = 250;
/// What a path must not hold, as it would lead elsewhere.
const DETOURS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const DETOURS_AT_END: [&str; 2] = ["/..", "/."];

pub(super) fn ingress(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    let (rules, fallback, class) = (spec.get("rules"), spec.get("defaultBackend"), spec.get("ingressClassName"));
    if rules.empty() && !fallback.given() {
        spec.invalid("either `defaultBackend` or `rules` must be specified", found);
    }
    if fallback.given() {
        backend(&fallback, found);
    }
    for rule in rules.items() {
        host(&rule.get("host"), true, found);
        let http = rule.get("http");
        if !http.given() {
            continue;
        }
        let paths = http.get("paths");
        paths.must_be_given(found);
        for path in paths.items() {
            ingress_path(&path, found);
        }
    }
    for tls in spec.get("tls").items() {
        for name in tls.get("hosts").items() {
            host(&name, false, found);
        }
        tls.get("secretName").named(names::dns_subdomain, found);
    }
    class.named(names::dns_subdomain, found);
    let annotation = At::root(new).get("metadata").get("annotations").get(CLASS_ANNOTATION);
    if old.is_none() && annotation.given() && class.given() {
        annotation.invalid("can not be set when the class field is also set", found);
    }
}

fn host(at: &At<'_>, no_address: bool, found: &mut Found) {
    let name = at.text();
    if no_address && name.parse::<IpAddr>().is_ok() {
        at.invalid("must be a DNS name, not an IP address", found);
    }
    match name.strip_prefix("*.") {
        Some(rest) => {
            for why in names::dns_subdomain(rest) {
                at.invalid(&why, found);
            }
        }
        None => at.named(names::dns_subdomain, found),
    }
}

fn ingress_path(at: &At<'_>, found: &mut Found) {
    let (path, kind) = (at.get("path"), at.get("pathType"));
    let absolute = path.text().starts_with('/');
    match kind.text() {
        "" => kind.required("pathType must be specified", found),
        "Exact" | "Prefix" => {
            if !absolute {
                path.invalid_as(&json!(path.text()), "must be an absolute path", found);
            }
            for part in DETOURS.iter().filter(|part| path.text().contains(**part)) {
                path.invalid(&format!("must not contain '{part}'"), found);
            }
            for end in DETOURS_AT_END.iter().filter(|end| path.text().ends_with(**end)) {
                path.invalid(&format!("cannot end with '{end}'"), found);
            }
        }
        "ImplementationSpecific" => {
            if !path.empty() && !absolute {
                path.invalid("must be an absolute path", found);
            }
        }
        _ => kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"], found),
    }
    backend(&at.get("backend"), found);
}

fn backend(at: &At<'_>, found: &mut Found) {
    let (service, resource) = (at.get("service"), at.get("resource"));
    match (service.given(), resource.given()) {
        (true, true) => at.invalid_as(&json!(""), "cannot set both resource and service backends", found),
        (false, true) => {
            resource.get("kind").must_be_given(found);
            resource.get("name").must_be_given(found);
        }
        (true, false) => {
            service.get("name").must_be_named(names::letter_label, found);
            let (name, number) = (service.get("port").get("name"), service.get("port").get("number"));
            match (!name.empty(), number.number().is_some_and(|n| n != 0)) {
                (true, true) => at.invalid_as(&json!(""), "cannot set both port name & port number", found),
                (true, false) => name.named(names::port_name, found),
                (false, true) => number.port(found),
                (false, false) => at.required("port name or number is required", found),
            }
        }
        (false, false) => at.invalid_as(&json!(""), "resource or service backend is required", found),
    }
}

pub(super) fn ingress_class(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    let (controller, parameters) = (spec.get("controller"), spec.get("parameters"));
    if controller.text().len() > CONTROLLER_MAX {
        found.push(FieldError::too_long(&controller.path, CONTROLLER_MAX));
    }
    jobs::domain_path(&controller, found);
    if parameters.given() {
        parameters.get("apiGroup").named(names::dns_subdomain, found);
        parameters.get("kind").must_be_named(names::path_segment, found);
        parameters.get("name").must_be_named(names::path_segment, found);
        let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
        match scope.text() {
            "Namespace" => namespace.must_be_named(names::dns_label, found),
            "Cluster" if namespace.given() => {
                namespace.forbidden("`parameters.scope` is set to 'Cluster'", found);
            }
            "Cluster" => {}
            "" => scope.required("", found),
            _ => scope.not_supported(&["Cluster", "Namespace"], found),
        }
    }
    if let Some(old) = old {
        controller.immutable(&old["spec"]["controller"], found);
    }
}

pub(super) fn policy(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    selectors::label_selector(&spec.get("podSelector"), found);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(direction).items() {
            for port in rule.get("ports").items() {
                policy_port(&port, found);
            }
            for peer in rule.get(peers).items() {
                policy_peer(&peer, found);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.items().count() > 2 {
        types.invalid("may not specify more than two policyTypes", found);
        return;
    }
    for kind in types.items() {
        kind.one_of(&["Egress", "Ingress"], found);
    }
}

fn policy_port(at: &At<'_>, found: &mut Found) {
    at.get("protocol").one_of(&PROTOCOLS, found);
    let (port, end) = (at.get("port"), at.get("endPort"));
    if !port.given() {
        if end.given() {
            end.invalid("may not be specified when `port` is not specified", found);
        }
        return;
    }
    if port.value.is_string() && end.given() {
        end.invalid("may not be specified when `port` is non-numeric", found);
    }
    port.port_or_name(found);
    if let (Some(first), Some(last)) = (port.number(), end.number()) {
        if last < first {
            end.invalid("must be greater than or equal to `port`", found);
        }
        end.port(found);
    }
}

fn policy_peer(at: &At<'_>, found: &mut Found) {
    let given = at.value.as_object().map_or(0, Map::len);
    selectors::label_selector(&at.get("podSelector"), found);
    selectors::label_selector(&at.get("namespaceSelector"), found);
    let addresses = at.get("ipBlock");
    if addresses.given() {
        ip_block(&addresses, found);
    }
    if given == 0 {
        at.required("must specify a peer", found);
    } else if given > 1 && addresses.given() {
        at.forbidden("may not specify both ipBlock and another peer", found);
    }
}

/// A range of addresses: the first one, and how many bits all of them share.
pub(super) fn block(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// Whether `inner` is a smaller part of `outer`.
fn strictly_within((inner, shared): (IpAddr, u32), (outer, wide): (IpAddr, u32)) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    let mask = if wide == 0 { 0 } else { u128::MAX << (128 - wide) };
    inner.is_ipv4() == outer.is_ipv4() && shared > wide && bits(inner) & mask == bits(outer) & mask
}

fn ip_block(at: &At<'_>, found: &mut Found) {
    const WRONG: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let whole = at.get("cidr");
    if whole.empty() {
        whole.required("", found);
        return;
    }
    let Some(outer) = block(whole.text()) else {
        whole.invalid(WRONG, found);
        return;
    };
    for except in at.get("except").items() {
        match block(except.text()) {
            None => except.invalid(WRONG, found),
            Some(inner) if !strictly_within(inner, outer) => {
                except.invalid("must be a strict subset of `cidr`", found);
            }
            Some(_) => {}
        }
    }
}
