//! Where pods may run: what the CR says, merged into what the pod template already asks for.
//!
//! Node selectors of the template win. Affinity terms and tolerations are added to those of the template.

use kubevirt_api::kubevirt::{KubeVirtSpec, NodePlacement};
use serde_json::{Value, json};

use super::Inputs;
use crate::object::{Object, object};

const OS: (&str, &str) = ("kubernetes.io/os", "linux");
/// The role of nodes that run the cluster's own components, as a label.
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Both names of the role: clusters carry the newer one, the older one, or both.
const ROLES: [&str; 2] = [CONTROL_PLANE, "node-role.kubernetes.io/master"];
const WORKER: &str = "node-role.kubernetes.io/worker";
/// With fewer control-plane nodes, to insist on them would put all pods of a component on one machine, or on none.
pub const ENOUGH: usize = 2;

/// Cluster-wide components: on the control plane, unless the CR places them.
pub(super) fn fit_infra(deployment: &mut Object, inputs: &Inputs<'_>) {
    let given = inputs.spec.infra.as_ref().and_then(|infra| infra.node_placement.as_ref());
    match given {
        Some(placement) => fit(deployment, &to_value(placement)),
        None if inputs.control_plane_nodes < ENOUGH => fit(deployment, &control_plane_preferred()),
        None => fit(deployment, &control_plane(true)),
    }
}

/// The Job that gets another version's strategy: where cluster-wide components are, by preference.
pub fn place_job(job: &mut Object, spec: &KubeVirtSpec) {
    let given = spec.infra.as_ref().and_then(|infra| infra.node_placement.as_ref());
    fit(job, &given.map_or_else(control_plane_preferred, to_value));
}

/// virt-handler: wherever the CR lets VMs run; everywhere by default.
pub(super) fn fit_workloads(daemon_set: &mut Object, inputs: &Inputs<'_>) {
    let given = inputs.spec.workloads.as_ref().and_then(|workloads| workloads.node_placement.as_ref());
    fit(daemon_set, &given.map_or(Value::Null, to_value));
}

fn to_value(placement: &NodePlacement) -> Value {
    serde_json::to_value(placement).expect("a placement is plain data")
}

/// The default of cluster-wide components where there are control-plane nodes enough to insist on them.
pub(crate) fn control_plane(required: bool) -> Value {
    let exists = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
    let mut node = json!({
        "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "preference": {"matchExpressions": [{"key": WORKER, "operator": "DoesNotExist"}]},
        }],
    });
    if required {
        node["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": ROLES.map(exists)});
    }
    json!({"affinity": {"nodeAffinity": node}, "tolerations": control_plane_tolerations()})
}

/// Tolerations of the taints control-plane nodes usually have.
pub(crate) fn control_plane_tolerations() -> Value {
    json!(ROLES.map(|key| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"})))
}

/// As [`control_plane`], but only as a wish: of the operator itself, which has to run on any cluster, and of the others
/// where there are too few such nodes. The wish of pods to be apart counts as much.
pub(crate) fn control_plane_preferred() -> Value {
    let mut placement = control_plane(false);
    let wish =
        |key: &str| json!({"weight": 100, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}});
    let wishes = &mut placement["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    wishes.as_array_mut().expect("made as a list").extend(ROLES.map(wish));
    placement
}

/// Merges a placement into an object's pod template.
pub(crate) fn fit(workload: &mut Object, placement: &Value) {
    let Some(template) = workload.pod_template_mut() else { return };
    let spec = object(&mut template["spec"]);
    let selector = object(spec.entry("nodeSelector").or_insert(Value::Null));
    for (key, value) in placement["nodeSelector"].as_object().into_iter().flatten() {
        selector.entry(key.clone()).or_insert_with(|| value.clone());
    }
    selector.entry(OS.0).or_insert_with(|| OS.1.into());
    for part in ["affinity", "tolerations"] {
        match &placement[part] {
            Value::Null => {}
            added => append(spec.entry(part).or_insert(Value::Null), added),
        }
    }
}

/// Adds the lists of one tree to those of another; anything but maps and lists is left as it is where it exists.
fn append(to: &mut Value, added: &Value) {
    match (to, added) {
        (to @ Value::Null, added) => *to = added.clone(),
        (Value::Object(to), Value::Object(added)) => {
            for (key, value) in added {
                append(to.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(to), Value::Array(added)) => {
            for item in added {
                if !to.contains(item) {
                    to.push(item.clone());
                }
            }
        }
        _ => {}
    }
}
