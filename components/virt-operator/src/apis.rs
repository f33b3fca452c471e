//! Which optional APIs the cluster serves, and how it is noticed that one comes or goes.
//!
//! One watch of the metadata of every definition tells which of the interesting ones there are. A kind whose definition
//! is there is listed and followed; when the server answers that it does not know the kind, it counts as not served, and
//! is asked for again when something has changed. Kinds that may come without a definition are tried at first, and again
//! when the connection to the server was interrupted: a server that was configured otherwise has been restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use kubevirt_release::Kind;
use tokio::sync::watch;

use crate::follow::{all, next, stand_still};

/// How many definitions are asked for in one request: they are many on some clusters, and only their names are looked at.
const PAGE: u32 = 50;

/// The first pause when a definition is there and its kind is not served yet: that is a matter of a second.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The longest: a definition that cannot be established is not asked for all the time.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// What is known of the definition of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// All definitions have been listed once.
    listed: bool,
    /// There is one of this kind.
    defined: bool,
    /// Counts up when the server may have become another one.
    reconnected: u64,
}

/// Tells the attempts of each kind. One channel each: several who wait at one channel are woken in no order, and what a
/// run does is to be repeatable.
pub(crate) struct Follower(BTreeMap<Kind, watch::Sender<Known>>);

/// Who follows the definitions, and the attempts to follow each optional kind.
pub(crate) fn apis() -> (Follower, BTreeMap<Kind, Attempts>) {
    let (mut senders, mut attempts) = (BTreeMap::new(), BTreeMap::new());
    for kind in Kind::ALL.iter().copied().filter(|kind| kind.is_optional()) {
        let (sender, apis) = watch::channel(Known::default());
        senders.insert(kind, sender);
        attempts.insert(kind, Attempts { kind, apis, tried: None, defined: false, pause: RETRY_FIRST });
    }
    (Follower(senders), attempts)
}

/// The definition that brings a kind.
fn definition(kind: Kind) -> String {
    format!("{}.{}", kind.plural(), kind.group())
}

/// The optional kind that a definition brings.
fn kind_of(definition_name: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.is_optional() && definition(*kind) == definition_name)
}

impl Follower {
    /// Keeps what is known up to date. Never ends.
    pub(crate) async fn follow(self, client: Client) {
        let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(client);
        let config = watcher::Config { page_size: Some(PAGE), ..all() };
        let mut listing = BTreeSet::new();
        let mut events = std::pin::pin!(watcher(api, config));
        let heed = |error: Option<&watcher::Error>| {
            if error.is_some() {
                self.tell(|_, known| known.reconnected += 1);
            }
        };
        while let Some(event) = next(&mut events, "definitions", heed).await {
            use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
            match event {
                Init => listing.clear(),
                InitApply(object) => listing.extend(kind_of(&object.name_any())),
                InitDone => {
                    let defined = std::mem::take(&mut listing);
                    self.tell(|kind, known| (known.listed, known.defined) = (true, defined.contains(&kind)));
                }
                Apply(object) => self.change(&object.name_any(), true),
                Delete(object) => self.change(&object.name_any(), false),
            }
        }
        stand_still().await;
    }

    fn tell(&self, change: impl Fn(Kind, &mut Known)) {
        self.0.iter().for_each(|(kind, sender)| sender.send_modify(|known| change(*kind, known)));
    }

    fn change(&self, definition: &str, defined: bool) {
        if let Some(sender) = kind_of(definition).and_then(|kind| self.0.get(&kind)) {
            sender.send_if_modified(|known| std::mem::replace(&mut known.defined, defined) != defined);
        }
    }
}

/// The attempts to follow one optional kind.
pub(crate) struct Attempts {
    kind: Kind,
    apis: watch::Receiver<Known>,
    /// What was known at the last attempt; none yet when there was none.
    tried: Option<u64>,
    /// It had a definition then.
    defined: bool,
    pause: Duration,
}

impl Attempts {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Waits until it makes sense to ask for the kind; calls `absent` when it is known not to be served at present.
    pub(crate) async fn due(&mut self, absent: impl Fn()) {
        let tried = self.tried.is_some();
        if tried && self.is_defined() {
            // It is there, and was not served a moment ago.
            absent();
            let pause = self.pause;
            self.pause = (pause * 2).min(RETRY_LONGEST);
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                () = self.gone() => {}
            }
        }
        let (kind, last) = (self.kind, self.tried);
        loop {
            let (is_due, defined, reconnected, listed) = {
                let known = self.apis.borrow_and_update();
                let may_come_unannounced =
                    kind.is_built_in_option() && last.is_none_or(|last| last < known.reconnected);
                let is_due = known.listed && (known.defined || may_come_unannounced);
                (is_due, known.defined, known.reconnected, known.listed)
            };
            if is_due {
                (self.tried, self.defined) = (Some(reconnected), defined);
                return;
            }
            if listed {
                absent();
                self.pause = RETRY_FIRST;
            }
            if self.apis.changed().await.is_err() {
                // Whoever followed the definitions has ended, and with it the process.
                stand_still().await;
            }
        }
    }

    /// The kind was served; the next failure is a new one.
    pub(crate) fn served(&mut self) {
        self.pause = RETRY_FIRST;
    }

    fn is_defined(&self) -> bool {
        self.apis.borrow().defined
    }

    /// Waits until the kind, if it had a definition at the last attempt, has lost it.
    pub(crate) async fn gone(&mut self) {
        let was_defined = self.defined;
        let gone = self.apis.wait_for(|known| was_defined && !known.defined);
        if gone.await.is_err() {
            stand_still().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn definitions_are_found_by_the_kinds_they_bring() {
        assert_eq!(kind_of("servicemonitors.monitoring.coreos.com"), Some(Kind::ServiceMonitor));
        assert_eq!(kind_of("services."), None, "it is no optional kind");
        assert_eq!(kind_of("widgets.example.com"), None);
    }

    async fn is_due(attempts: &mut Attempts, absent: &Cell<bool>) -> bool {
        let due = attempts.due(|| absent.set(true));
        tokio::time::timeout(Duration::from_millis(1), due).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_tried_when_its_definition_comes_and_absent_until_then() {
        let (follower, mut all) = apis();
        let (mut monitors, absent) = (all.remove(&Kind::ServiceMonitor).expect("optional"), Cell::new(false));
        assert!(!is_due(&mut monitors, &absent).await);
        assert!(!absent.get(), "nothing is known yet");
        follower.tell(|_, known| known.listed = true);
        assert!(!is_due(&mut monitors, &absent).await);
        assert!(absent.get());
        follower.change("servicemonitors.monitoring.coreos.com", true);
        assert!(is_due(&mut monitors, &absent).await);
        // It is not served yet: it is tried again after a pause.
        let again = monitors.due(|| ());
        assert!(tokio::time::timeout(RETRY_FIRST * 2, again).await.is_ok());
        monitors.served();
        follower.change("servicemonitors.monitoring.coreos.com", false);
        monitors.gone().await;
        assert!(!is_due(&mut monitors, &absent).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_come_unannounced_is_tried_at_first_and_when_the_server_may_be_another() {
        let (follower, mut all) = apis();
        let (mut policies, absent) =
            (all.remove(&Kind::ValidatingAdmissionPolicy).expect("optional"), Cell::new(false));
        follower.tell(|_, known| known.listed = true);
        assert!(is_due(&mut policies, &absent).await);
        assert!(!is_due(&mut policies, &absent).await, "it was not served, and nothing has changed");
        assert!(absent.get());
        follower.tell(|_, known| known.reconnected += 1);
        assert!(is_due(&mut policies, &absent).await);
    }
}
