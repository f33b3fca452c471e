use k8s_openapi::api::core::v1::{Affinity, PodSpec, Toleration};
use serde_json::json;

use super::*;
use crate::config::DeploymentConfig;
use crate::object::ObjectKey;
use crate::render;

fn strategy() -> Strategy {
    render(&DeploymentConfig {
        namespace: "kubevirt".into(),
        registry: "localhost/kubevirt".into(),
        kubevirt_version: "v0.2.0".into(),
        ..Default::default()
    })
}

fn with(spec: Value, nodes: usize, control_plane_nodes: usize) -> Vec<Object> {
    let spec: KubeVirtSpec = serde_json::from_value(spec).unwrap();
    of(&strategy(), &spec, 7, nodes, control_plane_nodes)
}

fn of(strategy: &Strategy, spec: &KubeVirtSpec, generation: i64, nodes: usize, control_planes: usize) -> Vec<Object> {
    let customizations = Customizations::read(spec.customize_components.as_ref()).unwrap();
    let customizations = &customizations;
    let control_plane_nodes = control_planes;
    desired(strategy, &Inputs { spec, customizations, generation, nodes, control_plane_nodes }).unwrap()
}

fn get<'a>(objects: &'a [Object], kind: Kind, name: &str) -> &'a Object {
    objects.iter().find(|o| o.key() == ObjectKey::new(kind, Some("kubevirt"), name)).unwrap()
}

fn pod(objects: &[Object], kind: Kind, name: &str) -> PodSpec {
    serde_json::from_value(get(objects, kind, name).pod_template().unwrap()["spec"].clone()).unwrap()
}

#[test]
fn every_object_is_stamped_and_every_pod_too() {
    let strategy = strategy();
    let objects = with(json!({}), 3, 1);
    assert!(objects.len() > strategy.objects.len());
    for object in &objects {
        assert_eq!(object.label("app.kubernetes.io/managed-by"), Some("virt-operator"), "{}", object.key());
        assert_eq!(object.label("app.kubernetes.io/component"), Some("kubevirt"));
        assert_eq!(object.annotation("kubevirt.io/install-strategy-identifier"), Some(strategy.id.as_str()));
        assert_eq!(object.annotation("kubevirt.io/generation"), Some("7"));
        if let Some(template) = object.pod_template() {
            let metadata = &template["metadata"];
            assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "virt-operator");
            assert_eq!(metadata["annotations"]["kubevirt.io/install-strategy-version"], "v0.2.0");
            assert_eq!(metadata["annotations"]["kubevirt.io/install-strategy-registry"], "localhost/kubevirt");
            assert!(metadata["annotations"]["kubevirt.io/generation"].is_null(), "it would roll pods");
        }
    }
}

#[test]
fn another_generation_is_the_same_installation() {
    let spec = KubeVirtSpec::default();
    let at = |generation| of(&strategy(), &spec, generation, 3, 1);
    for (mut a, mut b) in at(1).into_iter().zip(at(2)) {
        for key in NO_REASON_TO_WRITE {
            a.set_annotation(key, "");
            b.set_annotation(key, "");
        }
        assert_eq!(a, b);
    }
}

