//! The table of alerts, of the metrics that others expose, and of the alerts that cannot ship yet.

use super::Alert;
use super::Severity::{Critical, Warning};

const OF_SUITE: Alert = Alert {
    name: "",
    severity: Critical,
    impact: Some(Critical),
    window: "10m",
    expression: "",
    of_namespace: true,
    summary: "",
    advice: "",
};

/// Nothing of a component answers Prometheus.
const fn down(name: &'static str, expression: &'static str, summary: &'static str, advice: &'static str) -> Alert {
    Alert { name, expression, summary, advice, ..OF_SUITE }
}

/// Fewer of a component than wanted.
const fn low(
    name: &'static str,
    window: &'static str,
    expression: &'static str,
    summary: &'static str,
    advice: &'static str,
) -> Alert {
    Alert { name, window, expression, summary, advice, severity: Warning, impact: Some(Warning), ..OF_SUITE }
}

/// Most of what a component asks of the API server fails.
const fn burst(name: &'static str, expression: &'static str, summary: &'static str) -> Alert {
    const ADVICE: &str = "Look at the component's log for the requests that fail. Codes 401 and 403 speak of its account and \
                          roles, 429 and 5xx of the API server.";
    Alert { name, window: "5m", expression, summary, advice: ADVICE, ..OF_SUITE }
}

const DESCRIBE: &str = "Look at the pods and their events in the suite's namespace: image, node, certificate, probes.";

