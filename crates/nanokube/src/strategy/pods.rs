//! Pods: service account, priority, tolerations, quality of service.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::registry::resource_key;
use crate::status::ApiError;
use crate::store::Name;
use crate::verbs::{Target, metadata_text};

/// Where a container finds its service account's token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a projected token lives; the odd seven seconds mark tokens that were mounted without being asked for.
const TOKEN_SECONDS: i64 = 3607;
/// How long a pod stays on a node that is gone, unless it says otherwise.
const TOLERATION_SECONDS: i64 = 300;

pub(super) fn create(target: &Target<'_>, pod: &mut Value) -> Result<(), ApiError> {
    account(target, pod)?;
    priority(target, pod)?;
    tolerations(pod);
    runtime(target, pod)?;
    let qos = quality(pod);
    pod["status"] = json!({"phase": "Pending", "qosClass": qos});
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": null,
        }]);
    }
    Ok(())
}

/// A write that does not repeat the node keeps it; the quality of service never changes.
pub(super) fn update(old: &Value, pod: &mut Value) {
    if pod["spec"]["nodeName"].is_null() && !old["spec"]["nodeName"].is_null() {
        pod["spec"]["nodeName"] = old["spec"]["nodeName"].clone();
    }
}

/// The account `default` comes from a controller a moment after its namespace: a pod that needs it waits this long, as on
/// a real server.
const ACCOUNT_PATIENCE: Duration = Duration::from_millis(1500);
/// How often it looks meanwhile.
const ACCOUNT_LOOK: Duration = Duration::from_millis(100);

/// Waits for the account that every namespace gets.
pub(super) async fn await_account(target: &Target<'_>, pod: &Value) {
    let named = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if !matches!(named, "" | "default") {
        return;
    }
    let (key, place) = (resource_key("", "serviceaccounts"), Name::new(&target.path.namespace, "default"));
    let until = Instant::now() + ACCOUNT_PATIENCE;
    while target.core.store.get(&key, &place).is_none() && Instant::now() < until {
        tokio::time::sleep(ACCOUNT_LOOK).await;
    }
}

fn account(target: &Target<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let spec = &mut pod["spec"];
    let named = spec["serviceAccountName"].as_str().or(spec["serviceAccount"].as_str()).unwrap_or_default().to_owned();
    let name = if named.is_empty() { "default".to_owned() } else { named };
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
    let namespace = target.path.namespace.clone();
    let found = target.core.store.get(&resource_key("", "serviceaccounts"), &Name::new(&namespace, &name));
    if found.is_none() {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        return Err(ApiError::forbidden(target.about(metadata_text(pod, "name")), &why));
    }
    let account = found.map(|stored| stored.value.clone()).unwrap_or_default();
    let spec = &mut pod["spec"];
    if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty) && account["imagePullSecrets"].is_array() {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let mount = spec["automountServiceAccountToken"].as_bool().or(account["automountServiceAccountToken"].as_bool());
    if mount.unwrap_or(true) {
        mount_token(spec, &target.core.suffix());
    }
    Ok(())
}

fn mount_token(spec: &mut Value, suffix: &str) {
    let volume = format!("kube-api-access-{suffix}");
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == TOKEN_DIR) {
                continue;
            }
            let mut mounts = mounts;
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_DIR}));
            container["volumeMounts"] = json!(mounts);
            used = true;
        }
    }
    if !used {
        return;
    }
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    volumes.push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}}));
    spec["volumes"] = json!(volumes);
}

fn priority(target: &Target<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let key = resource_key("scheduling.k8s.io", "priorityclasses");
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let (value, policy, class) = match name.as_str() {
        "" => {
            let classes = target.core.store.list_kept(&key);
            match classes.iter().find(|class| class.value["globalDefault"] == true) {
                Some(class) => (
                    class.value["value"].clone(),
                    class.value["preemptionPolicy"].clone(),
                    metadata_text(&class.value, "name").to_owned(),
                ),
                None => (json!(0), Value::Null, String::new()),
            }
        }
        name => match target.core.store.get(&key, &Name::new("", name)) {
            Some(class) => (class.value["value"].clone(), class.value["preemptionPolicy"].clone(), name.to_owned()),
            None => {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(ApiError::forbidden(target.about(metadata_text(pod, "name")), &why));
            }
        },
    };
    let refuse = |field: &str, asked: &Value, class: &Value| {
        let why = format!("{field} is {asked}, but the priority class says {class}; it is no field to be set by hand");
        Err(ApiError::forbidden(target.about(metadata_text(pod, "name")), &why))
    };
    let asked = &pod["spec"]["priority"];
    if !asked.is_null() && *asked != value {
        return refuse("priority", asked, &value);
    }
    let asked = &pod["spec"]["preemptionPolicy"];
    let meant = policy.as_str().unwrap_or("PreemptLowerPriority");
    if !asked.is_null() && *asked != meant {
        return refuse("preemptionPolicy", asked, &json!(meant));
    }
    let spec = &mut pod["spec"];
    spec["priority"] = value;
    if !class.is_empty() {
        spec["priorityClassName"] = json!(class);
    }
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = policy.as_str().map_or(json!("PreemptLowerPriority"), |policy| json!(policy));
    }
    Ok(())
}

