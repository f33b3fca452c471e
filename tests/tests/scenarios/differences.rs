//! Two releases that differ in what they consist of, said as data (`data/next-release.yaml`): objects added, removed and
//! renamed, a Service and a role changed, a definition with a further version, one that gets a status subresource, a new
//! one. There, back and there again (U1, U2, U8): everything is as the release that is asked for has it.

use std::collections::BTreeMap;

use kubevirt_release::{Kind, Object, Strategy};
use kubevirt_tests::{NAMESPACE, World, simulate};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::images::managed;
use crate::support::{ask_for, change_strategy, install, object, policy, settled};
use crate::upgrades::{is, plan_until};

const OLD: &str = "v0.1.0";
const NEW: &str = "v0.3.0";

/// One way in which the newer release differs from the older.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Difference {
    /// The newer has it under another name, or not at all.
    OnlyOld {
        kind: String,
        name: String,
        renamed: Option<String>,
    },
    OnlyNew(Value),
    Changed {
        kind: String,
        name: String,
        at: String,
        to: Value,
    },
    Appended {
        kind: String,
        name: String,
        at: String,
        item: Value,
    },
}

fn differences() -> Vec<Difference> {
    let value = serde_saphyr::from_str::<Vec<Difference>>(include_str!("data/next-release.yaml"));
    value.expect("the differences can be read")
}

fn find<'a>(strategy: &'a mut Strategy, kind: &str, name: &str) -> &'a mut Object {
    let found = strategy.objects.iter_mut().find(|object| object.kind().name() == kind && object.name() == name);
    found.unwrap_or_else(|| panic!("the release has no {kind} {name}"))
}

/// Makes a release the newer one.
fn apply(strategy: &mut Strategy) {
    for difference in differences() {
        match difference {
            Difference::OnlyOld { kind, name, renamed: Some(renamed) } => {
                find(strategy, &kind, &name).value_mut()["metadata"]["name"] = renamed.into();
            }
            Difference::OnlyOld { kind, name, renamed: None } => {
                strategy.objects.retain(|object| object.kind().name() != kind || object.name() != name);
            }
            Difference::OnlyNew(value) => strategy.objects.push(object(value)),
            Difference::Changed { kind, name, at, to } => {
                let (parent, field) = at.rsplit_once('/').expect("a pointer");
                let parent = find(strategy, &kind, &name).value_mut().pointer_mut(parent).expect("it has such a field");
                parent[field] = to;
            }
            Difference::Appended { kind, name, at, item } => {
                let list = find(strategy, &kind, &name).value_mut().pointer_mut(&at).and_then(Value::as_array_mut);
                list.expect("it has such a list").push(item);
            }
        }
    }
}

async fn live(world: &World, kind: &str, name: &str) -> Option<Value> {
    let kind = Kind::ALL.iter().find(|known| known.name() == kind).expect("a kind that is managed");
    let found = world.api(*kind, Some(NAMESPACE)).get_opt(name).await.expect("an answer");
    found.map(|object| serde_json::to_value(object).expect("plain data"))
}

/// What is not as the release has it. What is only new and a definition stays once it was there.
async fn wrong(world: &World, new: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for difference in differences() {
        let is_right = match &difference {
            Difference::OnlyOld { kind, name, renamed } => {
                let other = match renamed {
                    Some(renamed) => live(world, kind, renamed).await.is_some() == new,
                    None => true,
                };
                other && live(world, kind, name).await.is_some() != new
            }
            Difference::OnlyNew(value) => {
                let object = object(value.clone());
                let is_kept = object.kind() == Kind::CustomResourceDefinition;
                let is_there = live(world, object.kind().name(), object.name()).await.is_some();
                is_there == new || (is_kept && is_there)
            }
            Difference::Changed { kind, name, at, to } => {
                let found = live(world, kind, name).await.expect("both have it");
                (found.pointer(at) == Some(to)) == new
            }
            Difference::Appended { kind, name, at, item } => {
                let found = live(world, kind, name).await.expect("both have it");
                let list = found.pointer(at).and_then(Value::as_array).expect("a list");
                list.iter().any(|it| contains(it, item)) == new
            }
        };
        if !is_right {
            wrong.push(format!("{difference:?}"));
        }
    }
    wrong
}

/// The server adds what is left out.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(field, wanted)| found.get(field).is_some_and(|found| contains(found, wanted)))
        }
        _ => found == wanted,
    }
}

/// Annotations that count.
const COUNTS: [&str; 3] =
    ["kubevirt.io/generation", "deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"];

/// What is managed, but for what tells how often something was written.
async fn all(world: &World) -> BTreeMap<String, Value> {
    let mut all = managed(world).await;
    for told in all.values_mut() {
        if let Some(annotations) = told.pointer_mut("/annotations").and_then(Value::as_object_mut) {
            // The controllers count roll-outs, the operator the custom resource's changes.
            annotations.retain(|name, _| !COUNTS.contains(&name.as_str()));
        }
    }
    all
}

#[test]
fn two_releases_that_differ_in_every_way_are_changed_there_and_back_and_there_again() {
    simulate(async {
        let world = World::start(3, 1);
        install(&world, OLD).await;
        ask_for(&world, NEW).await;
        assert_eq!(wrong(&world, false).await, Vec::<String>::new(), "before");
        change_strategy(&world, NEW, apply).await;
        policy(&world, json!({})).await;
        plan_until(&world, 1, "over", is("Succeeded")).await;
        settled(&world, NEW).await;
        assert_eq!(wrong(&world, true).await, Vec::<String>::new(), "there");
        let there = all(&world).await;

        world.patch_kubevirt(json!({"imageTag": OLD})).await;
        plan_until(&world, 2, "over", is("Succeeded")).await;
        settled(&world, OLD).await;
        assert_eq!(wrong(&world, false).await, Vec::<String>::new(), "back");

        world.patch_kubevirt(json!({"imageTag": NEW})).await;
        plan_until(&world, 3, "over", is("Succeeded")).await;
        settled(&world, NEW).await;
        assert_eq!(wrong(&world, true).await, Vec::<String>::new(), "there again");
        let again = all(&world).await;
        for (key, wanted) in &there {
            assert_eq!(again.get(key), Some(wanted), "{key}");
        }
        assert_eq!(again.len(), there.len());
    });
}
