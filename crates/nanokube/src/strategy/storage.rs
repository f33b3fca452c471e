//! Claims and volumes: where a claim without a class gets its storage, and what keeps both while they are in use.

use serde_json::{Value, json};

use crate::registry::resource_key;
use crate::verbs::{Target, metadata_text};

/// Holds a claim while a pod uses it.
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
/// Holds a volume while a claim is bound to it.
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_CLASS_OLD: &str = "storageclass.beta.kubernetes.io/is-default-class";

pub(super) fn claim(target: &Target<'_>, claim: &mut Value) {
    if claim["spec"]["storageClassName"].is_null()
        && let Some(class) = default_class(target)
    {
        claim["spec"]["storageClassName"] = json!(class);
    }
    hold(claim, CLAIM_FINALIZER);
}

pub(super) fn volume(target: &Target<'_>, volume: &mut Value) {
    hold(volume, VOLUME_FINALIZER);
    volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": target.core.now_text()});
}

/// Whether claims that name no class get this one.
pub(crate) fn is_default_class(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    [DEFAULT_CLASS, DEFAULT_CLASS_OLD].iter().any(|name| annotations[*name] == "true")
}

/// The class that says it is the default; of several the newest, of equally new ones the first by name.
fn default_class(target: &Target<'_>) -> Option<String> {
    let classes = target.core.store.objects(&resource_key("storage.k8s.io", "storageclasses"), "");
    let values = classes.iter().map(|class| -> &Value { &class.value });
    let mut defaults: Vec<&Value> = values.filter(|class| is_default_class(class)).collect();
    defaults.sort_by_key(|class| metadata_text(class, "name"));
    let newest = defaults.iter().map(|class| metadata_text(class, "creationTimestamp")).max()?;
    let class = defaults.iter().find(|class| metadata_text(class, "creationTimestamp") == newest)?;
    Some(metadata_text(class, "name").to_owned())
}

fn hold(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|known| known == finalizer) => {}
        Some(list) => list.push(json!(finalizer)),
        None => *finalizers = json!([finalizer]),
    }
}
