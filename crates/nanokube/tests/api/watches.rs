//! The watch contract through the API, against a model of a few lines.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use nanokube::{Nanokube, Options, UserInfo};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{config_map, config_maps, options, server};

#[derive(Clone, Debug)]
enum Step {
    /// Create, or relabel.
    Put(u8, bool),
    Delete(u8),
    /// Read what has come, then break the connection and resume.
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3u8, any::<bool>()).prop_map(|(name, red)| Step::Put(name, red)),
        2 => (0..3u8).prop_map(Step::Delete),
        2 => Just(Step::Cut),
    ]
}

type Seen = (String, String);

/// What a watcher of red things must see, in order.
#[derive(Default)]
struct Model {
    live: BTreeMap<String, bool>,
    expected: Vec<Seen>,
}

impl Model {
    fn put(&mut self, name: &str, red: bool) {
        let was = self.live.insert(name.to_owned(), red);
        let kind = match (was == Some(true), red) {
            (false, true) => "ADDED",
            (true, false) => "DELETED",
            // A label that is set again changes nothing, and nothing is written.
            _ => return,
        };
        self.expected.push((kind.to_owned(), name.to_owned()));
    }

    fn delete(&mut self, name: &str) {
        if self.live.remove(name) == Some(true) {
            self.expected.push(("DELETED".to_owned(), name.to_owned()));
        }
    }
}

async fn apply(api: &Api<DynamicObject>, model: &mut Model, step: &Step) {
    let text = |red: bool| if red { "red" } else { "blue" };
    match step {
        Step::Put(name, red) => {
            let name = format!("c{name}");
            let labels = json!({"colour": text(*red)});
            if model.live.contains_key(&name) {
                let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
                api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
            } else {
                api.create(&PostParams::default(), &config_map(&name, labels)).await.unwrap();
            }
            model.put(&name, *red);
        }
        Step::Delete(name) => {
            let name = format!("c{name}");
            let there = api.delete(&name, &Default::default()).await.is_ok();
            assert_eq!(there, model.live.contains_key(&name));
            model.delete(&name);
        }
        Step::Cut => {}
    }
}

/// Reads until the stream ends (its timeout is short) and remembers where.
async fn drain(api: &Api<DynamicObject>, version: &mut String, seen: &mut Vec<Seen>) {
    let params = WatchParams::default().labels("colour=red").timeout(1);
    let mut stream = api.watch(&params, version).await.unwrap().boxed();
    let mut last = version.parse::<u64>().unwrap();
    while let Some(event) = stream.next().await {
        let (kind, object) = match event.unwrap() {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark(bookmark) => {
                version.clone_from(&bookmark.metadata.resource_version);
                continue;
            }
            WatchEvent::Error(status) => panic!("{status:?}"),
        };
        let now = object.metadata.resource_version.clone().unwrap();
        assert!(now.parse::<u64>().unwrap() > last, "versions only grow");
        last = now.parse().unwrap();
        *version = now;
        seen.push((kind.to_owned(), object.metadata.name.unwrap()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_filtered_watcher_that_resumes_sees_the_model(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let server = Nanokube::new(options());
            let api = config_maps(&server.client(UserInfo::admin()));
            let mut model = Model::default();
            let mut version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
            let mut seen = Vec::new();
            for step in &steps {
                apply(&api, &mut model, step).await;
                if matches!(step, Step::Cut) {
                    drain(&api, &mut version, &mut seen).await;
                    assert_eq!(seen, model.expected);
                }
            }
            drain(&api, &mut version, &mut seen).await;
            assert_eq!(seen, model.expected);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_compacted_version_is_gone() {
    let server = server();
    let api = config_maps(&server.client(UserInfo::admin()));
    api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let old = server.revision() - 1;
    server.compact(server.revision());
    let mut stream = api.watch(&WatchParams::default(), &old.to_string()).await.unwrap().boxed();
    match stream.next().await {
        Some(Ok(WatchEvent::Error(status))) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        }
        other => panic!("expected 410, got {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_falls_behind_is_told() {
    let mut few = options();
    few.history = 3;
    let server = Nanokube::new(few);
    let api = config_maps(&server.client(UserInfo::admin()));
    let version = server.revision().to_string();
    let mut stream = api.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    for index in 0..5 {
        api.create(&PostParams::default(), &config_map(&format!("c{index}"), json!({}))).await.unwrap();
    }
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Error(status))) if status.code == 410));
}

#[tokio::test(start_paused = true)]
async fn an_idle_watch_gets_bookmarks_and_ends_at_its_time() {
    let server = server();
    let client = server.client(UserInfo::admin());
    let api = config_maps(&client);
    let params = WatchParams::default().timeout(150);
    let mut stream = api.watch(&params, &server.revision().to_string()).await.unwrap().boxed();
    // Something else moves the version on; the bookmark carries it.
    let secrets = crate::namespaced(&client, "v1", "Secret", "secrets");
    crate::create(&secrets, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})).await;
    let start = tokio::time::Instant::now();
    let mut bookmarks = 0;
    while let Some(event) = stream.next().await {
        let WatchEvent::Bookmark(bookmark) = event.unwrap() else { panic!("nothing happened here") };
        assert_eq!(bookmark.metadata.resource_version, server.revision().to_string());
        bookmarks += 1;
    }
    assert_eq!(bookmarks, 2);
    assert_eq!(start.elapsed(), Duration::from_secs(150));
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_ends_with_its_mark() {
    let server = server();
    let api = config_maps(&server.client(UserInfo::admin()));
    api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let params = WatchParams::default().initial_events();
    let mut stream = api.watch(&params, "0").await.unwrap().boxed();
    assert!(
        matches!(stream.next().await, Some(Ok(WatchEvent::Added(object))) if object.metadata.name.as_deref() == Some("a"))
    );
    let Some(Ok(WatchEvent::Bookmark(mark))) = stream.next().await else { panic!("no bookmark") };
    assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_world() {
    async fn run(seed: u64) -> Vec<Value> {
        let server = Nanokube::new(Options { seed, ..options() });
        let api = config_maps(&server.client(UserInfo::admin()));
        for _ in 0..3 {
            let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}});
            crate::create(&api, value).await;
        }
        let list = api.list(&ListParams::default()).await.unwrap();
        list.items.iter().map(|item| serde_json::to_value(item).unwrap()).collect()
    }
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_version_that_is_not_there_yet_opens_and_waits_for_it() {
    let server = server();
    let api = config_maps(&server.client(UserInfo::admin()));
    let first = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let now: u64 = first.metadata.resource_version.unwrap().parse().unwrap();
    let params = WatchParams::default().timeout(300);
    let mut events = api.watch(&params, &(now + 2).to_string()).await.unwrap().boxed();
    for name in ["b", "c", "d"] {
        api.create(&PostParams::default(), &config_map(name, json!({}))).await.unwrap();
    }
    match events.next().await.expect("an event").expect("a good one") {
        WatchEvent::Added(told) => assert_eq!(told.metadata.name.as_deref(), Some("d")),
        // A bookmark would say that it has seen less than was asked for.
        other => panic!("{other:?}"),
    }
}
