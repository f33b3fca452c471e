//! Pod security levels: what pods of a namespace may do, as its labels say.
//!
//! `enforce` refuses a pod, `warn` tells whoever writes a pod or a template of pods, `audit` has no place here to go. The
//! rules are those of the Pod Security Standards; a version in a label is shown, and the newest rules count.

use apimachinery::field::FieldError;
use serde_json::Value;

use crate::registry::resource_key;
use crate::status::ApiError;
use crate::store::Name;
use crate::verbs::{Target, metadata_text};

const PREFIX: &str = "pod-security.kubernetes.io/";
const MODES: [&str; 3] = ["enforce", "audit", "warn"];
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Capabilities that a container may add under `baseline`.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
/// Sources of volumes that `restricted` leaves.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// The level of a namespace for a mode, and how it is shown.
fn of_namespace(target: &Target<'_>, mode: &str) -> Option<(Level, String)> {
    let name = Name::new("", &target.path.namespace);
    let namespace = target.core.store.get_kept(&resource_key("", "namespaces"), &name)?;
    let labels = &namespace.value["metadata"]["labels"];
    let asked = labels[format!("{PREFIX}{mode}")].as_str()?;
    let version = labels[format!("{PREFIX}{mode}-version")].as_str().unwrap_or("latest");
    // Nobody may write another one.
    let level = level(asked).filter(|level| *level > Level::Privileged)?;
    Some((level, format!("{asked}:{version}")))
}

/// Says whether a new pod keeps to what its namespace enforces.
pub(super) fn pod(target: &Target<'_>, pod: &Value) -> Result<(), ApiError> {
    let Some((level, shown)) = of_namespace(target, "enforce") else { return Ok(()) };
    let broken = broken(level, &pod["metadata"], &pod["spec"]);
    if broken.is_empty() {
        return Ok(());
    }
    let why = format!("violates PodSecurity \"{shown}\": {}", broken.join(", "));
    Err(ApiError::forbidden(target.about(metadata_text(pod, "name")), &why))
}

/// What whoever writes a pod, or something that makes pods, is told.
pub(crate) fn warnings(target: &Target<'_>, object: &Value) -> Vec<String> {
    if !target.path.subresource.is_empty() {
        return Vec::new();
    }
    let template = match (target.resource.group.as_str(), target.resource.plural.as_str()) {
        ("", "pods") => object,
        ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets")
        | ("batch", "jobs")
        | ("", "replicationcontrollers") => &object["spec"]["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        ("", "podtemplates") => &object["template"],
        _ => return Vec::new(),
    };
    let Some((level, shown)) = of_namespace(target, "warn") else { return Vec::new() };
    let broken = broken(level, &template["metadata"], &template["spec"]);
    if broken.is_empty() {
        return Vec::new();
    }
    vec![format!("would violate PodSecurity \"{shown}\": {}", broken.join(", "))]
}

/// Labels of a namespace that name no level.
pub(super) fn namespace(object: &Value) -> Vec<FieldError> {
    let labels = &object["metadata"]["labels"];
    let mut found = Vec::new();
    for mode in MODES {
        let key = format!("{PREFIX}{mode}");
        if let Some(text) = labels[&key].as_str()
            && level(text).is_none()
        {
            let why = "must be one of privileged, baseline, restricted";
            found.push(FieldError::invalid(format!("metadata.labels[{key}]"), &labels[&key], why));
        }
        let key = format!("{PREFIX}{mode}-version");
        if let Some(text) = labels[&key].as_str() {
            let number = text.strip_prefix("v1.").is_some_and(|minor| minor.parse::<u16>().is_ok());
            if !number && text != "latest" {
                let why = "must be \"latest\" or \"v1.x\"";
                found.push(FieldError::invalid(format!("metadata.labels[{key}]"), &labels[&key], why));
            }
        }
    }
    found
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    LISTS.into_iter().flat_map(move |list| spec[list].as_array().into_iter().flatten())
}

fn entries(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The names of containers of which something is true, quoted.
fn named<'a>(spec: &'a Value, is: impl Fn(&'a Value) -> bool) -> Option<String> {
    let names: Vec<String> = containers(spec)
        .filter(|container| is(container))
        .map(|container| format!("\"{}\"", container["name"].as_str().unwrap_or_default()))
        .collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("container {one}")),
        many => Some(format!("containers {}", many.join(", "))),
    }
}

