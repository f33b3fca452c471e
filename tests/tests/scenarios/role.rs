//! The operator's role against what it asks: an installation, repairs, settings, a change of version and a removal are
//! recorded, and the role has to allow every request and nothing besides.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kubevirt_api::crds::{self, Row, Scope};
use kubevirt_release::operator_manifest::role;
use kubevirt_release::rbac::covers;
use kubevirt_release::{Kind, Object, Strategy, certificates};
use kubevirt_tests::{NAMESPACE, OPERATOR, World, condition_of, simulate, until, until_gone};
use serde_json::{Value, json};

use super::beside::{account, definition, says};
use super::support::{install, object, operator, settled};

/// Rights that the recording does not use, and why the role has them.
const UNUSED: &[(&str, &str)] = &[
    ("create routes.route.openshift.io of any name in its namespace", ROUTES),
    ("delete pods of any name in its namespace", "only where a policy chooses which node is next"),
    ("delete routes.route.openshift.io of any name in its namespace", ROUTES),
    ("delete upgradeplans.upgrade.kubevirt.io of any name everywhere", "the oldest of twenty changes makes room"),
    ("patch routes.route.openshift.io of any name in its namespace", ROUTES),
    ("watch routes.route.openshift.io of any name in its namespace", ROUTES),
];
const ROUTES: &str = "releases of the existing suite have one for exports on OpenShift, this release has none";

const RBAC: &str = "rbac.authorization.k8s.io";
const LABEL: &str = "app.kubernetes.io/managed-by";

/// One thing a rule allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    everywhere: bool,
    group: String,
    /// With the subresource.
    resource: String,
    name: Option<String>,
    verb: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { everywhere, group, resource, name, verb } = self;
        let place = if *everywhere { "everywhere" } else { "in its namespace" };
        let group = if group.is_empty() { String::new() } else { format!(".{group}") };
        write!(f, "{verb} {resource}{group} {} {place}", name.as_deref().unwrap_or("of any name"))
    }
}

fn rights(rules: &[PolicyRule], everywhere: bool) -> Vec<Right> {
    let mut found = Vec::new();
    for rule in rules {
        let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let names = list(&rule.resource_names);
        let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        for (group, resource, name, verb) in list(&rule.api_groups).iter().flat_map(|group| {
            list(&rule.resources)
                .into_iter()
                .flat_map(|resource| {
                    names.iter().flat_map(move |name| {
                        let resource = resource.clone();
                        rule.verbs.iter().map(move |verb| (group, resource.clone(), name.clone(), verb.clone()))
                    })
                })
                .collect::<Vec<_>>()
        }) {
            found.push(Right { everywhere, group: group.clone(), resource, name, verb });
        }
    }
    found
}

/// What a recorded request has to be allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    namespace: String,
    group: String,
    resource: String,
    name: String,
    verb: String,
}

