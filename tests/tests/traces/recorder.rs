//! Follows the cluster and writes down what changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Client;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::facets::{Facets, difference, facets};
use crate::kinds::{KINDS, Kind};
use crate::ledger::Ledger;
use crate::names::Names;

/// Everything that follows from a write without time passing has arrived within this.
const SETTLE: Duration = Duration::from_millis(1);

/// Widths of the columns `who` and `what`.
const WHO: usize = 11;
const WHAT: usize = 32;

/// One write, seen through a watch.
struct Seen {
    revision: u64,
    kind: Kind,
    object: Value,
    gone: bool,
}

pub(crate) struct Recorder {
    ledger: Ledger,
    events: mpsc::UnboundedReceiver<(Kind, Event<DynamicObject>)>,
    _watches: JoinSet<()>,
    objects: BTreeMap<(Kind, String, String), Value>,
    pub(crate) names: Names,
    pending: Vec<Seen>,
    zero: Instant,
    shown: BTreeSet<Kind>,
    hidden: BTreeSet<String>,
    pub(crate) text: String,
}

fn part<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"][name].as_str().unwrap_or_default()
}

fn key(kind: Kind, object: &Value) -> (Kind, String, String) {
    (kind, part(object, "namespace").to_owned(), part(object, "name").to_owned())
}

