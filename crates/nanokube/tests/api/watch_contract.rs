//! What every watch promises, against a model that is a list of writes.
//!
//! | promise | here |
//! |---|---|
//! | ordered | versions of one watch only grow |
//! | unique | no change is told twice, by one watch or by those that resume it |
//! | resumable | a watch from any version it was told continues without gap |
//! | bookmarkable | a bookmark is never beyond what was told, and can be resumed from |
//! | reliable | every change that matches is told |
//! | filtered | what enters the selection is ADDED, what leaves it DELETED, by label or by name |
//! | atomic | the list at a version is exactly the writes up to it: every revision is one change |
//! | previous state, first state | DELETED carries the last state, ADDED is told only of what was not there |

use std::collections::BTreeMap;

use futures::StreamExt;
use kube::api::{
    Api, DynamicObject, ListParams, Patch, PatchParams, PostParams, VersionMatch, WatchEvent, WatchParams,
};
use nanokube::{Nanokube, UserInfo};
use proptest::prelude::*;
use serde_json::json;

use crate::{config_map, config_maps, options};

#[derive(Clone, Debug)]
enum Step {
    /// Create or change: name, colour, value.
    Put(u8, bool, u8),
    Delete(u8),
    /// A watcher reads what has come and its connection breaks.
    Read(usize),
    /// A watcher reads, idles until it was sent bookmarks, and its connection breaks.
    Idle(usize),
    /// Something else in the store moves on.
    Elsewhere,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8, any::<bool>(), 0..3u8).prop_map(|(name, red, value)| Step::Put(name, red, value)),
        2 => (0..4u8).prop_map(Step::Delete),
        2 => (0..VIEWS.len()).prop_map(Step::Read),
        1 => (0..VIEWS.len()).prop_map(Step::Idle),
        1 => Just(Step::Elsewhere),
    ]
}

/// What one watcher selects.
#[derive(Clone, Copy, Debug)]
enum View {
    All,
    Red,
    Named(&'static str),
}

const VIEWS: [View; 3] = [View::All, View::Red, View::Named("c1")];

impl View {
    fn params(self) -> WatchParams {
        match self {
            Self::All => WatchParams::default(),
            Self::Red => WatchParams::default().labels("colour=red"),
            Self::Named(name) => WatchParams::default().fields(&format!("metadata.name={name}")),
        }
    }

