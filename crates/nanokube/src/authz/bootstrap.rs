//! The roles and bindings every cluster starts with, and aggregation.

use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use serde_json::{Value, json};

use super::GROUP;
use crate::core::Core;
use crate::registry::resource_key;
use crate::store::Name;
use crate::verbs::metadata_text;

/// Aggregated roles may feed other aggregated roles (view into edit into admin); deeper chains are not resolved further.
const AGGREGATION_ROUNDS: usize = 8;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn paths(paths: &[&str]) -> Value {
    json!({"nonResourceURLs": paths, "verbs": ["get"]})
}

struct Bootstrap<'a> {
    core: &'a Arc<Core>,
}

impl Bootstrap<'_> {
    fn put(&self, plural: &str, kind: &str, namespace: &str, name: &str, mut object: Value) {
        object["apiVersion"] = json!(format!("{GROUP}/v1"));
        object["kind"] = json!(kind);
        let metadata = &mut object["metadata"];
        if !metadata.is_object() {
            *metadata = json!({});
        }
        metadata["name"] = json!(name);
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        metadata["uid"] = json!(self.core.uid());
        metadata["creationTimestamp"] = json!(self.core.now_text());
        metadata["labels"]["kubernetes.io/bootstrapping"] = json!("rbac-defaults");
        metadata["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = json!("true");
        let place = Name::new(namespace, name);
        // Bootstrapping runs on an empty store: there is nothing to collide with.
        let _ = self.core.store.create(&resource_key(GROUP, plural), &place, object);
    }

    fn role(&self, name: &str, rules: &[Value]) {
        self.put("clusterroles", "ClusterRole", "", name, json!({"rules": rules}));
    }

    fn part(&self, name: &str, of: &str, rules: &[Value]) {
        let labels = json!({format!("{GROUP}/aggregate-to-{of}"): "true"});
        self.put("clusterroles", "ClusterRole", "", name, json!({"metadata": {"labels": labels}, "rules": rules}));
    }

    fn aggregated(&self, name: &str, part_of: Option<&str>) {
        let mut object = json!({
            "metadata": {"labels": {}}, "rules": [],
            "aggregationRule": {"clusterRoleSelectors": [
                {"matchLabels": {format!("{GROUP}/aggregate-to-{name}"): "true"}},
            ]},
        });
        if let Some(other) = part_of {
            object["metadata"]["labels"][format!("{GROUP}/aggregate-to-{other}")] = json!("true");
        }
        self.put("clusterroles", "ClusterRole", "", name, object);
    }

    fn bind(&self, role: &str, subjects: &[(&str, &str)]) {
        let subjects: Vec<Value> =
            subjects.iter().map(|(kind, name)| json!({"kind": kind, "name": name, "apiGroup": GROUP})).collect();
        let object = json!({"subjects": subjects, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}});
        self.put("clusterrolebindings", "ClusterRoleBinding", "", role, object);
    }
}

/// Writes them into an empty store.
pub(crate) fn bootstrap(core: &Arc<Core>) {
    let b = Bootstrap { core };
    b.role("cluster-admin", &[rule(&["*"], &["*"], &["*"]), json!({"nonResourceURLs": ["*"], "verbs": ["*"]})]);
    b.bind("cluster-admin", &[("Group", crate::identity::MASTERS)]);
    everybody(&b);
    users(&b);
    components(&b);
    aggregate(core);
}

