//! In what the two releases of a change of version differ beside their images, as data. One program renders both, so the older
//! one's install strategy is changed in the cluster, once the newer operator reads it from there. Of it this operator then
//! has to make what runs; the change removes, adds and alters objects, and the way back does the opposite.

use kubevirt_api::names::{annotation, label};
use kubevirt_release::{Kind, Object, ObjectKey, Strategy};
use serde_json::{Value, json};

use crate::invariants::{NAMESPACE, text};
use crate::story::{Error, PATIENCE};
use crate::upgrade;
use crate::world::{VERSIONS, World};

/// A Service that the newer release has not.
const REMOVED: &str = "virt-console";
/// One that only the newer release has.
const ADDED: &str = "kubevirt-prometheus-metrics";
/// A role with a rule more in the older release, and the rule.
const SHRUNK: &str = "kubevirt-handler";
/// A workload with an annotation in the older release alone.
const ALTERED: &str = "virt-controller";
const ANNOTATION: &str = "older.example.com/told";

fn rule() -> Value {
    json!({"apiGroups": ["kubevirt.io"], "resources": ["virtualmachines"], "verbs": ["list"]})
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": REMOVED, "namespace": NAMESPACE, "labels": {label::KUBEVIRT: REMOVED}},
        "spec": {"selector": {label::KUBEVIRT: "virt-api"}, "ports": [{"port": 8443, "targetPort": 8443, "protocol": "TCP"}]},
    })
}

/// What the older release consists of.
fn older(mut strategy: Strategy) -> Result<Strategy, String> {
    let objects = &mut strategy.objects;
    let find = |kind: Kind, name: &str| {
        let at = objects.iter().position(|object| object.kind() == kind && object.name() == name);
        at.ok_or_else(|| format!("the release has no {kind} {name}"))
    };
    let (added, role, workload) =
        (find(Kind::Service, ADDED)?, find(Kind::ClusterRole, SHRUNK)?, find(Kind::Deployment, ALTERED)?);
    let rules = objects[role].value_mut()["rules"].as_array_mut().ok_or("a role without rules")?;
    rules.push(rule());
    objects[workload].set_annotation(ANNOTATION, "yes");
    objects[added] = Object::from_value(service()).map_err(|error| error.to_string())?;
    Ok(strategy)
}

/// The strategy of the older release as it is in the cluster: the ConfigMap's name and what it says.
fn stored(world: &World) -> Result<(String, Strategy), String> {
    let maps = world.cluster.api.stored_all("", "configmaps");
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

/// Has the older release be another one than the newer.
pub(crate) async fn part(world: &World) -> Result<(), Error> {
    let mut found = None;
    world
        .until("the older release's strategy", PATIENCE, |world| {
            upgrade::is_led_by_the_newer(world)?;
            let (name, strategy) = stored(world)?;
            found = Some((name, older(strategy)?));
            Ok(())
        })
        .await?;
    let Some((name, strategy)) = found else { return Ok(()) };
    world.referee.note("the older release is another one than the newer");
    let change = json!({"data": strategy.encode(NAMESPACE).data});
    Ok(world.merge(Kind::ConfigMap, &name, &change).await?)
}

/// Everything is as a release has it, the older one or the newer.
pub(crate) fn is_of(world: &World, older: bool) -> Result<(), String> {
    let live = |kind: Kind, name: &str| {
        let key = ObjectKey::new(kind, Some(NAMESPACE).filter(|_| kind.namespaced()), name);
        let namespace = key.namespace.as_deref().unwrap_or_default();
        world.cluster.api.stored(kind.group(), kind.plural(), namespace, name)
    };
    let has_rule = live(Kind::ClusterRole, SHRUNK)
        .is_some_and(|role| role["rules"].as_array().is_some_and(|rules| rules.contains(&rule())));
    let is_annotated = live(Kind::Deployment, ALTERED)
        .is_some_and(|workload| !workload["metadata"]["annotations"][ANNOTATION].is_null());
    let found = [
        (format!("Service {REMOVED}"), live(Kind::Service, REMOVED).is_some() == older),
        (format!("Service {ADDED}"), live(Kind::Service, ADDED).is_none() == older),
        (format!("the rule of {SHRUNK}"), has_rule == older),
        (format!("the annotation of {ALTERED}"), is_annotated == older),
    ];
    let wrong: Vec<String> = found.into_iter().filter(|(_, is_right)| !is_right).map(|(what, _)| what).collect();
    let release = if older { VERSIONS[0] } else { VERSIONS[1] };
    if wrong.is_empty() { Ok(()) } else { Err(format!("not as {release} has it: {}", wrong.join(", "))) }
}
