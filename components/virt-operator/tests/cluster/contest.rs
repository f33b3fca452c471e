//! Somebody changes what the operator writes, on its way in: a mutating webhook that is not ours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kubevirt_release::Kind;
use kubevirt_runtime::admission::{Review, Verdict};
use kubevirt_runtime::serve;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::support::{Cluster, condition};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 9));

/// Turns the port of virt-api's Service to another one of its pods.
async fn meddle(request: serve::Request) -> serve::Response {
    let Ok(body) = serve::read_body(request.into_body()).await else {
        return serve::text(StatusCode::BAD_REQUEST, "no body");
    };
    let Ok(review) = Review::parse(&body) else { return serve::text(StatusCode::BAD_REQUEST, "no review") };
    let is_it = review.name == "virt-api";
    let patch = is_it.then(|| json!({"op": "replace", "path": "/spec/ports/0/targetPort", "value": 9443}));
    let verdict = Verdict::Allow { patch: patch.into_iter().collect() };
    serve::json(StatusCode::OK, &review.answer(&verdict, &[]))
}

/// Serves the webhook on the pods' network; gives its authority.
async fn serve_webhook(cluster: &Cluster) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["meddler.default.svc".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of this build")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("a key that fits its certificate");
    let listener = cluster.network.host(ADDRESS).listen(SocketAddr::from((ADDRESS, 8443))).await.expect("a free port");
    tokio::spawn(serve::serve(listener, Arc::new(config), serve::handler(meddle), CancellationToken::new()));
    authority.pem()
}

fn api(cluster: &Cluster, group: &str, kind: &str, plural: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    }
}

async fn create(api: &Api<DynamicObject>, object: Value) {
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("it is created");
}

fn port(service: &Value) -> i64 {
    service["spec"]["ports"][0]["targetPort"].as_i64().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_changes_what_is_written_is_named_and_not_fought() {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.settled("v0.1.0").await;

    let authority = serve_webhook(&cluster).await;
    let webhooks = api(
        &cluster,
        "admissionregistration.k8s.io",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        None,
    );
    create(
        &api(&cluster, "", "Service", "services", Some("default")),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "meddler"},
            "spec": {"ports": [{"port": 443, "targetPort": 8443}]}}),
    )
    .await;
    create(
        &api(&cluster, "discovery.k8s.io", "EndpointSlice", "endpointslices", Some("default")),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "meddler-1", "labels": {"kubernetes.io/service-name": "meddler"}},
            "endpoints": [{"addresses": [ADDRESS.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "", "port": 8443, "protocol": "TCP"}]}),
    )
    .await;
    create(
        &webhooks,
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "meddler"},
        "webhooks": [{
            "name": "meddler.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {
                "service": {"name": "meddler", "namespace": "default", "path": "/"},
                "caBundle": BASE64.encode(authority),
            },
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "operations": ["UPDATE"]}],
        }]}),
    )
    .await;

    // Any write of the Service passes by the webhook now.
    let labels = json!({"metadata": {"labels": {"kubevirt.io": "touched"}}});
    cluster
        .api(Kind::Service)
        .patch("virt-api", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(labels))
        .await
        .expect("the Service takes the change");
    let cr = cluster.cr_until("contested", |cr| condition(cr, "Synchronized") == "False Contested").await;
    let message = cr["status"]["conditions"].as_array().into_iter().flatten();
    let message: String = message.filter_map(|one| one["message"].as_str()).collect();
    assert!(message.contains("Service kubevirt/virt-api at spec.ports[0].targetPort"), "{message}");
    assert_eq!(condition(&cr, "Available"), "True AllComponentsReady", "everything else goes on");
    let complete = |cr: &Value| condition(cr, "InstancetypesReady").starts_with("True");
    cluster.cr_until("complete, what stands beside the suite too", complete).await;

    let before = cluster.writes().len();
    let quiet = tokio::time::timeout(Duration::from_secs(120), std::future::pending::<()>()).await;
    assert!(quiet.is_err());
    assert_eq!(cluster.writes()[before..], [], "it is not fought");

    webhooks.delete("meddler", &DeleteParams::default()).await.expect("it goes");
    cluster.cr_until("in sync again", |cr| condition(cr, "Synchronized") == "-").await;
    let service = cluster.get(Kind::Service, "virt-api").await.expect("it is there");
    assert_eq!(port(&service), 8443);
}
