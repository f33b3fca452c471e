//! A release stores objects in another version than the one before: the operator has them stored anew, and takes the old
//! version off the definition's record.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kubevirt_release::Kind;
use kubevirt_tests::{NAMESPACE, OPERATOR, World, condition_of, simulate, until};
use serde_json::{Value, json};

use super::support::{ask_for, change_strategy, install, policy, settled};

const DEFINITION: &str = "virtualmachines.kubevirt.io";

/// More than two pages of what is looked at together.
const MACHINES: usize = 120;

fn machines(world: &World, version: &str) -> Api<DynamicObject> {
    world.api_of("kubevirt.io", version, "VirtualMachine", "virtualmachines", Some(NAMESPACE))
}

fn name(number: usize) -> String {
    format!("vm-{number:03}")
}

async fn make_machines(world: &World) {
    let api = machines(world, "v1");
    for number in 0..MACHINES {
        let machine = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
            "metadata": {"name": name(number), "labels": {"number": number.to_string()}},
            "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}}}}});
        let machine = serde_json::from_value(machine).expect("an object");
        api.create(&PostParams::default(), &machine).await.expect("stored");
    }
}

/// Each machine by its name.
async fn seen(world: &World) -> BTreeMap<String, DynamicObject> {
    let found = machines(world, "v1").list(&ListParams::default()).await.expect("a list").items;
    found.into_iter().map(|machine| (machine.name_any(), machine)).collect()
}

/// Changes a definition's versions in the strategy of a release that is in the cluster.
async fn change_versions(world: &World, release: &str, definition: &str, change: impl Fn(&mut Vec<Value>)) {
    change_strategy(world, release, |strategy| {
        let definition = strategy.objects.iter_mut().find(|object| object.name() == definition).expect("a definition");
        change(definition.value_mut()["spec"]["versions"].as_array_mut().expect("versions"));
    })
    .await;
}

/// A further version, in which objects are stored from now on.
fn store_in(versions: &mut Vec<Value>, name: &str) {
    let mut newest = versions[0].clone();
    newest["name"] = name.into();
    versions.iter_mut().for_each(|version| version["storage"] = false.into());
    versions.push(newest);
    versions.last_mut().expect("it was added")["storage"] = true.into();
}

/// v0.1.0 is installed and has machines; v0.3.0, which stores them in another version, is asked for and may begin.
async fn before_the_upgrade(world: &World) -> BTreeMap<String, DynamicObject> {
    install(world, "v0.1.0").await;
    make_machines(world).await;
    ask_for(world, "v0.3.0").await;
    change_versions(world, "v0.3.0", DEFINITION, |versions| store_in(versions, "v2")).await;
    seen(world).await
}

fn version(machine: &DynamicObject) -> String {
    machine.resource_version().unwrap_or_default()
}

/// Waits until a machine is stored anew.
async fn stored_anew(world: &World, number: usize, before: &BTreeMap<String, DynamicObject>) {
    let old = version(&before[&name(number)]);
    until(&machines(world, "v1"), &name(number), "stored anew", |machine| version(machine) != old).await;
}

async fn recorded(world: &World, versions: &[&str]) {
    recorded_of(world, DEFINITION, versions).await;
}

async fn recorded_of(world: &World, definition: &str, versions: &[&str]) {
    let definitions = world.api(Kind::CustomResourceDefinition, None);
    until(&definitions, definition, "stored in these versions alone", |definition| {
        definition.data["status"]["storedVersions"] == json!(versions)
    })
    .await;
}

/// Every machine is stored anew and, what was edited meanwhile aside, as it was.
async fn unchanged(world: &World, before: &BTreeMap<String, DynamicObject>, edited: &str) {
    let after = seen(world).await;
    assert_eq!(after.len(), MACHINES);
    for (name, machine) in &after {
        let old = &before[name];
        assert_ne!(version(machine), version(old), "{name} was not stored anew");
        let (mut now, mut then) = (machine.clone(), old.clone());
        for one in [&mut now, &mut then] {
            one.metadata.resource_version = None;
            if name == edited {
                one.metadata.managed_fields = None;
                one.metadata.labels = None;
            }
        }
        assert_eq!(now, then, "{name}");
    }
}

