//! Everything that a write would change, for a person who wants to know beforehand.

use std::ops::ControlFlow;

use serde::Serialize;
use serde_json::Value;

use super::{DriftKind, adoption, contained, leftovers};

/// A place at which a write would change an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where, e.g. `spec.template.spec.containers[0].image`.
    pub path: String,
    /// What is there; nothing when the field is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What would be there; nothing when the field goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// All places at which `live` differs from `wanted`, by the same rules as [`super::drift()`], which stops at the first. A list whose
/// length changes is one place.
pub(crate) fn differences(wanted: &Value, live: &Value, ignored: &[&str]) -> Vec<Difference> {
    let mut found: Vec<(String, Difference)> = Vec::new();
    // What was found is made as it is wanted, until nothing is found any more.
    let mut made = live.clone();
    while let Some(drift) = contained(wanted, &made, ignored, &mut super::Path::default()) {
        let mut pointer = drift.pointer.as_str();
        if found.iter().any(|(known, _)| known == pointer) {
            // Lists are not always compared element by element as they stand (names of ports): then the list as a whole.
            let list = ancestors(pointer).find(|above| wanted.pointer(above).is_some_and(Value::is_array));
            match list.filter(|list| wanted.pointer(list) != made.pointer(list)) {
                Some(list) => pointer = list,
                None => break,
            }
        } else {
            let (from, to) = (live.pointer(pointer).cloned(), wanted.pointer(pointer).cloned());
            found.push((pointer.to_owned(), Difference { path: drift.path, from, to }));
        }
        if !set(&mut made, pointer, wanted.pointer(pointer).cloned()) {
            break;
        }
    }
    let mut tell = |drift: super::Drift| {
        debug_assert_eq!(drift.kind, DriftKind::NoLongerWanted);
        let (from, to) = (live.pointer(&drift.pointer).cloned(), wanted.pointer(&drift.pointer).cloned());
        // An element that goes was seen as another length, and a field of a whole map, too.
        let is_known = |known: &str| drift.pointer == known || ancestors(&drift.pointer).any(|above| above == known);
        if from.is_some() && !found.iter().any(|(known, _)| is_known(known)) {
            found.push((drift.pointer, Difference { path: drift.path, from, to }));
        }
        ControlFlow::Continue(())
    };
    let _ = leftovers(wanted, live, ignored, &mut tell);
    let mut found: Vec<Difference> = found.into_iter().map(|(_, difference)| difference).collect();
    if adoption::is_due(live) {
        let to = Some(Value::from("taken over from an operator that does not apply"));
        found.push(Difference { path: adoption::drift().path, from: None, to });
    }
    found
}

/// The places above one, nearest first.
fn ancestors(pointer: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(pointer.rsplit_once('/').map(|(above, _)| above), |below| {
        below.rsplit_once('/').map(|(above, _)| above)
    })
}

/// Puts a value at a place, or takes away what is there. False when there is no such place.
fn set(value: &mut Value, pointer: &str, to: Option<Value>) -> bool {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        *value = to.unwrap_or_default();
        return true;
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    match (value.pointer_mut(parent), to) {
        (Some(Value::Object(map)), Some(to)) => _ = map.insert(last, to),
        (Some(Value::Object(map)), None) => return map.remove(&last).is_some(),
        (Some(Value::Array(list)), Some(to)) => match last.parse().ok().and_then(|index: usize| list.get_mut(index)) {
            Some(place) => *place = to,
            None => return false,
        },
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(wanted: &Value, live: &Value) -> Vec<String> {
        let text = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
        let line = |it: &Difference| format!("{}: {} -> {}", it.path, text(&it.from), text(&it.to));
        differences(wanted, live, &[]).iter().map(line).collect()
    }

    #[test]
    fn every_place_is_told_once() {
        let wanted = json!({"metadata": {"name": "a", "labels": {"app": "b", "tier": "new"}},
            "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "c", "image": "x:2"}]}},
                "ports": [{"port": 443}]}});
        let live = json!({"metadata": {"name": "a", "uid": "u", "labels": {"app": "a", "else": "kept"}},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "c", "image": "x:1", "tty": false}]}},
                "ports": [{"port": 443}, {"port": 80}]}});
        let expected = [
            r#"metadata.labels.app: "a" -> "b""#,
            r#"metadata.labels.tier: - -> "new""#,
            r#"spec.ports: [{"port":443},{"port":80}] -> [{"port":443}]"#,
            "spec.replicas: 2 -> 3",
            r#"spec.template.spec.containers[0].image: "x:1" -> "x:2""#,
        ];
        assert_eq!(texts(&wanted, &live), expected);
    }

    #[test]
    fn what_we_no_longer_want_is_told_by_the_objects_own_record() {
        let record = json!([{"manager": super::super::FIELD_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:a": {}, "f:b": {}, "f:gone": {},
                "f:list": {"k:{\"name\":\"x\"}": {".": {}, "f:name": {}}}}}}]);
        let live = json!({"metadata": {"managedFields": record},
            "spec": {"a": 1, "b": {"c": 2}, "list": [{"name": "x"}]}});
        assert_eq!(
            texts(&json!({"spec": {"list": []}}), &live),
            [r#"spec.list: [{"name":"x"}] -> []"#, "spec.a: 1 -> -", r#"spec.b: {"c":2} -> -"#]
        );
        assert_eq!(texts(&json!({"spec": {"a": 1, "b": {"c": 2}, "list": [{"name": "x"}]}}), &live), [""; 0]);
    }

    #[test]
    fn a_port_with_two_names_is_told_and_no_more_than_that() {
        let port = |name: &str| json!({"name": name, "containerPort": 8443, "protocol": "TCP"});
        let of = |ports: Value| json!({"spec": {"containers": [{"name": "a", "ports": ports}]}});
        let (live, mut wanted) = (of(json!([port("virt-api"), port("metrics")])), of(json!([port("metrics")])));
        assert_eq!(texts(&wanted, &live), [""; 0]);
        wanted["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(1);
        let told = texts(&wanted, &live);
        assert_eq!(told, ["spec.containers[0].ports[0].hostPort: - -> 1"]);
    }

    #[test]
    fn an_object_as_it_is_wanted_has_no_difference() {
        let wanted = json!({"spec": {"a/b": {"c~d": [1, 2]}}});
        assert_eq!(differences(&wanted, &wanted, &[]), []);
        assert_eq!(texts(&json!({"spec": {"a/b": {"c~d": [1, 3]}}}), &wanted), ["spec.a/b.c~d[1]: 2 -> 3"]);
    }
}
