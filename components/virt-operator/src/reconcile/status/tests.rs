use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use kubevirt_api::kubevirt::KubeVirtSpec;
use kubevirt_release::{ObjectKey, OwnImage};
use kubevirt_upgrade::{Existing, Identity, Input, Snapshot, Workload, WorkloadKind};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn settings() -> Settings {
    let own = OwnImage::parse("registry.example/suite/virt-operator:v0.2.0", None);
    Settings {
        namespace: "kv-test".to_owned(),
        env: BTreeMap::new(),
        own,
        runbooks: Default::default(),
        architecture: "amd64",
    }
}

fn config(tag: &str) -> DeploymentConfig {
    let spec = KubeVirtSpec { image_tag: Some(tag.to_owned()), ..KubeVirtSpec::default() };
    DeploymentConfig::resolve(&settings().own, &BTreeMap::new(), "kv-test", &spec).expect("a config")
}

fn api() -> ObjectKey {
    ObjectKey::new(Kind::Deployment, Some("kv-test"), "virt-api")
}

/// A plan for one Deployment: `ready` of two pods of the target are ready; `None` when it does not exist.
fn planned(observed: Option<&str>, target: &str, ready: Option<i64>) -> (Plan, Report) {
    let mut snapshot = Snapshot::default();
    if let Some(ready) = ready {
        let id = Some(config(target).id());
        snapshot.objects.insert(api(), Existing { same: true, same_transitional: true, id, ..Existing::default() });
        let workload = Workload {
            kind: WorkloadKind::Deployment,
            generation: 1,
            observed_generation: 1,
            wanted: 2,
            updated: 2,
            ready,
            total: 2,
            pods: Vec::new(),
        };
        snapshot.workloads.insert(api(), workload);
    }
    let identity = |tag: &str| Identity { version: tag.to_owned(), id: config(tag).id() };
    kubevirt_upgrade::plan(&Input {
        observed: observed.map(identity),
        target: identity(target),
        desired: BTreeSet::from([api()]),
        snapshot,
        closes: false,
        releases: Vec::new(),
        pulls_images: false,
        images_overdue: false,
    })
}

/// The CR after a pass that found `observed`, `ready` for `target`.
fn after(cr: &KubeVirt, target: &str, ready: Option<i64>, second: i64) -> KubeVirt {
    let observed = cr.status.as_ref().and_then(|status| status.observed_kube_virt_version.clone());
    let (plan, report) = planned(observed.as_deref(), target, ready);
    let config = config(target);
    ended(cr, &Ended::Planned { config: &config, plan: &plan, report: &report, contested: &[], held: None }, second)
}

fn ended(cr: &KubeVirt, ended: &Ended<'_>, second: i64) -> KubeVirt {
    let new = status(cr, ended, &World::default(), &settings(), at(second));
    KubeVirt { status: Some(new), ..cr.clone() }
}

fn shown(cr: &KubeVirt) -> String {
    let status = cr.status.clone().unwrap_or_default();
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![format!(
        "{} observed {} target {}",
        status.phase.map_or_else(|| "-".to_owned(), |phase| phase.to_string()),
        text(status.observed_kube_virt_version),
        text(status.target_kube_virt_version)
    )];
    for condition in status.conditions.unwrap_or_default() {
        let Condition { condition_type, status, reason, message, .. } = condition;
        lines.push(format!("  {condition_type}={status} {}: {}", text(reason), text(message)));
    }
    lines.join("\n") + "\n"
}

fn check(cr: &KubeVirt, expected: &Expect) {
    expected.assert_eq(&shown(cr));
}

