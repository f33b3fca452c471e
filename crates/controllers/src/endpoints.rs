//! Endpoints and EndpointSlices: which pods stand behind a Service.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::action::{Action, Controller, Decision, View, delete_of, merge_diff, patch_of};
use crate::cache::{Change, Name};
use crate::kinds::{Cached, Kind, Object, Objects};
use crate::pods;

/// Endpoints per slice, the API's default.
const SLICE: usize = 100;
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// The controller of both kinds.
pub struct EndpointsOfServices {
    pub seed: u64,
    /// How long a change takes to be seen, drawn per Service.
    pub lag: RangeInclusive<Duration>,
}

impl Controller for EndpointsOfServices {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::Service, Kind::Pod, Kind::Endpoints, Kind::EndpointSlice]
    }

    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name> {
        match change.kind {
            Kind::Service | Kind::Endpoints => vec![change.name.clone()],
            Kind::EndpointSlice => {
                let label = |object: &Object| object.meta().labels.as_ref()?.get(SERVICE_LABEL).cloned();
                let services = change.both().filter_map(label);
                services.map(|service| Name::new(change.name.namespace.clone(), service)).collect()
            }
            Kind::Pod => objects
                .services
                .in_namespace(&change.name.namespace)
                .filter(|service| change.both().any(|object| selects(service, object.meta())))
                .map(|service| Name::of(service.as_ref()))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn lag(&self, key: &Name) -> Duration {
        let spread = self.lag.end().saturating_sub(*self.lag.start());
        let steps = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
        let draw = pods::draw(self.seed, &key.to_string(), "endpoints");
        *self.lag.start() + Duration::from_micros(if steps == 0 { 0 } else { draw % (steps + 1) })
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let Some(service) = view.objects.services.get(key) else { return Decision::none() };
        decide(view, service)
    }
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|selector| !selector.is_empty() && !external)
}

fn selects(service: &Service, meta: &ObjectMeta) -> bool {
    let labels = meta.labels.as_ref();
    selector(service).is_some_and(|selector| {
        selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}

/// One pod behind a Service.
struct Backend {
    ip: String,
    node: Option<String>,
    target: ObjectReference,
    /// Ready, or published without being so.
    ready: bool,
    serving: bool,
    terminating: bool,
}

type Ports = Vec<(Option<String>, i32, String, Option<String>)>;

fn backend(service: &Service, pod: &Pod) -> Option<Backend> {
    let ip = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    let published = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let terminating = pods::is_terminating(pod);
    let serving = pods::is_ready(pod);
    Some(Backend {
        ip,
        node: pods::node_name(pod).map(str::to_owned),
        target: ObjectReference {
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        },
        ready: published || (serving && !terminating),
        serving: serving || published,
        terminating,
    })
}

/// The Service's ports as numbers on this pod; a named port that the pod lacks is left out.
fn ports(service: &Service, pod: &Pod) -> Ports {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let named: Vec<_> = containers.flat_map(|container| container.ports.iter().flatten()).collect();
    let wanted = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    wanted
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let number = match &port.target_port {
                None => port.port,
                Some(IntOrString::Int(0)) => port.port,
                Some(IntOrString::Int(number)) => *number,
                Some(IntOrString::String(name)) => {
                    let same = |own: &&&k8s_openapi::api::core::v1::ContainerPort| {
                        own.name.as_ref() == Some(name) && own.protocol.as_deref().unwrap_or("TCP") == protocol
                    };
                    named.iter().find(same)?.container_port
                }
            };
            Some((port.name.clone(), number, protocol, port.app_protocol.clone()))
        })
        .collect()
}

fn decide(view: &View<'_>, service: &Service) -> Decision {
    let mut decision = Decision::none();
    if selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    let mut groups: BTreeMap<Ports, Vec<Backend>> = BTreeMap::new();
    for pod in view.objects.pods.in_namespace(&namespace) {
        if selects(service, &pod.metadata)
            && !pods::has_ended(pod)
            && let Some(backend) = backend(service, pod)
        {
            groups.entry(ports(service, pod)).or_default().push(backend);
        }
    }
    decision.actions.extend(legacy(view, service, &groups));
    decision.actions.extend(slices(view, service, &groups));
    decision
}

fn meta(service: &Service, name: String, more: &[(&str, &str)]) -> ObjectMeta {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    ObjectMeta {
        name: Some(name),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels).filter(|labels| !labels.is_empty()),
        ..ObjectMeta::default()
    }
}

