//! Ready-made preferences: what a guest's operating system is best served with. Names and values are those that users of
//! KubeVirt know; the objects are made from one table.

use serde_json::{Map, Value, json};

use super::instancetypes::{quantity, texts};
use crate::kinds::Kind;
use crate::object::Object;

/// MiB in a GiB.
const GI: u32 = 1024;

/// The family of an operating system, as launchers are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Linux,
    Windows,
    /// Older than virtual hardware.
    Legacy,
}

/// The firmware a guest prefers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Boot {
    /// Whatever the machine type has.
    Any,
    Efi,
    Secure,
    /// Secure boot whose variables survive a restart, and with them a trusted platform module.
    Trusted,
}

/// What a guest is used for, beyond being one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Server,
    /// With a screen and a pointer.
    Desktop,
    /// Polls its network interfaces.
    PacketProcessing,
    Realtime,
}

/// One preference.
#[derive(Clone, Copy)]
struct Preference {
    name: &'static str,
    title: &'static str,
    family: Family,
    /// What it cannot do with less of: CPUs and MiB. 0: unknown.
    cpus: u32,
    mebibytes: u32,
    boot: Boot,
    used: Use,
    architecture: Option<&'static str>,
    /// The boot disk has a thread of its own.
    disk_thread: bool,
    /// The network interface where it is not the virtual one.
    interface: Option<&'static str>,
    transitional: bool,
    /// Confused by memory-mapped devices above 4 GiB.
    low_devices: bool,
}

const LINUX: Preference = Preference {
    name: "linux",
    title: "Linux",
    family: Family::Linux,
    cpus: 0,
    mebibytes: 0,
    boot: Boot::Any,
    used: Use::Server,
    architecture: None,
    disk_thread: false,
    interface: None,
    transitional: false,
    low_devices: false,
};

const fn linux(name: &'static str, title: &'static str, mebibytes: u32) -> Preference {
    Preference { name, title, cpus: 1, mebibytes, ..LINUX }
}

/// A Linux made to be a guest on the common architecture.
const fn enterprise(name: &'static str, title: &'static str, mebibytes: u32) -> Preference {
    Preference { boot: Boot::Secure, architecture: Some("amd64"), disk_thread: true, ..linux(name, title, mebibytes) }
}

const fn on(architecture: &'static str, one: Preference) -> Preference {
    Preference { architecture: Some(architecture), boot: Boot::Any, ..one }
}

const fn desktop(one: Preference) -> Preference {
    Preference { used: Use::Desktop, ..one }
}

const fn dpdk(one: Preference) -> Preference {
    Preference { used: Use::PacketProcessing, cpus: 8, ..one }
}

const fn threaded(one: Preference) -> Preference {
    Preference { disk_thread: true, ..one }
}

const fn windows(
    name: &'static str,
    title: &'static str,
    mebibytes: u32,
    boot: Boot,
    card: &'static str,
) -> Preference {
    Preference { family: Family::Windows, boot, interface: Some(card), ..linux(name, title, mebibytes) }
}

/// The same Windows with drivers for virtual devices.
const fn with_drivers(name: &'static str, title: &'static str, one: Preference) -> Preference {
    Preference { name, title, interface: None, used: Use::Desktop, ..one }
}

/// MiB that the installers of this family ask for.
const CENTOS: u32 = 1536;
const WINDOWS_10: Preference = windows("windows.10", "Windows 10", 2 * GI, Boot::Secure, "e1000e");
const WINDOWS_11: Preference =
    Preference { cpus: 2, ..windows("windows.11", "Windows 11", 4 * GI, Boot::Trusted, "e1000e") };
