use proptest::prelude::*;
use serde_json::json;

use super::*;

fn own() -> OwnImage {
    OwnImage::parse("localhost/kubevirt/virt-operator:v0.2.0", None)
}

fn spec(value: serde_json::Value) -> KubeVirtSpec {
    serde_json::from_value(value).expect("a spec")
}

fn resolve(value: serde_json::Value) -> DeploymentConfig {
    DeploymentConfig::resolve(&own(), &BTreeMap::new(), "kubevirt", &spec(value)).expect("a config")
}

#[test]
fn without_a_version_the_operators_own_is_followed() {
    let config = resolve(json!({}));
    assert_eq!(config.kubevirt_version, "v0.2.0");
    assert_eq!(config.image(Component::VirtHandler), "localhost/kubevirt/virt-handler:v0.2.0");
    assert_eq!(config.virt_operator_image, "localhost/kubevirt/virt-operator:v0.2.0");
    assert_eq!(config.image_pull_policy(), "IfNotPresent");
}

#[test]
fn a_named_version_is_another_suite() {
    let config = resolve(json!({"imageTag": "v0.1.0", "imageRegistry": "quay.io/kubevirt"}));
    assert_eq!(config.image(Component::VirtApi), "quay.io/kubevirt/virt-api:v0.1.0");
    assert_eq!(config.virt_operator_image, "quay.io/kubevirt/virt-operator:v0.1.0");
    assert_ne!(config.id(), resolve(json!({})).id());
    let digest = resolve(json!({"imageTag": "sha256:00ff"}));
    assert_eq!(digest.image(Component::VirtApi), "localhost/kubevirt/virt-api@sha256:00ff");
}

#[test]
fn naming_the_own_version_changes_nothing() {
    assert_eq!(resolve(json!({"imageTag": "v0.2.0"})).id(), resolve(json!({})).id());
    assert_eq!(resolve(json!({"imageTag": "v0.2.0"})).virt_operator_image, own().image);
}

/// The operator is replaced by a newer one while the CR names the old version: nothing of the suite may move.
#[test]
fn a_pinned_version_has_one_id_whoever_computes_it() {
    let newer = OwnImage::parse("localhost/kubevirt/virt-operator:v0.3.0", None);
    let env: BTreeMap<_, _> = [("VIRT_API_IMAGE".to_string(), "r/virt-api@sha256:03".to_string())].into();
    let pinned = spec(json!({"imageTag": "v0.2.0"}));
    let config = DeploymentConfig::resolve(&newer, &env, "kubevirt", &pinned).expect("a config");
    assert_eq!(config.id(), resolve(json!({})).id());
    assert_eq!(config.virt_operator_image, own().image);
}

#[test]
fn images_of_the_environment_are_those_of_the_own_release() {
    let env: BTreeMap<_, _> = [
        ("VIRT_API_IMAGE".to_string(), "r/virt-api@sha256:02".to_string()),
        ("KV_IO_EXTRA_ENV_PROXY".to_string(), "a=b".to_string()),
    ]
    .into();
    let config = DeploymentConfig::resolve(&own(), &env, "kubevirt", &spec(json!({}))).expect("a config");
    assert_eq!(config.image(Component::VirtApi), "r/virt-api@sha256:02");
    assert_eq!(config.passthrough_env_vars["PROXY"], "a=b");
}

#[test]
fn what_can_not_be_an_image_is_refused_with_the_field() {
    let refuse = |own: &OwnImage, value| {
        DeploymentConfig::resolve(own, &BTreeMap::new(), "kubevirt", &spec(value)).unwrap_err().to_string()
    };
    assert!(refuse(&own(), json!({"imageTag": "v1 beta"})).contains("spec.imageTag `v1 beta`"));
    assert!(refuse(&own(), json!({"imageRegistry": "https://x/"})).contains("spec.imageRegistry"));
    assert!(refuse(&own(), json!({"imagePullPolicy": "Maybe"})).contains("spec.imagePullPolicy"));
    let local = OwnImage::parse("virt-operator:dev", None);
    assert!(refuse(&local, json!({})).contains("spec.imageRegistry"));
    assert!(DeploymentConfig::resolve(&local, &BTreeMap::new(), "k", &spec(json!({"imageRegistry": "r"}))).is_ok());
}

