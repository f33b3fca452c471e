//! The watch of one kind of an optional API: open while the API is served, and opened again when it is served again.

use std::sync::Arc;

use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use kubevirt_release::extras::TYPES;
use kubevirt_release::{Kind, ObjectKey};
use kubevirt_runtime::causes::Causes;

use crate::apis::Attempts;
use crate::cache::{Cache, Objects, Source};
use crate::catalogue::{Catalogue, Entries};
use crate::follow::next_served;
use crate::watches::{scope, slim};

/// Keeps the cache up to date with a kind. Never ends.
pub(crate) async fn follow(mut attempts: Attempts, client: Client, namespace: String, cache: Arc<Cache>) {
    let kind = attempts.kind();
    loop {
        attempts.due(|| cache.not_served(kind)).await;
        let (api, config) = scope(kind, client.clone(), &namespace);
        let mut events = std::pin::pin!(watcher(api, config));
        let mut known = Known::new(kind, &cache);
        loop {
            let heed = |error: Option<&watcher::Error>| {
                cache.follows(Source::Kind(kind), error.map(|error| Causes(error).to_string()));
            };
            let event = tokio::select! {
                biased;
                event = next_served(&mut events, kind.plural(), heed) => event,
                () = attempts.gone() => None,
            };
            let Some(event) = event else { break };
            attempts.served();
            known.see(event);
        }
        tracing::info!(%kind, "not served any more, or not yet");
        cache.not_served(kind);
    }
}

/// Where what a watch shows is kept.
struct Known<'a> {
    kind: Kind,
    cache: &'a Cache,
    /// A list that is being read: of objects, or of what is kept of ready-made types.
    listing: Objects,
    entries: Entries,
}

impl<'a> Known<'a> {
    fn new(kind: Kind, cache: &'a Cache) -> Self {
        Self { kind, cache, listing: Objects::new(), entries: Entries::new() }
    }

    fn see(&mut self, event: Event<DynamicObject>) {
        let (kind, cache) = (self.kind, self.cache);
        if TYPES.contains(&kind) {
            return self.see_type(event);
        }
        let key_of = |object: &DynamicObject| ObjectKey::new(kind, object.namespace().as_deref(), &object.name_any());
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                self.listing.insert(key_of(&object), Arc::new(slim(kind, object)));
            }
            Event::InitDone => cache.replace_kind(kind, std::mem::take(&mut self.listing)),
            Event::Apply(object) => cache.store(key_of(&object), slim(kind, object)),
            Event::Delete(object) => cache.left(&key_of(&object), &slim(kind, object)),
        }
    }

    fn see_type(&mut self, event: Event<DynamicObject>) {
        let (kind, cache) = (self.kind, self.cache);
        let is_news = match event {
            Event::Init => {
                self.entries.clear();
                false
            }
            Event::InitApply(object) => {
                Catalogue::add(&mut self.entries, &slim(kind, object));
                false
            }
            Event::InitDone => {
                cache.catalogue.set(kind, std::mem::take(&mut self.entries));
                cache.served(kind);
                false
            }
            Event::Apply(object) => cache.catalogue.store(kind, &slim(kind, object)),
            Event::Delete(object) => cache.catalogue.remove(kind, &object.name_any()),
        };
        if is_news {
            cache.ring();
        }
    }
}