const WINDOWS_7: Preference = windows("windows.7", "Windows 7", 2 * GI, Boot::Any, "e1000e");
const WINDOWS_2K8: Preference = windows("windows.2k8", "Windows Server 2008", 512, Boot::Any, "e1000");
const WINDOWS_2K12: Preference = windows("windows.2k12", "Windows Server 2012", 512, Boot::Any, "e1000e");
const WINDOWS_2K16: Preference = windows("windows.2k16", "Windows Server 2016", 2 * GI, Boot::Secure, "e1000e");
const WINDOWS_2K19: Preference = windows("windows.2k19", "Windows Server 2019", 2 * GI, Boot::Secure, "e1000e");
const WINDOWS_2K22: Preference = windows("windows.2k22", "Windows Server 2022", 2 * GI, Boot::Trusted, "e1000e");
const WINDOWS_2K25: Preference = windows("windows.2k25", "Windows Server 2025", 2 * GI, Boot::Trusted, "e1000e");

const PREFERENCES: &[Preference] = &[
    linux("alpine", "Alpine Linux", 512),
    threaded(linux("centos.stream9", "CentOS Stream 9", CENTOS)),
    threaded(desktop(linux("centos.stream9.desktop", "CentOS Stream 9, desktop", CENTOS))),
    threaded(dpdk(linux("centos.stream9.dpdk", "CentOS Stream 9, DPDK", CENTOS))),
    threaded(linux("centos.stream10", "CentOS Stream 10", CENTOS)),
    threaded(desktop(linux("centos.stream10.desktop", "CentOS Stream 10, desktop", CENTOS))),
    linux("cirros", "CirrOS", 256),
    Preference { boot: Boot::Efi, ..linux("debian", "Debian", 512) },
    Preference { disk_thread: false, ..enterprise("fedora", "Fedora, amd64", 2 * GI) },
    on("arm64", linux("fedora.arm64", "Fedora, arm64", 2 * GI)),
    on("s390x", linux("fedora.s390x", "Fedora, s390x", 2 * GI)),
    Preference {
        family: Family::Legacy,
        interface: Some("e1000"),
        name: "legacy",
        title: "A guest without virtual drivers",
        ..LINUX
    },
    LINUX,
    Preference { name: "linux.efi", title: "Linux, started by EFI", boot: Boot::Efi, ..LINUX },
    Preference {
        name: "linux.virtiotransitional",
        title: "Linux with early virtual drivers",
        transitional: true,
        ..LINUX
    },
    linux("opensuse.leap", "openSUSE Leap", 2 * GI),
    linux("opensuse.tumbleweed", "openSUSE Tumbleweed", 2 * GI),
    Preference { cpus: 2, boot: Boot::Efi, ..linux("oraclelinux", "Oracle Linux", 4 * GI) },
    linux("rhel.7", "Red Hat Enterprise Linux 7", GI),
    desktop(linux("rhel.7.desktop", "Red Hat Enterprise Linux 7, desktop", GI)),
    linux("rhel.8", "Red Hat Enterprise Linux 8", CENTOS),
    desktop(linux("rhel.8.desktop", "Red Hat Enterprise Linux 8, desktop", CENTOS)),
    dpdk(linux("rhel.8.dpdk", "Red Hat Enterprise Linux 8, DPDK", CENTOS)),
    enterprise("rhel.9", "Red Hat Enterprise Linux 9, amd64", CENTOS),
    on("arm64", enterprise("rhel.9.arm64", "Red Hat Enterprise Linux 9, arm64", CENTOS)),
    desktop(enterprise("rhel.9.desktop", "Red Hat Enterprise Linux 9, desktop, amd64", CENTOS)),
    dpdk(enterprise("rhel.9.dpdk", "Red Hat Enterprise Linux 9, DPDK, amd64", CENTOS)),
    Preference {
        used: Use::Realtime,
        cpus: 4,
        ..enterprise("rhel.9.realtime", "Red Hat Enterprise Linux 9, realtime, amd64", 4 * GI)
    },
    on("s390x", enterprise("rhel.9.s390x", "Red Hat Enterprise Linux 9, s390x", CENTOS)),
    enterprise("rhel.10", "Red Hat Enterprise Linux 10, amd64", CENTOS),
    on("arm64", enterprise("rhel.10.arm64", "Red Hat Enterprise Linux 10, arm64", CENTOS)),
    on("s390x", enterprise("rhel.10.s390x", "Red Hat Enterprise Linux 10, s390x", CENTOS)),
    linux("sles", "SUSE Linux Enterprise Server", 2 * GI),
    linux("ubuntu", "Ubuntu", 2 * GI),
    WINDOWS_10,
    with_drivers("windows.10.virtio", "Windows 10, virtual drivers", WINDOWS_10),
    WINDOWS_11,
    with_drivers("windows.11.virtio", "Windows 11, virtual drivers", WINDOWS_11),
    WINDOWS_2K12,
    with_drivers("windows.2k12.virtio", "Windows Server 2012, virtual drivers", WINDOWS_2K12),
    WINDOWS_2K16,
    with_drivers("windows.2k16.virtio", "Windows Server 2016, virtual drivers", WINDOWS_2K16),
    WINDOWS_2K19,
    with_drivers("windows.2k19.virtio", "Windows Server 2019, virtual drivers", WINDOWS_2K19),
    WINDOWS_2K22,
    with_drivers("windows.2k22.virtio", "Windows Server 2022, virtual drivers", WINDOWS_2K22),
    WINDOWS_2K25,
    with_drivers("windows.2k25.virtio", "Windows Server 2025, virtual drivers", WINDOWS_2K25),
    Preference { low_devices: true, ..windows("windows.2k3", "Windows Server 2003", 256, Boot::Any, "rtl8139") },
    WINDOWS_2K8,
    with_drivers("windows.2k8.virtio", "Windows Server 2008, virtual drivers", WINDOWS_2K8),
    WINDOWS_7,
    with_drivers("windows.7.virtio", "Windows 7, virtual drivers", WINDOWS_7),
    Preference { low_devices: true, ..windows("windows.xp", "Windows XP", 128, Boot::Any, "e1000e") },
];