/// Of all classes at most one is for pods that name none.
pub(super) fn one_default_class(target: &Target<'_>, class: &Value) -> Result<(), ApiError> {
    if class["globalDefault"] != true {
        return Ok(());
    }
    let name = metadata_text(class, "name");
    let classes = target.core.store.objects(&resource_key("scheduling.k8s.io", "priorityclasses"), "");
    let other = classes
        .iter()
        .map(|class| &class.value)
        .find(|other| other["globalDefault"] == true && metadata_text(other, "name") != name);
    other.map_or(Ok(()), |other| {
        let why =
            format!("PriorityClass {} is the default already, and there is only one", metadata_text(other, "name"));
        Err(ApiError::forbidden(target.about(name), &why))
    })
}

/// What the class of a pod's runtime adds: what it costs, and where it can be had.
fn runtime(target: &Target<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let asked = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    let pod_name = metadata_text(pod, "name").to_owned();
    let refuse = |why: &str| ApiError::forbidden(target.about(&pod_name), why);
    if asked.is_empty() {
        return if pod["spec"]["overhead"].as_object().is_some_and(|overhead| !overhead.is_empty()) {
            Err(refuse("pod rejected: overhead set without a corresponding RuntimeClass"))
        } else {
            Ok(())
        };
    }
    let key = resource_key("node.k8s.io", "runtimeclasses");
    let Some(class) = target.core.store.get(&key, &Name::new("", &asked)) else {
        return Err(refuse(&format!("pod rejected: RuntimeClass \"{asked}\" not found")));
    };
    let class = &class.value;
    let overhead = &class["overhead"]["podFixed"];
    if !overhead.is_null() {
        if !pod["spec"]["overhead"].is_null() && pod["spec"]["overhead"] != *overhead {
            return Err(refuse("pod rejected: overhead differs from that of its RuntimeClass"));
        }
        pod["spec"]["overhead"] = overhead.clone();
    }
    for (label, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let selector = &mut pod["spec"]["nodeSelector"];
        if selector[label].is_null() {
            if !selector.is_object() {
                *selector = json!({});
            }
            selector[label] = value.clone();
        } else if selector[label] != *value {
            return Err(refuse(&format!("pod rejected: its RuntimeClass asks for nodes with another {label}")));
        }
    }
    let more = class["scheduling"]["tolerations"].as_array().cloned().unwrap_or_default();
    let mut list = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let new: Vec<Value> = more.into_iter().filter(|toleration| !list.contains(toleration)).collect();
    list.extend(new);
    pod["spec"]["tolerations"] = json!(list);
    Ok(())
}

fn tolerations(pod: &mut Value) {
    let spec = &mut pod["spec"];
    let mut list = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = list.iter().any(|toleration| {
            let same_key = toleration["key"] == key || toleration["key"].as_str().unwrap_or_default().is_empty();
            let effect = toleration["effect"].as_str().unwrap_or_default();
            same_key && matches!(effect, "" | "NoExecute")
        });
        if !covered {
            list.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
    spec["tolerations"] = json!(list);
}

/// Guaranteed: every container limits cpu and memory and requests as much. BestEffort: nobody asks for anything.
fn quality(pod: &Value) -> &'static str {
    let containers =
        ["initContainers", "containers"].iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    let mut any = false;
    let mut all_guaranteed = true;
    for container in containers {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let (request, limit) = (&resources["requests"][name], &resources["limits"][name]);
            any |= !request.is_null() || !limit.is_null();
            all_guaranteed &= !limit.is_null() && (request.is_null() || request == limit);
        }
    }
    match (any, all_guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
