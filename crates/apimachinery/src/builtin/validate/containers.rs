//! Rules of containers: of those that run, of those that run first, and of those that are put in for a look.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::at::{At, Found};
use super::volumes::{self, Volumes};
use crate::names;

const PULL: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOKS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// What a pod can tell about itself in a variable.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What a pod can tell about itself in a file.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that have a name although nobody may ask for them here.
const OTHER_FIELDS: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];
const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Seconds of grace are a signed 32-bit number.
const LONGEST_GRACE: i64 = i32::MAX as i64;

/// The containers and then the init containers; a name is used once among both.
pub(super) fn all(spec: &At<'_>, volumes: &Volumes<'_>, found: &mut Found) {
    let containers = spec.get("containers");
    let grace = spec.get("terminationGracePeriodSeconds").number().unwrap_or(30);
    if containers.empty() {
        containers.required("", found);
    }
    let mut names = BTreeSet::new();
    for container in containers.items() {
        common(&container, volumes, found);
        unique_name(&container, &mut names, found);
        lifecycle(&container, grace, found);
        for name in PROBES {
            probe(&container.get(name), name, found);
        }
    }
    host_ports_once(&containers, found);
    for container in spec.get("initContainers").items() {
        common(&container, volumes, found);
        unique_name(&container, &mut names, found);
        let restart = container.get("restartPolicy");
        if restart.text() == "Always" {
            lifecycle(&container, grace, found);
            for name in PROBES {
                probe(&container.get(name), name, found);
            }
            continue;
        }
        restart.one_of(&["Always", "Never", "OnFailure"], found);
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            let given = container.get(name);
            if given.given() {
                given.forbidden("may not be set for init containers without restartPolicy=Always", found);
            }
        }
    }
    for container in spec.get("ephemeralContainers").items() {
        common(&container, volumes, found);
        unique_name(&container, &mut names, found);
        let target = container.get("targetContainerName");
        let known = |list: &str| spec.get(list).items().any(|c| c.get("name").text() == target.text());
        if !target.empty() && !known("containers") && !known("initContainers") {
            target.not_found(found);
        }
        for name in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"] {
            let given = container.get(name);
            if !given.empty() {
                given.forbidden("cannot be set for an ephemeral container", found);
            }
        }
        for mount in container.get("volumeMounts").items() {
            for name in ["subPath", "subPathExpr"] {
                let given = mount.get(name);
                if !given.empty() {
                    given.forbidden("cannot be set for an ephemeral container", found);
                }
            }
        }
    }
}

fn unique_name<'a>(container: &At<'a>, names: &mut BTreeSet<&'a str>, found: &mut Found) {
    let name = container.get("name");
    if !name.empty() && !names.insert(name.text()) {
        name.duplicate(found);
    }
}

fn common(c: &At<'_>, volumes: &Volumes<'_>, found: &mut Found) {
    c.get("name").must_be_named(names::dns_label, found);
    let image = c.get("image");
    if image.empty() {
        image.required("", found);
    } else if image.text().trim() != image.text() {
        image.invalid("must not have leading or trailing whitespace", found);
    }
    c.get("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"], found);
    ports(&c.get("ports"), found);
    env(&c.get("env"), found);
    env_from(&c.get("envFrom"), found);
    volumes::mounts(c, volumes, found);
    c.get("imagePullPolicy").one_of(&PULL, found);
    super::resources::requirements(&c.get("resources"), found);
    for policy in c.get("resizePolicy").items() {
        policy.get("resourceName").one_of(&["cpu", "memory"], found);
        policy.get("restartPolicy").one_of(&["NotRequired", "RestartContainer"], found);
    }
    security(&c.get("securityContext"), found);
}

/// Of a container's security: what belongs together.
fn security(at: &At<'_>, found: &mut Found) {
    at.get("runAsUser").id(found);
    at.get("runAsGroup").id(found);
    at.get("procMount").one_of(&["Default", "Unmasked"], found);
    kernel_profile(&at.get("seccompProfile"), found);
    if at.get("allowPrivilegeEscalation").value == false {
        if at.get("privileged").value == true {
            at.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true", found);
        }
        if at.get("capabilities").get("add").items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
            at.invalid("cannot set `allowPrivilegeEscalation` to false and add CAP_SYS_ADMIN", found);
        }
    }
    kernel_profile(&at.get("appArmorProfile"), found);
}

