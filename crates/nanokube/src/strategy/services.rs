//! Services: cluster addresses and node ports.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use apimachinery::FieldError;
use serde_json::{Value, json};

use crate::registry::resource_key;
use crate::status::ApiError;
use crate::verbs::{Target, metadata_text};

/// Cluster addresses come from 10.96.0.0/16; the first 256 stay free for those that are asked for.
const ADDRESSES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
const ADDRESS_COUNT: u32 = 1 << 16;
const ADDRESSES_RESERVED: u32 = 256;
/// Node ports come from the range every cluster uses.
const NODE_PORTS: std::ops::Range<u16> = 30000..32768;

pub(super) fn create(target: &Target<'_>, service: &mut Value) -> Result<(), ApiError> {
    assign(target, service, None)
}

/// What was assigned stays while the service has the same type, and goes with the type that needed it.
pub(super) fn update(target: &Target<'_>, old: &Value, service: &mut Value) -> Result<(), ApiError> {
    leave_behind(&old["spec"], &mut service["spec"]);
    let external = service["spec"]["type"] == "ExternalName";
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let before = old["spec"]["clusterIP"].as_str().unwrap_or_default();
    if !external && !before.is_empty() && old["spec"]["type"] != "ExternalName" {
        if address.is_empty() {
            service["spec"]["clusterIP"] = json!(before);
            service["spec"]["clusterIPs"] = old["spec"]["clusterIPs"].clone();
        } else if address != before {
            let error = FieldError::invalid("spec.clusterIPs[0]", &json!([address]), "may not change once set");
            return Err(ApiError::invalid(target.about_kind(metadata_text(service, "name")), &[error]));
        }
    }
    assign(target, service, Some(old))
}

