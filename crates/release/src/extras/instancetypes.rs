//! Ready-made instance types: series of one purpose, each in sizes. Names and figures are those that users of KubeVirt
//! know; the objects are made from two tables.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::object::Object;

/// A size: its name, virtual CPUs, memory in MiB.
type Size = (&'static str, u32, u32);

/// MiB in a GiB.
const GI: u32 = 1024;

/// From the smallest to the largest: four GiB for each CPU, less in the sizes below one CPU's worth.
const LADDER: &[Size] = &[
    ("nano", 1, GI / 2),
    ("micro", 1, GI),
    ("small", 1, 2 * GI),
    ("medium", 1, 4 * GI),
    ("2xmedium", 2, 4 * GI),
    ("large", 2, 8 * GI),
    ("xlarge", 4, 16 * GI),
    ("2xlarge", 8, 32 * GI),
    ("4xlarge", 16, 64 * GI),
    ("8xlarge", 32, 128 * GI),
];

/// Two GiB for each CPU.
const COMPUTE: &[Size] = &[
    ("medium", 1, 2 * GI),
    ("large", 2, 4 * GI),
    ("xlarge", 4, 8 * GI),
    ("2xlarge", 8, 16 * GI),
    ("4xlarge", 16, 32 * GI),
    ("8xlarge", 32, 64 * GI),
];

/// Eight GiB for each CPU.
const MEMORY: &[Size] = &[
    ("large", 2, 16 * GI),
    ("xlarge", 4, 32 * GI),
    ("2xlarge", 8, 64 * GI),
    ("4xlarge", 16, 128 * GI),
    ("8xlarge", 32, 256 * GI),
];

/// Two GiB for each CPU, and never fewer than four CPUs: packets need threads.
const NETWORK: &[Size] = &[
    ("medium", 4, 4 * GI),
    ("large", 4, 8 * GI),
    ("xlarge", 8, 16 * GI),
    ("2xlarge", 16, 32 * GI),
    ("4xlarge", 32, 64 * GI),
    ("8xlarge", 64, 128 * GI),
];

/// Which of the [`LADDER`]'s sizes a series has.
const NO_DOUBLE_MEDIUM: &[&str] = &["2xmedium"];
const NO_SMALL_REALTIME: &[&str] = &["nano", "2xmedium"];

/// How a series uses the node's CPUs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cpus {
    Shared,
    /// Whole CPUs of its own, and one more for what the hypervisor does.
    Dedicated,
}

/// How a series uses the node's memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    Ordinary,
    /// Only half of what the guest sees is reserved.
    Overcommitted,
    Gigantic,
    /// Each size twice: in pages of 2 MiB, and under the name with `1gi` in pages of 1 GiB.
    Both,
}

/// A series.
struct Series {
    name: &'static str,
    class: &'static str,
    icon: &'static str,
    title: &'static str,
    about: &'static str,
    sizes: &'static [Size],
    without: &'static [&'static str],
    cpus: Cpus,
    pages: Pages,
    numa: bool,
    realtime: bool,
    /// Disks have threads of their own.
    io_threads: bool,
    /// CPUs are never added later, so none are reserved for that.
    fixed: bool,
    /// The container runtime keeps interrupts and its scheduler away from the CPUs.
    undisturbed: bool,
}

const PLAIN: Series = Series {
    name: "u1",
    class: "general.purpose",
    icon: "pficon-server-group",
    title: "General Purpose",
    about: "For anything without special needs. The guest shares the node's CPUs with its neighbours, its memory is all its own.",
    sizes: LADDER,
    without: &[],
    cpus: Cpus::Shared,
    pages: Pages::Ordinary,
    numa: false,
    realtime: false,
    io_threads: false,
    fixed: false,
    undisturbed: false,
};

