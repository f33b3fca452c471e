//! Roles and bindings that serve two versions at once.
//!
//! While a suite changes version, pods of both run under the same accounts. A role is therefore first widened to what
//! either version needs and narrowed only when the last old pod is gone.

use serde_json::Value;

/// Fields of roles and bindings that are lists of grants.
const GRANTS: [&str; 2] = ["rules", "subjects"];

/// `new` with every rule and subject of `old` that it lacks behind its own. Everything else is as `new` says.
///
/// The result is stable: widening a widened role again changes nothing, so `old` may be the live object when the old
/// version's own manifest is not known.
pub fn transitional(old: &Value, new: &Value) -> Value {
    let mut merged = new.clone();
    for field in GRANTS {
        let Some(old_grants) = old.get(field).and_then(Value::as_array) else {
            continue;
        };
        let mut grants = new.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let missing: Vec<Value> = old_grants.iter().filter(|grant| !grants.contains(grant)).cloned().collect();
        grants.extend(missing);
        if !grants.is_empty() {
            merged[field] = Value::Array(grants);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::transitional;

    fn role(verbs: &[&[&str]]) -> serde_json::Value {
        let rules: Vec<_> =
            verbs.iter().map(|verbs| json!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs})).collect();
        json!({"kind": "Role", "metadata": {"name": "r"}, "rules": rules})
    }

    #[test]
    fn grants_of_both_versions_are_there_and_new_ones_come_first() {
        let merged = transitional(&role(&[&["get"], &["delete"]]), &role(&[&["list"], &["get"]]));
        assert_eq!(merged, role(&[&["list"], &["get"], &["delete"]]));
    }

    #[test]
    fn widening_again_changes_nothing() {
        let new = role(&[&["list"]]);
        let once = transitional(&role(&[&["get"]]), &new);
        assert_eq!(transitional(&once, &new), once);
    }

    #[test]
    fn a_role_without_grants_stays_without() {
        let bare = json!({"kind": "ClusterRole", "metadata": {"name": "r"}});
        assert_eq!(transitional(&bare, &bare), bare);
    }
}