#[test]
fn keys_are_unique_and_in_order() {
    let keys: Vec<_> = with(json!({}), 3, 1).iter().map(Object::key).collect();
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn virt_api_grows_with_the_cluster() {
    for (nodes, expected) in [(0, 2), (1, 1), (2, 2), (3, 2), (29, 2), (30, 3), (100, 10)] {
        let objects = with(json!({}), nodes, 1);
        let replicas = |name| get(&objects, Kind::Deployment, name).at("/spec/replicas").unwrap().as_u64().unwrap();
        assert_eq!((replicas("virt-api"), replicas("virt-controller")), (expected, 2), "{nodes} nodes");
    }
    let objects = with(json!({"infra": {"replicas": 3}}), 1, 1);
    for name in ["virt-api", "virt-controller"] {
        assert_eq!(get(&objects, Kind::Deployment, name).at("/spec/replicas"), Some(&json!(3)));
    }
}

#[test]
fn a_budget_lets_one_pod_go_and_a_single_pod_has_none() {
    let budgets = |objects: &[Object]| -> Vec<String> {
        let budgets = objects.iter().filter(|o| o.kind() == Kind::PodDisruptionBudget);
        budgets.map(|o| format!("{} {}", o.name(), o.at("/spec/minAvailable").unwrap())).collect()
    };
    assert_eq!(budgets(&with(json!({}), 30, 1)), ["virt-api-pdb 2", "virt-controller-pdb 1"]);
    assert_eq!(budgets(&with(json!({}), 1, 1)), ["virt-controller-pdb 1"]);
    assert_eq!(budgets(&with(json!({"infra": {"replicas": 1}}), 3, 1)), Vec::<String>::new());
    let objects = with(json!({}), 3, 1);
    let budget = get(&objects, Kind::PodDisruptionBudget, "virt-api-pdb");
    assert_eq!(budget.at("/spec/selector"), Some(&json!({"matchLabels": {"kubevirt.io": "virt-api"}})));
    assert_eq!(budget.label("kubevirt.io"), Some("virt-api-pdb"));
}

#[test]
fn the_control_plane_is_insisted_on_only_where_it_is_of_several_nodes() {
    let required = |pod: &PodSpec| {
        let node = pod.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        node.and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|r| r.node_selector_terms.len())
    };
    let with_three = pod(&with(json!({}), 3, 3), Kind::Deployment, "virt-api");
    assert_eq!(required(&with_three), Some(2));
    assert_eq!(with_three.tolerations.unwrap().len(), 3);
    let with_one = pod(&with(json!({}), 3, 1), Kind::Deployment, "virt-api");
    assert_eq!(required(&with_one), None, "both pods would be on that node");
    assert_eq!(with_one.tolerations.unwrap().len(), 3);
    let affinity = with_three.affinity.unwrap();
    assert!(affinity.pod_anti_affinity.is_some(), "what the template asks for stays");
    let without = pod(&with(json!({}), 3, 0), Kind::Deployment, "virt-api");
    assert_eq!(required(&without), None);
    assert!(without.affinity.unwrap().node_affinity.is_some(), "the wish stays");
    let handler = pod(&with(json!({}), 3, 1), Kind::DaemonSet, "virt-handler");
    assert_eq!(required(&handler), None);
    assert_eq!(handler.node_selector.unwrap()["kubernetes.io/os"], "linux");
}

#[test]
fn an_empty_placement_switches_the_default_off() {
    let pod = pod(&with(json!({"infra": {"nodePlacement": {}}}), 3, 1), Kind::Deployment, "virt-api");
    assert!(pod.affinity.unwrap().node_affinity.is_none());
    assert_eq!(pod.tolerations.unwrap().len(), 1);
    assert_eq!(pod.node_selector.unwrap().len(), 1);
}

