//! Every object of the suite of a version, from its deployment config alone.
//!
//! What depends on the CR or the cluster (placement, replicas, stamps) is added by [`crate::desired`]. Certificates are
//! listed in [`crate::certificates`] and issued by the operator; they are not rendered.

mod access;
pub(crate) mod pods;
mod security;
mod services;
mod users;
mod virt_api;
mod virt_controller;
mod virt_handler;
mod webhooks;

pub use webhooks::{POD_MUTATOR, VALIDATOR};

pub(crate) use access::{
    Access, account_subject, cluster_role, cluster_role_binding, role, role_binding, service_account,
};

use kubevirt_api::crds;

use crate::config::DeploymentConfig;
use crate::object::Object;
use crate::strategy::Strategy;

/// The ports of every component's HTTPS listener.
pub const HTTPS_PORT: i32 = 8443;
/// Where virt-handler serves consoles to virt-api.
pub const CONSOLE_PORT: i32 = 8186;
/// Where virt-handler serves statistics of guests.
pub const VMSTATS_PORT: i32 = 8187;
/// The priority class of every component.
pub const PRIORITY_CLASS: &str = "kubevirt-cluster-critical";

/// Every object of the suite.
pub fn render(config: &DeploymentConfig) -> Strategy {
    let namespace = config.namespace.as_str();
    let mut objects = vec![];
    for access in accesses() {
        objects.extend(access.objects(namespace));
    }
    objects.extend(users::objects());
    objects.extend(crds::all().iter().map(Object::of));
    objects.extend(security::objects(namespace));
    objects.extend(services::objects(namespace));
    objects.extend(webhooks::objects(namespace));
    objects.push(Object::of(&virt_api::deployment(config)));
    objects.push(Object::of(&virt_controller::deployment(config)));
    objects.push(Object::of(&virt_handler::daemon_set(config)));
    objects.sort_by_key(Object::key);
    Strategy { version: config.kubevirt_version.clone(), registry: config.registry.clone(), id: config.id(), objects }
}

/// What each component may do.
pub(crate) fn accesses() -> Vec<Access> {
    vec![virt_api::access(), virt_controller::access(), virt_handler::access()]
}

#[cfg(test)]
mod tests;
