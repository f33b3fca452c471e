//! What a spec may not say, beyond what its schema refuses. Pure: the webhook asks before a spec is stored, reconcile asks
//! again before it acts on one that was stored without the webhook.

use kubevirt_api::AsGiven;
use kubevirt_api::deprecated::{self, Deprecated};
use kubevirt_api::gates::{self, State, name};
use kubevirt_api::kubevirt::{
    ComponentConfig, KubeVirtConfiguration, KubeVirtSpec, SeccompConfiguration, SelfSigned, TlsConfiguration,
};
use kubevirt_release::customize::{Customizations, Refused};
use serde_json::Value;

/// Something a spec may not say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// In the words that clients match.
    #[error("{field} in body should be one of [{allowed}]")]
    NotOneOf { field: String, allowed: String },
    /// In the words that clients match.
    #[error("infra replica count can't be 0")]
    NoReplicas,
    #[error("{0}")]
    Customization(#[from] Refused),
    #[error(
        "spec.certificateRotateStrategy.selfSigned.{old} is the older spelling and cannot be combined with ca or server"
    )]
    BothSpellings { old: &'static str },
    #[error("{longer} is {longer_seconds} s, which is less than {shorter} of {shorter_seconds} s")]
    Lifetimes { longer: &'static str, longer_seconds: u64, shorter: &'static str, shorter_seconds: u64 },
    #[error("spec.configuration.additionalGuestMemoryOverheadRatio is {value:?}: it must be a number of at least 1")]
    Headroom { value: String },
    #[error("{field} needs the feature gate {}", gates.join(" or "))]
    NeedsGate { field: &'static str, gates: &'static [&'static str] },
    #[error("feature gate {gate} is listed as enabled and as disabled")]
    BothWays { gate: String },
    #[error(
        "spec.configuration.tlsConfiguration.ciphers can only be chosen with a minTLSVersion from VersionTLS10 to \
         VersionTLS12"
    )]
    CiphersOfTls13,
    #[error("spec.configuration.tlsConfiguration.ciphers: {cipher} is not a cipher suite")]
    Cipher { cipher: String },
    #[error(
        "spec.configuration.seccompConfiguration.virtualMachineInstanceProfile needs a customProfile with either \
         localhostProfile or runtimeDefaultProfile"
    )]
    Seccomp,
}

/// Whether placement, TLS and seccomp are judged: in a changed spec only where it changed, so that an old mistake
/// does not stand in the way of an unrelated edit.
fn is_new<T: PartialEq>(new: &T, old: Option<&T>) -> bool {
    old != Some(new)
}

/// Everything wrong with a spec. `old` is the spec it replaces.
pub fn faults(spec: &KubeVirtSpec, old: Option<&KubeVirtSpec>) -> Vec<Fault> {
    let mut found = Vec::new();
    let configuration = spec.configuration.as_ref();
    let old_configuration = old.and_then(|old| old.configuration.as_ref());
    placement("infra", spec.infra.as_ref(), old.map(|old| old.infra.as_ref()), &mut found);
    placement("workloads", spec.workloads.as_ref(), old.map(|old| old.workloads.as_ref()), &mut found);
    if spec.infra.as_ref().is_some_and(|infra| infra.replicas == Some(0)) {
        found.push(Fault::NoReplicas);
    }
    if let Err(refused) = Customizations::read(spec.customize_components.as_ref()) {
        found.extend(refused.into_iter().map(Fault::Customization));
    }
    certificates(spec, &mut found);
    headroom(configuration, &mut found);
    feature_gates(configuration, &mut found);
    let tls = |c: Option<&KubeVirtConfiguration>| c.and_then(|c| c.tls_configuration.clone());
    if is_new(&tls(configuration), old.map(|_| tls(old_configuration)).as_ref()) {
        ciphers(tls(configuration).as_ref(), &mut found);
    }
    let seccomp = |c: Option<&KubeVirtConfiguration>| c.and_then(|c| c.seccomp_configuration.clone());
    if is_new(&seccomp(configuration), old.map(|_| seccomp(old_configuration)).as_ref()) {
        system_calls(seccomp(configuration).as_ref(), &mut found);
    }
    if let Some(old) = old {
        downtime(spec, old, &mut found);
    }
    found
}

/// The placement of a component.
pub(super) fn placed(component: Option<&ComponentConfig>) -> Option<&kubevirt_api::kubevirt::NodePlacement> {
    component.and_then(|component| component.node_placement.as_ref())
}

fn placement(part: &str, new: Option<&ComponentConfig>, old: Option<Option<&ComponentConfig>>, found: &mut Vec<Fault>) {
    const OPERATORS: &[&str] = &["Equal", "Exists"];
    const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
    let Some(new) = placed(new).filter(|new| is_new(new, old.and_then(placed).as_ref())) else { return };
    let mut one_of = |toleration: &AsGiven, field: &str, allowed: &[&str]| {
        let value = toleration.get(field).and_then(Value::as_str).filter(|value| !value.is_empty());
        if value.is_some_and(|value| !allowed.contains(&value)) {
            let fault = Fault::NotOneOf {
                field: format!("spec.{part}.nodePlacement.tolerations.{field}"),
                allowed: allowed.join(" "),
            };
            if !found.contains(&fault) {
                found.push(fault);
            }
        }
    };
    for toleration in new.tolerations.iter().flatten() {
        one_of(toleration, "operator", OPERATORS);
        one_of(toleration, "effect", EFFECTS);
    }
}