/// A profile of the kernel: the runtime's, none, or one that lies on the node.
pub(super) fn kernel_profile(at: &At<'_>, found: &mut Found) {
    if !at.given() {
        return;
    }
    let (kind, local) = (at.get("type"), at.get("localhostProfile"));
    match kind.text() {
        "Localhost" if local.empty() => local.required("must be set when the type is Localhost", found),
        "Localhost" => {}
        "RuntimeDefault" | "Unconfined" if local.given() => {
            local.invalid("can only be set when the type is Localhost", found);
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => kind.required("type is required when a profile is set", found),
        _ => kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"], found),
    }
}

fn ports(at: &At<'_>, found: &mut Found) {
    let mut names = BTreeSet::new();
    for port in at.items() {
        let (name, number, host) = (port.get("name"), port.get("containerPort"), port.get("hostPort"));
        if !name.empty() {
            let wrong = names::port_name(name.text());
            for why in &wrong {
                name.invalid(why, found);
            }
            if wrong.is_empty() && !names.insert(name.text()) {
                name.duplicate(found);
            }
        }
        match number.number() {
            None | Some(0) => number.required("", found),
            Some(_) => number.port(found),
        }
        if host.given() {
            host.port(found);
        }
        port.get("protocol").must_be_one_of(&PROTOCOLS, found);
    }
}

/// A port of the node is used once.
fn host_ports_once(containers: &At<'_>, found: &mut Found) {
    let mut seen = BTreeSet::new();
    for port in containers.items().flat_map(|container| container.get("ports").items()) {
        let host = port.get("hostPort");
        let Some(number) = host.number().filter(|number| *number != 0) else { continue };
        let known = format!("{}/{}/{number}", port.get("protocol").text(), port.get("hostIP").text());
        if !seen.insert(known.clone()) {
            host.duplicate_as(&json!(known), found);
        }
    }
}

/// A pod of the node's network has the ports of its containers.
pub(super) fn host_network_ports(spec: &At<'_>, found: &mut Found) {
    if spec.get("hostNetwork").value != true {
        return;
    }
    for list in ["containers", "initContainers"] {
        for port in spec.get(list).items().flat_map(|container| container.get("ports").items()) {
            let (inside, outside) = (port.get("containerPort"), port.get("hostPort"));
            if outside.number().is_some_and(|number| number != 0) && inside.value != outside.value {
                inside.invalid("must match `hostPort` when `hostNetwork` is true", found);
            }
        }
    }
}

fn variable_name(at: &At<'_>, found: &mut Found) {
    if at.text().contains('=') || !at.text().bytes().all(|b| (b' '..=b'~').contains(&b)) {
        at.invalid("must be printable characters without '='", found);
    }
}

fn env(at: &At<'_>, found: &mut Found) {
    for variable in at.items() {
        let (name, from) = (variable.get("name"), variable.get("valueFrom"));
        if name.empty() {
            name.required("", found);
        } else {
            variable_name(&name, found);
        }
        if !from.given() {
            continue;
        }
        let mut count = 0;
        for source in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
            let given = from.get(source);
            if !given.given() {
                continue;
            }
            count += 1;
            match source {
                "fieldRef" => field_ref(&given, &ENV_FIELDS, found),
                "resourceFieldRef" => resource_field(&given, false, found),
                "configMapKeyRef" | "secretKeyRef" => volumes::key_of(&given, found),
                _ => {}
            }
        }
        if count == 0 {
            from.invalid_as(&json!(""), "must specify one source of the value", found);
        } else if !variable.get("value").empty() {
            from.invalid_as(&json!(""), "may not be specified when `value` is not empty", found);
        } else if count > 1 {
            from.invalid_as(&json!(""), "may not have more than one field specified at a time", found);
        }
    }
}

