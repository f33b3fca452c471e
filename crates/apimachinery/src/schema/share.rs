//! One copy of each schema node. The versions of a definition are often equal, and large types (pod templates, machine
//! specifications) come again and again: sharing keeps a server with many definitions small.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Schema;

/// Nodes by a digest of their own fields and the addresses of their children, which are shared already. Nodes go when
/// the last schema that uses them goes.
static NODES: Mutex<BTreeMap<u64, Vec<Weak<Schema>>>> = Mutex::new(BTreeMap::new());

/// The shared copy of a node whose children are shared.
pub(super) fn share(node: Schema) -> Arc<Schema> {
    let digest = digest(&node);
    let mut nodes = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    let same = nodes.entry(digest).or_default();
    same.retain(|w| w.strong_count() > 0);
    if let Some(found) = same.iter().filter_map(Weak::upgrade).find(|s| alike(s, &node)) {
        return found;
    }
    let made = Arc::new(node);
    same.push(Arc::downgrade(&made));
    made
}

fn digest(node: &Schema) -> u64 {
    let mut hasher = DefaultHasher::new();
    (node.kind as u8, node.list as u8, node.nullable, node.preserve_unknown).hash(&mut hasher);
    for (name, s) in &node.properties {
        (name, Arc::as_ptr(s) as usize).hash(&mut hasher);
    }
    for s in [&node.additional, &node.items].into_iter().flatten() {
        (Arc::as_ptr(s) as usize).hash(&mut hasher);
    }
    node.required.hash(&mut hasher);
    hasher.finish()
}

/// Equality of nodes whose children are shared: the same children are the same addresses.
fn alike(a: &Schema, b: &Schema) -> bool {
    let own = |s: &Schema| Schema { properties: BTreeMap::new(), additional: None, items: None, ..s.clone() };
    let same = |a: &Option<Arc<Schema>>, b: &Option<Arc<Schema>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    a.properties.len() == b.properties.len()
        && a.properties.iter().zip(&b.properties).all(|((m, a), (n, b))| m == n && Arc::ptr_eq(a, b))
        && same(&a.additional, &b.additional)
        && same(&a.items, &b.items)
        && own(a) == own(b)
}
