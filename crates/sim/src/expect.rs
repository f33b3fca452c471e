//! What an administrator who has read the documentation expects to see after each act, in so many words.
//!
//! Comparing runs finds what trouble changes. What is wrong in every run, that without trouble too, is found here: no
//! statement is taken from the operator, each is what its users were promised.

use std::collections::BTreeSet;

use kubevirt_release::Kind;
use nanokube::{Nanokube, StoredObject};
use serde_json::{Value, json};

use crate::invariants::{NAMESPACE, certificates, is_managed, text};
use crate::story::Act;
use crate::upgrade;
use crate::world::World;

/// The replicas that [`crate::story`] asks for.
const REPLICAS: i64 = 3;

/// The longest life of a server's certificate, in seconds, that it asks for.
const SERVER: i64 = 12 * 3600;

/// What the expectations are about.
struct Look<'a> {
    api: &'a Nanokube,
    wrong: Vec<String>,
}

impl Look<'_> {
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    fn object(&mut self, kind: Kind, name: &str) -> Value {
        let namespace = if kind.namespaced() { NAMESPACE } else { "" };
        let found = self.api.stored(kind.group(), kind.plural(), namespace, name).map(|object| Value::clone(&object));
        self.expect(found.is_some(), || format!("{kind} {name} does not exist"));
        found.unwrap_or_default()
    }

    fn managed(&self, kind: Kind) -> Vec<StoredObject> {
        self.api.stored_all(kind.group(), kind.plural()).into_iter().filter(|object| is_managed(object)).collect()
    }
}

/// What is not as promised once the act is done.
pub(crate) fn wrong(act: Act, world: &World) -> Vec<String> {
    let mut look = Look { api: &world.cluster.api, wrong: Vec::new() };
    match act {
        Act::Configure => {
            installed(&mut look);
            configured(&mut look, true);
            for (secret, pem) in certificates(look.api) {
                let Ok(certificate) = pem.parse_x509() else { continue };
                let left = certificate.validity().not_after.timestamp() - world.clock.now().as_second();
                let is_short = certificate.is_ca() || left <= SERVER;
                look.expect(is_short, || format!("the certificate in {secret} lives for another {left} s"));
            }
        }
        Act::Install
        | Act::Revert
        | Act::Restart
        | Act::HandOver
        | Act::NewOperator
        | Act::Upgrade
        | Act::Undo(_)
        | Act::Again
        | Act::UpgradeAtRenewal(_)
        | Act::UpgradeBeside(_) => {
            installed(&mut look);
            configured(&mut look, false);
        }
        Act::Edit | Act::Expire | Act::Rotate => installed(&mut look),
        Act::Uninstall | Act::Leave(_) => uninstalled(&mut look, &world.before()),
    }
    look.wrong
}

fn is_stamped(annotations: &Value) -> bool {
    annotations.get("kubevirt.io/install-strategy-version").is_some()
}

/// Whatever the settings: pods of a component may be evicted one by one, but not all, and each API has somebody to answer.
fn installed(look: &mut Look<'_>) {
    for (kind, name) in
        [(Kind::Deployment, "virt-api"), (Kind::Deployment, "virt-controller"), (Kind::DaemonSet, "virt-handler")]
    {
        let workload = look.object(kind, name);
        let account = text(&workload, "/spec/template/spec/serviceAccountName").to_owned();
        look.object(Kind::ServiceAccount, &account);
        let wanted = workload.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        if kind == Kind::Deployment && wanted > 1 {
            let budget = look.object(Kind::PodDisruptionBudget, &format!("{name}-pdb"));
            let number = |name: &str| budget["status"][name].as_i64().unwrap_or_default();
            look.expect(number("expectedPods") == wanted, || format!("the budget of {name} is not about its pods"));
            let is_some_kept = number("desiredHealthy") >= 1;
            look.expect(is_some_kept, || format!("all pods of {name} may be evicted at once"));
            look.expect(number("disruptionsAllowed") >= 1, || format!("no pod of {name} may be evicted"));
        }
    }
    let mut uncalled = Vec::new();
    for kind in [Kind::ValidatingWebhookConfiguration, Kind::MutatingWebhookConfiguration, Kind::APIService] {
        let registrations = look.managed(kind);
        look.expect(kind == Kind::MutatingWebhookConfiguration || !registrations.is_empty(), || {
            format!("there is no {kind}")
        });
        for registration in registrations {
            let webhooks = registration.pointer("/webhooks").and_then(Value::as_array).into_iter().flatten();
            let callers: Vec<&Value> = webhooks.filter_map(|webhook| webhook.get("clientConfig")).collect();
            let callers = if callers.is_empty() { registration.get("spec").into_iter().collect() } else { callers };
            for caller in callers {
                let service = text(caller, "/service/name");
                let is_there = look.api.stored("", "services", text(caller, "/service/namespace"), service).is_some();
                if !is_there || text(caller, "/caBundle").is_empty() {
                    uncalled.push(format!("{kind} {}", text(&registration, "/metadata/name")));
                }
            }
        }
    }
    look.expect(uncalled.is_empty(), || format!("cannot be called as registered: {}", uncalled.join(", ")));
}

