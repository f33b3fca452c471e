//! Each field of the spec changes something that is rendered, or is listed here with the reason why it does not: a field
//! that is accepted and does nothing is a lie.

use std::collections::{BTreeMap, BTreeSet};

use kubevirt_api::kubevirt::{KubeVirt, KubeVirtSpec};
use kubevirt_release::customize::Customizations;
use kubevirt_release::render::render;
use kubevirt_release::{DeploymentConfig, Inputs, OwnImage, desired};
use serde::Deserialize;
use serde_json::{Value, json};

/// Fields that render nothing, by the beginning of their path, and who acts on them instead.
const INERT: &[(&str, &str)] = &[
    ("certificateRotateStrategy", "the operator issues certificates by it (certificates.rs)"),
    ("configuration.", "components follow it in the custom resource while they run"),
    ("monitorAccount", "the operator writes what stands beside the suite by it (reconcile/beside.rs)"),
    ("monitorNamespace", "the operator writes what stands beside the suite by it (reconcile/beside.rs)"),
    ("serviceMonitorNamespace", "the operator writes what stands beside the suite by it (reconcile/beside.rs)"),
    ("synchronizationPort", "virt-synchronization-controller is not part of this suite"),
    ("uninstallStrategy", "admission and uninstallation act on it"),
    ("workloadUpdateStrategy", "virt-controller acts on it"),
    ("workloads.replicas", "a DaemonSet has a pod on every node"),
    ("customizeComponents.patches", "patches need a resource they fit; their effect has tests of its own"),
];

/// Fields below an inert beginning that do render something.
const RENDERED: &[&str] = &[
    "configuration.developerConfiguration.logVerbosity.virtAPI",
    "configuration.developerConfiguration.logVerbosity.virtController",
    "configuration.developerConfiguration.logVerbosity.virtHandler",
    "configuration.migrations.network",
    "configuration.roleAggregationStrategy",
    "configuration.virtualMachineInstancesPerNode",
];

/// What one has to say to see the effect, where any value will not do.
fn sample(path: &str, schema: &Value) -> Value {
    if let Some(allowed) = schema["enum"].as_array() {
        // The last one: the first is often the default.
        return allowed.last().cloned().unwrap_or_default();
    }
    if ["uration", "nterval", "renewBefore"].iter().any(|end| path.ends_with(end)) {
        return json!("1h0m0s");
    }
    match (path, schema["type"].as_str()) {
        ("imageTag", _) => json!("v0.1.0"),
        ("imageRegistry", _) => json!("registry.example/other"),
        (_, Some("integer")) => json!(3),
        (_, Some("number")) => json!(1.5),
        (_, Some("boolean")) => json!(true),
        (_, Some("array")) => json!([]),
        (_, Some("object")) => json!({}),
        _ => json!("sample"),
    }
}

/// Every leaf as a path and the smallest spec that sets it.
fn leaves(schema: &Value, path: &str, around: &dyn Fn(Value) -> Value, found: &mut Vec<(String, Value)>) {
    if let Some(fields) = schema["properties"].as_object().filter(|fields| !fields.is_empty()) {
        for (name, child) in fields {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let inner = |value: Value| {
                let mut object = json!({});
                for other in required.iter().filter_map(Value::as_str) {
                    object[other] = sample(other, &schema["properties"][other]);
                }
                object[name] = value;
                around(object)
            };
            leaves(child, &path, &inner, found);
        }
    } else if schema["items"].is_object() {
        leaves(&schema["items"], &format!("{path}[]"), &|value| around(json!([value])), found);
    } else if schema["additionalProperties"].is_object() {
        leaves(&schema["additionalProperties"], &format!("{path}{{}}"), &|value| around(json!({"key": value})), found);
    } else {
        found.push((path.to_owned(), around(sample(path, schema))));
    }
}

/// Everything a spec makes of the suite, without the stamps that change with any input.
fn rendered(spec: &Value) -> Option<Vec<String>> {
    let spec = KubeVirtSpec::deserialize(spec).ok()?;
    let own = OwnImage::parse("localhost/kubevirt/virt-operator:v0.2.0", None);
    let config = DeploymentConfig::resolve(&own, &BTreeMap::new(), "kubevirt", &spec).ok()?;
    let customizations = Customizations::read(spec.customize_components.as_ref());
    let customizations = customizations.unwrap_or_else(|_| Customizations::none());
    let inputs =
        Inputs { spec: &spec, customizations: &customizations, generation: 1, nodes: 5, control_plane_nodes: 1 };
    let id = config.id();
    let objects = desired(&render(&config), &inputs).ok()?;
    let unstamped = |text: String| text.replace(&id, "ID").replace(customizations.identifier(), "ID");
    Some(objects.iter().map(|object| unstamped(object.value().to_string())).collect())
}

#[test]
fn every_field_has_an_effect_or_a_reason_to_have_none() {
    let crd = serde_json::to_value(KubeVirt::crd()).expect("a definition is data");
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = Vec::new();
    leaves(schema, "", &|value| value, &mut found);
    assert!(found.len() > 200, "the walk lost its way: {} leaves", found.len());

    let nothing = rendered(&json!({})).expect("an empty spec renders");
    let (mut silent, mut wrong, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (path, spec) in &found {
        let Some(now) = rendered(spec) else {
            wrong.push(format!("{path}: {spec} is not understood"));
            continue;
        };
        let has_effect = now != nothing;
        let inert = INERT.iter().find(|(beginning, _)| path.starts_with(beginning));
        let is_inert = inert.is_some() && !RENDERED.contains(&path.as_str());
        used.extend(inert.map(|(beginning, _)| *beginning));
        match (has_effect, is_inert) {
            (true, false) | (false, true) => {}
            (false, false) => silent.push(format!("{path} changes nothing: {spec}")),
            (true, true) => wrong.push(format!("{path} is listed as inert and changes something")),
        }
    }
    assert!(silent.is_empty() && wrong.is_empty(), "{silent:#?}\n{wrong:#?}");
    let unused: Vec<_> = INERT.iter().filter(|(beginning, _)| !used.contains(beginning)).collect();
    assert!(unused.is_empty(), "no such fields: {unused:?}");
}
