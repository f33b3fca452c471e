//! The DaemonSet that brings the images of the new virt-handler onto the nodes while the old one still works there. One init
//! container for each image, whose program is only asked for its version; then nothing until it is taken away. It is made
//! from the DaemonSet it prepares, of whatever release that is.

use std::collections::BTreeSet;

use kubevirt_api::names::{annotation, label};
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::object::Object;

/// Its name, and what its pods are labelled with.
pub const NAME: &str = "virt-handler-images";
/// The DaemonSet whose images it brings.
pub const OF: &str = "virt-handler";
/// The argument with which this operator's program does nothing until it is asked to stop.
pub const IDLE: &str = "--idle";

/// What decides on which nodes its pods run, as whom, and with which credentials images are pulled. virt-handler's priority
/// is not among it: it would make pods with virtual machines go to find room for these.
const TAKEN_OVER: [&str; 7] = [
    "nodeSelector",
    "affinity",
    "tolerations",
    "imagePullSecrets",
    "serviceAccountName",
    "schedulerName",
    "runtimeClassName",
];

/// A user that owns nothing, on any Linux. Without one an image whose user is root would not be started.
const NOBODY: i64 = 65_534;

/// Nothing is to be finished, so the time is only for a node that is busy.
const GRACE_PERIOD_SECONDS: i64 = 5;

/// Shells need no program of their image, and are sure to end.
const SHELLS: [&str; 4] = ["sh", "bash", "ash", "dash"];

/// The DaemonSet for a virt-handler as it will be written; `own_image` is this operator's. `None` if that one's pods have no
/// containers, which makes it no virt-handler.
pub fn puller(handler: &Object, own_image: &str) -> Option<Object> {
    let template = handler.pod_template().filter(|_| handler.kind() == Kind::DaemonSet)?;
    let given = template["spec"].as_object()?;
    let init: Vec<Value> = pulling(given);
    if init.is_empty() {
        return None;
    }
    let mut spec: Map<String, Value> = TAKEN_OVER
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), given.get(*field).filter(|value| !value.is_null())?.clone())))
        .collect();
    let own = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_PERIOD_SECONDS,
        // No seccomp profile: on OpenShift the account's constraints, which are virt-handler's, know none, and such a pod
        // would not be let in.
        "securityContext": {"runAsNonRoot": true, "runAsUser": NOBODY},
        "initContainers": init,
        "containers": [container(NAME, own_image, "IfNotPresent", json!({"command": ["virt-operator"], "args": [IDLE]}))],
    });
    spec.extend(own.as_object().cloned().unwrap_or_default());
    let named = |labels: &Value, keep: fn(&str) -> bool| -> Value {
        let kept = labels.as_object().into_iter().flatten().filter(|(key, _)| keep(key));
        let mut labels: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        labels.insert(label::KUBEVIRT.to_owned(), NAME.into());
        if labels.contains_key(label::NAME) {
            labels.insert(label::NAME.to_owned(), NAME.into());
        }
        labels.into()
    };
    let stamps = template.pointer("/metadata/annotations").and_then(Value::as_object);
    let stamps: Map<String, Value> = stamps
        .into_iter()
        .flatten()
        .filter(|(key, _)| is_stamp(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let metadata = &handler.value()["metadata"];
    let puller = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": NAME,
            "namespace": metadata["namespace"],
            "labels": named(&metadata["labels"], |_| true),
            "annotations": metadata["annotations"],
        },
        "spec": {
            "selector": {"matchLabels": {label::KUBEVIRT: NAME}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {
                "metadata": {
                    // Others of virt-handler's labels make Services and network policies find its pods.
                    "labels": named(&template["metadata"]["labels"], |key| key.starts_with("app.kubernetes.io/")),
                    "annotations": stamps,
                },
                "spec": spec,
            },
        },
    });
    Object::from_value(puller).ok()
}

/// By which version a pod is, and who it may run as.
fn is_stamp(annotation: &str) -> bool {
    use annotation::{REQUIRED_SCC, STRATEGY_IDENTIFIER, STRATEGY_REGISTRY, STRATEGY_VERSION};
    [REQUIRED_SCC, STRATEGY_IDENTIFIER, STRATEGY_REGISTRY, STRATEGY_VERSION].contains(&annotation)
}

