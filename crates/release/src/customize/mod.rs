//! `spec.customizeComponents`: the administrator's changes to rendered objects. Pure.
//!
//! A change is made to a fresh copy of the rendered and stamped object each time, so doing it again gives the same. It
//! sees the number of pods that fits the cluster; `spec.infra.replicas`, placement and command-line settings are added
//! afterwards. What cannot be done is refused as a whole with the name of the change that is at fault; nothing is left out in silence.

mod flags;
mod validity;

use std::fmt;

use apimachinery::builtin;
use apimachinery::patch::{self, JsonPatchError, StrategicError};
use kubevirt_api::kubevirt::{CustomizeComponents, CustomizePatch};
use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};

use crate::kinds::Kind;
use crate::object::{Object, ObjectKey};
use flags::Flags;

/// Stands for every kind, or every name.
const ANY: &str = "*";

/// Whether objects of a kind can be changed. Of a Secret only the metadata: its content is a certificate.
pub fn is_customizable(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Deployment
            | Kind::DaemonSet
            | Kind::Service
            | Kind::ValidatingWebhookConfiguration
            | Kind::MutatingWebhookConfiguration
            | Kind::APIService
            | Kind::Secret
            | Kind::Job
    )
}

/// The changes a CR asks for, read and known to be well formed.
#[derive(Clone, Debug, PartialEq)]
pub struct Customizations {
    patches: Vec<Edit>,
    flags: Vec<Flags>,
    identifier: String,
    given: String,
    /// What they lead to was looked at before, see [`Self::tried`].
    tried: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Edit {
    place: Place,
    resource_type: String,
    resource_name: String,
    way: Way,
    change: Value,
}

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Json,
    Merge,
    Strategic,
}

/// Where in the CR a change stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Patch {
        index: usize,
        resource_type: String,
        resource_name: String,
    },
    /// The flags of `api`, `controller` or `handler`.
    Flags {
        component: &'static str,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patch { index, resource_type, resource_name } => {
                write!(f, "spec.customizeComponents.patches[{index}] ({resource_type} {resource_name})")
            }
            Self::Flags { component } => write!(f, "spec.customizeComponents.flags.{component}"),
        }
    }
}

/// A change that is not made, the object it was meant for, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{} cannot be applied: {why}", object.as_ref().map(|key| format!(" to {key}")).unwrap_or_default())]
pub struct Refused {
    pub place: Place,
    /// None when the change is wrong whatever it is applied to.
    pub object: Option<ObjectKey>,
    pub why: Box<Why>,
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("its type {0:?} is none of json, merge, strategic")]
    UnknownType(String),
    #[error("its text is not JSON: {0}")]
    NotJson(String),
    #[error("a patch of type {0} must be {1}")]
    WrongShape(&'static str, &'static str),
    #[error("{0}")]
    Json(#[from] JsonPatchError),
    #[error("{0}")]
    Strategic(#[from] StrategicError),
    #[error("{0} is the operator's and cannot be changed")]
    Reserved(String),
    #[error("there is no container {0} to give flags to")]
    NoContainer(&'static str),
    #[error("the result is not a valid object: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl Why {
    /// The machine-readable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownType(_) => "UnknownPatchType",
            Self::NotJson(_) => "PatchNotJson",
            Self::WrongShape(..) => "PatchMalformed",
            Self::Json(_) | Self::Strategic(_) => "PatchNotApplicable",
            Self::Reserved(_) => "PatchReserved",
            Self::NoContainer(_) => "FlagsWithoutContainer",
            Self::Invalid(_) => "PatchedInvalid",
        }
    }
}

impl Customizations {
    /// No changes.
    pub fn none() -> Self {
        let nothing = CustomizeComponents::default();
        Self { patches: vec![], flags: vec![], identifier: identifier(&nothing), given: String::new(), tried: false }
    }

