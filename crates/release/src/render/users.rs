//! Roles for people: who may see, change and administer VMs. Kubernetes' own admin, edit and view include them.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

use super::access::{cluster_role, cluster_role_binding, group_subject};
use crate::object::Object;
use crate::rbac::{READ, rule};

const SUBRESOURCES: &str = "subresources.kubevirt.io";
const EVERYONE: &str = "system:authenticated";

const GET: &[&str] = &["get"];
const UPDATE: &[&str] = &["update"];
const EDIT: &[&str] = &["get", "delete", "create", "update", "patch", "list", "watch"];
const ADMIN: &[&str] = &["get", "delete", "create", "update", "patch", "list", "watch", "deletecollection"];

/// What can be asked about a guest.
const ABOUT_GUESTS: &[&str] = &[
    "virtualmachineinstances/guestosinfo",
    "virtualmachineinstances/filesystemlist",
    "virtualmachineinstances/userlist",
    "virtualmachineinstances/sev/fetchcertchain",
    "virtualmachineinstances/sev/querylaunchmeasurement",
    "virtualmachines/objectgraph",
    "virtualmachineinstances/objectgraph",
];
/// Connections into a guest.
const INTO_GUESTS: &[&str] = &[
    "virtualmachineinstances/console",
    "virtualmachineinstances/vnc",
    "virtualmachineinstances/portforward",
    "virtualmachineinstances/usbredir",
];
const ON_INSTANCES: &[&str] = &[
    "virtualmachineinstances/pause",
    "virtualmachineinstances/unpause",
    "virtualmachineinstances/addvolume",
    "virtualmachineinstances/removevolume",
    "virtualmachineinstances/freeze",
    "virtualmachineinstances/unfreeze",
    "virtualmachineinstances/softreboot",
    "virtualmachineinstances/reset",
    "virtualmachineinstances/sev/setupsession",
    "virtualmachineinstances/sev/injectlaunchsecret",
    "virtualmachineinstances/evacuate/cancel",
];
const ON_MACHINES: &[&str] = &[
    "virtualmachines/start",
    "virtualmachines/stop",
    "virtualmachines/restart",
    "virtualmachines/addvolume",
    "virtualmachines/removevolume",
    "virtualmachines/memorydump",
    "virtualmachines/removememorydump",
    "virtualmachines/evacuate/cancel",
];

/// Kinds that belong to users: group, plurals.
const OWNED: &[(&str, &[&str])] = &[
    (
        "kubevirt.io",
        &[
            "virtualmachines",
            "virtualmachineinstances",
            "virtualmachineinstancepresets",
            "virtualmachineinstancereplicasets",
        ],
    ),
    ("snapshot.kubevirt.io", &["virtualmachinesnapshots", "virtualmachinesnapshotcontents", "virtualmachinerestores"]),
    ("backup.kubevirt.io", &["virtualmachinebackups", "virtualmachinebackuptrackers"]),
    ("export.kubevirt.io", &["virtualmachineexports"]),
    ("clone.kubevirt.io", &["virtualmachineclones"]),
    (
        "instancetype.kubevirt.io",
        &[
            "virtualmachineinstancetypes",
            "virtualmachineclusterinstancetypes",
            "virtualmachinepreferences",
            "virtualmachineclusterpreferences",
        ],
    ),
    ("pool.kubevirt.io", &["virtualmachinepools"]),
];

pub(super) fn objects() -> Vec<Object> {
    let mut objects: Vec<Object> = roles().iter().map(Object::of).collect();
    for role in ["kubevirt.io:default", "instancetype.kubevirt.io:view"] {
        let mut binding = cluster_role_binding(role, role, vec![group_subject(EVERYONE)]);
        binding.metadata.annotations = Some(autoupdate());
        objects.push(Object::of(&binding));
    }
    objects
}

