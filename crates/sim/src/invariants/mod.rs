//! What must hold at every transition of the store, whatever went wrong before.
//!
//! An invariant sees each commit with its writer, and the true state. It is independent of the operator's code: it knows
//! names that users know, and nothing of how the operator decides.

mod bundles;
mod changes;
mod closed;
mod deletions;
mod finalizer;
mod generations;
mod grants;
mod order;
mod phases;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use bundles::certificates;
use jiff::Timestamp;
use nanokube::{Nanokube, Transition};
use serde_json::Value;

/// Where the suite lives in every world.
pub(crate) const NAMESPACE: &str = "kubevirt";

/// The service account of the operator.
pub(crate) const OPERATOR: &str = "system:serviceaccount:kubevirt:kubevirt-operator";

/// Who made a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    pub user: String,
    /// The pod that the token was made for.
    pub pod: Option<String>,
}

impl Writer {
    pub(crate) fn is_operator(&self) -> bool {
        self.user == OPERATOR
    }
}

/// One commit, with all that a rule may look at.
pub(crate) struct Sight<'a> {
    pub(crate) transition: &'a Transition,
    /// None for what the server does by itself, such as the last step of a deletion.
    pub(crate) writer: Option<&'a Writer>,
    /// The body of the request that led to it; empty without one.
    pub(crate) sent: &'a [u8],
    pub(crate) api: &'a Nanokube,
    /// True time; a component's clock may be off.
    pub(crate) now: Timestamp,
}

impl Sight<'_> {
    pub(crate) fn is_of(&self, resource: &str) -> bool {
        &*self.transition.resource == resource
    }

    pub(crate) fn by_operator(&self) -> bool {
        self.writer.is_some_and(Writer::is_operator)
    }

    /// The custom resource that is followed, in its true state.
    pub(crate) fn kubevirt(&self) -> Option<Value> {
        let all = self.api.stored_all("kubevirt.io", "kubevirts");
        all.into_iter()
            .find(|cr| cr.pointer("/metadata/namespace").and_then(Value::as_str) == Some(NAMESPACE))
            .map(|cr| Value::clone(&cr))
    }
}

/// What a rule says of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    NotConcerned,
    Holds,
    Broken(String),
}

impl Verdict {
    fn of(holds: bool, why_not: impl FnOnce() -> String) -> Self {
        if holds { Self::Holds } else { Self::Broken(why_not()) }
    }
}

/// A rule.
pub(crate) trait Invariant: Send {
    /// Its name in the catalogue of checks.
    fn id(&self) -> &'static str;

    /// What it states, in one sentence.
    fn states(&self) -> &'static str;

    fn check(&mut self, sight: &Sight<'_>) -> Verdict;
}

/// Every invariant, fresh.
pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(deletions::Deletions),
        Box::new(generations::Generations::default()),
        Box::new(phases::Phases),
        Box::new(finalizer::Finalizer),
        Box::new(bundles::Bundles::default()),
        Box::new(writer::OnlyTheLeader::default()),
        Box::new(order::Order),
        Box::new(changes::InOrder),
        Box::new(changes::History),
        Box::new(grants::Grants::default()),
        Box::new(closed::Closed),
    ]
}

/// Name and statement of every invariant.
pub fn statements() -> Vec<(&'static str, &'static str)> {
    all().iter().map(|rule| (rule.id(), rule.states())).collect()
}

/// A text of an object.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Whether an object is labelled as the operator's.
pub(crate) fn is_managed(object: &Value) -> bool {
    matches!(text(object, "/metadata/labels/app.kubernetes.io~1managed-by"), "virt-operator" | "kubevirt-operator")
}
