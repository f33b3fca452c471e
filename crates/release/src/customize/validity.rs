//! Whether a changed object is still one that a server takes and the operator can go on with.

use apimachinery::builtin;
use apimachinery::managed::{self, Manager};
use kubevirt_api::names::{annotation, label};
use serde_json::Value;

use super::Place;
use crate::kinds::Kind;

/// How many faults of an object are told; the rest usually follows from the first.
const TOLD: usize = 3;

/// The first field that differs and is the operator's: what the object is called, how it is recognized, and how the
/// roll-out of nodes is steered.
pub(super) fn reserved(kind: Kind, before: &Value, after: &Value) -> Option<String> {
    let whole = ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/status"];
    let own_annotations = [
        annotation::STRATEGY_VERSION,
        annotation::STRATEGY_REGISTRY,
        annotation::STRATEGY_IDENTIFIER,
        annotation::GENERATION,
        annotation::CUSTOMIZER,
        annotation::CERTIFICATE_DURATION,
    ];
    let of_kind: &[&str] = match kind {
        Kind::Deployment => &["/spec/selector"],
        Kind::DaemonSet => &["/spec/selector", "/spec/updateStrategy"],
        Kind::Secret => &["/type", "/data", "/stringData", "/immutable"],
        _ => &[],
    };
    let key = |map: &str, name: &str| format!("{map}/{}", name.replace('~', "~0").replace('/', "~1"));
    let mut pointers: Vec<String> = whole.iter().chain(of_kind).map(ToString::to_string).collect();
    for metadata in ["/metadata", "/spec/template/metadata"] {
        pointers.push(key(&format!("{metadata}/labels"), label::MANAGED_BY));
        pointers.extend(own_annotations.iter().map(|name| key(&format!("{metadata}/annotations"), name)));
    }
    // What the server alone writes.
    pointers.extend(["uid", "resourceVersion", "generation", "managedFields"].map(|name| format!("/metadata/{name}")));
    let changed = pointers.into_iter().find(|pointer| before.pointer(pointer) != after.pointer(pointer))?;
    Some(changed.trim_start_matches('/').replace('/', ".").replace("~1", "/"))
}

/// The change after which the last state is invalid, and what is wrong with it. Faults that the object had before any
/// change are nobody's. A fault in between that a later change mends is none.
pub(super) fn blame<'a>(kind: Kind, base: &Value, states: &[(&'a Place, Value)]) -> Option<(&'a Place, Vec<String>)> {
    let (last_place, last) = states.last()?;
    let mut left = faults(kind, last);
    if left.is_empty() {
        return None;
    }
    let inherited = faults(kind, base);
    left.retain(|fault| !inherited.contains(fault));
    let first = left.first()?.clone();
    left.truncate(TOLD);
    let mut place = *last_place;
    for (earlier, state) in states.iter().rev().skip(1) {
        if !faults(kind, state).contains(&first) {
            break;
        }
        place = earlier;
    }
    Some((place, left))
}

/// What a server would say against an object, by the rules of its kind.
fn faults(kind: Kind, object: &Value) -> Vec<String> {
    let (api_version, kind) = (kind.api_version(), kind.name());
    let Some(schema) = builtin::schema(&api_version, kind) else { return vec![] };
    let unknown = schema.unknown_fields(object).into_iter().map(|field| format!("{field}: unknown field"));
    let undecodable = schema.undecodable(object).into_iter().map(|fault| fault.to_string());
    let found: Vec<String> = unknown.chain(undecodable).collect();
    if !found.is_empty() {
        return found;
    }
    let manager = Manager {
        name: annotation::CUSTOMIZER.into(),
        api_version: api_version.clone(),
        subresource: String::new(),
        time: None,
    };
    // Two items of one name in a list cannot be applied.
    let mut stored = match managed::apply(schema, None, object, &manager, true) {
        Ok(stored) => stored,
        Err(error) => return vec![error.to_string()],
    };
    builtin::default(&api_version, kind, &mut stored);
    builtin::validate(&api_version, kind, &stored, None).iter().map(ToString::to_string).collect()
}
