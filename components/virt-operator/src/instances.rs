//! Users' objects, looked at by their metadata: how many there are, and who holds them. Reads only.

use std::collections::BTreeMap;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kube::{Api, Client, ResourceExt as _};
use kubevirt_release::Kind;
use serde_json::Value;

use crate::cache::{Live, text};
use crate::reconcile::World;
use crate::reconcile::uninstall::{Held, Instances};

/// How many objects one request asks for: what an API server answers in one piece without effort.
const PAGE: u32 = 500;

/// How many objects of a definition are enough to name what holds them up; a sentence names three.
const SAMPLE: u32 = 20;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At a few of each definition; the others are only counted.
    Sample,
    /// At each.
    All,
}

/// The definitions that are ours.
pub fn definitions(world: &World) -> Vec<Live> {
    let ours = world.objects.iter().filter(|(key, _)| key.kind == Kind::CustomResourceDefinition);
    ours.map(|(_, live)| Live::clone(live)).collect()
}

/// The objects of definitions, by the definition's name.
///
/// # Errors
/// A list was refused or not answered. A definition that is not served any more has no objects.
pub async fn look(client: &Client, definitions: &[Live], depth: Depth) -> kube::Result<BTreeMap<String, Instances>> {
    let mut found = BTreeMap::new();
    for definition in definitions {
        let (Some(name), Some(resource)) = (text(definition, "/metadata/name"), resource(definition)) else { continue };
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &resource);
        match instances(&api, depth).await {
            Ok(instances) => drop(found.insert(name.to_owned(), instances)),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

async fn instances(api: &Api<PartialObjectMeta<DynamicObject>>, depth: Depth) -> kube::Result<Instances> {
    let mut found = Instances::default();
    let mut parameters = ListParams::default().limit(if depth == Depth::Sample { SAMPLE } else { PAGE });
    loop {
        let page = api.list_metadata(&parameters).await?;
        found.count += page.items.len();
        for object in page.items.iter().filter(|object| !object.finalizers().is_empty()) {
            let name =
                object.namespace().map_or(object.name_any(), |namespace| format!("{namespace}/{}", object.name_any()));
            let going = object.metadata.deletion_timestamp.is_some();
            found.held.push(Held { name, finalizers: object.finalizers().to_vec(), going });
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(_) if depth == Depth::Sample => {
                found.count += page.metadata.remaining_item_count.and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
                return Ok(found);
            }
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// A definition's resource in the version that is stored.
fn resource(definition: &Value) -> Option<ApiResource> {
    let versions = definition.pointer("/spec/versions")?.as_array()?;
    let stored = versions.iter().find(|version| version.get("storage") == Some(&Value::Bool(true)))?;
    let gvk = GroupVersionKind::gvk(
        text(definition, "/spec/group")?,
        text(stored, "/name")?,
        text(definition, "/spec/names/kind")?,
    );
    Some(ApiResource::from_gvk_with_plural(&gvk, text(definition, "/spec/names/plural")?))
}
