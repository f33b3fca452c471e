//! What the operator counts.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kubevirt_api::kubevirt::{ConditionType, KubeVirtSpec, KubeVirtStatus, find_condition};
use kubevirt_api::upgrade::{StepProgress, UpgradePlanStatus};
use kubevirt_release::certificates;
use kubevirt_runtime::metrics::Metrics;
use kubevirt_upgrade::Report;
use kubevirt_upgrade::estimate::Estimate;

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

/// Things (conditions, certificates, steps) and reasons.
type Shown = BTreeSet<(Cow<'static, str>, String)>;

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
const UPGRADE_STEP: &str = "kubevirt_virt_operator_upgrade_step";
const UPGRADE_STEP_HELP: &str =
    "The number of the step of a change of version that is under way, 0 for the others, by name";
const UPGRADE_STEPS: &str = "kubevirt_virt_operator_upgrade_steps";
const UPGRADE_STEPS_HELP: &str = "How many steps the change of version that is under way has; 0 while there is none";
const UPGRADE_STARTED: &str = "kubevirt_virt_operator_upgrade_started_timestamp_seconds";
const UPGRADE_STARTED_HELP: &str = "When the newest change of version began, as a Unix time";
const UPGRADE_FINISHED: &str = "kubevirt_virt_operator_upgrade_finished_timestamp_seconds";
const UPGRADE_FINISHED_HELP: &str =
    "When the newest change of version came to its end, as a Unix time; none while it is under way";
const UPGRADE_BLOCKED: &str = "kubevirt_virt_operator_upgrade_blocked";
const UPGRADE_BLOCKED_HELP: &str =
    "1 while a change of version is kept from going on, by what is to blame (docs/reasons.md) and the step";
const UPGRADE_END: &str = "kubevirt_virt_operator_upgrade_estimated_end_timestamp_seconds";
const UPGRADE_END_HELP: &str =
    "When the change of version will be over at the pace it had so far, as a Unix time; none while nothing tells";
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
            (UPGRADE_STEP, UPGRADE_STEP_HELP),
            (UPGRADE_STEPS, UPGRADE_STEPS_HELP),
            (UPGRADE_STARTED, UPGRADE_STARTED_HELP),
            (UPGRADE_FINISHED, UPGRADE_FINISHED_HELP),
            (UPGRADE_BLOCKED, UPGRADE_BLOCKED_HELP),
            (UPGRADE_END, UPGRADE_END_HELP),
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
            certificates.iter().filter_map(|one| Some((one.secret.into(), one.problem.as_ref()?.reason().to_string())));
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

    /// How the newest change of version goes or went, and when it is expected to be over.
    pub fn upgrade(&self, status: &UpgradePlanStatus, estimate: Option<Estimate>) {
        let is_over = status.state.is_over();
        // The change before may have had other steps.
        self.metrics.forget(UPGRADE_STEP);
        let current = status.steps.iter().find(|step| step.state != StepProgress::Done).filter(|_| !is_over);
        for step in &status.steps {
            let number = current.filter(|current| current.number == step.number).map_or(0, |step| step.number);
            self.metrics.gauge(UPGRADE_STEP, UPGRADE_STEP_HELP, &[("step", &step.name)]).set(f64::from(number));
        }
        let steps = if is_over { 0 } else { u32::try_from(status.steps.len()).unwrap_or(u32::MAX) };
        self.metrics.gauge(UPGRADE_STEPS, UPGRADE_STEPS_HELP, &[]).set(f64::from(steps));
        self.known_or_not(UPGRADE_STARTED, UPGRADE_STARTED_HELP, status.started.as_ref().map(|time| time.0));
        self.known_or_not(UPGRADE_FINISHED, UPGRADE_FINISHED_HELP, status.finished.as_ref().map(|time| time.0));
        self.known_or_not(UPGRADE_END, UPGRADE_END_HELP, estimate.map(|estimate| estimate.ends));
        let held = current
            .into_iter()
            .flat_map(|step| step.blocked_by.iter().map(|code| (step.name.clone().into(), code.clone())));
        let whole = status.reason.clone().filter(|_| !is_over);
        let whole = whole.map(|code| (current.map(|step| step.name.clone()).unwrap_or_default().into(), code));
        self.show(UPGRADE_BLOCKED, UPGRADE_BLOCKED_HELP, "step", held.chain(whole).collect());
    }

    /// Shows a moment, or that none is known.
    fn known_or_not(&self, name: &'static str, help: &'static str, at: Option<Timestamp>) {
        match at {
            Some(at) => self.metrics.gauge(name, help, &[]).set(seconds(at)),
            None => self.metrics.forget(name),
        }
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
            (condition.status != good).then(|| (kind.as_str().into(), condition.reason.clone().unwrap_or_default()))
        };
        let now = BEYOND.iter().filter_map(needs_attention).collect();
        self.show(NOT_READY, NOT_READY_HELP, "condition", now);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kubevirt_api::upgrade::{PlanState, StepStatus};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn status(state: PlanState, names: &[&str], done: usize) -> UpgradePlanStatus {
        let progress = |index: usize| if index < done { StepProgress::Done } else { StepProgress::InProgress };
        let step = |(index, name): (usize, &&str)| StepStatus {
            number: u32::try_from(index).expect("a few") + 1,
            name: (*name).to_owned(),
            state: progress(index),
            ..StepStatus::default()
        };
        let steps = names.iter().enumerate().map(step).collect();
        UpgradePlanStatus { state, steps, started: Some(Time(at(10))), ..UpgradePlanStatus::default() }
    }

    #[test]
    fn a_change_is_shown_with_its_step_its_times_and_what_holds_it() {
        let metrics = Metrics::new();
        let own = OperatorMetrics::new(metrics.clone());
        let shown = || {
            let all = metrics.render();
            let lines = all.lines().filter(|line| line.starts_with("kubevirt_virt_operator_upgrade_"));
            lines.map(|line| line.replace("kubevirt_virt_operator_upgrade_", "")).collect::<Vec<_>>()
        };
        assert_eq!(shown(), [""; 0], "there was none yet");
        let under_way = status(PlanState::InProgress, &["crds", "images", "virt-handler"], 1);
        own.upgrade(&under_way, Some(Estimate { seconds_left: 5, ends: at(99) }));
        let expected = [
            "estimated_end_timestamp_seconds 99",
            "started_timestamp_seconds 10",
            "step{step=\"crds\"} 0",
            "step{step=\"images\"} 2",
            "step{step=\"virt-handler\"} 0",
            "steps 3",
        ];
        assert_eq!(shown(), expected);

        let mut held = status(PlanState::Blocked, &["crds", "virt-handler"], 1);
        held.reason = Some("PreflightFailed".to_owned());
        held.steps[1].blocked_by = vec!["Soaking".to_owned()];
        own.upgrade(&held, None);
        let blocked = |reason: &str, value: u8| format!("blocked{{step=\"virt-handler\",reason=\"{reason}\"}} {value}");
        assert!(shown().contains(&blocked("PreflightFailed", 1)) && shown().contains(&blocked("Soaking", 1)));
        assert!(!shown().iter().any(|line| line.contains("images") || line.starts_with("estimated")), "{:?}", shown());

        let mut over = status(PlanState::Succeeded, &["crds", "virt-handler"], 2);
        over.finished = Some(Time(at(50)));
        own.upgrade(&over, None);
        let expected = [
            blocked("PreflightFailed", 0),
            blocked("Soaking", 0),
            "finished_timestamp_seconds 50".to_owned(),
            "started_timestamp_seconds 10".to_owned(),
            "step{step=\"crds\"} 0".to_owned(),
            "step{step=\"virt-handler\"} 0".to_owned(),
            "steps 0".to_owned(),
        ];
        assert_eq!(shown(), expected);
    }
}
