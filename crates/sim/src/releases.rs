//! In what the two releases of a change of version differ beside their images, as data. One program renders both, so the older
//! one's install strategy is changed in the cluster, once the newer operator reads it from there. Of it this operator then
//! has to make what runs; the change removes, adds and alters objects, and the way back does the opposite.

use kubevirt_api::names::{annotation, label};
use kubevirt_release::{Kind, Object, ObjectKey, Strategy};
use nanokube::Nanokube;
use serde_json::{Value, json};

use crate::invariants::{NAMESPACE, text};
use crate::story::{Error, PATIENCE};
use crate::upgrade;
use crate::world::{VERSIONS, World};

/// The definition that only the newer release has. It stays when a change is undone: its objects would be lost with it.
pub(crate) const NEW_DEFINITION: &str = "plugins.plugin.kubevirt.io";

/// One difference: how the older release has an object.
struct Difference {
    kind: Kind,
    name: &'static str,
    older: Older,
}

enum Older {
    /// It alone has it.
    Alone(Value),
    /// It has not.
    Lacks,
    /// It has something else there.
    Otherwise { at: &'static str, value: Value },
    /// It lacks a field of an object.
    Without { of: &'static str, field: &'static str },
    /// It has an annotation more.
    Annotated { annotation: &'static str },
    /// It has an item more in a list.
    More { list: &'static str, item: Value },
    /// It has an item less in a list, the one of this name.
    Less { list: &'static str, name: &'static str },
}

fn differences() -> Vec<Difference> {
    let console = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "virt-console", "namespace": NAMESPACE, "labels": {label::KUBEVIRT: "virt-console"}},
        "spec": {"selector": {label::KUBEVIRT: "virt-api"}, "ports": [{"port": 8443, "targetPort": 8443, "protocol": "TCP"}]},
    });
    let rule = json!({"apiGroups": ["kubevirt.io"], "resources": ["virtualmachines"], "verbs": ["list"]});
    let annotation = "older.example.com/told";
    let definition = Kind::CustomResourceDefinition;
    let of = |kind, name, older| Difference { kind, name, older };
    vec![
        of(Kind::Service, "virt-console", Older::Alone(console)),
        of(Kind::Service, "kubevirt-prometheus-metrics", Older::Lacks),
        of(Kind::Service, "virt-api", Older::Otherwise { at: "/spec/ports/0/targetPort", value: "metrics".into() }),
        of(Kind::ClusterRole, "kubevirt-handler", Older::More { list: "/rules", item: rule }),
        of(Kind::Deployment, "virt-controller", Older::Annotated { annotation }),
        of(
            definition,
            "virtualmachineclones.clone.kubevirt.io",
            Older::Less { list: "/spec/versions", name: "v1alpha1" },
        ),
        of(
            definition,
            "migrationpolicies.migrations.kubevirt.io",
            Older::Without { of: "/spec/versions/0", field: "subresources" },
        ),
        of(definition, NEW_DEFINITION, Older::Lacks),
    ]
}

/// What the older release consists of.
fn older(mut strategy: Strategy) -> Result<Strategy, String> {
    for Difference { kind, name, older } in differences() {
        if let Older::Alone(value) = older {
            strategy.objects.push(Object::from_value(value).map_err(|error| error.to_string())?);
            continue;
        }
        let at = strategy.objects.iter().position(|object| object.kind() == kind && object.name() == name);
        let at = at.ok_or_else(|| format!("the release has no {kind} {name}"))?;
        let object = strategy.objects[at].value_mut();
        let items = |object: &mut Value, list: &str, alter: &mut dyn FnMut(&mut Vec<Value>)| {
            let found = object.pointer_mut(list).and_then(Value::as_array_mut);
            found.map(alter).ok_or_else(|| format!("{kind} {name} has no list {list}"))
        };
        match older {
            Older::Alone(_) => {}
            Older::Lacks => drop(strategy.objects.remove(at)),
            Older::Otherwise { at, value } => {
                let place = object.pointer_mut(at).ok_or_else(|| format!("{kind} {name} has no {at}"))?;
                *place = value;
            }
            Older::Without { of, field } => {
                let holder = object.pointer_mut(of).and_then(Value::as_object_mut);
                let had = holder.and_then(|holder| holder.remove(field));
                drop(had.ok_or_else(|| format!("{kind} {name} has no {field} in {of}"))?);
            }
            Older::Annotated { annotation } => strategy.objects[at].set_annotation(annotation, "yes"),
            Older::More { list, item } => items(object, list, &mut |items| items.push(item.clone()))?,
            Older::Less { list, name } => items(object, list, &mut |items| items.retain(|item| item["name"] != name))?,
        }
    }
    Ok(strategy)
}

