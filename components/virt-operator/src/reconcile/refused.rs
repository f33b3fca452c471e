//! Writes of a change of version that the server refuses: since when, so that a change that cannot go on is undone, and said
//! where people look how it goes.

use std::sync::{Mutex, PoisonError};

use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_upgrade::{Course, Refused};

use super::build::{Built, observed};
use super::validate::Target;
use super::{Error, Reconciler};

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

    /// Takes note of a refusal, and gives it with how long it has lasted.
    fn note(&self, id: &str, refused: Refused) -> Refused {
        let refused = refused.again(self.of(id).as_ref());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((id.to_owned(), refused.clone()));
        refused
    }

    /// Everything that was due was written.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Reconciler {
    /// Takes note of a write that was refused on the way to another version, and tells it in the change's record. What is
    /// written of a change that somebody holds is not what holds it.
    pub(super) async fn refused(
        &self,
        cr: &KubeVirt,
        target: &Target,
        built: &Built,
        error: &Error,
    ) -> Result<(), Error> {
        let Error::Write(error) = error else { return Ok(()) };
        let is_change = observed(cr).is_some_and(|from| from.id != target.id);
        if !is_change || built.decision.course != Course::Forward {
            return Ok(());
        }
        let now = self.clock.now();
        let refused = Refused { object: error.key().clone(), why: error.to_string(), since: now, last: now };
        let refused = self.refusals.note(&target.id, refused);
        self.tell_history(cr, target, built, Some(&refused)).await?;
        self.show_history(Some(&built.snapshot));
        Ok(())
    }
}
