//! What the operator counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kubevirt_api::kubevirt::{ConditionType, KubeVirtSpec, KubeVirtStatus, find_condition};
use kubevirt_release::certificates;
use kubevirt_runtime::metrics::Metrics;
use kubevirt_upgrade::Report;

use crate::certificates::Health;
use crate::reconcile::Outcomes;
use crate::reconcile::uninstall::Blocker;

/// The operator's metrics; clones share everything.
#[derive(Clone)]
pub struct OperatorMetrics {
    metrics: Metrics,
    /// Codes of reasons that were waited for before: a series that was shown goes back to 0 instead of vanishing.
    waited: Arc<Mutex<BTreeSet<&'static str>>>,
    /// What was shown before, by metric.
    shown: Arc<Mutex<BTreeMap<&'static str, Shown>>>,
}

/// Things (conditions, certificates) and reasons.
type Shown = BTreeSet<(&'static str, String)>;

/// Requests to the API server.
pub const REST_REQUESTS: &str = "kubevirt_rest_client_requests_total";
const NOT_READY: &str = "kubevirt_virt_operator_not_ready";
const NOT_READY_HELP: &str =
    "1 while a condition beyond the contract says that something needs attention, by its reason (docs/reasons.md)";
const PROBLEM: &str = "kubevirt_virt_operator_certificate_problem";
const PROBLEM_HELP: &str =
    "1 while a certificate is not one that clients accept, by Secret and reason (docs/reasons.md)";
const EXPIRY: &str = "kubevirt_virt_operator_certificate_expiry_timestamp_seconds";
const EXPIRY_HELP: &str = "When a certificate expires, as a Unix time, by Secret";
const ROTATING: &str = "kubevirt_virt_operator_authority_rotating";
const ROTATING_HELP: &str = "Certificates that an earlier authority signed and the current one is still to sign";
const LAST_PASS: &str = "kubevirt_virt_operator_last_pass_timestamp_seconds";
const LAST_PASS_HELP: &str = "When a pass last came to its end, as a Unix time";
const EMULATION: &str = "kubevirt_configuration_emulation_enabled";
const EMULATION_HELP: &str = "1 while nodes without hardware virtualization may run machines in software";
const CONDITION: &str = "kubevirt_virt_operator_condition";
const CONDITION_HELP: &str = "1 while the condition of the KubeVirt CR is True";
const WAITING: &str = "kubevirt_virt_operator_waiting";
const WAITING_HELP: &str = "Things the current plan waits for, by reason (docs/reasons.md)";

/// The conditions that are shown as numbers.
const CONDITIONS: [ConditionType; 6] = [
    ConditionType::Available,
    ConditionType::Progressing,
    ConditionType::Degraded,
    ConditionType::CertificatesReady,
    ConditionType::MonitoringReady,
    ConditionType::InstancetypesReady,
];

/// The conditions beyond the contract, whose reasons are shown.
const BEYOND: [ConditionType; 5] = [
    ConditionType::CertificatesReady,
    ConditionType::UpgradeBlocked,
    ConditionType::MonitoringReady,
    ConditionType::InstancetypesReady,
    ConditionType::StoredVersionsCurrent,
];

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

impl OperatorMetrics {
    pub fn new(metrics: Metrics) -> Self {
        let own = Self { metrics, waited: Arc::default(), shown: Arc::default() };
        own.leads(false);
        own.ready(false);
        for (name, help) in [
            (NOT_READY, NOT_READY_HELP),
            (PROBLEM, PROBLEM_HELP),
            (EXPIRY, EXPIRY_HELP),
            (ROTATING, ROTATING_HELP),
            (LAST_PASS, LAST_PASS_HELP),
            (EMULATION, EMULATION_HELP),
            (CONDITION, CONDITION_HELP),
            (WAITING, WAITING_HELP),
        ] {
            own.metrics.announce_gauge(name, help);
        }
        own
    }

    /// Whether nodes without hardware virtualization may run machines.
    pub fn emulation(&self, spec: &KubeVirtSpec) {
        let developer = spec.configuration.as_ref().and_then(|c| c.developer_configuration.as_ref());
        let enabled = developer.and_then(|developer| developer.use_emulation).unwrap_or_default();
        self.metrics.gauge(EMULATION, EMULATION_HELP, &[]).set(f64::from(u8::from(enabled)));
    }

    /// A pass has come to its end.
    pub fn came_to_its_end(&self, now: Timestamp) {
        self.metrics.gauge(LAST_PASS, LAST_PASS_HELP, &[]).set(seconds(now));
    }

    /// How the certificates fare.
    pub fn certificates(&self, certificates: &[Health]) {
        for one in certificates {
            let labels = [("certificate", one.secret)];
            self.metrics.gauge(EXPIRY, EXPIRY_HELP, &labels).set(one.expires.map_or(0.0, seconds));
        }
        let problems =
            certificates.iter().filter_map(|one| Some((one.secret, one.problem.as_ref()?.reason().to_string())));
        self.show(PROBLEM, PROBLEM_HELP, "certificate", problems.collect());
        let earlier = certificates.iter().filter(|one| one.by_earlier).count();
        let earlier = f64::from(u32::try_from(earlier).unwrap_or(u32::MAX));
        self.metrics.gauge(ROTATING, ROTATING_HELP, &[("authority", certificates::CA)]).set(earlier);
    }

    /// Shows 1 for each pair of a thing and a reason, and 0 for those that were shown before.
    fn show(&self, name: &'static str, help: &'static str, thing: &str, now: Shown) {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = all.entry(name).or_default();
        shown.extend(now.iter().cloned());
        for pair @ (what, reason) in shown.iter() {
            let value = f64::from(u8::from(now.contains(pair)));
            self.metrics.gauge(name, help, &[(thing, what), ("reason", reason)]).set(value);
        }
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        let help = "1 while this virt-operator holds the lease";
        self.metrics.gauge("kubevirt_virt_operator_leading_status", help, &[]).set(f64::from(u8::from(leads)));
    }

    /// Whether this process serves.
    pub fn ready(&self, ready: bool) {
        let help = "1 while this virt-operator serves";
        self.metrics.gauge("kubevirt_virt_operator_ready_status", help, &[]).set(f64::from(u8::from(ready)));
    }

    /// A pass has ended.
    pub fn passed(&self, result: &str) {
        let help = "Reconcile passes by result";
        self.metrics.counter("kubevirt_virt_operator_passes_total", help, &[("result", result)]).add(1);
    }

    /// Objects were looked at or written.
    pub fn wrote(&self, outcomes: &Outcomes) {
        let help = "Objects by kind and what was done to them";
        for (key, outcome) in outcomes {
            let labels = [("kind", key.kind.name()), ("outcome", outcome.code())];
            self.metrics.counter("kubevirt_virt_operator_objects_total", help, &labels).add(1);
        }
    }

    /// What the plan waits for, by the reason's code.
    pub fn waiting(&self, report: &Report) {
        self.count(report.blockers().map(|(_, reason)| reason.code()));
    }

    /// What the removal of the suite waits for.
    pub fn held_up(&self, blockers: &[Blocker]) {
        self.count(blockers.iter().map(Blocker::code));
    }

    fn count(&self, codes: impl Iterator<Item = &'static str>) {
        let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
        for code in codes {
            *counts.entry(code).or_default() += 1;
        }
        let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        waited.extend(counts.keys());
        for code in waited.iter() {
            let count = counts.get(code).copied().unwrap_or_default();
            self.metrics.gauge(WAITING, WAITING_HELP, &[("reason", code)]).set(f64::from(count));
        }
    }

    /// A request about the CR was judged.
    pub fn judged(&self, operation: &str, allowed: bool) {
        let help = "Requests about the KubeVirt CR by operation and whether they were allowed";
        let labels = [("operation", operation), ("allowed", if allowed { "true" } else { "false" })];
        self.metrics.counter("kubevirt_virt_operator_admission_total", help, &labels).add(1);
    }

    /// The conditions of the CR, as numbers.
    pub fn status(&self, status: &KubeVirtStatus) {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        for kind in CONDITIONS {
            let is_true = find_condition(conditions, kind).is_some_and(|condition| condition.status == "True");
            let labels = [("condition", kind.as_str())];
            self.metrics.gauge(CONDITION, CONDITION_HELP, &labels).set(f64::from(u8::from(is_true)));
        }
        let needs_attention = |kind: &ConditionType| {
            let condition = find_condition(conditions, *kind)?;
            let good = if *kind == ConditionType::UpgradeBlocked { "False" } else { "True" };
            (condition.status != good).then(|| (kind.as_str(), condition.reason.clone().unwrap_or_default()))
        };
        let now = BEYOND.iter().filter_map(needs_attention).collect();
        self.show(NOT_READY, NOT_READY_HELP, "condition", now);
    }
}