impl Recorder {
    /// Follows all kinds that scripts can name.
    pub(crate) fn new(client: &Client, ledger: Ledger) -> Self {
        let (to, events) = mpsc::unbounded_channel();
        let mut watches = JoinSet::new();
        for kind in KINDS {
            let (to, api) = (to.clone(), kind.everywhere(client.clone()));
            watches.spawn(async move {
                let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()));
                while let Some(event) = stream.next().await {
                    let event = event.unwrap_or_else(|error| panic!("the watch of {} failed: {error}", kind.word));
                    if to.send((*kind, event)).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            ledger,
            events,
            _watches: watches,
            objects: BTreeMap::new(),
            names: Names::default(),
            pending: Vec::new(),
            zero: Instant::now(),
            shown: BTreeSet::new(),
            hidden: BTreeSet::new(),
            text: String::new(),
        }
    }

    /// Time starts here.
    pub(crate) fn start(&mut self) {
        self.zero = Instant::now();
    }

    pub(crate) fn show(&mut self, kinds: &[Kind]) {
        self.shown.extend(kinds);
    }

    pub(crate) fn hide(&mut self, reasons: &[String]) {
        self.hidden.extend(reasons.iter().cloned());
    }

    /// The object of a kind and name, as last seen.
    pub(crate) fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, namespace.to_owned(), name.to_owned()))
    }

    /// The objects of a kind.
    pub(crate) fn objects(&self, kind: Kind) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |((known, ..), _)| *known == kind).map(|(_, object)| object)
    }

    /// Takes in events until the deadline, or until `done` holds after an event. Whether it holds.
    pub(crate) async fn follow(&mut self, deadline: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some((kind, event))) => {
                    self.absorb(kind, event);
                    self.settle().await;
                }
                Ok(None) => panic!("every watch ended"),
                Err(_) => return done(self),
            }
        }
    }

    /// Takes in everything that has happened by now.
    pub(crate) async fn settle(&mut self) {
        tokio::time::sleep(SETTLE).await;
        while let Ok((kind, event)) = self.events.try_recv() {
            self.absorb(kind, event);
        }
        self.pending.sort_by_key(|seen| seen.revision);
        for seen in std::mem::take(&mut self.pending) {
            self.note(seen);
        }
    }

    fn absorb(&mut self, kind: Kind, event: Event<DynamicObject>) {
        let (object, gone) = match event {
            Event::InitApply(object) | Event::Apply(object) => (object, false),
            Event::Delete(object) => (object, true),
            Event::Init | Event::InitDone => return,
        };
        let revision = object.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        let object = serde_json::to_value(&object).expect("an object is JSON");
        self.pending.push(Seen { revision, kind, object, gone });
    }

    fn note(&mut self, seen: Seen) {
        let Seen { revision, kind, object, gone } = seen;
        self.names.learn(kind, &object);
        let key = key(kind, &object);
        let before = if gone { self.objects.remove(&key) } else { self.objects.insert(key, object.clone()) };
        if !self.shown.contains(&kind) {
            return;
        }
        let (what, change) = if kind.word == "event" {
            match self.told(before.as_ref(), &object).filter(|_| !gone) {
                Some(told) => told,
                None => return,
            }
        } else {
            let what = format!("{} {}", kind.word, self.title(&object));
            let after = facets(kind, &object, &self.names);
            let change = match before.filter(|before| before["metadata"]["uid"] == object["metadata"]["uid"]) {
                _ if gone => "gone".to_owned(),
                None => created(&after),
                Some(before) => difference(&facets(kind, &before, &self.names), &after).join("; "),
            };
            (what, change)
        };
        if change.is_empty() {
            return;
        }
        let (who, at) = self.ledger.writer(revision).unwrap_or_else(|| ("server".to_owned(), Instant::now()));
        self.line(at, &who, &what, &change);
    }

    /// An object's name; with its namespace if that is not the usual one.
    fn title(&self, object: &Value) -> String {
        let name = self.names.of(part(object, "name"));
        match part(object, "namespace") {
            "" | "default" => name,
            namespace => format!("{namespace}/{name}"),
        }
    }

    /// What an Event for users is about, and what it says.
    fn told(&self, before: Option<&Value>, event: &Value) -> Option<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let count = event["count"].as_i64().unwrap_or(1);
        let reason = text(&event["reason"]);
        if self.hidden.contains(&reason) || before.is_some_and(|before| before["count"] == event["count"]) {
            return None;
        }
        let about = &event["involvedObject"];
        let kind = text(&about["kind"]);
        let word = Kind::of(&kind).map_or(kind, |kind| kind.word.to_owned());
        let subject = Value::from_iter([(
            "metadata",
            serde_json::json!({"name": about["name"], "namespace": about["namespace"]}),
        )]);
        let what = format!("{word} {}", self.title(&subject));
        let times = if count > 1 { format!(" (x{count})") } else { String::new() };
        let kind = text(&event["type"]);
        let component = text(&event["source"]["component"]);
        let message = self.names.replaced(&text(&event["message"]));
        Some((what, format!("{kind} {reason} by {component}: {message}{times}")))
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, at: Instant, who: &str, what: &str, change: &str) {
        let at = at.saturating_duration_since(self.zero).as_secs_f64();
        let line = format!("{at:9.3}  {who:<WHO$}  {what:<WHAT$}  {change}");
        let _ = writeln!(self.text, "{}", line.trim_end());
    }

    /// The objects of a kind as a table.
    pub(crate) fn table(&mut self, kind: Kind) {
        let mut rows: Vec<(String, Facets)> =
            self.objects(kind).map(|object| (self.title(object), facets(kind, object, &self.names))).collect();
        rows.sort();
        let mut labels: Vec<&'static str> = Vec::new();
        for label in rows.iter().flat_map(|(_, facets)| facets.iter().map(|(label, _)| *label)) {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        let mut table = vec![
            [kind.word.to_owned()]
                .into_iter()
                .chain(labels.iter().map(|label| (*label).to_owned()))
                .collect::<Vec<_>>(),
        ];
        for (title, facets) in rows {
            let value = |label: &&str| {
                facets.iter().find(|(known, _)| known == label).map_or("-".to_owned(), |(_, value)| value.clone())
            };
            table.push([title].into_iter().chain(labels.iter().map(value)).collect());
        }
        let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=labels.len()).map(width).collect();
        for row in &table {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(self.text, "           {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

fn created(facets: &Facets) -> String {
    let values: Vec<String> = facets.iter().map(|(label, value)| format!("{label} {value}")).collect();
    if values.is_empty() { "created".to_owned() } else { format!("created; {}", values.join("; ")) }
}
