//! The writes themselves.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy,
};
use kube::core::GroupVersionKind;
use kubevirt_release::desired::NO_REASON_TO_WRITE;
use kubevirt_release::{Kind, Object, ObjectKey};
use kubevirt_runtime::lease::{Fence, NotLeader};
use serde_json::{Value, json};

use crate::drift::{self, Difference, Drift, DriftKind, FIELD_MANAGER, adoption};

/// Where a live object differs from what is wanted, or `None` when there is nothing to write.
pub fn differs(wanted: &Object, live: &Value) -> Option<Drift> {
    drift::drift(wanted.value(), live, NO_REASON_TO_WRITE)
}

/// All that a write of `wanted` would change.
pub fn differences(wanted: &Object, live: &Value) -> Vec<Difference> {
    drift::differences(wanted.value(), live, NO_REASON_TO_WRITE)
}

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as wanted; no request was made.
    Unchanged,
    Created,
    Applied,
    /// It was as wanted, and is recorded as ours now.
    Adopted,
    Deleted,
    /// It was to be deleted and is not there.
    Gone,
}

impl Outcome {
    /// The machine-readable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unchanged => "Unchanged",
            Self::Created => "Created",
            Self::Applied => "Applied",
            Self::Adopted => "Adopted",
            Self::Deleted => "Deleted",
            Self::Gone => "Gone",
        }
    }

    /// Whether something in the cluster changed.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Created | Self::Applied | Self::Adopted | Self::Deleted)
    }
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{key} was not written: {reason}")]
    Fenced { key: ObjectKey, reason: NotLeader },
    #[error("{key} was refused by the server: {reason} ({code}): {message}")]
    Refused { key: ObjectKey, code: u16, reason: String, message: String },
    #[error("{key} is no longer the object that was seen; it is looked at again")]
    Replaced { key: ObjectKey },
    #[error("{key}: the server's answer did not come within {after:?}; whether it was written shows later")]
    TooSlow { key: ObjectKey, after: Duration },
    #[error("{key}: the server could not be asked: {source}")]
    Unanswered {
        key: ObjectKey,
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// The machine-readable name, for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "Fenced",
            Self::Refused { .. } => "Refused",
            Self::Replaced { .. } => "Replaced",
            Self::TooSlow { .. } => "TooSlow",
            Self::Unanswered { .. } => "Unanswered",
        }
    }

    /// The object that was not written.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Fenced { key, .. }
            | Self::Refused { key, .. }
            | Self::Replaced { key }
            | Self::TooSlow { key, .. }
            | Self::Unanswered { key, .. } => key,
        }
    }

    fn of(key: &ObjectKey, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                key: key.clone(),
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.clone(),
            },
            other => Self::Unanswered { key: key.clone(), source: Box::new(other) },
        }
    }
}

/// What a write left behind.
#[derive(Clone, Debug)]
pub struct Written {
    pub outcome: Outcome,
    /// The object as the server now has it; `None` when it was not written or is gone.
    pub live: Option<Value>,
}

/// An object of any kind, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub namespace: Option<String>,
    pub name: String,
    pub resource_version: String,
}

/// Writes objects for as long as it may.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    fence: Fence,
    generation: u64,
}

impl Writer {
    /// A writer for work that was begun under `generation` of the lease; the fence is asked before each request.
    pub fn new(client: Client, fence: Fence, generation: u64) -> Self {
        Self { client, fence, generation }
    }

