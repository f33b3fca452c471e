//! What OpenShift lets the suite's pods do. Other clusters have no such objects.

use serde_json::{Value, json};

use super::{virt_controller, virt_handler};
use crate::kinds::Kind;
use crate::object::Object;

/// Where launchers' own seccomp profile is on a node, as OpenShift names it.
const LAUNCHER_PROFILE: &str = "localhost/kubevirt/kubevirt.json";

pub(super) fn objects(namespace: &str) -> Vec<Object> {
    vec![
        // It works on the node itself.
        constraints(
            virt_handler::access().account,
            namespace,
            &json!({
                "allowHostIPC": true,
                "allowHostPID": true,
                "allowHostPorts": true,
                "allowPrivilegedContainer": true,
                "volumes": ["*"],
            }),
        ),
        // It makes launchers, which may do no more than this.
        constraints(
            virt_controller::access().account,
            namespace,
            &json!({
                "allowHostIPC": false,
                "allowHostPID": false,
                "allowHostPorts": false,
                "allowPrivilegedContainer": false,
                "allowedCapabilities": ["SYS_NICE", "NET_BIND_SERVICE"],
                "seccompProfiles": ["runtime/default", "unconfined", LAUNCHER_PROFILE],
            }),
        ),
    ]
}

/// What pods of an account may do; named after it.
fn constraints(account: &str, namespace: &str, allowed: &Value) -> Object {
    let kind = Kind::SecurityContextConstraints;
    let mut value = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {"name": account},
        "allowHostDirVolumePlugin": true,
        "allowHostNetwork": false,
        "readOnlyRootFilesystem": false,
        "runAsUser": {"type": "RunAsAny"},
        "seLinuxContext": {"type": "RunAsAny"},
        "fsGroup": {"type": "RunAsAny"},
        "supplementalGroups": {"type": "RunAsAny"},
        "users": [format!("system:serviceaccount:{namespace}:{account}")],
    });
    if let (Some(value), Some(allowed)) = (value.as_object_mut(), allowed.as_object()) {
        value.extend(allowed.clone());
    }
    Object::from_value(value).expect("a kind and a name")
}
