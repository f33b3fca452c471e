//! A container's environment and command line. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret,
};
use nanokube_controllers::milli;

/// Where values come from.
pub(crate) trait Sources {
    /// A Secret of the pod's namespace.
    fn secret(&self, name: &str) -> Option<Secret>;
    /// A ConfigMap of the pod's namespace.
    fn config_map(&self, name: &str) -> Option<ConfigMap>;
}

/// Why a container cannot be configured; the text is what its state shows.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("secret {0:?} not found")]
    Secret(String),
    #[error("configmap {0:?} not found")]
    ConfigMap(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key { kind: &'static str, namespace: String, name: String, key: String },
    #[error("fieldPath {0:?} is not supported by simulated nodes")]
    Field(String),
    #[error("resource {0:?} is not supported by simulated nodes")]
    Resource(String),
}

/// What a field of the pod says.
pub(crate) fn field(pod: &Pod, selector: &ObjectFieldSelector) -> Result<String, Missing> {
    let path = selector.field_path.as_str();
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let in_map = |map: &Option<BTreeMap<String, String>>, prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.as_ref().and_then(|map| map.get(key).cloned()).unwrap_or_default())
    };
    let lines = |map: &Option<BTreeMap<String, String>>| {
        let lines = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    Ok(match path {
        "metadata.name" => pod.metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => pod.metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => pod.metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(&pod.metadata.labels),
        "metadata.annotations" => lines(&pod.metadata.annotations),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => status.and_then(|status| status.host_ip.clone()).unwrap_or_default(),
        "status.podIP" => status.and_then(|status| status.pod_ip.clone()).unwrap_or_default(),
        "status.hostIPs" => {
            let ips = status.and_then(|status| status.host_ips.clone()).unwrap_or_default();
            ips.into_iter().map(|ip| ip.ip).collect::<Vec<_>>().join(",")
        }
        "status.podIPs" => {
            let ips = status.and_then(|status| status.pod_ips.clone()).unwrap_or_default();
            ips.into_iter().map(|ip| ip.ip).collect::<Vec<_>>().join(",")
        }
        _ => in_map(&pod.metadata.labels, "metadata.labels")
            .or_else(|| in_map(&pod.metadata.annotations, "metadata.annotations"))
            .ok_or_else(|| Missing::Field(path.to_owned()))?,
    })
}

/// A resource of a container, in units of the divisor, rounded up.
fn resource(pod: &Pod, own: &Container, selector: &ResourceFieldSelector) -> Result<String, Missing> {
    let unknown = || Missing::Resource(selector.resource.clone());
    let (part, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let container = match &selector.container_name {
        Some(other) => pod.spec.iter().flat_map(|spec| &spec.containers).find(|c| &c.name == other).unwrap_or(own),
        None => own,
    };
    let resources = container.resources.clone().unwrap_or_default();
    let amounts = match part {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => return Err(unknown()),
    };
    let amount = amounts.as_ref().and_then(|amounts| amounts.get(name)).map_or(0, milli);
    let divisor = selector.divisor.as_ref().map(milli).filter(|divisor| *divisor > 0).unwrap_or(1_000);
    Ok(((amount + divisor - 1) / divisor).to_string())
}

fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &dyn Sources,
) -> Result<Option<String>, Missing> {
    let namespace = || pod.metadata.namespace.clone().unwrap_or_default();
    if let Some(selector) = &source.field_ref {
        return field(pod, selector).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return resource(pod, container, selector).map(Some);
    }
    if let Some(wanted) = &source.secret_key_ref {
        let optional = wanted.optional == Some(true);
        let Some(secret) = sources.secret(&wanted.name) else {
            return if optional { Ok(None) } else { Err(Missing::Secret(wanted.name.clone())) };
        };
        let value = secret.data.as_ref().and_then(|data| data.get(&wanted.key));
        return match value {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(Missing::Key {
                kind: "Secret",
                namespace: namespace(),
                name: wanted.name.clone(),
                key: wanted.key.clone(),
            }),
        };
    }
    if let Some(wanted) = &source.config_map_key_ref {
        let optional = wanted.optional == Some(true);
        let Some(map) = sources.config_map(&wanted.name) else {
            return if optional { Ok(None) } else { Err(Missing::ConfigMap(wanted.name.clone())) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&wanted.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(Missing::Key {
                kind: "ConfigMap",
                namespace: namespace(),
                name: wanted.name.clone(),
                key: wanted.key.clone(),
            }),
        };
    }
    Ok(None)
}

/// A container's environment.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    sources: &dyn Sources,
) -> Result<BTreeMap<String, String>, Missing> {
    let mut env = BTreeMap::from([("HOSTNAME".to_owned(), pod.metadata.name.clone().unwrap_or_default())]);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        if let Some(wanted) = &from.config_map_ref {
            match sources.config_map(&wanted.name) {
                Some(map) => env.extend(
                    map.data.unwrap_or_default().into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)),
                ),
                None if wanted.optional == Some(true) => {}
                None => return Err(Missing::ConfigMap(wanted.name.clone())),
            }
        }
        if let Some(wanted) = &from.secret_ref {
            match sources.secret(&wanted.name) {
                Some(secret) => {
                    env.extend(secret.data.unwrap_or_default().into_iter().map(|(key, value)| {
                        (format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned())
                    }));
                }
                None if wanted.optional == Some(true) => {}
                None => return Err(Missing::Secret(wanted.name.clone())),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &env)),
            (_, Some(source)) => value_from(pod, container, source, sources)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env)
}

