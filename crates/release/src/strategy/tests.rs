use super::*;
use crate::config::DeploymentConfig;
use crate::render;

fn strategy() -> Strategy {
    render(&DeploymentConfig {
        namespace: "kubevirt".into(),
        registry: "localhost/kubevirt".into(),
        kubevirt_version: "v0.2.0".into(),
        ..Default::default()
    })
}

#[test]
fn a_strategy_survives_the_way_through_a_config_map() {
    let strategy = strategy();
    let config_map = strategy.encode("kubevirt");
    let read = Strategy::decode(&config_map).unwrap();
    assert_eq!(read, strategy);
    assert_eq!(read.encode("kubevirt"), config_map, "byte for byte");
    let size = serde_json::to_string(&config_map).unwrap().len();
    assert!(size < 100_000, "{size} bytes: a ConfigMap holds a megabyte");
}

#[test]
fn the_config_map_is_found_by_what_others_look_for() {
    let config_map = strategy().encode("kubevirt");
    let metadata = config_map.metadata;
    assert_eq!(metadata.generate_name.as_deref(), Some("kubevirt-install-strategy-"));
    assert_eq!(metadata.labels.unwrap()["kubevirt.io/install-strategy"], "");
    let annotations = metadata.annotations.unwrap();
    assert_eq!(annotations["kubevirt.io/install-strategy-cm-encoding"], "gzip+base64");
    assert_eq!(annotations["kubevirt.io/install-strategy-identifier"], strategy().id);
}

fn plain(text: &str) -> ConfigMap {
    ConfigMap { data: Some([(DATA_KEY.to_string(), text.to_string())].into()), ..Default::default() }
}

/// A separator is a line of its own; the same characters inside a text are not one.
#[test]
fn documents_are_split_at_separators_only() {
    let text = "---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: n}
data:
  text: |
    ---
    x: --- y
--- # next
apiVersion: v1
kind: Namespace
metadata:
  name: a---b
---
---
";
    let objects = Strategy::decode(&plain(text)).unwrap().objects;
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0].at("/data/text").unwrap(), "---\nx: --- y\n");
    assert_eq!(objects[1].name(), "a---b");
}

#[test]
fn words_that_older_yaml_took_for_switches_stay_words() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: on, labels: {a: y, b: \"true\", c: \"1\", d: no}}\n";
    let objects = Strategy::decode(&plain(text)).unwrap().objects;
    assert_eq!(objects[0].labels(), [("a", "y"), ("b", "true"), ("c", "1"), ("d", "no")].into());
    let again = yaml::from_yaml(&yaml::to_yaml(&objects)).unwrap();
    assert_eq!(again, objects);
}

#[test]
fn a_kind_without_its_group_is_understood() {
    let text = "apiVersion: v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: a}\n";
    let objects = Strategy::decode(&plain(text)).unwrap().objects;
    assert_eq!(objects[0].value()["apiVersion"], "admissionregistration.k8s.io/v1");
}

#[test]
fn what_is_broken_is_named() {
    let error = |config_map: &ConfigMap| Strategy::decode(config_map).unwrap_err().to_string();
    assert!(error(&ConfigMap::default()).contains("no data"));
    assert!(
        error(&plain("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n")).contains("document 1: objects of v1 Pod")
    );
    assert!(error(&plain("a: [")).contains("not YAML"));
    let mut packed = strategy().encode("kubevirt");
    packed.data = Some([(DATA_KEY.to_string(), "%".to_string())].into());
    assert!(error(&packed).contains("base64"));
    packed.data = Some([(DATA_KEY.to_string(), BASE64.encode("text"))].into());
    assert!(error(&packed).contains("gzip"));
    packed.metadata.annotations.as_mut().unwrap().insert(annotation::STRATEGY_ENCODING.into(), "zstd".into());
    assert!(error(&packed).contains("`zstd`"));
}

#[test]
fn a_text_that_unpacks_without_end_is_refused() {
    let mut config_map = strategy().encode("kubevirt");
    let endless = " ".repeat(usize::try_from(LARGEST_TEXT).unwrap() + 1);
    config_map.data = Some([(DATA_KEY.to_string(), pack(&endless))].into());
    assert!(matches!(Strategy::decode(&config_map), Err(StrategyError::TooLarge)));
}

