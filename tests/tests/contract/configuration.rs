//! What the custom resource may ask for, and what comes of it.

use std::time::Duration;

use kubevirt_release::Kind;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PATIENCE, Suite, is_ready};

static CLUSTER: Fixture = Fixture::new(2);

#[test]
fn replicas_0_is_refused() {
    CLUSTER.test(async |suite| {
        let refused = suite.refused(json!({"infra": {"replicas": 0}})).await;
        assert!(refused.contains("infra replica count can't be 0"), "{refused}");
    });
}

#[test]
fn replicas_3_1_2_are_followed_by_pods_and_budgets() {
    const LIMIT: Duration = Duration::from_secs(120);
    CLUSTER.test(async |suite| {
        for replicas in [3_usize, 1, 2] {
            suite.configure(json!({"infra": {"replicas": replicas}})).await.expect("a number of pods");
            for name in ["virt-api", "virt-controller"] {
                suite
                    .until_pods(&format!("kubevirt.io={name}"), &format!("{replicas}"), LIMIT, |pods| {
                        pods.len() == replicas && pods.values().all(is_ready)
                    })
                    .await;
                let budget = format!("{name}-pdb");
                if replicas == 1 {
                    suite.until_gone(Kind::PodDisruptionBudget, &budget, LIMIT).await;
                } else {
                    let keeps_all_but_one = |budget: &Value| budget["spec"]["minAvailable"] == replicas - 1;
                    suite.until(Kind::PodDisruptionBudget, &budget, "all but one", LIMIT, keeps_all_but_one).await;
                }
            }
        }
        let events = suite.api_of("", "v1", "Event", "events", true).list(&Default::default()).await.expect("events");
        let warned = events
            .items
            .iter()
            .any(|event| event.data["reason"] == "AdvancedFeatureUse" && event.data["type"] == "Warning");
        assert!(warned, "setting a number of pods is for those who know why");
        suite.configure(json!({"infra": null})).await.expect("it is taken back");
    });
}

fn rotation(ca: Value, server: Value) -> Value {
    json!({"certificateRotateStrategy": {"selfSigned": {"ca": ca, "server": server}}})
}

async fn forget_rotation(suite: &Suite) {
    suite.configure(json!({"certificateRotateStrategy": {"selfSigned": null}})).await.expect("it is taken back");
}

#[test]
fn t6257_lifetimes_that_fit_together_are_accepted() {
    CLUSTER.test(async |suite| {
        let lives = |duration: &str, renew: &str| json!({"duration": duration, "renewBefore": renew});
        suite.configure(rotation(lives("20m", "8m"), lives("14m", "6m"))).await.expect("they fit");
        suite
            .until(Kind::Secret, "kubevirt-virt-api-certs", "of that lifetime", PATIENCE, |secret| {
                secret["metadata"]["annotations"]["kubevirt.io/duration"] == "14m0s"
            })
            .await;
        suite.stable().await;
        forget_rotation(suite).await;
    });
}

#[test]
fn t6258_older_and_newer_spelling_are_not_mixed() {
    CLUSTER.test(async |suite| {
        let mixed = json!({"certificateRotateStrategy": {"selfSigned": {
            "caRotateInterval": "20m", "certRotateInterval": "14m", "caOverlapInterval": "8m",
            "server": {"duration": "1h"},
        }}});
        let refused = suite.refused(mixed).await;
        assert!(refused.contains("certificateRotateStrategy"), "{refused}");
    });
}

#[test]
fn t6259_an_authority_is_not_renewed_before_it_begins() {
    CLUSTER.test(async |suite| {
        let ca = json!({"duration": "14m", "renewBefore": "16m"});
        let refused = suite.refused(rotation(ca, json!({"duration": "10m", "renewBefore": "5m"}))).await;
        assert!(refused.contains("the CA's renewBefore"), "{refused}");
    });
}

#[test]
fn t6260_a_certificate_is_not_renewed_before_it_begins() {
    CLUSTER.test(async |suite| {
        let server = json!({"duration": "14m", "renewBefore": "16m"});
        let refused = suite.refused(rotation(json!({"duration": "20m", "renewBefore": "4m"}), server)).await;
        assert!(refused.contains("the servers' renewBefore"), "{refused}");
    });
}

#[test]
fn t6261_a_certificate_does_not_outlive_its_authority() {
    CLUSTER.test(async |suite| {
        let server = json!({"duration": "50m", "renewBefore": "5m"});
        let refused = suite.refused(rotation(json!({"duration": "20m", "renewBefore": "4m"}), server)).await;
        assert!(refused.contains("the duration of server certificates"), "{refused}");
    });
}

#[test]
fn role_aggregation_strategy_manual_takes_roles_out_of_kubernetes_own() {
    const ROLES: [(&str, &str); 3] =
        [("kubevirt.io:admin", "admin"), ("kubevirt.io:edit", "edit"), ("kubevirt.io:view", "view")];
    CLUSTER.test(async |suite| {
        let configured = json!({"configuration": {"roleAggregationStrategy": "Manual",
            "developerConfiguration": {"featureGates": ["OptOutRoleAggregation"]}}});
        let label = |role: &Value, of: &str| {
            role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{of}")].clone()
        };
        for (name, of) in ROLES {
            let is_in = |role: &Value| label(role, of) == "true";
            suite.until(Kind::ClusterRole, name, "aggregated", PATIENCE, is_in).await;
        }
        suite.configure(configured).await.expect("its gate is on");
        for (name, of) in ROLES {
            let is_out = |role: &Value| label(role, of) == "false";
            suite.until(Kind::ClusterRole, name, "not aggregated", PATIENCE, is_out).await;
        }
        let reverted = json!({"configuration": {"roleAggregationStrategy": null,
            "developerConfiguration": {"featureGates": []}}});
        suite.configure(reverted).await.expect("it is taken back");
        for (name, of) in ROLES {
            let is_in = |role: &Value| label(role, of) == "true";
            suite.until(Kind::ClusterRole, name, "aggregated again", PATIENCE, is_in).await;
        }
    });
}

#[test]
fn container_path_volumes_bring_and_take_the_mutator_of_launcher_pods() {
    const GONE: Duration = Duration::from_secs(300);
    const THERE: Duration = Duration::from_secs(60);
    const NAME: &str = "virt-launcher-pod-mutator";
    let gates = |on: &[&str]| json!({"configuration": {"developerConfiguration": {"featureGates": on}}});
    CLUSTER.test(async |suite| {
        let kind = Kind::MutatingWebhookConfiguration;
        for _ in 0..2 {
            suite.configure(gates(&["ContainerPathVolumes"])).await.expect("a gate");
            let found = suite.until(kind, NAME, "registered", THERE, |_| true).await;
            let webhook = &found["webhooks"][0];
            assert_eq!(webhook["objectSelector"]["matchLabels"], json!({"kubevirt.io": "virt-launcher"}));
            assert_eq!(
                (&webhook["failurePolicy"], &webhook["reinvocationPolicy"]),
                (&json!("Ignore"), &json!("IfNeeded"))
            );
            suite.configure(gates(&[])).await.expect("it is taken back");
            suite.until_gone(kind, NAME, GONE).await;
        }
    });
}
