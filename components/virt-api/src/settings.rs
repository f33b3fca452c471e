//! The KubeVirt CR, kept by one watch: its settings are those of every object that is stored from then on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{Config, Event, watcher};
use kubevirt_runtime::health::{Reason, Report};
use kubevirt_runtime::host::Host;
use serde_json::Value;

use crate::mutate::Cluster;

/// How long a watch lives before it is opened again, in seconds: rarely, and yet before a balancer in between might forget
/// the connection.
const WATCH: u32 = 900;

/// The pause after a watch failed. One request of a few replicas each time is nothing to a server that comes back.
const RETRY: Duration = Duration::from_secs(2);

/// What the CR says. Clones share it.
#[derive(Clone, Debug)]
pub struct Settings(Arc<RwLock<Arc<Cluster>>>);

impl Default for Settings {
    /// Those of a cluster whose CR says nothing.
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Cluster::read(&Value::Null)))))
    }
}

impl Settings {
    pub(crate) fn now(&self) -> Arc<Cluster> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, crs: &BTreeMap<String, Value>) {
        // With several in the namespace the operator serves the one it has served before, else the oldest.
        let rank = |cr: &&Value| {
            let is_new = cr.pointer("/status/phase").is_none();
            let created = cr.pointer("/metadata/creationTimestamp").and_then(Value::as_str).unwrap_or_default();
            (is_new, created.to_owned())
        };
        let served = crs.values().min_by_key(rank).unwrap_or(&Value::Null);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Cluster::read(served));
    }

    /// Keeps itself up to date. Never ends. Until the first list was seen, the process is not ready: what it filled in
    /// without it would be wrong for good.
    pub(crate) async fn follow(self, host: &Host, report: Report) -> Infallible {
        let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "KubeVirt");
        let resource = ApiResource::from_gvk_with_plural(&kind, "kubevirts");
        let api: Api<DynamicObject> = Api::namespaced_with(host.client.clone(), &host.namespace, &resource);
        let value = |cr: DynamicObject| (cr.name_any(), serde_json::to_value(cr).unwrap_or_default());
        let (mut known, mut listed) = (BTreeMap::new(), BTreeMap::new());
        let mut synced = false;
        let mut events = pin!(watcher(api, Config::default().timeout(WATCH)));
        loop {
            match events.next().await {
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(cr))) => listed.extend([value(cr)]),
                Some(Ok(Event::InitDone)) => {
                    known = std::mem::take(&mut listed);
                    synced = true;
                    report.set(Ok(()));
                    self.set(&known);
                }
                Some(Ok(Event::Apply(cr))) => {
                    known.extend([value(cr)]);
                    self.set(&known);
                }
                Some(Ok(Event::Delete(cr))) => {
                    known.remove(&cr.name_any());
                    self.set(&known);
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the watch of the KubeVirt CR was interrupted");
                    // What was known goes on to count; a first list that fails is told whoever asks.
                    if !synced {
                        report.set(Err(Reason::new(
                            "SettingsUnknown",
                            format!("the KubeVirt CR cannot be read: {error}"),
                        )));
                    }
                    tokio::time::sleep(RETRY).await;
                }
                // A watcher has no end.
                None => std::future::pending().await,
            }
        }
    }
}