#[test]
fn the_right_strategy_is_the_newest_of_its_id() {
    let make = |name: &str, id: &str, version: &str, second: u32| Title {
        name: name.into(),
        version: version.into(),
        registry: "localhost/kubevirt".into(),
        id: id.into(),
        created: format!("2026-01-01T00:00:0{second}Z"),
    };
    let config = |version: &str| DeploymentConfig {
        registry: "localhost/kubevirt".into(),
        kubevirt_version: version.into(),
        ..Default::default()
    };
    let (v1, own) = (config("v1"), config("v1").own_id());
    let all = [
        make("foreign", "x", "v1", 9),
        make("legacy", "", "v1", 8),
        make("older", &own, "v1", 1),
        make("newer", &own, "v1", 2),
        make("other", "y", "v2", 3),
        make("newest", "z", "v2", 4),
    ];
    let best = |all: &[Title], config: &DeploymentConfig, known: &[&str]| {
        let ranked = all.iter().filter_map(|title| Some((rank(title, config, known)?, title.name.clone())));
        ranked.max().map_or_else(|| "none".to_owned(), |(_, name)| name)
    };
    assert_eq!(best(&all, &v1, &[]), "newer");
    assert_eq!(best(&all[..2], &v1, &[]), "legacy");
    assert_eq!(best(&all[..2], &v1, &["x"]), "foreign", "it is what runs");
    assert_eq!(best(&all[..1], &v1, &[]), "foreign", "another operator computes another ID");
    assert_eq!(best(&all, &config("v2"), &["y"]), "other");
    assert_eq!(best(&all, &config("v2"), &[]), "newest");
    assert_eq!(best(&all, &config("v3"), &[]), "none");
    assert_eq!(best(&all, &DeploymentConfig { registry: "elsewhere".into(), ..config("v1") }, &[]), "none");
}

#[test]
fn what_is_packed_is_what_is_unpacked() {
    let strategy = strategy();
    let config_map = serde_json::to_value(strategy.encode("kubevirt")).unwrap();
    let packed = strategy.pack();
    assert_eq!(Strategy::unpack(&Title::of(&config_map), &packed).unwrap(), strategy);
    assert!(packed.len() < 100_000, "{} bytes", packed.len());
    assert!(matches!(Strategy::unpack(&Title::default(), b"x"), Err(StrategyError::Packed(_))));
}

fn config() -> DeploymentConfig {
    DeploymentConfig {
        namespace: "kubevirt".into(),
        registry: "localhost/kubevirt".into(),
        kubevirt_version: "v0.2.0".into(),
        ..Default::default()
    }
}

/// Why a strategy whose workload was changed is not what was asked for.
fn mismatch(name: &str, pointer: &str, value: Value) -> String {
    let mut strategy = strategy();
    let object = strategy.objects.iter_mut().find(|object| object.name() == name && object.kind().has_pod_template());
    *object.unwrap().value_mut().pointer_mut(pointer).unwrap() = value;
    provenance::check(&strategy, &config()).unwrap_err().to_string()
}

#[test]
fn a_strategy_that_only_claims_to_be_a_version_is_found_out() {
    assert_eq!(provenance::check(&strategy(), &config()), Ok(()));
    let container = "/spec/template/spec/containers/0";
    let image = format!("{container}/image");
    let said = mismatch("virt-api", &image, "localhost/kubevirt/virt-api:v0.1.0".into());
    assert!(said.contains("virt-api:v0.1.0, not localhost/kubevirt/virt-api:v0.2.0"), "{said}");
    let said = mismatch("virt-handler", "/metadata/namespace", "elsewhere".into());
    assert!(said.contains("virt-handler is in namespace elsewhere"), "{said}");
    let said = mismatch("virt-controller", &format!("{container}/imagePullPolicy"), "Always".into());
    assert!(said.contains("with Always, not with IfNotPresent"), "{said}");
    let by_digest = |digest: &str| {
        let mut strategy = strategy();
        let api = strategy.objects.iter_mut().find(|o| o.kind() == Kind::Deployment && o.name() == "virt-api");
        *api.unwrap().value_mut().pointer_mut(&image).unwrap() = digest.into();
        provenance::check(&strategy, &config())
    };
    assert_eq!(by_digest("localhost/kubevirt/virt-api@sha256:00"), Ok(()));
    assert!(by_digest("elsewhere/virt-api@sha256:00").is_err());

    let mut other = strategy();
    other.version = "v0.1.0".into();
    assert!(matches!(provenance::check(&other, &config()), Err(provenance::Mismatch::Marked { .. })));
    let mut short = strategy();
    short.objects.retain(|object| object.kind() != Kind::DaemonSet);
    let missing = provenance::Mismatch::Missing { object: "virt-handler" };
    assert_eq!(provenance::check(&short, &config()), Err(missing), "what is not in it would be removed");
    let mut strange = strategy();
    let secret = serde_json::json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "kubevirt-novelty-certs", "namespace": "kubevirt"}});
    strange.objects.push(Object::from_value(secret).unwrap());
    assert!(provenance::check(&strange, &config()).unwrap_err().to_string().contains("kubevirt-novelty-certs"));
    let secrets = DeploymentConfig {
        additional_properties: [("ImagePullSecrets".to_string(), "[{\"name\":\"s\"}]".to_string())].into(),
        ..config()
    };
    assert!(provenance::check(&strategy(), &secrets).unwrap_err().to_string().contains("not with IfNotPresent and s"));
    let env = DeploymentConfig { passthrough_env_vars: [("PROXY".to_string(), "x".to_string())].into(), ..config() };
    assert!(provenance::check(&strategy(), &env).unwrap_err().to_string().contains("PROXY"));
}
