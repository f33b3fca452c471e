//! virt-api: what the API server calls for `kubevirt.io`.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};

use super::access::{Access, report_on_own_pod, settings};
use super::pods;
use super::{CONSOLE_PORT, HTTPS_PORT};
use crate::config::{Component, DeploymentConfig};

const NAME: &str = "virt-api";
const ACCOUNT: &str = "kubevirt-apiserver";
/// Answered by the subresource API itself: ready means that this API works.
const READY: &str = "/apis/subresources.kubevirt.io/v1/healthz";

pub(super) fn access() -> Access {
    Access { account: ACCOUNT, cluster_rules: vec![settings()], namespace_rules: report_on_own_pod() }
}

pub(super) fn deployment(config: &DeploymentConfig) -> Deployment {
    let (volumes, mounts) = pods::volumes(NAME, &config.namespace);
    let container = Container {
        command: Some(pods::texts(&[NAME])),
        args: Some(pods::texts(&[
            "--port",
            &HTTPS_PORT.to_string(),
            "--console-server-port",
            &CONSOLE_PORT.to_string(),
            "--subresources-only",
            "-v",
            "2",
        ])),
        // One number has one name: with two, the list can't be applied. The Service of the API goes by number.
        ports: Some(vec![pods::port("metrics", HTTPS_PORT)]),
        startup_probe: Some(pods::startup_probe(READY)),
        readiness_probe: Some(Probe { period_seconds: Some(10), ..pods::probe_https(READY) }),
        resources: Some(pods::requests("5m", "32Mi")),
        security_context: Some(pods::restricted_container()),
        volume_mounts: Some(mounts),
        ..pods::container(NAME, config.image(Component::VirtApi), vec![], config)
    };
    deployment_of(
        NAME,
        config,
        PodSpec { containers: vec![container], volumes: Some(volumes), ..pods::pod(ACCOUNT, config) },
    )
}

/// A Deployment of two restricted pods that keep apart.
pub(super) fn deployment_of(name: &str, config: &DeploymentConfig, pod: PodSpec) -> Deployment {
    let pod =
        PodSpec { affinity: Some(pods::anti_affinity(name)), security_context: Some(pods::restricted_pod()), ..pod };
    Deployment {
        metadata: pods::workload_metadata(name, config),
        spec: Some(DeploymentSpec {
            replicas: Some(2),
            selector: pods::selector(name),
            strategy: Some(DeploymentStrategy { type_: Some("RollingUpdate".into()), rolling_update: None }),
            template: pods::template(name, "restricted-v2", config, pod),
            ..Default::default()
        }),
        status: None,
    }
}
