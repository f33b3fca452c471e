//! Every fault of a plan does what its name says, ends, and repeats itself from its seed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kubevirt_runtime::net::memory::MemoryNet;
use nanokube::{Fault, FaultPlan, Injector, MemorySink, Misfortune, Nanokube, Options, Scope, UserInfo, trace_hash};
use serde_json::json;
use tokio::time::Instant;

use crate::{code, config_map, config_maps, options};

const MINUTE: Duration = Duration::from_secs(60);

/// A server on which one fault strikes at the `first`-th moment, `times` in a row.
fn struck_by(what: Misfortune, first: u32, times: u32) -> (Nanokube, Api<DynamicObject>, Arc<Injector>) {
    let injector = Arc::new(Injector::new(FaultPlan::of([Fault { number: 1, what, first, times }])));
    let options = options();
    let clock = injector.clock(&options.clock);
    let server = Nanokube::new(Options { clock, ..options }.with_faults(injector.clone()));
    let api = config_maps(&server.client(UserInfo::admin()));
    (server, api, injector)
}

async fn put(api: &Api<DynamicObject>, name: &str) -> Result<DynamicObject, kube::Error> {
    api.create(&PostParams::default(), &config_map(name, json!({}))).await
}

async fn names(api: &Api<DynamicObject>, params: &ListParams) -> Vec<String> {
    api.list(params).await.unwrap().items.into_iter().map(|item| item.metadata.name.unwrap()).collect()
}

fn any_state() -> ListParams {
    ListParams::default().at("0")
}

#[tokio::test(start_paused = true)]
async fn f2_a_lost_reply_hides_a_write_that_was_made() {
    let (_, api, injector) = struck_by(Misfortune::LostReply, 2, 1);
    put(&api, "a").await.unwrap();
    assert!(!matches!(put(&api, "b").await.unwrap_err(), kube::Error::Api(_)));
    assert_eq!(names(&api, &ListParams::default()).await, ["a", "b"]);
    let log: Vec<String> = injector.injected().iter().map(ToString::to_string).collect();
    assert_eq!(log, ["#1 F2 lost-reply: create /api/v1/namespaces/default/configmaps by kubernetes-admin"]);
}

#[tokio::test(start_paused = true)]
async fn f2_a_duplicated_retry_shows_the_second_answer() {
    let (server, api, _) = struck_by(Misfortune::DuplicatedRetry, 1, 1);
    let before = server.revision();
    assert_eq!(code(put(&api, "a").await.unwrap_err()), 409);
    assert_eq!(server.revision(), before + 1, "made once, refused once");
}

#[tokio::test(start_paused = true)]
async fn f3_a_stale_replica_travels_back_and_heals() {
    let (_, api, injector) = struck_by(Misfortune::StaleReplica { behind: 1 }, 1, 3);
    put(&api, "a").await.unwrap();
    put(&api, "b").await.unwrap();
    assert_eq!(names(&api, &any_state()).await, ["a"], "the replica has not seen b");
    assert_eq!(names(&api, &ListParams::default()).await, ["a", "b"], "a consistent read is never stale");
    let mut watch = api.watch(&WatchParams::default().initial_events(), "0").await.unwrap().boxed();
    let (mut seen, mut marks) = (Vec::new(), 0);
    while seen.len() < 2 {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(object) => seen.push(object.metadata.name.unwrap()),
            WatchEvent::Bookmark(_) => marks += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((seen, marks), (vec!["a".to_owned(), "b".to_owned()], 1), "the watch starts in the past and catches up");
    assert_eq!(names(&api, &any_state()).await, ["a", "b"]);
    assert!(injector.is_exhausted());
}

#[tokio::test(start_paused = true)]
async fn f4_withheld_events_are_told_as_one_and_a_short_life_never() {
    let (server, api, _) = struck_by(Misfortune::WithheldEvents { time: MINUTE }, 1, 1);
    let from = server.revision().to_string();
    let mut watch = api.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    let reader = tokio::spawn(async move {
        let event = watch.next().await.unwrap().unwrap();
        (event, Instant::now(), watch)
    });
    let start = Instant::now();
    put(&api, "a").await.unwrap();
    tokio::task::yield_now().await;
    api.delete("a", &Default::default()).await.unwrap();
    put(&api, "b").await.unwrap();
    let patch = Patch::Merge(json!({"data": {"a": "2"}}));
    api.patch("b", &PatchParams::default(), &patch).await.unwrap();
    let (event, at, mut watch) = reader.await.unwrap();
    let WatchEvent::Added(object) = event else { panic!("expected b to appear, got {event:?}") };
    assert_eq!((object.metadata.name.as_deref(), &object.data["data"]["a"]), (Some("b"), &json!("2")));
    assert_eq!(at - start, MINUTE);
    put(&api, "c").await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(c))) if c.metadata.name.as_deref() == Some("c")));
}