    /// Brings one object to its wanted content. Makes no request when `live` already has it.
    ///
    /// # Errors
    /// The fence has passed, the server refused, or it did not answer.
    pub async fn apply(&self, wanted: &Object, live: Option<&Value>) -> Result<Written, Error> {
        let key = wanted.key();
        if let Some(live) = live {
            match differs(wanted, live) {
                None => return Ok(Written { outcome: Outcome::Unchanged, live: None }),
                Some(drift) => tracing::info!(object = %key, %drift, "writing"),
            }
        }
        let api = self.api(&key);
        let adopted = match live.filter(|live| adoption::is_due(live)) {
            Some(live) => Some(self.adopt(wanted, live, &api).await?),
            None => None,
        };
        if let Some(adopted) = adopted.as_ref().filter(|adopted| differs(wanted, adopted).is_none()) {
            return Ok(Written { outcome: Outcome::Adopted, live: Some(adopted.clone()) });
        }
        let live = adopted.as_ref().or(live);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(wanted.value());
        let mut answer = self.request(&key, api.patch(&key.name, &parameters, &patch)).await;
        if let (Err(Error::Refused { code: 422, .. }), Some(list)) =
            (&answer, live.and_then(|live| list_of(wanted, live)))
        {
            // Merged with what somebody made of a list of ours, our elements can be invalid: a second port without a name.
            self.put_right(wanted, live.unwrap_or(&Value::Null), &list, &api).await?;
            answer = self.request(&key, api.patch(&key.name, &parameters, &patch)).await;
        }
        if let (Err(Error::Refused { code: 422, .. }), Some(live)) = (&answer, live)
            && let Some(field) = fixed_field(wanted, live)
        {
            // No write can change it, so the object is made anew; these are objects that are whole again at once.
            tracing::info!(object = %key, field, "making it anew, because the field cannot be changed");
            let uid = live.pointer("/metadata/uid").and_then(Value::as_str);
            Self::delete(self, &key, uid).await?;
            answer = self.request(&key, api.patch(&key.name, &parameters, &patch)).await;
        }
        let stored = answer?;
        let outcome = if live.is_some() { Outcome::Applied } else { Outcome::Created };
        let stored = serde_json::to_value(stored).ok();
        let live = match stored {
            Some(stored) => Some(self.take_out_foreign_elements(wanted, stored, &api).await?),
            None => None,
        };
        Ok(Written { outcome, live })
    }

    /// Records as applied what an operator of our name has written, if the object is still as it was seen.
    async fn adopt(&self, wanted: &Object, live: &Value, api: &Api<DynamicObject>) -> Result<Value, Error> {
        let key = wanted.key();
        let patch =
            serde_json::from_value(adoption::patch(wanted.value(), live)).expect("operations make a JSON patch");
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch: Patch<Value> = Patch::Json(patch);
        match self.request(&key, api.patch(&key.name, &parameters, &patch)).await {
            Err(Error::Refused { code: 409, .. }) => Err(Error::Replaced { key }),
            answer => Ok(serde_json::to_value(answer?).unwrap_or_default()),
        }
    }

    /// Server-side apply leaves alone what another manager put into a list of ours. The lists we write are ours as a
    /// whole (containers, their environment, ports, rules), so what is left over is replaced.
    async fn take_out_foreign_elements(
        &self,
        wanted: &Object,
        mut live: Value,
        api: &Api<DynamicObject>,
    ) -> Result<Value, Error> {
        /// Lists that are put right in one write of an object; whoever edits more at once waits for the next pass.
        const LISTS: usize = 8;
        let key = wanted.key();
        for _ in 0..LISTS {
            let Some(Drift { path, pointer, kind: DriftKind::Length }) = differs(wanted, &live) else {
                break;
            };
            tracing::info!(object = %key, path, "taking out what is not ours");
            let stored = self.put_right(wanted, &live, &pointer, api).await?;
            live = serde_json::to_value(stored).unwrap_or_default();
        }
        Ok(live)
    }

