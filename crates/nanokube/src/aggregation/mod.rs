//! Aggregated APIs: groups and versions that another server serves, as an `APIService` says. Requests are passed on, what
//! that server offers joins discovery, and the condition `Available` says whether it can be reached.

mod availability;
mod local;
mod proxy;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};

pub(crate) use local::{register_built_in, register_custom};
pub(crate) use proxy::pass;

use crate::backend::{Identity, Trust};
use crate::core::Core;
use crate::pki;
use crate::registry::{join_version, resource_key};
use crate::store::{Name, ResourceKey, Stored};

/// A group and a version.
type Served = (String, String);

/// What is known of the servers behind this one.
#[derive(Default)]
pub(crate) struct Aggregated {
    /// What each offers, as it said itself (`APIResourceList`), while it can be reached.
    offers: Mutex<BTreeMap<Served, Value>>,
    /// Somebody looks after the condition `Available`.
    watched: AtomicBool,
    front: OnceLock<Option<Front>>,
}

/// How this server shows to others that it is the one that speaks for its users.
struct Front {
    authority: String,
    identity: Arc<Identity>,
}

impl Aggregated {
    /// Whether there are aggregated APIs at all.
    fn any(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    fn set_offer(&self, served: Served, offer: Option<Value>) {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        match offer {
            Some(offer) => offers.insert(served, offer),
            None => offers.remove(&served),
        };
    }

    /// Every group and version of another server, with what it offers if it can be reached.
    pub(crate) fn claims(&self, core: &Core) -> BTreeMap<Served, Option<Value>> {
        let mut offers = self.offers();
        let remote = core.store.objects(&services(), "");
        let remote = remote.iter().filter(|service| is_remote(&service.value)).map(|service| served(&service.value));
        remote.map(|served| (served.clone(), offers.remove(&served))).collect()
    }

    /// What can be reached now, by group and version.
    fn offers(&self) -> BTreeMap<Served, Value> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn services() -> ResourceKey {
    resource_key("apiregistration.k8s.io", "apiservices")
}

/// The `APIService` of a group and version that another server serves.
pub(crate) fn backend(core: &Core, group: &str, version: &str) -> Option<Arc<Stored>> {
    let found = core.store.get(&services(), &Name::new("", &format!("{version}.{group}")))?;
    is_remote(&found.value).then_some(found)
}

fn is_remote(service: &Value) -> bool {
    service["spec"]["service"].is_object()
}

fn served(service: &Value) -> Served {
    let text = |field: &str| service["spec"][field].as_str().unwrap_or_default().to_owned();
    (text("group"), text("version"))
}

/// After an `APIService` was written: its condition as far as this server's own objects tell, and somebody who looks
/// after the rest.
pub(crate) fn after_write(core: &Arc<Core>, service: &Stored) {
    if !is_remote(&service.value) {
        return;
    }
    publish_front(core);
    let name = service.value["metadata"]["name"].as_str().unwrap_or_default();
    availability::settle_locally(core, name);
    if !core.aggregated.watched.swap(true, Ordering::SeqCst) {
        tokio::spawn(availability::look_after(Arc::downgrade(core)));
    }
}

/// After an `APIService` is gone.
pub(crate) fn after_delete(core: &Core, service: &Value) {
    core.aggregated.set_offer(served(service), None);
}

/// Whom to trust as the server behind an `APIService`, and as whom to come.
fn trust(core: &Core, service: &Value) -> Trust {
    let spec = &service["spec"];
    let trust = if spec["insecureSkipTLSVerify"] == true { Trust::blind() } else { Trust::bundle(&spec["caBundle"]) };
    trust.with_identity(front(core).map(|front| front.identity.clone()))
}

fn front(core: &Core) -> Option<&Front> {
    let made = core.aggregated.front.get_or_init(|| match pki::front_proxy(core.secret(), core.clock.now()) {
        Ok((authority, identity)) => Some(Front { authority, identity: Arc::new(identity) }),
        Err(error) => {
            tracing::error!(%error, "aggregated APIs will not know who asks");
            None
        }
    });
    made.as_ref()
}

/// Tells servers behind this one how to know it, where they look for that.
fn publish_front(core: &Arc<Core>) {
    let Some(front) = front(core) else { return };
    let key = resource_key("", "configmaps");
    let place = Name::new("kube-system", "extension-apiserver-authentication");
    let data = json!({
        "requestheader-client-ca-file": front.authority,
        "requestheader-allowed-names": json!([pki::FRONT_PROXY]).to_string(),
        "requestheader-username-headers": json!(["X-Remote-User"]).to_string(),
        "requestheader-group-headers": json!(["X-Remote-Group"]).to_string(),
        "requestheader-extra-headers-prefix": json!(["X-Remote-Extra-"]).to_string(),
    });
    // A lost race is one with another publisher of the same.
    let _ = match core.store.get(&key, &place) {
        Some(live) if live.value["data"]["requestheader-client-ca-file"] == data["requestheader-client-ca-file"] => {
            return;
        }
        Some(live) => {
            let mut new = live.value.clone();
            for (field, value) in data.as_object().into_iter().flatten() {
                new["data"][field] = value.clone();
            }
            core.store.update(&key, &place, live.revision, new)
        }
        None => {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": data,
                "metadata": {
                    "name": place.name, "namespace": place.namespace, "uid": core.call_id(),
                    "creationTimestamp": core.now_text(),
                },
            });
            core.store.create(&key, &place, object)
        }
    };
}