#[tokio::test(start_paused = true)]
async fn f5_watches_close_or_are_gone() {
    let (server, api, _) = struck_by(Misfortune::ClosedWatch, 1, 1);
    let mut watch = api.watch(&WatchParams::default(), &server.revision().to_string()).await.unwrap().boxed();
    put(&api, "a").await.unwrap();
    assert!(watch.next().await.is_none());
    let (server, api, _) = struck_by(Misfortune::GoneWatch, 1, 1);
    let mut watch = api.watch(&WatchParams::default(), &server.revision().to_string()).await.unwrap().boxed();
    put(&api, "a").await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Error(status))) if status.code == 410));
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn f5_a_period_of_bookmarks_lets_nobody_skip_an_event() {
    let (server, api, _) = struck_by(Misfortune::BookmarksOnly { time: MINUTE / 2 }, 1, 1);
    let from = server.revision();
    let mut watch = api.watch(&WatchParams::default(), &from.to_string()).await.unwrap().boxed();
    let start = Instant::now();
    put(&api, "a").await.unwrap();
    let mut marks = 0;
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Bookmark(mark) => {
                assert_eq!(mark.metadata.resource_version, from.to_string(), "not beyond what was told");
                marks += 1;
            }
            WatchEvent::Added(object) => {
                assert_eq!(object.metadata.name.as_deref(), Some("a"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(marks >= 3, "only {marks} bookmarks");
    assert_eq!(start.elapsed(), MINUTE / 2);
}

#[tokio::test(start_paused = true)]
async fn f5_lists_without_an_order_come_in_another_one() {
    let (_, api, _) = struck_by(Misfortune::OtherOrder { seed: 3 }, 1, 1);
    for index in 0..8 {
        put(&api, &format!("c{index}")).await.unwrap();
    }
    let mut shuffled = names(&api, &any_state()).await;
    let sorted = names(&api, &ListParams::default()).await;
    assert_ne!(shuffled, sorted);
    shuffled.sort();
    assert_eq!(shuffled, sorted);
}

#[tokio::test(start_paused = true)]
async fn f6_bursts_end() {
    for (what, expected) in [
        (Misfortune::Conflicts, 409),
        (Misfortune::Refusals { code: 429, retry_after: Some(1) }, 429),
        (Misfortune::Refusals { code: 500, retry_after: None }, 500),
        (Misfortune::Refusals { code: 503, retry_after: None }, 503),
    ] {
        let (_, api, injector) = struck_by(what, 2, 3);
        let mut codes = Vec::new();
        for index in 0..6 {
            codes.push(put(&api, &format!("c{index}")).await.map_or_else(code, |_| 201));
        }
        assert_eq!(codes, [201, expected, expected, expected, 201, 201], "{what}");
        assert!(injector.is_exhausted());
    }
}

#[tokio::test(start_paused = true)]
async fn f6_requests_and_replies_take_their_time() {
    let (server, api, _) = struck_by(Misfortune::Latency { time: MINUTE }, 1, 1);
    let (start, before) = (Instant::now(), server.revision());
    let request = tokio::spawn({
        let api = api.clone();
        async move { put(&api, "a").await }
    });
    tokio::time::sleep(MINUTE / 2).await;
    assert_eq!(server.revision(), before, "not looked at yet");
    request.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), MINUTE);
    let (server, api, _) = struck_by(Misfortune::LateReply { time: MINUTE }, 1, 1);
    let (start, before) = (Instant::now(), server.revision());
    let request = tokio::spawn(async move { put(&api, "a").await });
    tokio::time::sleep(MINUTE / 2).await;
    assert_eq!(server.revision(), before + 1, "done long before its client knows");
    request.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), MINUTE);
}

