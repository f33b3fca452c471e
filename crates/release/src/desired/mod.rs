//! The objects a cluster should have: a strategy, stamped, changed as the CR asks, and fitted to the cluster's size.
//!
//! It works on any strategy, this release's or one read from a ConfigMap. Secrets and ConfigMaps of a strategy are left
//! out: they are the certificates, which the operator keeps itself ([`crate::certificates`]).

pub(crate) mod placement;
mod replicas;

use std::collections::{BTreeMap, BTreeSet};

use kubevirt_api::gates;
use kubevirt_api::kubevirt::KubeVirtSpec;
use kubevirt_api::names::{annotation, label};
use serde_json::Value;

use crate::customize::{self, Customizations, Place, Refused};
use crate::extras::is_extra;
use crate::extras::monitoring::{self, Monitor, Runbooks};
use crate::kinds::Kind;
use crate::object::{self, Object, ObjectKey};
use crate::render::POD_MUTATOR;
use crate::strategy::Strategy;

pub use placement::{CONTROL_PLANE, ENOUGH, place_job};
pub use replicas::{DEFAULT_API_REPLICAS, api_replicas};

/// What the CR and the cluster add to a strategy.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub spec: &'a KubeVirtSpec,
    /// The changes of `spec.customizeComponents`.
    pub customizations: &'a Customizations,
    /// The CR's `metadata.generation`.
    pub generation: i64,
    /// How many nodes can run VMs; all nodes, while none is labelled yet. It decides the number of virt-api pods.
    pub nodes: usize,
    /// How many nodes carry a control-plane role. With one or none, no pod insists on one.
    pub control_plane_nodes: usize,
}

/// Annotations whose value alone is no reason to write an object: they say when it was written, and that a change was
/// asked for somewhere. What a change does to an object is seen in the object.
pub const NO_REASON_TO_WRITE: &[&str] = &[annotation::GENERATION, annotation::CUSTOMIZER];

/// What a CR asks for and this operator does not do. Each is to be reported, not passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// A patch of `spec.customizeComponents` is meant for an object that is not part of the version.
    NothingToCustomize { place: Place },
    /// A product field is not a valid label value; the label is not set.
    ProductLabel { field: &'static str, value: String },
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NothingToCustomize { place } => {
                write!(f, "{place} concerns no object of this version that can be customized: it has no effect")
            }
            Self::ProductLabel { field, value } => {
                write!(f, "spec.{field} `{value}` is not a valid label value: the label is not set")
            }
        }
    }
}

/// What of a spec [`desired`] does not follow, for a version of the given objects.
pub fn unsupported(spec: &KubeVirtSpec, keys: &[ObjectKey]) -> Vec<Unsupported> {
    let customizations = Customizations::read(spec.customize_components.as_ref());
    // One that cannot be read is refused before anything is followed.
    let customizations = customizations.unwrap_or_else(|_| Customizations::none());
    let places = customizations.without_object(keys);
    let mut found: Vec<Unsupported> =
        places.map(|place| Unsupported::NothingToCustomize { place: place.clone() }).collect();
    for (field, _, value) in product_fields(spec) {
        if let Some(value) = value.filter(|v| !v.is_empty() && !is_label_value(v)) {
            found.push(Unsupported::ProductLabel { field, value: value.clone() });
        }
    }
    found
}

/// Objects that exist while their gate is on. A version's strategy has them either way, where it has them at all.
const GATED: [(Kind, &str, &str); 2] = [
    (Kind::MutatingWebhookConfiguration, POD_MUTATOR, gates::name::CONTAINER_PATH_VOLUMES),
    (Kind::Deployment, "virt-synchronization-controller", gates::name::DECENTRALIZED_LIVE_MIGRATION),
];

