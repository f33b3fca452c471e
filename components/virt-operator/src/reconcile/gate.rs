//! Which kinds a change of version brings (pure), so that they stay closed until virt-api of that version serves.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kubevirt_release::render::VALIDATOR;
use kubevirt_release::{Kind, Object, ObjectKey, gate};
use serde_json::Value;

use super::World;
use crate::cache::text;

/// The definitions among the wanted objects that the change brings: those that are not there, and those that came with it,
/// of which `began` tells, or the registration itself. Both are the server's own word, so that whoever leads next, or finds
/// the registration taken away, closes the same ones. What the `old` version has too is not new, whoever deleted it meanwhile.
pub(super) fn new_definitions<'a>(
    finals: &'a BTreeMap<ObjectKey, Object>,
    old: &BTreeMap<ObjectKey, Object>,
    world: &World,
    began: Option<Timestamp>,
) -> Vec<&'a Object> {
    let live = world.objects.get(&key());
    let closed: BTreeSet<&str> = live.into_iter().flat_map(|live| gate::closed(live)).collect();
    let came = |live: &Value| text(live, "/metadata/creationTimestamp")?.parse::<Timestamp>().ok();
    let is_new = |key: &ObjectKey| {
        if old.contains_key(key) {
            return false;
        }
        let Some(live) = world.objects.get(key) else { return true };
        closed.contains(key.name.as_str()) || came(live).zip(began).is_some_and(|(came, began)| came >= began)
    };
    let definitions = finals.iter().filter(|(key, _)| key.kind == Kind::CustomResourceDefinition);
    definitions.filter(|(key, _)| is_new(key)).map(|(_, definition)| definition).collect()
}

/// The registration that closes them, made from the operator's own among the wanted objects.
pub(super) fn registration(finals: &BTreeMap<ObjectKey, Object>, definitions: &[&Object]) -> Option<Object> {
    let own = ObjectKey::new(Kind::ValidatingWebhookConfiguration, None, VALIDATOR);
    gate::gate(finals.get(&own)?, definitions)
}

/// Its key.
fn key() -> ObjectKey {
    ObjectKey::new(Kind::ValidatingWebhookConfiguration, None, gate::NAME)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cache::Live;

    fn definition(name: &str, created: Option<&str>) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name, "creationTimestamp": created}, "spec": {"group": "g", "names": {"plural": "ps"}}})
    }

    #[test]
    fn what_is_missing_what_came_with_the_change_and_what_is_closed_already_is_new() {
        let finals = ["closed.g", "missing.g", "old.g", "same.g"].map(|name| {
            let object = Object::from_value(definition(name, None)).expect("an object");
            (object.key(), object)
        });
        let finals = BTreeMap::from(finals);
        let key_of = |name: &str| ObjectKey::new(Kind::CustomResourceDefinition, None, name);
        let closing = json!({"webhooks": [{"name": "closed.g-tmp-validator"}, {"name": "gone.g-tmp-validator"}]});
        let world = World {
            objects: [
                (key_of("closed.g"), Live::new(definition("closed.g", Some("2026-01-01T00:00:00Z")))),
                (key_of("old.g"), Live::new(definition("old.g", Some("2026-01-01T00:00:00Z")))),
                (key_of("same.g"), Live::new(definition("same.g", Some("2026-01-01T00:00:07Z")))),
                (key(), Live::new(closing)),
            ]
            .into(),
            ..World::default()
        };
        let none = BTreeMap::new();
        let names = |old: &BTreeMap<ObjectKey, Object>, began: Option<&str>| -> Vec<String> {
            let began = began.map(|began| began.parse().expect("a time"));
            new_definitions(&finals, old, &world, began).iter().map(|found| found.name().to_owned()).collect()
        };
        assert_eq!(names(&none, Some("2026-01-01T00:00:07Z")), ["closed.g", "missing.g", "same.g"]);
        assert_eq!(names(&none, Some("2026-01-01T00:00:08Z")), ["closed.g", "missing.g"]);
        assert_eq!(names(&none, None), ["closed.g", "missing.g"]);
        let deleted = Object::from_value(definition("missing.g", None)).expect("an object");
        assert_eq!(
            names(&BTreeMap::from([(deleted.key(), deleted)]), None),
            ["closed.g"],
            "it is made again, and is not new"
        );
    }
}
