//! Each invariant bites: one planted violation each, beside what it must let pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kubevirt_release::operator_manifest::{ManifestOptions, operator_manifest};
use kubevirt_release::{Kind, Object, Strategy, gate};
use kubevirt_runtime::clock::Clock;
use nanokube::{Nanokube, Options, UserInfo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use super::{NAMESPACE, OPERATOR};
use crate::course::Course;
use crate::process::Lives;
use crate::referee::Referee;
use crate::releases::NEW_DEFINITION;
use crate::run::Script;

const FINALIZER: &str = "kubevirt.io/foregroundDeleteKubeVirt";

/// A server with the operator's definitions, a custom resource, and the lease in the hands of the pod `leader`.
struct Stage {
    api: Nanokube,
    referee: Arc<Referee>,
}

impl Stage {
    async fn new() -> Self {
        let clock = Clock::anchored("2026-01-01T00:00:00Z".parse().unwrap());
        let referee = Arc::new(Referee::new(
            clock.clone(),
            Lives::default(),
            None,
            Course::new(Script::undisturbed(1, &[]), None),
        ));
        let faults = Arc::clone(&referee) as Arc<dyn nanokube::Faults>;
        let api = Nanokube::new(Options::new(clock, 1).with_faults(faults));
        referee.attach(api.clone());
        let stage = Self { api, referee };
        for object in operator_manifest(&ManifestOptions::new("registry", "v0.1.0")) {
            if matches!(object.kind(), Kind::Namespace | Kind::CustomResourceDefinition) {
                stage.create("admin", object.value().clone()).await;
            }
        }
        stage
            .create(
                "admin",
                json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "namespace": NAMESPACE, "finalizers": [FINALIZER]}, "spec": {}}),
            )
            .await;
        stage
            .create(
                "leader",
                json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "virt-operator", "namespace": NAMESPACE},
            "spec": {"holderIdentity": "leader", "leaseDurationSeconds": 15, "leaseTransitions": 4}}),
            )
            .await;
        stage
    }

    /// Who acts: the administrator, or the operator in the pod of this name.
    fn objects(&self, who: &str, kind: Kind) -> Api<DynamicObject> {
        let user = match who {
            "admin" => UserInfo::admin(),
            pod => UserInfo {
                extra: BTreeMap::from([("authentication.kubernetes.io/pod-name".to_owned(), vec![pod.to_owned()])]),
                ..UserInfo::new(OPERATOR, &["system:masters"])
            },
        };
        self.of(user, kind.group(), kind.version(), kind.name(), kind.plural(), kind.namespaced())
    }

    fn of(
        &self,
        user: UserInfo,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        namespaced: bool,
    ) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let client = self.api.client(user);
        if namespaced { Api::namespaced_with(client, NAMESPACE, &resource) } else { Api::all_with(client, &resource) }
    }

    async fn create(&self, who: &str, object: Value) {
        let found = Object::from_value(object.clone());
        let api = match found {
            Ok(found) => self.objects(who, found.kind()),
            // Leases are not of a release.
            Err(_) => {
                let user = UserInfo::new(OPERATOR, &["system:masters"]);
                self.of(user, "coordination.k8s.io", "v1", "Lease", "leases", true)
            }
        };
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    async fn merge(&self, who: &str, kind: Kind, name: &str, change: Value) {
        self.objects(who, kind).patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    async fn status(&self, change: Value) {
        let api = self.objects("leader", Kind::KubeVirt);
        api.patch_status("kubevirt", &PatchParams::default(), &Patch::Merge(json!({"status": change}))).await.unwrap();
    }

    /// Deletes the object that has the name now, by its uid.
    async fn delete(&self, who: &str, kind: Kind, name: &str) {
        let api = self.objects(who, kind);
        let uid = api.get(name).await.unwrap().metadata.uid;
        let preconditions = Some(Preconditions { uid, resource_version: None });
        api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await.unwrap();
    }

    /// Writes the operator's lease as a pod does.
    async fn lease(&self, change: Value) {
        let user = UserInfo::new(OPERATOR, &["system:masters"]);
        let api = self.of(user, "coordination.k8s.io", "v1", "Lease", "leases", true);
        api.patch("virt-operator", &PatchParams::default(), &Patch::Merge(json!({"spec": change}))).await.unwrap();
    }

    /// The invariants that were broken so far.
    fn broken(&self) -> Vec<String> {
        self.referee.findings().violations.into_iter().map(|violation| violation.id).collect()
    }
}

fn managed(kind: Kind, name: &str, generation: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": {
        "name": name, "labels": {"app.kubernetes.io/managed-by": "virt-operator"},
        "annotations": {"kubevirt.io/generation": generation},
    }});
    if kind.namespaced() {
        object["metadata"]["namespace"] = json!(NAMESPACE);
    }
    for (name, value) in rest.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn account(name: &str) -> Value {
    managed(Kind::ServiceAccount, name, "1", json!({}))
}

