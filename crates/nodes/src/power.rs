//! The mains of simulated nodes: who drives a simulation cuts a node's power and restores it.
//!
//! A node without power is gone at once: its pods' code is dropped, its lease is not renewed, nothing is said to the
//! API. What the API holds of it stays as it was. With power again it boots: it says that it is ready, and runs the pods
//! that are still bound to it, each container counted as restarted.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// The switches of all nodes; every node has power until it is cut. Clones are the same switches.
#[derive(Clone, Debug)]
pub struct Power(Arc<watch::Sender<BTreeSet<String>>>);

impl Default for Power {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }
}

impl Power {
    /// Cuts a node's power. A name that is no node's changes nothing.
    pub fn cut(&self, node: &str) {
        self.0.send_if_modified(|dark| dark.insert(node.to_owned()));
    }

    /// Restores a node's power.
    pub fn restore(&self, node: &str) {
        self.0.send_if_modified(|dark| dark.remove(node));
    }

    /// Whether a node has power.
    pub fn is_on(&self, node: &str) -> bool {
        !self.0.borrow().contains(node)
    }

    /// The nodes without power, now and after each change.
    pub(crate) fn dark(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.subscribe()
    }
}
