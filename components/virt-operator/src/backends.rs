//! Whether what a webhook configuration or an aggregated API makes the API server call would answer: the registration
//! comes after the backend, or the API server refuses what it should have handed on.
//!
//! virt-api's pods are ready only with a certificate that fits, so its ready endpoints say enough. The operator's pods are
//! ready before there is any certificate; there the leader makes the handshake that the API server would make.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use kubevirt_release::certificates::{BUNDLE_KEY, CA};
use kubevirt_release::{Kind, ObjectKey};
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::net::Net;
use kubevirt_runtime::tls::probe;
use serde_json::Value;

use crate::cache::text;
use crate::endpoints::Slices;
use crate::reconcile::World;

/// The label of an EndpointSlice that names its service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The operator's own service.
const OWN: &str = "kubevirt-operator-webhook";
/// The services that are called.
pub const CALLED: [&str; 2] = [OWN, "virt-api"];

/// Whether objects of a kind make the API server call something.
pub fn registers(kind: Kind) -> bool {
    kind.registers()
}

/// The services a registration names.
pub fn services(registration: &Value) -> Vec<String> {
    let webhooks = registration.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    let named = webhooks.filter_map(|webhook| text(webhook, "/clientConfig/service/name"));
    let mut names: Vec<String> = named.chain(text(registration, "/spec/service/name")).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The addresses at which a service answers.
fn ready(service: &str, slices: &Slices) -> Vec<SocketAddr> {
    let own = slices.values().filter(|slice| label(slice) == Some(service));
    own.flat_map(|slice| {
        let list = |name: &str| slice.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let port = list("ports").first().and_then(|port| u16::try_from(port.get("port")?.as_u64()?).ok());
        // An endpoint that says nothing about itself counts as ready, as everywhere.
        let is_ready = |endpoint: &Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
        let endpoints = list("endpoints").into_iter().filter(is_ready);
        endpoints.filter_map(move |endpoint| {
            let address: IpAddr = text(&endpoint, "/addresses/0")?.parse().ok()?;
            Some(SocketAddr::new(address, port?))
        })
    })
    .collect()
}

fn label(slice: &Value) -> Option<&str> {
    slice.pointer("/metadata/labels")?.get(SERVICE_NAME)?.as_str()
}

/// Why a service would not answer the API server, as far as it is known.
pub fn unfit(service: &str, slices: &Slices, mute: &BTreeMap<String, String>) -> Option<String> {
    // Services nobody follows here are not this operator's to judge.
    if !CALLED.contains(&service) {
        return None;
    }
    if ready(service, slices).is_empty() {
        return Some(format!("service {service} has no ready endpoint"));
    }
    mute.get(service).cloned()
}

/// Asks the operator's own replicas for their certificates, unless its webhooks are registered already. The answers'
/// shortcomings, by service.
pub async fn ask(world: &World, namespace: &str, net: &dyn Net, clock: &Clock) -> BTreeMap<String, String> {
    let mut mute = BTreeMap::new();
    let registered =
        world.objects.iter().any(|(key, live)| registers(key.kind) && services(live).iter().any(|s| s == OWN));
    let Some(slices) = &world.endpoints else { return mute };
    let addresses = ready(OWN, slices);
    if registered || addresses.is_empty() {
        return mute;
    }
    let bundle = ObjectKey::new(Kind::ConfigMap, Some(namespace), CA);
    let bundle =
        world.objects.get(&bundle).and_then(|map| text(map, &format!("/data/{BUNDLE_KEY}"))).unwrap_or_default();
    let name = format!("{OWN}.{namespace}.svc");
    let probes = addresses.iter().map(|address| probe(net, *address, &name, bundle, clock));
    let failed = join_all(probes).await.into_iter().find_map(Result::err);
    if let Some(error) = failed {
        mute.insert(OWN.to_owned(), format!("service {OWN}: {error}"));
    }
    mute
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn slices(ready: Value) -> Slices {
        let slice = json!({
            "metadata": {"labels": {SERVICE_NAME: "virt-api"}},
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
            "ports": [{"port": 8443}],
        });
        [("virt-api-1".to_owned(), Arc::new(slice))].into()
    }

    #[test]
    fn a_service_is_fit_when_an_endpoint_is_ready_and_nothing_was_found_wrong() {
        let none = BTreeMap::new();
        assert_eq!(unfit("virt-api", &slices(json!(true)), &none), None);
        assert_eq!(unfit("virt-api", &slices(Value::Null), &none), None);
        let why = Some("service virt-api has no ready endpoint".to_owned());
        assert_eq!(unfit("virt-api", &slices(json!(false)), &none), why);
        assert_eq!(unfit("virt-api", &Slices::new(), &none), why);
        let mute = [("virt-api".to_owned(), "it shows another certificate".to_owned())].into();
        assert_eq!(unfit("virt-api", &slices(json!(true)), &mute).as_deref(), Some("it shows another certificate"));
        assert_eq!(unfit("somebody-else", &Slices::new(), &none), None);
    }

    #[test]
    fn services_are_found_in_every_kind_of_registration() {
        let webhook = |name: &str| json!({"clientConfig": {"service": {"name": name}}});
        let configuration =
            json!({"webhooks": [webhook("b"), webhook("a"), webhook("b"), {"clientConfig": {"url": "x"}}]});
        assert_eq!(services(&configuration), ["a", "b"]);
        assert_eq!(services(&json!({"spec": {"service": {"name": "virt-api"}}})), ["virt-api"]);
        assert_eq!(services(&json!({"spec": {"group": "apps"}})), Vec::<String>::new());
    }
}
