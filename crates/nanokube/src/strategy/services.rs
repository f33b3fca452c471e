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

/// What was assigned stays while the service has the same type.
pub(super) fn update(target: &Target<'_>, old: &Value, service: &mut Value) -> Result<(), ApiError> {
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
        .list(&resource_key("", "services"), "")
        .objects
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
    if spec["ipFamilies"].is_null() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = json!("SingleStack");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        let mut taken: BTreeSet<u64> = others
            .iter()
            .flat_map(|spec| spec["ports"].as_array().into_iter().flatten())
            .filter_map(|port| port["nodePort"].as_u64())
            .collect();
        let before = old.map(|old| old["spec"]["ports"].clone()).unwrap_or_default();
        for (index, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            if port["nodePort"].as_u64().is_some_and(|number| number > 0) {
                continue;
            }
            let kept = before[index]["nodePort"].as_u64();
            let start = NODE_PORTS.start;
            let count = NODE_PORTS.end - start;
            let drawn = u16::try_from(target.core.draw(u32::from(count))).unwrap_or(0);
            let free =
                (0..count).map(|step| u64::from(start + (drawn + step) % count)).find(|number| !taken.contains(number));
            let number =
                kept.or(free).ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
            taken.insert(number);
            port["nodePort"] = json!(number);
        }
        if spec["externalTrafficPolicy"].is_null() {
            spec["externalTrafficPolicy"] = json!("Cluster");
        }
    }
    Ok(())
}