/// The operator's requests about machines since a number: pod, verb, name and code.
fn asked(world: &World, since: usize) -> Vec<(String, String, String, i64)> {
    let text =
        |event: &Value, pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let requests = world.requests();
    let ours = requests
        .iter()
        .skip(since)
        .filter(|event| event["user"]["username"] == OPERATOR && event["objectRef"]["resource"] == "virtualmachines");
    ours.map(|event| {
        let pod = text(event, "/user/extra/authentication.kubernetes.io~1pod-name/0");
        let code = event["responseStatus"]["code"].as_i64().unwrap_or_default();
        (pod, text(event, "/verb"), text(event, "/objectRef/name"), code)
    })
    .collect()
}

/// A policy of the cluster that lets nobody write an object.
async fn freeze(world: &World, plural: &str, name: &str) {
    let refuse = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "frozen"}, "spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"],
                "operations": ["UPDATE"], "resources": [plural]}]},
            "validations": [{"expression": format!("object.metadata.name != '{name}'"), "message": format!("{name} is frozen")}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "frozen"}, "spec": {"policyName": "frozen", "validationActions": ["Deny"]}});
    world.apply(&[refuse, binding].map(super::support::object)).await;
}

/// Takes the policy away, and waits for as long as the operator does before it tries again: longer than for anything else.
async fn thaw(world: &World) {
    let bindings = world.api(Kind::ValidatingAdmissionPolicyBinding, None);
    bindings.delete("frozen", &DeleteParams::default()).await.expect("it is there");
    kubevirt_tests::quiet_for(std::time::Duration::from_secs(600)).await;
}

#[test]
fn objects_are_stored_in_the_new_version_after_the_upgrade_and_an_edit_meanwhile_is_kept() {
    simulate(async {
        let world = World::start(3, 71);
        let before = before_the_upgrade(&world).await;
        let since = world.requests().len();
        policy(&world, json!({"paused": false})).await;
        let waits =
            |kubevirt: &Value| condition_of(kubevirt, "StoredVersionsCurrent")["reason"] == "StorageMigrationWaits";
        world.kubevirt_until("waiting for the end of the change", waits).await;
        assert!(asked(&world, since).is_empty(), "not before the new version runs");
        stored_anew(&world, 0, &before).await;
        // It was listed as it was before, and its turn has not come.
        let label = Patch::Merge(json!({"metadata": {"labels": {"edited": "yes"}}}));
        machines(&world, "v1").patch(&name(49), &PatchParams::default(), &label).await.expect("an edit");
        recorded(&world, &["v2"]).await;
        let kubevirt =
            world.kubevirt_until("done", |kubevirt| condition_of(kubevirt, "StoredVersionsCurrent").is_null()).await;
        assert_eq!(kubevirt["status"]["observedKubeVirtVersion"], "v0.3.0");
        unchanged(&world, &before, &name(49)).await;
        let edited = machines(&world, "v1").get(&name(49)).await.expect("a machine");
        assert_eq!(edited.labels().get("edited").map(String::as_str), Some("yes"));
        let asked = asked(&world, since);
        let writes: Vec<_> = asked.iter().filter(|(_, verb, _, _)| verb == "patch").collect();
        assert_eq!(writes.len(), MACHINES, "each once");
        let refused: Vec<&str> =
            writes.iter().filter(|(_, _, _, code)| *code != 200).map(|(_, _, name, _)| &**name).collect();
        assert_eq!(refused, [name(49)], "the edit came first, and nothing was written over it");
        assert_eq!(asked.len(), MACHINES + 3, "three pages of a list: {asked:?}");
    });
}

#[test]
fn a_leader_that_is_killed_in_between_changes_nothing_about_the_result() {
    simulate(async {
        let world = World::start(3, 72);
        let before = before_the_upgrade(&world).await;
        let since = world.requests().len();
        policy(&world, json!({"paused": false})).await;
        stored_anew(&world, 60, &before).await;
        let leases = world.api_of("coordination.k8s.io", "v1", "Lease", "leases", Some(NAMESPACE));
        let lease = leases.get("virt-operator").await.expect("a lease");
        let leader = lease.data["spec"]["holderIdentity"].as_str().expect("a holder").to_owned();
        let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        pods.delete(&leader, &at_once).await.expect("the leader's pod");
        let last = before.keys().next_back().expect("machines").clone();
        let untouched = machines(&world, "v1").get(&last).await.expect("a machine");
        assert_eq!(version(&untouched), version(&before[&last]), "it was in between");

        recorded(&world, &["v2"]).await;
        settled(&world, "v0.3.0").await;
        unchanged(&world, &before, "").await;
        let asked = asked(&world, since);
        let writers: std::collections::BTreeSet<&str> = asked.iter().map(|(pod, ..)| &**pod).collect();
        assert_eq!(writers.len(), 2, "one after the other: {writers:?}");
    });
}