/// The same for a part of the security context that pods have, too.
fn anywhere(spec: &Value, is: impl Fn(&Value) -> bool) -> Option<String> {
    let pod = is(&spec["securityContext"]).then(|| "pod".to_owned());
    let containers = named(spec, |container| is(&container["securityContext"]));
    match (pod, containers) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one),
        (Some(pod), Some(containers)) => Some(format!("{pod} and {containers}")),
    }
}

/// The rules that a pod breaks, in words.
fn broken(level: Level, metadata: &Value, spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    baseline(metadata, spec, &mut found);
    if level == Level::Restricted {
        restricted(spec, &mut found);
    }
    found
}

fn baseline(metadata: &Value, spec: &Value, found: &mut Vec<String>) {
    let is_true = |value: &Value| value.as_bool() == Some(true);
    let mut say = |what: &str, who: Option<String>, must: &str| {
        found.extend(who.map(|who| format!("{what} ({who} {must})")));
    };
    let host: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| is_true(&spec[*field]))
        .map(|field| format!("{field}=true"))
        .collect();
    if !host.is_empty() {
        say("host namespaces", Some(host.join(", ")), "must not be set");
    }
    let windows = |context: &Value| is_true(&context["windowsOptions"]["hostProcess"]);
    say("hostProcess", anywhere(spec, windows), "must not set securityContext.windowsOptions.hostProcess=true");
    let privileged = named(spec, |container| is_true(&container["securityContext"]["privileged"]));
    say("privileged", privileged, "must not set securityContext.privileged=true");
    let adds = |container: &Value| {
        let added: Vec<&Value> = entries(&container["securityContext"]["capabilities"]["add"]).collect();
        added.iter().any(|name| !name.as_str().is_some_and(|name| CAPABILITIES.contains(&name)))
    };
    say("non-default capabilities", named(spec, adds), "must not add more to securityContext.capabilities.add");
    let paths: Vec<String> = entries(&spec["volumes"])
        .filter(|volume| !volume["hostPath"].is_null())
        .map(|volume| format!("volume {}", volume["name"]))
        .collect();
    if !paths.is_empty() {
        say("hostPath volumes", Some(paths.join(", ")), "must not be used");
    }
    let ports =
        |container: &Value| entries(&container["ports"]).any(|port| port["hostPort"].as_i64().unwrap_or(0) != 0);
    say("hostPort", named(spec, ports), "must not use a hostPort");
    let elsewhere = |handler: &Value| {
        ["httpGet", "tcpSocket"].iter().any(|kind| handler[kind]["host"].as_str().is_some_and(|host| !host.is_empty()))
    };
    let hosts = |container: &Value| {
        let probes =
            ["livenessProbe", "readinessProbe", "startupProbe"].iter().any(|probe| elsewhere(&container[probe]));
        probes || ["postStart", "preStop"].iter().any(|moment| elsewhere(&container["lifecycle"][moment]))
    };
    say("probe or lifecycle host", named(spec, hosts), "must not set the host of a probe or lifecycle handler");
    let armor = |context: &Value| context["appArmorProfile"]["type"] == "Unconfined";
    say("forbidden AppArmor profile", anywhere(spec, armor), "must not set AppArmor profile type to \"Unconfined\"");
    let annotated: Vec<String> = metadata["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter(|(_, value)| {
            let text = value.as_str().unwrap_or_default();
            text != "runtime/default" && !text.starts_with("localhost/")
        })
        .map(|(key, _)| format!("annotation {key}"))
        .collect();
    if !annotated.is_empty() {
        say("forbidden AppArmor profiles", Some(annotated.join(", ")), "must be runtime/default or localhost/*");
    }
    let selinux = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let text = |field: &str| options[field].as_str().unwrap_or_default().to_owned();
        !SELINUX_TYPES.contains(&text("type").as_str()) || !text("user").is_empty() || !text("role").is_empty()
    };
    say("seLinuxOptions", anywhere(spec, selinux), "set forbidden securityContext.seLinuxOptions");
    let proc =
        |container: &Value| container["securityContext"]["procMount"].as_str().is_some_and(|mount| mount != "Default");
    say("procMount", named(spec, proc), "must not set securityContext.procMount");
    let seccomp = |context: &Value| context["seccompProfile"]["type"] == "Unconfined";
    say(
        "seccompProfile",
        anywhere(spec, seccomp),
        "must not set securityContext.seccompProfile.type to \"Unconfined\"",
    );
    let sysctls: Vec<&str> = entries(&spec["securityContext"]["sysctls"])
        .filter_map(|sysctl| sysctl["name"].as_str())
        .filter(|name| !SYSCTLS.contains(name))
        .collect();
    if !sysctls.is_empty() {
        say("forbidden sysctls", Some(sysctls.join(", ")), "must not be set");
    }
}