impl Asked {
    fn is_allowed_by(&self, right: &Right) -> bool {
        (right.everywhere || self.namespace == NAMESPACE)
            && (&right.group, &right.resource, &right.verb) == (&self.group, &self.resource, &self.verb)
            && right.name.as_ref().is_none_or(|name| *name == self.name)
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn asked(event: &Value) -> Vec<Asked> {
    let object = |field: &str| text(event, &format!("/objectRef/{field}"));
    assert!(!object("resource").is_empty(), "the operator asks for objects alone: {event}");
    let (verb, uri) = (text(event, "/verb"), text(event, "/requestURI"));
    let selected =
        uri.split_once("fieldSelector=metadata.name%3D").map(|(_, rest)| rest.split('&').next().unwrap_or(rest));
    let resource = match object("subresource") {
        "" => object("resource").to_owned(),
        subresource => format!("{}/{subresource}", object("resource")),
    };
    let request = Asked {
        namespace: object("namespace").to_owned(),
        group: object("apiGroup").to_owned(),
        resource,
        name: match verb {
            // By POST; whether it may be made is asked before it has its name.
            "create" => String::new(),
            _ => selected.unwrap_or_else(|| object("name")).to_owned(),
        },
        verb: verb.to_owned(),
    };
    // What an apply makes has to be allowed to be made as well.
    let made = (verb == "patch" && event["responseStatus"]["code"] == 201)
        .then(|| Asked { verb: "create".to_owned(), ..request.clone() });
    made.into_iter().chain([request]).collect()
}

fn ours() -> ListParams {
    ListParams::default().labels(&format!("{LABEL}=virt-operator"))
}

/// Everything the operator manages, but the strategies that it keeps for the way back.
async fn managed(world: &World) -> Vec<Object> {
    let mut found = Vec::new();
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt) {
        // A kind that the cluster does not serve has no objects.
        let Ok(objects) = world.api(*kind, None).list(&ours()).await else { continue };
        for mut object in objects.items {
            object.types = Some(kubevirt_tests::type_meta(&kind.api_version(), kind.name()));
            let value = serde_json::to_value(object).expect("plain data");
            if value["metadata"]["labels"]["kubevirt.io/install-strategy"].is_null() {
                found.push(Object::from_value(value).expect("of a registered kind"));
            }
        }
    }
    found
}

/// Objects that other releases have and this one has not, with a rule this one lacks among them.
fn of_another_release() -> Vec<Object> {
    let role = |kind: &str, name: &str| json!({"apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": {"name": name}, "rules": [extra_rule()]});
    let binding = |kind: &str, name: &str, of: &str, role: &str| {
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": of, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "kubevirt-apiserver", "namespace": NAMESPACE}]})
    };
    let mut objects = vec![
        binding("ClusterRoleBinding", "kubevirt-apiserver-auth-delegator", "ClusterRole", "system:auth-delegator"),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "of-yesterday"}, "webhooks": []}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "of-yesterday"}, "spec": {"failurePolicy": "Ignore",
                "matchConstraints": {"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"],
                    "operations": ["CREATE"], "resources": ["things"]}]},
                "validations": [{"expression": "true"}]}}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "of-yesterday"}, "spec": {"policyName": "of-yesterday", "validationActions": ["Deny"]}}),
    ];
    for name in ["kubevirt-exportproxy", "kubevirt-synchronization-controller"] {
        objects.extend([role("ClusterRole", name), binding("ClusterRoleBinding", name, "ClusterRole", name)]);
        let mut local = [role("Role", name), binding("RoleBinding", name, "Role", name)];
        local.iter_mut().for_each(|object| object["metadata"]["namespace"] = json!(NAMESPACE));
        objects.extend(local);
    }
    objects.into_iter().map(|object| Object::from_value(object).expect("of a registered kind")).collect()
}