/// A container's command line, the program's name first.
pub(crate) fn command_line(container: &Container, env: &BTreeMap<String, String>) -> Vec<String> {
    let image = container.image.as_deref().unwrap_or_default();
    let mut line: Vec<String> = match container.command.as_deref() {
        Some(command) if !command.is_empty() => command.to_vec(),
        // The image's own entry point is unknown; its name stands in for it.
        _ => vec![entry_point(image).to_owned()],
    };
    line.extend(container.args.iter().flatten().cloned());
    line.iter().map(|part| expand(part, env)).collect()
}

/// The last part of an image's name, without tag and digest.
fn entry_point(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    name.split(':').next().unwrap_or_default()
}

/// Replaces `$(NAME)` by its value; an unknown name stays as written, and `$$` stands for one `$`.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('(')
            && let Some(end) = inner.find(')')
        {
            let name = &inner[..end];
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = &inner[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl Sources for Nothing {
        fn secret(&self, _: &str) -> Option<Secret> {
            None
        }
        fn config_map(&self, _: &str) -> Option<ConfigMap> {
            None
        }
    }

    fn pod(text: serde_json::Value) -> (Pod, Container) {
        let pod: Pod = serde_json::from_value(text).expect("a pod");
        let container = pod.spec.as_ref().expect("a spec").containers[0].clone();
        (pod, container)
    }

    #[test]
    fn downward_fields_and_expansion() {
        let (pod, container) = pod(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a/b": "c"}},
            "spec": {"nodeName": "node01", "containers": [{
                "name": "c", "image": "localhost:5000/x/virt-handler:v1", "args": ["--node", "$(NODE)", "$(NO)", "$$(NODE)", "$"],
                "env": [
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
                    {"name": "BOTH", "value": "$(NODE)-$(LABEL)"},
                ]}]}
        }));
        let env = environment(&pod, &container, &Nothing).expect("all there");
        assert_eq!(env["BOTH"], "node01-c");
        assert_eq!(command_line(&container, &env), ["virt-handler", "--node", "node01", "$(NO)", "$(NODE)", "$"]);
    }

    #[test]
    fn a_missing_secret_is_named() {
        let (pod, container) = pod(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}
        }));
        let missing = environment(&pod, &container, &Nothing).expect_err("no such secret");
        assert_eq!(missing.to_string(), r#"secret "s" not found"#);
    }
}
