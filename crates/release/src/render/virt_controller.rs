//! virt-controller: the cluster-wide controllers of VMs. Two run, the one that holds the lease works.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, Probe};

use super::access::Access;
use super::virt_api::deployment_of;
use super::{HTTPS_PORT, pods};
use crate::config::{Component, DeploymentConfig};
use crate::rbac::{READ, named, rule};

const NAME: &str = "virt-controller";
const ACCOUNT: &str = "kubevirt-controller";
/// Eight times ten seconds: a controller that works off a long queue is busy, not dead.
const LIVENESS_FAILURES: i32 = 8;

pub(super) fn access() -> Access {
    Access {
        account: ACCOUNT,
        cluster_rules: vec![
            rule("kubevirt.io", &["kubevirts"], READ),
            rule(
                "kubevirt.io",
                &["virtualmachines", "virtualmachineinstances", "virtualmachineinstancemigrations"],
                READ,
            ),
            rule("", &["nodes", "pods"], READ),
        ],
        namespace_rules: vec![
            rule("", &["events"], &["create", "patch"]),
            rule("coordination.k8s.io", &["leases"], &["create"]),
            named("coordination.k8s.io", &["leases"], &[NAME], &["get", "list", "watch", "update", "patch"]),
        ],
    }
}

pub(super) fn deployment(config: &DeploymentConfig) -> Deployment {
    let (volumes, mounts) = pods::volumes(NAME, &config.namespace);
    let base = pods::container(NAME, config.image(Component::VirtController), config);
    let mut env = base.env.clone().unwrap_or_default();
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
        env: (!env.is_empty()).then_some(env),
        ports: Some(vec![pods::port("metrics", HTTPS_PORT)]),
        // Ready means: leads, or stands by. The path is the contract's.
        startup_probe: Some(pods::startup_probe("/leader")),
        readiness_probe: Some(pods::probe_https("/leader")),
        liveness_probe: Some(Probe { failure_threshold: Some(LIVENESS_FAILURES), ..pods::probe_https("/healthz") }),
        resources: Some(pods::requests("10m", "32Mi")),
        security_context: Some(pods::restricted_container()),
        volume_mounts: Some(mounts),
        ..base
    };
    deployment_of(
        NAME,
        config,
        PodSpec { containers: vec![container], volumes: Some(volumes), ..pods::pod(ACCOUNT, config) },
    )
}
