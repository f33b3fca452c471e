//! The settings in the KubeVirt CR by which objects are filled in.

use serde_json::Value;

use super::value::text;

/// What an administrator decided for the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cluster {
    architecture: String,
    /// `spec.configuration` as it was given.
    configuration: Value,
}

impl Cluster {
    /// Reads a KubeVirt CR.
    pub(crate) fn read(cr: &Value) -> Self {
        let configuration = cr.pointer("/spec/configuration").cloned().unwrap_or(Value::Null);
        let architecture = text(&configuration, "/architectureConfiguration/defaultArchitecture")
            .or_else(|| text(cr, "/status/defaultArchitecture"))
            .unwrap_or("amd64")
            .to_owned();
        Self { architecture, configuration }
    }

    /// The architecture of guests that name none.
    pub(super) fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The machine type of guests of an architecture that name none.
    pub(super) fn machine_type(&self, architecture: &str) -> &str {
        let own = match architecture {
            "arm64" => "virt",
            "s390x" => "s390-ccw-virtio",
            _ => "q35",
        };
        let configured = text(&self.configuration, &format!("/architectureConfiguration/{architecture}/machineType"));
        // The field of old, from before there were architectures.
        let older = || text(&self.configuration, "/machineType");
        configured.or_else(older).unwrap_or(own)
    }

    pub(super) fn cpu_model(&self) -> &str {
        text(&self.configuration, "/cpuModel").unwrap_or("host-model")
    }

    pub(super) fn eviction_strategy(&self) -> Option<&str> {
        text(&self.configuration, "/evictionStrategy")
    }

    /// How guests that name no network are connected to the pod's.
    pub(super) fn interface(&self) -> &str {
        text(&self.configuration, "/network/defaultNetworkInterface").unwrap_or("bridge")
    }

    /// How many times its first size a guest may grow to.
    pub(super) fn hotplug_ratio(&self) -> u64 {
        self.live_update("maxHotplugRatio").and_then(Value::as_u64).filter(|ratio| *ratio > 0).unwrap_or(4)
    }

    pub(super) fn max_cpu_sockets(&self) -> Option<u64> {
        self.live_update("maxCpuSockets").and_then(Value::as_u64).filter(|sockets| *sockets > 0)
    }

    pub(super) fn max_guest(&self) -> Option<&str> {
        self.live_update("maxGuest").and_then(Value::as_str)
    }

    fn live_update(&self, field: &str) -> Option<&Value> {
        self.configuration.get("liveUpdateConfiguration")?.get(field)
    }
}
