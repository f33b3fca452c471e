//! `spec.configuration` of the KubeVirt CR.
//!
//! Every field of the contract (release 1.9) is in the schema. What is typed and what is passed on as it was given
//! ([`AsGiven`]) is in docs/api.md; a field no release of ours knows is kept by the types and refused by the schema.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::textless;
use super::spec::PULL_POLICIES;
use crate::{AsGiven, api_struct};

api_struct! {
    /// Settings the running components follow.
    pub struct KubeVirtConfiguration {
        developer_configuration: DeveloperConfiguration,
        migrations: MigrationConfiguration,
        network: NetworkConfiguration,
        /// Pull policy of launcher pods.
        #[schemars(extend("enum" = PULL_POLICIES))]
        image_pull_policy: String,
        /// `None`, `LiveMigrate`, `LiveMigrateIfPossible` or `External`.
        eviction_strategy: String,
        /// `Stage` or `LiveUpdate`.
        #[schemars(extend("enum" = ["Stage", "LiveUpdate"]))]
        vm_rollout_strategy: String,
        cpu_model: String,
        #[schemars(schema_with = "textless::<Option<Quantity>>")]
        cpu_request: Value,
        machine_type: String,
        emulated_machines: Vec<String>,
        default_runtime_class: String,
        selinux_launcher_type: String,
        smbios: Smbios,
        api_configuration: ReloadableComponentConfiguration,
        webhook_configuration: ReloadableComponentConfiguration,
        controller_configuration: ReloadableComponentConfiguration,
        handler_configuration: ReloadableComponentConfiguration,
        tls_configuration: TlsConfiguration,
        virtual_machine_instances_per_node: i32,
        mem_balloon_stats_period: u32,
        additional_guest_memory_overhead_ratio: String,
        live_update_configuration: LiveUpdateConfiguration,
        common_instancetypes_deployment: Deployed,
        virt_template_deployment: Deployed,
        /// `AggregateToDefault` or `Manual`.
        #[schemars(extend("enum" = ["AggregateToDefault", "Manual"]))]
        role_aggregation_strategy: String,
        architecture_configuration: ArchitectureConfiguration,
        #[serde(rename = "minCPUModel")]
        min_cpu_model: String,
        #[serde(rename = "obsoleteCPUModels")]
        obsolete_cpu_models: BTreeMap<String, bool>,
        ovmf_path: String,
        supported_guest_agent_versions: Vec<String>,
        #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        support_container_resources: Vec<SupportContainerResources>,
        permitted_host_devices: PermittedHostDevices,
        mediated_devices_configuration: MediatedDevicesConfiguration,
        seccomp_configuration: SeccompConfiguration,
        vm_state_storage_class: String,
        virtual_machine_options: VirtualMachineOptions,
        ksm_configuration: KsmConfiguration,
        #[serde(rename = "autoCPULimitNamespaceLabelSelector")]
        #[schemars(schema_with = "textless::<Option<LabelSelector>>")]
        auto_cpu_limit_namespace_label_selector: AsGiven,
        changed_block_tracking_label_selectors: ChangedBlockTrackingSelectors,
        instancetype: InstancetypeConfiguration,
        /// At most one; the node's virtualisation.
        #[schemars(length(max = 1))]
        hypervisors: Vec<HypervisorConfiguration>,
        persistent_reservation_configuration: Deployed,
        confidential_compute: ConfidentialCompute,
    }
}

api_struct! {
    /// Switches and levels for those who develop and debug.
    pub struct DeveloperConfiguration {
        feature_gates: Vec<String>,
        disabled_feature_gates: Vec<String>,
        pvc_tolerate_less_space_up_to_percent: i32,
        #[serde(rename = "minimumReservePVCBytes")]
        minimum_reserve_pvc_bytes: u64,
        /// Guest memory in percent of the memory a pod asks for.
        #[schemars(range(min = 10))]
        memory_overcommit: i32,
        node_selectors: BTreeMap<String, String>,
        /// Allows software emulation where a node has no KVM.
        use_emulation: bool,
        cpu_allocation_ratio: i32,
        #[serde(rename = "minimumClusterTSCFrequency")]
        minimum_cluster_tsc_frequency: i64,
        disk_verification: DiskVerification,
        log_verbosity: LogVerbosity,
        cluster_profiler: bool,
    }
}

api_struct! {
    /// Bounds for the inspection of a disk image.
    #[schemars(extend("required" = ["memoryLimit"]))]
    pub struct DiskVerification {
        #[schemars(schema_with = "textless::<Option<Quantity>>")]
        memory_limit: Value,
    }
}