    /// Reads what a CR asks for.
    ///
    /// # Errors
    /// Every change that is malformed whatever it is applied to.
    pub fn read(given: Option<&CustomizeComponents>) -> Result<Self, Vec<Refused>> {
        let Some(given) = given else { return Ok(Self::none()) };
        let (mut patches, mut refused) = (vec![], vec![]);
        for (index, patch) in given.patches.iter().flatten().enumerate() {
            match Edit::read(index, patch) {
                Ok(patch) => patches.push(patch),
                Err(error) => refused.push(error),
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let (flags, identifier) = (flags::read(given.flags.as_ref()), identifier(given));
        let text = serde_json::to_string(given).unwrap_or_default();
        let given = if patches.is_empty() && flags.is_empty() { String::new() } else { text };
        Ok(Self { patches, flags, identifier, given, tried: false })
    }

    /// The same changes, of which it is known that each object they are made to stays valid: that is not looked at again.
    #[must_use]
    pub fn tried(self) -> Self {
        Self { tried: true, ..self }
    }

    /// What was read, for [`Self::recall`]; empty when there are no changes.
    pub fn given(&self) -> &str {
        &self.given
    }

    /// Reads what [`Self::given`] gave.
    pub fn recall(given: &str) -> Option<Self> {
        let given: CustomizeComponents = serde_json::from_str(given).ok()?;
        Self::read(Some(&given)).ok()
    }

    /// What tells two sets of changes apart: it stands on every customizable object as of its last write.
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Whether some change is meant for the object.
    pub fn concerns(&self, key: &ObjectKey) -> bool {
        is_customizable(key.kind)
            && (self.patches.iter().any(|patch| patch.concerns(key)) || self.flags.iter().any(|f| f.concerns(key)))
    }

    /// Makes the changes that are meant for an object, in the order in which they stand in the CR, flags last.
    ///
    /// # Errors
    /// The first change that cannot be made, or the one that leaves the object invalid; the object is as it was.
    pub fn apply(&self, object: &mut Object) -> Result<(), Refused> {
        let key = object.key();
        if !self.concerns(&key) {
            return Ok(());
        }
        let base = visible(object);
        // Each state with the change that led to it: who is to blame is known when the last one turns out invalid.
        let mut states: Vec<(&Place, Value)> = vec![];
        for patch in self.patches.iter().filter(|patch| patch.concerns(&key)) {
            let before = states.last().map_or(&base, |(_, state)| state);
            let changed = patch.apply(&key, before).map_err(|why| refusal(&patch.place, &key, why))?;
            if let Some(field) = validity::reserved(key.kind, before, &changed) {
                return Err(refusal(&patch.place, &key, Why::Reserved(field)));
            }
            states.push((&patch.place, changed));
        }
        for flags in self.flags.iter().filter(|flags| flags.concerns(&key)) {
            let mut changed = states.last().map_or(&base, |(_, state)| state).clone();
            flags.apply(&mut changed).map_err(|why| refusal(&flags.place, &key, why))?;
            states.push((&flags.place, changed));
        }
        let Some((_, result)) = states.last() else { return Ok(()) };
        if !self.tried
            && let Some((place, faults)) = validity::blame(key.kind, &base, &states)
        {
            return Err(refusal(place, &key, Why::Invalid(faults)));
        }
        // The fields that were not shown are as they were.
        let shown = result.as_object().cloned().unwrap_or_default();
        let value = crate::object::object(object.value_mut());
        value.retain(|name, _| shown.contains_key(name) || is_hidden(key.kind, name));
        value.extend(shown);
        Ok(())
    }

    /// The patches that name an object or kind of which there is none; a `*` never does.
    pub fn without_object<'a>(&'a self, keys: &'a [ObjectKey]) -> impl Iterator<Item = &'a Place> {
        let found = |patch: &Edit| keys.iter().any(|key| is_customizable(key.kind) && patch.concerns(key));
        let all = |patch: &Edit| patch.resource_name == ANY && patch.resource_type == ANY;
        self.patches.iter().filter(move |patch| !all(patch) && !found(patch)).map(|patch| &patch.place)
    }
}

fn refusal(place: &Place, key: &ObjectKey, why: Why) -> Refused {
    Refused { place: place.clone(), object: Some(key.clone()), why: Box::new(why) }
}

/// The fields of an object that changes do not get to see.
fn is_hidden(kind: Kind, field: &str) -> bool {
    kind == Kind::Secret && !["apiVersion", "kind", "metadata"].contains(&field)
}

/// What of an object is shown to changes.
fn visible(object: &Object) -> Value {
    let fields = object.value().as_object().into_iter().flatten();
    let shown: Map<String, Value> = fields
        .filter(|(name, _)| !is_hidden(object.kind(), name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(shown)
}

impl Edit {
    fn read(index: usize, given: &CustomizePatch) -> Result<Self, Refused> {
        let CustomizePatch { resource_name, resource_type, patch, patch_type, other: _ } = given;
        let place = Place::Patch { index, resource_type: resource_type.clone(), resource_name: resource_name.clone() };
        let refused = |why| Refused { place: place.clone(), object: None, why: Box::new(why) };
        let way = match patch_type.as_str() {
            "json" => Way::Json,
            "merge" => Way::Merge,
            "strategic" => Way::Strategic,
            other => return Err(refused(Why::UnknownType(other.into()))),
        };
        let change: Value = serde_json::from_str(patch).map_err(|error| refused(Why::NotJson(error.to_string())))?;
        let shape = match way {
            Way::Json if !change.is_array() => Some(Why::WrongShape("json", "a list of operations")),
            Way::Json => patch::json(&json!({}), &change).err().and_then(|error| match error {
                JsonPatchError::Malformed(_) => Some(Why::Json(error)),
                _ => None,
            }),
            Way::Merge if !change.is_object() => Some(Why::WrongShape("merge", "an object")),
            Way::Strategic if !change.is_object() => Some(Why::WrongShape("strategic", "an object")),
            Way::Merge | Way::Strategic => None,
        };
        if let Some(why) = shape {
            return Err(refused(why));
        }
        let (resource_type, resource_name) = (resource_type.clone(), resource_name.clone());
        Ok(Self { place, resource_type, resource_name, way, change })
    }

    fn concerns(&self, key: &ObjectKey) -> bool {
        let is = |wanted: &str, word: &str| wanted == ANY || wanted.eq_ignore_ascii_case(word);
        is(&self.resource_type, key.kind.name()) && is(&self.resource_name, &key.name)
    }

    fn apply(&self, key: &ObjectKey, object: &Value) -> Result<Value, Why> {
        Ok(match self.way {
            Way::Json => patch::json(object, &self.change)?,
            Way::Merge => patch::merge(object, &self.change),
            Way::Strategic => {
                let schema = builtin::schema(&key.kind.api_version(), key.kind.name());
                patch::strategic(schema.unwrap_or(&apimachinery::Schema::any()), object, &self.change)?
            }
        })
    }
}

/// SHA-1 in hexadecimal over all changes. The order in which patches of different length were written does not matter.
fn identifier(given: &CustomizeComponents) -> String {
    let mut given = given.clone();
    if let Some(patches) = &mut given.patches {
        patches.sort_by_key(|patch| patch.patch.len());
    }
    let text = serde_json::to_string(&given).expect("changes are plain data");
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
