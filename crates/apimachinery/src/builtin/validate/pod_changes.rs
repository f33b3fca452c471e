//! What of a pod that exists may change: images, its deadline, more tolerations, fewer gates. All else stands.

use serde_json::{Value, json};

use super::at::{At, Found};

pub(super) fn pod(new: &Value, old: &Value, found: &mut Found) {
    let (new, old) = (At::root(new).get("spec"), At::root(old).get("spec"));
    for name in ["containers", "initContainers"] {
        if new.get(name).items().count() != old.get(name).items().count() {
            new.get(name).forbidden("pod updates may not add or remove containers", found);
            return;
        }
        for image in new.get(name).items().map(|container| container.get("image")) {
            if image.empty() {
                // The rules of every pod say so, too: clients read both.
                image.required("", found);
            }
        }
    }
    if !deadline(&new.get("activeDeadlineSeconds"), &old.get("activeDeadlineSeconds"), found) {
        return;
    }
    tolerations(&new.get("tolerations"), &old.get("tolerations"), found);
    let gates: Vec<&str> = old.get("schedulingGates").items().map(|gate| gate.get("name").text()).collect();
    for gate in new.get("schedulingGates").items() {
        let name = gate.get("name").text();
        if !gates.contains(&name) {
            gate.forbidden(&format!("only deletion is allowed, but found new scheduling gate '{name}'"), found);
        }
    }
    let gated = !gates.is_empty();
    if gated {
        node_selector(&new.get("nodeSelector"), &old.get("nodeSelector"), found);
    }
    if rest(new.value, gated) != rest(old.value, gated) {
        let why = "of a pod that exists only images, activeDeadlineSeconds and terminationGracePeriodSeconds (from a \
                   negative value to 1) may change, tolerations be added and scheduling gates be removed";
        new.forbidden(why, found);
    }
}

/// A deadline may be set and brought nearer. Says whether anything else is worth looking at.
fn deadline(new: &At<'_>, old: &At<'_>, found: &mut Found) -> bool {
    match (new.number(), old.number()) {
        (Some(now), Some(before)) if now > before => {
            new.invalid("must be less than or equal to previous value", found);
            false
        }
        (Some(now), _) => now >= 0,
        (None, Some(_)) => {
            new.invalid("must not update from a positive integer to nil value", found);
            true
        }
        (None, None) => true,
    }
}

/// What was tolerated goes on being tolerated; only for how long may change.
fn tolerations(new: &At<'_>, old: &At<'_>, found: &mut Found) {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.as_object_mut().map(|map| map.remove("tolerationSeconds"));
        toleration
    };
    let now: Vec<Value> = new.items().map(|toleration| timeless(toleration.value)).collect();
    if !old.items().all(|toleration| now.contains(&timeless(toleration.value))) {
        new.forbidden("existing toleration can not be modified except its tolerationSeconds", found);
    }
}

/// A pod that waits may become choosier.
fn node_selector(new: &At<'_>, old: &At<'_>, found: &mut Found) {
    if old.entries().any(|(name, value)| new.value[name] != *value.value) {
        new.invalid("only additions are allowed", found);
    }
}

/// The specification without what has rules of its own.
fn rest(spec: &Value, gated: bool) -> Value {
    let mut spec = spec.clone();
    for containers in ["containers", "initContainers"] {
        for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            container.as_object_mut().map(|map| map.remove("image"));
        }
    }
    // A negative grace was accepted once and can be put right.
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|n| n < 0) {
        spec["terminationGracePeriodSeconds"] = json!(1);
    }
    if let Some(map) = spec.as_object_mut() {
        for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            map.remove(name);
        }
        if gated {
            map.remove("nodeSelector");
            map.remove("affinity");
        }
    }
    spec
}

/// Containers for a look are added through their own endpoint, and stay.
pub(super) fn ephemeral(new: &Value, old: &Value, found: &mut Found) {
    let name = "ephemeralContainers";
    let (new, old) = (At::root(new).get("spec").get(name), At::root(old).get("spec").get(name));
    for container in old.items() {
        let called = container.get("name").text();
        match new.items().find(|other| other.get("name").text() == called) {
            None => new.forbidden(&format!("existing ephemeral containers {called:?} may not be removed"), found),
            Some(now) if now.value != container.value => {
                new.forbidden(&format!("existing ephemeral containers {called:?} may not be changed"), found);
            }
            Some(_) => {}
        }
    }
}
