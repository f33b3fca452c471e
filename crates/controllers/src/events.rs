//! Events for users (`v1` Event), counted when they repeat.

use std::collections::BTreeMap;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use kubevirt_runtime::clock::Clock;
use serde_json::json;
use tracing::debug;

use crate::action::Note;

/// How many distinct events are remembered for counting; older ones start anew. A node's worth of pods repeats far fewer.
const REMEMBERED: usize = 4096;

type Seen = BTreeMap<String, (u64, String, i32)>;

/// Writes events. Failing to write one is logged and otherwise ignored: an event is advice, not state.
pub struct Recorder {
    clock: Clock,
    seen: Mutex<(u64, Seen)>,
}

impl Recorder {
    /// A recorder that stamps with `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, seen: Mutex::new((0, Seen::new())) }
    }

    /// Writes one event: a new object, or a higher count on the one that said the same before.
    pub async fn record(&self, client: &Client, note: Note) {
        let now = self.clock.now();
        let namespace = note.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let what = format!(
            "{}|{}|{}|{}|{}|{}",
            note.regarding.uid.as_deref().unwrap_or_default(),
            note.regarding.field_path.as_deref().unwrap_or_default(),
            note.reason,
            note.message,
            note.component,
            note.host.as_deref().unwrap_or_default(),
        );
        let (name, count) = {
            let mut guard = self.seen.lock().expect("no panic while counting events");
            let (turn, seen) = &mut *guard;
            *turn += 1;
            let fresh = || {
                let about = note.regarding.name.as_deref().unwrap_or("unknown");
                let stamp = (now.as_nanosecond() as u64).wrapping_add(*turn);
                (*turn, format!("{about}.{stamp:x}"), 0)
            };
            let entry = seen.entry(what.clone()).or_insert_with(fresh);
            entry.0 = *turn;
            entry.2 += 1;
            let written = (entry.1.clone(), entry.2);
            if seen.len() > REMEMBERED
                && let Some(oldest) = seen.iter().min_by_key(|(_, (turn, ..))| *turn).map(|(key, _)| key.clone())
            {
                seen.remove(&oldest);
            }
            written
        };
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if count > 1 {
            let patch = json!({"count": count, "lastTimestamp": Time(now)});
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return debug!(%error, name, "event not counted"),
            }
        }
        let event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: note.regarding,
            reason: Some(note.reason.to_owned()),
            message: Some(note.message),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            count: Some(count),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(note.component.to_owned()), host: note.host.clone() }),
            reporting_component: Some(note.component.to_owned()),
            reporting_instance: Some(note.host.unwrap_or_default()),
            ..Event::default()
        };
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            debug!(%error, name, "event not written");
        }
    }
}
