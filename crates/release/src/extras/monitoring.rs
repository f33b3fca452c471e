//! What a Prometheus installation needs to find the suite's metrics and to raise its alerts, and which installation that
//! is.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;
use kubevirt_api::gates;
use kubevirt_api::kubevirt::KubeVirtSpec;
use kubevirt_api::names::label;
use serde_json::json;
use thiserror::Error;

use super::alerts;
use crate::kinds::Kind;
use crate::object::Object;
use crate::rbac::{READ, rule};
use crate::render::{account_subject, role, role_binding};

/// The name of the role and of its binding.
pub const ACCESS: &str = "kubevirt-monitoring";
/// The name of the ServiceMonitor and of the PrometheusRule.
pub const NAME: &str = "prometheus-kubevirt-rules";

/// Where Prometheus is looked for when the custom resource names no namespace, the first one first.
const NAMESPACES: [&str; 2] = ["openshift-monitoring", "monitoring"];
const ACCOUNT: &str = "prometheus-k8s";

/// Where a page per alert is, with `%s` for the alert's name.
const RUNBOOKS: &str = "https://kubevirt.io/monitoring/runbooks/%s";
/// The variable of the operator's environment that says otherwise.
const RUNBOOKS_VARIABLE: &str = "RUNBOOK_URL_TEMPLATE";

/// A Prometheus to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Where its account is.
    pub namespace: String,
    pub account: String,
    /// Where it looks for ServiceMonitors.
    pub service_monitors: String,
}

/// The name of the account that may be given rights.
pub fn account(spec: &KubeVirtSpec) -> &str {
    given(spec.monitor_account.as_deref()).unwrap_or(ACCOUNT)
}

/// The namespaces in which the account is looked for, the first one first.
pub fn namespaces(spec: &KubeVirtSpec) -> Vec<&str> {
    match given(spec.monitor_namespace.as_deref()) {
        Some(namespace) => vec![namespace],
        None => NAMESPACES.to_vec(),
    }
}

/// The Prometheus to be served, if its account is in one of the namespaces that have an account of that name.
pub fn monitor(spec: &KubeVirtSpec, with_account: &BTreeSet<String>) -> Option<Monitor> {
    let namespace = namespaces(spec).into_iter().find(|namespace| with_account.contains(*namespace))?;
    let service_monitors = given(spec.service_monitor_namespace.as_deref()).unwrap_or(namespace);
    Some(Monitor {
        namespace: namespace.into(),
        account: account(spec).into(),
        service_monitors: service_monitors.into(),
    })
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Where an alert is explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runbooks(String);

/// The template names no page of its own for each alert.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{RUNBOOKS_VARIABLE} must contain %s exactly once, in the place of the alert's name; it is `{0}`")]
pub struct RunbooksError(String);

impl Default for Runbooks {
    fn default() -> Self {
        Self(RUNBOOKS.into())
    }
}

impl Runbooks {
    /// What the operator's environment says.
    ///
    /// # Errors
    /// The template has not exactly one place for an alert's name.
    pub fn from_env(env: &BTreeMap<String, String>) -> Result<Self, RunbooksError> {
        match env.get(RUNBOOKS_VARIABLE).filter(|template| !template.is_empty()) {
            None => Ok(Self::default()),
            Some(template) if template.matches("%s").count() == 1 => Ok(Self(template.clone())),
            Some(template) => Err(RunbooksError(template.clone())),
        }
    }

    /// The page of an alert.
    pub fn page(&self, alert: &str) -> String {
        self.0.replacen("%s", alert, 1)
    }
}

/// What Prometheus may look at in the suite's namespace to find its pods. The operator has to hold it to hand it out.
pub fn rules() -> Vec<PolicyRule> {
    vec![rule("", &["services", "endpoints", "pods"], READ)]
}

/// The objects for a Prometheus. Which of them the cluster can take is the caller's matter.
pub fn objects(install: &str, monitor: &Monitor, spec: &KubeVirtSpec, runbooks: &Runbooks) -> Vec<Object> {
    let subject = account_subject(&monitor.account, &monitor.namespace);
    let mut objects = vec![
        Object::of(&role(ACCESS, install, rules())),
        Object::of(&role_binding(ACCESS, install, ACCESS, vec![subject])),
        service_monitor(install, monitor),
    ];
    // Another collector brings rules of its own.
    if !gates::is_on(spec.configuration.as_ref(), gates::name::VM_STATS_COLLECTOR) {
        objects.push(alerts::rule(install, runbooks));
    }
    objects
}

fn service_monitor(install: &str, monitor: &Monitor) -> Object {
    let kind = Kind::ServiceMonitor;
    Object::from_value(json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {
            "name": NAME,
            "namespace": monitor.service_monitors,
            "labels": {label::CLUSTER_MONITORING: "", label::PROMETHEUS: "true", "k8s-app": "kubevirt"},
        },
        "spec": {
            "namespaceSelector": {"matchNames": [install]},
            "selector": {"matchLabels": {label::PROMETHEUS: "true"}},
            "endpoints": [{
                "port": "metrics",
                "scheme": "https",
                // Every pod shows a certificate for its service; Prometheus asks for it by its address.
                "tlsConfig": {"insecureSkipVerify": true},
                "honorLabels": true,
            }],
        },
    }))
    .expect("a kind, a name and a namespace")
}