api_struct! {
    /// How much each component logs; higher is more. Absent: 2.
    pub struct LogVerbosity {
        #[serde(rename = "virtAPI")]
        virt_api: u32,
        virt_controller: u32,
        virt_handler: u32,
        virt_launcher: u32,
        virt_operator: u32,
        virt_synchronization_controller: u32,
        /// By node name; stands before `virtHandler` on that node.
        node_verbosity: BTreeMap<String, u32>,
    }
}

api_struct! {
    /// Bounds and switches of live migration.
    pub struct MigrationConfiguration {
        node_drain_taint_key: String,
        parallel_outbound_migrations_per_node: u32,
        parallel_migrations_per_cluster: u32,
        allow_auto_converge: bool,
        #[schemars(schema_with = "textless::<Option<Quantity>>")]
        bandwidth_per_migration: Value,
        /// Seconds.
        #[serde(rename = "completionTimeoutPerGiB")]
        completion_timeout_per_gib: i64,
        #[schemars(range(min = 1, max = 2_000_000))]
        max_downtime_ms: u32,
        /// Seconds.
        progress_timeout: i64,
        /// Seconds.
        utility_volumes_timeout: i64,
        unsafe_migration_override: bool,
        allow_post_copy: bool,
        allow_workload_disruption: bool,
        #[serde(rename = "disableTLS")]
        disable_tls: bool,
        /// The network attachment migrations use; it changes virt-handler's pods.
        network: String,
        #[serde(rename = "matchSELinuxLevelOnMigration")]
        match_selinux_level_on_migration: bool,
    }
}

api_struct! {
    /// Defaults of guest networks.
    pub struct NetworkConfiguration {
        /// `bridge`, `slirp` or `masquerade`.
        default_network_interface: String,
        permit_slirp_interface: bool,
        permit_bridge_interface_on_pod_network: bool,
        binding: BTreeMap<String, InterfaceBinding>,
    }
}

api_struct! {
    /// A network binding plug-in.
    pub struct InterfaceBinding {
        sidecar_image: String,
        network_attachment_definition: String,
        domain_attachment_type: String,
        migration: InterfaceBindingMigration,
        #[serde(rename = "downwardAPI")]
        downward_api: String,
        #[schemars(schema_with = "resources")]
        compute_resource_overhead: AsGiven,
    }
}

api_struct! {
    /// What happens to a plug-in's interface when its guest moves.
    pub struct InterfaceBindingMigration {
        /// `link-refresh`.
        method: String,
    }
}

api_struct! {
    /// Present or absent; that is all it says.
    pub struct Empty {}
}

api_struct! {
    /// What guests read in their SMBIOS tables.
    pub struct Smbios {
        manufacturer: String,
        product: String,
        version: String,
        sku: String,
        family: String,
    }
}

api_struct! {
    /// Settings of a component that it takes over without a restart.
    pub struct ReloadableComponentConfiguration {
        rest_client: RestClient,
    }
}

api_struct! {
    /// How fast a component may talk to the cluster's API.
    pub struct RestClient {
        rate_limiter: RateLimiter,
    }
}

api_struct! {
    pub struct RateLimiter {
        token_bucket_rate_limiter: TokenBucket,
    }
}

/// Requests per second, and how many may come at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenBucket {
    pub qps: f32,
    pub burst: i32,
    /// Fields this release does not know, kept as they are. The schema knows none.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: AsGiven,
}

api_struct! {
    /// What TLS the components accept.
    pub struct TlsConfiguration {
        /// `VersionTLS10` to `VersionTLS13`.
        #[serde(rename = "minTLSVersion")]
        #[schemars(extend("enum" = ["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"]))]
        min_tls_version: String,
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        ciphers: Vec<String>,
    }
}

api_struct! {
    /// Bounds of what can be added to a running guest.
    pub struct LiveUpdateConfiguration {
        max_hotplug_ratio: u32,
        max_cpu_sockets: u32,
        #[schemars(schema_with = "textless::<Option<Quantity>>")]
        max_guest: Value,
    }
}

api_struct! {
    /// Whether a set of objects is installed.
    pub struct Deployed {
        enabled: bool,
    }
}

api_struct! {
    /// What guests of each CPU architecture are built from.
    pub struct ArchitectureConfiguration {
        amd64: Architecture,
        arm64: Architecture,
        ppc64le: Architecture,
        s390x: Architecture,
        default_architecture: String,
    }
}

api_struct! {
    pub struct Architecture {
        ovmf_path: String,
        emulated_machines: Vec<String>,
        machine_type: String,
    }
}

/// Resources of the containers that help a guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupportContainerResources {
    #[serde(rename = "type")]
    pub container_type: String,
    #[schemars(schema_with = "resources")]
    pub resources: AsGiven,
    /// Fields this release does not know, kept as they are. The schema knows none.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: AsGiven,
}

