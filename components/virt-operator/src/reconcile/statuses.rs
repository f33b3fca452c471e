//! Status subresources that a definition gets with a change of version (pure). Parts of the older version write a status together
//! with its object; a server that knows the subresource drops it then, without a word. So it is given once every workload is new.

use std::collections::BTreeMap;

use kubevirt_release::{Kind, Object, ObjectKey};
use kubevirt_upgrade::{Mode, Plan};
use serde_json::Value;

use super::World;

/// The definitions of a plan that are to be written without a status subresource as long as its workloads roll.
pub(crate) fn withheld(plan: &Plan, finals: &BTreeMap<ObjectKey, Object>, world: &World) -> Vec<Object> {
    let is_on_the_move = matches!(plan.mode(), Mode::Update | Mode::Rollback);
    let runs_old = || plan.steps().iter().any(|step| step.slot.is_workload() && !step.is_done());
    if !is_on_the_move || !runs_old() {
        return Vec::new();
    }
    let definitions = finals.iter().filter(|(key, _)| key.kind == Kind::CustomResourceDefinition);
    definitions.filter_map(|(key, wanted)| without(wanted, world.objects.get(key)?)).collect()
}

/// A definition without the status subresources that the live one lacks in a version which it has; `None` when it lacks none.
fn without(wanted: &Object, live: &Value) -> Option<Object> {
    const VERSIONS: &str = "/spec/versions";
    let name = |version: &Value| version["name"].as_str().map(str::to_owned);
    let has_status = |version: &Value| version.pointer("/subresources/status").is_some();
    let old = live.pointer(VERSIONS)?.as_array()?;
    let lacks =
        |version: &Value| has_status(version) && old.iter().any(|old| name(old) == name(version) && !has_status(old));
    // Looked at in every pass while workloads roll, and hardly ever found: nothing is copied for that.
    if !wanted.at(VERSIONS)?.as_array()?.iter().any(lacks) {
        return None;
    }
    let mut wanted = wanted.clone();
    for version in wanted.value_mut().pointer_mut(VERSIONS)?.as_array_mut()?.iter_mut().filter(|version| lacks(version))
    {
        let fields = version.as_object_mut()?;
        let subresources = fields.get_mut("subresources")?.as_object_mut()?;
        subresources.remove("status");
        if subresources.is_empty() {
            fields.remove("subresources");
        }
    }
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(versions: &Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "as.example.com"},
            "spec": {"group": "example.com", "versions": versions}})
    }

    #[test]
    fn a_version_that_is_served_without_a_status_does_not_get_one() {
        let live = definition(&json!([
            {"name": "v1"},
            {"name": "v2", "subresources": {"scale": {}}},
            {"name": "v3", "subresources": {"status": {}}},
        ]));
        let wanted = definition(&json!([
            {"name": "v1", "subresources": {"status": {}}},
            {"name": "v2", "subresources": {"status": {}, "scale": {}}},
            {"name": "v3", "subresources": {"status": {}}},
            {"name": "v4", "subresources": {"status": {}}},
        ]));
        let wanted = Object::from_value(wanted).expect("a definition");
        let held = without(&wanted, &live).expect("two versions lack it");
        // v4 is new, and nobody writes it in the old way.
        assert_eq!(
            held.at("/spec/versions"),
            Some(&json!([
                {"name": "v1"},
                {"name": "v2", "subresources": {"scale": {}}},
                {"name": "v3", "subresources": {"status": {}}},
                {"name": "v4", "subresources": {"status": {}}},
            ]))
        );
        assert_eq!(without(&held, &live), None);
        assert_eq!(without(&wanted, wanted.value()), None);
    }
}