#[test]
fn an_object_that_is_refused_is_named_and_the_old_version_stays_on_record_until_it_can_be_stored() {
    simulate(async {
        let world = World::start(3, 73);
        let before = before_the_upgrade(&world).await;
        freeze(&world, "virtualmachines", "vm-007").await;
        policy(&world, json!({"paused": false})).await;
        let kubevirt = world
            .kubevirt_until("refused", |kubevirt| {
                condition_of(kubevirt, "StoredVersionsCurrent")["reason"] == "StorageMigrationRefused"
            })
            .await;
        let message =
            condition_of(&kubevirt, "StoredVersionsCurrent")["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(&format!("1 refused, the first: {NAMESPACE}/vm-007")), "{message}");
        assert!(message.contains("vm-007 is frozen"), "{message}");
        recorded(&world, &["v1", "v2"]).await;
        stored_anew(&world, MACHINES - 1, &before).await;
        assert_eq!(version(&seen(&world).await[&name(7)]), version(&before[&name(7)]));

        thaw(&world).await;
        recorded(&world, &["v2"]).await;
        unchanged(&world, &before, "").await;
        world.kubevirt_until("done", |kubevirt| condition_of(kubevirt, "StoredVersionsCurrent").is_null()).await;
    });
}

#[test]
fn a_change_that_would_lose_a_stored_version_waits_for_the_objects_and_begins_by_itself() {
    const POOLS: &str = "virtualmachinepools.pool.kubevirt.io";
    let blocked = |kubevirt: &Value| {
        let synchronized = condition_of(kubevirt, "Synchronized");
        synchronized["reason"] == "UpgradeBlocked"
            && synchronized["message"].as_str().is_some_and(|message| message.contains("stored in version v1beta1"))
    };
    simulate(async {
        let world = World::start(1, 74);
        install(&world, "v0.1.0").await;
        let pools =
            world.api_of("pool.kubevirt.io", "v1beta1", "VirtualMachinePool", "virtualmachinepools", Some(NAMESPACE));
        let pool = json!({"apiVersion": "pool.kubevirt.io/v1beta1", "kind": "VirtualMachinePool",
            "metadata": {"name": "pool"}, "spec": {"replicas": 0}});
        pools.create(&PostParams::default(), &serde_json::from_value(pool).expect("an object")).await.expect("stored");
        ask_for(&world, "v0.2.0").await;
        change_versions(&world, "v0.2.0", POOLS, |versions| store_in(versions, "v1")).await;
        freeze(&world, "virtualmachinepools", "pool").await;
        policy(&world, json!({"paused": false})).await;
        settled(&world, "v0.2.0").await;
        recorded_of(&world, POOLS, &["v1beta1", "v1"]).await;

        // The next release does without what is still stored in.
        ask_for(&world, "v0.3.0").await;
        let only = |versions: &mut Vec<Value>| {
            store_in(versions, "v1");
            versions.retain(|version| version["name"] == "v1");
        };
        change_versions(&world, "v0.3.0", POOLS, only).await;
        policy(&world, json!({"paused": false})).await;
        let kubevirt = world.kubevirt_until("blocked", blocked).await;
        assert_eq!(kubevirt["status"]["observedKubeVirtVersion"], "v0.2.0");
        thaw(&world).await;
        settled(&world, "v0.3.0").await;
        recorded_of(&world, POOLS, &["v1"]).await;
        let pools =
            world.api_of("pool.kubevirt.io", "v1", "VirtualMachinePool", "virtualmachinepools", Some(NAMESPACE));
        assert_eq!(pools.get("pool").await.expect("it is there").data["spec"], json!({"replicas": 0}));
    });
}