#[tokio::test(start_paused = true)]
async fn s2_a_foreign_object_or_a_definition_is_deleted() {
    let stage = Stage::new().await;
    stage.create("leader", account("own")).await;
    stage.delete("leader", Kind::ServiceAccount, "own").await;
    assert_eq!(stage.broken(), [""; 0], "what it made it may delete");
    let mut foreign = account("foreign");
    foreign["metadata"]["labels"] = json!({});
    stage.create("admin", foreign).await;
    stage.delete("leader", Kind::ServiceAccount, "foreign").await;
    assert_eq!(stage.broken(), ["S2"]);

    let crd = kubevirt_api::crds::all().into_iter().next().unwrap();
    let mut crd = serde_json::to_value(crd).unwrap();
    crd["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("virt-operator");
    let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
    stage.create("leader", crd).await;
    stage.delete("leader", Kind::CustomResourceDefinition, &name).await;
    assert_eq!(stage.broken(), ["S2", "S2"], "the suite is wanted");
}

#[tokio::test(start_paused = true)]
async fn s2_whatever_has_the_name_is_deleted() {
    let stage = Stage::new().await;
    stage.create("leader", account("own")).await;
    let api = stage.objects("leader", Kind::ServiceAccount);
    api.delete("own", &DeleteParams::default()).await.unwrap();
    assert_eq!(stage.broken(), ["S2"]);
}

#[tokio::test(start_paused = true)]
async fn s3_an_object_goes_back_to_an_older_generation() {
    let stage = Stage::new().await;
    stage.create("leader", account("a")).await;
    let at = |generation: &str| json!({"metadata": {"annotations": {"kubevirt.io/generation": generation}}});
    stage.merge("leader", Kind::ServiceAccount, "a", at("3")).await;
    assert_eq!(stage.broken(), [""; 0]);
    stage.merge("leader", Kind::ServiceAccount, "a", at("2")).await;
    assert_eq!(stage.broken(), ["S3"]);
}

#[tokio::test(start_paused = true)]
async fn s4_the_status_is_ahead_or_goes_back() {
    let stage = Stage::new().await;
    stage.status(json!({"phase": "Deploying", "observedGeneration": 1})).await;
    stage.status(json!({"phase": "Deployed"})).await;
    assert_eq!(stage.broken(), [""; 0]);
    stage.status(json!({"observedGeneration": 2})).await;
    assert_eq!(stage.broken(), ["S4"]);
    stage.status(json!({"phase": "Deploying", "observedGeneration": 1})).await;
    assert_eq!(stage.broken(), ["S4", "S4"]);
}

#[tokio::test(start_paused = true)]
async fn s4_the_status_says_that_all_is_done_and_a_workload_is_not_rolled_out() {
    let stage = Stage::new().await;
    let workload = |kind: Kind, name: &str| {
        let labels = json!({"matchLabels": {"kubevirt.io": name}});
        let pod = json!({"metadata": {"labels": {"kubevirt.io": name}},
            "spec": {"containers": [{"name": name, "image": "localhost/none"}]}});
        managed(kind, name, "1", json!({"spec": {"selector": labels, "template": pod}}))
    };
    for (kind, name) in
        [(Kind::Deployment, "virt-api"), (Kind::Deployment, "virt-controller"), (Kind::DaemonSet, "virt-handler")]
    {
        stage.create("leader", workload(kind, name)).await;
    }
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
    let told = |progressing: &str| json!({"phase": "Deployed", "conditions": [condition("Available", "True"), condition("Progressing", progressing)]});
    stage.status(told("True")).await;
    assert_eq!(stage.broken(), [""; 0], "it says that it is at work");
    stage.status(told("False")).await;
    assert_eq!(stage.broken(), ["S4"], "nobody has made a pod");
}

#[tokio::test(start_paused = true)]
async fn s5_an_object_without_finalizer_and_a_finalizer_that_goes_early() {
    let stage = Stage::new().await;
    stage.create("leader", account("a")).await;
    assert_eq!(stage.broken(), [""; 0]);
    let without = json!({"metadata": {"finalizers": []}});
    stage.merge("leader", Kind::KubeVirt, "kubevirt", without).await;
    assert_eq!(stage.broken(), ["S5"], "a is still there");
    stage.create("leader", account("b")).await;
    assert_eq!(stage.broken(), ["S5", "S5"]);
}

/// An authority and a certificate it signed, as PEM.
fn authority(name: &str) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["virt-api".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (issuer.pem(), leaf.pem())
}

#[tokio::test(start_paused = true)]
async fn s6_a_certificate_is_signed_anew_before_the_bundle_knows_its_authority() {
    let stage = Stage::new().await;
    let ((old, old_leaf), (new, new_leaf)) = (authority("old"), authority("new"));
    stage.create("leader", managed(Kind::ConfigMap, "kubevirt-ca", "1", json!({"data": {"ca-bundle": old}}))).await;
    let data = |leaf: &str| json!({"data": {"tls.crt": BASE64.encode(leaf), "tls.key": ""}});
    let mut secret = managed(Kind::Secret, "kubevirt-virt-api-certs", "1", data(&old_leaf));
    secret["type"] = json!("kubernetes.io/tls");
    stage.create("leader", secret).await;
    let bundle = |text: String| json!({"data": {"ca-bundle": text}});
    stage.merge("leader", Kind::ConfigMap, "kubevirt-ca", bundle(format!("{new}{old}"))).await;
    stage.merge("leader", Kind::Secret, "kubevirt-virt-api-certs", data(&new_leaf)).await;
    stage.merge("leader", Kind::ConfigMap, "kubevirt-ca", bundle(new.clone())).await;
    assert_eq!(stage.broken(), [""; 0], "bundle first, then the certificate, then the old authority goes");
    stage.merge("leader", Kind::Secret, "kubevirt-virt-api-certs", data(&old_leaf)).await;
    assert_eq!(stage.broken(), ["S6"]);
}

/// Seconds of a certificate's life in [`brief_leaf`].
const BRIEF: u64 = 300;

/// An authority that never ends, and a certificate it signed that ends in five minutes.
fn brief_leaf() -> (String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["virt-api".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2026, 1, 1) + std::time::Duration::from_secs(BRIEF);
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    (issuer.pem(), leaf.pem())
}

/// The leader writes a certificate that ends, and renews its lease, or is away for longer than that.
async fn broken_when_time_passes(is_there: bool) -> Vec<String> {
    let stage = Stage::new().await;
    let (bundle, leaf) = brief_leaf();
    stage.create("leader", managed(Kind::ConfigMap, "kubevirt-ca", "1", json!({"data": {"ca-bundle": bundle}}))).await;
    let data = json!({"data": {"tls.crt": BASE64.encode(leaf), "tls.key": ""}, "type": "kubernetes.io/tls"});
    stage.create("leader", managed(Kind::Secret, "kubevirt-virt-api-certs", "1", data)).await;
    for second in (0..BRIEF + 60).step_by(10) {
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        if is_there || second >= BRIEF {
            stage.lease(json!({"renewTime": format!("2026-01-01T00:00:00.{second:06}Z")})).await;
        }
    }
    // Whoever comes back finds it broken and is not to blame; the certificate is one of several to repair.
    stage.merge("leader", Kind::ConfigMap, "kubevirt-ca", json!({"metadata": {"annotations": {"any": "thing"}}})).await;
    stage.broken()
}

#[tokio::test(start_paused = true)]
async fn s6_a_certificate_runs_out_in_the_presence_of_the_operator() {
    assert_eq!(broken_when_time_passes(true).await, ["S6"]);
    assert_eq!(broken_when_time_passes(false).await, [""; 0], "time broke it while nobody was there");
}

#[tokio::test(start_paused = true)]
async fn s7_a_pod_writes_that_does_not_hold_the_lease_any_more() {
    let stage = Stage::new().await;
    stage.create("leader", account("a")).await;
    assert_eq!(stage.broken(), [""; 0]);
    stage.create("another", account("b")).await;
    assert_eq!(stage.broken(), ["S7"]);
    tokio::time::advance(std::time::Duration::from_secs(16)).await;
    stage.create("leader", account("c")).await;
    assert_eq!(stage.broken(), ["S7", "S7"], "its lease has run out");
}

#[tokio::test(start_paused = true)]
async fn s7_a_pod_takes_the_lease_of_one_that_is_alive() {
    let stage = Stage::new().await;
    let held_by = |pod: &str| json!({"holderIdentity": pod});
    tokio::time::advance(std::time::Duration::from_secs(16)).await;
    stage.lease(held_by("second")).await;
    assert_eq!(stage.broken(), [""; 0], "the first had run out");
    stage.lease(held_by("")).await;
    stage.lease(held_by("third")).await;
    assert_eq!(stage.broken(), [""; 0], "the second gave it up");
    stage.lease(held_by("fourth")).await;
    assert_eq!(stage.broken(), ["S7"]);
}

#[tokio::test(start_paused = true)]
async fn s8_an_uninstallation_takes_what_others_need() {
    let stage = Stage::new().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": "virt-api-1", "namespace": NAMESPACE, "labels": {"kubevirt.io": "virt-api"}},
        "spec": {"containers": [{"name": "virt-api", "image": "localhost/none"}]}});
    let pods = stage.of(UserInfo::admin(), "", "v1", "Pod", "pods", true);
    stage.create("admin", account("default")).await;
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    for name in ["a", "b", "c"] {
        stage.create("leader", account(name)).await;
    }
    stage.delete("leader", Kind::ServiceAccount, "a").await;
    assert_eq!(stage.broken(), [""; 0], "the suite is wanted");
    stage.delete("admin", Kind::KubeVirt, "kubevirt").await;
    stage.delete("leader", Kind::ServiceAccount, "b").await;
    assert_eq!(stage.broken(), ["S8"], "a pod may still need it");
    pods.delete("virt-api-1", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
        .await
        .unwrap();
    stage.delete("leader", Kind::ServiceAccount, "c").await;
    assert_eq!(stage.broken(), ["S8"]);
}