/// An init container for each image of a pod. They run one after another and one that fails bars the rest, so those that
/// are sure to end come first.
fn pulling(pod: &Map<String, Value>) -> Vec<Value> {
    let lists = ["initContainers", "containers"].into_iter().filter_map(|list| pod.get(list)?.as_array());
    let mut seen = BTreeSet::new();
    let mut images: Vec<(&Value, &str)> = lists
        .flatten()
        .filter_map(|container| Some((container, container["image"].as_str()?)))
        .filter(|(_, image)| seen.insert(*image))
        .collect();
    images.sort_by_key(|(container, _)| shell(container).is_none());
    let init = images.into_iter().map(|(given, image)| {
        let policy = if given["imagePullPolicy"] == "Never" { "Never" } else { "IfNotPresent" };
        let runs = match (shell(given), given["command"][0].as_str()) {
            (Some(shell), _) => json!({"command": [shell, "-c", "exit 0"]}),
            (None, Some(program)) => json!({"command": [program, "--version"]}),
            // The image's own program.
            (None, None) => json!({"args": ["--version"]}),
        };
        container(given["name"].as_str().unwrap_or_default(), image, policy, runs)
    });
    init.collect()
}

/// The shell that a container begins with.
fn shell(container: &Value) -> Option<&str> {
    let program = container["command"][0].as_str()?;
    SHELLS.contains(&program.rsplit('/').next()?).then_some(program)
}

fn container(name: &str, image: &str, pull_policy: &str, runs: Value) -> Value {
    let mut container = json!({
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        // Next to nothing; it is asked for so that quotas which insist on a request let the pod pass.
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
        },
    });
    if let (Some(container), Some(runs)) = (container.as_object_mut(), runs.as_object()) {
        container.extend(runs.clone());
    }
    container
}

#[cfg(test)]
mod tests {
    use kubevirt_api::kubevirt::KubeVirtSpec;

    use super::*;
    use crate::config::DeploymentConfig;
    use crate::customize::Customizations;
    use crate::desired::{Inputs, desired};
    use crate::render;

    const OWN: &str = "localhost/kubevirt/virt-operator:v0.9.0";

    fn handler(spec: Value, config: DeploymentConfig) -> Object {
        let spec: KubeVirtSpec = serde_json::from_value(spec).expect("a spec");
        let customizations = Customizations::read(spec.customize_components.as_ref()).expect("changes");
        let inputs =
            Inputs { spec: &spec, customizations: &customizations, generation: 7, nodes: 3, control_plane_nodes: 1 };
        let objects = desired(&render(&config), &inputs).expect("objects");
        objects.into_iter().find(|object| object.kind() == Kind::DaemonSet).expect("virt-handler")
    }

    fn config(pull_secrets: &str) -> DeploymentConfig {
        let own = crate::OwnImage::parse("localhost/kubevirt/virt-operator:v0.2.0", None);
        let mut spec = KubeVirtSpec { image_pull_policy: Some("Always".into()), ..KubeVirtSpec::default() };
        if !pull_secrets.is_empty() {
            spec.image_pull_secrets = serde_json::from_value(json!([{"name": pull_secrets}])).expect("secrets");
        }
        DeploymentConfig::resolve(&own, &Default::default(), "kubevirt", &spec).expect("a release")
    }

