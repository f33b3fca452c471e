//! The CRD of the KubeVirt custom resource.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::{KubeVirt, OLD_VERSION};

/// Shown by kubectl to whoever still uses the old version.
const OLD_VERSION_WARNING: &str = "kubevirt.io/v1alpha3 KubeVirt is deprecated: use kubevirt.io/v1";

pub(super) fn crd() -> CustomResourceDefinition {
    let mut crd = <KubeVirt as CustomResourceExt>::crd();
    let mut current = crd.spec.versions.remove(0);
    let mut schema = serde_json::to_value(&current.schema).expect("a schema is plain data");
    without_foreign_formats(&mut schema);
    current.schema = serde_json::from_value(schema).expect("only formats were removed");

    let mut old = current.clone();
    old.name = OLD_VERSION.into();
    old.storage = false;
    old.deprecated = Some(true);
    old.deprecation_warning = Some(OLD_VERSION_WARNING.into());
    crd.spec.versions = vec![current, old];
    crd
}

/// The API server warns about number formats it does not know, which are all unsigned ones.
pub(crate) fn without_foreign_formats(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                map.remove("format");
            }
            map.values_mut().for_each(without_foreign_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(without_foreign_formats),
        _ => {}
    }
}

/// The schema of a Kubernetes type without its descriptions: they are long, and they are documented at their source.
pub(super) fn textless<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>().to_value();
    without_text(&mut schema);
    schema.try_into().expect("removing text leaves a schema")
}

fn without_text(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("description").is_some_and(Value::is_string) {
                map.remove("description");
            }
            map.values_mut().for_each(without_text);
        }
        Value::Array(items) => items.iter_mut().for_each(without_text),
        _ => {}
    }
}