/// A component's workload of a version.
fn workload(kind: Kind, component: &str, version: &str) -> Value {
    let template = json!({
        "metadata": {"labels": {"kubevirt.io": component}, "annotations": {VERSION: version}},
        "spec": {"containers": [{"name": component, "image": "localhost/none"}]},
    });
    managed(
        kind,
        component,
        "1",
        json!({"spec": {"selector": {"matchLabels": {"kubevirt.io": component}}, "template": template}}),
    )
}

const VERSION: &str = "kubevirt.io/install-strategy-version";

#[tokio::test(start_paused = true)]
async fn s9_a_component_gets_the_new_version_before_those_that_come_first() {
    let stage = Stage::new().await;
    let pods = stage.of(UserInfo::admin(), "", "v1", "Pod", "pods", true);
    let pod = |name: &str, version: &str| -> DynamicObject {
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE,
            "labels": {"kubevirt.io": "virt-handler"}, "annotations": {VERSION: version}},
            "spec": {"containers": [{"name": "virt-handler", "image": "localhost/none"}]}}),
        )
        .unwrap()
    };
    let change = json!({"spec": {"template": {"metadata": {"annotations": {VERSION: "v0.2.0"}}}}});
    stage.create("admin", account("default")).await;
    stage.create("leader", workload(Kind::DaemonSet, "virt-handler", "v0.1.0")).await;
    stage.create("leader", workload(Kind::Deployment, "virt-controller", "v0.1.0")).await;
    stage.create("leader", workload(Kind::Deployment, "virt-api", "v0.1.0")).await;
    pods.create(&PostParams::default(), &pod("old", "v0.1.0")).await.unwrap();
    pods.create(&PostParams::default(), &pod("new", "v0.2.0")).await.unwrap();
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("new", &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    stage.merge("leader", Kind::DaemonSet, "virt-handler", change.clone()).await;
    assert_eq!(stage.broken(), [""; 0], "it is the first");
    stage.merge("leader", Kind::Deployment, "virt-controller", change.clone()).await;
    assert_eq!(stage.broken(), ["S9"], "an old pod of virt-handler is left");
    pods.delete("old", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    let back = json!({"spec": {"template": {"metadata": {"annotations": {VERSION: "v0.1.0"}}}}});
    stage.merge("leader", Kind::Deployment, "virt-controller", back).await;
    stage.merge("leader", Kind::Deployment, "virt-controller", change.clone()).await;
    assert_eq!(stage.broken(), ["S9"], "nothing old is left, and the way back is another matter");
    stage.merge("leader", Kind::Deployment, "virt-api", change).await;
    assert_eq!(stage.broken(), ["S9", "S9"], "no pod of virt-controller is ready");
}

#[tokio::test(start_paused = true)]
async fn s10_a_change_that_is_over_goes_on_or_is_undone_out_of_the_blue() {
    let stage = Stage::new().await;
    let told = async |name: &str, states: &[&str]| {
        let plan = json!({"apiVersion": "upgrade.kubevirt.io/v1alpha1", "kind": "UpgradePlan",
            "metadata": {"name": name}, "spec": {}});
        stage.create("leader", plan).await;
        let plans = stage.objects("leader", Kind::UpgradePlan);
        for state in states {
            let status = Patch::Merge(json!({"status": {"state": state}}));
            plans.patch_status(name, &PatchParams::default(), &status).await.unwrap();
        }
    };
    told("a", &["InProgress", "Paused", "InProgress", "Succeeded"]).await;
    told("b", &["InProgress", "RollingBack", "RolledBack"]).await;
    assert_eq!(stage.broken(), [""; 0]);
    told("c", &["InProgress", "Succeeded", "InProgress"]).await;
    assert_eq!(stage.broken(), ["S10"]);
    told("d", &["InProgress", "RolledBack"]).await;
    assert_eq!(stage.broken(), ["S10", "S10"]);
}

#[tokio::test(start_paused = true)]
async fn s11_a_role_loses_a_rule_that_an_old_pod_needs_or_lacks_one_that_new_pods_need() {
    let stage = Stage::new().await;
    let pods = stage.of(UserInfo::admin(), "", "v1", "Pod", "pods", true);
    let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
    let role = |resources: &[&str]| {
        let rules: Vec<Value> = resources.iter().map(|resource| rule(resource)).collect();
        managed(Kind::ClusterRole, "kubevirt-handler", "1", json!({"rules": rules}))
    };
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kubevirt-handler"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE}],
    });
    let binding = managed(Kind::ClusterRoleBinding, "kubevirt-handler", "1", binding);
    for (version, resources) in [("v0.1.0", ["pods", "secrets"]), ("v0.2.0", ["pods", "nodes"])] {
        let objects = [role(&resources), binding.clone()].map(|object| Object::from_value(object).unwrap());
        let registry = "registry".to_owned();
        let strategy = Strategy { version: version.to_owned(), registry, id: String::new(), objects: objects.to_vec() };
        let mut map = serde_json::to_value(strategy.encode(NAMESPACE)).unwrap();
        map["metadata"]["name"] = json!(version);
        stage.create("leader", map).await;
    }
    let mut handler = workload(Kind::DaemonSet, "virt-handler", "v0.1.0");
    handler["spec"]["template"]["spec"]["serviceAccountName"] = json!("default");
    stage.create("admin", account("default")).await;
    stage.create("leader", role(&["pods", "secrets"])).await;
    stage.create("leader", handler).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old", "namespace": NAMESPACE,
        "labels": {"kubevirt.io": "virt-handler"}, "annotations": {VERSION: "v0.1.0"}},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "virt-handler", "image": "localhost/none"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let rules = |resources: &[&str]| json!({"rules": role(resources)["rules"]});
    let to = |version: &str| json!({"spec": {"template": {"metadata": {"annotations": {VERSION: version}}}}});
    stage.merge("leader", Kind::ClusterRole, "kubevirt-handler", rules(&["pods", "secrets", "nodes"])).await;
    stage.merge("leader", Kind::DaemonSet, "virt-handler", to("v0.2.0")).await;
    assert_eq!(stage.broken(), [""; 0], "the role holds what either needs");
    stage.merge("leader", Kind::ClusterRole, "kubevirt-handler", rules(&["pods", "nodes"])).await;
    assert_eq!(stage.broken(), ["S11"], "the old pod needs Secrets");
    pods.delete("old", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    stage.merge("leader", Kind::ClusterRole, "kubevirt-handler", rules(&["nodes"])).await;
    assert_eq!(stage.broken(), ["S11"], "nobody is left who needs Pods");
    stage.merge("leader", Kind::DaemonSet, "virt-handler", to("v0.1.0")).await;
    assert_eq!(stage.broken(), ["S11", "S11"], "its pods would lack what they need");
    stage.merge("admin", Kind::ClusterRole, "kubevirt-handler", rules(&[])).await;
    stage.merge("leader", Kind::DaemonSet, "virt-handler", to("v0.2.0")).await;
    assert_eq!(stage.broken(), ["S11", "S11"], "somebody else took the rules a moment ago");
}