#[test]
fn the_json_form_has_the_keys_others_read() {
    let mut config = resolve(json!({"imagePullSecrets": [{"name": "s"}], "monitorAccount": "m"}));
    config.gs_image = "r/libguestfs".into();
    config.virt_api_image = "r/virt-api".into();
    let value: serde_json::Value = serde_json::from_str(&config.to_json()).expect("JSON");
    assert_eq!(
        value,
        json!({
            "id": config.id(), "namespace": "kubevirt", "registry": "localhost/kubevirt", "kubeVirtVersion": "v0.2.0",
            "virtOperatorImage": "localhost/kubevirt/virt-operator:v0.2.0", "virtApiImage": "r/virt-api",
            "GsImage": "r/libguestfs",
            "additionalProperties": {
                "ImagePullPolicy": "IfNotPresent", "ImagePullSecrets": "[{\"name\":\"s\"}]", "MonitorAccount": "m"
            },
        })
    );
    assert_eq!(DeploymentConfig::from_json(&config.to_json()).expect("our own text"), config);
}

#[test]
fn a_deployment_keeps_the_id_by_which_others_know_it() {
    let config = resolve(json!({}));
    let text = config.to_json().replace(&config.id(), "an-id-of-another-operator");
    let read = DeploymentConfig::from_json(&text).expect("a config");
    assert_eq!(read.id(), "an-id-of-another-operator");
    assert_eq!(read.own_id(), config.id());
    assert_eq!(read.to_json(), text);
    assert_eq!(read.known_as(&config.id()), config, "what follows from the rest is not given");
}

#[test]
fn what_concerns_one_component_does_not_change_the_id() {
    let id = resolve(json!({})).id();
    for spec in [
        json!({"uninstallStrategy": "BlockUninstallIfWorkloadsExist"}),
        json!({"monitorAccount": "x", "monitorNamespace": "y"}),
        json!({"infra": {"replicas": 5}}),
        json!({"configuration": {"migrations": {"network": "fast"}}}),
        json!({"productName": "p"}),
        json!({"imagePullPolicy": "IfNotPresent"}),
    ] {
        assert_eq!(resolve(spec.clone()).id(), id, "{spec}");
    }
    for spec in [
        json!({"imageTag": "v9"}),
        json!({"imageRegistry": "r"}),
        json!({"imagePullPolicy": "Always"}),
        json!({"imagePullSecrets": [{"name": "s"}]}),
    ] {
        assert_ne!(resolve(spec.clone()).id(), id, "{spec}");
    }
}

#[test]
fn an_id_is_the_same_in_every_release() {
    // Another value here rolls every pod of every installation once.
    expect_test::expect!["9d8f52817fb1493f748433b0a05d09cf5a435582"].assert_eq(&resolve(json!({})).id());
}

proptest! {
    #[test]
    fn different_suites_have_different_ids(a in suite(), b in suite()) {
        prop_assert_eq!(a.id() == b.id(), a == b);
        prop_assert_eq!(a.id().len(), 40);
    }
}

/// Suites whose texts are easily taken for one another when they are put side by side.
fn suite() -> impl Strategy<Value = DeploymentConfig> {
    let word = "[ab]{0,2}";
    (word, word, word, word, prop::collection::btree_map(word, word, 0..3)).prop_map(|(n, r, p, v, env)| {
        DeploymentConfig {
            namespace: n,
            registry: r,
            image_prefix: p,
            kubevirt_version: v,
            passthrough_env_vars: env,
            ..Default::default()
        }
    })
}
