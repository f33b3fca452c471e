//! Rules of claims, of the volumes that fulfil them, and of the classes they come from.

use serde_json::{Map, Value, json};

use super::at::{At, Found};
use super::{resources, selectors, volumes};
use crate::names;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// Fields of a volume that are no source.
const PLAIN: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn access_modes(at: &At<'_>, why: &str, found: &mut Found) {
    if at.empty() {
        at.required(why, found);
    }
    let (mut alone, mut shared) = (false, false);
    for mode in at.items() {
        if !MODES.contains(&mode.text()) {
            found.push(crate::field::FieldError::not_supported(&at.path, mode.value, &MODES.map(|m| json!(m))));
        }
        if mode.text() == "ReadWriteOncePod" { alone = true } else { shared = true }
    }
    if alone && shared {
        at.forbidden("may not use ReadWriteOncePod with other access modes", found);
    }
}

/// An amount of storage is more than nothing.
fn more_than_nothing(at: &At<'_>, found: &mut Found) {
    match at.amount() {
        None => at.invalid("must be an amount such as 1Gi", found),
        Some(amount) if amount.milli() <= 0 => at.invalid("must be greater than zero", found),
        Some(_) => {}
    }
}

pub(super) fn claim_spec(spec: &At<'_>, found: &mut Found) {
    selectors::label_selector(&spec.get("selector"), found);
    access_modes(&spec.get("accessModes"), "at least 1 access mode is required", found);
    let mut storage = spec.get("resources").key("storage");
    storage.value = &spec.value["resources"]["requests"]["storage"];
    if storage.given() {
        more_than_nothing(&storage, found);
    } else {
        storage.required("", found);
    }
    spec.get("storageClassName").named(names::dns_subdomain, found);
    spec.get("volumeMode").one_of(&VOLUME_MODES, found);
    let source = spec.get("dataSource");
    if source.given() {
        source.get("name").must_be_given(found);
        source.get("kind").must_be_given(found);
        if source.get("apiGroup").empty() && source.get("kind").text() != "PersistentVolumeClaim" {
            let kind = source.get("kind");
            source.invalid_as(kind.value, "must be 'PersistentVolumeClaim' in the core group", found);
        }
    }
}

pub(super) fn claim(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    claim_spec(&spec, found);
    let Some(old) = old else { return };
    let before = &old["spec"];
    // The size of a bound claim may grow; what it is bound to and where it comes from are said once.
    let bound = new["status"]["phase"] == "Bound";
    let first_volume = before["volumeName"].as_str().unwrap_or_default().is_empty();
    let first_class = before["storageClassName"].is_null();
    let rest = |spec: &Value| {
        let mut spec = spec.clone();
        if bound && let Some(requests) = spec.pointer_mut("/resources/requests").and_then(Value::as_object_mut) {
            requests.remove("storage");
        }
        if let Some(map) = spec.as_object_mut() {
            for (name, free) in
                [("volumeName", first_volume), ("storageClassName", first_class), ("volumeAttributesClassName", bound)]
            {
                if free {
                    map.remove(name);
                }
            }
        }
        spec
    };
    if rest(spec.value) != rest(before) {
        let why = "of a claim that exists only resources.requests and volumeAttributesClassName may change, once it is \
                   bound";
        spec.forbidden(why, found);
    }
    let size = spec.get("resources").get("requests").get("storage");
    let old_size = before["resources"]["requests"]["storage"].as_str().and_then(|text| text.parse().ok());
    if size.amount().zip(old_size).is_some_and(|(now, before)| now < before) {
        size.forbidden("field can not be less than previous value", found);
    }
}