/// The objects the cluster should have, ordered by key.
///
/// # Errors
/// The changes of `spec.customizeComponents` that cannot be made, each once, with the first object it fails for.
pub fn desired(strategy: &Strategy, inputs: &Inputs<'_>) -> Result<Vec<Object>, Vec<Refused>> {
    let labels = product_labels(inputs.spec);
    let is_kept_beside = |o: &Object| matches!(o.kind(), Kind::Secret | Kind::ConfigMap) || is_extra(&o.key());
    let mut objects: Vec<Object> = strategy.objects.iter().filter(|o| !is_kept_beside(o)).cloned().collect();
    let named_ports = ports_of_services(&objects);
    let configuration = inputs.spec.configuration.as_ref();
    for (kind, name, _) in GATED.into_iter().filter(|(_, _, gate)| !gates::is_on(configuration, gate)) {
        objects.retain(|object| object.kind() != kind || object.name() != name);
    }
    let manual = configuration.and_then(|c| c.role_aggregation_strategy.as_deref()) == Some("Manual");
    let mut refused: Vec<Refused> = vec![];
    for object in &mut objects {
        without_status(object);
        stamp(object, strategy, inputs, &labels);
        match object.kind() {
            Kind::Deployment => replicas::by_size(object, inputs),
            Kind::DaemonSet => one_at_a_time(object),
            _ => {}
        }
        if let Err(error) = inputs.customizations.apply(object)
            && !refused.iter().any(|other| other.place == error.place)
        {
            refused.push(error);
        }
        match object.kind() {
            Kind::Deployment => {
                replicas::as_asked(object, inputs);
                placement::fit_infra(object, inputs);
            }
            Kind::DaemonSet => {
                placement::fit_workloads(object, inputs);
                migration_network(object, inputs.spec);
            }
            _ => {}
        }
        if object.kind().has_pod_template() {
            arguments(object, inputs.spec);
            one_name_per_port(object, &named_ports);
        }
        if manual {
            not_aggregated(object);
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let mut budgets: Vec<Object> = objects.iter().filter_map(replicas::disruption_budget).collect();
    budgets.iter_mut().for_each(|budget| stamp(budget, strategy, inputs, &labels));
    objects.extend(budgets);
    objects.sort_by_key(Object::key);
    Ok(objects)
}

/// The ready-made types of a kind that a version brings itself, as the operator marks what belongs to it. None: it brings
/// none, and this release's are of use with it.
pub fn own_types(strategy: &Strategy, inputs: &Inputs<'_>, kind: Kind) -> Option<Vec<Object>> {
    let labels = product_labels(inputs.spec);
    let mut objects: Vec<Object> = strategy.objects.iter().filter(|object| object.kind() == kind).cloned().collect();
    for object in &mut objects {
        without_status(object);
        stamp(object, strategy, inputs, &labels);
    }
    (!objects.is_empty()).then_some(objects)
}

/// The objects for a Prometheus, as the operator marks what belongs to a version.
pub fn monitoring(
    strategy: &Strategy,
    inputs: &Inputs<'_>,
    namespace: &str,
    monitor: &Monitor,
    runbooks: &Runbooks,
) -> Vec<Object> {
    let labels = product_labels(inputs.spec);
    let mut objects = monitoring::objects(namespace, monitor, inputs.spec, runbooks);
    objects.iter_mut().for_each(|object| stamp(object, strategy, inputs, &labels));
    objects
}

/// Brings an object that the operator keeps beside those of a version (a certificate, a bundle) to what the CR asks of
/// all objects: labels, and the changes of `spec.customizeComponents`.
///
/// # Errors
/// The first change that cannot be made.
pub fn fit_kept(object: &mut Object, inputs: &Inputs<'_>) -> Result<(), Refused> {
    for (key, value) in product_labels(inputs.spec) {
        object.set_label(key, value);
    }
    if customize::is_customizable(object.kind()) {
        object.set_annotation(annotation::CUSTOMIZER, inputs.customizations.identifier());
    }
    inputs.customizations.apply(object)
}

/// Writers in Go leave empty fields behind that belong to the API server; to apply them is to fight over them.
fn without_status(object: &mut Object) {
    let value = object::object(object.value_mut());
    value.remove("status");
    object::object(value.entry("metadata").or_insert(Value::Null)).remove("creationTimestamp");
}

/// Labels and annotations by which a managed object and its pods are recognized.
fn stamp(object: &mut Object, strategy: &Strategy, inputs: &Inputs<'_>, labels: &BTreeMap<&str, String>) {
    let identity = [
        (annotation::STRATEGY_VERSION, &strategy.version),
        (annotation::STRATEGY_REGISTRY, &strategy.registry),
        (annotation::STRATEGY_IDENTIFIER, &strategy.id),
    ];
    for (key, value) in labels {
        object.set_label(key, value.clone());
    }
    for (key, value) in identity {
        object.set_annotation(key, value.clone());
    }
    object.set_annotation(annotation::GENERATION, inputs.generation.to_string());
    if customize::is_customizable(object.kind()) {
        object.set_annotation(annotation::CUSTOMIZER, inputs.customizations.identifier());
    }
    if let Some(template) = object.pod_template_mut() {
        let metadata = &mut template["metadata"];
        for (key, value) in labels {
            object::put(metadata, "labels", key, value.clone());
        }
        for (key, value) in identity {
            object::put(metadata, "annotations", key, value.clone());
        }
    }
}

fn product_fields(spec: &KubeVirtSpec) -> [(&'static str, &'static str, Option<&String>); 3] {
    [
        ("productVersion", label::VERSION, spec.product_version.as_ref()),
        ("productName", label::PART_OF, spec.product_name.as_ref()),
        ("productComponent", label::COMPONENT, spec.product_component.as_ref()),
    ]
}

/// The labels every managed object and every pod carries.
pub fn product_labels(spec: &KubeVirtSpec) -> BTreeMap<&'static str, String> {
    let mut labels: BTreeMap<&str, String> = [
        (label::MANAGED_BY, label::MANAGED_BY_OPERATOR.to_string()),
        (label::COMPONENT, label::COMPONENT_DEFAULT.to_string()),
    ]
    .into();
    for (_, key, value) in product_fields(spec) {
        if let Some(value) = value.filter(|v| !v.is_empty() && is_label_value(v)) {
            labels.insert(key, value.clone());
        }
    }
    labels
}

/// The longest value a label may have.
const LONGEST_LABEL: usize = 63;

fn is_label_value(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= LONGEST_LABEL
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || "_.-".contains(c))
}

