//! The EndpointSlices of the services that the API server calls, kept by one watch of the leader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::backends::{CALLED, SERVICE_NAME};
use crate::follow::{Seen, all, follow};

/// EndpointSlices by name.
pub type Slices = BTreeMap<String, Arc<Value>>;

/// What is known of them, and the bell that rings when it changed.
pub struct Endpoints {
    known: Mutex<Slices>,
    listed: watch::Sender<bool>,
    changed: Notify,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self { known: Mutex::default(), listed: watch::channel(false).0, changed: Notify::new() }
    }
}

impl Endpoints {
    /// The slices as they are known now.
    pub fn now(&self) -> Slices {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the first list was seen.
    pub async fn synced(&self) {
        // The sender lives as long as this, so waiting cannot fail.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Waits until something changed since the last call returned.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut Slices)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
        self.listed.send_replace(true);
        self.changed.notify_one();
    }

    /// Keeps itself up to date. Never ends.
    pub async fn follow(self: Arc<Self>, client: Client, namespace: String) {
        let kind = GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice");
        let resource = ApiResource::from_gvk_with_plural(&kind, "endpointslices");
        let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
        let config = all().labels(&format!("{SERVICE_NAME} in ({})", CALLED.join(",")));
        let entry = |slice: DynamicObject| (slice.name_any(), Arc::new(slim(slice)));
        follow(api, config, "EndpointSlice", |seen| match seen {
            Seen::All(slices) => self.change(|known| *known = slices.into_iter().map(entry).collect()),
            Seen::Changed(slice) => self.change(|known| {
                let (name, slice) = entry(slice);
                known.insert(name, slice);
            }),
            Seen::Gone(slice) => self.change(|known| {
                known.remove(&slice.name_any());
            }),
        })
        .await;
    }
}

fn slim(mut slice: DynamicObject) -> Value {
    slice.metadata.managed_fields = None;
    serde_json::to_value(slice).unwrap_or_default()
}