pub(super) fn volume(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    access_modes(&spec.get("accessModes"), "", found);
    let capacity = spec.get("capacity");
    if capacity.empty() {
        capacity.required("", found);
    }
    let only_storage = capacity.value.as_object().is_some_and(|map| map.len() == 1 && map.contains_key("storage"));
    if !only_storage {
        capacity.not_supported(&["storage"], found);
    }
    for (_, amount) in capacity.entries() {
        more_than_nothing(&amount, found);
    }
    spec.get("persistentVolumeReclaimPolicy").one_of(&["Delete", "Recycle", "Retain"], found);
    let affinity = spec.get("nodeAffinity");
    if affinity.given() {
        let required = affinity.get("required");
        if required.given() {
            selectors::node_selector(&required, found);
        } else {
            required.required("must specify required node constraints", found);
        }
    }
    let sources = spec.value.as_object().into_iter().flat_map(Map::keys).filter(|name| !PLAIN.contains(&name.as_str()));
    let mut count = 0;
    for kind in sources {
        let source = spec.get(kind);
        count += 1;
        if count > 1 {
            source.forbidden("may not specify more than 1 volume type", found);
            continue;
        }
        match kind.as_str() {
            "hostPath" => volumes::host_path(&source, found),
            "nfs" => {
                source.get("server").must_be_given(found);
                source.get("path").must_be_given(found);
            }
            "csi" => {
                volumes::driver(&source.get("driver"), found);
                source.get("volumeHandle").must_be_given(found);
            }
            "local" => {
                source.get("path").must_be_given(found);
                if !affinity.given() {
                    affinity.required("a volume of one node says which", found);
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        spec.required("must specify a volume type", found);
    }
    spec.get("storageClassName").named(names::dns_subdomain, found);
    spec.get("volumeMode").one_of(&VOLUME_MODES, found);
    let Some(old) = old else { return };
    let source = |spec: &Value| {
        let mut spec = spec.clone();
        spec.as_object_mut().map(|map| PLAIN.map(|name| map.remove(name)));
        spec
    };
    if source(spec.value) != source(&old["spec"]) {
        spec.get("persistentvolumesource").forbidden("is immutable after creation", found);
    }
    At::new("volumeMode", &new["spec"]["volumeMode"]).immutable(&old["spec"]["volumeMode"], found);
    if !old["spec"]["nodeAffinity"].is_null() {
        At::new("nodeAffinity", affinity.value).immutable(&old["spec"]["nodeAffinity"], found);
    }
}

pub(super) fn class(new: &Value, old: Option<&Value>, found: &mut Found) {
    let root = At::root(new);
    let provisioner = root.get("provisioner");
    if provisioner.empty() {
        provisioner.required("", found);
    } else {
        for why in names::label_key(&provisioner.text().to_lowercase()) {
            provisioner.invalid(&why, found);
        }
    }
    root.get("reclaimPolicy").one_of(&["Delete", "Retain"], found);
    root.get("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"], found);
    let Some(old) = old else { return };
    for name in ["parameters", "provisioner", "reclaimPolicy"] {
        if new[name] != old[name] {
            root.get(name).forbidden(&format!("updates to {name} are forbidden"), found);
        }
    }
    root.get("volumeBindingMode").immutable(&old["volumeBindingMode"], found);
}

/// A driver says once how its volumes come to nodes.
pub(super) fn driver(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    for name in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !spec.get(name).given() {
            spec.get(name).required("", found);
        }
    }
    spec.get("fsGroupPolicy").one_of(&["File", "None", "ReadWriteOnceWithFSType"], found);
    for mode in spec.get("volumeLifecycleModes").items() {
        mode.one_of(&["Ephemeral", "Persistent"], found);
    }
    let Some(old) = old else { return };
    for name in ["attachRequired", "volumeLifecycleModes"] {
        spec.get(name).immutable(&old["spec"][name], found);
    }
}

pub(super) fn quota(new: &Value, old: Option<&Value>, found: &mut Found) {
    const SCOPES: [&str; 7] = [
        "Terminating",
        "NotTerminating",
        "BestEffort",
        "NotBestEffort",
        "PriorityClass",
        "CrossNamespacePodAffinity",
        "VolumeAttributesClass",
    ];
    let spec = At::root(new).get("spec");
    for (name, amount) in spec.get("hard").entries() {
        resources::name_in_quota(&amount, name, found);
        resources::amount(&amount, name, found);
    }
    let scopes = spec.get("scopes");
    let has = |name: &str| scopes.items().any(|scope| scope.text() == name);
    for scope in scopes.items().filter(|scope| !SCOPES.contains(&scope.text())) {
        scopes.invalid(&format!("{:?} is no scope", scope.text()), found);
    }
    if (has("Terminating") && has("NotTerminating")) || (has("BestEffort") && has("NotBestEffort")) {
        scopes.invalid("conflicting scopes", found);
    }
    for (name, _) in spec.get("hard").entries() {
        if has("BestEffort") && name != "pods" && name != "count/pods" {
            scopes.invalid("unsupported scope applied to resource", found);
        }
    }
    for selector in spec.get("scopeSelector").get("matchExpressions").items() {
        let (name, operator, values) = (selector.get("scopeName"), selector.get("operator"), selector.get("values"));
        if !SCOPES.contains(&name.text()) {
            name.invalid("unsupported scope", found);
        }
        match operator.text() {
            "In" | "NotIn" if values.empty() => values.required("In and NotIn need values", found),
            "Exists" | "DoesNotExist" if !values.empty() => {
                values.invalid("Exists and DoesNotExist have no values", found);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid("not a valid selector operator", found),
        }
    }
    if let Some(old) = old {
        scopes.immutable(&old["spec"]["scopes"], found);
    }
}

/// What containers, pods and claims of a namespace may ask for.
pub(super) fn limit_range(new: &Value, found: &mut Found) {
    const KINDS: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];
    let mut seen = Vec::new();
    for limit in At::root(new).get("spec").get("limits").items() {
        let kind = limit.get("type");
        let wrong = names::label_key(kind.text());
        for why in &wrong {
            kind.invalid_as(&json!(kind.text()), why, found);
        }
        if wrong.is_empty() && !kind.text().contains('/') && !KINDS.contains(&kind.text()) {
            kind.invalid("must be a standard limit type or fully qualified", found);
        }
        if seen.contains(&kind.text()) {
            kind.duplicate(found);
        }
        seen.push(kind.text());
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            let amounts = limit.get(list);
            if kind.text() == "Pod" && list.starts_with("default") && !amounts.empty() {
                amounts.forbidden("may not be specified when `type` is 'Pod'", found);
                continue;
            }
            for (name, amount) in amounts.entries() {
                resources::name(&amount, name, found);
            }
        }
        let bounded = ["max", "min"].iter().any(|list| limit.get(list).get("storage").given());
        if kind.text() == "PersistentVolumeClaim" && !bounded {
            limit.get("limits").required("either minimum or maximum storage value is required", found);
        }
        let mut names: Vec<&str> = Vec::new();
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            names.extend(limit.get(list).entries().map(|(name, _)| name));
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            ordered(&limit, name, found);
        }
    }
}

/// The least, what is asked for by default, the default limit, the most: each at most the next.
fn ordered(limit: &At<'_>, name: &str, found: &mut Found) {
    let above = |low: &str, high: &str| {
        let (low, high) = (limit.get(low).key(name), limit.get(high).key(name));
        low.amount().zip(high.amount()).is_some_and(|(low, high)| low > high)
    };
    for (at, low, high) in [
        ("min", "min", "max"),
        ("defaultRequest", "min", "defaultRequest"),
        ("defaultRequest", "defaultRequest", "max"),
        ("defaultRequest", "defaultRequest", "default"),
        ("default", "min", "default"),
        ("default", "default", "max"),
    ] {
        if above(low, high) {
            limit.get(at).key(name).invalid(&format!("{low} value is greater than {high} value"), found);
        }
    }
    let ratio = limit.get("maxLimitRequestRatio").key(name);
    if ratio.amount().is_some_and(|ratio| ratio.milli() < 1000) {
        ratio.invalid("is less than 1", found);
    }
}