fn extra_rule() -> Value {
    json!({"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]})
}

fn has_extra_rule(role: &Value) -> bool {
    role["rules"].as_array().is_some_and(|rules| rules.contains(&extra_rule()))
}

/// A version that the definitions of another release have, in which objects were stored once.
const FORMER: &str = "v1alpha0";

/// An object of every definition, each of which says that there may be some that are stored in a former version: they are
/// stored anew before a release comes that has that version no more.
async fn store_anew(world: &World) {
    let api = |row: &Row| {
        let stored = row.versions.iter().find(|version| version.storage).expect("one is stored").name;
        let namespace = (row.scope == Scope::Namespaced).then_some(NAMESPACE);
        (format!("{}/{stored}", row.group), world.api_of(row.group, stored, row.kind, row.plural, namespace))
    };
    for row in crds::ROWS {
        let nowhere = json!({"domain": {"devices": {}}, "nodeSelector": {"example.com/nowhere": "yes"}});
        let spec = match row.kind {
            "VirtualMachine" => json!({"runStrategy": "Halted", "template": {"spec": nowhere}}),
            "VirtualMachineInstance" => nowhere,
            "VirtualMachineInstanceMigration" => json!({"vmiName": "kept"}),
            _ => json!({}),
        };
        let (api_version, api) = api(row);
        let one = json!({"apiVersion": api_version, "kind": row.kind, "metadata": {"name": "kept"}, "spec": spec});
        let made = api.create(&PostParams::default(), &serde_json::from_value(one).expect("an object")).await;
        made.unwrap_or_else(|error| panic!("{}: {error}", row.kind));
    }
    let definitions = world.api(Kind::CustomResourceDefinition, None);
    for row in crds::ROWS {
        let stored = row.versions.iter().find(|version| version.storage).expect("one is stored").name;
        let record = Patch::Merge(json!({"status": {"storedVersions": [FORMER, stored]}}));
        definitions.patch_status(&row.name(), &PatchParams::default(), &record).await.expect("a record");
    }
    for row in crds::ROWS {
        let is_over = |definition: &kube::api::DynamicObject| {
            definition.data["status"]["storedVersions"].as_array().is_some_and(|versions| versions.len() == 1)
        };
        until(&definitions, &row.name(), "stored anew", is_over).await;
    }
    for row in crds::ROWS {
        let (_, api) = api(row);
        // A type that only looks like ours is gone already.
        if api.delete("kept", &DeleteParams::default()).await.is_ok() {
            until_gone(&api, "kept").await;
        }
    }
}

/// Changes the kept strategy of the version that runs, as if it had been another release's.
async fn widen_the_kept_strategy(world: &World) {
    let maps = world.api(Kind::ConfigMap, Some(NAMESPACE));
    let kept = maps.list(&ListParams::default().labels("kubevirt.io/install-strategy")).await.expect("a list").items;
    let kept = serde_json::to_value(kept.into_iter().next().expect("the strategy is kept")).expect("plain data");
    let mut strategy =
        Strategy::decode(&serde_json::from_value::<ConfigMap>(kept.clone()).expect("a ConfigMap")).expect("ours");
    for role in strategy.objects.iter_mut().filter(|o| o.kind() == Kind::ClusterRole && o.name() == "kubevirt-handler")
    {
        role.value_mut()["rules"].as_array_mut().expect("rules").push(extra_rule());
    }
    for definition in strategy.objects.iter_mut().filter(|object| object.kind() == Kind::CustomResourceDefinition) {
        let versions = definition.value_mut()["spec"]["versions"].as_array_mut().expect("versions");
        let mut former = versions[0].clone();
        (former["name"], former["served"], former["storage"]) = (FORMER.into(), false.into(), false.into());
        versions.push(former);
    }
    strategy.objects.extend(of_another_release());
    let change = json!({"data": strategy.encode(NAMESPACE).data});
    maps.patch(text(&kept, "/metadata/name"), &PatchParams::default(), &Patch::Merge(change)).await.expect("an edit");
}

/// Takes the labels off every object, then deletes every object; each time all have to come back.
async fn strike(world: &World) {
    let all = managed(world).await;
    assert!(all.len() > 60, "{}", all.len());
    let is_ours = |object: &kube::api::DynamicObject| {
        object.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL))
    };
    for object in &all {
        let api = world.api(object.kind(), object.namespace());
        let strip = Patch::Merge(json!({"metadata": {"labels": null}}));
        api.patch(object.name(), &PatchParams::default(), &strip).await.expect("an edit");
    }
    for object in &all {
        until(&world.api(object.kind(), object.namespace()), object.name(), "labelled again", is_ours).await;
    }
    // What keeps its owner alive would hold up everything that is in it.
    let mut all: Vec<&Object> = all.iter().filter(|object| object.kind() != Kind::Namespace).collect();
    // With a definition goes what is stored under it, which could not be deleted any more, and it comes back first.
    all.sort_by_key(|object| object.kind() == Kind::CustomResourceDefinition);
    for object in &all {
        let gone = world.api(object.kind(), object.namespace()).delete(object.name(), &DeleteParams::default()).await;
        gone.unwrap_or_else(|error| panic!("{}: {error}", object.key()));
    }
    for object in all.iter().rev() {
        let uid = object.at("/metadata/uid").and_then(Value::as_str);
        let is_new = |live: &kube::api::DynamicObject| live.metadata.uid.as_deref() != uid && is_ours(live);
        until(&world.api(object.kind(), object.namespace()), object.name(), "made again", is_new).await;
    }
}

/// Which roles are given to somebody, and whether each is of the cluster.
async fn given(world: &World) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for kind in [Kind::ClusterRoleBinding, Kind::RoleBinding] {
        for binding in world.api(kind, None).list(&ours()).await.expect("a list").items {
            let role = &binding.data["roleRef"];
            found.insert((format!("{}s", text(role, "/kind").to_lowercase()), text(role, "/name").to_owned()));
        }
    }
    found
}