/// Every preference.
pub fn all() -> Vec<Object> {
    PREFERENCES.iter().map(object).collect()
}

fn object(one: &Preference) -> Object {
    let os = match one.family {
        Family::Linux => "linux",
        Family::Windows => "windows",
        Family::Legacy => "legacy",
    };
    let mut labels = texts(&[("os-type", os), ("vendor", "kubevirt.io")]);
    let mut annotations = json!({"vm.kubevirt.io/os": os});
    if one.low_devices {
        annotations["kubevirt.io/disablePCIHole64"] = "true".into();
    }
    let mut spec = json!({"annotations": annotations, "devices": devices(one)});
    let mut requirements = Map::new();
    if let Some(architecture) = one.architecture {
        labels.extend(texts(&[
            ("arch", architecture),
            ("preferred-architecture", architecture),
            ("required-architecture", architecture),
        ]));
        spec["preferredArchitecture"] = architecture.into();
        requirements.insert("architecture".into(), architecture.into());
    }
    if one.cpus > 0 {
        let memory = quantity(one.mebibytes);
        labels.extend(texts(&[("required-cpu", &one.cpus.to_string()), ("required-memory", &rounded(one.mebibytes))]));
        requirements.insert("cpu".into(), json!({"guest": one.cpus}));
        requirements.insert("memory".into(), json!({"guest": memory}));
    }
    if !requirements.is_empty() {
        spec["requirements"] = requirements.into();
    }
    if let Some(topology) = topology(one) {
        spec["cpu"] = topology;
    }
    if let Some(features) = features(one) {
        spec["features"] = features;
    }
    if let Some(efi) = match one.boot {
        Boot::Any => None,
        Boot::Efi => Some(json!({"secureBoot": false})),
        Boot::Secure => Some(json!({"secureBoot": true})),
        Boot::Trusted => Some(json!({"secureBoot": true, "persistent": true})),
    } {
        spec["firmware"] = json!({"preferredEfi": efi});
    }
    if one.family == Family::Windows {
        /// Seconds: an update that is being installed while the guest shuts down is not to be cut off.
        const GRACE: u32 = 3_600;
        spec["preferredTerminationGracePeriodSeconds"] = GRACE.into();
        // It keeps local time by ticks, some of which a busy node delivers late.
        spec["clock"] = json!({
            "preferredClockOffset": {"utc": {}},
            "preferredTimer": {
                "hpet": {"present": false},
                "hyperv": {},
                "pit": {"tickPolicy": "delay"},
                "rtc": {"tickPolicy": "catchup"},
            },
        });
    }
    let kind = Kind::VirtualMachineClusterPreference;
    Object::from_value(json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {
            "name": one.name,
            "labels": labels,
            "annotations": {"openshift.io/display-name": one.title, "openshift.io/provider-display-name": "KubeVirt"},
        },
        "spec": spec,
    }))
    .expect("a kind and a name")
}

