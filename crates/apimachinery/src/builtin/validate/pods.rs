//! Rules of pods and pod templates.

use serde_json::{Value, json};

use super::at::{At, Found};
use super::{containers, resources, selectors, volumes};
use crate::names;

const RESTART: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
/// Resolvers know no more name servers than this.
const NAME_SERVERS_MAX: usize = 3;
/// Nor more search domains.
const SEARCHES_MAX: usize = 32;
/// Seconds are signed 32-bit numbers.
const SECONDS_MAX: i64 = i32::MAX as i64;

pub(super) fn pod(new: &Value, found: &mut Found) {
    spec(&At::root(new).get("spec"), found);
}

/// What only a pod that is new must not have.
pub(super) fn created(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    if !spec.get("ephemeralContainers").empty() {
        spec.get("ephemeralContainers").forbidden("cannot be set on create", found);
    }
    if !spec.get("nodeName").empty() && !spec.get("schedulingGates").empty() {
        spec.get("nodeName").forbidden("cannot be set until all schedulingGates have been cleared", found);
    }
}

/// A template: its labels, annotations and specification.
pub(super) fn template(at: &At<'_>, found: &mut Found) {
    let meta = at.get("metadata");
    meta.get("labels").labels(found);
    found.extend(names::annotations(&meta.get("annotations").path, meta.get("annotations").value));
    let inner = at.get("spec");
    spec(&inner, found);
    if !inner.get("ephemeralContainers").empty() {
        inner.get("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template", found);
    }
}

/// A template whose pods run until somebody ends them.
pub(super) fn lasting(template: &At<'_>, found: &mut Found) {
    let spec = template.get("spec");
    let (restart, deadline) = (spec.get("restartPolicy"), spec.get("activeDeadlineSeconds"));
    if restart.text() != "Always" {
        restart.not_supported(&["Always"], found);
    }
    if deadline.given() {
        deadline.forbidden("a pod that is replaced has no deadline", found);
    }
}

fn spec(at: &At<'_>, found: &mut Found) {
    let mounted = volumes::volumes(&at.get("volumes"), found);
    let mut claims = Vec::new();
    for claim in at.get("resourceClaims").items() {
        let name = claim.get("name");
        name.must_be_named(names::dns_label, found);
        if claims.contains(&name.text()) {
            name.duplicate(found);
        }
        claims.push(name.text());
    }
    containers::all(at, &mounted, found);
    if at.get("resources").given() {
        resources::requirements(&at.get("resources"), found);
    }
    containers::host_network_ports(at, found);
    at.get("restartPolicy").must_be_one_of(&RESTART, found);
    at.get("dnsPolicy").one_of(&DNS, found);
    at.get("nodeSelector").labels(found);
    security(at, found);
    for secret in at.get("imagePullSecrets").items() {
        secret.get("name").must_be_given(found);
    }
    selectors::affinity(&at.get("affinity"), found);
    dns(at, found);
    for gate in at.get("readinessGates").items() {
        let kind = gate.get("conditionType");
        for why in names::label_key(kind.text()) {
            kind.invalid_as(&json!(kind.text()), &why, found);
        }
    }
    scheduling_gates(&at.get("schedulingGates"), found);
    selectors::topology_spread(&at.get("topologySpreadConstraints"), found);
    if at.get("hostUsers").value == false {
        for name in ["hostNetwork", "hostPID", "hostIPC"] {
            if at.get(name).value == true {
                at.get(name).forbidden("when `hostUsers` is false, the host's namespaces are out of reach", found);
            }
        }
    }
    at.get("serviceAccountName").named(names::dns_subdomain, found);
    at.get("nodeName").named(names::dns_subdomain, found);
    at.get("activeDeadlineSeconds").between(1, SECONDS_MAX, found);
    at.get("hostname").named(names::dns_label, found);
    at.get("subdomain").named(names::dns_label, found);
    selectors::tolerations(&at.get("tolerations"), found);
    for alias in at.get("hostAliases").items() {
        let ip = alias.get("ip");
        if ip.text().parse::<std::net::IpAddr>().is_err() {
            ip.invalid("must be a valid IP address", found);
        }
        for name in alias.get("hostnames").items() {
            name.named(names::dns_subdomain, found);
        }
    }
    at.get("priorityClassName").named(names::dns_subdomain, found);
    at.get("runtimeClassName").named(names::dns_subdomain, found);
    at.get("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"], found);
    for (name, amount) in at.get("overhead").entries() {
        resources::amount(&amount, name, found);
    }
    if at.get("os").given() {
        at.get("os").get("name").must_be_one_of(&["linux", "windows"], found);
    }
}