fn everybody(b: &Bootstrap<'_>) {
    const HEALTH: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];
    const DISCOVERY: &[&str] = &[
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    b.role(
        "system:basic-user",
        &[
            rule(&["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
            rule(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
        ],
    );
    b.bind("system:basic-user", &[("Group", "system:authenticated")]);
    b.role("system:discovery", &[paths(DISCOVERY)]);
    b.bind("system:discovery", &[("Group", "system:authenticated")]);
    b.role("system:public-info-viewer", &[paths(HEALTH)]);
    b.bind("system:public-info-viewer", &[("Group", "system:authenticated"), ("Group", "system:unauthenticated")]);
    b.role("system:service-account-issuer-discovery", &[paths(&["/.well-known", "/.well-known/*", "/openid/v1/jwks"])]);
}

/// admin contains edit contains view; other roles join them by label.
fn users(b: &Bootstrap<'_>) {
    b.aggregated("admin", None);
    b.aggregated("edit", Some("admin"));
    b.aggregated("view", Some("edit"));
    let workloads: &[&str] = &[
        "controllerrevisions",
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
        "statefulsets",
        "statefulsets/scale",
        "statefulsets/status",
    ];
    let core: &[&str] = &[
        "configmaps",
        "endpoints",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    let looks: &[&str] = &[
        "bindings",
        "events",
        "limitranges",
        "namespaces",
        "namespaces/status",
        "pods/log",
        "pods/status",
        "resourcequotas",
        "resourcequotas/status",
    ];
    let budgets: &[&str] = &["poddisruptionbudgets", "poddisruptionbudgets/status"];
    let jobs: &[&str] = &["cronjobs", "cronjobs/status", "jobs", "jobs/status"];
    b.part(
        "system:aggregate-to-view",
        "view",
        &[
            rule(&[""], core, READ),
            rule(&[""], looks, READ),
            rule(&["apps"], workloads, READ),
            rule(&["batch"], jobs, READ),
            rule(&["policy"], budgets, READ),
            rule(&["discovery.k8s.io"], &["endpointslices"], READ),
            rule(&["events.k8s.io"], &["events"], READ),
        ],
    );
    b.part(
        "system:aggregate-to-edit",
        "edit",
        &[
            rule(
                &[""],
                &["secrets", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"],
                READ,
            ),
            rule(&[""], &["serviceaccounts"], &["impersonate"]),
            rule(&[""], &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"], WRITE),
            rule(&[""], &["pods/eviction", "serviceaccounts/token"], &["create"]),
            rule(&[""], &["configmaps", "endpoints", "persistentvolumeclaims", "secrets", "serviceaccounts"], WRITE),
            rule(&[""], &["services", "services/proxy", "events"], WRITE),
            rule(&["apps"], workloads, WRITE),
            rule(&["batch"], &["cronjobs", "jobs"], WRITE),
            rule(&["policy"], &["poddisruptionbudgets"], WRITE),
            rule(&["coordination.k8s.io"], &["leases"], ALL),
        ],
    );
    b.part(
        "system:aggregate-to-admin",
        "admin",
        &[
            rule(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
            rule(&[GROUP], &["rolebindings", "roles"], ALL),
        ],
    );
}

fn components(b: &Bootstrap<'_>) {
    b.role(
        "system:auth-delegator",
        &[
            rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
            rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
        ],
    );
    let events = || rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]);
    let reviews = || {
        [
            rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
            rule(&["authorization.k8s.io"], &["subjectaccessreviews", "localsubjectaccessreviews"], &["create"]),
        ]
    };
    let [tokens, access] = reviews();
    b.role(
        "system:node",
        &[
            tokens,
            access,
            events(),
            rule(&[""], &["services", "endpoints", "namespaces"], READ),
            rule(&["discovery.k8s.io"], &["endpointslices"], READ),
            rule(&[""], &["nodes"], &["create", "get", "list", "watch", "patch", "update", "delete"]),
            rule(&[""], &["nodes/status", "pods/status"], &["patch", "update"]),
            rule(&[""], &["pods"], &["get", "list", "watch", "create", "delete"]),
            rule(&[""], &["pods/eviction", "serviceaccounts/token"], &["create"]),
            rule(&[""], &["configmaps", "secrets", "serviceaccounts", "persistentvolumes"], READ),
            rule(
                &[""],
                &["persistentvolumeclaims", "persistentvolumeclaims/status"],
                &["get", "list", "watch", "patch", "update"],
            ),
            rule(
                &["coordination.k8s.io"],
                &["leases"],
                &["create", "delete", "get", "list", "watch", "patch", "update"],
            ),
            rule(&["storage.k8s.io", "node.k8s.io"], &["*"], READ),
        ],
    );
    b.bind("system:node", &[("Group", "system:nodes")]);
    let [tokens, access] = reviews();
    b.role(
        "system:kube-scheduler",
        &[
            tokens,
            access,
            events(),
            rule(&["coordination.k8s.io"], &["leases"], &["create", "get", "list", "watch", "update", "patch"]),
            rule(&[""], &["nodes", "namespaces", "services", "persistentvolumeclaims", "persistentvolumes"], READ),
            rule(&[""], &["pods"], &["delete", "get", "list", "watch"]),
            rule(&[""], &["bindings", "pods/binding"], &["create"]),
            rule(&[""], &["pods/status"], &["patch", "update"]),
            rule(&["apps"], &["replicasets", "statefulsets"], READ),
            rule(&["policy"], &["poddisruptionbudgets"], READ),
            rule(&["scheduling.k8s.io", "storage.k8s.io"], &["*"], READ),
        ],
    );
    b.bind("system:kube-scheduler", &[("User", "system:kube-scheduler")]);
    controller_manager(b, &events, reviews());
    extension_reader(b);
}

/// The built-in controllers run under one identity here, so its role is the sum of theirs.
fn controller_manager(b: &Bootstrap<'_>, events: &dyn Fn() -> Value, reviews: [Value; 2]) {
    let [tokens, access] = reviews;
    let scaled: &[&str] = &["deployments", "replicasets", "daemonsets", "statefulsets", "controllerrevisions"];
    let statuses: &[&str] = &[
        "deployments/status",
        "deployments/finalizers",
        "replicasets/status",
        "replicasets/finalizers",
        "daemonsets/status",
        "daemonsets/finalizers",
        "statefulsets/status",
        "statefulsets/finalizers",
    ];
    b.role(
        "system:kube-controller-manager",
        &[
            tokens,
            access,
            events(),
            // The collector of garbage and the namespace controller follow and delete whatever there is.
            rule(&["*"], &["*"], &["get", "list", "watch", "delete", "deletecollection", "patch", "update"]),
            rule(&["coordination.k8s.io"], &["leases"], ALL),
            rule(&["apps"], scaled, ALL),
            rule(&["apps"], statuses, &["get", "patch", "update"]),
            rule(&["batch"], &["jobs", "jobs/status", "jobs/finalizers", "cronjobs", "cronjobs/status"], ALL),
            rule(&[""], &["pods", "pods/status", "pods/finalizers"], ALL),
            rule(&[""], &["pods/eviction", "pods/binding", "serviceaccounts/token"], &["create"]),
            rule(&[""], &["configmaps", "endpoints", "secrets", "serviceaccounts", "nodes", "nodes/status"], ALL),
            rule(
                &[""],
                &["namespaces", "namespaces/status", "namespaces/finalize"],
                &["get", "list", "watch", "patch", "update", "delete"],
            ),
            rule(&["discovery.k8s.io"], &["endpointslices"], ALL),
            rule(&["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"], ALL),
            json!({"nonResourceURLs": ["*"], "verbs": ["get"]}),
        ],
    );
    b.bind("system:kube-controller-manager", &[("User", "system:kube-controller-manager")]);
}

/// Extension API servers read the client CA through this role.
fn extension_reader(b: &Bootstrap<'_>) {
    let mut read = rule(&[""], &["configmaps"], READ);
    read["resourceNames"] = json!(["extension-apiserver-authentication"]);
    b.put("roles", "Role", "kube-system", "extension-apiserver-authentication-reader", json!({"rules": [read]}));
}

/// Writes the rules of aggregated roles: the union of the roles they select, in order of name.
pub(crate) fn aggregate(core: &Arc<Core>) {
    let key = resource_key(GROUP, "clusterroles");
    for _ in 0..AGGREGATION_ROUNDS {
        let roles = core.store.objects(&key, "");
        let mut changed = false;
        for role in &roles {
            let Some(selectors) = role.value["aggregationRule"]["clusterRoleSelectors"].as_array() else { continue };
            let selectors: Vec<LabelSelector> =
                selectors.iter().filter_map(|selector| LabelSelector::from_json(selector).ok()).collect();
            let mut rules: Vec<Value> = Vec::new();
            for other in &roles {
                let own = metadata_text(&other.value, "name") == metadata_text(&role.value, "name");
                if own || !selectors.iter().any(|selector| selector.matches_object(&other.value)) {
                    continue;
                }
                for rule in other.value["rules"].as_array().into_iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            if role.value["rules"] == json!(rules) {
                continue;
            }
            let mut new = role.value.clone();
            new["rules"] = json!(rules);
            let place = Name::new("", metadata_text(&new, "name"));
            // A lost race is another write to a role, which aggregates again.
            changed |= core.store.update(&key, &place, role.revision, new).is_ok();
        }
        if !changed {
            return;
        }
    }
}
