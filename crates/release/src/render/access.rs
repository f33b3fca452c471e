//! A component's identity and rights: ServiceAccount, roles and bindings, all of one name.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubevirt_api::names::label;

use crate::object::Object;
use crate::rbac::{READ, rule};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Every component follows the settings in the CR.
pub(super) fn settings() -> PolicyRule {
    rule("kubevirt.io", &["kubevirts"], READ)
}

/// A component whose certificate is of no use says so in an event on its own pod.
pub(super) fn report_on_own_pod() -> Vec<PolicyRule> {
    vec![rule("", &["pods"], &["get"]), rule("", &["events"], &["create"])]
}

/// A component's rights.
pub(crate) struct Access {
    /// The name of the ServiceAccount and of everything bound to it.
    pub(crate) account: &'static str,
    pub(crate) cluster_rules: Vec<PolicyRule>,
    /// In the install namespace.
    pub(crate) namespace_rules: Vec<PolicyRule>,
}

impl Access {
    pub(crate) fn objects(&self, namespace: &str) -> Vec<Object> {
        let Self { account, cluster_rules, namespace_rules } = self;
        let subjects = || vec![account_subject(account, namespace)];
        vec![
            Object::of(&service_account(account, namespace)),
            Object::of(&cluster_role(account, cluster_rules.clone())),
            Object::of(&cluster_role_binding(account, account, subjects())),
            Object::of(&role(account, namespace, namespace_rules.clone())),
            Object::of(&role_binding(account, namespace, account, subjects())),
        ]
    }
}

/// Whether a role is of the cluster or of a namespace.
#[derive(Clone, Copy)]
enum Scope<'a> {
    Cluster,
    Namespace(&'a str),
}

fn metadata(name: &str, scope: Scope<'_>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: match scope {
            Scope::Cluster => None,
            Scope::Namespace(namespace) => Some(namespace.into()),
        },
        labels: Some([(label::KUBEVIRT.to_string(), String::new())].into()),
        ..Default::default()
    }
}

pub(crate) fn service_account(name: &str, namespace: &str) -> ServiceAccount {
    ServiceAccount { metadata: metadata(name, Scope::Namespace(namespace)), ..Default::default() }
}

pub(crate) fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: metadata(name, Scope::Cluster), rules: Some(rules), ..Default::default() }
}

pub(crate) fn role(name: &str, namespace: &str, rules: Vec<PolicyRule>) -> Role {
    Role { metadata: metadata(name, Scope::Namespace(namespace)), rules: Some(rules) }
}

pub(crate) fn cluster_role_binding(name: &str, role: &str, subjects: Vec<Subject>) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: metadata(name, Scope::Cluster),
        role_ref: role_ref("ClusterRole", role),
        subjects: Some(subjects),
    }
}

pub(crate) fn role_binding(name: &str, namespace: &str, role: &str, subjects: Vec<Subject>) -> RoleBinding {
    RoleBinding {
        metadata: metadata(name, Scope::Namespace(namespace)),
        role_ref: role_ref("Role", role),
        subjects: Some(subjects),
    }
}

pub(crate) fn account_subject(account: &str, namespace: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".into(),
        name: account.into(),
        namespace: Some(namespace.into()),
        ..Default::default()
    }
}

pub(super) fn group_subject(group: &str) -> Subject {
    Subject { api_group: Some(RBAC_GROUP.into()), kind: "Group".into(), name: group.into(), ..Default::default() }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(RBAC_GROUP.into()), kind: kind.into(), name: name.into() }
}
