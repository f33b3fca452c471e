//! What every namespace starts with: the `default` ServiceAccount and the ConfigMap with the cluster's CA.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::action::{Action, Controller, Decision, View, patch_of};
use crate::cache::{Change, Name};
use crate::kinds::{Cached, Kind, Objects};

const ACCOUNT: &str = "default";
/// The ConfigMap's name; also what a watch of it is limited to.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// Its copy here is the one that the others follow, so whoever knows the CA writes it once.
const SOURCE: &str = "kube-system";

/// The controller; its keys are namespaces.
pub struct NamespaceContents;

impl Controller for NamespaceContents {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::Namespace, Kind::ServiceAccount, Kind::ConfigMap]
    }

    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name> {
        match change.kind {
            Kind::Namespace => vec![change.name.clone()],
            Kind::ConfigMap if change.name == Name::new(SOURCE, ROOT_CA) => {
                objects.namespaces.iter().map(|(name, _)| name.clone()).collect()
            }
            Kind::ConfigMap if change.name.name == ROOT_CA => vec![Name::new("", change.name.namespace.clone())],
            Kind::ServiceAccount if change.name.name == ACCOUNT => {
                vec![Name::new("", change.name.namespace.clone())]
            }
            _ => Vec::new(),
        }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let mut decision = Decision::none();
        let Some(namespace) = view.objects.namespaces.get(key) else { return decision };
        if namespace.metadata.deletion_timestamp.is_some() {
            return decision;
        }
        let meta = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(key.name.clone()),
            ..ObjectMeta::default()
        };
        if view.objects.service_accounts.get(&Name::new(key.name.clone(), ACCOUNT)).is_none() {
            let account = ServiceAccount { metadata: meta(ACCOUNT), ..ServiceAccount::default() };
            decision.actions.push(Action::Create { object: ServiceAccount::wrap(Arc::new(account)), note: None });
        }
        let source = view.objects.config_maps.get(&Name::new(SOURCE, ROOT_CA));
        // Nobody has told the CA: pods that mount the key must start all the same, since in process no TLS is spoken.
        let data = source.and_then(|map| map.data.clone());
        let data = data.or_else(|| Some([("ca.crt".to_owned(), String::new())].into()));
        match view.objects.config_maps.get(&Name::new(key.name.clone(), ROOT_CA)) {
            None => {
                let map = ConfigMap { metadata: meta(ROOT_CA), data, ..ConfigMap::default() };
                decision.actions.push(Action::Create { object: ConfigMap::wrap(Arc::new(map)), note: None });
            }
            Some(map) if source.is_some() && map.data != data => {
                decision.actions.push(patch_of(map.as_ref(), None, json!({"data": data})));
            }
            Some(_) => {}
        }
        decision
    }
}