#[tokio::test(start_paused = true)]
async fn f6_partial_pages_lose_nothing() {
    let (_, api, _) = struck_by(Misfortune::PartialPages { size: 2 }, 1, 2);
    for index in 0..7 {
        put(&api, &format!("c{index}")).await.unwrap();
    }
    let (mut sizes, mut all, mut params) = (Vec::new(), Vec::new(), ListParams::default().limit(3));
    loop {
        let page = api.list(&params).await.unwrap();
        sizes.push(page.items.len());
        all.extend(page.items.into_iter().map(|item| item.metadata.name.unwrap()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(sizes, [2, 2, 3]);
    assert_eq!(all, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
}

#[tokio::test(start_paused = true)]
async fn f8_the_clock_jumps_back_and_is_put_right() {
    let (_, api, _) = struck_by(Misfortune::ClockSkew { seconds: -300 }, 2, 1);
    let mut stamps = Vec::new();
    for name in ["a", "b", "c"] {
        stamps.push(put(&api, name).await.unwrap().metadata.creation_timestamp.unwrap().0.to_string());
    }
    assert_eq!(stamps, ["2026-01-01T00:00:00Z", "2025-12-31T23:55:00Z", "2026-01-01T00:00:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn f8_timers_of_a_process_are_late_once_and_then_on_time() {
    let (_, api, injector) = struck_by(Misfortune::SlowTimers { time: Duration::from_secs(12) }, 3, 1);
    let start = tokio::time::Instant::now();
    let ticks = injector.slow(async move {
        let mut ticks = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let _ = put(&api, name).await;
            ticks.push(start.elapsed().as_secs());
        }
        ticks
    });
    // The world goes on meanwhile.
    let world = async {
        tokio::time::sleep(Duration::from_secs(16)).await;
        start.elapsed().as_secs()
    };
    let (ticks, world) = futures::join!(ticks, world);
    assert_eq!(world, 16);
    // The third write stalls the process from 15 s to 27 s: its next timer, due at 20 s, is heard at 27 s.
    assert_eq!((&ticks[..2], &ticks[3..]), ([5, 10].as_slice(), [27, 32].as_slice()), "{ticks:?}");
    let struck: Vec<String> = injector.injected().iter().map(ToString::to_string).collect();
    let [only] = struck.as_slice() else { panic!("struck once: {struck:?}") };
    assert!(only.starts_with("#1 F8 slow-timers(12s): create "), "{only}");
}

#[tokio::test(start_paused = true)]
async fn f15_backends_are_out_of_reach_and_come_back() {
    let (_, api, injector) = struck_by(Misfortune::BackendDown, 2, 1);
    let net = MemoryNet::new();
    let backend: std::net::SocketAddr = "10.0.0.9:8443".parse().unwrap();
    let _listener = net.host(backend.ip()).listen(backend).await.unwrap();
    injector.rule(&net, move |to| to == backend);
    let client = net.host("10.0.0.1".parse().unwrap());
    let mut reached = Vec::new();
    for name in ["a", "b", "c"] {
        put(&api, name).await.unwrap();
        reached.push(client.connect(backend).await.is_ok());
    }
    assert_eq!(reached, [true, false, true]);
}

/// Lives through a drawn plan as a client that retries; gives the hash of all that happened and what was injected.
async fn run(seed: u64) -> (String, usize) {
    let scope = Scope { users: vec!["kubernetes-".to_owned()], faults: 12, horizon: 30 };
    let injector = Arc::new(Injector::new(FaultPlan::draw(seed, scope)));
    let (audit, options) = (MemorySink::default(), options());
    let clock = injector.clock(&options.clock);
    let server = Nanokube::new(Options { clock, ..options }.with_faults(injector.clone()).with_audit(audit.clone()));
    let api = config_maps(&server.client(UserInfo::admin()));
    for index in 0..40 {
        let name = format!("c{}", index % 7);
        if put(&api, &name).await.is_err() {
            let patch = Patch::Merge(json!({"data": {"a": index.to_string()}}));
            let _ = api.patch(&name, &PatchParams::default(), &patch).await;
        }
        let _ = api.list(&if index % 2 == 0 { any_state() } else { ListParams::default().limit(3) }).await;
        if let Ok(watch) = api.watch(&WatchParams::default().timeout(1), "0").await {
            let _: Vec<_> = watch.collect().await;
        }
    }
    let injected: Vec<String> = injector.injected().iter().map(ToString::to_string).collect();
    let audit: Vec<String> = audit.events().iter().map(ToString::to_string).collect();
    let plan = injector.plan().to_string();
    let lines = std::iter::once(plan.as_str()).chain(injected.iter().chain(&audit).map(String::as_str));
    (trace_hash(lines), injected.len())
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_trace() {
    let mut hashes = Vec::new();
    for seed in 0..8 {
        let (first, again) = (run(seed).await, run(seed).await);
        assert_eq!(first, again, "seed {seed}");
        assert!(first.1 > 0, "seed {seed} injected nothing");
        hashes.push(first.0);
    }
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 8, "other seeds are other runs");
}
