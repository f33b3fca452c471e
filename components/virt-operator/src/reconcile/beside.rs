//! Writes what stands beside the suite (client required), once the version has been complete. A failure is told in the
//! part's condition and tried again; it fails no pass.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kubevirt_api::kubevirt::{ConditionUpdate, KubeVirt};
use kubevirt_apply::{Error, Outcome};
use kubevirt_release::ObjectKey;
use kubevirt_release::customize::Customizations;
use kubevirt_release::extras::TYPES;
use kubevirt_release::extras::monitoring::account;

use super::apply::Outcomes;
use super::build::inputs;
use super::extras::{Change, Part, Standing, asked_account, standings};
use super::validate::Target;
use super::{Reconciler, World, apply};
use crate::catalogue::Entries;
use crate::contest::Contest;
use crate::watches::SELECTOR;

/// How long a part that was refused is left alone: whoever repairs the cause does not wait long, and a webhook that
/// refuses is not asked more often than it can bear.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// How writing a part failed.
struct Trouble {
    /// None: it may pass by itself, and is no matter for the status.
    message: Option<String>,
    until: Timestamp,
}

/// Troubles of the parts, as passes share them.
#[derive(Default)]
pub struct Troubles(Mutex<BTreeMap<Part, Trouble>>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Part, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&self, part: Part) -> Option<String> {
        self.lock().get(&part).and_then(|trouble| trouble.message.clone())
    }

    fn until(&self, part: Part) -> Option<Timestamp> {
        self.lock().get(&part).map(|trouble| trouble.until)
    }

    /// Takes note of how a part went; tells whether that is news for the status.
    fn note(&self, part: Part, trouble: Option<Trouble>) -> bool {
        let old = self.message(part);
        let new = trouble.as_ref().and_then(|trouble| trouble.message.clone());
        let mut all = self.lock();
        match trouble {
            Some(trouble) => all.insert(part, trouble),
            None => all.remove(&part),
        };
        old != new
    }
}

impl Reconciler {
    /// How each part stands.
    pub(super) fn standings(&self, cr: &KubeVirt, target: &Target, world: &World) -> Vec<Standing> {
        self.accounts.ask(asked_account(&cr.spec, &world.unserved));
        let accounts = self.accounts.namespaces(account(&cr.spec));
        let customizations = Customizations::none();
        let inputs = inputs(cr, world, &target.id, &customizations);
        standings(target, &inputs, world, accounts.as_ref(), &self.settings)
    }

    /// What the parts' conditions say.
    pub(super) fn beside(&self, standings: &[Standing]) -> Vec<ConditionUpdate> {
        standings.iter().map(|one| one.condition(self.troubles.message(one.part).as_deref())).collect()
    }

    /// Writes what is due. When to look again.
    pub(super) async fn write_beside(
        &self,
        cr: &KubeVirt,
        target: &Target,
        standings: Vec<Standing>,
        world: &World,
    ) -> Option<Timestamp> {
        let observed = cr.status.as_ref().and_then(|status| status.observed_deployment_id.as_deref());
        // Nothing of it is needed for a version to be complete; it waits until that has been told.
        if observed != Some(target.id.as_str()) {
            return None;
        }
        let now = self.clock.now();
        let mut next = None;
        for Standing { part, changes, .. } in standings {
            let blocked = self.troubles.until(part).filter(|until| now < *until);
            let due = match (changes.is_empty(), blocked) {
                (true, _) => self.troubles.note(part, None).then_some(now),
                (false, Some(until)) => Some(until),
                (false, None) => Some(self.write_part(part, changes, world).await),
            };
            next = next.into_iter().chain(due).min();
        }
        next
    }

    /// Writes one part as far as it can be written. When to look again: at once, to tell of it, or when it is tried again.
    async fn write_part(&self, part: Part, changes: Vec<Change>, world: &World) -> Timestamp {
        tracing::info!(?part, writes = changes.len(), "writing what stands beside the suite");
        let mut outcomes = Outcomes::new();
        let mut failed = None;
        for change in changes {
            if let Err(error) = self.change(change, world, &mut outcomes).await {
                tracing::warn!(?part, %error, "what stands beside the suite was not written");
                failed = Some(error);
                break;
            }
        }
        self.metrics.wrote(&outcomes);
        let now = self.clock.now();
        let until = now.saturating_add(RETRY).unwrap_or(Timestamp::MAX);
        let trouble = failed.map(|error| {
            let message = error.to_string();
            // Not found is the namespace that somebody named, when it lasts.
            let lasts = matches!(error, Error::Refused { code: 404, .. }) || !super::Error::from(error).is_passing();
            Trouble { message: lasts.then_some(message), until }
        });
        let failed = trouble.is_some();
        let is_news = self.troubles.note(part, trouble);
        if failed && !is_news { until } else { now }
    }

    async fn change(&self, change: Change, world: &World, outcomes: &mut Outcomes) -> Result<(), Error> {
        match change {
            Change::Apply(wanted) => {
                let key = wanted.key();
                let written = self.writer.apply(&wanted, world.objects.get(&key).map(AsRef::as_ref)).await?;
                if let Some(live) = written.live {
                    self.cache.wrote(&key, Contest::of(&wanted, &live, self.clock.now()));
                    self.cache.store(key.clone(), live);
                }
                outcomes.push((key, written.outcome));
            }
            Change::Create(wanted) => {
                let written = self.writer.apply(&wanted, None).await?;
                self.wrote_type(wanted.key(), written.outcome, written.live.as_ref(), outcomes);
            }
            Change::Replace(wanted, version) => {
                let written = self.writer.replace(&wanted, &version).await?;
                self.wrote_type(wanted.key(), written.outcome, written.live.as_ref(), outcomes);
            }
            Change::Delete(key) if TYPES.contains(&key.kind) => {
                let written = self.writer.delete(&key, None).await?;
                match written.live {
                    Some(live) => drop(self.cache.catalogue.store(key.kind, &live)),
                    None => drop(self.cache.catalogue.remove(key.kind, &key.name)),
                }
                outcomes.push((key, written.outcome));
            }
            Change::Delete(key) => apply::delete(&key, world, &self.writer, &self.cache, outcomes).await?,
            Change::DeleteAll(kind) => {
                self.writer.delete_all(kind, SELECTOR).await?;
                // What has finalizers shows itself as going.
                self.cache.catalogue.set(kind, Entries::new());
            }
        }
        Ok(())
    }

    fn wrote_type(&self, key: ObjectKey, outcome: Outcome, live: Option<&serde_json::Value>, outcomes: &mut Outcomes) {
        if let Some(live) = live {
            self.cache.catalogue.store(key.kind, live);
        }
        outcomes.push((key, outcome));
    }
}
