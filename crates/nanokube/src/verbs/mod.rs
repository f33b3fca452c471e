//! The verbs: from a parsed request to an answer.

mod autoscaling;
mod body;
mod delete;
mod events;
mod health;
mod import;
mod meta;
mod read;
mod render;
mod subresources;
mod tidying;
mod watch;
mod write;

use std::sync::Arc;

pub(crate) use body::parse as parse_body;
pub use import::ImportError;
pub(crate) use import::{import, parse};
pub(crate) use meta::metadata_text;
pub(crate) use render::partial;
pub(crate) use write::{record_owner, write_own};

use crate::core::Core;
use crate::kinds::{Keeping, Refused, Sub};
use crate::registry::Resource;
use crate::reply::Reply;
use crate::request::ResourcePath;
use crate::server::Context;
use crate::status::{About, ApiError};
use crate::store::{Name, Stored};
use crate::{aggregation, discovery, logs, reviews};

/// A request to a resource, looked up.
pub(crate) struct Target<'a> {
    pub core: &'a Arc<Core>,
    pub context: &'a Context,
    pub resource: Arc<Resource>,
    pub path: &'a ResourcePath,
}

impl Target<'_> {
    /// The object's name in the store.
    pub(crate) fn name(&self) -> Name {
        let namespace = if self.resource.namespaced { self.path.namespace.as_str() } else { "" };
        Name::new(namespace, &self.path.name)
    }

    /// For errors that show the plural.
    pub(crate) fn about<'b>(&'b self, name: &'b str) -> About<'b> {
        About { group: &self.resource.group, what: &self.resource.plural, name }
    }

    /// For errors that show the kind.
    pub(crate) fn about_kind<'b>(&'b self, name: &'b str) -> About<'b> {
        About { group: &self.resource.group, what: &self.resource.kind, name }
    }

    /// The object the path names.
    pub(crate) fn live(&self) -> Result<Arc<Stored>, ApiError> {
        let name = self.name();
        let found = self.core.store.get(&self.resource.key, &name);
        found.ok_or_else(|| ApiError::not_found(self.about(&name.name)))
    }

    pub(crate) fn query(&self) -> &crate::request::Query {
        &self.context.info.query
    }

    /// Warnings every answer of this resource carries.
    fn warnings(&self) -> Vec<String> {
        let own = self.resource.custom.as_ref().and_then(|custom| custom.deprecation.clone());
        let built_in = || match (self.resource.group.as_str(), self.resource.plural.as_str()) {
            ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+".to_owned()),
            ("", "endpoints") => {
                Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned())
            }
            _ => None,
        };
        own.or_else(built_in).into_iter().collect()
    }
}

/// Answers a request that was let in.
pub(crate) async fn handle(core: &Arc<Core>, context: &Context) -> Result<Reply, ApiError> {
    if let Some(passed) = aggregation::pass(core, context).await {
        return passed;
    }
    let Some(path) = &context.info.resource else { return discovery::handle(core, context) };
    let table = core.registry.table();
    let Some(resource) = table.get(&path.group, &path.version, &path.plural) else {
        return Err(missing(core, path));
    };
    if !resource.namespaced && !path.namespace.is_empty() && !resource.is("", "namespaces") {
        return Err(ApiError::no_resource());
    }
    let target = Target { core, context, resource, path };
    let reply = if !path.subresource.is_empty() {
        subresource(&target).await
    } else if !target.resource.is_kept() {
        match (target.resource.keeping, context.info.verb.as_str()) {
            (Keeping::Review, "create") => reviews::create(&target),
            (Keeping::Binding, "create") => subresources::bind_by_name(&target).await,
            (Keeping::Health, "get" | "list") => health::read(&target),
            _ => Err(ApiError::method_not_allowed()),
        }
    } else {
        main(&target).await
    };
    reply.map(|reply| reply.with_warnings(target.warnings()))
}

async fn main(target: &Target<'_>) -> Result<Reply, ApiError> {
    let namespace_missing = target.resource.namespaced && target.path.namespace.is_empty();
    match target.context.info.verb.as_str() {
        "list" => read::list(target),
        "watch" => watch::watch(target),
        _ if namespace_missing => Err(ApiError::method_not_allowed()),
        "get" => read::get(target),
        "create" if target.path.name.is_empty() => write::create(target).await,
        "update" if !target.path.name.is_empty() => write::update(target, None).await,
        "patch" if !target.path.name.is_empty() => write::patch(target, None).await,
        "delete" => delete::delete(target).await,
        "deletecollection" if target.resource.is("", "namespaces") => Err(ApiError::method_not_allowed()),
        "deletecollection" => delete::delete_collection(target).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn subresource(target: &Target<'_>) -> Result<Reply, ApiError> {
    let served = target.resource.subresources.iter().find(|sub| sub.path() == target.path.subresource);
    let Some(sub) = served.copied() else { return Err(ApiError::no_resource()) };
    match (sub, target.context.info.verb.as_str()) {
        (Sub::Status | Sub::EphemeralContainers | Sub::Approval, "get") => read::get(target),
        (Sub::Status | Sub::EphemeralContainers | Sub::Approval | Sub::Finalize, "update") => {
            write::update(target, Some(sub)).await
        }
        (Sub::Status | Sub::EphemeralContainers | Sub::Approval, "patch") => write::patch(target, Some(sub)).await,
        (Sub::Scale, "get") => subresources::get_scale(target),
        (Sub::Scale, "update") => subresources::update_scale(target).await,
        (Sub::Scale, "patch") => subresources::patch_scale(target).await,
        (Sub::Binding, "create") => subresources::bind(target).await,
        (Sub::Eviction, "create") => subresources::evict(target).await,
        (Sub::Token, "create") => subresources::token(target).await,
        (Sub::Log, "get") => logs::get(target).await,
        (Sub::Refused(refused), verb) if sub.verbs().contains(&verb) => {
            let live = target.live()?;
            let on_node = matches!(refused, Refused::Attach | Refused::Exec | Refused::PortForward);
            if on_node && live.value["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
                let text = format!("pod {} does not have a host assigned", target.path.name);
                return Err(ApiError::bad_request(text));
            }
            Err(ApiError::not_implemented(&format!("{}/{}", target.resource.plural, target.path.subresource)))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// A path below a group and version that names no served resource.
fn missing(core: &Core, path: &ResourcePath) -> ApiError {
    let table = core.registry.table();
    if table.serves(&path.group, &path.version) {
        return ApiError::no_resource();
    }
    ApiError::no_path()
}