    fn selects(self, name: &str, state: Option<State>) -> bool {
        state.is_some_and(|state| match self {
            Self::All => true,
            Self::Red => state.red,
            Self::Named(wanted) => name == wanted,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    red: bool,
    value: u8,
}

/// One write: its revision, and the object before and after.
#[derive(Clone, Debug)]
struct Write {
    revision: u64,
    name: String,
    before: Option<State>,
    after: Option<State>,
}

/// What a watcher is told: kind, name, revision, value.
type Told = (&'static str, String, u64, u8);

#[derive(Default)]
struct Model {
    live: BTreeMap<String, State>,
    writes: Vec<Write>,
}

impl Model {
    fn write(&mut self, revision: u64, name: &str, after: Option<State>) {
        let before = match after {
            Some(state) => self.live.insert(name.to_owned(), state),
            None => self.live.remove(name),
        };
        self.writes.push(Write { revision, name: name.to_owned(), before, after });
    }

    fn told(&self, view: View, from: u64) -> Vec<Told> {
        let mut out = Vec::new();
        for Write { revision, name, before, after } in self.writes.iter().filter(|write| write.revision > from) {
            let (kind, shown) = match (view.selects(name, *before), view.selects(name, *after)) {
                (false, false) => continue,
                (false, true) => ("ADDED", after),
                (true, true) => ("MODIFIED", after),
                (true, false) => ("DELETED", before),
            };
            out.push((kind, name.clone(), *revision, shown.expect("selected").value));
        }
        out
    }

    /// The objects after the writes up to `revision`.
    fn at(&self, revision: u64) -> BTreeMap<String, u8> {
        let mut live = BTreeMap::new();
        for write in self.writes.iter().take_while(|write| write.revision <= revision) {
            match write.after {
                Some(state) => live.insert(write.name.clone(), state.value),
                None => live.remove(&write.name),
            };
        }
        live
    }
}

struct Watcher {
    view: View,
    start: u64,
    /// Where the next watch begins.
    position: u64,
    told: Vec<Told>,
}

impl Watcher {
    async fn read(&mut self, api: &Api<DynamicObject>, seconds: u32) {
        let params = self.view.params().timeout(seconds);
        let mut stream = api.watch(&params, &self.position.to_string()).await.unwrap().boxed();
        let mut marks = 0;
        while let Some(event) = stream.next().await {
            let (kind, object) = match event.unwrap() {
                WatchEvent::Added(object) => ("ADDED", object),
                WatchEvent::Modified(object) => ("MODIFIED", object),
                WatchEvent::Deleted(object) => ("DELETED", object),
                WatchEvent::Bookmark(mark) => {
                    let revision = mark.metadata.resource_version.parse().unwrap();
                    assert!(revision >= self.position, "a bookmark leads back");
                    self.position = revision;
                    marks += 1;
                    continue;
                }
                WatchEvent::Error(status) => panic!("{status:?}"),
            };
            let revision: u64 = object.metadata.resource_version.as_deref().unwrap().parse().unwrap();
            assert!(revision > self.position, "ordered and unique: {revision} after {}", self.position);
            self.position = revision;
            let value = object.data["data"]["a"].as_str().unwrap().parse().unwrap();
            self.told.push((kind, object.metadata.name.unwrap(), revision, value));
        }
        assert!(seconds < 60 || marks > 0, "an idle watch is sent bookmarks");
    }
}

async fn play(steps: &[Step]) {
    let server = Nanokube::new(options());
    let client = server.client(UserInfo::admin());
    let (api, secrets) = (config_maps(&client), crate::namespaced(&client, "v1", "Secret", "secrets"));
    let start = server.revision();
    let mut model = Model::default();
    let mut watchers = VIEWS.map(|view| Watcher { view, start, position: start, told: Vec::new() });
    for step in steps {
        match step {
            Step::Put(name, red, value) => {
                let (name, state) = (format!("c{name}"), State { red: *red, value: *value });
                let labels = json!({"colour": if *red { "red" } else { "blue" }});
                if let Some(known) = model.live.get(&name) {
                    let patch = json!({"metadata": {"labels": labels}, "data": {"a": value.to_string()}});
                    api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
                    if *known == state {
                        continue;
                    }
                } else {
                    let mut object = config_map(&name, labels);
                    object.data["data"]["a"] = json!(value.to_string());
                    api.create(&PostParams::default(), &object).await.unwrap();
                }
                model.write(server.revision(), &name, Some(state));
            }
            Step::Delete(name) => {
                let name = format!("c{name}");
                if api.delete(&name, &Default::default()).await.is_ok() {
                    model.write(server.revision(), &name, None);
                }
            }
            Step::Read(index) => watchers[*index].read(&api, 1).await,
            Step::Idle(index) => watchers[*index].read(&api, 90).await,
            Step::Elsewhere => {
                let value = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "s-"}});
                crate::create(&secrets, value).await;
            }
        }
    }
    for watcher in &mut watchers {
        watcher.read(&api, 1).await;
        assert_eq!(watcher.told, model.told(watcher.view, watcher.start), "{:?}", watcher.view);
    }
    for write in &model.writes {
        // Resumable from anywhere, also by one that never watched before.
        let mut late = Watcher { view: View::Red, start: write.revision, position: write.revision, told: Vec::new() };
        late.read(&api, 1).await;
        assert_eq!(late.told, model.told(View::Red, write.revision));
        let exact = ListParams::default().at(&write.revision.to_string()).matching(VersionMatch::Exact);
        let listed: BTreeMap<String, u8> = api
            .list(&exact)
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|item| (item.metadata.name.unwrap(), item.data["data"]["a"].as_str().unwrap().parse().unwrap()))
            .collect();
        assert_eq!(listed, model.at(write.revision), "the state at {}", write.revision);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn watches_keep_their_promises(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(&steps));
    }
}