fn restricted(spec: &Value, found: &mut Vec<String>) {
    let mut say = |what: &str, who: Option<String>, must: &str| {
        found.extend(who.map(|who| format!("{what} ({who} {must})")));
    };
    let is_windows = spec["os"]["name"] == "windows";
    let volumes: Vec<String> = entries(&spec["volumes"])
        .filter(|volume| {
            let mut sources = volume.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
            sources.any(|field| field != "name" && !VOLUMES.contains(&field))
        })
        .map(|volume| format!("volume {}", volume["name"]))
        .collect();
    if !volumes.is_empty() {
        say("restricted volume types", Some(volumes.join(", ")), "uses a type that is not allowed");
    }
    let context = |container: &Value, field: &str| container["securityContext"][field].clone();
    let of_pod = |field: &str| spec["securityContext"][field].clone();
    if !is_windows {
        let escalates = |container: &Value| context(container, "allowPrivilegeEscalation") != Value::Bool(false);
        let must = "must set securityContext.allowPrivilegeEscalation=false";
        say("allowPrivilegeEscalation != false", named(spec, escalates), must);
        let capable = |container: &Value| {
            let capabilities = context(container, "capabilities");
            let drops = entries(&capabilities["drop"]).any(|name| name == "ALL");
            let adds = entries(&capabilities["add"]).any(|name| name != "NET_BIND_SERVICE");
            !drops || adds
        };
        let must = "must set securityContext.capabilities.drop=[\"ALL\"] and add NET_BIND_SERVICE at most";
        say("unrestricted capabilities", named(spec, capable), must);
    }
    let as_root = |container: &Value| match context(container, "runAsNonRoot").as_bool() {
        Some(non_root) => !non_root,
        None => of_pod("runAsNonRoot").as_bool() != Some(true),
    };
    say("runAsNonRoot != true", named(spec, as_root), "or the pod must set securityContext.runAsNonRoot=true");
    let root = |context: &Value| context["runAsUser"].as_i64() == Some(0);
    say("runAsUser=0", anywhere(spec, root), "must not set runAsUser=0");
    if !is_windows {
        let is_good = |profile: &Value| profile["type"] == "RuntimeDefault" || profile["type"] == "Localhost";
        let unconfined = |container: &Value| match context(container, "seccompProfile") {
            Value::Null => !is_good(&of_pod("seccompProfile")),
            profile => !is_good(&profile),
        };
        let must = "or the pod must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
        say("seccompProfile", named(spec, unconfined), must);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A pod that `restricted` allows.
    fn good() -> Value {
        json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext":
                {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        })
    }

    fn codes(level: Level, spec: &Value) -> Vec<String> {
        let found = broken(level, &Value::Null, spec);
        found.iter().map(|text| text.split(" (").next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_careful_pod_passes_and_a_plain_one_is_told_four_things() {
        assert_eq!(codes(Level::Restricted, &good()), Vec::<String>::new());
        let plain = json!({"containers": [{"name": "c"}]});
        assert_eq!(codes(Level::Baseline, &plain), Vec::<String>::new());
        let told = [
            "allowPrivilegeEscalation != false",
            "unrestricted capabilities",
            "runAsNonRoot != true",
            "seccompProfile",
        ];
        assert_eq!(codes(Level::Restricted, &plain), told);
    }

    #[test]
    fn each_rule_of_baseline() {
        for (pointer, value, rule) in [
            ("/hostNetwork", json!(true), "host namespaces"),
            ("/hostPID", json!(true), "host namespaces"),
            ("/containers/0/securityContext/privileged", json!(true), "privileged"),
            ("/containers/0/securityContext/capabilities/add", json!(["SYS_ADMIN"]), "non-default capabilities"),
            ("/volumes/0/hostPath", json!({"path": "/"}), "hostPath volumes"),
            ("/containers/0/ports", json!([{"hostPort": 80}]), "hostPort"),
            ("/containers/0/livenessProbe", json!({"httpGet": {"host": "other"}}), "probe or lifecycle host"),
            ("/securityContext/appArmorProfile", json!({"type": "Unconfined"}), "forbidden AppArmor profile"),
            ("/securityContext/seLinuxOptions", json!({"type": "spc_t"}), "seLinuxOptions"),
            ("/containers/0/securityContext/procMount", json!("Unmasked"), "procMount"),
            ("/containers/0/securityContext/seccompProfile", json!({"type": "Unconfined"}), "seccompProfile"),
            ("/securityContext/sysctls", json!([{"name": "kernel.msgmax", "value": "1"}]), "forbidden sysctls"),
            ("/containers/0/securityContext/windowsOptions", json!({"hostProcess": true}), "hostProcess"),
        ] {
            let mut spec = good();
            let (parent, field) = pointer.rsplit_once('/').expect("a path");
            spec.pointer_mut(parent).expect("it is there")[field] = value;
            assert_eq!(codes(Level::Baseline, &spec), [rule], "{pointer}");
        }
    }

    #[test]
    fn each_rule_of_restricted() {
        for (pointer, value, rule) in [
            ("/volumes/0", json!({"name": "v", "nfs": {}}), "restricted volume types"),
            ("/containers/0/securityContext/runAsNonRoot", json!(false), "runAsNonRoot != true"),
            ("/securityContext/runAsUser", json!(0), "runAsUser=0"),
            ("/containers/0/securityContext/capabilities/add", json!(["CHOWN"]), "unrestricted capabilities"),
            (
                "/containers/0/securityContext/allowPrivilegeEscalation",
                json!(true),
                "allowPrivilegeEscalation != false",
            ),
        ] {
            let mut spec = good();
            *spec.pointer_mut(pointer).unwrap_or(&mut Value::Null) = value.clone();
            if spec.pointer(pointer) != Some(&value) {
                let (parent, field) = pointer.rsplit_once('/').expect("a path");
                spec.pointer_mut(parent).expect("it is there")[field] = value;
            }
            assert_eq!(codes(Level::Baseline, &spec), Vec::<String>::new(), "{pointer}");
            assert_eq!(codes(Level::Restricted, &spec), [rule], "{pointer}");
        }
    }

    #[test]
    fn labels_name_levels() {
        let of = |key: &str, value: &str| {
            namespace(&json!({"metadata": {"labels": {format!("{PREFIX}{key}"): value}}})).len()
        };
        for (key, value, faults) in [
            ("enforce", "restricted", 0),
            ("enforce", "strict", 1),
            ("warn-version", "v1.30", 0),
            ("warn-version", "latest", 0),
            ("audit-version", "1.30", 1),
        ] {
            assert_eq!(of(key, value), faults, "{key}={value}");
        }
    }
}
