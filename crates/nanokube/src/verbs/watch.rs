//! Watch: a stream of events from a version on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Target, read, render};
use crate::core::Core;
use crate::faults::{Call, OnEvent};
use crate::filter::Filter;
use crate::identity::UserInfo;
use crate::kinds::Keeping;
use crate::registry::Resource;
use crate::reply::{JSON, Reply, Shape, negotiate};
use crate::request::{ListOptions, RequestInfo};
use crate::status::ApiError;
use crate::store::{Change, Cursor, Event, Revision, Stored};
use crate::table;

/// A watch without `timeoutSeconds` ends after this time; a real server draws 30 to 60 minutes, a fixed one repeats.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);
/// How often an idle watch with bookmarks learns the current version: about as often as a real server sends them.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How often a watch that tells nothing else sends a bookmark: often enough that a short silence has several.
const QUIET_BOOKMARK: Duration = Duration::from_secs(5);

pub(super) fn watch(target: &Target<'_>) -> Result<Reply, ApiError> {
    let shape = negotiate(&target.context.accept)?;
    let options = ListOptions::parse(target.query(), true)?;
    let filter = read::filter(target, &options)?;
    let (core, resource) = (target.core.clone(), target.resource.clone());
    let from = options.resource_version.unwrap_or(0);
    let initial = options.send_initial_events.unwrap_or(from == 0);
    let mut pending = VecDeque::new();
    let namespace = if resource.namespaced { target.path.namespace.as_str() } else { "" };
    let opened = if initial {
        if from > core.store.revision() {
            return Err(ApiError::future_version(from, core.store.revision()));
        }
        let (mut snapshot, mut cursor) = core.store.list_and_watch(&resource.key, namespace);
        if from == 0 {
            let read = core.faults.read(crate::server::call(target.context));
            snapshot = read::replica(target, snapshot, read);
            // The replica goes on from where it is.
            cursor = core.store.watch(&resource.key, snapshot.revision).unwrap_or(cursor);
        }
        let chosen = snapshot.objects.into_iter().filter(|(name, stored)| filter.sees(name, stored));
        pending.extend(chosen.map(|(_, stored)| Item::Initial(stored)));
        if options.send_initial_events == Some(true) && options.bookmarks {
            pending.push_back(Item::InitialEnd(snapshot.revision));
        }
        Ok(cursor)
    } else if options.send_initial_events == Some(false) && from == 0 {
        Ok(core.store.list_and_watch(&resource.key, namespace).1)
    } else {
        core.store.watch(&resource.key, from)
    };
    let cursor = match opened {
        Ok(cursor) => Some(cursor),
        Err(error @ crate::store::StoreError::Compacted { .. }) => {
            pending.push_back(Item::Failed(read::store_error(&error)));
            None
        }
        // It opens, and tells what comes after that version.
        Err(crate::store::StoreError::Future { .. }) => Some(core.store.list_and_watch(&resource.key, namespace).1),
        Err(error) => return Err(read::store_error(&error)),
    };
    let now = Instant::now();
    let view = View { shape, query_header: target.query().clone(), resource, filter, header_shown: false };
    let timeout = options.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let watch = Watch {
        core,
        view,
        user: target.context.user.clone(),
        request: target.context.info.clone(),
        user_agent: target.context.user_agent.clone(),
        pending,
        cursor,
        after: from,
        ends: now + timeout,
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        quiet: None,
    };
    let stream = futures::stream::unfold(watch, |mut watch| async move {
        let frame = watch.next().await?;
        Some((frame, watch))
    });
    let content_type = match shape {
        Shape::Full => JSON.to_owned(),
        Shape::Table => format!("{JSON};as=Table;g=meta.k8s.io;v=v1"),
        Shape::Metadata => format!("{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
    };
    Ok(Reply::stream(&content_type, stream.boxed()))
}

enum Item {
    Initial(Arc<Stored>),
    InitialEnd(Revision),
    Event(Arc<Event>),
    Failed(ApiError),
}

struct Watch {
    core: Arc<Core>,
    view: View,
    user: UserInfo,
    request: RequestInfo,
    user_agent: String,
    pending: VecDeque<Item>,
    /// Gone once the watch has failed.
    cursor: Option<Cursor>,
    /// Nothing up to this version is told; it may be in the future.
    after: Revision,
    ends: Instant,
    bookmarks: bool,
    next_bookmark: Instant,
    /// Until when, and at which version, only bookmarks are told.
    quiet: Option<(Instant, Revision)>,
}

impl Watch {
    /// The next frame; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some((until, revision)) = self.quiet {
                if until <= Instant::now() {
                    self.quiet = None;
                } else {
                    tokio::time::sleep_until(until.min(Instant::now() + QUIET_BOOKMARK)).await;
                    if self.bookmarks {
                        return Some(self.view.bookmark(revision, false));
                    }
                    continue;
                }
            }
            while let Some(item) = self.pending.pop_front() {
                let Some(mut frame) = self.view.frame(&self.core, &item) else { continue };
                let revision = match &item {
                    Item::Initial(stored) => stored.revision,
                    Item::Event(event) => event.revision,
                    Item::InitialEnd(_) | Item::Failed(_) => return Some(frame),
                };
                let call = Call { user: &self.user, request: &self.request, user_agent: &self.user_agent, body: &[] };
                match self.core.faults.event(call, revision) {
                    OnEvent::Deliver => {}
                    OnEvent::Delay(time) => tokio::time::sleep(time).await,
                    OnEvent::Cut => return None,
                    OnEvent::Expire => {
                        self.pending.clear();
                        self.cursor = None;
                        let gone = ApiError::expired(&format!("too old resource version: {revision} (injected)"));
                        self.pending.push_back(Item::Failed(gone));
                        continue;
                    }
                    OnEvent::Withhold(time) => {
                        self.pending.push_front(item);
                        tokio::time::sleep(time).await;
                        self.coalesce();
                        // What is left is told, not asked about again.
                        let Some(told) = self.pending.pop_front().and_then(|item| self.view.frame(&self.core, &item))
                        else {
                            continue;
                        };
                        frame = told;
                    }
                    OnEvent::Bookmarks(time) => {
                        self.pending.push_front(item);
                        self.quiet = Some((Instant::now() + time, revision - 1));
                        break;
                    }
                }
                return Some(frame);
            }
            if self.quiet.is_some() {
                continue;
            }
            let cursor = self.cursor.as_mut()?;
            let bookmark_at = if self.bookmarks { self.next_bookmark } else { self.ends };
            tokio::select! {
                biased;
                events = cursor.next() => match events {
                    Ok(events) => {
                        let news = events.into_iter().filter(|event| event.revision > self.after);
                        self.pending.extend(news.map(Item::Event));
                    }
                    Err(error) => {
                        self.cursor = None;
                        self.pending.push_back(Item::Failed(read::store_error(&error)));
                    }
                },
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep_until(bookmark_at) => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    // Nothing is pending and the cursor was empty: everything up to what it has seen was delivered.
                    let seen = cursor.seen();
                    if seen < self.after {
                        continue;
                    }
                    return Some(self.view.bookmark(seen, false));
                }
            }
        }
    }
}