    #[test]
    fn it_runs_where_virt_handler_runs_and_asks_each_image_for_nothing() {
        let placed = json!({"workloads": {"nodePlacement": {"nodeSelector": {"vms": "yes"},
            "tolerations": [{"key": "vms", "operator": "Exists"}]}}, "productVersion": "9"});
        let handler = handler(placed, config("pull"));
        let puller = puller(&handler, OWN).expect("a DaemonSet");
        assert_eq!(puller.key().to_string(), "DaemonSet kubevirt/virt-handler-images");
        let of = |object: &Object, field: &str| object.at(&format!("/spec/template/spec/{field}")).cloned();
        for field in ["nodeSelector", "tolerations", "imagePullSecrets", "serviceAccountName"] {
            assert!(of(&handler, field).is_some(), "{field}");
            assert_eq!(of(&puller, field), of(&handler, field), "{field}");
        }
        for field in ["volumes", "hostPID", "priorityClassName"] {
            assert!(of(&handler, field).is_some(), "{field}");
            assert_eq!(of(&puller, field), None, "{field}");
        }
        assert_eq!(of(&puller, "automountServiceAccountToken"), Some(false.into()));
        let init = of(&puller, "initContainers").expect("init containers");
        let told = |container: &Value| json!([container["image"], container["imagePullPolicy"], container["command"]]);
        let told: Vec<Value> = init.as_array().into_iter().flatten().map(told).collect();
        assert_eq!(
            json!(told),
            json!([
                ["localhost/kubevirt/virt-launcher:v0.2.0", "IfNotPresent", ["/bin/sh", "-c", "exit 0"]],
                ["localhost/kubevirt/virt-handler:v0.2.0", "IfNotPresent", ["virt-handler", "--version"]],
            ])
        );
        assert_eq!(puller.at("/spec/template/spec/containers/0/image"), Some(&OWN.into()));
        assert_eq!(puller.at("/spec/template/spec/containers/0/args"), Some(&json!([IDLE])));
        for container in ["initContainers/0", "initContainers/1", "containers/0"] {
            let fields = of(&puller, container).expect("a container");
            assert_eq!(fields["securityContext"]["readOnlyRootFilesystem"], true);
            assert!(fields["securityContext"]["privileged"].is_null() && fields["ports"].is_null());
            assert!(fields["volumeMounts"].is_null() && fields["env"].is_null());
        }
    }

    #[test]
    fn it_is_marked_as_part_of_its_version_and_nobody_takes_its_pods_for_virt_handler() {
        let handler = handler(json!({"productVersion": "9"}), config(""));
        let puller = puller(&handler, OWN).expect("a DaemonSet");
        assert_eq!(puller.annotations(), handler.annotations());
        assert_eq!(puller.label(label::MANAGED_BY), Some(label::MANAGED_BY_OPERATOR));
        assert_eq!(puller.label(label::VERSION), handler.label(label::VERSION));
        let template = puller.pod_template().expect("a template");
        let labels = &template["metadata"]["labels"];
        assert_eq!(labels[label::KUBEVIRT], NAME);
        assert_eq!(labels[label::MANAGED_BY], label::MANAGED_BY_OPERATOR, "its pods are followed");
        assert!(labels[label::PROMETHEUS].is_null() && labels[label::CLUSTER_SERVICES].is_null());
        let annotations = &template["metadata"]["annotations"];
        assert_eq!(
            annotations[annotation::STRATEGY_IDENTIFIER],
            handler.value()["metadata"]["annotations"][annotation::STRATEGY_IDENTIFIER]
        );
        assert_eq!(annotations[annotation::REQUIRED_SCC], "kubevirt-handler");
    }

    #[test]
    fn any_releases_virt_handler_will_do_and_each_image_comes_once() {
        let given = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "virt-handler", "namespace": "kv"},
        "spec": {"template": {"spec": {
            "initContainers": [{"name": "virt-launcher", "image": "r/launcher", "command": ["/bin/bash", "-c", "x"]}],
            "containers": [
                {"name": "virt-handler", "image": "r/handler", "command": ["virt-handler", "--port", "8443"]},
                {"name": "helper", "image": "r/helper", "imagePullPolicy": "Never"},
                {"name": "holder", "image": "r/launcher", "command": ["sleep"]},
            ],
        }}}});
        let puller = puller(&Object::from_value(given.clone()).expect("an object"), OWN).expect("a DaemonSet");
        let init = puller.at("/spec/template/spec/initContainers").and_then(Value::as_array).expect("a list");
        let told: Vec<String> = init
            .iter()
            .map(|it| format!("{} {} {}{}", it["image"], it["imagePullPolicy"], it["command"], it["args"]))
            .collect();
        assert_eq!(
            told,
            [
                r#""r/launcher" "IfNotPresent" ["/bin/bash","-c","exit 0"]null"#,
                r#""r/handler" "IfNotPresent" ["virt-handler","--version"]null"#,
                r#""r/helper" "Never" null["--version"]"#,
            ]
        );
        let mut empty = given;
        empty["spec"]["template"]["spec"] = json!({"containers": []});
        assert_eq!(super::puller(&Object::from_value(empty).expect("an object"), OWN), None);
    }
}