async fn merge(world: &World, kind: Kind, name: &str, change: Value) {
    let api = world.api(kind, Some(NAMESPACE));
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Installs v0.1.0, configures it, breaks it, changes to v0.2.0 and removes everything. The roles that were given.
async fn live_through_everything(world: &World) -> BTreeSet<(String, String)> {
    // What an optional API is for is asked only where it is served.
    let optional = [Kind::ServiceMonitor, Kind::PrometheusRule, Kind::SecurityContextConstraints];
    world.apply(&optional.map(definition)).await;
    world.apply(&account("monitoring")).await;
    install(world, "v0.1.0").await;
    says(world, "MonitoringReady", "MonitoringDeployed").await;
    says(world, "InstancetypesReady", "InstancetypesDeployed").await;
    // A type that only looks like ours goes; all of ours go when nobody wants them.
    let stray = json!({"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": "VirtualMachineClusterInstancetype",
        "metadata": {"name": "stray", "labels": {LABEL: "virt-operator", "app.kubernetes.io/component": "kubevirt"}},
        "spec": {"cpu": {"guest": 1}, "memory": {"guest": "1Gi"}}});
    let preference = json!({"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": "VirtualMachineClusterPreference",
        "metadata": stray["metadata"], "spec": {}});
    let strays = [Kind::VirtualMachineClusterInstancetype, Kind::VirtualMachineClusterPreference];
    world.apply(&[stray, preference].map(object)).await;
    for kind in strays {
        until_gone(&world.api(kind, None), "stray").await;
    }
    for enabled in [false, true] {
        world.patch_kubevirt(json!({"configuration": {"commonInstancetypesDeployment": {"enabled": enabled}}})).await;
        let reason = if enabled { "InstancetypesDeployed" } else { "InstancetypesDisabled" };
        says(world, "InstancetypesReady", reason).await;
    }
    let kubevirts = world.kubevirts("v1");
    let second =
        json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "second"}, "spec": {}});
    let second = serde_json::from_value(second).expect("an object");
    let refused = kubevirts.create(&PostParams::default(), &second).await.expect_err("there is one").to_string();
    assert!(refused.contains("Kubevirt is already created"), "{refused}");

    // A version whose strategy has to be got first, which fails.
    world.patch_kubevirt(json!({"imageTag": "v0.30"})).await;
    let failed = |kubevirt: &Value| text(condition_of(kubevirt, "Synchronized"), "/reason") == "TargetUnavailable";
    world.kubevirt_until("without a strategy", failed).await;

    // Placements are tried at admission.
    let linux = json!({"nodePlacement": {"nodeSelector": {"kubernetes.io/os": "linux"}}});
    world.patch_kubevirt(json!({"imageTag": "v0.1.0", "infra": linux, "workloads": linux})).await;
    settled(world, "v0.1.0").await;

    // An old version is kept by a newer operator, with a rule that the newer one's own version lacks.
    world.apply(&operator("v0.2.0")).await;
    world.kubevirt_until("served by v0.2.0", |kubevirt| kubevirt["status"]["operatorVersion"] == "v0.2.0").await;
    widen_the_kept_strategy(world).await;
    let roles = world.api(Kind::ClusterRole, None);
    until(&roles, "kubevirt-handler", "widened", |role| has_extra_rule(&role.data)).await;
    until(&world.api(Kind::Role, Some(NAMESPACE)), "kubevirt-exportproxy", "made", |_| true).await;
    strike(world).await;
    settled(world, "v0.1.0").await;
    store_anew(world).await;
    let given = given(world).await;

    // The lease as somebody else touched it.
    let lease = world.api_of("coordination.k8s.io", "v1", "Lease", "leases", Some(NAMESPACE));
    let touched = Patch::Merge(json!({"metadata": {"annotations": {"example.com/touched": "yes"}}}));
    let touched = lease.patch("virt-operator", &PatchParams::default(), &touched).await.expect("an edit").data;
    until(&lease, "virt-operator", "renewed", |lease| lease.data["spec"]["renewTime"] != touched["spec"]["renewTime"])
        .await;

    let since = world.requests().len();
    world.patch_kubevirt(json!({"imageTag": "v0.2.0", "uninstallStrategy": "BlockUninstallIfWorkloadsExist"})).await;
    let new = |kubevirt: &Value| condition_of(kubevirt, "Degraded")["reason"] == "UpdateInProgress";
    world.kubevirt_until("updating", new).await;
    let daemons = world.api(Kind::DaemonSet, Some(NAMESPACE));
    until(&daemons, "virt-handler", "of the new version", |set| {
        set.data["spec"]["template"]["metadata"]["annotations"]["kubevirt.io/install-strategy-version"] == "v0.2.0"
    })
    .await;
    let role = roles.get("kubevirt-handler").await.expect("the role");
    assert!(has_extra_rule(&role.data), "pods of the old version still run and need it");
    settled(world, "v0.2.0").await;
    let role = roles.get("kubevirt-handler").await.expect("the role");
    assert!(!has_extra_rule(&role.data), "nobody needs it any more");
    assert!(world.operator_writes(since).iter().any(|write| write == "delete clusterroles kubevirt-exportproxy"));

    remove(world).await;
    given
}