/// The settings of the story are followed, or are gone without a trace.
fn configured(look: &mut Look<'_>, are_set: bool) {
    let so = if are_set { "does not follow" } else { "still follows" };
    let (controller, api) =
        (look.object(Kind::Deployment, "virt-controller"), look.object(Kind::Deployment, "virt-api"));
    let handler = look.object(Kind::DaemonSet, "virt-handler");
    if are_set {
        for (name, workload) in [("virt-controller", &controller), ("virt-api", &api)] {
            let replicas = workload["spec"]["replicas"].as_i64().unwrap_or_default();
            look.expect(replicas == REPLICAS, || format!("{name} has {replicas} replicas, not {REPLICAS}"));
        }
    }
    let pod = |workload: &Value| workload.pointer("/spec/template/spec").cloned().unwrap_or_default();
    let annotation = text(&controller, "/spec/template/metadata/annotations/example.com~1sim") == "patched";
    look.expect(annotation == are_set, || format!("virt-controller {so} its strategic patch"));
    let resources = pod(&api).pointer("/containers/0/resources/requests").is_some();
    look.expect(resources != are_set, || format!("virt-api {so} its JSON patch"));
    let arguments = pod(&handler)["containers"].to_string();
    look.expect(arguments.contains("--log-format") == are_set, || format!("virt-handler {so} the flag"));
    let tolerations = pod(&handler)["tolerations"].as_array().cloned().unwrap_or_default();
    let tolerates = tolerations.contains(&json!({"key": "storage", "operator": "Exists"}));
    look.expect(tolerates == are_set, || format!("virt-handler {so} the placement"));
    let mark = |object: &Value| text(object, "/metadata/labels/example.com~1sim") == "patched";
    let services: Vec<bool> = look.managed(Kind::Service).iter().map(|service| mark(service)).collect();
    look.expect(services.iter().all(|is| *is == are_set), || format!("a Service {so} the patch of all Services"));
    let secret = look.object(Kind::Secret, "kubevirt-virt-handler-certs");
    look.expect(mark(&secret) == are_set, || format!("the Secret of virt-handler {so} its patch"));
    for kind in [Kind::Deployment, Kind::DaemonSet, Kind::Service, Kind::ServiceAccount, Kind::ClusterRole] {
        for object in look.managed(kind) {
            let is = text(&object, "/metadata/labels/app.kubernetes.io~1part-of") == "simulated"
                && text(&object, "/metadata/labels/app.kubernetes.io~1version") == "1.0";
            look.expect(is == are_set, || {
                format!("{kind} {} {so} the product's name", text(&object, "/metadata/name"))
            });
        }
    }
    let roles = look.managed(Kind::ClusterRole);
    // The operator's own role comes with its manifest.
    let of_suite = roles.iter().filter(|role| role.pointer("/metadata/annotations").is_some_and(is_stamped));
    let aggregated = of_suite.into_iter().any(|role| {
        let labels = role.pointer("/metadata/labels").and_then(Value::as_object);
        let mut labels = labels.into_iter().flatten();
        labels.any(|(name, value)| name.starts_with("rbac.authorization.k8s.io/aggregate-to-") && value == "true")
    });
    look.expect(aggregated != are_set, || format!("aggregation of roles {so} the strategy"));
}

/// Nothing that was not there before, whoever made it and whatever it is labelled as, and no label on any node.
fn uninstalled(look: &mut Look<'_>, before: &BTreeSet<String>) {
    // What is told as under way would be looked for in vain.
    for record in look.api.stored_all(Kind::UpgradePlan.group(), Kind::UpgradePlan.plural()) {
        let (name, state) = (text(&record, "/metadata/name"), text(&record, "/status/state"));
        look.expect(upgrade::is_over(&record), || format!("nothing is left, and UpgradePlan {name} says {state}"));
    }
    let left: Vec<String> = present(look.api).into_iter().filter(|key| !before.contains(key)).collect();
    look.expect(left.is_empty(), || format!("left behind: {}", left.join(", ")));
    for node in look.api.stored_all("", "nodes") {
        for field in ["labels", "annotations"] {
            let names = node.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
            let ours: Vec<&String> =
                names.into_iter().flatten().map(|(name, _)| name).filter(|name| name.contains("kubevirt.io")).collect();
            look.expect(ours.is_empty(), || {
                format!("{field} left on node {}: {ours:?}", text(&node, "/metadata/name"))
            });
        }
    }
}

/// Every object there is, but for what comes and goes with time: events, what belongs to pods, and the history of changes
/// of version, which belongs to the operator and not to what it installed.
pub(crate) fn present(api: &Nanokube) -> BTreeSet<String> {
    const PASSING: [&str; 8] =
        ["ControllerRevision", "EndpointSlice", "Endpoints", "Event", "Lease", "Pod", "ReplicaSet", "UpgradePlan"];
    let all = api.objects();
    let lasting = all.iter().filter(|object| {
        // The API server publishes its authorities here for aggregated servers.
        let is_servers = text(object, "/metadata/name") == "extension-apiserver-authentication";
        !PASSING.contains(&text(object, "/kind")) && !is_servers
    });
    lasting
        .map(|object| {
            let of = |pointer| text(object, pointer);
            format!("{} {}/{}", of("/kind"), of("/metadata/namespace"), of("/metadata/name"))
        })
        .collect()
}
