//! Writes the history of changes of version (client required): an UpgradePlan per change, one write per step. What it says
//! is decided in `kubevirt_upgrade::record`.

use jiff::Timestamp;
use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_api::upgrade::{PlanState, Release, UpgradePlan, UpgradePlanSpec, UpgradePlanStatus};
use kubevirt_release::{Kind, Object, ObjectKey};
use kubevirt_upgrade::estimate::{estimate, progress, step_with_pods};
use kubevirt_upgrade::record::{self, Facts, HISTORY};
use kubevirt_upgrade::{Plan, Reason, Refused, Snapshot};
use serde_json::{Map, Value, json};

use super::build::{Built, observed};
use super::validate::Target;
use super::{Error, Reconciler};
use crate::upgrades::{number, status_of};

impl Reconciler {
    /// Tells how a change of version goes. Nothing is told of an installation and of repairs: they change no version.
    /// `refused` is the write that the server did not take.
    pub(super) async fn tell_history(
        &self,
        cr: &KubeVirt,
        target: &Target,
        built: &Built,
        refused: Option<&Refused>,
    ) -> Result<(), Error> {
        let history = self.upgrades.now();
        if !history.served {
            return Ok(());
        }
        let now = self.clock.now();
        let runs = Some((target.id.as_str(), built.plan.is_done()));
        let Some(from) = observed(cr).filter(|from| from.id != target.id) else {
            return self.close(None, runs, now).await;
        };
        let change = super::courses::change(&from.id, target, cr, &self.settings);
        if history.is_over(change) {
            // An answer was lost, or a leader went, between the plan's last write and the CR's: it is told already.
            return self.close(None, runs, now).await;
        }
        let current = history.of(change);
        let name = match current {
            Some(plan) => plan.metadata.name.clone().unwrap_or_default(),
            None => {
                format!("upgrade-{}", history.next_number())
            }
        };
        self.close(Some(&name), None, now).await?;
        let old = match current {
            Some(plan) => plan.status.clone(),
            None => {
                let release =
                    |version: &str, id: &str| Release { version: version.to_owned(), deployment_id: id.to_owned() };
                let spec = UpgradePlanSpec {
                    from: release(&from.version, &from.id),
                    to: release(&target.config.kubevirt_version, &target.id),
                    request: None,
                };
                self.make(&name, spec).await?;
                None
            }
        };
        let facts = Facts {
            generation: change.generation,
            operator_version: change.operator_version.to_owned(),
            point_of_no_return: built.point_of_no_return.clone(),
            findings: built.report.findings().to_vec(),
        };
        let new = record::advance(old.as_ref(), &built.plan, &built.snapshot, &built.decision.course, &facts, now);
        let new = refused.map_or(new.clone(), |refused| record::refused(new, refused));
        self.say(&name, old.as_ref(), &new).await
    }

    /// Shows in numbers how the newest change goes or went, with its expected end where a pass saw how far the pods are.
    pub(super) fn show_history(&self, seen: Option<&Snapshot>) {
        let history = self.upgrades.now();
        let Some(plan) = history.newest() else { return };
        let status = status_of(plan);
        let progress = step_with_pods(&status)
            .and_then(|step| seen.map(|seen| progress(seen, &step.name, &plan.spec.to.deployment_id)));
        let expected = seen.and_then(|_| estimate(&status, progress, &history.policy, self.clock.now()));
        self.metrics.upgrade(&status, expected);
    }

    /// Tells how the way back goes.
    pub(super) async fn tell_return(&self, name: &str, back: &Plan, held: Option<&Reason>) -> Result<(), Error> {
        let history = self.upgrades.now();
        let Some(old) = history.plans.get(name).map(|plan| status_of(plan)) else { return Ok(()) };
        if old.state == PlanState::RolledBack {
            return Ok(());
        }
        let new = record::returned(&old, back, held, self.clock.now());
        self.say(name, Some(&old), &new).await
    }

    /// Ends what is recorded as under way when the suite is removed.
    pub(super) async fn leave_history(&self) -> Result<(), Error> {
        self.close(None, None, self.clock.now()).await
    }

    /// Ends what is recorded as under way, is not the present change, and was overtaken by another wish. What leads to the
    /// version that runs came to its end although nobody noted it down; that is certain when everything is done.
    async fn close(&self, present: Option<&str>, runs: Option<(&str, bool)>, now: Timestamp) -> Result<(), Error> {
        for (name, plan) in self.upgrades.now().plans {
            let Some(old) = plan.status.clone().filter(|status| !status.state.is_over()) else { continue };
            if present == Some(name.as_str()) {
                continue;
            }
            let mut new = record::superseded(&old, now);
            match runs {
                Some((id, is_done)) if plan.spec.to.deployment_id == id => {
                    if !is_done {
                        continue;
                    }
                    new.state = PlanState::Succeeded;
                    new.message = None;
                }
                _ => {}
            }
            self.say(&name, Some(&old), &new).await?;
        }
        Ok(())
    }

    /// Makes a new plan, and room for it.
    async fn make(&self, name: &str, spec: UpgradePlanSpec) -> Result<(), Error> {
        let value = serde_json::to_value(UpgradePlan::new(name, spec)).unwrap_or_default();
        let wanted = Object::from_value(value).expect("a plan has a name and its kind is registered");
        let written = self.writer.apply(&wanted, None).await?;
        if let Some(live) = &written.live {
            self.upgrades.wrote(live);
        }
        let history = self.upgrades.now();
        let mut over: Vec<_> = history.plans.values().filter(|plan| status_of(plan).state.is_over()).collect();
        over.sort_by_key(|plan| number(plan));
        let excess = history.plans.len().saturating_sub(HISTORY);
        for plan in over.into_iter().take(excess) {
            let name = plan.metadata.name.clone().unwrap_or_default();
            self.writer.delete(&key(&name), plan.metadata.uid.as_deref()).await?;
            self.upgrades.forgot(&name);
        }
        Ok(())
    }

    /// Writes a plan's status if it is news.
    async fn say(&self, name: &str, old: Option<&UpgradePlanStatus>, new: &UpgradePlanStatus) -> Result<(), Error> {
        if old.is_some_and(|old| !record::is_news(old, new)) {
            return Ok(());
        }
        let tree = |status: Option<&UpgradePlanStatus>| match status.and_then(|s| serde_json::to_value(s).ok()) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let (old, mut changes) = (tree(old), tree(Some(new)));
        for field in old.keys() {
            changes.entry(field.clone()).or_insert(Value::Null);
        }
        let written = self.writer.merge(&key(name), Some("status"), &json!({"status": changes})).await?;
        if let Some(live) = &written.live {
            self.upgrades.wrote(live);
        }
        Ok(())
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::UpgradePlan, None, name)
}