/// A removal that is refused, held up by a user's object, and finds what others left.
async fn remove(world: &World) {
    let kubevirts = world.kubevirts("v1");
    let machines = world.api_of("kubevirt.io", "v1", "VirtualMachine", "virtualmachines", Some(NAMESPACE));
    let machine = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"name": "till", "finalizers": ["example.com/backup"]},
        "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}}}}});
    machines
        .create(&PostParams::default(), &serde_json::from_value(machine).expect("an object"))
        .await
        .expect("stored");
    kubevirts.delete("kubevirt", &DeleteParams::default()).await.expect_err("there is a machine");
    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "left-behind", "labels": {"kubevirt.io/install-strategy": ""}},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let jobs = world.api(Kind::Job, Some(NAMESPACE));
    jobs.create(&PostParams::default(), &serde_json::from_value(job).expect("an object")).await.expect("stored");
    let nodes = world.api(Kind::Node, None).list(&ListParams::default()).await.expect("nodes").items;
    let node = nodes.first().and_then(|node| node.metadata.name.clone()).expect("a node");
    merge(world, Kind::Node, &node, json!({"metadata": {"labels": {"kubevirt.io/schedulable": "true"}}})).await;
    world.patch_kubevirt(json!({"uninstallStrategy": "RemoveWorkloads"})).await;
    kubevirts.delete("kubevirt", &DeleteParams::default()).await.expect("nothing speaks against it");
    let held = |kubevirt: &Value| text(condition_of(kubevirt, "Progressing"), "/message").contains("till is held by");
    world.kubevirt_until("held up", held).await;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    machines.patch("till", &PatchParams::default(), &free).await.expect("it goes");
    until_gone(&kubevirts, "kubevirt").await;
}

#[test]
fn the_role_allows_what_the_operator_asks_and_nothing_else() {
    simulate(async {
        let world = World::start(3, 41);
        let given = live_through_everything(&world).await;
        let events: Vec<Value> =
            world.requests().into_iter().filter(|event| event["user"]["username"] == OPERATOR).collect();
        let forbidden: Vec<&Value> = events.iter().filter(|event| event["responseStatus"]["code"] == 403).collect();
        assert!(forbidden.is_empty(), "{forbidden:#?}");

        let (cluster, local) = (role::cluster_rules(NAMESPACE), role::namespace_rules(NAMESPACE));
        let mut used: BTreeMap<Right, usize> = BTreeMap::new();
        for right in rights(&cluster, true).into_iter().chain(rights(&local, false)) {
            assert!(used.insert(right.clone(), 0).is_none(), "twice: {right}");
        }
        let asked: BTreeSet<Asked> = events.iter().flat_map(asked).collect();
        for request in &asked {
            let mut allowing = used.iter_mut().filter(|(right, _)| request.is_allowed_by(right));
            let (first, count) = allowing.next().unwrap_or_else(|| panic!("no rule allows {request:?}"));
            *count += 1;
            let second = allowing.next();
            assert!(second.is_none(), "{request:?} is allowed by {first} and by {second:?}");
        }

        // Filling and giving roles is not asked for by itself.
        let written = |plural: &str, name: &str| {
            asked.iter().any(|asked| (&*asked.verb, &*asked.resource, &*asked.name) == ("patch", plural, name))
        };
        for (right, count) in &mut used {
            let name = right.name.clone().unwrap_or_default();
            match &*right.verb {
                "escalate" => *count += usize::from(written(&right.resource, &name)),
                "bind" => *count += usize::from(given.contains(&(right.resource.clone(), name))),
                _ => {}
            }
        }
        let unused = used.iter().filter(|(right, count)| **count == 0 && !is_for_other_suites(right));
        let unused: BTreeSet<String> = unused.map(|(right, _)| right.to_string()).collect();
        let argued: BTreeSet<String> = UNUSED.iter().map(|(right, _)| (*right).to_owned()).collect();
        assert_eq!(unused, argued);
    });
}

/// Rights on certificates of parts that only other suites have, which are installed in the operator's own tests.
fn is_for_other_suites(right: &Right) -> bool {
    let certificates = certificates::of_other_releases(NAMESPACE);
    let is_one = |name: &String| certificates.iter().any(|certificate| certificate.secret == name);
    right.resource == "secrets" && right.name.as_ref().is_some_and(is_one)
}

/// Without the right to fill roles, some rule of each would be missing.
#[test]
fn every_right_to_fill_a_role_is_needed() {
    let (cluster, local) = (role::cluster_rules(NAMESPACE), role::namespace_rules(NAMESPACE));
    let all: Vec<PolicyRule> = [cluster, local].concat();
    let config = kubevirt_release::DeploymentConfig { namespace: NAMESPACE.to_owned(), ..Default::default() };
    let mut roles = 0;
    for object in kubevirt_release::render(&config).objects {
        if matches!(object.kind(), Kind::ClusterRole | Kind::Role) {
            roles += 1;
            let rules: Vec<PolicyRule> = serde_json::from_value(object.value()["rules"].clone()).expect("rules");
            assert!(rules.iter().any(|rule| !covers(&all, rule)), "{}", object.key());
        }
    }
    assert!(roles >= 12, "{roles}");
}
