//! The condition `Available` of `APIService` objects.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{is_remote, served, services, trust};
use crate::backend::{self, Place};
use crate::core::Core;
use crate::registry::resource_key;
use crate::store::{Name, StoreError};
use crate::verbs::write_own;

/// A server that can be reached is asked this often whether it still can: the period of a real API server.
const PERIOD: Duration = Duration::from_secs(30);
/// One that cannot, although it has endpoints, is asked more often: it is probably about to start.
const RETRY: Duration = Duration::from_secs(2);
/// A discovery document that takes longer counts as missing: the time a real API server allows.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    available: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }
}

/// What this server's own objects say against it.
fn local(core: &Core, service: &Value) -> Option<Verdict> {
    let Place::Service { namespace, name, port } = Place::service(&service["spec"]["service"]) else { return None };
    let Some(found) = core.store.get(&resource_key("", "services"), &Name::new(&namespace, &name)) else {
        let message = format!("service/{name} in \"{namespace}\" is not present");
        return Some(Verdict::no("ServiceNotFound", message));
    };
    let Some(port_name) = backend::service_port(&found.value, port) else {
        let message = format!("service/{name} in \"{namespace}\" is not listening on port {port}");
        return Some(Verdict::no("ServicePortError", message));
    };
    let slices = core.store.objects(&resource_key("discovery.k8s.io", "endpointslices"), &namespace);
    if !slices.iter().any(|slice| backend::is_slice_of(&slice.value, &name)) {
        let message = format!("cannot find endpointslices for service/{name} in \"{namespace}\"");
        return Some(Verdict::no("EndpointsNotFound", message));
    }
    if backend::ready_addresses(slices.iter().map(|slice| &*slice.value), &name, &port_name).is_empty() {
        let message = format!(
            "endpointslices for service/{name} in \"{namespace}\" have no addresses with port name \"{port_name}\""
        );
        return Some(Verdict::no("MissingEndpoints", message));
    }
    None
}

/// Asks the server what it offers.
async fn probe(core: &Core, service: &Value) -> (Verdict, Option<Value>) {
    let (group, version) = served(service);
    let place = Place::service(&service["spec"]["service"]);
    let url = format!("https://{}/apis/{group}/{version}", place.authority());
    let failed = |why: String| {
        let message = format!("failing or missing response from {url}: {why}");
        (Verdict::no("FailedDiscoveryCheck", message), None)
    };
    let request = http::Request::get(format!("/apis/{group}/{version}"))
        .header(http::header::HOST, place.authority())
        .header(http::header::ACCEPT, "application/json")
        .header("X-Remote-User", "system:kube-aggregator")
        .header("X-Remote-Group", "system:masters")
        .body(Full::new(Bytes::new()));
    let request = match request {
        Ok(request) => request,
        Err(error) => return failed(error.to_string()),
    };
    match backend::exchange(core, &place, &trust(core, service), request, PATIENCE).await {
        Err(error) => failed(format!("Get \"{url}\": {error}")),
        Ok((code, body)) if (200..300).contains(&code) => {
            let offer = serde_json::from_slice(&body).ok();
            (Verdict { available: true, reason: "Passed", message: "all checks passed".to_owned() }, offer)
        }
        Ok((code, _)) => failed(format!("bad status from {url}: {code}")),
    }
}

/// Writes what this server's own objects say against an `APIService`, if anything.
pub(super) fn settle_locally(core: &Arc<Core>, name: &str) {
    let Some(live) = core.store.get(&services(), &Name::new("", name)) else { return };
    if let Some(verdict) = local(core, &live.value) {
        core.aggregated.set_offer(served(&live.value), None);
        record(core, name, &verdict);
    }
}

fn record(core: &Arc<Core>, name: &str, verdict: &Verdict) {
    let Some(resource) = core.registry.table().get("apiregistration.k8s.io", "v1", "apiservices") else { return };
    loop {
        let Some(live) = core.store.get(&services(), &Name::new("", name)) else { return };
        let conditions = live.value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let old = conditions.iter().find(|condition| condition["type"] == "Available");
        let status = if verdict.available { "True" } else { "False" };
        let since = old
            .filter(|old| old["status"] == status)
            .and_then(|old| old["lastTransitionTime"].as_str())
            .map_or_else(|| core.now_text(), str::to_owned);
        let new_condition = json!({
            "type": "Available", "status": status, "lastTransitionTime": since, "reason": verdict.reason,
            "message": verdict.message,
        });
        if old == Some(&new_condition) {
            return;
        }
        let mut kept: Vec<Value> =
            conditions.iter().filter(|condition| condition["type"] != "Available").cloned().collect();
        kept.push(new_condition);
        let mut new = live.value.clone();
        new["status"]["conditions"] = Value::Array(kept);
        match write_own(core, &resource, &live, new, "status") {
            // Somebody else made progress; what is there now is looked at again.
            Err(StoreError::Conflict { .. }) => {}
            _ => return,
        }
    }
}

/// Looks after all `APIService` objects of other servers, until there are none or the server is gone.
pub(super) async fn look_after(core: Weak<Core>) {
    loop {
        let Some(core) = core.upgrade() else { return };
        let keys = [services(), resource_key("", "services"), resource_key("discovery.k8s.io", "endpointslices")];
        let from = core.store.revision();
        let all = core.store.objects(&services(), "");
        let remote: Vec<_> = all.into_iter().filter(|service| is_remote(&service.value)).collect();
        if remote.is_empty() {
            core.aggregated.watched.store(false, Ordering::SeqCst);
            return;
        }
        let mut wait = PERIOD;
        for service in &remote {
            let name = service.value["metadata"]["name"].as_str().unwrap_or_default();
            let (verdict, offer) = match local(&core, &service.value) {
                Some(verdict) => (verdict, None),
                None => {
                    let (verdict, offer) = probe(&core, &service.value).await;
                    if !verdict.available {
                        wait = RETRY;
                    }
                    (verdict, offer)
                }
            };
            core.aggregated.set_offer(served(&service.value), offer);
            record(&core, name, &verdict);
        }
        let [Ok(mut a), Ok(mut b), Ok(mut c)] = keys.map(|key| core.store.watch(&key, from)) else { continue };
        let stopping = core.stopping.clone();
        drop(core);
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = a.next() => {}
            _ = b.next() => {}
            _ = c.next() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