/// Every alert that ships.
pub const ALERTS: &[Alert] = &[
    low(
        "LowKVMNodesCount",
        "5m",
        "((count(kube_node_status_allocatable{resource=\"devices_kubevirt_io_kvm\"} > 0) or vector(0)) < 2) and (count(kube_node_info) \
         > 1)",
        "Fewer than two nodes offer hardware virtualization, so no machine can be moved off its node.",
        "Look why virt-handler does not offer /dev/kvm on the others: BIOS setting, kernel module, virt-handler not running there.",
    ),
    Alert {
        severity: Warning,
        window: "5m",
        ..down(
            "KubeVirtNoAvailableNodesToRunVMs",
            "((sum(kube_node_status_allocatable{resource=\"devices_kubevirt_io_kvm\"}) or vector(0)) == 0) and \
             ((sum(kubevirt_configuration_emulation_enabled) or vector(0)) == 0)",
            "No node can run a virtual machine: none offers hardware virtualization, and emulation is off.",
            "Add a node with hardware virtualization, or switch useEmulation on for a cluster that only tests.",
        )
    },
    down(
        "VirtAPIDown",
        "(sum(up{{ns},pod=~\"virt-api-.*\"}) or vector(0)) == 0",
        "No virt-api answers: virtual machines can be neither changed nor connected to.",
        DESCRIBE,
    ),
    low(
        "LowReadyVirtAPICount",
        "10m",
        "(kube_deployment_status_replicas_ready{{ns},deployment=\"virt-api\"} < \
         kube_deployment_spec_replicas{{ns},deployment=\"virt-api\"}) and \
         (kube_deployment_status_replicas_ready{{ns},deployment=\"virt-api\"} > 0)",
        "Some pods of virt-api are not ready.",
        DESCRIBE,
    ),
    down(
        "NoReadyVirtAPI",
        "kube_deployment_status_replicas_ready{{ns},deployment=\"virt-api\"} == 0",
        "No pod of virt-api is ready: virtual machines can be neither changed nor connected to.",
        DESCRIBE,
    ),
    low(
        "LowVirtAPICount",
        "60m",
        "(sum(up{{ns},pod=~\"virt-api-.*\"}) < sum(kube_deployment_spec_replicas{{ns},deployment=\"virt-api\"})) and \
         (sum(up{{ns},pod=~\"virt-api-.*\"}) > 0)",
        "For an hour there have been fewer pods of virt-api than there should be.",
        DESCRIBE,
    ),
    burst(
        "VirtApiRESTErrorsBurst",
        "(sum(rate(kubevirt_rest_client_requests_total{{ns},pod=~\"virt-api-.*\",code=~\"(4|5)[0-9][0-9]\"}[5m])) / \
         sum(rate(kubevirt_rest_client_requests_total{{ns},pod=~\"virt-api-.*\"}[5m]))) >= 0.8",
        "Four of five requests that virt-api makes to the API server fail.",
    ),
    low(
        "LowReadyVirtControllersCount",
        "10m",
        "(kube_deployment_status_replicas_ready{{ns},deployment=\"virt-controller\"} < \
         kube_deployment_spec_replicas{{ns},deployment=\"virt-controller\"}) and \
         (kube_deployment_status_replicas_ready{{ns},deployment=\"virt-controller\"} > 0)",
        "Some pods of virt-controller are not ready.",
        DESCRIBE,
    ),
    down(
        "NoReadyVirtController",
        "kube_deployment_status_replicas_ready{{ns},deployment=\"virt-controller\"} == 0",
        "No pod of virt-controller is ready: machines are neither started nor moved.",
        DESCRIBE,
    ),
    down(
        "NoLeadingVirtController",
        "(sum(kubevirt_virt_controller_leading_status{{ns}}) or vector(0)) == 0",
        "No virt-controller leads: machines are neither started nor moved.",
        "Look at the Lease virt-controller: who holds it, and whether the holder can reach the API server.",
    ),
    down(
        "VirtControllerDown",
        "(sum(up{{ns},pod=~\"virt-controller-.*\"}) or vector(0)) == 0",
        "No virt-controller answers: machines are neither started nor moved.",
        DESCRIBE,
    ),
    low(
        "LowVirtControllersCount",
        "10m",
        "(sum(up{{ns},pod=~\"virt-controller-.*\"}) < sum(kube_deployment_spec_replicas{{ns},deployment=\"virt-controller\"})) and \
         (sum(up{{ns},pod=~\"virt-controller-.*\"}) > 0)",
        "There are fewer pods of virt-controller than there should be.",
        DESCRIBE,
    ),
    Alert {
        severity: Warning,
        impact: None,
        of_namespace: false,
        ..down(
            "VirtLauncherPodsStuckFailed",
            "count(kube_pod_status_phase{phase=\"Failed\",pod=~\"virt-launcher-.*\"} == 1) >= 200",
            "Two hundred or more pods of virtual machines have failed and are still there.",
            "See whether their machines have one cause in common (a node, an image, a quota), then delete the pods.",
        )
    },
    burst(
        "VirtControllerRESTErrorsBurst",
        "(sum(rate(kubevirt_rest_client_requests_total{{ns},pod=~\"virt-controller-.*\",code=~\"(4|5)[0-9][0-9]\"}[5m])) / \
         sum(rate(kubevirt_rest_client_requests_total{{ns},pod=~\"virt-controller-.*\"}[5m]))) >= 0.8",
        "Four of five requests that virt-controller makes to the API server fail.",
    ),
    down(
        "VirtHandlerDown",
        "(sum(up{{ns},pod=~\"virt-handler-.*\"}) or vector(0)) == 0",
        "No virt-handler answers on any node: running machines go on, and nothing can be done with them.",
        DESCRIBE,
    ),
    low(
        "LowReadyVirtHandlerCount",
        "60m",
        "(kube_daemonset_status_number_ready{{ns},daemonset=\"virt-handler\"} < \
         kube_daemonset_status_desired_number_scheduled{{ns},daemonset=\"virt-handler\"}) and \
         (kube_daemonset_status_number_ready{{ns},daemonset=\"virt-handler\"} > 0)",
        "For an hour virt-handler has not been ready on some nodes.",
        DESCRIBE,
    ),
    down(
        "NoReadyVirtHandler",
        "(kube_daemonset_status_number_ready{{ns},daemonset=\"virt-handler\"} == 0) and \
         (kube_daemonset_status_desired_number_scheduled{{ns},daemonset=\"virt-handler\"} > 0)",
        "virt-handler is ready on no node: running machines go on, and nothing can be done with them.",
        DESCRIBE,
    ),
    low(
        "VirtHandlerDaemonSetRolloutFailing",
        "15m",
        "kube_daemonset_status_number_ready{{ns},daemonset=\"virt-handler\"} != \
         kube_daemonset_status_desired_number_scheduled{{ns},daemonset=\"virt-handler\"}",
        "The roll-out of virt-handler does not get on.",
        "The condition Progressing of the KubeVirt custom resource names the pod and why it is not ready.",
    ),
    burst(
        "VirtHandlerRESTErrorsBurst",
        "(sum(rate(kubevirt_rest_client_requests_total{{ns},pod=~\"virt-handler-.*\",code=~\"(4|5)[0-9][0-9]\"}[5m])) / \
         sum(rate(kubevirt_rest_client_requests_total{{ns},pod=~\"virt-handler-.*\"}[5m]))) >= 0.8",
        "Four of five requests that virt-handler makes to the API server fail.",
    ),
    down(
        "VirtOperatorDown",
        "(sum(up{{ns},pod=~\"virt-operator-.*\"}) or vector(0)) == 0",
        "No virt-operator answers: the suite runs on, and nobody repairs it or renews its certificates.",
        DESCRIBE,
    ),
    low(
        "LowVirtOperatorCount",
        "60m",
        "(sum(up{{ns},pod=~\"virt-operator-.*\"}) < sum(kube_deployment_spec_replicas{{ns},deployment=\"virt-operator\"})) and \
         (sum(up{{ns},pod=~\"virt-operator-.*\"}) > 0)",
        "For an hour there have been fewer pods of virt-operator than there should be.",
        DESCRIBE,
    ),
    burst(
        "VirtOperatorRESTErrorsBurst",
        "(sum(rate(kubevirt_rest_client_requests_total{{ns},pod=~\"virt-operator-.*\",code=~\"(4|5)[0-9][0-9]\"}[5m])) / \
         sum(rate(kubevirt_rest_client_requests_total{{ns},pod=~\"virt-operator-.*\"}[5m]))) >= 0.8",
        "Four of five requests that virt-operator makes to the API server fail.",
    ),
    low(
        "LowReadyVirtOperatorsCount",
        "10m",
        "(sum(kubevirt_virt_operator_ready_status{{ns}}) < sum(kube_deployment_spec_replicas{{ns},deployment=\"virt-operator\"})) and \
         (sum(kubevirt_virt_operator_ready_status{{ns}}) > 0)",
        "Some pods of virt-operator do not serve.",
        DESCRIBE,
    ),
    down(
        "NoReadyVirtOperator",
        "(sum(kubevirt_virt_operator_ready_status{{ns}}) or vector(0)) == 0",
        "No virt-operator serves: the suite runs on, and nobody repairs it or renews its certificates.",
        DESCRIBE,
    ),
    down(
        "NoLeadingVirtOperator",
        "(sum(kubevirt_virt_operator_leading_status{{ns}}) or vector(0)) == 0",
        "No virt-operator leads: the suite runs on, and nobody repairs it or renews its certificates.",
        "Look at the Lease virt-operator: who holds it, and whether the holder can reach the API server.",
    ),
    down(
        "KubeVirtNotAvailable",
        "max(kubevirt_virt_operator_condition{{ns},condition=\"Available\"}) == 0",
        "The KubeVirt custom resource is not Available.",
        "Its conditions Progressing and Synchronized say what it waits for.",
    ),
    low(
        "KubeVirtReconcileFailing",
        "5m",
        "(time() - max(kubevirt_virt_operator_last_pass_timestamp_seconds{{ns}})) > 900",
        "The operator has not brought a pass to its end for a quarter of an hour.",
        "The operator's log says why each pass fails; kubevirt_virt_operator_passes_total counts them by category.",
    ),
    low(
        "KubeVirtUpgradeBlocked",
        "30m",
        "max by (reason) (kubevirt_virt_operator_not_ready{{ns},condition=\"UpgradeBlocked\"}) > 0",
        "A change of version has been waiting for a person for half an hour.",
        "The condition UpgradeBlocked of the KubeVirt custom resource says for what; `virtctl upgrade plan` shows the steps.",
    ),
    low(
        "KubeVirtCertificateExpiringSoon",
        "15m",
        "max by (certificate) (kubevirt_virt_operator_certificate_problem{{ns},reason=\"CertificateExpiringSoon\"}) > 0",
        "A certificate should have been renewed by now and was not.",
        "The condition CertificatesReady of the KubeVirt custom resource names it; the operator's log says why it cannot be written.",
    ),
    Alert {
        window: "1m",
        ..down(
            "KubeVirtCertificateExpired",
            "max by (certificate) (kubevirt_virt_operator_certificate_problem{{ns},reason=\"CertificateExpired\"}) > 0",
            "A certificate of the suite has expired: who has to trust it refuses.",
            "The condition CertificatesReady names it. Deleting its Secret makes the operator issue a new one.",
        )
    },
    down(
        "KubeVirtCertificateNotVerifiable",
        "max by (certificate) \
         (kubevirt_virt_operator_certificate_problem{{ns},reason=~\"CertificateNotVerifiable|CertificateMissing\"}) > 0",
        "A certificate of the suite is missing, or no published authority vouches for it.",
        "The condition CertificatesReady names it. Deleting its Secret makes the operator issue a new one.",
    ),
    down(
        "KubeVirtComponentCertificateInvalid",
        "(kubevirt_component_certificate_valid_until_seconds{{ns}} - time()) <= 0",
        "A pod shows a certificate that is not valid.",
        "Compare the Secret with what is mounted in the pod; the pod's readiness and its events name what is wrong.",
    ),
    low(
        "KubeVirtAuthorityRotationStuck",
        "2h",
        "max by (authority) (kubevirt_virt_operator_authority_rotating{{ns}}) > 0",
        "A new certificate authority has been waiting for two hours to sign everything that an earlier one signed.",
        "The operator's log names the bundle that lacks the new authority.",
    ),
];

