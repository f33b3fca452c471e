//! The addresses of the suite.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubevirt_api::names::label;

use super::HTTPS_PORT;
use super::pods::labels;
use crate::object::Object;

pub(super) fn objects(namespace: &str) -> Vec<Object> {
    let to_port = |name: &str| IntOrString::String(name.into());
    let scraped = &[(label::KUBEVIRT, ""), (label::PROMETHEUS, "true")];
    let mut metrics = service(
        namespace,
        "kubevirt-prometheus-metrics",
        scraped,
        (label::PROMETHEUS, "true"),
        (Some("metrics"), to_port("metrics")),
    );
    // Prometheus talks to every pod, not to one of them.
    metrics.spec.as_mut().expect("just made").cluster_ip = Some("None".into());
    let api = (label::KUBEVIRT, "virt-api");
    let services = [
        metrics,
        service(namespace, "virt-api", &[api], api, (None, IntOrString::Int(HTTPS_PORT))),
        service(
            namespace,
            "kubevirt-operator-webhook",
            scraped,
            (label::KUBEVIRT, "virt-operator"),
            (Some("webhooks"), to_port("webhooks")),
        ),
    ];
    services.iter().map(Object::of).collect()
}

fn service(
    namespace: &str,
    name: &str,
    own_labels: &[(&str, &str)],
    selected: (&str, &str),
    (port_name, target_port): (Option<&str>, IntOrString),
) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            labels: Some(labels(own_labels)),
            ..Default::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(labels(&[selected])),
            ports: Some(vec![ServicePort {
                name: port_name.map(Into::into),
                port: 443,
                protocol: Some("TCP".into()),
                target_port: Some(target_port),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        status: None,
    }
}
