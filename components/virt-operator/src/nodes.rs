//! What the suite writes on nodes, and how it is taken off again.

use serde_json::{Map, Value, json};

/// The label families that are all the suite's: virt-handler says there what the node can do.
const OF_NODES: &str = ".node.kubevirt.io";
/// The family of labels and annotations of the suite as a whole.
const OF_SUITE: &str = "kubevirt.io";

/// Whether a node's label was put there by the suite.
pub(crate) fn is_ours(label: &str) -> bool {
    label.split_once('/').is_some_and(|(family, _)| family == OF_SUITE || family.ends_with(OF_NODES))
}

/// The merge patch that takes everything of ours off a node, if there is anything.
pub(crate) fn cleaned(node: &Value) -> Option<Value> {
    let ours = |pointer: &str, is_ours: &dyn Fn(&str) -> bool| -> Map<String, Value> {
        let keys = node.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(Map::keys);
        keys.filter(|key| is_ours(key)).map(|key| (key.clone(), Value::Null)).collect()
    };
    let labels = ours("/metadata/labels", &is_ours);
    // Elsewhere users tell the suite what to do with a node; that is theirs.
    let annotations = ours("/metadata/annotations", &|key| key.split_once('/').is_some_and(|(f, _)| f == OF_SUITE));
    let changes = [("labels", labels), ("annotations", annotations)];
    let changes: Map<String, Value> = changes
        .into_iter()
        .filter(|(_, keys)| !keys.is_empty())
        .map(|(field, keys)| (field.to_owned(), Value::Object(keys)))
        .collect();
    (!changes.is_empty()).then(|| json!({ "metadata": changes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_the_suite_goes_and_no_other() {
        let node = json!({"metadata": {
            "labels": {
                "kubevirt.io/schedulable": "true",
                "cpu-model.node.kubevirt.io/Penryn": "true",
                "cpu-feature.node.kubevirt.io/ssse3": "true",
                "hyperv.node.kubevirt.io/vpindex": "true",
                "host-model-cpu.node.kubevirt.io/Skylake": "true",
                "kubernetes.io/hostname": "node-1",
                "example.com/kubevirt.io": "mine",
                "node-labeller.kubevirt.io/skip-node": "mine",
                "plain": "mine",
            },
            "annotations": {"kubevirt.io/heartbeat": "now", "node-labeller.kubevirt.io/skip-node": "true"},
        }});
        assert_eq!(
            cleaned(&node),
            Some(json!({"metadata": {
                "labels": {
                    "kubevirt.io/schedulable": null,
                    "cpu-model.node.kubevirt.io/Penryn": null,
                    "cpu-feature.node.kubevirt.io/ssse3": null,
                    "hyperv.node.kubevirt.io/vpindex": null,
                    "host-model-cpu.node.kubevirt.io/Skylake": null,
                },
                "annotations": {"kubevirt.io/heartbeat": null},
            }}))
        );
        assert_eq!(cleaned(&json!({"metadata": {"labels": {"plain": "mine"}}})), None);
    }
}
