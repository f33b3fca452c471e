//! What of a KubeVirt spec is on its way out: fields that have a newer spelling or no meaning any more, and feature gates
//! whose time is over. One table; admission warns of it and a change of version tells it.

use serde_json::Value;

use crate::gates::{self, State};
use crate::kubevirt::KubeVirtSpec;

/// Something in a spec that a later release will not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deprecated {
    /// The field from `spec` on, or the feature gate.
    pub field: String,
    /// What to do about it.
    pub instead: &'static str,
}

/// The way to a field, `*` for every item of a list, and what to write in its place.
const FIELDS: &[(&str, &str)] = &[
    ("certificateRotateStrategy.selfSigned.caRotateInterval", "use ca.duration"),
    ("certificateRotateStrategy.selfSigned.certRotateInterval", "use server.duration"),
    ("certificateRotateStrategy.selfSigned.caOverlapInterval", "use ca.renewBefore"),
    ("configuration.minCPUModel", "it means nothing, leave it out"),
    ("configuration.machineType", OF_ARCHITECTURE),
    ("configuration.emulatedMachines", OF_ARCHITECTURE),
    ("configuration.ovmfPath", OF_ARCHITECTURE),
    ("configuration.supportedGuestAgentVersions", "it means nothing, leave it out"),
    ("configuration.network.permitSlirpInterface", "no release has such interfaces, leave it out"),
    ("configuration.mediatedDevicesConfiguration.mediatedDevicesTypes", MEDIATED),
    ("configuration.mediatedDevicesConfiguration.nodeMediatedDeviceTypes.*.mediatedDevicesTypes", MEDIATED),
    ("configuration.architectureConfiguration.ppc64le", "no release runs on it"),
];
const OF_ARCHITECTURE: &str = "use the field of that name in architectureConfiguration, by architecture";
const MEDIATED: &str = "use mediatedDeviceTypes";

/// The deprecated fields that a spec sets.
pub fn fields(spec: &KubeVirtSpec) -> Vec<Deprecated> {
    let tree = serde_json::to_value(spec).unwrap_or_default();
    let set = |(way, instead): &(&str, &'static str)| {
        let names: Vec<&str> = way.split('.').collect();
        let mut found = Vec::new();
        follow(&tree, &names, "spec".to_owned(), &mut found);
        found.into_iter().map(|field| Deprecated { field, instead }).collect::<Vec<_>>()
    };
    FIELDS.iter().flat_map(set).collect()
}

/// The feature gates in a spec that are on their way out, or gone.
pub fn listed_gates(spec: &KubeVirtSpec) -> Vec<Deprecated> {
    let (on, off) = gates::listed(spec.configuration.as_ref());
    let told = |name: &String| {
        let instead = match gates::find(name)?.state {
            State::Deprecated => "it still works and goes away",
            State::Discontinued => "it is gone, leave it out",
            State::Alpha | State::Beta | State::Ga => return None,
        };
        Some(Deprecated { field: format!("feature gate {name}"), instead })
    };
    on.iter().chain(off).filter_map(told).collect()
}

/// Notes where a way through a tree leads to something.
fn follow(value: &Value, way: &[&str], place: String, found: &mut Vec<String>) {
    match way {
        [] => found.extend(says_something(value).then_some(place)),
        ["*", rest @ ..] => {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                follow(item, rest, format!("{place}[{index}]"), found);
            }
        }
        [name, rest @ ..] => {
            if let Some(field) = value.get(name) {
                follow(field, rest, format!("{place}.{name}"), found);
            }
        }
    }
}

/// An object without fields is something: that it is there is what it says.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubevirt::KubeVirt;

    fn spec(value: Value) -> KubeVirtSpec {
        serde_json::from_value(value).expect("a spec")
    }

    fn told(spec: &KubeVirtSpec) -> Vec<String> {
        fields(spec).into_iter().map(|it| it.field).collect()
    }

    /// A field that nobody can set would never be told: each way of the table has to lead somewhere in the definition.
    #[test]
    fn every_field_of_the_table_is_in_the_schema_and_is_told_when_it_is_set() {
        let definition = serde_json::to_value(KubeVirt::crd()).expect("data");
        for (way, _) in FIELDS {
            let mut schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            for name in way.split('.') {
                schema = if name == "*" { &schema["items"] } else { &schema["properties"][name] };
                assert!(schema.is_object(), "{way}: {name}");
            }
            let value = match schema["type"].as_str() {
                Some("string") if way.ends_with("Interval") => json!("24h0m0s"),
                Some("string") => json!("a"),
                Some("array") => json!(["a"]),
                Some("boolean") => json!(false),
                Some("object") => json!({}),
                other => panic!("{way}: {other:?}"),
            };
            let set = way.rsplit('.').fold(value, |inner, name| match name {
                "*" => json!([inner]),
                name => json!({ name: inner }),
            });
            assert_eq!(told(&spec(set)), [format!("spec.{}", way.replace(".*", "[0]"))]);
        }
    }

    #[test]
    fn what_is_not_set_is_not_told() {
        for quiet in [
            json!({}),
            json!({"configuration": {"machineType": "", "emulatedMachines": [], "network": {}}}),
            json!({"configuration": {"architectureConfiguration": {"amd64": {"machineType": "q35"}}}}),
        ] {
            assert_eq!(told(&spec(quiet)), [""; 0]);
        }
    }

    #[test]
    fn gates_that_are_on_their_way_out_are_told_wherever_they_are_listed() {
        let spec = spec(json!({"configuration": {"developerConfiguration": {
            "featureGates": ["LiveMigration", "DockerSELinuxMCSWorkaround", "Sidecar", "Nobody"],
            "disabledFeatureGates": ["Macvtap"]}}}));
        let told: Vec<String> =
            listed_gates(&spec).into_iter().map(|it| format!("{}: {}", it.field, it.instead)).collect();
        assert_eq!(
            told,
            [
                "feature gate DockerSELinuxMCSWorkaround: it still works and goes away",
                "feature gate Macvtap: it is gone, leave it out",
            ]
        );
    }
}