api_struct! {
    /// Devices of nodes that guests may use.
    pub struct PermittedHostDevices {
        pci_host_devices: Vec<PciHostDevice>,
        mediated_devices: Vec<MediatedHostDevice>,
        usb: Vec<UsbHostDevice>,
    }
}

api_struct! {
    #[schemars(extend("required" = ["pciVendorSelector", "resourceName"]))]
    pub struct PciHostDevice {
        /// `vendor:product`, in hexadecimal.
        pci_vendor_selector: String,
        resource_name: String,
        /// Another program offers the resource on the nodes.
        external_resource_provider: bool,
    }
}

api_struct! {
    #[schemars(extend("required" = ["mdevNameSelector", "resourceName"]))]
    pub struct MediatedHostDevice {
        mdev_name_selector: String,
        resource_name: String,
        external_resource_provider: bool,
    }
}

api_struct! {
    #[schemars(extend("required" = ["resourceName"]))]
    pub struct UsbHostDevice {
        resource_name: String,
        selectors: Vec<UsbSelector>,
        external_resource_provider: bool,
    }
}

api_struct! {
    #[schemars(extend("required" = ["vendor", "product"]))]
    pub struct UsbSelector {
        vendor: String,
        product: String,
    }
}

api_struct! {
    /// Mediated devices that are made on nodes.
    pub struct MediatedDevicesConfiguration {
        mediated_device_types: Vec<String>,
        /// Older spelling of `mediatedDeviceTypes`.
        mediated_devices_types: Vec<String>,
        node_mediated_device_types: Vec<NodeMediatedDeviceTypes>,
        enabled: bool,
    }
}

api_struct! {
    #[schemars(extend("required" = ["nodeSelector"]))]
    pub struct NodeMediatedDeviceTypes {
        node_selector: BTreeMap<String, String>,
        mediated_device_types: Vec<String>,
        mediated_devices_types: Vec<String>,
    }
}

api_struct! {
    /// System call filters of launchers.
    pub struct SeccompConfiguration {
        virtual_machine_instance_profile: SeccompProfile,
    }
}

api_struct! {
    pub struct SeccompProfile {
        custom_profile: CustomProfile,
    }
}

api_struct! {
    /// One of the two.
    pub struct CustomProfile {
        localhost_profile: String,
        runtime_default_profile: bool,
    }
}

api_struct! {
    /// Switches for all guests; each is on when present.
    pub struct VirtualMachineOptions {
        disable_free_page_reporting: Empty,
        disable_serial_console_log: Empty,
    }
}

api_struct! {
    /// Nodes on which equal memory pages are merged.
    pub struct KsmConfiguration {
        #[schemars(schema_with = "textless::<Option<LabelSelector>>")]
        node_label_selector: AsGiven,
    }
}

api_struct! {
    /// How guests refer to their instance type and preference.
    pub struct InstancetypeConfiguration {
        #[schemars(extend("enum" = ["reference", "expand", "expandAll"]))]
        reference_policy: String,
    }
}

api_struct! {
    /// A way to run guests; in force with the gate `ConfigurableHypervisor` alone.
    pub struct HypervisorConfiguration {
        #[schemars(extend("enum" = ["kvm", "hyperv-direct"]))]
        name: String,
    }
}

api_struct! {
    /// Guests whose memory the node cannot read.
    pub struct ConfidentialCompute {
        tdx: Tdx,
    }
}

api_struct! {
    pub struct Tdx {
        attestation: TdxAttestation,
    }
}

api_struct! {
    /// How guests prove what they run on.
    pub struct TdxAttestation {
        enforced: bool,
        /// The socket of the service that makes quotes.
        qgs_socket_path: String,
    }
}

api_struct! {
    /// Guests whose disks' changed blocks are tracked.
    pub struct ChangedBlockTrackingSelectors {
        #[schemars(schema_with = "textless::<Option<LabelSelector>>")]
        namespace_label_selector: AsGiven,
        #[schemars(schema_with = "textless::<Option<LabelSelector>>")]
        virtual_machine_label_selector: AsGiven,
    }
}

/// Requests and limits, each a quantity by the resource's name.
#[derive(JsonSchema)]
// Only its schema is of use.
#[expect(dead_code)]
struct Resources {
    #[serde(default)]
    #[schemars(schema_with = "textless::<Option<BTreeMap<String, Quantity>>>")]
    requests: Option<BTreeMap<String, Quantity>>,
    #[serde(default)]
    #[schemars(schema_with = "textless::<Option<BTreeMap<String, Quantity>>>")]
    limits: Option<BTreeMap<String, Quantity>>,
}

fn resources(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    textless::<Resources>(generator)
}
