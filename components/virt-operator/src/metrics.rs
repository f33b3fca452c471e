//! What the operator counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use kubevirt_api::kubevirt::{ConditionType, KubeVirtStatus, find_condition};
use kubevirt_runtime::metrics::Metrics;
use kubevirt_upgrade::Report;

use crate::reconcile::Outcomes;
use crate::reconcile::uninstall::Blocker;

/// The operator's metrics; clones share everything.
#[derive(Clone)]
pub struct OperatorMetrics {
    metrics: Metrics,
    /// Codes of reasons that were waited for before: a series that was shown goes back to 0 instead of vanishing.
    waited: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl OperatorMetrics {
    pub fn new(metrics: Metrics) -> Self {
        let own = Self { metrics, waited: Arc::default() };
        own.leads(false);
        own.ready(false);
        own
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
        let help = "Things the current plan waits for, by reason (docs/reasons.md)";
        let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
        for code in codes {
            *counts.entry(code).or_default() += 1;
        }
        let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        waited.extend(counts.keys());
        for code in waited.iter() {
            let count = counts.get(code).copied().unwrap_or_default();
            self.metrics.gauge("kubevirt_virt_operator_waiting", help, &[("reason", code)]).set(f64::from(count));
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
        let help = "1 while the condition of the KubeVirt CR is True";
        let conditions = status.conditions.as_deref().unwrap_or_default();
        for kind in [ConditionType::Available, ConditionType::Progressing, ConditionType::Degraded] {
            let is_true = find_condition(conditions, kind).is_some_and(|condition| condition.status == "True");
            let labels = [("condition", kind.as_str())];
            self.metrics.gauge("kubevirt_virt_operator_condition", help, &labels).set(f64::from(u8::from(is_true)));
        }
    }
}
