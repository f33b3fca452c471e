//! UpgradePlans and the UpgradePolicy, kept by two watches of the leader. A cluster whose operator manifest is older has
//! neither: then there is no history, the policy is the default one, and nothing is undone by itself, because nobody could
//! remember that it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use kubevirt_api::upgrade::{POLICY_NAME, PlanState, UpgradePlan, UpgradePlanStatus, UpgradePolicy};
use kubevirt_release::Kind;
use kubevirt_upgrade::Policy;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::follow::{RETRY_LONGEST, Seen, all, follow};
use crate::watches::until_established;

/// The definition that is waited for; both come with one manifest.
const DEFINITION: &str = "upgradepolicies.upgrade.kubevirt.io";

/// What is known of changes of version.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The cluster has the definitions.
    pub served: bool,
    pub plans: BTreeMap<String, Arc<UpgradePlan>>,
    /// UpgradePlans that this release cannot read, by name. They are left alone, and their names are taken.
    pub unread: BTreeSet<String>,
    pub policy: Policy,
}

/// What makes one change of version the same as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    pub from: &'a str,
    pub to: &'a str,
    pub generation: i64,
    pub operator_version: &'a str,
}

impl History {
    /// The plan of a change: the newest one that is under way, or that ended badly for this very spec and operator.
    pub fn of(&self, change: Change<'_>) -> Option<&Arc<UpgradePlan>> {
        let Change { from, to, generation, operator_version } = change;
        let is_it = |plan: &&Arc<UpgradePlan>| {
            let status = status_of(plan);
            let is_same = status.generation == generation && status.operator_version == operator_version;
            let counts = match status.state {
                PlanState::InProgress | PlanState::Paused | PlanState::Blocked => true,
                PlanState::RollingBack | PlanState::RolledBack | PlanState::Aborted => is_same,
                PlanState::Succeeded | PlanState::Superseded => false,
            };
            plan.spec.from.deployment_id == from && plan.spec.to.deployment_id == to && counts
        };
        self.plans.values().filter(is_it).max_by_key(|plan| number(plan))
    }
}

impl History {
    /// The plan that was made last.
    pub fn newest(&self) -> Option<&Arc<UpgradePlan>> {
        self.plans.values().max_by_key(|plan| number(plan))
    }

    /// The number of the next plan.
    pub fn next_number(&self) -> u64 {
        let unread = self.unread.iter().map(|name| number_in(name));
        self.plans.values().map(|plan| number(plan)).chain(unread).max().unwrap_or_default() + 1
    }

