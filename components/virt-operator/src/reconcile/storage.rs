//! Stores objects anew that may lie in a version of their definition which is not the storage version any more, and takes
//! those versions off the definition's record (client required). Each pass does a small part, last of all it does.
//!
//! What there is to do is read from the definitions; what is kept here is how far a walk through the objects of one has
//! come. Whoever leads next begins that walk anew, and an object that was written already is not written again by the
//! server.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kubevirt_api::kubevirt::{ConditionType, ConditionUpdate, KubeVirt, Reason};
use kubevirt_apply::{Outcome, Seen};
use kubevirt_release::{Kind, ObjectKey};
use kubevirt_upgrade::preflight::Finding;
use kubevirt_upgrade::storage::{Migration, migrations};
use kubevirt_upgrade::{Course, stands_still};

use super::build::{Built, observed};
use super::snapshot::is_stamped;
use super::validate::Target;
use super::{Reconciler, World};

/// How many objects are read and written in one pass: a request of some milliseconds for each, webhooks included, so that
/// whatever else is to be done has its turn several times a second, and no more than these are held in memory. Five
/// thousand machines take a hundred passes.
const AT_ONCE: u32 = 50;

/// How long a server is left alone that could not answer: as for other things that can wait.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// How often in a row nobody has answered before it is told: once passes by itself.
const TOLD_AFTER: u32 = 2;

/// How long a definition is left alone of which an object was refused. All of its objects are gone through again then:
/// whoever repairs the cause waits for minutes, and thousands of objects are asked for eight times a second at most.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// Where a walk through the objects of a definition is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Before the page that this token stands for; `None` is the first.
    Before(Option<String>),
    End,
}

impl Default for Place {
    fn default() -> Self {
        Self::Before(None)
    }
}

/// A walk through the objects of a definition.
#[derive(Debug)]
struct Walk {
    of: Migration,
    place: Place,
    written: usize,
    /// How many objects were refused, and how the first was.
    refused: Option<(usize, String)>,
}

impl Walk {
    fn new(of: Migration) -> Self {
        Self { of, place: Place::default(), written: 0, refused: None }
    }
}

/// What became of a part of a walk.
#[derive(Debug, Default)]
struct Page {
    written: usize,
    refused: Option<(usize, String)>,
    next: Place,
}

/// A definition of which something was refused.
#[derive(Debug)]
struct Refused {
    of: Migration,
    why: String,
    until: Timestamp,
}

/// Nobody answered.
#[derive(Debug)]
struct Silence {
    why: String,
    times: u32,
    until: Timestamp,
}

#[derive(Debug, Default)]
struct Known {
    walk: Option<Walk>,
    refused: BTreeMap<String, Refused>,
    silence: Option<Silence>,
}

/// How far it has come, as passes share it.
#[derive(Debug, Default)]
pub struct Storage(Mutex<Known>);

/// How an attempt failed.
enum Failure {
    /// It is tried again where it failed.
    Passing(String),
    /// As [`Self::Passing`], but from the beginning: the server does not know any more where it was.
    Expired(String),
    Lasting(String),
}

impl Failure {
    fn of(error: super::Error) -> Self {
        let why = error.to_string();
        if error.is_passing() { Self::Passing(why) } else { Self::Lasting(why) }
    }
}

/// What is to be done, and why not now.
#[derive(Debug)]
pub(super) struct Task {
    due: Vec<Migration>,
    waits: Option<&'static str>,
}

/// The task as the definitions of the suite have it.
pub(super) fn task(cr: &KubeVirt, target: &Target, built: &Built, world: &World) -> Task {
    let ours =
        world.objects.iter().filter(|(key, live)| key.kind == Kind::CustomResourceDefinition && is_stamped(live));
    let due = migrations(ours.map(|(_, live)| live.as_ref()));
    // A change that was not begun because of such objects waits for this, not the other way round.
    let is_waited_for = match &built.decision.course {
        Course::Held(kubevirt_upgrade::Reason::PreflightFailed { finding }) => {
            matches!(finding, Finding::StoredVersionLost { .. })
        }
        Course::Forward | Course::Held(_) | Course::Back(_) => false,
    };
    let is_complete = observed(cr).is_some_and(|observed| observed.id == target.id);
    let waits = if stands_still(&world.upgrades.policy, None).is_some() {
        Some("the UpgradePolicy says paused")
    } else if is_waited_for || is_complete {
        None
    } else {
        Some("the version is being changed")
    };
    Task { due, waits }
}