    /// Makes the list at `pointer` of an object what is wanted, if the object is still as it was seen.
    async fn put_right(
        &self,
        wanted: &Object,
        live: &Value,
        pointer: &str,
        api: &Api<DynamicObject>,
    ) -> Result<DynamicObject, Error> {
        let key = wanted.key();
        let change = match wanted.value().pointer(pointer) {
            Some(ours) => json!({"op": "replace", "path": pointer, "value": ours}),
            None => json!({"op": "remove", "path": pointer}),
        };
        // The list may have changed since it was seen if the version has. The version is stated, not tested: a failed
        // test is answered like a patch that is wrong (422), a version that has passed like the race it is (409).
        let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        let patch = serde_json::from_value(json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            change,
        ]))
        .expect("two operations make a JSON patch");
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch: Patch<Value> = Patch::Json(patch);
        match self.request(&key, api.patch(&key.name, &parameters, &patch)).await {
            Err(Error::Refused { code: 409, .. }) => Err(Error::Replaced { key }),
            answer => answer,
        }
    }

    /// Deletes one object if it is still the one with `uid`.
    ///
    /// # Errors
    /// As for [`Self::apply`], or another object has taken the name.
    pub async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<Written, Error> {
        let api = self.api(key);
        let parameters = DeleteParams {
            preconditions: uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.request(key, api.delete(&key.name, &parameters)).await {
            // An object that has finalizers stays until they are done. Some kinds answer with what is gone already.
            Ok(answer) => {
                let live = answer
                    .left()
                    .filter(|going| going.metadata.finalizers.as_ref().is_some_and(|names| !names.is_empty()))
                    .and_then(|going| serde_json::to_value(going).ok());
                Ok(Written { outcome: Outcome::Deleted, live })
            }
            Err(Error::Refused { code: 404, .. }) => Ok(Written { outcome: Outcome::Gone, live: None }),
            Err(Error::Refused { code: 409, .. }) => Err(Error::Replaced { key: key.clone() }),
            Err(error) => Err(error),
        }
    }

    /// Has a workload's controller make a pod anew: deletes it if it is still the one with `uid`. `of` is the workload.
    ///
    /// # Errors
    /// As for [`Self::apply`]. That the pod is gone already, or another one has its name, is none.
    pub async fn replace_pod(&self, of: &ObjectKey, name: &str, uid: &str) -> Result<(), Error> {
        let namespace = of.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.request(of, api.delete(name, &parameters)).await {
            Ok(_) | Err(Error::Refused { code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Merges changes into an object that exists, or into one of its subresources, if it still has the resource version
    /// that `changes` names. For the CR, whose status and finalizers are the operator's, but whose spec is not.
    ///
    /// # Errors
    /// As for [`Self::apply`], or the object has changed since it was seen.
    pub async fn merge(&self, key: &ObjectKey, subresource: Option<&str>, changes: &Value) -> Result<Written, Error> {
        let api = self.api(key);
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(changes);
        let stored = match subresource {
            Some(subresource) => {
                self.request(key, api.patch_subresource(subresource, &key.name, &parameters, &patch)).await
            }
            None => self.request(key, api.patch(&key.name, &parameters, &patch)).await,
        };
        match stored {
            Ok(stored) => Ok(Written { outcome: Outcome::Applied, live: serde_json::to_value(stored).ok() }),
            Err(Error::Refused { code: 409, .. }) => Err(Error::Replaced { key: key.clone() }),
            Err(error) => Err(error),
        }
    }

    /// Has the server store an object of a definition again, as it is: in the version in which it stores them now. Whoever
    /// changed or deleted it since it was seen has done that already, so the change is theirs and nothing is left to do.
    ///
    /// # Errors
    /// As for [`Self::apply`]; `of`, the definition, is named as the object that was not written.
    pub async fn store_anew(&self, of: &ObjectKey, resource: &ApiResource, seen: &Seen) -> Result<(), Error> {
        let Seen { namespace, name, resource_version } = seen;
        let api: Api<DynamicObject> = match namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let unchanged = Patch::Merge(json!({"metadata": {"resourceVersion": resource_version}}));
        match self.request(of, api.patch_metadata(name, &parameters, &unchanged)).await {
            Ok(_) | Err(Error::Refused { code: 404, .. }) => Ok(()),
            Err(Error::Refused { code: 409, reason, .. }) if reason == "Conflict" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes labels, annotations and spec of an existing object exactly the wanted ones, whoever wrote what is there, if it
    /// still has the resource version. For objects that are the operator's as a whole.
    ///
    /// # Errors
    /// As for [`Self::merge`].
    pub async fn replace(&self, wanted: &Object, resource_version: &str) -> Result<Written, Error> {
        let key = wanted.key();
        let part = |pointer: &str| wanted.value().pointer(pointer).cloned().unwrap_or_else(|| json!({}));
        let patch = serde_json::from_value(json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version},
            {"op": "add", "path": "/metadata/labels", "value": part("/metadata/labels")},
            {"op": "add", "path": "/metadata/annotations", "value": part("/metadata/annotations")},
            {"op": "add", "path": "/spec", "value": part("/spec")},
        ]))
        .expect("four operations make a JSON patch");
        let patch: Patch<Value> = Patch::Json(patch);
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.request(&key, self.api(&key).patch(&key.name, &parameters, &patch)).await {
            Ok(stored) => Ok(Written { outcome: Outcome::Applied, live: serde_json::to_value(stored).ok() }),
            Err(Error::Refused { code: 409, .. }) => Err(Error::Replaced { key }),
            Err(error) => Err(error),
        }
    }

    /// Deletes every object of a kind of the cluster that a label selector finds.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub async fn delete_all(&self, kind: Kind, selector: &str) -> Result<(), Error> {
        let key = ObjectKey::new(kind, None, selector);
        let selected = ListParams::default().labels(selector);
        let parameters = DeleteParams::background();
        self.request(&key, self.api(&key).delete_collection(&parameters, &selected)).await.map(drop)
    }

    /// Puts an event beside the object it is about.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub async fn record(&self, about: &ObjectKey, event: &Event) -> Result<(), Error> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        self.request(about, api.create(&PostParams::default(), event)).await.map(drop)
    }

    /// One request: refused when the fence has passed, given up when it might arrive after the lease has run out.
    async fn request<T>(&self, key: &ObjectKey, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        self.fence.check_generation(self.generation).map_err(|reason| Error::Fenced { key: key.clone(), reason })?;
        let after = self.fence.request_timeout();
        match tokio::time::timeout(after, request).await {
            Ok(answer) => answer.map_err(|error| Error::of(key, error)),
            Err(_) => Err(Error::TooSlow { key: key.clone(), after }),
        }
    }

    fn api(&self, key: &ObjectKey) -> Api<DynamicObject> {
        let kind = key.kind;
        let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        match key.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

/// The first list of an object that differs from what is wanted, whatever else differs.
fn list_of(wanted: &Object, live: &Value) -> Option<String> {
    /// Differences before the list that are passed over: more fields than anybody edits beside it.
    const OTHERS: usize = 32;
    let mut live = live.clone();
    // What we wrote once and no longer want is in no list.
    live.get_mut("metadata")?.as_object_mut()?.remove("managedFields");
    for _ in 0..OTHERS {
        let Drift { pointer, .. } = differs(wanted, &live)?;
        let ends: Vec<usize> = pointer.match_indices('/').map(|(at, _)| at).chain([pointer.len()]).collect();
        let mut parts = ends.iter().map(|end| &pointer[..*end]);
        if let Some(list) = parts.rfind(|part| live.pointer(part).is_some_and(Value::is_array)) {
            return Some(list.to_owned());
        }
        let (parent, name) = pointer.rsplit_once('/')?;
        let fields = live.pointer_mut(parent)?.as_object_mut()?;
        let name = name.replace("~1", "/").replace("~0", "~");
        match wanted.value().pointer(&pointer) {
            Some(ours) => fields.insert(name, ours.clone()),
            None => fields.remove(&name),
        };
    }
    None
}

/// The field of an existing object that differs from what is wanted and that the server never lets anybody change, for
/// kinds that can be made anew without stopping anything. A workload's selector is none of them: its pods would go.
fn fixed_field(wanted: &Object, live: &Value) -> Option<&'static str> {
    let fields: &[&'static str] = match wanted.kind() {
        Kind::RoleBinding | Kind::ClusterRoleBinding => &["/roleRef"],
        Kind::Service => &["/spec/clusterIP"],
        _ => &[],
    };
    let differs = |field: &&&str| {
        let ours = wanted.value().pointer(field);
        ours.is_some_and(|ours| {
            let theirs = live.pointer(field);
            match (ours.as_object(), theirs.and_then(Value::as_object)) {
                (Some(ours), Some(theirs)) => ours.iter().any(|(name, value)| theirs.get(name) != Some(value)),
                _ => theirs != Some(ours),
            }
        })
    };
    fields.iter().find(differs).copied()
}