const SERIES: &[Series] = &[
    Series {
        name: "cx1",
        class: "compute.exclusive",
        icon: "pficon-registry",
        title: "Compute Exclusive",
        about: "For programs that compute without pause: CPUs of the guest's own, laid out for it as they are on the node, and memory \
                in huge pages. Disks and network are served by further CPUs, so a node has to offer a few more than the size says. \
                CPUs cannot be added while it runs. Nodes need the static CPU manager policy and free huge pages.",
        sizes: COMPUTE,
        cpus: Cpus::Dedicated,
        pages: Pages::Both,
        numa: true,
        io_threads: true,
        fixed: true,
        ..PLAIN
    },
    Series {
        name: "d1",
        class: "dedicated.vcpu",
        title: "Dedicated vCPU",
        about: "The sizes of u1 with CPUs that nobody else runs on, for an even response time. Nodes need the static CPU manager \
                policy.",
        cpus: Cpus::Dedicated,
        io_threads: true,
        ..PLAIN
    },
    Series {
        name: "m1",
        class: "memory.intensive",
        icon: "fa-memory",
        title: "Memory Intensive",
        about: "For caches and databases that live in memory: eight GiB for each CPU, in huge pages, of which nodes need enough free.",
        sizes: MEMORY,
        pages: Pages::Both,
        ..PLAIN
    },
    Series {
        name: "n1",
        class: "network",
        icon: "pficon-network",
        title: "Network",
        about: "For network functions that poll their interfaces (DPDK): CPUs of the guest's own that neither interrupts nor the \
                scheduler disturb, and memory in pages of one GiB. Nodes need the static CPU manager policy, free huge pages of one \
                GiB, and CRI-O with the annotations below.",
        sizes: NETWORK,
        cpus: Cpus::Dedicated,
        pages: Pages::Gigantic,
        undisturbed: true,
        ..PLAIN
    },
    Series {
        name: "o1",
        class: "overcommitted",
        icon: "pficon-virtual-machine",
        title: "Overcommitted",
        about: "The sizes of u1 for many guests on few nodes: a node reserves half of the memory that a guest sees. When guests use \
                it all at once, they get slow or the node ends some of them.",
        without: NO_DOUBLE_MEDIUM,
        pages: Pages::Overcommitted,
        ..PLAIN
    },
    Series {
        name: "rt1",
        class: "realtime",
        title: "Realtime",
        about: "For programs with deadlines: CPUs of the guest's own, laid out as on the node and undisturbed, with a realtime \
                scheduler, and memory in pages of one GiB. Nodes need the static CPU manager policy, free huge pages of one GiB and a \
                realtime kernel.",
        without: NO_SMALL_REALTIME,
        cpus: Cpus::Dedicated,
        pages: Pages::Gigantic,
        numa: true,
        realtime: true,
        undisturbed: true,
        ..PLAIN
    },
    PLAIN,
];

/// Every instance type.
pub fn all() -> Vec<Object> {
    SERIES.iter().flat_map(members).collect()
}

fn members(series: &'static Series) -> impl Iterator<Item = Object> {
    let pages: &[Option<&str>] = match series.pages {
        Pages::Ordinary | Pages::Overcommitted => &[None],
        Pages::Gigantic => &[Some("1Gi")],
        Pages::Both => &[Some("2Mi"), Some("1Gi")],
    };
    let sizes = series.sizes.iter().filter(|(size, _, _)| !series.without.contains(size));
    sizes.flat_map(move |size| pages.iter().map(move |page| member(series, *size, *page)))
}

fn member(series: &Series, (size, cpus, mebibytes): Size, page: Option<&str>) -> Object {
    let size = match page {
        Some("1Gi") if series.pages == Pages::Both => format!("{size}1gi"),
        _ => size.to_owned(),
    };
    let memory = quantity(mebibytes);
    let dedicated = series.cpus == Cpus::Dedicated;
    let mut labels = texts(&[
        ("class", series.class),
        ("cpu", &cpus.to_string()),
        ("icon-pf", series.icon),
        ("memory", &memory),
        ("size", &size),
        ("vendor", "kubevirt.io"),
        ("version", "1"),
    ]);
    let mut spec = json!({"cpu": {"guest": cpus}, "memory": {"guest": memory}});
    if dedicated {
        labels.extend(texts(&[("dedicatedCPUPlacement", "true"), ("isolateEmulatorThread", "true")]));
        spec["cpu"]["dedicatedCPUPlacement"] = true.into();
        spec["cpu"]["isolateEmulatorThread"] = true.into();
    }
    if series.fixed {
        spec["cpu"]["maxSockets"] = cpus.into();
    }
    if series.numa {
        labels.extend(texts(&[("numa", "true")]));
        spec["cpu"]["numa"] = json!({"guestMappingPassthrough": {}});
    }
    if series.realtime {
        labels.extend(texts(&[("realtime", "true")]));
        spec["cpu"]["realtime"] = json!({});
    }
    if let Some(page) = page {
        labels.extend(texts(&[("hugepages", page)]));
        spec["memory"]["hugepages"] = json!({"pageSize": page});
    }
    if series.pages == Pages::Overcommitted {
        spec["memory"]["overcommitPercent"] = 50.into();
    }
    if series.io_threads {
        spec["ioThreadsPolicy"] = "auto".into();
    }
    if series.undisturbed {
        const KEPT_AWAY: [&str; 3] = ["cpu-load-balancing.crio.io", "cpu-quota.crio.io", "irq-load-balancing.crio.io"];
        spec["annotations"] = KEPT_AWAY.iter().map(|key| ((*key).to_owned(), Value::from("disable"))).collect();
    }
    let kind = Kind::VirtualMachineClusterInstancetype;
    Object::from_value(json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {
            "name": format!("{}.{size}", series.name),
            "labels": labels,
            "annotations": texts(&[("description", series.about), ("displayName", series.title)]),
        },
        "spec": spec,
    }))
    .expect("a kind and a name")
}

/// Labels or annotations of the family in which users look for what a type is.
pub(super) fn texts(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs.iter().map(|(key, value)| (format!("instancetype.kubevirt.io/{key}"), Value::from(*value))).collect()
}

/// MiB as users write it.
pub(super) fn quantity(mebibytes: u32) -> String {
    if mebibytes.is_multiple_of(GI) { format!("{}Gi", mebibytes / GI) } else { format!("{mebibytes}Mi") }
}
