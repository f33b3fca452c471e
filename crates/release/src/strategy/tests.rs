use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

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
    let make = |name: &str, id: &str, version: &str, second: i64| {
        let mut config_map = strategy().encode("kubevirt");
        config_map.metadata.name = Some(name.into());
        config_map.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        let annotations = config_map.metadata.annotations.as_mut().unwrap();
        annotations.insert(annotation::STRATEGY_IDENTIFIER.into(), id.into());
        annotations.insert(annotation::STRATEGY_VERSION.into(), version.into());
        config_map
    };
    let all = [
        make("legacy", "", "v1", 9),
        make("older", "id1", "v1", 1),
        make("newer", "id1", "v1", 2),
        make("other", "id2", "v2", 3),
    ];
    let name = |id, version| {
        find(&all, id, version, "localhost/kubevirt").and_then(|c| c.metadata.name.as_deref()).unwrap_or("none")
    };
    assert_eq!(name("id1", "v1"), "newer");
    assert_eq!(name("id2", "v2"), "other");
    assert_eq!(name("id3", "v1"), "legacy");
    assert_eq!(name("id3", "v2"), "none");
    assert_eq!(find(&all, "id3", "v1", "elsewhere"), None);
}
