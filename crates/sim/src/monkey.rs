//! Third parties: what somebody with enough rights does to the objects that the operator manages.

use std::fmt;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kubevirt_release::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::invariants::{is_managed, text};
use crate::state;
use crate::world::World;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prank {
    /// F9: it is deleted.
    Delete,
    /// F9: a field that the operator wrote gets another value.
    Edit,
    /// F10: labels, annotations, finalizers and owners are removed.
    Strip,
    /// F9: it gets a label and an annotation of somebody else's, which are to stay.
    Mark,
    /// F11: it is deleted, and somebody makes one of the same name at once.
    Recreate,
}

impl Prank {
    pub const ALL: [Self; 5] = [Self::Delete, Self::Edit, Self::Mark, Self::Strip, Self::Recreate];

    pub fn class(self) -> &'static str {
        match self {
            Self::Delete | Self::Edit | Self::Mark => "F9",
            Self::Strip => "F10",
            Self::Recreate => "F11",
        }
    }
}

impl fmt::Display for Prank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delete => "delete",
            Self::Edit => "edit",
            Self::Mark => "mark",
            Self::Strip => "strip",
            Self::Recreate => "recreate",
        })
    }
}

/// An object, named so that a run can be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Victim {
    #[serde(with = "kind_by_name")]
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A kind is written as its name.
mod kind_by_name {
    use kubevirt_release::Kind;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
    pub(super) fn serialize<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
        found.ok_or_else(|| D::Error::custom(format!("there is no kind {name:?}")))
    }
}

/// Every object that the operator manages now.
pub(crate) fn victims(api: &nanokube::Nanokube) -> Vec<Victim> {
    let kinds = Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt);
    kinds
        .flat_map(|kind| {
            let objects = api.stored_all(kind.group(), kind.plural());
            objects.into_iter().filter(|object| is_managed(object)).map(|object| Victim {
                kind: *kind,
                namespace: text(&object, "/metadata/namespace").to_owned(),
                name: text(&object, "/metadata/name").to_owned(),
            })
        })
        .collect()
}

pub(crate) fn exists(victim: &Victim, world: &World) -> bool {
    let kind = victim.kind;
    world.cluster.api.stored(kind.group(), kind.plural(), &victim.namespace, &victim.name).is_some()
}

/// Whether an object that was marked still is; one that went and came anew need not be.
pub(crate) fn is_marked(victim: &Victim, world: &World) -> bool {
    let kind = victim.kind;
    let found = world.cluster.api.stored(kind.group(), kind.plural(), &victim.namespace, &victim.name);
    let mark = state::MARK.replace('/', "~1");
    let has = |object: &Value, field: &str| text(object, &format!("/metadata/{field}/{mark}")) == "kept";
    found.is_none_or(|object| has(&object, "labels") && has(&object, "annotations"))
}

/// Plays a prank on an object if it exists. Tells what was done; `None` when there was nothing to do it to.
///
/// # Errors
/// The server refused what nobody should be refused.
pub(crate) async fn play(prank: Prank, victim: &Victim, world: &World) -> Result<Option<String>, kube::Error> {
    let api = world.api(victim.kind, Some(&victim.namespace));
    let Some(live) = api.get_opt(&victim.name).await? else { return Ok(None) };
    let done = match prank {
        Prank::Delete => {
            api.delete(&victim.name, &DeleteParams::default()).await?;
            "deleted".to_owned()
        }
        Prank::Mark => {
            let mark = json!({(state::MARK): "kept"});
            let change = json!({"metadata": {"labels": mark, "annotations": mark}});
            api.patch(&victim.name, &PatchParams::default(), &Patch::Merge(change)).await?;
            "marked".to_owned()
        }
        Prank::Strip => {
            let change =
                json!({"metadata": {"labels": null, "annotations": null, "finalizers": null, "ownerReferences": null}});
            api.patch(&victim.name, &PatchParams::default(), &Patch::Merge(change)).await?;
            "stripped".to_owned()
        }
        Prank::Recreate => {
            api.delete(&victim.name, &DeleteParams::default()).await?;
            match api.create(&PostParams::default(), &stranger(&live)).await {
                Ok(_) => "replaced".to_owned(),
                // Some objects cannot be empty, and one with finalizers has not gone yet.
                Err(kube::Error::Api(refused)) if matches!(refused.code, 409 | 422) => "deleted".to_owned(),
                Err(error) => return Err(error),
            }
        }
        Prank::Edit => match edit(&live, &api, victim).await? {
            Some(path) => format!("edited at {path}"),
            None => return Ok(None),
        },
    };
    world.referee.note_fault(prank.class(), &format!("{victim} {done} by somebody"));
    Ok(Some(done))
}