#[test]
fn a_placement_is_added_to_what_the_template_has() {
    let placement = |key: &str| {
        json!({"nodePlacement": {
            "nodeSelector": {"zone": key, "kubernetes.io/os": "other"},
            "tolerations": [{"key": key, "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "podAffinityTerm": {"topologyKey": key}}]}},
        }})
    };
    let objects = with(json!({"infra": placement("i"), "workloads": placement("w")}), 3, 1);
    let api = pod(&objects, Kind::Deployment, "virt-api");
    let preferred = |affinity: Affinity| {
        let anti = affinity.pod_anti_affinity.unwrap();
        anti.preferred_during_scheduling_ignored_during_execution.unwrap().iter().map(|t| t.weight).collect::<Vec<_>>()
    };
    assert_eq!(preferred(api.affinity.unwrap()), [1, 5]);
    let keys = |tolerations: Vec<Toleration>| tolerations.into_iter().filter_map(|t| t.key).collect::<Vec<_>>();
    assert_eq!(keys(api.tolerations.unwrap()), ["CriticalAddonsOnly", "i"]);
    assert_eq!(api.node_selector.unwrap()["kubernetes.io/os"], "other", "the CR may name another system");
    let handler = pod(&objects, Kind::DaemonSet, "virt-handler");
    assert_eq!(keys(handler.tolerations.unwrap()), ["CriticalAddonsOnly", "w"]);
    assert_eq!(handler.node_selector.unwrap()["zone"], "w");
    assert_eq!(preferred(handler.affinity.unwrap()), [5]);
}

#[test]
fn settings_reach_the_components_they_are_for() {
    let objects = with(
        json!({"configuration": {
            "developerConfiguration": {"logVerbosity": {"virtHandler": 6, "virtAPI": 3}},
            "virtualMachineInstancesPerNode": 110,
            "migrations": {"network": "fast"},
        }}),
        3,
        1,
    );
    let words = |kind, name: &str, list: &str| {
        get(&objects, kind, name).at(&format!("/spec/template/spec/containers/0/{list}")).unwrap().to_string()
    };
    assert!(words(Kind::DaemonSet, "virt-handler", "args").contains(r#""-v","6""#));
    assert!(words(Kind::Deployment, "virt-api", "args").contains(r#""-v","3""#));
    assert!(words(Kind::Deployment, "virt-controller", "args").contains(r#""-v","2""#));
    assert_eq!(words(Kind::DaemonSet, "virt-handler", "command"), r#"["virt-handler","--max-devices","110"]"#);
    let handler = get(&objects, Kind::DaemonSet, "virt-handler");
    let annotations = &handler.pod_template().unwrap()["metadata"]["annotations"];
    assert_eq!(annotations["k8s.v1.cni.cncf.io/networks"], "fast@migration0");
    assert_eq!(handler.at("/spec/updateStrategy/rollingUpdate/maxUnavailable"), Some(&json!(1)));
}

#[test]
fn product_labels_are_set_when_they_are_labels() {
    let spec = json!({"productName": "hco", "productVersion": "no label!", "productComponent": "compute"});
    let objects = with(spec.clone(), 3, 1);
    let role = get(&objects, Kind::ServiceAccount, "kubevirt-handler");
    assert_eq!(role.label("app.kubernetes.io/part-of"), Some("hco"));
    assert_eq!(role.label("app.kubernetes.io/component"), Some("compute"));
    assert_eq!(role.label("app.kubernetes.io/version"), None);
    let spec: KubeVirtSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(
        unsupported(&spec, &[]),
        [Unsupported::ProductLabel { field: "productVersion", value: "no label!".into() }]
    );
}

#[test]
fn what_is_not_followed_is_said() {
    let keys = [ObjectKey::new(Kind::Deployment, Some("kubevirt"), "virt-api")];
    let of = |patches: Value| {
        let spec = serde_json::from_value(json!({"customizeComponents": {"patches": patches}})).unwrap();
        unsupported(&spec, &keys).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let patch =
        |kind: &str, name: &str| json!({"resourceType": kind, "resourceName": name, "type": "merge", "patch": "{}"});
    assert_eq!(of(json!([])), [""; 0]);
    assert_eq!(of(json!([patch("deployment", "VIRT-API"), patch("*", "*"), patch("Deployment", "*")])), [""; 0]);
    assert_eq!(
        of(json!([patch("*", "*"), patch("Deployment", "virt-exportproxy"), patch("ConfigMap", "*")])),
        [
            "spec.customizeComponents.patches[1] (Deployment virt-exportproxy) concerns no object of this version that can \
             be customized: it has no effect",
            "spec.customizeComponents.patches[2] (ConfigMap *) concerns no object of this version that can be customized: \
             it has no effect",
        ]
    );
}

#[test]
fn certificates_of_a_strategy_are_left_to_the_operator() {
    let mut strategy = strategy();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kubevirt-ca", "namespace": "n"}});
    strategy.objects.push(Object::from_value(secret).unwrap());
    let spec = KubeVirtSpec::default();
    let objects = of(&strategy, &spec, 1, 1, 1);
    assert!(objects.iter().all(|o| o.kind() != Kind::Secret));
}

#[test]
fn what_belongs_to_the_api_server_is_not_applied() {
    let mut strategy = strategy();
    let crd = strategy.objects.iter_mut().find(|o| o.kind() == Kind::CustomResourceDefinition).unwrap();
    crd.value_mut()["status"] = json!({"conditions": null});
    crd.value_mut()["metadata"]["creationTimestamp"] = Value::Null;
    let spec = KubeVirtSpec::default();
    for object in of(&strategy, &spec, 1, 1, 1) {
        assert!(object.value().get("status").is_none(), "{}", object.key());
        assert!(object.value()["metadata"].get("creationTimestamp").is_none(), "{}", object.key());
    }
}

#[test]
fn a_number_that_has_two_names_keeps_the_one_a_service_asks_for() {
    let mut strategy = strategy();
    let api = strategy.objects.iter_mut().find(|o| o.name() == "virt-api" && o.kind() == Kind::Deployment).unwrap();
    let port = |name: &str, number: i32| json!({"name": name, "containerPort": number, "protocol": "TCP"});
    api.value_mut()["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([port("virt-api", 8443), port("other", 1), port("metrics", 8443), port("third", 1)]);
    let spec = KubeVirtSpec::default();
    let objects = of(&strategy, &spec, 1, 1, 1);
    let ports = get(&objects, Kind::Deployment, "virt-api").at("/spec/template/spec/containers/0/ports").unwrap();
    assert_eq!(*ports, json!([port("metrics", 8443), port("other", 1)]));
}

#[test]
fn manual_aggregation_keeps_users_roles_apart() {
    let label = |spec: Value| {
        let objects = with(spec, 1, 1);
        let role = objects.iter().find(|o| o.name() == "kubevirt.io:admin").unwrap();
        role.label("rbac.authorization.k8s.io/aggregate-to-admin").map(ToString::to_string)
    };
    assert_eq!(label(json!({})).as_deref(), Some("true"));
    assert_eq!(label(json!({"configuration": {"roleAggregationStrategy": "Manual"}})).as_deref(), Some("false"));
}

/// The rules of the API server, as nanokube has them: known fields, required fields, and lists without two items of
/// one name, which server-side apply refuses.
#[test]
fn an_api_server_takes_every_object() {
    use apimachinery::{builtin, managed};
    let spec = json!({
        "imagePullSecrets": [{"name": "a"}, {"name": "a"}],
        "infra": {"replicas": 3, "nodePlacement": {"nodeSelector": {"a": "b"}}},
        "workloads": {"nodePlacement": {"tolerations": [{"operator": "Exists"}]}},
        "configuration": {"virtualMachineInstancesPerNode": 5, "migrations": {"network": "n"}},
    });
    let env = [("KV_IO_EXTRA_ENV_NODE_NAME", "x"), ("KV_IO_EXTRA_ENV_PROXY", "y")];
    let env = env.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let own = crate::OwnImage::parse("localhost/kubevirt/virt-operator:v0.2.0", None);
    let spec: KubeVirtSpec = serde_json::from_value(spec).unwrap();
    let config = DeploymentConfig::resolve(&own, &env, "kubevirt", &spec).unwrap();
    let options = crate::operator_manifest::ManifestOptions::new("localhost/kubevirt", "v0.2.0");
    let mut objects = of(&render(&config), &spec, 1, 3, 1);
    objects.extend(crate::operator_manifest::operator_manifest(&options));
    let manager =
        managed::Manager { name: "test".into(), api_version: String::new(), time: None, subresource: String::new() };
    for object in &objects {
        let (api_version, kind) = (object.kind().api_version(), object.kind().name());
        let Some(schema) = builtin::schema(&api_version, kind) else {
            // What is not built in is another program's, and so is its schema.
            assert!(object.kind().is_optional(), "{}", object.key());
            continue;
        };
        assert_eq!(schema.unknown_fields(object.value()), Vec::<String>::new(), "{}", object.key());
        let applied = managed::apply(schema, None, object.value(), &manager, true);
        let mut stored = applied.unwrap_or_else(|error| panic!("{}: {error}", object.key()));
        builtin::default(&api_version, kind, &mut stored);
        let problems = builtin::validate(&api_version, kind, &stored, None);
        assert!(problems.is_empty(), "{}: {problems:?}", object.key());
    }
}

#[test]
fn launcher_pods_are_changed_while_the_gate_is_on() {
    let strategy = strategy();
    let mutators = |gates: Value| -> Vec<String> {
        let spec = json!({"configuration": {"developerConfiguration": {"featureGates": gates}}});
        let spec: KubeVirtSpec = serde_json::from_value(spec).unwrap();
        let objects = of(&strategy, &spec, 7, 3, 1);
        let mutators = objects.iter().filter(|o| o.kind() == Kind::MutatingWebhookConfiguration);
        mutators.map(|object| object.name().to_owned()).collect()
    };
    assert_eq!(mutators(json!([])), ["virt-api-mutator"]);
    assert_eq!(mutators(json!(["ContainerPathVolumes"])), ["virt-api-mutator", "virt-launcher-pod-mutator"]);
}