impl Watch {
    /// Takes in everything that has happened and leaves of each object only the way from its first state to its last, in
    /// the order of the last changes.
    fn coalesce(&mut self) {
        while let Some(cursor) = self.cursor.as_mut() {
            match cursor.ready() {
                Ok(events) if events.is_empty() => break,
                Ok(events) => self.pending.extend(events.into_iter().map(Item::Event)),
                Err(error) => {
                    self.cursor = None;
                    self.pending.push_back(Item::Failed(read::store_error(&error)));
                }
            }
        }
        let mut kept: VecDeque<Item> = VecDeque::new();
        for item in std::mem::take(&mut self.pending) {
            let Item::Event(event) = item else {
                kept.push_back(item);
                continue;
            };
            let same = |item: &Item| matches!(item, Item::Event(known) if known.name == event.name);
            let first = kept.iter().position(same).and_then(|index| kept.remove(index));
            let merged = match first {
                Some(Item::Event(first)) => Event::over(&first, &event),
                _ => Some(event),
            };
            kept.extend(merged.map(Item::Event));
        }
        self.pending = kept;
    }
}

/// How one watcher sees events.
struct View {
    shape: Shape,
    query_header: crate::request::Query,
    resource: Arc<Resource>,
    filter: Filter,
    /// Only the first table of a watch carries its columns.
    header_shown: bool,
}