/// Adds groups of other servers to an `APIGroupList`, whether they can be reached or not.
pub(crate) fn join_groups(list: &mut Value, offers: &BTreeMap<Served, Option<Value>>) {
    let Some(groups) = list["groups"].as_array_mut() else { return };
    for (group, version) in offers.keys() {
        let entry = json!({"groupVersion": join_version(group, version), "version": version});
        match groups.iter_mut().find(|known| known["name"] == group.as_str()) {
            Some(known) => {
                if let Some(versions) = known["versions"].as_array_mut() {
                    versions.push(entry);
                }
            }
            None => groups.push(json!({"name": group, "versions": [entry], "preferredVersion": entry})),
        }
    }
}

/// Adds what other servers offer to an aggregated `APIGroupDiscoveryList`; of one that cannot be reached, that it is stale.
pub(crate) fn join_items(list: &mut Value, offers: &BTreeMap<Served, Option<Value>>) {
    let Some(items) = list["items"].as_array_mut() else { return };
    for ((group, version), offer) in offers {
        let entry = match offer {
            Some(offer) => {
                json!({"version": version, "resources": resources(group, version, offer), "freshness": "Current"})
            }
            None => json!({"version": version, "freshness": "Stale"}),
        };
        match items.iter_mut().find(|known| known["metadata"]["name"] == group.as_str()) {
            Some(known) => {
                if let Some(versions) = known["versions"].as_array_mut() {
                    versions.push(entry);
                }
            }
            None => items.push(json!({"metadata": {"name": group}, "versions": [entry]})),
        }
    }
}

/// An `APIResourceList` in the form of aggregated discovery: subresources stand below their resource.
fn resources(group: &str, version: &str, offer: &Value) -> Vec<Value> {
    let list = offer["resources"].as_array().map_or(&[][..], Vec::as_slice);
    let kind = |entry: &Value| {
        json!({
            "group": entry["group"].as_str().unwrap_or(group), "version": entry["version"].as_str().unwrap_or(version),
            "kind": entry["kind"],
        })
    };
    let mut found: BTreeMap<&str, Value> = BTreeMap::new();
    for entry in list {
        let name = entry["name"].as_str().unwrap_or_default();
        let (plural, sub) = name.split_once('/').map_or((name, None), |(plural, sub)| (plural, Some(sub)));
        let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
        // A server may offer subresources of what it does not serve itself.
        let parent = found.entry(plural).or_insert_with(|| {
            json!({"resource": plural, "scope": scope, "singularResource": "", "verbs": [],
                   "responseKind": {"group": "", "version": "", "kind": ""}})
        });
        match sub {
            None => {
                parent["responseKind"] = kind(entry);
                parent["singularResource"] = entry["singularName"].clone();
                for field in ["verbs", "shortNames", "categories"] {
                    if !entry[field].is_null() {
                        parent[field] = entry[field].clone();
                    }
                }
            }
            Some(sub) => {
                let mut below = parent["subresources"].as_array().cloned().unwrap_or_default();
                below.push(json!({"subresource": sub, "responseKind": kind(entry), "verbs": entry["verbs"]}));
                parent["subresources"] = Value::Array(below);
            }
        }
    }
    found.into_values().collect()
}
