//! Step 4 (client required): carries out the steps of a plan that are due, one write after another, in the plan's order.

use jiff::Timestamp;
use kubevirt_apply::{Error, Outcome, Writer, Written};
use kubevirt_release::ObjectKey;
use kubevirt_upgrade::Form;

use super::World;
use super::build::Built;
use crate::cache::{Cache, text};
use crate::contest::Contest;

/// What was written, in order.
pub type Outcomes = Vec<(ObjectKey, Outcome)>;

/// Writes what the plan says is due. The first failure ends it: later writes may build on the failed one.
///
/// # Errors
/// The write that failed. What was written before stays and is in `outcomes`.
pub(crate) async fn apply(
    built: &Built,
    world: &World,
    writer: &Writer,
    cache: &Cache,
    now: Timestamp,
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    for step in built.plan.now() {
        tracing::info!(step = step.number, name = step.slot.code(), writes = step.apply.len(), "carrying out");
        for key in &step.apply {
            outcomes.push((key.clone(), apply_one(built, key, step.form, world, writer, cache, now).await?));
        }
        for key in &step.delete {
            delete(key, world, writer, cache, outcomes).await?;
        }
    }
    Ok(())
}

async fn apply_one(
    built: &Built,
    key: &ObjectKey,
    form: Form,
    world: &World,
    writer: &Writer,
    cache: &Cache,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let Some(wanted) = built.object(key, form) else {
        return Ok(Outcome::Unchanged);
    };
    let Written { outcome, live } = writer.apply(wanted, world.objects.get(key).map(AsRef::as_ref)).await?;
    if let Some(live) = live {
        let contest = Contest::of(wanted, &live, now);
        if let Some(contest) = &contest {
            tracing::warn!(object = %key, path = contest.path, "a write did not last");
        }
        cache.wrote(key, contest);
        cache.store(key.clone(), live);
    }
    Ok(outcome)
}

/// Deletes one object as it was seen.
///
/// # Errors
/// The deletion failed.
pub(crate) async fn delete(
    key: &ObjectKey,
    world: &World,
    writer: &Writer,
    cache: &Cache,
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    let uid = world.objects.get(key).and_then(|live| text(live, "/metadata/uid"));
    let Written { outcome, live } = writer.delete(key, uid).await?;
    match live {
        Some(live) => cache.store(key.clone(), live),
        None => cache.remove(key, uid),
    }
    outcomes.push((key.clone(), outcome));
    Ok(())
}
