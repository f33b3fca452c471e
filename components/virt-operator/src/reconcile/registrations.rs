//! Whom the API server trusts when it calls what we registered (pure): the published authorities stand in every webhook
//! and aggregated API, as part of the object that is kept in sync.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kubevirt_release::certificates::{BUNDLE_KEY, CA};
use kubevirt_release::{Kind, Object, ObjectKey};
use serde_json::Value;

use super::World;
use super::held::unserved;
use super::snapshot::{identifier, is_stamped};
use crate::backends::registers;
use crate::cache::text;

/// Puts the bundle among the wanted objects into every registration among them.
pub(crate) fn trust(finals: &mut BTreeMap<ObjectKey, Object>, namespace: &str) {
    let key = ObjectKey::new(Kind::ConfigMap, Some(namespace), CA);
    let pem = finals.get(&key).and_then(|map| text(map.value(), &format!("/data/{BUNDLE_KEY}")));
    let bundle = Value::from(BASE64.encode(pem.unwrap_or_default()));
    fill(finals, |_, _| Some(bundle.clone()));
}

/// Leaves every registration the bundle it has: for whoever may not read what is published.
pub(crate) fn keep_trust(finals: &mut BTreeMap<ObjectKey, Object>, world: &World) {
    fill(finals, |key, pointer| world.objects.get(key)?.pointer(pointer).cloned());
}

/// The registrations of another version that have another bundle than the wanted ones, each as it is but for that: until its
/// step comes, near the end of a change, authorities may have changed, and what the newest signed is trusted nowhere else.
pub(crate) fn trusted_meanwhile(finals: &BTreeMap<ObjectKey, Object>, world: &World, id: &str) -> Vec<Object> {
    let wanted = finals.iter().filter(|(key, _)| registers(key.kind));
    let of_another = wanted.filter_map(|(key, wanted)| {
        let live = world.objects.get(key).filter(|live| is_stamped(live) && identifier(live) != Some(id))?;
        let bundle = parents(wanted.value()).iter().find_map(|at| wanted.at(&format!("{at}/caBundle")).cloned())?;
        let as_it_is = Object::from_value(unserved(live)).ok()?;
        let mut filled = BTreeMap::from([(key.clone(), as_it_is.clone())]);
        fill(&mut filled, |_, _| Some(bundle.clone()));
        filled.remove(key).filter(|filled| *filled != as_it_is)
    });
    of_another.collect()
}

fn fill(finals: &mut BTreeMap<ObjectKey, Object>, bundle: impl Fn(&ObjectKey, &str) -> Option<Value>) {
    for (key, object) in finals.iter_mut().filter(|(key, _)| registers(key.kind)) {
        let mut value = object.value().clone();
        for parent in parents(&value) {
            let found = bundle(key, &format!("{parent}/caBundle"));
            if let (Some(found), Some(Value::Object(parent))) = (found, value.pointer_mut(&parent)) {
                parent.insert("caBundle".to_owned(), found);
            }
        }
        *object = Object::from_value(value).expect("it was an object and only a field was added");
    }
}

/// Where bundles stand in a registration: beside each service.
fn parents(registration: &Value) -> Vec<String> {
    let webhooks = registration.get("webhooks").and_then(Value::as_array).map_or(0, Vec::len);
    let webhooks = (0..webhooks).map(|index| format!("/webhooks/{index}/clientConfig"));
    let own = std::iter::once("/spec".to_owned());
    let has_service = |parent: &String| registration.pointer(&format!("{parent}/service")).is_some();
    webhooks.chain(own).filter(has_service).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn finals() -> BTreeMap<ObjectKey, Object> {
        let client =
            |path: &str| json!({"name": path, "clientConfig": {"service": {"name": "virt-api", "path": path}}});
        let objects = [
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "w"}, "webhooks": [client("/a"), client("/b"), {"clientConfig": {"url": "https://x"}}]}),
            json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.x"},
                "spec": {"service": {"name": "virt-api"}}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubevirt-ca", "namespace": "ns"},
                "data": {"ca-bundle": "PEM"}}),
        ];
        objects.into_iter().map(|o| Object::from_value(o).expect("an object")).map(|o| (o.key(), o)).collect()
    }

    fn bundles(finals: &BTreeMap<ObjectKey, Object>) -> Vec<Value> {
        let pointers = ["/webhooks/0/clientConfig/caBundle", "/webhooks/1/clientConfig/caBundle", "/spec/caBundle"];
        finals.values().flat_map(|object| pointers.iter().filter_map(|p| object.value().pointer(p).cloned())).collect()
    }

    #[test]
    fn every_service_that_is_called_is_trusted_by_the_published_bundle() {
        let mut wanted = finals();
        trust(&mut wanted, "ns");
        assert_eq!(bundles(&wanted), [json!("UEVN"), json!("UEVN"), json!("UEVN")]);
        let other = wanted.values().find_map(|object| object.value().pointer("/webhooks/2/clientConfig").cloned());
        assert_eq!(other, Some(json!({"url": "https://x"})), "an address outside the cluster has its own trust");
    }

    #[test]
    fn what_another_version_registered_stays_as_it_is_and_is_trusted_anew() {
        let stamped = |id: &str, of: &str| {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "w", "uid": "u", "annotations": {"kubevirt.io/install-strategy-identifier": id}},
                "webhooks": [{"name": of, "clientConfig": {"service": {"name": "virt-api"}, "caBundle": "b2xk"}}]})
        };
        let mut wanted = finals();
        trust(&mut wanted, "ns");
        let key = ObjectKey::new(Kind::ValidatingWebhookConfiguration, None, "w");
        let world =
            |id: &str| World { objects: [(key.clone(), Arc::new(stamped(id, "before")))].into(), ..World::default() };
        let found = trusted_meanwhile(&wanted, &world("old"), "new");
        assert_eq!(found.len(), 1, "the APIService is not there yet");
        assert_eq!(found[0].at("/webhooks/0/clientConfig/caBundle"), Some(&json!("UEVN")));
        assert_eq!(found[0].at("/webhooks/0/name"), Some(&json!("before")));
        assert_eq!(found[0].at("/metadata/uid"), None, "it can be written");
        assert_eq!(trusted_meanwhile(&wanted, &world("new"), "new"), Vec::new(), "it has its final form");
        let trusted = World { objects: [(key.clone(), Arc::new(found[0].value().clone()))].into(), ..World::default() };
        assert_eq!(trusted_meanwhile(&wanted, &trusted, "new"), Vec::new(), "it is trusted already");
    }

    #[test]
    fn a_preview_leaves_the_trust_as_it_is() {
        let mut live = finals();
        trust(&mut live, "ns");
        let mut world = World::default();
        world.objects.extend(live.iter().map(|(key, object)| (key.clone(), Arc::new(object.value().clone()))));
        let mut wanted = finals();
        keep_trust(&mut wanted, &world);
        assert_eq!(wanted, live);
        let mut nothing = finals();
        keep_trust(&mut nothing, &World::default());
        assert_eq!(nothing, finals());
    }
}
