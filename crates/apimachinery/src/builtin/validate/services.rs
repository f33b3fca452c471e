//! Rules of services and of the slices that say who answers them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::at::{At, Found};
use crate::field::FieldError;
use crate::names;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// Clients of one service stick together for a day at most.
const STICKY_SECONDS_MAX: i64 = 86_400;
/// What a slice may hold, as the API defines.
const ENDPOINTS_MAX: usize = 1000;
const SLICE_PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

/// Whether something outside the cluster reaches the service at its nodes.
fn reached_from_outside(spec: &At<'_>) -> bool {
    match spec.get("type").text() {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.get("externalIPs").empty(),
        _ => false,
    }
}

pub(super) fn service(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    let (kind, ports) = (spec.get("type"), spec.get("ports"));
    let headless = spec.get("clusterIP").text() == "None";
    if ports.empty() && !headless && kind.text() != "ExternalName" {
        ports.required("", found);
    }
    match kind.text() {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {} services", kind.text());
            found.push(FieldError::invalid("spec.clusterIPs[0]", &json!("None"), &why));
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.get(name).empty() {
                    spec.get(name).forbidden("may not be set for ExternalName services", found);
                }
            }
            let target = spec.get("externalName");
            let plain = target.text().strip_suffix('.').unwrap_or(target.text());
            if plain.is_empty() {
                target.required("", found);
            } else {
                found.extend(
                    names::dns_subdomain(plain).iter().map(|why| FieldError::invalid(&target.path, target.value, why)),
                );
            }
        }
        _ => {}
    }
    let named = ports.items().count() > 1;
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        service_port(&port, named, &mut seen, found);
    }
    spec.get("selector").labels(found);
    sessions(&spec, found);
    for address in spec.get("externalIPs").items() {
        public_address(&address, found);
    }
    kind.must_be_one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], found);
    port_numbers(&kind, &ports, found);
    balancer(&spec, found);
    traffic(&spec, found);
    if let Some(old) = old {
        let class = spec.get("loadBalancerClass");
        if kind.text() == "LoadBalancer" && old["spec"]["type"] == "LoadBalancer" {
            class.immutable(&old["spec"]["loadBalancerClass"], found);
        }
    }
}

fn service_port<'a>(port: &At<'a>, named: bool, seen: &mut Vec<&'a str>, found: &mut Found) {
    let name = port.get("name");
    if name.empty() {
        if named {
            name.required("", found);
        }
    } else {
        name.named(names::dns_label, found);
        if seen.contains(&name.text()) {
            name.duplicate(found);
        }
        seen.push(name.text());
    }
    port.get("port").port(found);
    port.get("protocol").must_be_one_of(&PROTOCOLS, found);
    port.get("targetPort").port_or_name(found);
    port.get("appProtocol").named(names::label_key, found);
}

/// A port of the service, and one of the node, is used once per protocol.
fn port_numbers(kind: &At<'_>, ports: &At<'_>, found: &mut Found) {
    let outside = |port: &At<'_>| port.get("nodePort").number().filter(|number| *number != 0);
    if kind.text() == "ClusterIP" {
        for port in ports.items().filter(|port| outside(port).is_some()) {
            port.get("nodePort").forbidden("may not be used when `type` is 'ClusterIP'", found);
        }
    }
    let (mut nodes, mut own) = (Vec::new(), Vec::new());
    for port in ports.items() {
        let key = (port.get("protocol").text(), outside(&port));
        if key.1.is_some() && nodes.contains(&key) {
            port.get("nodePort").duplicate(found);
        }
        nodes.push(key);
    }
    for port in ports.items() {
        let key = (port.get("protocol").text(), port.get("port").number());
        if own.contains(&key) {
            let shown = json!({"port": port.value["port"], "protocol": port.value["protocol"]});
            port.duplicate_as(&shown, found);
        }
        own.push(key);
    }
}

fn sessions(spec: &At<'_>, found: &mut Found) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    affinity.must_be_one_of(&["ClientIP", "None"], found);
    match affinity.text() {
        "ClientIP" => {
            let seconds = config.get("clientIP").get("timeoutSeconds");
            if seconds.given() {
                seconds.between(1, STICKY_SECONDS_MAX, found);
            } else {
                config.required("when session affinity type is ClientIP", found);
            }
        }
        "None" if config.given() => config.forbidden("must not be set when session affinity is None", found),
        _ => {}
    }
}

/// Pods of nodes that are programs beside the server listen on loopback addresses from 127.64.0.0 on: there they are
/// reached, and a real server has no such pods. Those below stay what they are everywhere, a machine's own.
const PODS_ON_LOOPBACK: u8 = 64;

fn is_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() && v4.octets()[1] < PODS_ON_LOOPBACK,
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