/// MiB as a label says it: it may have half a GiB in it.
fn rounded(mebibytes: u32) -> String {
    match (mebibytes / GI, mebibytes % GI) {
        (whole @ 1.., half) if half == GI / 2 => format!("{whole}.5Gi"),
        _ => quantity(mebibytes),
    }
}

fn devices(one: &Preference) -> Value {
    let is_windows = one.family == Family::Windows;
    let is_virtual = one.interface.is_none();
    let mut devices = json!({
        "preferredDiskBus": if is_virtual { "virtio" } else { "sata" },
        "preferredInterfaceModel": one.interface.unwrap_or("virtio"),
    });
    let mut set = |name: &str, value: Value| devices[name] = value;
    if one.family == Family::Linux {
        set("preferredRng", json!({}));
    }
    if one.transitional {
        set("preferredUseVirtioTransitional", true.into());
    }
    if one.disk_thread {
        set("preferredDiskDedicatedIoThread", true.into());
    }
    if is_windows || one.used == Use::Desktop {
        set("preferredAutoattachInputDevice", true.into());
    }
    if one.used == Use::Desktop {
        set("preferredInputBus", "virtio".into());
        set("preferredInputType", "tablet".into());
    }
    if is_windows && is_virtual {
        set("preferredVideoType", "virtio".into());
    }
    if one.boot == Boot::Trusted {
        set("preferredTPM", json!({"persistent": true}));
    }
    if matches!(one.used, Use::PacketProcessing | Use::Realtime) {
        set("preferredNetworkInterfaceMultiQueue", true.into());
    }
    if one.used == Use::Realtime {
        set("preferredAutoattachGraphicsDevice", false.into());
        set("preferredAutoattachMemBalloon", false.into());
        set("preferredAutoattachSerialConsole", true.into());
    }
    devices
}

fn topology(one: &Preference) -> Option<Value> {
    match (one.family, one.used) {
        (Family::Windows, _) => Some(json!({"preferredCPUTopology": "sockets"})),
        (_, Use::PacketProcessing) => Some(json!({
            "preferredCPUTopology": "spread",
            "spreadOptions": {"across": "SocketsCoresThreads", "ratio": 4},
        })),
        (_, Use::Realtime) => Some(json!({
            "preferredCPUTopology": "spread",
            "spreadOptions": {"across": "SocketsCoresThreads"},
        })),
        _ => None,
    }
}

fn features(one: &Preference) -> Option<Value> {
    // Secure boot is kept by system management mode.
    let secure = matches!(one.boot, Boot::Secure | Boot::Trusted);
    if one.family != Family::Windows {
        return secure.then(|| json!({"preferredSmm": {}}));
    }
    /// How often a CPU tries for a lock before it tells the hypervisor.
    const SPINS: u32 = 8_191;
    let mut features = json!({
        "preferredAcpi": {},
        "preferredApic": {},
        "preferredHyperv": {
            "frequencies": {}, "ipi": {}, "reenlightenment": {}, "relaxed": {}, "reset": {}, "runtime": {},
            "spinlocks": {"spinlocks": SPINS}, "synic": {}, "synictimer": {"direct": {}}, "tlbflush": {}, "vapic": {},
            "vpindex": {},
        },
    });
    if secure {
        features["preferredSmm"] = json!({});
    }
    Some(features)
}
