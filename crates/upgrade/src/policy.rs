//! How careful a change of version is: what an `UpgradePolicy` says, and what holds where it says nothing.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubevirt_api::upgrade::UpgradePolicySpec;

/// A new pod that is not ready by then will not become so: the slowest start known (a large image over a slow line, then
/// two minutes of probes) stays below; whoever needs longer says so in the policy.
const DEADLINE: SignedDuration = SignedDuration::from_secs(600);

/// A registry may be down for a moment, and a kubelet tries a failed pull again after 10, 20, 40 s: four attempts.
const IMAGE_GRACE: SignedDuration = SignedDuration::from_secs(120);

/// The share of the nodes that clients which watch an update know.
const WAVE: Share = Share::Percent(10);

/// A part of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Nodes(i64),
    Percent(i64),
}

impl Share {
    /// How many of `nodes` that is; at least one, or nothing would ever move. A share is rounded up, as a DaemonSet's is.
    pub fn of(self, nodes: i64) -> i64 {
        match self {
            Self::Nodes(count) => count.max(1),
            Self::Percent(percent) => (nodes.saturating_mul(percent).saturating_add(99) / 100).max(1),
        }
    }

    /// As a DaemonSet's `maxUnavailable` is written.
    pub fn written(self) -> serde_json::Value {
        match self {
            Self::Nodes(count) => count.max(1).into(),
            Self::Percent(percent) => format!("{}%", percent.clamp(1, 100)).into(),
        }
    }
}

/// The policy, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub paused: bool,
    /// There is one, and this release cannot read it.
    pub unread: bool,
    /// Labels of the nodes of which one goes first.
    pub canary: Option<BTreeMap<String, String>>,
    /// Whether the images of the new virt-handler are on the nodes before the first one is replaced.
    pub pulls_images: bool,
    pub soak: SignedDuration,
    pub wave: Share,
    /// Between waves.
    pub pause: SignedDuration,
    pub deadline: SignedDuration,
    pub image_grace: SignedDuration,
    /// Whether a change that fails is undone without being asked.
    pub goes_back: bool,
}

impl Policy {
    /// Whether it asks for more than the usual sequence over the nodes: then which node is next is decided here.
    pub fn governs(&self) -> bool {
        let Self { canary, soak, wave, pause, .. } = self;
        canary.is_some() || !soak.is_zero() || !pause.is_zero() || *wave != WAVE
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            paused: false,
            unread: false,
            canary: None,
            pulls_images: false,
            soak: SignedDuration::ZERO,
            wave: WAVE,
            pause: SignedDuration::ZERO,
            deadline: DEADLINE,
            image_grace: IMAGE_GRACE,
            goes_back: true,
        }
    }
}

impl From<&UpgradePolicySpec> for Policy {
    fn from(spec: &UpgradePolicySpec) -> Self {
        let UpgradePolicySpec {
            paused,
            canary_node_selector,
            pull_images,
            soak_seconds,
            waves,
            deadline_seconds,
            image_grace_seconds,
            automatic_rollback,
        } = spec;
        let default = Self::default();
        let seconds = |given: &Option<i64>, otherwise: SignedDuration| {
            given.map_or(otherwise, |seconds| SignedDuration::from_secs(seconds.max(0)))
        };
        let waves = waves.clone().unwrap_or_default();
        Self {
            paused: paused.unwrap_or_default(),
            unread: false,
            canary: canary_node_selector.clone().filter(|labels| !labels.is_empty()),
            pulls_images: pull_images.unwrap_or(default.pulls_images),
            soak: seconds(soak_seconds, default.soak),
            wave: waves.max_unavailable.as_ref().and_then(share).unwrap_or(default.wave),
            pause: seconds(&waves.pause_seconds, default.pause),
            deadline: seconds(deadline_seconds, default.deadline),
            image_grace: seconds(image_grace_seconds, default.image_grace),
            goes_back: automatic_rollback.unwrap_or(default.goes_back),
        }
    }
}

fn share(given: &IntOrString) -> Option<Share> {
    match given {
        IntOrString::Int(count) => Some(Share::Nodes((*count).into())),
        IntOrString::String(text) => Some(Share::Percent(text.strip_suffix('%')?.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use kubevirt_api::upgrade::Waves;

    use super::*;

    #[test]
    fn what_is_not_said_has_a_default() {
        assert_eq!(Policy::from(&UpgradePolicySpec::default()), Policy::default());
        let waves = Waves { max_unavailable: Some(IntOrString::String("25%".into())), pause_seconds: Some(30) };
        let spec = UpgradePolicySpec { soak_seconds: Some(60), waves: Some(waves), ..UpgradePolicySpec::default() };
        let policy = Policy::from(&spec);
        assert_eq!((policy.wave, policy.soak.as_secs(), policy.pause.as_secs()), (Share::Percent(25), 60, 30));
    }

    #[test]
    fn a_share_is_never_nothing() {
        assert_eq!([1, 3, 10, 11, 5000].map(|nodes| Share::Percent(10).of(nodes)), [1, 1, 1, 2, 500]);
        assert_eq!(Share::Nodes(0).of(5), 1);
    }
}