impl Storage {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the condition says; there is none when nothing is to be done.
    pub(super) fn condition(&self, task: &Task) -> Option<ConditionUpdate> {
        let Task { due, waits } = task;
        let first = due.first()?;
        let known = self.lock();
        let silence = known.silence.as_ref().filter(|silence| silence.times >= TOLD_AFTER);
        let refused = due.iter().find_map(|one| Some((one, &known.refusal(one)?.why)));
        let refused = refused.or_else(|| silence.map(|silence| (first, &silence.why)));
        let (reason, message) = match (waits, refused) {
            (Some(waits), _) => {
                let names: Vec<&str> = due.iter().map(|one| &*one.definition).collect();
                let message = format!("Objects of {} are stored anew later: {waits}", names.join(", "));
                (Reason::StorageMigrationWaits, message)
            }
            (None, Some((one, why))) => {
                let Migration { definition, old, .. } = one;
                let old = old.join(", ");
                let message = format!("Objects of {definition} stay stored in {old} and are tried again: {why}");
                (Reason::StorageMigrationRefused, message)
            }
            (None, None) => {
                let Migration { definition, storage, old, .. } = known.walk.as_ref().map_or(first, |walk| &walk.of);
                let written = known.walk.as_ref().map_or(0, |walk| walk.written);
                let message = format!(
                    "Objects of {definition} are stored anew in {storage} instead of {}: {written} so far; {} of such \
                     definitions left",
                    old.join(", "),
                    due.len()
                );
                (Reason::StorageMigrationInProgress, message)
            }
        };
        Some(ConditionUpdate::new(ConditionType::StoredVersionsCurrent, false, reason, message))
    }
}

impl Known {
    /// How something of this very definition was refused.
    fn refusal(&self, of: &Migration) -> Option<&Refused> {
        self.refused.get(&of.definition).filter(|refused| refused.of == *of)
    }

    fn refuse(&mut self, of: Migration, why: String, until: Timestamp) {
        self.refused.insert(of.definition.clone(), Refused { of, why, until });
    }

    /// The definition whose turn it is; the one that was begun stays it.
    fn next(&self, due: &[Migration], now: Timestamp) -> Option<Migration> {
        let rests = |one: &&Migration| self.refusal(one).is_some_and(|refused| now < refused.until);
        let begun = self.walk.as_ref().and_then(|walk| due.iter().find(|one| **one == walk.of));
        begun.or_else(|| due.iter().find(|one| !rests(one))).cloned()
    }
}

impl Reconciler {
    /// Does a part of the task. When to look again.
    pub(super) async fn store_anew(&self, task: Task, world: &World) -> Option<Timestamp> {
        let Task { due, waits } = task;
        let now = self.clock.now();
        let mut walk = {
            let mut known = self.storage.lock();
            known.refused.retain(|_, refused| due.contains(&refused.of));
            if due.is_empty() || waits.is_some() {
                *known = Known { refused: std::mem::take(&mut known.refused), ..Known::default() };
                return None;
            }
            if let Some(silence) = known.silence.as_ref().filter(|silence| now < silence.until) {
                return Some(silence.until);
            }
            let Some(next) = known.next(&due, now) else {
                return known.refused.values().map(|refused| refused.until).min();
            };
            known.walk.take().filter(|walk| walk.of == next).unwrap_or_else(|| Walk::new(next))
        };
        let went = self.go_on(&mut walk, world).await;
        let now = self.clock.now();
        let after = |pause| now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        let mut known = self.storage.lock();
        let silence = known.silence.take();
        match went {
            Ok(()) if walk.place != Place::End => known.walk = Some(walk),
            // What was refused is told; what is done vanishes from the definition's record.
            Ok(()) => match walk.refused {
                Some((count, first)) => {
                    known.refuse(walk.of, format!("{count} refused, the first: {first}"), after(AGAIN));
                }
                None => drop(known.refused.remove(&walk.of.definition)),
            },
            Err(Failure::Lasting(why)) => {
                tracing::warn!(definition = walk.of.definition, why, "objects were not stored anew");
                known.refuse(walk.of, why, after(AGAIN));
            }
            Err(Failure::Passing(why) | Failure::Expired(why)) => {
                tracing::warn!(definition = walk.of.definition, why, "storing objects anew is tried again");
                known.walk = Some(walk);
                let times = silence.map_or(0, |silence| silence.times) + 1;
                known.silence = Some(Silence { why, times, until: after(RETRY) });
                // The second time it is told at once.
                return Some(if times == TOLD_AFTER { now } else { after(RETRY) });
            }
        }
        Some(now)
    }

    /// The next page of a walk; after the last one, what ends it, unless an object was refused.
    async fn go_on(&self, walk: &mut Walk, world: &World) -> Result<(), Failure> {
        let definition = ObjectKey::new(Kind::CustomResourceDefinition, None, &walk.of.definition);
        if let Place::Before(token) = &walk.place {
            let page = match self.page(&definition, token.clone(), &walk.of).await {
                Err(Failure::Expired(why)) => {
                    *walk = Walk::new(walk.of.clone());
                    return Err(Failure::Expired(why));
                }
                page => page?,
            };
            walk.written += page.written;
            walk.refused = match (walk.refused.take(), page.refused) {
                (Some((before, first)), Some((more, _))) => Some((before + more, first)),
                (before, now) => before.or(now),
            };
            walk.place = page.next;
        }
        if walk.place != Place::End || walk.refused.is_some() {
            return Ok(());
        }
        // A definition that has changed since is due for another reason, or not at all.
        let Some(live) = world.objects.get(&definition) else { return Ok(()) };
        let Some(end) = walk.of.end(live) else { return Ok(()) };
        let written = self.writer.merge(&definition, Some("status"), &end).await;
        let written = written.map_err(|error| Failure::of(error.into()))?;
        let Walk { of, written: objects, .. } = walk;
        tracing::info!(definition = of.definition, objects, storage = of.storage, old = ?of.old, "stored anew");
        self.metrics.wrote(&vec![(definition.clone(), Outcome::Applied)]);
        if let Some(live) = written.live {
            self.cache.store(definition, live);
        }
        Ok(())
    }