fn roles() -> Vec<ClusterRole> {
    vec![
        aggregated("admin", admin()),
        aggregated("edit", edit()),
        aggregated("view", view()),
        cluster_role("kubevirt.io:migrate", migrate()),
        default_role(),
        cluster_role(
            "instancetype.kubevirt.io:view",
            vec![rule(
                "instancetype.kubevirt.io",
                &["virtualmachineclusterinstancetypes", "virtualmachineclusterpreferences"],
                READ,
            )],
        ),
    ]
}

/// A role that Kubernetes' role of the same name takes in.
fn aggregated(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    let mut role = cluster_role(&format!("kubevirt.io:{name}"), rules);
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    role.metadata.labels.get_or_insert_default().insert(label, "true".into());
    role
}

fn default_role() -> ClusterRole {
    let mut role = cluster_role(
        "kubevirt.io:default",
        vec![
            rule("kubevirt.io", &["kubevirts"], &["get", "list"]),
            rule(SUBRESOURCES, &["version", "guestfs"], &["get", "list"]),
        ],
    );
    let bootstrapping = ("kubernetes.io/bootstrapping".to_string(), "rbac-defaults".to_string());
    role.metadata.labels.get_or_insert_default().extend([bootstrapping]);
    role.metadata.annotations = Some(autoupdate());
    role
}

/// Kubernetes then repairs the role when it starts.
fn autoupdate() -> BTreeMap<String, String> {
    [("rbac.authorization.kubernetes.io/autoupdate".to_string(), "true".to_string())].into()
}

fn use_guests() -> Vec<PolicyRule> {
    vec![
        rule(SUBRESOURCES, INTO_GUESTS, GET),
        rule(SUBRESOURCES, ABOUT_GUESTS, GET),
        rule(SUBRESOURCES, ON_INSTANCES, UPDATE),
        rule(SUBRESOURCES, &["virtualmachines/expand-spec", "virtualmachines/portforward"], GET),
        rule(SUBRESOURCES, ON_MACHINES, UPDATE),
        rule(SUBRESOURCES, &["expand-vm-spec"], UPDATE),
        rule("kubevirt.io", &["virtualmachineinstancemigrations"], READ),
        rule("migrations.kubevirt.io", &["migrationpolicies"], READ),
    ]
}

fn owned(verbs: &[&str]) -> impl Iterator<Item = PolicyRule> {
    OWNED.iter().map(move |(group, plurals)| rule(group, plurals, verbs))
}

fn admin() -> Vec<PolicyRule> {
    let mut rules = use_guests();
    rules.push(rule(SUBRESOURCES, &["virtualmachineinstances/vnc/screenshot"], GET));
    rules.push(rule("plugin.kubevirt.io", &["plugins"], ADMIN));
    rules.extend(owned(ADMIN));
    rules
}

fn edit() -> Vec<PolicyRule> {
    let mut rules = use_guests();
    rules.push(rule("kubevirt.io", &["kubevirts"], &["get", "list"]));
    rules.extend(owned(EDIT));
    rules
}

fn view() -> Vec<PolicyRule> {
    let mut rules = vec![
        rule("kubevirt.io", &["kubevirts"], &["get", "list"]),
        rule(SUBRESOURCES, ABOUT_GUESTS, GET),
        rule(SUBRESOURCES, &["virtualmachines/expand-spec"], GET),
        rule(SUBRESOURCES, &["expand-vm-spec"], UPDATE),
        rule("kubevirt.io", &["virtualmachineinstancemigrations"], READ),
        rule("migrations.kubevirt.io", &["migrationpolicies"], READ),
        rule("plugin.kubevirt.io", &["plugins"], READ),
    ];
    rules.extend(owned(READ));
    rules
}

fn migrate() -> Vec<PolicyRule> {
    vec![
        rule(SUBRESOURCES, &["virtualmachines/migrate"], UPDATE),
        rule("kubevirt.io", &["virtualmachineinstancemigrations"], ADMIN),
    ]
}