fn certificates(spec: &KubeVirtSpec, found: &mut Vec<Fault>) {
    let given = spec.certificate_rotate_strategy.as_ref().and_then(|strategy| strategy.self_signed.as_ref());
    let Some(SelfSigned { ca, server, ca_rotate_interval, cert_rotate_interval, ca_overlap_interval, other: _ }) =
        given
    else {
        return;
    };
    if ca.is_some() || server.is_some() {
        let older = [
            ("caRotateInterval", ca_rotate_interval.is_some()),
            ("certRotateInterval", cert_rotate_interval.is_some()),
            ("caOverlapInterval", ca_overlap_interval.is_some()),
        ];
        found.extend(older.into_iter().filter(|(_, set)| *set).map(|(old, _)| Fault::BothSpellings { old }));
    }
    let lifetimes = spec.certificate_lifetimes();
    let ca = ("the duration of the CA", lifetimes.ca_duration);
    let server = ("the duration of server certificates", lifetimes.server_duration);
    let pairs = [
        (ca, ("the CA's renewBefore", lifetimes.ca_renew_before)),
        (server, ("the servers' renewBefore", lifetimes.server_renew_before)),
        (ca, server),
    ];
    for ((longer, longer_seconds), (shorter, shorter_seconds)) in pairs {
        if longer_seconds < shorter_seconds {
            found.push(Fault::Lifetimes { longer, longer_seconds, shorter, shorter_seconds });
        }
    }
}

fn headroom(configuration: Option<&KubeVirtConfiguration>, found: &mut Vec<Fault>) {
    let ratio = configuration.and_then(|c| c.additional_guest_memory_overhead_ratio.as_deref());
    if let Some(value) = ratio.filter(|value| !value.parse::<f64>().is_ok_and(|ratio| ratio >= 1.0)) {
        found.push(Fault::Headroom { value: value.to_owned() });
    }
}

fn feature_gates(configuration: Option<&KubeVirtConfiguration>, found: &mut Vec<Fault>) {
    let (on, off) = gates::listed(configuration);
    found.extend(on.iter().filter(|gate| off.contains(gate)).map(|gate| Fault::BothWays { gate: gate.clone() }));
    let templates = configuration.and_then(|c| c.virt_template_deployment.as_ref()).and_then(|d| d.enabled);
    if templates == Some(true) && !gates::is_on(configuration, name::TEMPLATE) {
        let field = "spec.configuration.virtTemplateDeployment.enabled";
        found.push(Fault::NeedsGate { field, gates: &[name::TEMPLATE] });
    }
    let aggregation = configuration.and_then(|c| c.role_aggregation_strategy.as_deref());
    if aggregation == Some("Manual") && !gates::is_on(configuration, name::OPT_OUT_ROLE_AGGREGATION) {
        let field = "spec.configuration.roleAggregationStrategy Manual";
        found.push(Fault::NeedsGate { field, gates: &[name::OPT_OUT_ROLE_AGGREGATION] });
    }
}

/// The suites a server or client may be told to use. Those of TLS 1.3 are known but cannot be chosen.
const CIPHERS: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

fn ciphers(tls: Option<&TlsConfiguration>, found: &mut Vec<Fault>) {
    let ciphers = tls.and_then(|tls| tls.ciphers.as_deref()).unwrap_or_default();
    let least = tls.and_then(|tls| tls.min_tls_version.as_deref()).unwrap_or_default();
    if !ciphers.is_empty() && matches!(least, "" | "VersionTLS13") {
        found.push(Fault::CiphersOfTls13);
    }
    let unknown = ciphers.iter().filter(|cipher| !CIPHERS.contains(&cipher.as_str()));
    found.extend(unknown.map(|cipher| Fault::Cipher { cipher: cipher.clone() }));
}

fn system_calls(seccomp: Option<&SeccompConfiguration>, found: &mut Vec<Fault>) {
    let Some(profile) = seccomp.and_then(|seccomp| seccomp.virtual_machine_instance_profile.as_ref()) else { return };
    let is_one = profile
        .custom_profile
        .as_ref()
        .is_some_and(|custom| custom.localhost_profile.is_some() != (custom.runtime_default_profile == Some(true)));
    if !is_one {
        found.push(Fault::Seccomp);
    }
}

fn downtime(spec: &KubeVirtSpec, old: &KubeVirtSpec, found: &mut Vec<Fault>) {
    const GATES: &[&str] = &[name::MIGRATION_STALL_DETECTION, name::MIGRATION_DOWNTIME_TUNING];
    let of = |spec: &KubeVirtSpec| {
        spec.configuration
            .as_ref()
            .and_then(|c| c.migrations.as_ref())
            .and_then(|migrations| migrations.max_downtime_ms)
    };
    let is_on = GATES.iter().any(|gate| gates::is_on(spec.configuration.as_ref(), gate));
    if of(spec) != of(old) && !is_on {
        found.push(Fault::NeedsGate { field: "a change of spec.configuration.migrations.maxDowntimeMs", gates: GATES });
    }
}

/// What a client is warned of, although it is taken.
pub fn warnings(spec: &KubeVirtSpec) -> Vec<String> {
    let mut found = Vec::new();
    let (on, off) = gates::listed(spec.configuration.as_ref());
    for name in on.iter().chain(off) {
        let Some(gate) = gates::find(name) else { continue };
        match gate.state {
            State::Ga => found.push(format!("feature gate {name} is always on: listing it has no effect")),
            State::Deprecated => found.push(format!("feature gate {name} is deprecated and goes away")),
            State::Discontinued => found.push(format!("feature gate {name} is gone: listing it has no effect")),
            State::Alpha | State::Beta => {}
        }
    }
    let fields = deprecated::fields(spec).into_iter();
    found.extend(fields.map(|Deprecated { field, instead }| format!("{field} is deprecated: {instead}")));
    found
}