fn legacy(view: &View<'_>, service: &Service, groups: &BTreeMap<Ports, Vec<Backend>>) -> Option<Action> {
    let address = |backend: &Backend| EndpointAddress {
        ip: backend.ip.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.target.clone()),
        hostname: None,
    };
    let subset = |(ports, backends): (&Ports, &Vec<Backend>)| {
        let of = |ready: bool| {
            // A pod on its way out is in no list of the older kind.
            let chosen = backends.iter().filter(|backend| backend.ready == ready && !backend.terminating);
            let addresses: Vec<_> = chosen.map(address).collect();
            if addresses.is_empty() { None } else { Some(addresses) }
        };
        let ports: Vec<_> = ports
            .iter()
            .map(|(name, port, protocol, app_protocol)| LegacyPort {
                name: name.clone(),
                port: *port,
                protocol: Some(protocol.clone()),
                app_protocol: app_protocol.clone(),
            })
            .collect();
        let subset = EndpointSubset {
            addresses: of(true),
            not_ready_addresses: of(false),
            ports: Some(ports).filter(|ports| !ports.is_empty()),
        };
        (subset.addresses.is_some() || subset.not_ready_addresses.is_some()).then_some(subset)
    };
    let subsets: Vec<_> = groups.iter().filter_map(subset).collect();
    let name = Name::of(service);
    let wanted = Endpoints {
        metadata: meta(service, name.name.clone(), &[("endpoints.kubernetes.io/managed-by", "endpoint-controller")]),
        subsets: if subsets.is_empty() { None } else { Some(subsets) },
    };
    match view.objects.endpoints.get(&name) {
        None => Some(Action::Create { object: Endpoints::wrap(Arc::new(wanted)), note: None }),
        Some(known) => difference(known.as_ref(), &wanted, &["subsets"]),
    }
}

fn slices(view: &View<'_>, service: &Service, groups: &BTreeMap<Ports, Vec<Backend>>) -> Vec<Action> {
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let mut wanted: BTreeMap<Name, EndpointSlice> = BTreeMap::new();
    for (ports, backends) in groups {
        for chunk in backends.chunks(SLICE) {
            let slice_name = format!("{name}-{}", suffix(uid, wanted.len()));
            let slice = slice(service, slice_name, ports, chunk);
            wanted.insert(Name::of(&slice), slice);
        }
    }
    if wanted.is_empty() {
        // An empty slice says that there is nothing, which is more than no slice says.
        let slice = slice(service, format!("{name}-{}", suffix(uid, 0)), &Vec::new(), &[]);
        wanted.insert(Name::of(&slice), slice);
    }
    let known: BTreeMap<Name, &Arc<EndpointSlice>> = view
        .objects
        .endpoint_slices
        .owned_by(uid)
        .filter(|slice| {
            slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == MANAGER)
        })
        .map(|slice| (Name::of(slice.as_ref()), slice))
        .collect();
    let surplus = known.iter().filter(|(name, _)| !wanted.contains_key(name));
    let mut actions: Vec<Action> = surplus.map(|(_, slice)| delete_of(slice.as_ref(), None)).collect();
    for (name, slice) in wanted {
        match known.get(&name) {
            None => actions.push(Action::Create { object: EndpointSlice::wrap(Arc::new(slice)), note: None }),
            Some(known) => actions.extend(difference(known.as_ref(), &slice, &["endpoints", "ports"])),
        }
    }
    actions
}

/// Five letters that belong to a Service and the number of its slice.
fn suffix(uid: &str, number: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = pods::draw(0, uid, &format!("slice/{number}"));
    let mut text = String::new();
    for _ in 0..5 {
        let at = usize::try_from(rest % LETTERS.len() as u64).unwrap_or_default();
        text.push(char::from(LETTERS[at]));
        rest /= LETTERS.len() as u64;
    }
    text
}

fn endpoint(backend: &Backend) -> Endpoint {
    Endpoint {
        addresses: vec![backend.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        node_name: backend.node.clone(),
        target_ref: Some(backend.target.clone()),
        ..Endpoint::default()
    }
}

fn slice(service: &Service, name: String, ports: &Ports, backends: &[Backend]) -> EndpointSlice {
    let own = service.metadata.name.as_deref().unwrap_or_default();
    let mut metadata = meta(service, name, &[(SERVICE_LABEL, own), (MANAGED_BY, MANAGER)]);
    metadata.owner_references = Some(vec![pods::controller_ref(service)]);
    EndpointSlice {
        metadata,
        address_type: "IPv4".to_owned(),
        endpoints: Some(backends.iter().map(endpoint).collect()),
        ports: Some(
            ports
                .iter()
                .map(|(name, port, protocol, app_protocol)| EndpointPort {
                    name: Some(name.clone().unwrap_or_default()),
                    port: Some(*port),
                    protocol: Some(protocol.clone()),
                    app_protocol: app_protocol.clone(),
                })
                .collect(),
        ),
    }
}

/// The patch that brings the labels and the named fields of `known` to those of `wanted`.
fn difference<K: Cached>(known: &K, wanted: &K, fields: &[&str]) -> Option<Action> {
    let (known_value, wanted_value) = (serde_json::to_value(known).ok()?, serde_json::to_value(wanted).ok()?);
    let mut patch = json!({});
    for field in fields {
        let part = |value: &Value| value.get(field).cloned().filter(|part| *part != json!([])).unwrap_or(Value::Null);
        if let Some(change) = merge_diff(&part(&known_value), &part(&wanted_value)) {
            // An emptied list is written as such: a required field must not go.
            patch[*field] = if change.is_null() && *field == "endpoints" { json!([]) } else { change };
        }
    }
    let own = known.meta().labels.clone().unwrap_or_default();
    let labels = wanted.meta().labels.clone().unwrap_or_default();
    let missing: BTreeMap<_, _> = labels.into_iter().filter(|(key, value)| own.get(key) != Some(value)).collect();
    if !missing.is_empty() {
        patch["metadata"] = json!({"labels": missing});
    }
    (patch != json!({})).then(|| patch_of(known, None, patch))
}