/// An address that others can send to.
fn public_address(at: &At<'_>, found: &mut Found) {
    let Ok(address) = at.text().parse::<IpAddr>() else {
        at.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", found);
        return;
    };
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || (v4.octets()[0] == 224 && v4.octets()[1] == 0 && v4.octets()[2] == 0),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[0] == 0xff02,
    };
    for (is, what) in [
        (address.is_unspecified(), "may not be unspecified"),
        (is_own(address), "may not be in the loopback range"),
        (local, "may not be in the link-local range"),
    ] {
        if is {
            at.invalid(what, found);
        }
    }
}

fn balancer(spec: &At<'_>, found: &mut Found) {
    let is_balancer = spec.get("type").text() == "LoadBalancer";
    for name in ["loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let at = spec.get(name);
        if is_balancer || at.empty() {
            continue;
        }
        at.forbidden("may only be used when `type` is 'LoadBalancer'", found);
    }
    if is_balancer {
        for range in spec.get("loadBalancerSourceRanges").items() {
            if super::network::block(range.text().trim()).is_none() {
                range.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)", found);
            }
        }
        spec.get("loadBalancerClass").named(names::label_key, found);
    }
}

fn traffic(spec: &At<'_>, found: &mut Found) {
    let (outside, health) = (spec.get("externalTrafficPolicy"), spec.get("healthCheckNodePort"));
    if !reached_from_outside(spec) {
        if !outside.empty() {
            outside.invalid("may only be set for externally-accessible services", found);
        }
    } else {
        outside.must_be_one_of(&["Cluster", "Local"], found);
    }
    let checked = spec.get("type").text() == "LoadBalancer" && outside.text() == "Local";
    if !checked && health.number().is_some_and(|number| number != 0) {
        health.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'", found);
    }
    spec.get("internalTrafficPolicy").one_of(&["Cluster", "Local"], found);
    let distribution = spec.get("trafficDistribution");
    distribution.one_of(&["PreferClose", "PreferSameNode", "PreferSameZone"], found);
}

pub(super) fn slice(new: &Value, old: Option<&Value>, found: &mut Found) {
    let root = At::root(new);
    let (kind, endpoints, ports) = (root.get("addressType"), root.get("endpoints"), root.get("ports"));
    kind.must_be_one_of(&["FQDN", "IPv4", "IPv6"], found);
    let count = endpoints.items().count();
    if count > ENDPOINTS_MAX {
        found.push(FieldError::too_many(&endpoints.path, count, ENDPOINTS_MAX));
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.get("addresses");
        let count = addresses.items().count();
        if count == 0 {
            addresses.required("must contain at least 1 address", found);
        } else if count > ADDRESSES_MAX {
            found.push(FieldError::too_many(&addresses.path, count, ADDRESSES_MAX));
        }
        for address in addresses.items() {
            match kind.text() {
                "IPv4" if address.text().parse::<Ipv4Addr>().is_err() => {
                    address.invalid("must be a valid IPv4 address", found);
                }
                "IPv6" if address.text().parse::<Ipv6Addr>().is_err() => {
                    address.invalid("must be a valid IPv6 address", found);
                }
                "IPv4" | "IPv6" => public_address(&address, found),
                "FQDN" => address.named(names::dns_subdomain, found),
                _ => {}
            }
        }
        endpoint.get("nodeName").named(names::dns_subdomain, found);
        endpoint.get("hostname").named(names::dns_label, found);
    }
    let count = ports.items().count();
    if count > SLICE_PORTS_MAX {
        found.push(FieldError::too_many(&ports.path, count, SLICE_PORTS_MAX));
    }
    let mut seen = Vec::new();
    for port in ports.items() {
        let name = port.get("name");
        name.named(names::dns_label, found);
        if seen.contains(&name.text()) {
            name.duplicate_as(&json!(name.text()), found);
        }
        seen.push(name.text());
        port.get("protocol").must_be_one_of(&PROTOCOLS, found);
        port.get("port").between(1, 65535, found);
        port.get("appProtocol").named(names::label_key, found);
    }
    if let Some(old) = old {
        kind.immutable(&old["addressType"], found);
    }
}

pub(super) fn endpoints(new: &Value, found: &mut Found) {
    for subset in At::root(new).get("subsets").items() {
        let (ready, waiting, ports) = (subset.get("addresses"), subset.get("notReadyAddresses"), subset.get("ports"));
        if ready.empty() && waiting.empty() {
            subset.required("must specify `addresses` or `notReadyAddresses`", found);
        }
        for address in ready.items().chain(waiting.items()) {
            public_address(&address.get("ip"), found);
            address.get("hostname").named(names::dns_label, found);
            address.get("nodeName").named(names::dns_subdomain, found);
        }
        let several = ports.items().count() > 1;
        for port in ports.items() {
            let name = port.get("name");
            if several {
                name.must_be_named(names::dns_label, found);
            } else {
                name.named(names::dns_label, found);
            }
            port.get("port").port(found);
            port.get("protocol").must_be_one_of(&PROTOCOLS, found);
            port.get("appProtocol").named(names::label_key, found);
        }
    }
}