/// Who changes a service's type need not take out what only the old type had: unless it was changed by hand, too, it goes.
fn leave_behind(old: &Value, new: &mut Value) {
    let in_nodes = |spec: &Value| match spec["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    };
    let numbers = |spec: &Value| -> Vec<Value> {
        spec["ports"].as_array().into_iter().flatten().map(|port| port["nodePort"].clone()).collect()
    };
    let balanced = |spec: &Value| spec["type"] == "LoadBalancer";
    let outside = |spec: &Value| {
        matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"))
            || (spec["type"] == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty()))
    };
    let mut gone: Vec<&str> = Vec::new();
    if old["type"] != "ExternalName" && new["type"] == "ExternalName" {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if in_nodes(old) && !in_nodes(new) && numbers(old) == numbers(new) {
        for port in new.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
    if is_checked(old) && !is_checked(new) {
        gone.push("healthCheckNodePort");
    }
    if balanced(old) && !balanced(new) {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if outside(old) && !outside(new) {
        gone.push("externalTrafficPolicy");
    }
    if let Some(spec) = new.as_object_mut() {
        for name in gone {
            if spec.get(name) == old.get(name) {
                spec.remove(name);
            }
        }
    }
}

/// Whether a load balancer asks the nodes which of them have a pod of the service.
fn is_checked(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// Why an address cannot be one of the cluster's.
fn out_of_range(wanted: &str) -> Option<String> {
    if wanted == "None" {
        return None;
    }
    let range = u32::from(ADDRESSES)..u32::from(ADDRESSES) + ADDRESS_COUNT;
    let inside = wanted.parse::<Ipv4Addr>().is_ok_and(|address| range.contains(&u32::from(address)));
    (!inside).then(|| format!("failed to allocate IP {wanted}: the provided IP is not in the range {ADDRESSES}/16"))
}

fn assign(target: &Target<'_>, service: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
    let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    let name = metadata_text(service, "name").to_owned();
    let others: Vec<Value> = target
        .core
        .store
        .objects(&resource_key("", "services"), "")
        .iter()
        .filter(|other| {
            metadata_text(&other.value, "name") != name
                || metadata_text(&other.value, "namespace") != target.path.namespace
        })
        .map(|other| other.value["spec"].clone())
        .collect();
    let spec = &mut service["spec"];
    let wanted = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
    let before = old.and_then(|old| old["spec"]["clusterIP"].as_str()).unwrap_or_default();
    let used: BTreeSet<&str> = others.iter().filter_map(|spec| spec["clusterIP"].as_str()).collect();
    let invalid = |error: FieldError| ApiError::invalid(target.about_kind(&name), &[error]);
    if wanted.is_empty() {
        let start = target.core.draw(ADDRESS_COUNT - ADDRESSES_RESERVED);
        let free = (0..ADDRESS_COUNT - ADDRESSES_RESERVED - 1).find_map(|step| {
            let offset = ADDRESSES_RESERVED + (start + step) % (ADDRESS_COUNT - ADDRESSES_RESERVED - 1);
            let address = Ipv4Addr::from(u32::from(ADDRESSES) + offset).to_string();
            (!used.contains(address.as_str())).then_some(address)
        });
        let address = free.ok_or_else(|| ApiError::internal("failed to allocate IP: range is full"))?;
        spec["clusterIP"] = json!(address);
    } else if let Some(why) = out_of_range(&wanted).filter(|_| before != wanted) {
        return Err(invalid(FieldError::invalid("spec.clusterIPs", &json!([wanted]), &why)));
    } else if wanted != "None" && used.contains(wanted.as_str()) {
        let text = format!("failed to allocate IP {wanted}: provided IP is already allocated");
        return Err(invalid(FieldError::invalid("spec.clusterIPs", &json!([wanted]), &text)));
    }
    spec["clusterIPs"] = json!([spec["clusterIP"]]);
    // Who neither wants an address nor says which pods are meant may have endpoints of both families.
    let free = spec["clusterIP"] == "None" && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = json!(if free { "RequireDualStack" } else { "SingleStack" });
    }
    if spec["ipFamilies"].is_null() {
        let both = free && spec["ipFamilyPolicy"] != "SingleStack";
        spec["ipFamilies"] = if both { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) };
    }
    if !free {
        if spec["ipFamilyPolicy"] == "RequireDualStack" {
            let why = "this cluster is not configured for dual-stack services";
            return Err(invalid(FieldError::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why)));
        }
        let families = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
        if let Some((at, family)) = families.iter().enumerate().find(|(_, family)| *family != "IPv4") {
            let why = "not configured on this cluster";
            return Err(invalid(FieldError::invalid(format!("spec.ipFamilies[{at}]"), family, why)));
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        let mut taken: BTreeSet<u64> = others.iter().flat_map(node_ports).collect();
        let before = old.map(|old| old["spec"].clone()).unwrap_or_default();
        let held = node_ports(&before);
        for (index, port) in spec["ports"].as_array().into_iter().flatten().enumerate() {
            let wanted = port["nodePort"].as_u64().filter(|number| *number > 0 && !held.contains(number));
            if let Some((wanted, why)) = wanted.and_then(|wanted| Some((wanted, unavailable(wanted, &taken)?))) {
                let field = format!("spec.ports[{index}].nodePort");
                return Err(invalid(FieldError::invalid(field, &json!(wanted), &why)));
            }
        }
        taken.extend(node_ports(spec));
        let numbered = kind == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false;
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut).filter(|_| numbered);
        for port in ports.into_iter().flatten() {
            if port["nodePort"].as_u64().is_some_and(|number| number > 0) {
                continue;
            }
            // A port is known again by its name.
            let named = before["ports"].as_array().into_iter().flatten().find(|known| known["name"] == port["name"]);
            let kept = named.and_then(|known| known["nodePort"].as_u64()).filter(|number| !taken.contains(number));
            let free = free_node_port(target, &taken);
            let number =
                kept.or(free).ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
            taken.insert(number);
            port["nodePort"] = json!(number);
        }
        if spec["externalTrafficPolicy"].is_null() {
            spec["externalTrafficPolicy"] = json!("Cluster");
        }
        if is_checked(spec) && spec["healthCheckNodePort"].as_u64().unwrap_or(0) == 0 {
            let kept = old.and_then(|old| old["spec"]["healthCheckNodePort"].as_u64());
            let number = kept.or_else(|| free_node_port(target, &taken));
            let number = number.ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
            spec["healthCheckNodePort"] = json!(number);
        }
    }
    Ok(())
}

/// The node ports of a service.
fn node_ports(spec: &Value) -> BTreeSet<u64> {
    let ports = spec["ports"].as_array().into_iter().flatten();
    ports.filter_map(|port| port["nodePort"].as_u64()).filter(|port| *port > 0).collect()
}

/// Why a node port that is asked for cannot be had.
fn unavailable(wanted: u64, taken: &BTreeSet<u64>) -> Option<String> {
    let (first, last) = (NODE_PORTS.start, NODE_PORTS.end - 1);
    if !u16::try_from(wanted).is_ok_and(|port| NODE_PORTS.contains(&port)) {
        let why = "provided port is not in the valid range. The range of valid ports is";
        return Some(format!("{why} {first}-{last}"));
    }
    taken.contains(&wanted).then(|| "provided port is already allocated".to_owned())
}

/// A port of the nodes that no service has.
fn free_node_port(target: &Target<'_>, taken: &BTreeSet<u64>) -> Option<u64> {
    let start = NODE_PORTS.start;
    let count = NODE_PORTS.end - start;
    let drawn = u16::try_from(target.core.draw(u32::from(count))).unwrap_or(0);
    (0..count).map(|step| u64::from(start + (drawn + step) % count)).find(|number| !taken.contains(number))
}