/// A new pod proves itself on one node before the planner lets the rollout spread.
fn one_at_a_time(daemon_set: &mut Object) {
    let strategy = object::object(&mut daemon_set.value_mut()["spec"]["updateStrategy"]);
    strategy.insert("type".into(), "RollingUpdate".into());
    let rolling = strategy.entry("rollingUpdate").or_insert(Value::Null);
    object::object(rolling).insert("maxUnavailable".into(), 1.into());
}

/// The port names that Services ask for.
fn ports_of_services(objects: &[Object]) -> BTreeSet<String> {
    let services = objects.iter().filter(|o| o.kind() == Kind::Service);
    let ports = services.filter_map(|o| o.at("/spec/ports").and_then(Value::as_array)).flatten();
    ports.filter_map(|port| port["targetPort"].as_str().map(Into::into)).collect()
}

/// Number and protocol name a container's port when it is applied; a second port of the same number can't be. The one
/// that a Service asks for stays, else the first.
fn one_name_per_port(object: &mut Object, asked_for: &BTreeSet<String>) {
    let Some(template) = object.pod_template_mut() else { return };
    for container in template["spec"]["containers"].as_array_mut().into_iter().flatten() {
        let Some(ports) = container["ports"].as_array_mut() else { continue };
        let mut kept: Vec<Value> = vec![];
        for port in ports.drain(..) {
            let same = |other: &&mut Value| {
                other["containerPort"] == port["containerPort"] && other["protocol"] == port["protocol"]
            };
            match kept.iter_mut().find(same) {
                None => kept.push(port),
                Some(other) if port["name"].as_str().is_some_and(|name| asked_for.contains(name)) => *other = port,
                Some(_) => {}
            }
        }
        *ports = kept;
    }
}

/// With the strategy `Manual`, Kubernetes' own roles do not take in the users' roles.
fn not_aggregated(object: &mut Object) {
    let aggregated: Vec<String> = object
        .labels()
        .keys()
        .filter(|key| key.starts_with("rbac.authorization.k8s.io/aggregate-to-"))
        .map(ToString::to_string)
        .collect();
    aggregated.iter().for_each(|key| object.set_label(key, "false"));
}

/// Gives virt-handler a leg in the network that migrations use.
fn migration_network(daemon_set: &mut Object, spec: &KubeVirtSpec) {
    let configuration = spec.configuration.as_ref();
    let network = configuration.and_then(|c| c.migrations.as_ref()).and_then(|m| m.network.as_deref());
    if let (Some(network), "virt-handler") = (network.filter(|n| !n.is_empty()), daemon_set.name())
        && let Some(template) = daemon_set.pod_template_mut()
    {
        let value = format!("{network}@migration0");
        object::put(&mut template["metadata"], "annotations", "k8s.v1.cni.cncf.io/networks", value);
    }
}

/// Command lines: how much is logged, and how many devices virt-handler offers.
fn arguments(object: &mut Object, spec: &KubeVirtSpec) {
    let Some(configuration) = &spec.configuration else { return };
    let verbosity = configuration.developer_configuration.as_ref().and_then(|d| d.log_verbosity.as_ref());
    let name = object.name().to_string();
    let level = verbosity.and_then(|v| match name.as_str() {
        "virt-api" => v.virt_api,
        "virt-controller" => v.virt_controller,
        "virt-handler" => v.virt_handler,
        "virt-synchronization-controller" => v.virt_synchronization_controller,
        _ => None,
    });
    let devices = configuration.virtual_machine_instances_per_node.filter(|_| name == "virt-handler");
    let Some(template) = object.pod_template_mut() else { return };
    for container in template["spec"]["containers"].as_array_mut().into_iter().flatten() {
        if let Some(level) = level {
            ["command", "args"].iter().for_each(|list| set_verbosity(&mut container[*list], level));
        }
        if let (Some(devices), Some(true)) = (devices, container["name"].as_str().map(|n| n == name))
            && let Some(command) = container["command"].as_array_mut()
        {
            command.extend(["--max-devices".into(), devices.to_string().into()]);
        }
    }
}

/// Changes the word after `-v` or `--v`.
fn set_verbosity(list: &mut Value, level: u32) {
    let Some(words) = list.as_array_mut() else { return };
    let at = words.iter().position(|word| matches!(word.as_str(), Some("-v" | "--v")));
    if let Some(value) = at.and_then(|at| words.get_mut(at + 1)) {
        *value = level.to_string().into();
    }
}

#[cfg(test)]
mod tests;
