//! The order of steps, as data: which step an object belongs to and what each step waits for.

use std::fmt;

use kubevirt_release::{Kind, ObjectKey, Phase, gate, images};
use serde::Serialize;

use self::Begins::{Afterwards, Together};

/// Which way the suite moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing was ever complete: everything at once, nobody depends on an order.
    Install,
    /// The version stays: whatever differs is repaired at once.
    Keep,
    /// To a newer version, or to one whose order is unknown: virt-api, which opens new features, last.
    Update,
    /// To an older or the same version: virt-api first, so that nothing new is asked of older parts.
    Rollback,
}

impl Mode {
    /// The machine-readable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Keep => "keep",
            Self::Update => "update",
            Self::Rollback => "rollback",
        }
    }
}

/// The kinds of step. An object belongs to exactly one (roles and bindings to `RbacShrink`; `RbacOpen` writes them in
/// their wider, transitional form before, and registrations as they are with the trust of the day).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    Gate,
    Crds,
    RbacOpen,
    Configuration,
    Images,
    Handler,
    Controller,
    Others,
    Api,
    Admission,
    Prune,
    RbacShrink,
}

impl Slot {
    /// The machine-readable name, also the one in the oracle's file.
    pub fn code(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Crds => "crds",
            Self::RbacOpen => "rbac-open",
            Self::Configuration => "configuration",
            Self::Images => "images",
            Self::Handler => "virt-handler",
            Self::Controller => "virt-controller",
            Self::Others => "other-workloads",
            Self::Api => "virt-api",
            Self::Admission => "admission",
            Self::Prune => "prune",
            Self::RbacShrink => "rbac-shrink",
        }
    }

    /// What the step does, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Gate => "new kinds stay closed until virt-api serves them",
            Self::Crds => "custom resource definitions",
            Self::RbacOpen => "roles of old and new version together",
            Self::Configuration => "accounts, services, certificates, budgets",
            Self::Images => "images of virt-handler on every node",
            Self::Handler => "virt-handler on every node",
            Self::Controller => "virt-controller",
            Self::Others => "other workloads",
            Self::Api => "virt-api",
            Self::Admission => "webhooks and aggregated APIs",
            Self::Prune => "objects no version needs any more",
            Self::RbacShrink => "roles of the target version only",
        }
    }

    /// Whether pods of the suite roll in this step.
    pub fn is_workload(self) -> bool {
        matches!(self, Self::Handler | Self::Controller | Self::Others | Self::Api)
    }

    /// Whether any pods roll in this step.
    pub(crate) fn rolls(self) -> bool {
        self.is_workload() || self == Self::Images
    }
}

impl Serialize for Slot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// When a step of an order may begin. Either way its writes come after those of the rows above it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// Together with the rows above.
    Together,
    /// When every row above is finished: written, rolled out, deleted.
    Afterwards,
}

/// A change to a newer version.
const UPDATE: &[(Slot, Begins)] = &[
    // There only where the version brings kinds. From the moment they are defined nobody may make an object of one.
    (Slot::Gate, Together),
    (Slot::Crds, Afterwards),
    (Slot::RbacOpen, Together),
    (Slot::Configuration, Together),
    // There only where the policy asks for it. What takes long is over before a node is without virt-handler.
    (Slot::Images, Together),
    // A new virt-api or virt-controller asks things of a node that only a new virt-handler understands.
    (Slot::Handler, Afterwards),
    (Slot::Controller, Afterwards),
    (Slot::Others, Afterwards),
    // Users reach new features through virt-api: it opens the door when everything behind it is new. The gate goes with what
    // is obsolete.
    (Slot::Api, Afterwards),
    (Slot::Admission, Afterwards),
    (Slot::Prune, Afterwards),
    (Slot::RbacShrink, Afterwards),
];

/// A change to an older version, or of the deployment of the same version.
const ROLLBACK: &[(Slot, Begins)] = &[
    (Slot::Crds, Together),
    (Slot::RbacOpen, Together),
    (Slot::Configuration, Together),
    // Webhooks that only the newer virt-api serves must be gone before the older one takes over.
    (Slot::Admission, Afterwards),
    (Slot::Api, Afterwards),
    (Slot::Controller, Afterwards),
    (Slot::Others, Afterwards),
    (Slot::Handler, Afterwards),
    (Slot::Prune, Afterwards),
    (Slot::RbacShrink, Afterwards),
];

/// An installation or a repair: no two versions meet, so only deletion waits.
const AT_ONCE: &[(Slot, Begins)] = &[
    (Slot::Crds, Together),
    (Slot::RbacShrink, Together),
    (Slot::Configuration, Together),
    (Slot::Admission, Together),
    (Slot::Handler, Together),
    (Slot::Controller, Together),
    (Slot::Others, Together),
    (Slot::Api, Together),
    (Slot::Prune, Afterwards),
];

/// The rows of a mode, first to last.
pub(crate) fn rows(mode: Mode) -> &'static [(Slot, Begins)] {
    match mode {
        Mode::Install | Mode::Keep => AT_ONCE,
        Mode::Update => UPDATE,
        Mode::Rollback => ROLLBACK,
    }
}

/// The step whose final form an object belongs to.
pub(crate) fn slot_of(key: &ObjectKey) -> Slot {
    match key.kind {
        Kind::CustomResourceDefinition => Slot::Crds,
        Kind::ClusterRole | Kind::ClusterRoleBinding | Kind::Role | Kind::RoleBinding => Slot::RbacShrink,
        Kind::DaemonSet if key.name == images::NAME => Slot::Images,
        // By kind: virt-handler is the suite's only DaemonSet, and a further one would be a node agent too.
        Kind::DaemonSet => Slot::Handler,
        Kind::Deployment => match key.name.as_str() {
            "virt-controller" => Slot::Controller,
            "virt-api" => Slot::Api,
            _ => Slot::Others,
        },
        Kind::ValidatingWebhookConfiguration if key.name == gate::NAME => Slot::Gate,
        kind if matches!(kind.phase(), Phase::Admission) => Slot::Admission,
        _ => Slot::Configuration,
    }
}

/// Objects that belong to the step near the end that registers them, and that `RbacOpen` keeps trusting the right authority until
/// then. Admission policies stand beside them, and call nobody.
pub(crate) fn is_registration(key: &ObjectKey) -> bool {
    slot_of(key) == Slot::Admission && key.kind.registers()
}

/// Objects that are never deleted because a version no longer has them: with a definition go all objects users stored
/// under it.
pub(crate) fn is_kept(key: &ObjectKey) -> bool {
    slot_of(key) == Slot::Crds
}
