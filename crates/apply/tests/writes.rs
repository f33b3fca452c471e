//! The writer against a real API server's verbs: what it writes, what it leaves alone, what it must not do any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kubevirt_apply::{Error, Outcome, Writer};
use kubevirt_release::{Object, ObjectKey};
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::lease::Fence;
use nanokube::{Before, Call, Faults, MemorySink, Nanokube, UserInfo};
use serde_json::{Value, json};

struct World {
    client: Client,
    audit: MemorySink,
}

impl World {
    fn new() -> Self {
        let audit = MemorySink::default();
        let clock = Clock::anchored(Timestamp::from_second(1_790_000_000).expect("a time"));
        let server = Nanokube::new(nanokube::Options::new(clock, 1).with_audit(audit.clone()));
        Self { client: server.client(UserInfo::admin()), audit }
    }

    fn writer(&self) -> Writer {
        Writer::new(self.client.clone(), Fence::open(7), 7)
    }

    fn requests(&self) -> usize {
        self.audit.lines().len()
    }
}

fn service(port: u16) -> Object {
    let value = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "virt-api", "namespace": "default", "labels": {"ours": ""}},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": port, "targetPort": 8443}]},
    });
    Object::from_value(value).expect("a registered kind")
}

fn uid(live: &Value) -> &str {
    live["metadata"]["uid"].as_str().expect("a stored object has a uid")
}

#[tokio::test(start_paused = true)]
async fn what_is_as_wanted_costs_no_request() {
    let world = World::new();
    let writer = world.writer();
    let created = writer.apply(&service(443), None).await.expect("it is created");
    assert_eq!(created.outcome, Outcome::Created);
    let live = created.live.expect("the stored object");
    let before = world.requests();
    let same = writer.apply(&service(443), Some(&live)).await.expect("nothing to do");
    assert_eq!((same.outcome, world.requests()), (Outcome::Unchanged, before));
    let changed = writer.apply(&service(444), Some(&live)).await.expect("it is changed");
    assert_eq!(changed.outcome, Outcome::Applied);
    assert_eq!(changed.live.expect("the stored object")["spec"]["ports"][0]["port"], 444);
}

#[tokio::test(start_paused = true)]
async fn a_port_is_put_right_although_something_else_differs_as_well() {
    let world = World::new();
    let writer = world.writer();
    writer.apply(&service(443), None).await.expect("it is created");
    let services: Api<DynamicObject> = Api::namespaced_with(
        world.client.clone(),
        "default",
        &ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Service"), "services"),
    );
    let change =
        serde_json::from_value(json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 444}])).unwrap();
    let changed =
        services.patch("virt-api", &PatchParams::default(), &Patch::Json::<Value>(change)).await.expect("edited");
    let mut wanted = service(443).value().clone();
    wanted["metadata"]["labels"]["new"] = json!("label");
    let wanted = Object::from_value(wanted).expect("a registered kind");
    let live = serde_json::to_value(changed).expect("an object");
    let written = writer.apply(&wanted, Some(&live)).await.expect("it is put right");
    let live = written.live.expect("the stored object");
    assert_eq!(live["spec"]["ports"].as_array().map(Vec::len), Some(1), "{live}");
    assert_eq!((&live["spec"]["ports"][0]["port"], &live["metadata"]["labels"]["new"]), (&json!(443), &json!("label")));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_somebody_changed_is_put_right_although_both_together_are_invalid() {
    let world = World::new();
    let writer = world.writer();
    writer.apply(&service(443), None).await.expect("it is created");
    let services: Api<DynamicObject> = Api::namespaced_with(
        world.client.clone(),
        "default",
        &ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Service"), "services"),
    );
    let change =
        serde_json::from_value(json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 444}])).unwrap();
    let changed =
        services.patch("virt-api", &PatchParams::default(), &Patch::Json::<()>(change)).await.expect("changed");
    let changed = serde_json::to_value(changed).unwrap();
    let written = writer.apply(&service(443), Some(&changed)).await.expect("it is put right");
    let ports = written.live.expect("the stored object")["spec"]["ports"].clone();
    assert_eq!(ports.as_array().map(Vec::len), Some(1), "{ports}");
    assert_eq!(ports[0]["port"], 443);
}

#[tokio::test(start_paused = true)]
async fn a_binding_to_another_role_is_made_anew() {
    let world = World::new();
    let binding = |role: &str| {
        let value = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "suite", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "suite", "namespace": "default"}],
        });
        Object::from_value(value).expect("a registered kind")
    };
    let writer = world.writer();
    let foreign = writer.apply(&binding("everything"), None).await.expect("it is created").live.expect("it is stored");
    let mended = writer.apply(&binding("suite"), Some(&foreign)).await.expect("it is made anew");
    let live = mended.live.expect("it is stored");
    assert_eq!(live["roleRef"]["name"], "suite");
    assert_ne!(uid(&live), uid(&foreign));
}

