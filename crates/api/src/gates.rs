//! Feature gates: which there are, how far each has come, and whether one is on for a configuration.

use crate::kubevirt::KubeVirtConfiguration;

/// How far a feature has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Off unless it is listed.
    Alpha,
    /// On unless it is listed as disabled.
    Beta,
    /// Part of the product: always on, listing it means nothing.
    Ga,
    /// Still works when it is listed, and goes away.
    Deprecated,
    /// Gone: listing it means nothing.
    Discontinued,
}

/// One gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    pub name: &'static str,
    pub state: State,
}

pub mod name {
    //! Gates that decide something here.

    pub const TEMPLATE: &str = "Template";
    pub const OPT_OUT_ROLE_AGGREGATION: &str = "OptOutRoleAggregation";
    pub const MIGRATION_STALL_DETECTION: &str = "MigrationStallDetection";
    pub const MIGRATION_DOWNTIME_TUNING: &str = "MigrationDowntimeTuning";
    pub const DECENTRALIZED_LIVE_MIGRATION: &str = "DecentralizedLiveMigration";
    pub const CONTAINER_PATH_VOLUMES: &str = "ContainerPathVolumes";
    pub const VM_STATS_COLLECTOR: &str = "VMStatsCollector";
}

macro_rules! gates {
    ($( $state:ident: $( $name:expr ),* $(,)?; )*) => {
        /// Every gate this release knows. An unknown one is off.
        pub const GATES: &[Gate] = &[$( $( Gate { name: $name, state: State::$state }, )* )*];
    };
}

gates! {
    Alpha:
        "AlignCPUs", "ConfigurableHypervisor", name::CONTAINER_PATH_VOLUMES, "CPUManager", "DisableMDEVConfiguration",
        "DownwardMetrics", "EnableVirtioFsConfigVolumes", "EnableVirtioFsStorageVolumes", "ExpandDisks",
        "ExperimentalIgnitionSupport", "HostDevices", "HostDisk", "HotplugVolumes", "HypervStrictCheck", "IncrementalBackup",
        name::MIGRATION_DOWNTIME_TUNING, "MigrationPriorityQueue", name::MIGRATION_STALL_DETECTION, "MultiArchitecture",
        "ObjectGraph", "PanicDevices", "PasstIPStackMigration", "PersistentReservation", "Plugins", "Root", "SecureExecution",
        "Sidecar", "UtilityVolumes", "VMExport", "VMPersistentState", name::VM_STATS_COLLECTOR, "VSOCK", "VideoConfig",
        "WorkloadEncryptionTDX";
    Beta:
        name::DECENTRALIZED_LIVE_MIGRATION, "DeclarativeHotplugVolumes", "ExternalNetResourceInjection", "GPUsWithDRA",
        "HostDevicesWithDRA", "ImageVolume", "KubevirtSeccompProfile", "NodeRestriction", name::OPT_OUT_ROLE_AGGREGATION,
        "PasstBinding", "PodSecondaryInterfaceNamingUpgrade", "RebootPolicy", "Snapshot", name::TEMPLATE,
        "WorkloadEncryptionSEV";
    Ga:
        "AutoResourceLimitsGate", "BochsDisplayForEFIGuests", "ClusterProfiler", "CommonInstancetypesDeploymentGate",
        "CPUNodeDiscovery", "DataVolumes", "DynamicPodInterfaceNaming", "GPU", "HotplugNICs", "InstancetypeReferencePolicy",
        "LiveMigration", "NetworkBindingPlugins", "NonRoot", "NUMA", "PSA", "SRIOVLiveMigration", "VMLiveUpdateFeatures",
        "VolumeMigration", "VolumesUpdateStrategy";
    Deprecated:
        "DisableCustomSELinuxPolicy", "DockerSELinuxMCSWorkaround";
    Discontinued:
        "ExperimentalVirtiofsSupport", "Macvtap", "NonRootExperimental", "Passt";
}

/// The gate of a name.
pub fn find(name: &str) -> Option<Gate> {
    GATES.iter().copied().find(|gate| gate.name == name)
}

/// The gates a configuration lists: switched on, and switched off.
pub fn listed(configuration: Option<&KubeVirtConfiguration>) -> (&[String], &[String]) {
    let developer = configuration.and_then(|configuration| configuration.developer_configuration.as_ref());
    let on = developer.and_then(|developer| developer.feature_gates.as_deref());
    let off = developer.and_then(|developer| developer.disabled_feature_gates.as_deref());
    (on.unwrap_or_default(), off.unwrap_or_default())
}

/// Whether a gate is on: what is part of the product always; else what is listed, on before off; else what the state says.
pub fn is_on(configuration: Option<&KubeVirtConfiguration>, name: &str) -> bool {
    let Some(gate) = find(name) else { return false };
    let (on, off) = listed(configuration);
    let lists = |list: &[String]| list.iter().any(|listed| listed == name);
    match gate.state {
        State::Ga => true,
        State::Discontinued => false,
        State::Alpha | State::Beta | State::Deprecated if lists(on) => true,
        State::Beta => !lists(off),
        State::Alpha | State::Deprecated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(on: &[&str], off: &[&str]) -> KubeVirtConfiguration {
        let value = serde_json::json!({"developerConfiguration": {"featureGates": on, "disabledFeatureGates": off}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = GATES.iter().map(|gate| gate.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn a_gate_is_on_by_its_state_unless_it_is_listed() {
        let is = |name, on: &[&str], off: &[&str]| is_on(Some(&configuration(on, off)), name);
        assert!(!is("Sidecar", &[], &[]) && is("Sidecar", &["Sidecar"], &[]));
        assert!(is("Snapshot", &[], &[]) && !is("Snapshot", &[], &["Snapshot"]) && is_on(None, "Snapshot"));
        assert!(is("Snapshot", &["Snapshot"], &["Snapshot"]), "on before off");
        assert!(is("LiveMigration", &[], &["LiveMigration"]));
        assert!(!is("Passt", &["Passt"], &[]));
        assert!(is("DockerSELinuxMCSWorkaround", &["DockerSELinuxMCSWorkaround"], &[]));
        assert!(!is("NobodyKnowsIt", &["NobodyKnowsIt"], &[]), "unknown is off");
    }
}
