//! The rules by which virt-api judges changes. Pure. A kind whose rules are still to be written is not judged at all: its
//! webhook refuses, and no release registers it.

use kubevirt_runtime::admission::{Review, Verdict};
use serde_json::Value;

/// The accounts of the suite that drive guests.
const ACCOUNTS: [&str; 3] = ["kubevirt-apiserver", "kubevirt-controller", "kubevirt-handler"];

/// Labels of an instance by which the suite finds its way; users may not set them.
const RESERVED: [&str; 6] = [
    "kubevirt.io/created-by",
    "kubevirt.io/migrationJobUID",
    "kubevirt.io/nodeName",
    "kubevirt.io/migrationTargetNodeName",
    "kubevirt.io/schedulable",
    "kubevirt.io/install-strategy",
];

/// The label of a migration that names its instance.
const INSTANCE: &str = "kubevirt.io/vmi-name";

/// Judges a review sent to `path`; `None` where no rules are written.
pub(crate) fn judge(path: &str, namespace: &str, review: &Review) -> Option<Verdict> {
    match path {
        "/virtualmachineinstances-validate-update" => Some(instance_update(namespace, review)),
        "/migration-validate-update" => Some(migration_update(review)),
        _ => None,
    }
}

fn invalid(message: String) -> Verdict {
    Verdict::Deny { code: 422, reason: "Invalid", message }
}

/// Whether a user is one of the accounts of the suite that drive guests.
pub(crate) fn is_own(namespace: &str, user: &str) -> bool {
    ACCOUNTS.iter().any(|account| user == format!("system:serviceaccount:{namespace}:{account}"))
}

fn instance_update(namespace: &str, review: &Review) -> Verdict {
    if is_own(namespace, &review.user) {
        return Verdict::allow();
    }
    if review.object.get("spec") != review.old_object.get("spec") {
        return invalid(
            "update of VMI object is restricted: its spec is changed through the VM or a subresource".into(),
        );
    }
    let changed: Vec<&str> = RESERVED.into_iter().filter(|name| changes_label(review, name)).collect();
    if changed.is_empty() {
        return Verdict::allow();
    }
    invalid(format!("update of VMI object is restricted: the labels {} belong to the suite", changed.join(", ")))
}

fn migration_update(review: &Review) -> Verdict {
    if review.object.get("spec") != review.old_object.get("spec") {
        return invalid("update of Migration object's spec is restricted: delete it and create another one".into());
    }
    if changes_label(review, INSTANCE) {
        return invalid(format!("update of Migration object's label {INSTANCE} is restricted"));
    }
    Verdict::allow()
}

fn changes_label(review: &Review, name: &str) -> bool {
    let of = |object: &Value| object.pointer("/metadata/labels").and_then(|labels| labels.get(name)).cloned();
    of(&review.object) != of(&review.old_object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(path: &str, user: &str, old: Value, new: Value) -> String {
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": "UPDATE", "resource": {"group": "kubevirt.io", "version": "v1", "resource": "x"},
            "userInfo": {"username": user}, "object": new, "oldObject": old}});
        let review = Review::parse(body.to_string().as_bytes()).expect("a review");
        match judge(path, "kubevirt", &review).expect("rules are written") {
            Verdict::Allow { .. } => "allowed".into(),
            Verdict::Deny { message, .. } => message,
        }
    }

    fn object(spec: u32, label: (&str, &str)) -> Value {
        json!({"metadata": {"labels": {label.0: label.1}}, "spec": {"a": spec}})
    }

    #[test]
    fn an_instance_is_changed_by_the_suite_alone() {
        let path = "/virtualmachineinstances-validate-update";
        let (old, new) = (object(1, ("a", "b")), object(2, ("a", "b")));
        let own = "system:serviceaccount:kubevirt:kubevirt-controller";
        assert_eq!(judged(path, own, old.clone(), new.clone()), "allowed");
        for user in
            ["admin", "system:serviceaccount:elsewhere:kubevirt-controller", "system:serviceaccount:kubevirt:default"]
        {
            let said = judged(path, user, old.clone(), new.clone());
            assert!(said.contains("update of VMI object is restricted"), "{user}: {said}");
        }
        assert_eq!(judged(path, "admin", old.clone(), object(1, ("a", "c"))), "allowed");
        let said = judged(path, "admin", old.clone(), object(1, ("kubevirt.io/nodeName", "n")));
        assert!(said.contains("kubevirt.io/nodeName"), "{said}");
        assert_eq!(judged(path, own, old, object(1, ("kubevirt.io/nodeName", "n"))), "allowed");
    }

    #[test]
    fn a_migration_is_not_redirected() {
        let path = "/migration-validate-update";
        let old = object(1, (INSTANCE, "guest"));
        assert_eq!(judged(path, "admin", old.clone(), old.clone()), "allowed");
        assert!(judged(path, "admin", old.clone(), object(2, (INSTANCE, "guest"))).contains("spec is restricted"));
        assert!(judged(path, "admin", old, object(1, (INSTANCE, "other"))).contains("kubevirt.io/vmi-name"));
    }
}