fn env_from(at: &At<'_>, found: &mut Found) {
    for source in at.items() {
        variable_name(&source.get("prefix"), found);
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            let given = source.get(kind);
            if given.given() {
                count += 1;
                given.get("name").must_be_given(found);
            }
        }
        if count == 0 {
            at.invalid_as(&json!(""), "must specify one of: `configMapRef` or `secretRef`", found);
        } else if count > 1 {
            at.invalid_as(&json!(""), "may not have more than one field specified at a time", found);
        }
    }
}

/// A field of the pod, of which only some may be asked for.
pub(super) fn field_ref(at: &At<'_>, allowed: &[&str], found: &mut Found) {
    let path = at.get("fieldPath");
    if path.empty() {
        path.required("", found);
        return;
    }
    let asked = path.text();
    if let Some((map, key)) = asked.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        if !matches!(map, "metadata.annotations" | "metadata.labels") {
            path.invalid("has no entries", found);
            return;
        }
        for why in names::label_key(&key.to_lowercase()) {
            at.invalid_as(&json!(key), &why, found);
        }
        return;
    }
    if allowed.contains(&asked) {
        return;
    }
    let known = |list: &[&str]| list.contains(&asked);
    if known(&ENV_FIELDS) || known(&VOLUME_FIELDS) || known(&OTHER_FIELDS) {
        path.not_supported(allowed, found);
    } else {
        path.invalid("is no field of a pod that can be asked for", found);
    }
}

/// A resource of a container, counted in a unit.
pub(super) fn resource_field(at: &At<'_>, in_volume: bool, found: &mut Found) {
    let resource = at.get("resource");
    if in_volume && at.get("containerName").empty() {
        at.get("containerName").required("", found);
    } else if resource.empty() {
        resource.required("", found);
    } else if !RESOURCE_FIELDS.contains(&resource.text())
        && !["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.text().starts_with(prefix))
    {
        resource.not_supported(&RESOURCE_FIELDS, found);
    }
}

fn probe(at: &At<'_>, name: &str, found: &mut Found) {
    if !at.given() {
        return;
    }
    handler(at, &HANDLERS, 0, found);
    for count in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        at.get(count).not_negative(found);
    }
    let grace = at.get("terminationGracePeriodSeconds");
    grace.positive(found);
    if name == "readinessProbe" {
        if grace.given() {
            grace.invalid("must not be set for readinessProbes", found);
        }
    } else if at.get("successThreshold").number().is_some_and(|n| n != 1) {
        at.get("successThreshold").invalid("must be 1", found);
    }
}

fn lifecycle(container: &At<'_>, grace: i64, found: &mut Found) {
    for name in ["postStart", "preStop"] {
        let hook = container.get("lifecycle").get(name);
        if hook.given() {
            handler(&hook, &HOOKS, grace, found);
        }
    }
}

/// Exactly one way to ask.
fn handler(at: &At<'_>, known: &[&str], grace: i64, found: &mut Found) {
    let mut count = 0;
    for name in known {
        let one = at.get(name);
        if !one.given() {
            continue;
        }
        count += 1;
        if count > 1 {
            one.forbidden("may not specify more than 1 handler type", found);
            continue;
        }
        match *name {
            "exec" => one.get("command").must_be_given(found),
            "httpGet" => {
                one.get("path").must_be_given(found);
                one.get("port").port_or_name(found);
                one.get("scheme").must_be_one_of(&["HTTP", "HTTPS"], found);
                for header in one.get("httpHeaders").items() {
                    header_name(&header, found);
                }
            }
            "sleep" => {
                let seconds = one.get("seconds");
                let longest = grace.clamp(0, LONGEST_GRACE);
                if seconds.number().is_some_and(|n| n < 0 || n > longest) {
                    let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({longest})");
                    seconds.invalid(&why, found);
                }
            }
            _ => one.get("port").port_or_name(found),
        }
    }
    if count == 0 {
        at.required("must specify a handler type", found);
    }
}

fn header_name(header: &At<'_>, found: &mut Found) {
    let name = header.get("name").text();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        header.invalid_as(&Value::from(name), "a header's name is letters, digits and '-'", found);
    }
}