fn security(spec: &At<'_>, found: &mut Found) {
    let at = spec.get("securityContext");
    at.get("fsGroup").id(found);
    at.get("runAsUser").id(found);
    at.get("runAsGroup").id(found);
    for group in at.get("supplementalGroups").items() {
        group.id(found);
    }
    // Whether processes are shared stands in the specification, and is found wrong where the rest of security stands.
    if spec.get("shareProcessNamespace").value == true && spec.get("hostPID").value == true {
        at.get("shareProcessNamespace").invalid_as(
            &json!(true),
            "ShareProcessNamespace and HostPID cannot both be enabled",
            found,
        );
    }
    let mut seen = Vec::new();
    for sysctl in at.get("sysctls").items() {
        let name = sysctl.get("name");
        if name.empty() {
            name.required("", found);
        } else if !is_sysctl(name.text()) {
            name.invalid("is no name of a kernel parameter", found);
        } else if seen.contains(&name.text()) {
            name.duplicate(found);
        }
        seen.push(name.text());
    }
    at.get("fsGroupChangePolicy").one_of(&["Always", "OnRootMismatch"], found);
    containers::kernel_profile(&at.get("seccompProfile"), found);
    containers::kernel_profile(&at.get("appArmorProfile"), found);
    at.get("supplementalGroupsPolicy").one_of(&["Merge", "Strict"], found);
}

/// Words of small letters, digits, `-` and `_`, with `.` or `/` between them.
fn is_sysctl(name: &str) -> bool {
    let good = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !part.is_empty()
            && part.bytes().all(|b| inner(b) || matches!(b, b'-' | b'_'))
            && part.bytes().next().is_some_and(inner)
            && part.bytes().last().is_some_and(inner)
    };
    name.split(['.', '/']).all(good)
}

fn dns(spec: &At<'_>, found: &mut Found) {
    let (at, policy) = (spec.get("dnsConfig"), spec.get("dnsPolicy"));
    let servers = at.get("nameservers");
    if policy.text() == "None" {
        if !at.given() {
            at.required("must be given when `dnsPolicy` is None", found);
            return;
        }
        if servers.empty() {
            servers.required("must name at least one server when `dnsPolicy` is None", found);
        }
    }
    if servers.items().count() > NAME_SERVERS_MAX {
        servers.invalid(&format!("must not have more than {NAME_SERVERS_MAX} nameservers"), found);
    }
    for server in servers.items() {
        if server.text().parse::<std::net::IpAddr>().is_err() {
            server.invalid("must be a valid IP address", found);
        }
    }
    let searches = at.get("searches");
    if searches.items().count() > SEARCHES_MAX {
        searches.invalid(&format!("must not have more than {SEARCHES_MAX} search paths"), found);
    }
    for search in searches.items() {
        let plain = search.text().strip_suffix('.').unwrap_or(search.text());
        if !plain.is_empty() {
            for why in names::dns_subdomain(&plain.replace('_', "-")) {
                search.invalid(&why, found);
            }
        }
    }
    for option in at.get("options").items() {
        if option.get("name").empty() {
            option.required("must not be empty", found);
        }
    }
}

fn scheduling_gates(at: &At<'_>, found: &mut Found) {
    let mut seen = Vec::new();
    for gate in at.items() {
        let name = gate.get("name");
        for why in names::label_key(name.text()) {
            gate.invalid_as(&json!(name.text()), &why, found);
        }
        if seen.contains(&name.text()) {
            gate.duplicate_as(&json!(name.text()), found);
        }
        seen.push(name.text());
    }
}
