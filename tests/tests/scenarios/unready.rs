//! What keeps a pod of the suite unready is named where people look: in the events of that pod.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams};
use kube::runtime::wait::await_condition;
use kubevirt_release::config::DeploymentConfig;
use kubevirt_release::{Kind, Object, OwnImage, render};
use kubevirt_tests::{NAMESPACE, PATIENCE, World, quiet_for, simulate};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::support::{operator, secret};

/// Longer than start-up takes (about 2 s) and than several rounds of probes.
const A_WHILE: Duration = Duration::from_secs(60);
const NAMES: &[&str] =
    &["virt-api", "virt-api.kubevirt", "virt-api.kubevirt.svc", "virt-api.kubevirt.svc.cluster.local"];

/// A certificate for the given names, valid around the simulated time, with its key.
fn certificate(names: &[&str]) -> (String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    (leaf.pem(), key.serialize_pem())
}

/// The objects of the suite around virt-api, and its Deployment as `change` leaves it.
async fn start(world: &World, with_secret: Option<&[&str]>, change: impl FnOnce(&mut Object)) {
    let own = OwnImage::parse("localhost/kubevirt/virt-operator:v0.1.0", None);
    let config = DeploymentConfig::resolve(&own, &BTreeMap::new(), NAMESPACE, &Default::default()).unwrap();
    // What the suite finds in place: its namespace and its priority class.
    world.apply(&operator("v0.1.0").into_iter().filter(|o| o.kind() != Kind::Deployment).collect::<Vec<_>>()).await;
    let (workloads, others): (Vec<_>, Vec<_>) = render(&config)
        .objects
        .into_iter()
        // What other programs' APIs are for is not served here.
        .filter(|object| !object.kind().is_optional())
        .partition(|object| matches!(object.kind(), Kind::Deployment | Kind::DaemonSet));
    world.apply(&others).await;
    let mut api = workloads.into_iter().find(|object| object.name() == "virt-api").expect("virt-api is rendered");
    for volume in api.at("/spec/template/spec/volumes").and_then(|v| v.as_array()).cloned().unwrap_or_default() {
        let Some(name) = volume["secret"]["secretName"].as_str() else { continue };
        let names = if name == "kubevirt-virt-api-certs" { with_secret } else { Some(NAMES) };
        if let Some(names) = names {
            let (certificate, key) = certificate(names);
            world.apply(&[secret(name, &certificate, &key)]).await;
        }
    }
    api.value_mut()["spec"]["replicas"] = json!(1);
    change(&mut api);
    world.apply(&[api]).await;
}

async fn the_pod(world: &World) -> Pod {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let deployments = world.api(Kind::Deployment, Some(NAMESPACE));
    kubevirt_tests::until(&deployments, "virt-api", "followed by a pod", |d| d.data["status"]["replicas"] == 1).await;
    let mut found = pods.list(&ListParams::default().labels("kubevirt.io=virt-api")).await.unwrap().items;
    found.pop().expect("one pod")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The pod stays unready, and one of its events has this reason and contains all of these texts.
async fn stays_unready_and_says(world: &World, reason: &str, texts: &[&str]) {
    let name = the_pod(world).await.metadata.name.unwrap();
    quiet_for(A_WHILE).await;
    let pod = the_pod(world).await;
    assert_eq!(pod.metadata.name.as_deref(), Some(name.as_str()), "still the same pod");
    assert!(!is_ready(&pod), "{name} became ready: {:#?}", pod.status);

    let events: Api<Event> = Api::namespaced(world.client.clone(), NAMESPACE);
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let ours: Vec<_> = events.iter().filter(|event| event.involved_object.name.as_deref() == Some(&name)).collect();
    let says = |event: &&&Event| {
        let message = event.message.as_deref().unwrap_or_default();
        event.reason.as_deref() == Some(reason) && texts.iter().all(|text| message.contains(text))
    };
    let seen: Vec<_> = ours.iter().map(|event| (&event.reason, &event.message)).collect();
    assert!(ours.iter().any(|event| says(&event)), "no event {reason} with {texts:?} on {name}; there are {seen:#?}");
}

#[test]
fn with_everything_right_the_pod_becomes_ready() {
    simulate(async {
        let world = World::start(1, 1);
        start(&world, Some(NAMES), |_| {}).await;
        let name = the_pod(&world).await.metadata.name.unwrap();
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
        let ready = await_condition(pods, &name, |pod: Option<&Pod>| pod.is_some_and(is_ready));
        tokio::time::timeout(PATIENCE, ready).await.expect("ready in time").unwrap();
    });
}

#[test]
fn a_wrong_certificate_name_is_named() {
    simulate(async {
        let world = World::start(1, 2);
        start(&world, Some(&["other.kubevirt.svc"]), |_| {}).await;
        let texts = ["/etc/virt-api/certificates/tls.crt", "virt-api.kubevirt.svc", "other.kubevirt.svc"];
        stays_unready_and_says(&world, "CertificateInvalid", &texts).await;
    });
}

#[test]
fn a_missing_secret_is_named() {
    simulate(async {
        let world = World::start(1, 3);
        start(&world, None, |_| {}).await;
        stays_unready_and_says(&world, "FailedMount", &["kubevirt-virt-api-certs"]).await;
    });
}

#[test]
fn a_wrong_port_is_named() {
    simulate(async {
        let world = World::start(1, 4);
        let other_port = |api: &mut Object| {
            let args = &mut api.value_mut()["spec"]["template"]["spec"]["containers"][0]["args"];
            let port = args.as_array_mut().unwrap().iter_mut().find(|arg| *arg == "8443").expect("--port 8443");
            *port = json!("9443");
        };
        start(&world, Some(NAMES), other_port).await;
        stays_unready_and_says(&world, "Unhealthy", &["connection refused", "8443"]).await;
    });
}