#[tokio::test(start_paused = true)]
async fn only_the_object_that_was_seen_is_deleted() {
    let world = World::new();
    let writer = world.writer();
    let live = writer.apply(&service(443), None).await.expect("it is created").live.expect("the stored object");
    let key = service(443).key();
    let refused = writer.delete(&key, Some("another-uid")).await.expect_err("another object was meant");
    assert_eq!(refused.category(), "Replaced");
    let deleted = writer.delete(&key, Some(uid(&live))).await.expect("it is deleted");
    assert_eq!(deleted.outcome, Outcome::Deleted);
    assert_eq!(writer.delete(&key, Some(uid(&live))).await.expect("it is gone").outcome, Outcome::Gone);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_when_the_lease_has_been_lost_or_won_again() {
    let world = World::new();
    let late = Writer::new(world.client.clone(), Fence::open(8), 7);
    let refused = late.apply(&service(443), None).await.expect_err("generation 7 is over");
    assert_eq!(refused.category(), "Fenced");
    assert_eq!(refused.key(), &service(443).key());
    assert!(late.delete(&service(443).key(), None).await.is_err());
    assert_eq!(world.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_object_and_the_servers_reason() {
    let world = World::new();
    let mut wrong = service(443);
    wrong.value_mut()["metadata"]["namespace"] = json!("nowhere");
    match world.writer().apply(&wrong, None).await {
        Err(Error::Refused { key, code: 404, reason, .. }) => {
            assert_eq!((key.name.as_str(), reason.as_str()), ("virt-api", "NotFound"));
        }
        other => panic!("a namespace that does not exist is refused: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_made_on_an_old_state_is_refused() {
    let world = World::new();
    let writer = world.writer();
    let live = writer.apply(&service(443), None).await.expect("it is created").live.expect("the stored object");
    let key: ObjectKey = service(443).key();
    let changes = |version: &Value| json!({"metadata": {"resourceVersion": version, "labels": {"more": "1"}}});
    let merged = writer.merge(&key, None, &changes(&live["metadata"]["resourceVersion"])).await.expect("it is merged");
    assert_eq!(merged.live.expect("the stored object")["metadata"]["labels"]["more"], "1");
    let refused = writer.merge(&key, None, &changes(&live["metadata"]["resourceVersion"])).await;
    assert_eq!(refused.expect_err("the state is old").category(), "Replaced");
}

/// Lets the first requests pass and holds up the one after them.
struct Late {
    passing: AtomicUsize,
    by: Duration,
}

impl Faults for Late {
    fn before(&self, _call: Call<'_>) -> Before {
        match self.passing.fetch_sub(1, Ordering::SeqCst) {
            0 => Before::Delay(self.by),
            _ => Before::Pass,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_changes_between_two_writes_of_it_is_looked_at_again_and_no_failure() {
    const LATE: Duration = Duration::from_secs(2);
    let clock = Clock::anchored(Timestamp::from_second(1_790_000_000).expect("a time"));
    // Creation, the foreign edit and the apply pass; taking out what is foreign comes late.
    let faults = Arc::new(Late { passing: AtomicUsize::new(3), by: LATE });
    let server = Nanokube::new(nanokube::Options::new(clock, 1).with_faults(faults));
    let client = server.client(UserInfo::admin());
    let writer = Writer::new(client.clone(), Fence::open(7), 7);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Service"));
    let services: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource);
    let parameters = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
    writer.apply(&service(443), None).await.expect("it is created");
    let port = json!({"spec": {"ports": [{"name": "a", "port": 443, "targetPort": 8443}, {"name": "b", "port": 9}]}});
    let edited = services.patch("virt-api", &parameters, &Patch::Merge(port)).await.expect("it is edited");
    let edited = serde_json::to_value(edited).expect("an object is plain data");
    let meanwhile = async {
        tokio::time::sleep(LATE / 2).await;
        let label = json!({"metadata": {"labels": {"more": "1"}}});
        services.patch("virt-api", &parameters, &Patch::Merge(label)).await.expect("it is labelled");
    };
    let wanted = service(443);
    let (written, ()) = tokio::join!(writer.apply(&wanted, Some(&edited)), meanwhile);
    assert_eq!(written.expect_err("it has changed meanwhile").category(), "Replaced");
    let live = serde_json::to_value(services.get("virt-api").await.expect("it is there")).expect("plain data");
    writer.apply(&wanted, Some(&live)).await.expect("now it is as wanted");
    let live = services.get("virt-api").await.expect("it is there");
    assert_eq!(live.data["spec"]["ports"].as_array().map(Vec::len), Some(1));
}
