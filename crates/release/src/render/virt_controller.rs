//! virt-controller: the cluster-wide controllers of VMs. Two run, the one that holds the lease works.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, Probe};

use super::access::{Access, report_on_own_pod, settings};
use super::virt_api::deployment_of;
use super::{HTTPS_PORT, pods};
use crate::config::{Component, DeploymentConfig};
use crate::rbac::{named, rule};

const NAME: &str = "virt-controller";
const ACCOUNT: &str = "kubevirt-controller";
/// Eight times ten seconds: a controller that works off a long queue is busy, not dead.
const LIVENESS_FAILURES: i32 = 8;

/// The lease, and reports about itself: the controllers that need more are not part of this release.
pub(super) fn access() -> Access {
    let mut namespace_rules = report_on_own_pod();
    namespace_rules.extend([
        rule("coordination.k8s.io", &["leases"], &["create"]),
        named("coordination.k8s.io", &["leases"], &[NAME], &["get", "list", "watch", "update", "patch"]),
    ]);
    Access { account: ACCOUNT, cluster_rules: vec![settings()], namespace_rules }
}

pub(super) fn deployment(config: &DeploymentConfig) -> Deployment {
    let (volumes, mounts) = pods::volumes(NAME, &config.namespace);
    let mut env = vec![];
    if !config.sidecar_shim_image.is_empty() {
        env.push(EnvVar {
            name: "SIDECAR_SHIM_IMAGE".into(),
            value: Some(config.sidecar_shim_image.clone()),
            value_from: None,
        });
    }
    let container = Container {
        command: Some(pods::texts(&[NAME])),
        args: Some(pods::texts(&[
            "--launcher-image",
            &config.image(Component::VirtLauncher),
            "--port",
            &HTTPS_PORT.to_string(),
            "-v",
            "2",
        ])),
        ports: Some(vec![pods::port("metrics", HTTPS_PORT)]),
        // Ready means: leads, or stands by. The path is the contract's.
        startup_probe: Some(pods::startup_probe("/leader")),
        readiness_probe: Some(pods::probe_https("/leader")),
        liveness_probe: Some(Probe { failure_threshold: Some(LIVENESS_FAILURES), ..pods::probe_https("/healthz") }),
        resources: Some(pods::requests("10m", "32Mi")),
        security_context: Some(pods::restricted_container()),
        volume_mounts: Some(mounts),
        ..pods::container(NAME, config.image(Component::VirtController), env, config)
    };
    deployment_of(
        NAME,
        config,
        PodSpec { containers: vec![container], volumes: Some(volumes), ..pods::pod(ACCOUNT, config) },
    )
}
