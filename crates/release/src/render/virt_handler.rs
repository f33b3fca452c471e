//! virt-handler: one per node that runs VMs. It drives the launchers of its node, so it has rights there that no other
//! component has.
//!
//! The released suite has an init container here that runs the launcher's image to find out what the node can do. It is
//! rendered once a release ships that image: until then a real node could not pull it, and no handler would start.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, HostPathVolumeSource, ObjectFieldSelector, PodSpec,
    Probe, ResourceRequirements, SELinuxOptions, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::access::{Access, report_on_own_pod, settings};
use super::{CONSOLE_PORT, HTTPS_PORT, VMSTATS_PORT, pods};
use crate::config::{Component, DeploymentConfig};

const NAME: &str = "virt-handler";
const ACCOUNT: &str = "kubevirt-handler";
/// How long a stopping handler waits for the migrations it carries.
const GRACEFUL_SHUTDOWN_SECONDS: i64 = 315;
/// A little more than the handler itself waits.
const GRACE_PERIOD_SECONDS: i64 = GRACEFUL_SHUTDOWN_SECONDS + 15;

/// Directories of the node: volume, path on the node, path in the container, propagation.
const HOST_PATHS: &[(&str, &str, &str, Option<&str>)] = &[
    ("libvirt-runtimes", "/var/run/kubevirt-libvirt-runtimes", "/var/run/kubevirt-libvirt-runtimes", None),
    ("virt-share-dir", "/var/run/kubevirt", "/var/run/kubevirt", Some("Bidirectional")),
    ("virt-private-dir", "/var/run/kubevirt-private", "/var/run/kubevirt-private", None),
    ("kubelet-pods", "/var/lib/kubelet/pods", "/pods", None),
    ("kubelet", "/var/lib/kubelet", "/var/lib/kubelet", Some("HostToContainer")),
];

pub(super) fn access() -> Access {
    Access { account: ACCOUNT, cluster_rules: vec![settings()], namespace_rules: report_on_own_pod() }
}

pub(super) fn daemon_set(config: &DeploymentConfig) -> DaemonSet {
    let (mut volumes, mut mounts) = pods::volumes(NAME, &config.namespace);
    for (name, host_path, path, propagation) in HOST_PATHS {
        volumes.push(Volume {
            name: name.to_string(),
            host_path: Some(HostPathVolumeSource { path: host_path.to_string(), type_: None }),
            ..Default::default()
        });
        mounts.push(VolumeMount {
            name: name.to_string(),
            mount_path: path.to_string(),
            mount_propagation: propagation.map(Into::into),
            ..Default::default()
        });
    }
    volumes.push(pod_info());
    mounts.push(VolumeMount { name: "podinfo".into(), mount_path: "/etc/podinfo".into(), ..Default::default() });

    let mut containers = vec![handler(config, mounts)];
    if !config.image_pull_secrets().is_empty() {
        containers.push(image_holder(config));
    }
    let pod = PodSpec {
        host_pid: Some(true),
        containers,
        volumes: Some(volumes),
        termination_grace_period_seconds: Some(GRACE_PERIOD_SECONDS),
        ..pods::pod(ACCOUNT, config)
    };
    DaemonSet {
        metadata: pods::workload_metadata(NAME, config),
        spec: Some(DaemonSetSpec {
            selector: pods::selector(NAME),
            template: pods::template(NAME, "kubevirt-handler", config, pod),
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: None,
            }),
            ..Default::default()
        }),
        status: None,
    }
}

fn handler(config: &DeploymentConfig, mounts: Vec<VolumeMount>) -> Container {
    let env =
        vec![pods::env_from_field("NODE_NAME", "spec.nodeName"), pods::env_from_field("MY_POD_IP", "status.podIP")];
    Container {
        command: Some(pods::texts(&[NAME])),
        args: Some(pods::texts(&[
            "--port",
            &HTTPS_PORT.to_string(),
            "--hostname-override",
            "$(NODE_NAME)",
            "--pod-ip-address",
            "$(MY_POD_IP)",
            "--max-metric-requests",
            "3",
            "--console-server-port",
            &CONSOLE_PORT.to_string(),
            "--vmstats-server-port",
            &VMSTATS_PORT.to_string(),
            "--graceful-shutdown-seconds",
            &GRACEFUL_SHUTDOWN_SECONDS.to_string(),
            "--migration-cn-types",
            "migration",
            "-v",
            "2",
        ])),
        ports: Some(vec![pods::port("metrics", HTTPS_PORT), pods::port("vmstats", VMSTATS_PORT)]),
        startup_probe: Some(pods::startup_probe("/healthz")),
        readiness_probe: Some(Probe { period_seconds: Some(20), ..pods::probe_https("/healthz") }),
        liveness_probe: Some(Probe {
            period_seconds: Some(45),
            failure_threshold: Some(3),
            ..pods::probe_https("/healthz")
        }),
        resources: Some(pods::requests("10m", "32Mi")),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            se_linux_options: Some(SELinuxOptions { level: Some("s0".into()), ..Default::default() }),
            ..Default::default()
        }),
        volume_mounts: Some(mounts),
        ..pods::container(NAME, config.image(Component::VirtHandler), env, config)
    }
}

/// Keeps the launcher image on the node: VMs are in namespaces that do not have the pull Secrets.
fn image_holder(config: &DeploymentConfig) -> Container {
    let amounts = || Some([("cpu", "100m"), ("memory", "20Mi")].map(|(k, v)| (k.into(), Quantity(v.into()))).into());
    Container {
        command: Some(pods::texts(&["/bin/sh", "-c"])),
        args: Some(pods::texts(&["sleep infinity"])),
        resources: Some(ResourceRequirements { limits: amounts(), ..Default::default() }),
        security_context: Some(pods::restricted_container()),
        ..pods::container("virt-launcher-image-holder", config.image(Component::VirtLauncher), vec![], config)
    }
}

fn pod_info() -> Volume {
    Volume {
        name: "podinfo".into(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "network-status".into(),
                field_ref: Some(ObjectFieldSelector {
                    field_path: "metadata.annotations['k8s.v1.cni.cncf.io/network-status']".into(),
                    api_version: None,
                }),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    }
}
