//! What the pods of all components have in common.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    LocalObjectReference, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Toleration,
    Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubevirt_api::names::{annotation, label};

use super::{HTTPS_PORT, PRIORITY_CLASS};
use crate::certificates;
use crate::config::DeploymentConfig;

/// A component is asked every second whether it is ready, from the start, for five minutes: a slow image or a missing
/// Secret does not make it restart, and a fast start is seen at once.
const STARTUP_PERIOD: i32 = 1;
const STARTUP_FAILURES: i32 = 300;
const PROBE_TIMEOUT: i32 = 10;

/// The labels that select a component's pods.
pub(crate) fn selector(component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(labels(&[(label::KUBEVIRT, component)])), ..Default::default() }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Metadata of a Deployment or DaemonSet.
pub(crate) fn workload_metadata(component: &str, config: &DeploymentConfig) -> ObjectMeta {
    ObjectMeta {
        name: Some(component.into()),
        namespace: Some(config.namespace.clone()),
        labels: Some(labels(&[
            (label::KUBEVIRT, component),
            (label::NAME, component),
            (label::VERSION, &config.kubevirt_version),
        ])),
        ..Default::default()
    }
}

/// A pod template of a component of the suite.
pub(crate) fn template(component: &str, scc: &str, config: &DeploymentConfig, spec: PodSpec) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            name: Some(component.into()),
            labels: Some(labels(&[
                (label::KUBEVIRT, component),
                (label::VERSION, &config.kubevirt_version),
                (label::PROMETHEUS, "true"),
                (label::CLUSTER_SERVICES, "true"),
            ])),
            annotations: Some(labels(&[(annotation::REQUIRED_SCC, scc)])),
            ..Default::default()
        }),
        spec: Some(spec),
    }
}

/// What every pod of the suite has.
pub(crate) fn pod(account: &str, config: &DeploymentConfig) -> PodSpec {
    let secrets: Vec<_> = config.image_pull_secrets().into_iter().map(|name| LocalObjectReference { name }).collect();
    PodSpec {
        service_account_name: Some(account.into()),
        priority_class_name: Some(PRIORITY_CLASS.into()),
        tolerations: Some(vec![critical_addon()]),
        image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
        ..Default::default()
    }
}

pub(crate) fn critical_addon() -> Toleration {
    Toleration { key: Some("CriticalAddonsOnly".into()), operator: Some("Exists".into()), ..Default::default() }
}

/// What every container of the suite has. Variables of its own stand before those that are passed through.
pub(crate) fn container(name: &str, image: String, own_env: Vec<EnvVar>, config: &DeploymentConfig) -> Container {
    let mut env = own_env;
    for (name, value) in &config.passthrough_env_vars {
        if env.iter().all(|variable| variable.name != *name) {
            env.push(EnvVar { name: name.clone(), value: Some(value.clone()), value_from: None });
        }
    }
    Container {
        name: name.into(),
        image: Some(image),
        image_pull_policy: Some(config.image_pull_policy().into()),
        env: (!env.is_empty()).then_some(env),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Default::default()
    }
}

/// Security of pods that need no rights on their node.
pub(crate) fn restricted_pod() -> PodSecurityContext {
    PodSecurityContext { run_as_non_root: Some(true), seccomp_profile: Some(runtime_default()), ..Default::default() }
}

/// Security of containers that need no rights on their node.
pub(crate) fn restricted_container() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        seccomp_profile: Some(runtime_default()),
        ..Default::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }
}

/// Spreads the pods of a component over nodes, if there are several.
pub(crate) fn anti_affinity(component: &str) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 1,
                pod_affinity_term: PodAffinityTerm {
                    label_selector: Some(LabelSelector {
                        match_expressions: Some(vec![LabelSelectorRequirement {
                            key: label::KUBEVIRT.into(),
                            operator: "In".into(),
                            values: Some(vec![component.into()]),
                        }]),
                        ..Default::default()
                    }),
                    topology_key: "kubernetes.io/hostname".into(),
                    ..Default::default()
                },
            }]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A question over HTTPS; the caller sets period and failure count where they differ from Kubernetes' defaults.
pub(crate) fn probe_https(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(HTTPS_PORT),
            scheme: Some("HTTPS".into()),
            ..Default::default()
        }),
        timeout_seconds: Some(PROBE_TIMEOUT),
        ..Default::default()
    }
}

/// Asks each second from the start until the component answers for the first time.
pub(crate) fn startup_probe(path: &str) -> Probe {
    Probe { period_seconds: Some(STARTUP_PERIOD), failure_threshold: Some(STARTUP_FAILURES), ..probe_https(path) }
}

pub(crate) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: number,
        protocol: Some("TCP".into()),
        ..Default::default()
    }
}

pub(crate) fn env_from_field(name: &str, field: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: field.into(), api_version: None }),
            ..Default::default()
        }),
    }
}

pub(crate) fn requests(cpu: &str, memory: &str) -> ResourceRequirements {
    ResourceRequirements {
        requests: Some([("cpu", cpu), ("memory", memory)].map(|(k, v)| (k.into(), Quantity(v.into()))).into()),
        ..Default::default()
    }
}

pub(crate) fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

pub(crate) fn secret_volume(secret: &str, optional: bool) -> Volume {
    Volume {
        name: secret.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            optional: Some(optional),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The Secrets the certificate table mounts into a component, and where profiles are written.
pub(crate) fn volumes(component: &str, namespace: &str) -> (Vec<Volume>, Vec<VolumeMount>) {
    let (mut volumes, mut mounts) = (vec![], vec![]);
    for certificate in certificates::all(namespace) {
        for mount in certificate.mounts.iter().filter(|m| m.component == component) {
            volumes.push(secret_volume(certificate.secret, mount.optional));
            mounts.push(VolumeMount {
                name: certificate.secret.into(),
                mount_path: mount.path.into(),
                read_only: Some(true),
                ..Default::default()
            });
        }
    }
    volumes.push(Volume {
        name: "profile-data".into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Default::default()
    });
    mounts.push(VolumeMount { name: "profile-data".into(), mount_path: "/profile-data".into(), ..Default::default() });
    (volumes, mounts)
}