#[test]
fn from_nothing_to_installed() {
    let empty = KubeVirt::default();
    let begun = after(&empty, "v0.2.0", None, 0);
    check(
        &begun,
        &expect![[r#"
        Deploying observed - target v0.2.0
          Available=False DeploymentInProgress: Components are being installed
          Progressing=True DeploymentInProgress: installing v0.2.0: step 8 of 9, virt-api
          Degraded=False DeploymentInProgress: Components are being installed
    "#]],
    );
    let rolling = after(&begun, "v0.2.0", Some(1), 1);
    check(
        &rolling,
        &expect![[r#"
        Deploying observed - target v0.2.0
          Available=False DeploymentInProgress: Components are being installed
          Progressing=True DeploymentInProgress: installing v0.2.0: step 8 of 9, virt-api; Deployment kv-test/virt-api: 1 of 2 pods ready
          Degraded=False DeploymentInProgress: Components are being installed
          Created=True AllResourcesCreated: Every object is in place
    "#]],
    );
    let done = after(&rolling, "v0.2.0", Some(2), 2);
    check(
        &done,
        &expect![[r#"
        Deployed observed v0.2.0 target v0.2.0
          Available=True AllComponentsReady: Every component is ready
          Progressing=False AllComponentsReady: Every component is ready
          Degraded=False AllComponentsReady: Every component is ready
          Created=True AllResourcesCreated: Every object is in place
    "#]],
    );
    assert_eq!(after(&done, "v0.2.0", Some(2), 3).status, done.status, "nothing new is nothing to write");
}

#[test]
fn an_upgrade_keeps_available_beside_progressing_and_degraded() {
    let done = after(&after(&KubeVirt::default(), "v0.1.0", None, 0), "v0.1.0", Some(2), 1);
    let updating = after(&done, "v0.2.0", Some(1), 2);
    check(
        &updating,
        &expect![[r#"
        Deployed observed v0.1.0 target v0.2.0
          Available=True UpdateInProgress: Components are changing to another version
          Progressing=True UpdateInProgress: updating v0.1.0 to v0.2.0: step 7 of 10, virt-api; Deployment kv-test/virt-api: 1 of 2 pods ready
          Degraded=True UpdateInProgress: Components are changing to another version
    "#]],
    );
    assert_eq!(after(&updating, "v0.2.0", Some(1), 9).status, updating.status);
    check(
        &after(&updating, "v0.2.0", Some(2), 10),
        &expect![[r#"
        Deployed observed v0.2.0 target v0.2.0
          Available=True AllComponentsReady: Every component is ready
          Progressing=False AllComponentsReady: Every component is ready
          Degraded=False AllComponentsReady: Every component is ready
          Created=True AllResourcesCreated: Every object is in place
    "#]],
    );
}

#[test]
fn a_repair_is_no_blip_but_an_outage_is_said() {
    let done = after(&KubeVirt::default(), "v0.1.0", Some(2), 1);
    check(
        &after(&done, "v0.1.0", Some(1), 2),
        &expect![[r#"
        Deployed observed v0.1.0 target v0.1.0
          Available=True AllComponentsReady: Every component is ready
          Progressing=True DeploymentInProgress: bringing v0.1.0 back to its wanted state: step 8 of 9, virt-api; Deployment kv-test/virt-api: 1 of 2 pods ready
          Degraded=False AllComponentsReady: Every component is ready
          Created=True AllResourcesCreated: Every object is in place
    "#]],
    );
    check(
        &after(&done, "v0.1.0", Some(0), 2),
        &expect![[r#"
        Deployed observed v0.1.0 target v0.1.0
          Available=False DeploymentInProgress: Components are being installed
          Progressing=True DeploymentInProgress: bringing v0.1.0 back to its wanted state: step 8 of 9, virt-api; Deployment kv-test/virt-api: 0 of 2 pods ready
          Degraded=False DeploymentInProgress: Components are being installed
          Created=True AllResourcesCreated: Every object is in place
    "#]],
    );
}

#[test]
fn a_version_that_cannot_be_had_leaves_what_runs_available() {
    let target = config("v0.30");
    let refused = || Ended::Refused {
        config: Some(&target),
        reason: Reason::TargetUnavailable,
        message: "no strategy for v0.30".to_owned(),
        returns: false,
        kept: None,
    };
    let fresh = ended(&KubeVirt::default(), &refused(), 0);
    check(
        &fresh,
        &expect![[r#"
        Deploying observed - target v0.30
          Synchronized=False TargetUnavailable: no strategy for v0.30
          Progressing=False TargetUnavailable: no strategy for v0.30
          Available=False TargetUnavailable: no strategy for v0.30
          Degraded=False TargetUnavailable: no strategy for v0.30
    "#]],
    );
    assert_eq!(ended(&fresh, &refused(), 5).status, fresh.status);
    let done = after(&KubeVirt::default(), "v0.1.0", Some(2), 1);
    let pinned = ended(&done, &refused(), 2);
    check(
        &pinned,
        &expect![[r#"
        Deployed observed v0.1.0 target v0.30
          Available=True AllComponentsReady: Every component is ready
          Progressing=False TargetUnavailable: no strategy for v0.30
          Degraded=False AllComponentsReady: Every component is ready
          Created=True AllResourcesCreated: Every object is in place
          Synchronized=False TargetUnavailable: no strategy for v0.30
          UpgradeBlocked=True TargetUnavailable: no strategy for v0.30
    "#]],
    );
    check(
        &after(&pinned, "v0.1.0", Some(2), 3),
        &expect![[r#"
        Deployed observed v0.1.0 target v0.1.0
          Available=True AllComponentsReady: Every component is ready
          Progressing=False AllComponentsReady: Every component is ready
          Degraded=False AllComponentsReady: Every component is ready
          Created=True AllResourcesCreated: Every object is in place
    "#]],
    );
}

#[test]
fn a_failure_and_a_deletion_say_what_they_are() {
    let done = after(&KubeVirt::default(), "v0.1.0", Some(2), 1);
    let target = config("v0.1.0");
    let failed = Ended::Failed { config: &target, message: "Service kv-test/virt-api was refused".to_owned() };
    check(
        &ended(&done, &failed, 2),
        &expect![[r#"
        Deployed observed v0.1.0 target v0.1.0
          Available=False DeploymentFailed: Service kv-test/virt-api was refused
          Progressing=False DeploymentFailed: Service kv-test/virt-api was refused
          Degraded=True DeploymentFailed: Service kv-test/virt-api was refused
          Created=True AllResourcesCreated: Every object is in place
          Synchronized=False DeploymentFailed: Service kv-test/virt-api was refused
    "#]],
    );
    let deleting = Ended::Deleting { message: "Removing workloads: 3 left".to_owned() };
    check(
        &ended(&done, &deleting, 2),
        &expect![[r#"
        Deleting observed v0.1.0 target v0.1.0
          Available=False DeletionInProgress: Components are being removed
          Progressing=False DeletionInProgress: Removing workloads: 3 left
          Degraded=True DeletionInProgress: Components are being removed
    "#]],
    );
}

#[test]
fn what_virt_controller_wrote_survives() {
    let status = KubeVirtStatus { outdated_virtual_machine_instance_workloads: Some(7), ..KubeVirtStatus::default() };
    let cr = KubeVirt { status: Some(status), ..KubeVirt::default() };
    let new = after(&cr, "v0.1.0", Some(2), 1).status.expect("a status");
    assert_eq!(new.outdated_virtual_machine_instance_workloads, Some(7));
    assert_eq!(new.default_architecture.as_deref(), Some("amd64"));
}

#[test]
fn what_is_waited_for_is_a_metric_that_goes_back_to_zero() {
    let registry = kubevirt_runtime::metrics::Metrics::default();
    let metrics = crate::metrics::OperatorMetrics::new(registry.clone());
    metrics.waiting(&planned(Some("v0.1.0"), "v0.2.0", Some(1)).1);
    assert!(
        registry.render().contains("kubevirt_virt_operator_waiting{reason=\"NotReady\"} 1"),
        "{}",
        registry.render()
    );
    metrics.waiting(&planned(Some("v0.1.0"), "v0.2.0", Some(2)).1);
    assert!(
        registry.render().contains("kubevirt_virt_operator_waiting{reason=\"NotReady\"} 0"),
        "{}",
        registry.render()
    );
}

#[test]
fn the_only_pod_of_the_nodes_may_be_replaced_without_an_outage() {
    let handler = ObjectKey::new(Kind::DaemonSet, Some("kv-test"), "virt-handler");
    let id = config("v0.1.0").id();
    let pod = kubevirt_upgrade::Pod {
        name: "virt-handler-1".into(),
        id: Some(id.as_str().into()),
        revision: None,
        created: None,
        ready: false,
        not_ready: None,
        deleting: false,
        node: None,
        since: Some(at(100)),
        trouble: None,
        prepared: false,
    };
    let mut snapshot = Snapshot::default();
    let existing = Existing { same: true, same_transitional: true, id: Some(id), ..Existing::default() };
    snapshot.objects.insert(handler.clone(), existing);
    let workload = Workload {
        kind: WorkloadKind::DaemonSet,
        generation: 1,
        observed_generation: 1,
        wanted: 1,
        updated: 1,
        ready: 0,
        total: 1,
        pods: vec![pod],
    };
    snapshot.workloads.insert(handler.clone(), workload);
    let identity = Identity { version: "v0.1.0".to_owned(), id: config("v0.1.0").id() };
    let (plan, _) = kubevirt_upgrade::plan(&Input {
        observed: Some(identity.clone()),
        target: identity,
        desired: BTreeSet::from([handler]),
        snapshot,
        closes: false,
        releases: Vec::new(),
        pulls_images: false,
        images_overdue: false,
    });
    let facts = crate::pods::PodFacts { since: Some(at(100)), ..Default::default() };
    let world = World { pods: BTreeMap::from([("virt-handler-1".into(), facts)]).into(), ..World::default() };
    assert!(!is_down(&plan, &world, at(130)), "it starts");
    assert!(is_down(&plan, &world, at(160)), "it should have started");
    assert!(is_down(&plan, &World::default(), at(130)), "nobody knows of a pod that starts");
}
