//! One node: its name, its addresses and the objects that describe it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::loopback::Subnet;
use crate::process::ENDPOINT_PORT;

/// Numbers up to this have addresses of their own: 10.64.0.0/10 holds 16,384 subnets of 256.
pub(crate) const MAX_NUMBER: u32 = 16_000;

/// A node's identity.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) number: u32,
    pub(crate) name: String,
    /// The node's own address; host-network pods share it.
    pub(crate) ip: IpAddr,
    /// Set where the addresses are of the loopback network.
    pub(crate) loopback: Option<Subnet>,
    /// Pods are processes, whose logs can be had from the node.
    pub(crate) process: bool,
}

impl Machine {
    pub(crate) fn new(number: u32) -> Self {
        let at = number + 1;
        let (high, low) = (at / 256, at % 256);
        Self {
            number,
            name: format!("node{number:02}"),
            ip: IpAddr::V4(Ipv4Addr::new(172, 18, byte(high), byte(low))),
            loopback: None,
            process: false,
        }
    }

    /// A node with addresses of the loopback network.
    pub(crate) fn on_loopback(number: u32, subnet: Subnet, process: bool) -> Self {
        let mut machine = Self { loopback: Some(subnet), process, ..Self::new(number) };
        machine.ip = machine.pod_ip(1);
        machine
    }

    /// The address of the pod with this number on the node.
    pub(crate) fn pod_ip(&self, number: u8) -> IpAddr {
        if let Some(subnet) = self.loopback {
            return subnet.ip(number);
        }
        IpAddr::V4(Ipv4Addr::new(10, 64 + byte(self.number / 256), byte(self.number % 256), number))
    }

    fn pod_cidr(&self) -> String {
        format!("{}/24", self.pod_ip(0))
    }

    fn labels(&self, more: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), self.name.clone()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
        ]);
        if self.number == 1 {
            labels.insert("node-role.kubernetes.io/control-plane".to_owned(), String::new());
        }
        labels.extend(more.clone());
        labels
    }

    /// The node as it registers.
    pub(crate) fn object(&self, labels: &BTreeMap<String, String>) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels(labels)),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: Some(self.pod_cidr()),
                pod_cidrs: Some(vec![self.pod_cidr()]),
                ..NodeSpec::default()
            }),
            status: None,
        }
    }

    /// The status of a healthy node.
    pub(crate) fn status(&self, capacity: &BTreeMap<String, String>, since: Timestamp, now: Timestamp) -> NodeStatus {
        let mut amounts: BTreeMap<String, Quantity> =
            [("cpu", "8"), ("memory", "16Gi"), ("ephemeral-storage", "100Gi"), ("pods", "110")]
                .into_iter()
                .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
                .collect();
        amounts.extend(capacity.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone()))));
        let condition = |kind: &str, status: &str, reason: &str, message: &str| NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(Time(since)),
        };
        let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
        let kind = if self.process { "process" } else { "simulated" };
        NodeStatus {
            capacity: Some(amounts.clone()),
            allocatable: Some(amounts),
            addresses: Some(vec![address("InternalIP", self.ip.to_string()), address("Hostname", self.name.clone())]),
            conditions: Some(vec![
                condition(
                    "MemoryPressure",
                    "False",
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ]),
            // A simulated node serves nothing, and must not send anybody to an address that may be somebody else's.
            daemon_endpoints: self
                .process
                .then(|| NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: ENDPOINT_PORT.into() }) }),
            node_info: Some(NodeSystemInfo {
                architecture: "amd64".to_owned(),
                operating_system: "linux".to_owned(),
                os_image: format!("nanokube {kind} node"),
                kernel_version: format!("0.0.0-{kind}"),
                container_runtime_version: "nanokube://0.0.0".to_owned(),
                kubelet_version: "v1.36.0-nanokube".to_owned(),
                kube_proxy_version: String::new(),
                machine_id: format!("simulated-{}", self.number),
                system_uuid: format!("simulated-{}", self.number),
                boot_id: format!("simulated-{}", self.number),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }
    }
}

fn byte(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
