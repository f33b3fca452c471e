//! Writes of a change of version that the server refuses: since when, so that a change that cannot go on is undone, and said
//! where people look how it goes.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_upgrade::{Refused, record};

use super::build::observed;
use super::validate::Target;
use super::{Error, Reconciler};
use crate::upgrades::status_of;

/// What was refused last, and on the way to the deployment of which ID. Only in memory: whoever leads next gives it the whole
/// time again.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Option<(String, Refused)>>);

impl Refusals {
    /// What is refused on the way to the deployment of an ID.
    pub(super) fn of(&self, id: &str) -> Option<Refused> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(of, _)| of == id).map(|(_, refused)| refused.clone())
    }

    /// Takes note of a refusal. It lasts since the first one after which nothing went through.
    fn note(&self, id: &str, error: &kubevirt_apply::Error, now: Timestamp) -> Refused {
        let since = self.of(id).map_or(now, |known| known.since);
        let refused = Refused { object: error.key().clone(), why: error.to_string(), since };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((id.to_owned(), refused.clone()));
        refused
    }

    /// Everything that was due was written.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Reconciler {
    /// Takes note of a write that was refused on the way to another version, and tells it in the change's record.
    pub(super) async fn refused(&self, cr: &KubeVirt, target: &Target, error: &Error) -> Result<(), Error> {
        let Error::Write(error) = error else { return Ok(()) };
        let Some(from) = observed(cr).filter(|from| from.id != target.id) else { return Ok(()) };
        let refused = self.refusals.note(&target.id, error, self.clock.now());
        let history = self.upgrades.now();
        let change = super::courses::change(&from.id, target, cr, &self.settings);
        let record = history.of(change).and_then(|plan| Some((plan.metadata.name.clone()?, status_of(plan))));
        let Some((name, old)) = record.filter(|(_, status)| !status.state.is_over()) else { return Ok(()) };
        self.say(&name, Some(&old), &record::refused(&old, &refused)).await?;
        self.show_history(None);
        Ok(())
    }
}