    fn take(&mut self, plan: DynamicObject) {
        let name = plan.name_any();
        match read::<UpgradePlan>(&plan) {
            Some(plan) => {
                self.unread.remove(&name);
                self.plans.insert(name, Arc::new(plan));
            }
            None => {
                self.plans.remove(&name);
                self.unread.insert(name);
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.plans.remove(name);
        self.unread.remove(name);
    }

    /// Whether this very change came to its end and nothing has changed the version since: all that is missing is that the
    /// CR's status says so, which is written after the plan's.
    pub fn is_over(&self, change: Change<'_>) -> bool {
        let Change { from, to, generation, operator_version } = change;
        self.newest().is_some_and(|plan| {
            let status = status_of(plan);
            status.state == PlanState::Succeeded
                && status.generation == generation
                && status.operator_version == operator_version
                && plan.spec.from.deployment_id == from
                && plan.spec.to.deployment_id == to
        })
    }
}

/// What a plan says; one that was made and not yet filled in says nothing.
pub fn status_of(plan: &UpgradePlan) -> UpgradePlanStatus {
    plan.status.clone().unwrap_or_default()
}

/// Plans are numbered; the number is in their name.
pub fn number(plan: &UpgradePlan) -> u64 {
    number_in(plan.metadata.name.as_deref().unwrap_or_default())
}

fn number_in(name: &str) -> u64 {
    name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The history as it is known now, and the bell that rings when it changed.
pub struct Upgrades {
    known: Mutex<History>,
    /// The first lists that are still missing.
    missing: watch::Sender<u8>,
    changed: Notify,
}

impl Default for Upgrades {
    fn default() -> Self {
        // One of plans, one of policies.
        Self { known: Mutex::default(), missing: watch::channel(2).0, changed: Notify::new() }
    }
}

impl Upgrades {
    pub fn now(&self) -> History {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the first lists were seen, or it is known that there are none.
    pub async fn synced(&self) {
        // The sender lives as long as this, so waiting cannot fail.
        let _ = self.missing.subscribe().wait_for(|missing| *missing == 0).await;
    }

    /// Waits until something changed since the last call returned.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes note of a plan that was just written.
    pub fn wrote(&self, plan: &Value) {
        if let Ok(plan) = DynamicObject::deserialize(plan) {
            self.change(|known| known.take(plan));
        }
    }

    /// Takes note of a plan that was just deleted.
    pub fn forgot(&self, name: &str) {
        self.change(|known| known.forget(name));
    }

    fn change(&self, change: impl FnOnce(&mut History)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Keeps itself up to date. Never ends.
    pub async fn follow(self: Arc<Self>, client: Client) {
        self.until_served(&client).await;
        tokio::join!(self.follow_plans(client.clone()), self.follow_policies(client));
    }

    async fn until_served(&self, client: &Client) {
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let named = ListParams::default().fields(&format!("metadata.name={DEFINITION}"));
        loop {
            match definitions.list(&named).await {
                Ok(found) if !found.items.is_empty() => break,
                Ok(_) => {
                    tracing::info!(DEFINITION, "not in this cluster: changes of version leave no history");
                    self.missing.send_replace(0);
                    break;
                }
                Err(error) => {
                    tracing::warn!(DEFINITION, %error, "whether it is in this cluster could not be asked");
                    tokio::time::sleep(RETRY_LONGEST).await;
                }
            }
        }
        until_established(client, DEFINITION).await;
    }

    async fn follow_plans(&self, client: Client) {
        follow(api(client, Kind::UpgradePlan), all(), "UpgradePlan", |seen| match seen {
            Seen::All(plans) => {
                self.change(|known| {
                    known.served = true;
                    (known.plans, known.unread) = Default::default();
                    plans.into_iter().for_each(|plan| known.take(plan));
                });
                self.listed();
            }
            Seen::Changed(plan) => self.change(|known| known.take(plan)),
            Seen::Gone(plan) => self.change(|known| known.forget(&plan.name_any())),
        })
        .await;
    }

    async fn follow_policies(&self, client: Client) {
        let named = all().fields(&format!("metadata.name={POLICY_NAME}"));
        // Whoever wrote one wanted changes to be more careful than usual; how, nobody knows.
        let policy = |object: DynamicObject| match read::<UpgradePolicy>(&object) {
            Some(policy) => Policy::from(&policy.spec),
            None => Policy { unread: true, ..Policy::default() },
        };
        follow(api(client, Kind::UpgradePolicy), named, "UpgradePolicy", |seen| match seen {
            Seen::All(found) => {
                self.change(|known| known.policy = found.into_iter().next().map(policy).unwrap_or_default());
                self.listed();
            }
            Seen::Changed(found) => self.change(|known| known.policy = policy(found)),
            Seen::Gone(_) => self.change(|known| known.policy = Policy::default()),
        })
        .await;
    }

    fn listed(&self) {
        self.missing.send_modify(|missing| *missing = missing.saturating_sub(1));
        self.changed.notify_one();
    }
}

fn api(client: Client, kind: Kind) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name());
    Api::all_with(client, &ApiResource::from_gvk_with_plural(&gvk, kind.plural()))
}

/// None of what cannot be read: its definition's schema admits none, so another version wrote it.
fn read<K: for<'a> Deserialize<'a>>(object: &DynamicObject) -> Option<K> {
    match K::deserialize(serde_json::to_value(object).unwrap_or_default()) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::warn!(name = object.name_any(), %error, "an object of changes of version cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use kubevirt_api::upgrade::{Release, UpgradePlanSpec};

    use super::*;

    fn plan(number: u64, to: &str, state: PlanState, generation: i64) -> (String, Arc<UpgradePlan>) {
        let release = |id: &str| Release { version: id.to_owned(), deployment_id: id.to_owned() };
        let spec = UpgradePlanSpec { from: release("old"), to: release(to), request: None };
        let status =
            UpgradePlanStatus { state, generation, operator_version: "op".to_owned(), ..UpgradePlanStatus::default() };
        let name = format!("upgrade-{number}");
        (name.clone(), Arc::new(UpgradePlan { status: Some(status), ..UpgradePlan::new(&name, spec) }))
    }

    #[test]
    fn a_change_that_failed_counts_until_spec_or_operator_change() {
        let plans = [
            plan(2, "new", PlanState::Succeeded, 3),
            plan(9, "new", PlanState::RolledBack, 4),
            plan(10, "new", PlanState::RolledBack, 5),
            plan(11, "other", PlanState::InProgress, 5),
        ];
        let history = History { served: true, plans: plans.into(), ..History::default() };
        let found = |generation, operator_version| {
            let change = Change { from: "old", to: "new", generation, operator_version };
            history.of(change).map(|plan| number(plan))
        };
        assert_eq!(found(5, "op"), Some(10));
        assert_eq!(found(4, "op"), Some(9));
        assert_eq!(found(6, "op"), None, "the spec changed");
        assert_eq!(found(5, "newer"), None, "the operator changed");
    }

    #[test]
    fn a_change_that_came_to_its_end_is_over_until_anything_else_changes() {
        let is_over = |plans: &[(String, Arc<UpgradePlan>)], generation, operator_version| {
            let plans = plans.iter().cloned().collect();
            let history = History { served: true, plans, ..History::default() };
            history.is_over(Change { from: "old", to: "new", generation, operator_version })
        };
        let done = plan(10, "new", PlanState::Succeeded, 3);
        let before = plan(9, "new", PlanState::RolledBack, 3);
        assert!(is_over(&[before.clone(), done.clone()], 3, "op"));
        assert!(!is_over(std::slice::from_ref(&done), 4, "op"), "asked for anew");
        assert!(!is_over(std::slice::from_ref(&done), 3, "newer"));
        assert!(!is_over(&[done, plan(11, "other", PlanState::Succeeded, 3)], 3, "op"), "there and back");
        assert!(!is_over(&[before], 3, "op"));
        assert!(!is_over(&[plan(1, "new", PlanState::InProgress, 3)], 3, "op"));
    }

    #[test]
    fn a_change_under_way_goes_on_under_another_generation() {
        let plans = [plan(1, "new", PlanState::Paused, 3)].into();
        let history = History { served: true, plans, ..History::default() };
        let change = Change { from: "old", to: "new", generation: 7, operator_version: "newer" };
        assert_eq!(history.of(change).map(|plan| number(plan)), Some(1));
    }

    #[test]
    fn a_plan_that_cannot_be_read_is_no_change_and_keeps_its_name() {
        let mut history = History::default();
        let object = |number: u64, state: &str| -> DynamicObject {
            serde_json::from_value(
                serde_json::json!({"apiVersion": "upgrade.kubevirt.io/v1alpha1", "kind": "UpgradePlan",
                "metadata": {"name": format!("upgrade-{number}")}, "spec": {}, "status": {"state": state}}),
            )
            .expect("an object")
        };
        history.take(object(2, "InProgress"));
        history.take(object(3, "Hibernating"));
        assert_eq!((history.plans.len(), history.unread.len(), history.next_number()), (1, 1, 4));
        history.take(object(2, "Hibernating"));
        history.take(object(3, "Succeeded"));
        assert_eq!((history.plans.contains_key("upgrade-3"), history.unread.contains("upgrade-2")), (true, true));
        history.forget("upgrade-2");
        history.forget("upgrade-3");
        assert_eq!(history.next_number(), 1);
    }
}