impl View {
    fn frame(&mut self, core: &Core, item: &Item) -> Option<Bytes> {
        match item {
            Item::Initial(stored) => Some(self.object("ADDED", core, stored, None)),
            Item::InitialEnd(revision) => Some(self.bookmark(*revision, true)),
            Item::Failed(error) => Some(line(&json!({"type": "ERROR", "object": error.to_value()}))),
            Item::Event(event) => self.event(core, event),
        }
    }

    fn event(&mut self, core: &Core, event: &Arc<Event>) -> Option<Bytes> {
        let was = event.previous.as_ref().is_some_and(|previous| self.filter.sees(&event.name, previous));
        let is = event.change != Change::Deleted && self.filter.sees(&event.name, &event.object);
        let (kind, natural) = match (was, is) {
            (false, false) => return None,
            (false, true) => ("ADDED", event.change == Change::Added),
            (true, true) => ("MODIFIED", true),
            (true, false) => ("DELETED", event.change == Change::Deleted),
        };
        if kind == "DELETED" && !natural {
            // It left the selection: the last state the watcher knew, at the version of the change.
            let previous = event.previous.as_ref()?;
            let mut value = previous.value.clone();
            value["metadata"]["resourceVersion"] = json!(event.revision.to_string());
            return Some(self.object(kind, core, &Stored::unstored(value), None));
        }
        let shared = natural.then_some(event);
        Some(self.object(kind, core, &event.object, shared))
    }

    /// The frame of an object; most watchers see the same bytes, which the event then keeps.
    fn object(&mut self, kind: &str, core: &Core, stored: &Stored, shared: Option<&Arc<Event>>) -> Bytes {
        let resource = &self.resource;
        match self.shape {
            Shape::Full => {
                let render = || {
                    let mut out = Vec::with_capacity(stored.tail().len() + 128);
                    out.extend_from_slice(b"{\"type\":\"");
                    out.extend_from_slice(kind.as_bytes());
                    out.extend_from_slice(b"\",\"object\":");
                    render::write_object(&mut out, resource, stored);
                    out.extend_from_slice(b"}\n");
                    Bytes::from(out)
                };
                let common = resource.keeping == Keeping::Own && resource.api_version() == resource.stored_as;
                match shared.filter(|_| common) {
                    Some(event) => event.frame_or_init(render),
                    None => render(),
                }
            }
            Shape::Metadata => line(&json!({"type": kind, "object": render::partial(&stored.value)})),
            Shape::Table => {
                let value = render::versioned(resource, &stored.value);
                let version = super::metadata_text(&stored.value, "resourceVersion");
                let now = core.clock.now();
                let mut object = table::table(resource, now, &self.query_header, version, None, &[&value]);
                if std::mem::replace(&mut self.header_shown, true) {
                    object["columnDefinitions"] = Value::Null;
                }
                line(&json!({"type": kind, "object": object}))
            }
        }
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.shape {
            Shape::Full => {
                json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata})
            }
            Shape::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Shape::Table => {
                let object = json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata});
                json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null, "rows": [{"cells": [], "object": object}],
                })
            }
        };
        line(&json!({"type": "BOOKMARK", "object": object}))
    }
}

fn line(value: &Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    Bytes::from(text)
}