#[tokio::test(start_paused = true)]
async fn s12_a_kind_that_a_version_brings_is_not_closed_or_is_opened_too_early() {
    let stage = Stage::new().await;
    let strategy = Strategy {
        version: "v0.1.0".to_owned(),
        registry: "registry".to_owned(),
        id: String::new(),
        objects: Vec::new(),
    };
    let mut map = serde_json::to_value(strategy.encode(NAMESPACE)).unwrap();
    map["metadata"]["name"] = json!("older");
    stage.create("leader", map).await;
    let pods = stage.of(UserInfo::admin(), "", "v1", "Pod", "pods", true);
    let old = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old", "namespace": NAMESPACE,
        "labels": {"kubevirt.io": "virt-api"}, "annotations": {VERSION: "v0.1.0"}},
        "spec": {"containers": [{"name": "virt-api", "image": "localhost/none"}]}});
    stage.create("admin", account("default")).await;
    pods.create(&PostParams::default(), &serde_json::from_value(old).unwrap()).await.unwrap();
    stage.merge("admin", Kind::KubeVirt, "kubevirt", json!({"spec": {"imageTag": "v0.2.0"}})).await;
    let definition = managed(
        Kind::CustomResourceDefinition,
        NEW_DEFINITION,
        "1",
        json!({"spec": {"group": "plugin.kubevirt.io", "scope": "Cluster",
            "names": {"plural": "plugins", "singular": "plugin", "kind": "Plugin", "listKind": "PluginList"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}),
    );
    let gate = |name: &str| {
        let service = json!({"service": {"name": "kubevirt-operator-webhook", "namespace": NAMESPACE}});
        managed(
            Kind::ValidatingWebhookConfiguration,
            gate::NAME,
            "1",
            json!({"webhooks": [{
            "name": format!("{name}-tmp-validator"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": service,
            "rules": [{"apiGroups": ["plugin.kubevirt.io"], "apiVersions": ["*"], "operations": ["CREATE"],
                "resources": ["plugins"]}]}]}),
        )
    };
    let close = async || stage.create("leader", gate(NEW_DEFINITION)).await;
    let open = async || stage.delete("leader", Kind::ValidatingWebhookConfiguration, gate::NAME).await;
    let take = async || {
        let definitions = stage.objects("admin", Kind::CustomResourceDefinition);
        definitions.delete(NEW_DEFINITION, &DeleteParams::default()).await.unwrap();
    };
    close().await;
    stage.create("leader", definition.clone()).await;
    assert_eq!(stage.broken(), [""; 0], "it is closed");
    open().await;
    assert_eq!(stage.broken(), ["S12"], "the older virt-api may answer");
    take().await;
    stage.create("leader", gate("others.kubevirt.io")).await;
    stage.create("leader", definition.clone()).await;
    assert_eq!(stage.broken(), ["S12", "S12"], "only another kind is closed");
    open().await;
    assert_eq!(stage.broken(), ["S12", "S12"], "it did not close this kind");
    let plan = json!({"apiVersion": "upgrade.kubevirt.io/v1alpha1", "kind": "UpgradePlan",
        "metadata": {"name": "upgrade-1"}, "spec": {"request": "Pause"}});
    stage.create("leader", plan).await;
    close().await;
    open().await;
    assert_eq!(stage.broken(), ["S12", "S12", "S12"], "somebody only thinks");
    stage.merge("admin", Kind::UpgradePlan, "upgrade-1", json!({"spec": {"request": "Rollback"}})).await;
    close().await;
    open().await;
    assert_eq!(stage.broken().len(), 3, "it is given up");
    stage.merge("admin", Kind::UpgradePlan, "upgrade-1", json!({"spec": {"request": null}})).await;
    close().await;
    stage.merge("admin", Kind::KubeVirt, "kubevirt", json!({"spec": {"imageTag": "v0.1.0"}})).await;
    open().await;
    assert_eq!(stage.broken().len(), 3, "nobody wants the newer version any more");
    stage.merge("admin", Kind::KubeVirt, "kubevirt", json!({"spec": {"imageTag": "v0.2.0"}})).await;
    close().await;
    pods.delete("old", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    open().await;
    take().await;
    stage.create("leader", definition).await;
    assert_eq!(stage.broken().len(), 3, "nobody is left who would not know the kind");
}