const KUBE_STATE: &str = "kube-state-metrics";

/// Metrics of other programs that alerts look at, and whose they are.
pub const EXTERNAL: &[(&str, &str)] = &[
    ("up", "Prometheus itself, for every target it scrapes"),
    ("kube_node_info", KUBE_STATE),
    ("kube_node_status_allocatable", KUBE_STATE),
    ("kube_pod_status_phase", KUBE_STATE),
    ("kube_deployment_spec_replicas", KUBE_STATE),
    ("kube_deployment_status_replicas_ready", KUBE_STATE),
    ("kube_daemonset_status_desired_number_scheduled", KUBE_STATE),
    ("kube_daemonset_status_number_ready", KUBE_STATE),
];

/// Alerts that users of KubeVirt know and that do not ship, because nothing exposes what they would look at.
pub const NOT_SHIPPED: &[(&str, &str)] = &[
    ("KubeVirtDeprecatedAPIRequested", "virt-api does not count requests by API version"),
    ("OrphanedVirtualMachineInstances", "virt-controller does not count instances by node and phase"),
    ("VMCannotBeEvicted", "virt-controller does not tell which instances cannot be moved"),
    ("KubeVirtVMIExcessiveMigrations", "virt-controller does not count migrations"),
    ("OutdatedVirtualMachineInstanceWorkloads", "virt-controller does not count instances of earlier versions"),
    ("GuestVCPUQueueHighWarning", "virt-handler exposes no metrics of guests"),
    ("GuestVCPUQueueHighCritical", "virt-handler exposes no metrics of guests"),
    ("VirtualMachineStuckInUnhealthyState", "virt-controller does not tell the states of machines"),
    ("VirtualMachineStuckOnNode", "virt-controller does not tell the states of machines"),
    ("KubeVirtVMGuestMemoryPressure", "virt-handler exposes no metrics of guests"),
    ("GuestFilesystemAlmostOutOfSpace", "virt-handler exposes no metrics of guests"),
    ("KubeVirtVMGuestMemoryAvailableLow", "virt-handler exposes no metrics of guests"),
    ("VMNonRecoverableOSPanic", "virt-handler exposes no metrics of guests"),
];
