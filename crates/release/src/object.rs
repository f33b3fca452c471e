//! An object of the cluster as a value: a JSON tree of a registered kind with a name.
//!
//! It is built from typed structs once and compared, stamped and written as a tree from then on.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::kinds::Kind;

/// An object of a registered kind. Its `apiVersion`, `kind` and `metadata.name` are always present.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    kind: Kind,
    value: Value,
}

/// Why a tree is not an object.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ObjectError {
    #[error("an object needs the text fields `apiVersion` and `kind`")]
    NoKind,
    #[error("objects of {api_version} {kind} are not known to this release; kinds::Kind lists those that are")]
    UnknownKind { api_version: String, kind: String },
    #[error("an object of kind {kind} has no metadata.name")]
    NoName { kind: Kind },
    #[error("{kind} {name} needs a metadata.namespace")]
    NoNamespace { kind: Kind, name: String },
}

/// What identifies an object in a cluster. Ordered by kind (see [`Kind`]), namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    pub kind: Kind,
    /// None for objects of the cluster.
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectKey {
    pub fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        Self { kind, namespace: namespace.filter(|_| kind.namespaced()).map(Into::into), name: name.into() }
    }
}

/// As people and manifests write it.
impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

impl Object {
    /// Takes a tree as an object.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub fn from_value(value: Value) -> Result<Self, ObjectError> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let (Some(api_version), Some(name)) = (text("apiVersion"), text("kind")) else {
            return Err(ObjectError::NoKind);
        };
        let kind = Kind::find(api_version, name)
            .ok_or_else(|| ObjectError::UnknownKind { api_version: api_version.into(), kind: name.into() })?;
        let object = Self { kind, value };
        if object.name().is_empty() {
            return Err(ObjectError::NoName { kind });
        }
        if kind.namespaced() && object.namespace().is_none() {
            return Err(ObjectError::NoNamespace { kind, name: object.name().into() });
        }
        Ok(object)
    }

    /// Takes a typed object of Kubernetes.
    ///
    /// # Panics
    /// When the type is not of a registered kind or has no name: both are mistakes in the program text.
    pub fn of<K: Serialize>(typed: &K) -> Self {
        let value = serde_json::to_value(typed).expect("objects of Kubernetes are plain data");
        Self::from_value(value).expect("a rendered object has a registered kind and a name")
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn name(&self) -> &str {
        self.metadata_text("name").unwrap_or_default()
    }

    /// None for objects of the cluster.
    pub fn namespace(&self) -> Option<&str> {
        self.metadata_text("namespace").filter(|_| self.kind.namespaced())
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.kind, self.namespace(), self.name())
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.value["metadata"]["labels"][key].as_str()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.value["metadata"]["annotations"][key].as_str()
    }

    pub fn labels(&self) -> BTreeMap<&str, &str> {
        texts(&self.value["metadata"]["labels"])
    }

    pub fn annotations(&self) -> BTreeMap<&str, &str> {
        texts(&self.value["metadata"]["annotations"])
    }

    pub fn set_label(&mut self, key: &str, value: impl Into<String>) {
        put(&mut self.value["metadata"], "labels", key, value.into());
    }

    pub fn set_annotation(&mut self, key: &str, value: impl Into<String>) {
        put(&mut self.value["metadata"], "annotations", key, value.into());
    }

    /// The pod template of a Deployment, DaemonSet or Job.
    pub fn pod_template(&self) -> Option<&Value> {
        self.kind.has_pod_template().then(|| &self.value["spec"]["template"])
    }

    pub fn pod_template_mut(&mut self) -> Option<&mut Value> {
        self.kind.has_pod_template().then(|| &mut self.value["spec"]["template"])
    }

    /// A value by JSON pointer, such as `/spec/replicas`.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }

    /// A part of the object, typed.
    ///
    /// # Errors
    /// The part does not have that type.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.value)
    }

    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Changes below `spec` and the like; kind and name are not to be changed.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    pub fn into_value(self) -> Value {
        self.value
    }

    fn metadata_text(&self, key: &str) -> Option<&str> {
        self.value["metadata"][key].as_str()
    }
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

fn texts(map: &Value) -> BTreeMap<&str, &str> {
    map.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect()
}

/// Puts a text into `parent.<map>.<key>`; `parent` is made an object when it is not.
pub(crate) fn put(parent: &mut Value, map: &str, key: &str, value: String) {
    object(object(parent).entry(map).or_insert(Value::Null)).insert(key.into(), Value::String(value));
}

/// The map behind a value, which becomes an empty map if it is anything else.
pub(crate) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tree_becomes_an_object_or_says_what_is_wrong() {
        let object = Object::from_value(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "virt-api", "namespace": "kubevirt", "labels": {"a": "b"}}}))
        .unwrap();
        assert_eq!(object.key().to_string(), "Deployment kubevirt/virt-api");
        assert_eq!(object.labels(), [("a", "b")].into());
        let error = |value| Object::from_value(value).unwrap_err().to_string();
        assert!(error(json!({"kind": "Pod"})).contains("apiVersion"));
        assert!(error(json!({"apiVersion": "v1", "kind": "Pod"})).contains("v1 Pod"));
        assert!(error(json!({"apiVersion": "v1", "kind": "Secret"})).contains("metadata.name"));
        assert!(
            error(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}))
                .contains("Secret x needs a metadata.namespace")
        );
    }

    #[test]
    fn keys_are_ordered_by_kind_first() {
        let key = |kind, name| ObjectKey::new(kind, Some("ns"), name);
        assert!(key(Kind::ServiceAccount, "z") < key(Kind::Deployment, "a"));
        assert_eq!(key(Kind::ClusterRole, "x").to_string(), "ClusterRole x");
    }

    #[test]
    fn labels_are_set_where_there_were_none() {
        let mut object =
            Object::from_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})).unwrap();
        object.set_label("a", "b");
        object.set_annotation("c", "d");
        assert_eq!((object.label("a"), object.annotation("c")), (Some("b"), Some("d")));
    }
}
