//! A release with an object that the API server does not take. Nobody can know that beforehand, so the change has begun: it
//! says what is refused, goes on once that is mended, and goes back by itself when it is not (U11).

use kubevirt_release::{Kind, Strategy};
use kubevirt_tests::{NAMESPACE, World, condition_of, quiet_for, simulate};
use serde_json::{Value, json};

use crate::support::{ask_for, change_strategy, install, policy, settled};
use crate::upgrades::{A_WHILE, handlers, is, plan_until};

const OLD: &str = "v0.1.0";
const BAD: &str = "v0.3.0";

fn ports(strategy: &mut Strategy) -> &mut Vec<Value> {
    let is_it = |object: &&mut kubevirt_release::Object| object.kind() == Kind::Service && object.name() == "virt-api";
    let service = strategy.objects.iter_mut().find(is_it).expect("the release has it");
    service.value_mut()["spec"]["ports"].as_array_mut().expect("a list")
}

/// v0.1.0 is installed; a release is asked for and may begin, whose Service has two ports without names.
async fn asked_for(world: &World) {
    install(world, OLD).await;
    ask_for(world, BAD).await;
    let more = json!({"port": 8443, "targetPort": 8443, "protocol": "TCP"});
    change_strategy(world, BAD, |strategy| ports(strategy).push(more)).await;
    policy(world, json!({"deadlineSeconds": 60})).await;
}

fn says_what(plan: &Value) -> bool {
    let status = &plan["status"];
    let message = status["message"].as_str().unwrap_or_default();
    (&status["state"], &status["reason"]) == (&json!("Blocked"), &json!("WriteRefused"))
        && message.contains("Service kubevirt/virt-api")
        && message.contains("spec.ports[1].name")
}

#[test]
fn a_release_that_the_server_refuses_goes_back_by_itself() {
    simulate(async {
        let world = World::start(3, 1);
        asked_for(&world).await;
        plan_until(&world, 1, "blocked", says_what).await;
        let plan = plan_until(&world, 1, "undone", is("RolledBack")).await;
        let status = &plan["status"];
        assert_eq!(
            (&status["reason"], &status["rollback"]["reason"]),
            (&json!("WriteRefused"), &json!("WriteRefused")),
            "{plan:#}"
        );
        let why = status["rollback"]["message"].as_str().expect("a message");
        assert!(why.starts_with("tried again for 6") && why.contains("Service kubevirt/virt-api was refused"), "{why}");
        let kubevirt = world
            .kubevirt_until("held at the version before", |kubevirt| {
                condition_of(kubevirt, "Synchronized")["reason"] == "UpgradeRolledBack"
                    && condition_of(kubevirt, "Progressing")["status"] == "False"
            })
            .await;
        assert_eq!(condition_of(&kubevirt, "Degraded")["status"], "False", "{kubevirt:#}");
        assert_eq!(handlers(&world).await, [OLD; 3]);
        let requests = world.requests().len();
        quiet_for(A_WHILE).await;
        assert_eq!(world.operator_writes(requests), Vec::<String>::new(), "it is not tried again");
        let service = world.api(Kind::Service, Some(NAMESPACE)).get("virt-api").await.expect("it is there");
        assert_eq!(service.data["spec"]["ports"].as_array().map(Vec::len), Some(1));
    });
}

#[test]
fn what_may_not_go_back_is_tried_until_it_is_mended() {
    simulate(async {
        let world = World::start(3, 2);
        asked_for(&world).await;
        policy(&world, json!({"deadlineSeconds": 60, "automaticRollback": false})).await;
        plan_until(&world, 1, "blocked", says_what).await;
        let requests = world.requests().len();
        quiet_for(A_WHILE).await;
        let told = |write: &&String| write.contains("upgradeplans") || write.contains("kubevirts");
        let writes = world.operator_writes(requests);
        assert!(writes.iter().filter(told).count() <= 2, "it is told once: {writes:?}");
        plan_until(&world, 1, "still blocked", says_what).await;
        change_strategy(&world, BAD, |strategy| drop(ports(strategy).pop())).await;
        let plan = plan_until(&world, 1, "over", is("Succeeded")).await;
        assert_eq!(plan["status"].get("rollback"), None, "{plan:#}");
        settled(&world, BAD).await;
    });
}