/// The strategy of the older release as it is in the cluster: the ConfigMap's name and what it says.
fn stored(api: &Nanokube) -> Result<(String, Strategy), String> {
    let maps = api.stored_all("", "configmaps");
    let has = |map: &Value, place: &str, key: &str, value: &str| map["metadata"][place][key] == value;
    let map = maps.iter().find(|map| {
        has(map, "labels", label::INSTALL_STRATEGY, "")
            && has(map, "annotations", annotation::STRATEGY_VERSION, VERSIONS[0])
    });
    let map = map.ok_or("the older release's strategy is not kept")?;
    let typed = serde_json::from_value(Value::clone(map)).map_err(|error| error.to_string())?;
    let strategy = Strategy::decode(&typed).map_err(|error| error.to_string())?;
    Ok((text(map, "/metadata/name").to_owned(), strategy))
}

/// Whether the older release is known to lack the definition that the newer one brings.
pub(crate) fn lacks_definition(api: &Nanokube) -> bool {
    let has = |strategy: &Strategy| strategy.objects.iter().any(|object| object.name() == NEW_DEFINITION);
    stored(api).is_ok_and(|(_, strategy)| !has(&strategy))
}

/// Has the older release be another one than the newer, and what runs be of it: a definition that is not part of a release is
/// nobody's to take away but the administrator's.
pub(crate) async fn part(world: &World) -> Result<(), Error> {
    let mut found = None;
    world
        .until("the older release's strategy", PATIENCE, |world| {
            upgrade::is_led_by_the_newer(world)?;
            let (name, strategy) = stored(&world.cluster.api)?;
            found = Some((name, older(strategy)?));
            Ok(())
        })
        .await?;
    let Some((name, strategy)) = found else { return Ok(()) };
    world.referee.note("the older release is another one than the newer");
    let change = json!({"data": strategy.encode(NAMESPACE).data});
    world.merge(Kind::ConfigMap, &name, &change).await?;
    world.until("what runs is of the older release", PATIENCE, |world| is_of(world, true)).await?;
    world.delete(Kind::CustomResourceDefinition, NEW_DEFINITION).await?;
    world.until("the status knows the definitions", PATIENCE, are_counted).await?;
    Ok(())
}

/// The status tells the generation of each definition there is: such figures come some seconds after what they are about.
fn are_counted(world: &World) -> Result<(), String> {
    let kind = Kind::CustomResourceDefinition;
    let cr = world.kubevirt().ok_or("there is no custom resource")?;
    let counted = cr.pointer("/status/generations").and_then(Value::as_array).into_iter().flatten();
    for counted in counted.filter(|counted| counted["resource"] == kind.plural()) {
        let name = text(counted, "/name");
        let live = world.cluster.api.stored(kind.group(), kind.plural(), "", name);
        if live.is_none_or(|live| live["metadata"]["generation"] != counted["lastGeneration"]) {
            return Err(format!("the status counts another generation of {name}"));
        }
    }
    Ok(())
}

/// Everything is as a release has it, the older one or the newer.
pub(crate) fn is_of(world: &World, is_older: bool) -> Result<(), String> {
    let live = |kind: Kind, name: &str| {
        let key = ObjectKey::new(kind, Some(NAMESPACE).filter(|_| kind.namespaced()), name);
        let namespace = key.namespace.as_deref().unwrap_or_default();
        world.cluster.api.stored(kind.group(), kind.plural(), namespace, name)
    };
    let is_right = |Difference { kind, name, older }: &Difference| {
        let live = live(*kind, name);
        let items = |list: &str| live.as_ref().and_then(|live| live.pointer(list)?.as_array()).into_iter().flatten();
        match older {
            Older::Alone(_) => live.is_some() == is_older,
            Older::Lacks if *kind == Kind::CustomResourceDefinition => is_older || live.is_some(),
            Older::Lacks => live.is_none() == is_older,
            Older::Otherwise { at, value } => {
                live.as_ref().is_some_and(|live| (live.pointer(at) == Some(value)) == is_older)
            }
            Older::Without { of, field } => {
                live.as_ref().and_then(|live| live.pointer(of)).is_some_and(|of| of.get(field).is_none() == is_older)
            }
            Older::Annotated { annotation } => {
                live.as_ref().is_some_and(|live| live["metadata"]["annotations"][annotation].is_null() != is_older)
            }
            Older::More { list, item } => live.is_some() && items(list).any(|found| found == item) == is_older,
            Older::Less { list, name } => live.is_some() && items(list).any(|found| found["name"] == *name) != is_older,
        }
    };
    let wrong = differences().into_iter().filter(|difference| !is_right(difference));
    let wrong: Vec<String> = wrong.map(|Difference { kind, name, .. }| format!("{kind} {name}")).collect();
    let release = if is_older { VERSIONS[0] } else { VERSIONS[1] };
    if wrong.is_empty() { Ok(()) } else { Err(format!("not as {release} has it: {}", wrong.join(", "))) }
}
