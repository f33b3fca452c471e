use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use nanokube::{After, Before, Call, Faults, MemorySink, Nanokube, OnEvent, UserInfo};
use serde_json::json;

use crate::{code, config_map, config_maps, options};

/// Loses the reply of the first create.
#[derive(Default)]
struct LoseFirst(AtomicUsize);

impl Faults for LoseFirst {
    fn after(&self, call: Call<'_>, code: u16) -> After {
        let first = call.request.verb == "create" && code == 201 && self.0.fetch_add(1, Ordering::Relaxed) == 0;
        if first { After::Lose } else { After::Reply }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_leaves_the_write_committed() {
    let audit = MemorySink::default();
    let server = Nanokube::new(options().with_faults(Arc::new(LoseFirst::default())).with_audit(audit.clone()));
    let api = config_maps(&server.client(UserInfo::admin()));
    let lost = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap_err();
    assert!(!matches!(lost, kube::Error::Api(_)), "the client must not get an answer, got {lost}");
    assert_eq!(api.get("a").await.unwrap().data["data"]["a"], "1", "but the object is there");
    let again = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap_err();
    assert_eq!(code(again), 409, "so a blind retry collides");
    let codes: Vec<_> = audit.events().iter().map(|event| event["responseStatus"]["code"].clone()).collect();
    assert_eq!(codes, [json!(201), json!(200), json!(409)], "the audit log knows about the lost one");
}

/// Breaks every watch before its third event.
#[derive(Default)]
struct CutThird(AtomicUsize);

impl Faults for CutThird {
    fn event(&self, _: Call<'_>, _: u64) -> OnEvent {
        if self.0.fetch_add(1, Ordering::Relaxed) % 3 == 2 { OnEvent::Cut } else { OnEvent::Deliver }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_is_resumed_without_gap() {
    let server = Nanokube::new(options().with_faults(Arc::new(CutThird::default())));
    let api = config_maps(&server.client(UserInfo::admin()));
    let mut version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    for index in 0..7 {
        api.create(&PostParams::default(), &config_map(&format!("c{index}"), json!({}))).await.unwrap();
    }
    let (mut names, mut watches) = (Vec::new(), 0);
    while names.len() < 7 {
        watches += 1;
        let mut stream = api.watch(&WatchParams::default(), &version).await.unwrap().boxed();
        while let Some(Ok(event)) = stream.next().await {
            let WatchEvent::Added(object) = event else { panic!("only additions happened: {event:?}") };
            version = object.metadata.resource_version.clone().unwrap();
            names.push(object.metadata.name.unwrap());
            if names.len() == 7 {
                break;
            }
        }
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    assert!(watches > 2, "the watch was never cut");
}

struct Slow;

impl Faults for Slow {
    fn before(&self, call: Call<'_>) -> Before {
        match call.request.verb.as_str() {
            "create" => Before::Refuse { code: 429, retry_after: Some(2) },
            "delete" => Before::Drop,
            "get" => Before::Delay(Duration::from_secs(10)),
            _ => Before::Pass,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_can_be_refused_dropped_and_delayed() {
    let server = Nanokube::new(options().with_faults(Arc::new(Slow)));
    let api = config_maps(&server.client(UserInfo::admin()));
    let refused = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap_err();
    assert_eq!(code(refused), 429);
    assert!(!matches!(api.delete("a", &Default::default()).await.unwrap_err(), kube::Error::Api(_)));
    let start = tokio::time::Instant::now();
    assert_eq!(code(api.get("a").await.unwrap_err()), 404);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}
