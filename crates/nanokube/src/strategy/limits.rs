//! Limit ranges: what containers of a namespace have when they say nothing, and what they and claims may ask for.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use serde_json::{Value, json};

use crate::registry::resource_key;
use crate::status::ApiError;
use crate::verbs::{Target, metadata_text};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const LISTS: [(&str, &str); 2] = [("containers", "container"), ("initContainers", "init container")];

/// The limits of the namespace.
fn limits(target: &Target<'_>) -> Vec<Value> {
    let ranges = target.core.store.objects(&resource_key("", "limitranges"), &target.path.namespace);
    ranges.iter().flat_map(|range| range.value["spec"]["limits"].as_array().cloned().unwrap_or_default()).collect()
}

/// Completes a new pod and says whether it keeps within the limits.
pub(super) fn pod(target: &Target<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let limits = limits(target);
    if limits.is_empty() {
        return Ok(());
    }
    for limit in limits.iter().filter(|limit| limit["type"] == "Container") {
        fill(pod, limit);
    }
    refuse(target, pod, &broken_by_pod(pod, &limits))
}

/// Says whether a claim keeps within the limits.
pub(super) fn claim(target: &Target<'_>, claim: &Value) -> Result<(), ApiError> {
    let mut broken = Vec::new();
    for limit in limits(target).iter().filter(|limit| limit["type"] == "PersistentVolumeClaim") {
        let asked = amount(&claim["spec"]["resources"]["requests"]["storage"]);
        let (least, most) = (amount(&limit["min"]["storage"]), amount(&limit["max"]["storage"]));
        if asked.zip(least).is_some_and(|(asked, least)| asked < least) {
            broken.push(format!("minimum storage usage per PersistentVolumeClaim is {}", limit["min"]["storage"]));
        }
        if asked.zip(most).is_some_and(|(asked, most)| asked > most) {
            broken.push(format!("maximum storage usage per PersistentVolumeClaim is {}", limit["max"]["storage"]));
        }
    }
    refuse(target, claim, &broken)
}

fn refuse(target: &Target<'_>, object: &Value, broken: &[String]) -> Result<(), ApiError> {
    let why = match broken {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(ApiError::forbidden(target.about(metadata_text(object, "name")), &why))
}

/// In thousandths.
fn amount(value: &Value) -> Option<i128> {
    value.as_str()?.parse::<Quantity>().ok().map(Quantity::milli)
}

/// Gives containers what they do not say themselves, and notes what that was.
fn fill(pod: &mut Value, limit: &Value) {
    let mut notes = Vec::new();
    for (list, called) in LISTS {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (from, to, word) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")] {
                let mut set = Vec::new();
                for (resource, value) in limit[from].as_object().into_iter().flatten() {
                    let amounts = &mut container["resources"][to];
                    if !amounts.is_object() {
                        *amounts = json!({});
                    }
                    if amounts[resource].is_null() {
                        amounts[resource] = value.clone();
                        set.push(resource.clone());
                    }
                }
                if container["resources"][to].as_object().is_some_and(serde_json::Map::is_empty) {
                    container["resources"].as_object_mut().map(|resources| resources.remove(to));
                }
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {called} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let annotations = &mut pod["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[ANNOTATION] = json!(format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

/// What somebody asks for and is limited to, in thousandths of each resource.
type Amounts = BTreeMap<String, i128>;

fn amounts(resources: &Value) -> Amounts {
    let each = resources.as_object().into_iter().flatten();
    each.filter_map(|(name, value)| Some((name.clone(), amount(value)?))).collect()
}

fn broken_by_pod(pod: &Value, limits: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    let containers = |list: &str| pod["spec"][list].as_array().cloned().unwrap_or_default();
    for limit in limits {
        match limit["type"].as_str() {
            Some("Container") => {
                for container in containers("containers").iter().chain(&containers("initContainers")) {
                    let resources = &container["resources"];
                    check(
                        "Container",
                        limit,
                        &amounts(&resources["requests"]),
                        &amounts(&resources["limits"]),
                        &mut broken,
                    );
                }
            }
            Some("Pod") => {
                let whole = |part: &str| {
                    let mut sum = Amounts::new();
                    for container in containers("containers") {
                        for (name, value) in amounts(&container["resources"][part]) {
                            *sum.entry(name).or_insert(0) += value;
                        }
                    }
                    // What runs first runs alone.
                    for container in containers("initContainers") {
                        for (name, value) in amounts(&container["resources"][part]) {
                            let most = sum.entry(name).or_insert(0);
                            *most = value.max(*most);
                        }
                    }
                    sum
                };
                check("Pod", limit, &whole("requests"), &whole("limits"), &mut broken);
            }
            _ => {}
        }
    }
    broken
}

fn check(what: &str, limit: &Value, asked: &Amounts, most: &Amounts, broken: &mut Vec<String>) {
    let thresholds = |name: &str| limit[name].as_object().cloned().unwrap_or_default();
    for (name, shown) in thresholds("min") {
        let least = amount(&shown).unwrap_or(0);
        let low = |given: &Amounts| given.get(&name).is_some_and(|value| *value < least);
        if !asked.contains_key(&name) || low(asked) || low(most) {
            broken.push(format!("minimum {name} usage per {what} is {shown}"));
        }
    }
    for (name, shown) in thresholds("max") {
        let highest = amount(&shown).unwrap_or(0);
        let high = |given: &Amounts| given.get(&name).is_some_and(|value| *value > highest);
        if !most.contains_key(&name) || high(asked) || high(most) {
            broken.push(format!("maximum {name} usage per {what} is {shown}"));
        }
    }
    for (name, shown) in thresholds("maxLimitRequestRatio") {
        let ratio = amount(&shown).unwrap_or(0);
        let kept = match (asked.get(&name), most.get(&name)) {
            (Some(asked), Some(most)) if *asked > 0 && *most > 0 => most * 1000 <= asked * ratio,
            _ => false,
        };
        if !kept {
            broken.push(format!("{name} max limit to request ratio per {what} is {shown}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn what_is_not_said_is_filled_in_and_noted() {
        let limit =
            json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m"}});
        let mut given = pod(&json!({"limits": {"memory": "2Gi"}}));
        fill(&mut given, &limit);
        let want = json!({"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "500m"}});
        assert_eq!(given["spec"]["containers"][0]["resources"], want);
        let note = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(given["metadata"]["annotations"][ANNOTATION], note);
    }

    #[test]
    fn limits_are_kept() {
        let limits = |limit: Value| vec![limit];
        for (limit, resources, broken) in [
            (json!({"type": "Container", "max": {"cpu": "1"}}), json!({"limits": {"cpu": "1"}}), 0),
            (json!({"type": "Container", "max": {"cpu": "1"}}), json!({"limits": {"cpu": "2"}}), 1),
            (json!({"type": "Container", "max": {"cpu": "1"}}), json!({}), 1),
            (json!({"type": "Container", "min": {"cpu": "100m"}}), json!({"requests": {"cpu": "50m"}}), 1),
            (json!({"type": "Pod", "max": {"cpu": "1"}}), json!({"limits": {"cpu": "1500m"}}), 1),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}),
                1,
            ),
        ] {
            let found = broken_by_pod(&pod(&resources), &limits(limit.clone()));
            assert_eq!(found.len(), broken, "{limit} {resources}: {found:?}");
        }
    }
}
