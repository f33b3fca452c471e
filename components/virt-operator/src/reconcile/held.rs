//! What is left as it lies in the cluster while the CR's changes to objects are refused (pure): how it was last changed is
//! known from itself alone.

use std::collections::BTreeMap;

use kubevirt_release::customize::is_customizable;
use kubevirt_release::{Kind, Object, ObjectKey};
use serde_json::Value;

use super::World;
use super::snapshot::is_stamped;
use crate::cache::Live;

/// Puts live objects in the place of wanted ones that may have been changed, and of budgets, which follow from them. What
/// is not there is made as the version has it.
pub(crate) fn objects(finals: &mut BTreeMap<ObjectKey, Object>, world: &World) {
    let is_budget = |key: &ObjectKey| key.kind == Kind::PodDisruptionBudget;
    let kept = |key: &ObjectKey, live: &Live| {
        is_stamped(live)
            && key.kind != Kind::Secret
            && (is_budget(key) || (is_customizable(key.kind) && finals.contains_key(key)))
    };
    let live: Vec<Object> = world
        .objects
        .iter()
        .filter(|(key, live)| kept(key, live))
        .filter_map(|(_, live)| Object::from_value(unserved(live)).ok())
        .collect();
    finals.retain(|key, _| !is_budget(key));
    finals.extend(live.into_iter().map(|object| (object.key(), object)));
}

/// Leaves a Secret the labels and annotations it has beside those that are wanted: its content is kept in order all the
/// same.
pub(crate) fn metadata(object: &mut Object, world: &World) {
    let Some(live) = world.objects.get(&object.key()).filter(|_| object.kind() == Kind::Secret) else { return };
    let texts = |map: &str| -> Vec<(String, String)> {
        let map = live.pointer(map).and_then(Value::as_object).into_iter().flatten();
        map.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    };
    for (name, value) in texts("/metadata/labels") {
        if object.label(&name).is_none() {
            object.set_label(&name, value);
        }
    }
    for (name, value) in texts("/metadata/annotations") {
        if object.annotation(&name).is_none() {
            object.set_annotation(&name, value);
        }
    }
}

/// An object without what the server writes: it may be applied.
pub(super) fn unserved(live: &Live) -> Value {
    let mut value = Value::clone(live);
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = value.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        for name in ["creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "uid"]
        {
            metadata.remove(name);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(kind: Kind, name: &str, marked: bool) -> (ObjectKey, Live) {
        let annotations = if marked { json!({"kubevirt.io/install-strategy-identifier": "x"}) } else { json!({}) };
        let value = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": {
            "name": name, "namespace": "kubevirt", "uid": "u", "managedFields": [], "annotations": annotations,
            "labels": {"added": "by a change"}}, "status": {}});
        (ObjectKey::new(kind, Some("kubevirt"), name), Live::new(value))
    }

    fn wanted(kind: Kind, name: &str) -> (ObjectKey, Object) {
        let object = Object::from_value(json!({"apiVersion": kind.api_version(), "kind": kind.name(),
            "metadata": {"name": name, "namespace": "kubevirt"}}))
        .expect("an object");
        (object.key(), object)
    }

    #[test]
    fn what_may_have_been_changed_stays_and_the_rest_is_wanted() {
        let world = World {
            objects: [
                live(Kind::Deployment, "virt-api", true),
                live(Kind::Deployment, "foreign", false),
                live(Kind::ConfigMap, "kubevirt-ca", true),
                live(Kind::PodDisruptionBudget, "virt-api-pdb", true),
            ]
            .into(),
            ..World::default()
        };
        let mut finals: BTreeMap<ObjectKey, Object> = [
            wanted(Kind::Deployment, "virt-api"),
            wanted(Kind::Deployment, "virt-controller"),
            wanted(Kind::Deployment, "foreign"),
            wanted(Kind::ConfigMap, "kubevirt-ca"),
            wanted(Kind::PodDisruptionBudget, "virt-controller-pdb"),
        ]
        .into();
        objects(&mut finals, &world);
        let is_held = |kind, name: &str| {
            finals.get(&ObjectKey::new(kind, Some("kubevirt"), name)).map(|object| object.label("added").is_some())
        };
        assert_eq!(is_held(Kind::Deployment, "virt-api"), Some(true));
        assert_eq!(is_held(Kind::Deployment, "virt-controller"), Some(false));
        assert_eq!(is_held(Kind::Deployment, "foreign"), Some(false));
        assert_eq!(is_held(Kind::ConfigMap, "kubevirt-ca"), Some(false));
        assert_eq!(is_held(Kind::PodDisruptionBudget, "virt-api-pdb"), Some(true));
        assert_eq!(is_held(Kind::PodDisruptionBudget, "virt-controller-pdb"), None);
        let api = &finals[&ObjectKey::new(Kind::Deployment, Some("kubevirt"), "virt-api")];
        assert_eq!((api.at("/metadata/uid"), api.at("/metadata/managedFields"), api.at("/status")), (None, None, None));
    }

    #[test]
    fn a_secret_keeps_its_labels_and_its_content_is_looked_after() {
        let (key, secret) = live(Kind::Secret, "kubevirt-ca", true);
        let world = World { objects: [(key, secret)].into(), ..World::default() };
        let (_, mut object) = wanted(Kind::Secret, "kubevirt-ca");
        object.set_label("added", "anew");
        metadata(&mut object, &world);
        assert_eq!(object.label("added"), Some("anew"));
        assert_eq!(object.annotation("kubevirt.io/install-strategy-identifier"), Some("x"));
    }
}