/// An object of the same name that somebody made for himself: the same content without any mark of the operator.
fn stranger(live: &DynamicObject) -> DynamicObject {
    let mut stranger = live.clone();
    let metadata = &mut stranger.metadata;
    let (name, namespace) = (metadata.name.take(), metadata.namespace.take());
    *metadata = kube::core::ObjectMeta { name, namespace, ..Default::default() };
    if let Some(data) = stranger.data.as_object_mut() {
        data.remove("status");
    }
    stranger
}

/// Changes the first field of the operator's, outside of the metadata, that the server lets somebody change.
async fn edit(live: &DynamicObject, api: &Api<DynamicObject>, victim: &Victim) -> Result<Option<String>, kube::Error> {
    let value = serde_json::to_value(live).unwrap_or_default();
    for pointer in owned(&value) {
        let Some(changed) = value.pointer(&pointer).and_then(other) else { continue };
        let patch: json_patch::Patch =
            serde_json::from_value(json!([{"op": "replace", "path": pointer, "value": changed}])).expect("a patch");
        match api.patch(&victim.name, &PatchParams::default(), &Patch::Json::<()>(patch)).await {
            // Changing nothing (the server normalises) is no prank.
            Ok(after) if after.metadata.resource_version != live.metadata.resource_version => return Ok(Some(pointer)),
            Ok(_) => {}
            Err(kube::Error::Api(refused)) if matches!(refused.code, 400 | 409 | 422) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Another value of the same type.
fn other(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(value) => Some(json!(!value)),
        Value::Number(number) => Some(json!(number.as_i64()? + 1)),
        Value::String(text) => Some(json!(format!("{text}x"))),
        _ => None,
    }
}

/// Pointers to the scalars outside of `metadata` that the operator applied, by the object's own record.
fn owned(object: &Value) -> Vec<String> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let ours = entries
        .into_iter()
        .flatten()
        .filter(|entry| text(entry, "/manager") == "virt-operator" && text(entry, "/operation") == "Apply");
    let mut pointers = Vec::new();
    for fields in ours.filter_map(|entry| entry.get("fieldsV1")?.as_object()) {
        let rest: Map<String, Value> = fields
            .iter()
            .filter(|(name, _)| *name != "f:metadata")
            .map(|(name, below)| (name.clone(), below.clone()))
            .collect();
        collect(&rest, object, "", &mut pointers);
    }
    pointers
}

fn collect(fields: &Map<String, Value>, at: &Value, pointer: &str, pointers: &mut Vec<String>) {
    for (selector, below) in fields {
        let Some(below) = below.as_object() else { continue };
        let (segment, value) = if let Some(name) = selector.strip_prefix("f:") {
            (name.replace('~', "~0").replace('/', "~1"), at.get(name))
        } else if let Some(keys) = selector.strip_prefix("k:") {
            let Ok(keys) = serde_json::from_str::<Map<String, Value>>(keys) else { continue };
            let elements = at.as_array().map(Vec::as_slice).unwrap_or_default();
            let is_it = |element: &&Value| keys.iter().all(|(name, value)| element.get(name) == Some(value));
            let Some(index) = elements.iter().position(|element| is_it(&element)) else { continue };
            (index.to_string(), elements.get(index))
        } else {
            continue;
        };
        let Some(value) = value else { continue };
        let pointer = format!("{pointer}/{segment}");
        match value {
            Value::Object(_) | Value::Array(_) if below.is_empty() => leaves(value, &pointer, pointers),
            Value::Object(_) | Value::Array(_) => collect(below, value, &pointer, pointers),
            _ => pointers.push(pointer),
        }
    }
}

/// Every scalar below an atomic field.
fn leaves(value: &Value, pointer: &str, pointers: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, below) in map {
                leaves(below, &format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")), pointers);
            }
        }
        Value::Array(items) => {
            for (index, below) in items.iter().enumerate() {
                leaves(below, &format!("{pointer}/{index}"), pointers);
            }
        }
        Value::Null => {}
        _ => pointers.push(pointer.to_owned()),
    }
}

/// Whether an object is as it was before the prank; why not otherwise.
pub(crate) fn is_repaired(victim: &Victim, before: &state::EndState, world: &World) -> Result<(), String> {
    let key = if victim.namespace.is_empty() {
        format!("{} {}", victim.kind, victim.name)
    } else {
        format!("{} {}/{}", victim.kind, victim.namespace, victim.name)
    };
    let only = |state: &state::EndState| {
        state.iter().filter(|(name, _)| **name == key).map(|(n, v)| (n.clone(), v.clone())).collect()
    };
    let differences = state::differences(&only(before), &only(&state::managed(&world.cluster.api)), 3);
    if differences.is_empty() { Ok(()) } else { Err(differences.join("; ")) }
}