    /// Stores the objects of a page anew.
    async fn page(&self, definition: &ObjectKey, token: Option<String>, of: &Migration) -> Result<Page, Failure> {
        /// The answer of a server that keeps the state no longer which a token stands for.
        const EXPIRED: u16 = 410;
        let Migration { group, kind, plural, through, .. } = of;
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, through, kind), plural);
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &resource);
        let page = ListParams { continue_token: token, ..ListParams::default().limit(AT_ONCE) };
        let page = match api.list_metadata(&page).await {
            Err(kube::Error::Api(status)) if status.code == EXPIRED => {
                return Err(Failure::Expired(status.message.clone()));
            }
            // Its definition is not served yet, or not any more; the caches are about to show it.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(Failure::Passing(status.message.clone()));
            }
            page => page.map_err(|error| Failure::of(error.into()))?,
        };
        let mut done = Page::default();
        for object in page.items {
            let metadata = object.metadata;
            let seen = Seen {
                namespace: metadata.namespace,
                name: metadata.name.unwrap_or_default(),
                resource_version: metadata.resource_version.unwrap_or_default(),
            };
            let stored = self.writer.store_anew(definition, &resource, &seen).await;
            match stored.map_err(|error| Failure::of(error.into())) {
                Ok(()) => done.written += 1,
                Err(Failure::Lasting(why)) => {
                    let name =
                        seen.namespace.map_or(seen.name.clone(), |namespace| format!("{namespace}/{}", seen.name));
                    tracing::warn!(%definition, name, why, "an object was not stored anew");
                    let (count, _) = done.refused.get_or_insert_with(|| (0, format!("{name}: {why}")));
                    *count += 1;
                }
                Err(passing) => return Err(passing),
            }
        }
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        Ok(Page { next: next.map_or(Place::End, |token| Place::Before(Some(token))), ..done })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn migration(name: &str, generation: i64) -> Migration {
        let definition = json!({
            "metadata": {"name": name, "uid": "u", "generation": generation},
            "spec": {"group": "g", "names": {"kind": "Thing", "plural": "things"},
                     "versions": [{"name": "v1", "served": true, "storage": true}]},
            "status": {"storedVersions": ["v0", "v1"]},
        });
        migrations([&definition]).pop().expect("it is due")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn what_was_begun_is_finished_and_what_was_refused_rests_until_it_is_another_definition() {
        let (a, b) = (migration("a", 1), migration("b", 1));
        let due = [a.clone(), b.clone()];
        let mut known = Known { walk: Some(Walk::new(b.clone())), ..Known::default() };
        assert_eq!(known.next(&due, at(0)).as_ref(), Some(&b));
        known.walk = None;
        assert_eq!(known.next(&due, at(0)).as_ref(), Some(&a));
        known.refuse(a.clone(), "no".into(), at(10));
        assert_eq!(known.next(&due, at(9)).as_ref(), Some(&b));
        assert_eq!(known.next(&due, at(10)).as_ref(), Some(&a));
        let changed = [migration("a", 2), b];
        assert_eq!(known.next(&changed, at(9)).as_ref(), Some(&changed[0]), "somebody mended it");
    }

    #[test]
    fn the_condition_is_there_while_something_is_left_and_silence_is_told_when_it_lasts() {
        let storage = Storage::default();
        let reason = |due: &[Migration], waits| {
            let told = storage.condition(&Task { due: due.to_vec(), waits });
            told.map(|told| told.reason)
        };
        let due = [migration("a", 1)];
        assert_eq!(reason(&[], None), None);
        assert_eq!(reason(&due, Some("paused")), Some(Reason::StorageMigrationWaits));
        assert_eq!(reason(&due, None), Some(Reason::StorageMigrationInProgress));
        let silence = |times| Some(Silence { why: "no answer".into(), times, until: at(0) });
        storage.lock().silence = silence(TOLD_AFTER - 1);
        assert_eq!(reason(&due, None), Some(Reason::StorageMigrationInProgress));
        storage.lock().silence = silence(TOLD_AFTER);
        assert_eq!(reason(&due, None), Some(Reason::StorageMigrationRefused));
        storage.lock().silence = None;
        storage.lock().refuse(due[0].clone(), "no".into(), at(10));
        assert_eq!(reason(&due, None), Some(Reason::StorageMigrationRefused));
        assert_eq!(reason(&[migration("a", 2)], None), Some(Reason::StorageMigrationInProgress));
    }
}
