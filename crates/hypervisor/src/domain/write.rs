//! [`Domain`] to libvirt's XML.

use super::element::Element;
use super::{
    ALIAS_PREFIX, Accelerator, Balloon, Bus, Cache, Cpu, CpuModel, Disk, Domain, FeaturePolicy, Format, Interface,
    METADATA_NAMESPACE, Medium, Metadata, OnCrash, Serial, Smbios, Source, WatchdogAction,
};

/// The domain as libvirt reads it.
pub fn write(domain: &Domain) -> String {
    let Domain {
        name,
        uuid,
        accelerator,
        memory_kib,
        vcpus,
        machine,
        smbios,
        cpu: processor,
        on_crash,
        disks,
        interfaces,
        serial: serial_port,
        vnc,
        agent,
        rng,
        balloon: ballooning,
        watchdog,
        tablet,
        metadata: ours,
    } = domain;
    let kind = match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Emulation => "qemu",
    };
    let mut os = Element::new("os")
        .child(Element::new("type").attribute("arch", "x86_64").attribute("machine", machine).text("hvm"));
    if smbios.is_some() {
        os = os.child(Element::new("smbios").attribute("mode", "sysinfo"));
    }
    let crash = match on_crash {
        OnCrash::Destroy => "destroy",
        OnCrash::Restart => "restart",
    };
    let mut devices = Element::new("devices")
        .child(Element::new("emulator").text("/usr/bin/qemu-system-x86_64"))
        .children(disks.iter().map(disk))
        .child(match tablet {
            true => Element::new("controller").attribute("type", "usb").attribute("model", "qemu-xhci"),
            false => Element::new("controller").attribute("type", "usb").attribute("model", "none"),
        })
        .child(Element::new("controller").attribute("type", "virtio-serial").attribute("index", 0))
        .children(interfaces.iter().map(interface));
    if let Some(port) = serial_port {
        devices = devices.child(serial(port));
    }
    if let Some(path) = agent {
        devices = devices.child(
            Element::new("channel")
                .attribute("type", "unix")
                .child(Element::new("source").attribute("mode", "bind").attribute("path", path))
                .child(Element::new("target").attribute("type", "virtio").attribute("name", AGENT_CHANNEL)),
        );
    }
    if *tablet {
        devices = devices.child(Element::new("input").attribute("type", "tablet").attribute("bus", "usb"));
    }
    if let Some(path) = vnc {
        devices =
            devices
                .child(
                    Element::new("graphics")
                        .attribute("type", "vnc")
                        .child(Element::new("listen").attribute("type", "socket").attribute("socket", path)),
                )
                .child(Element::new("video").child(
                    Element::new("model").attribute("type", "vga").attribute("vram", 16384).attribute("heads", 1),
                ));
    }
    if let Some(action) = watchdog {
        let action = match action {
            WatchdogAction::Reset => "reset",
            WatchdogAction::Poweroff => "poweroff",
            WatchdogAction::Shutdown => "shutdown",
        };
        devices = devices.child(Element::new("watchdog").attribute("model", "i6300esb").attribute("action", action));
    }
    if *rng {
        devices = devices.child(
            Element::new("rng")
                .attribute("model", "virtio-non-transitional")
                .child(Element::new("backend").attribute("model", "random").text("/dev/urandom")),
        );
    }
    devices = devices.child(balloon(ballooning.as_ref()));

    let mut root = Element::new("domain")
        .attribute("type", kind)
        .child(Element::new("name").text(name))
        .child(Element::new("uuid").text(uuid));
    if let Some(block) = ours {
        root = root.child(Element::new("metadata").child(metadata(block)));
    }
    root = root
        .child(Element::new("memory").attribute("unit", "KiB").text(memory_kib))
        .child(Element::new("currentMemory").attribute("unit", "KiB").text(memory_kib))
        .child(Element::new("vcpu").attribute("placement", "static").text(vcpus));
    if let Some(table) = smbios {
        root = root.child(sysinfo(table, &uuid.to_string()));
    }
    root.child(os)
        .child(Element::new("features").child(Element::new("acpi")).child(Element::new("apic")))
        .child(cpu(processor))
        .child(clock())
        .child(Element::new("on_poweroff").text("destroy"))
        .child(Element::new("on_reboot").text("restart"))
        .child(Element::new("on_crash").text(crash))
        .child(devices)
        .to_xml()
}

/// The name a guest agent looks for.
pub(super) const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// Clocks a guest expects of a PC; the high precision timer only costs wake-ups.
fn clock() -> Element {
    let timer = |name: &str| Element::new("timer").attribute("name", name);
    Element::new("clock")
        .attribute("offset", "utc")
        .child(timer("rtc").attribute("tickpolicy", "catchup"))
        .child(timer("pit").attribute("tickpolicy", "delay"))
        .child(timer("hpet").attribute("present", "no"))
}

fn metadata(block: &Metadata) -> Element {
    let Metadata { uid, grace_period_seconds } = block;
    let mut element = Element::new("kubevirt:kubevirt")
        .attribute("xmlns:kubevirt", METADATA_NAMESPACE)
        .child(Element::new("kubevirt:uid").text(uid));
    if let Some(seconds) = grace_period_seconds {
        element = element.child(
            Element::new("kubevirt:gracePeriod")
                .child(Element::new("kubevirt:deletionGracePeriodSeconds").text(seconds)),
        );
    }
    element
}

fn sysinfo(table: &Smbios, uuid: &str) -> Element {
    let Smbios { manufacturer, product, version, serial, sku, family } = table;
    let entry = |name: &str, value: &str| Element::new("entry").attribute("name", name).text(value);
    let mut system = Element::new("system");
    for (name, value) in
        [("manufacturer", manufacturer), ("product", product), ("version", version), ("serial", serial)]
    {
        if let Some(value) = value {
            system = system.child(entry(name, value));
        }
    }
    system = system.child(entry("uuid", uuid));
    for (name, value) in [("sku", sku), ("family", family)] {
        if let Some(value) = value {
            system = system.child(entry(name, value));
        }
    }
    Element::new("sysinfo").attribute("type", "smbios").child(system)
}

fn cpu(cpu: &Cpu) -> Element {
    let Cpu { model, topology, features } = cpu;
    let mut element = match model {
        CpuModel::HostModel => Element::new("cpu").attribute("mode", "host-model").attribute("check", "partial"),
        CpuModel::HostPassthrough => {
            Element::new("cpu").attribute("mode", "host-passthrough").attribute("check", "none")
        }
        // Without a check: the emulator lacks features that the model's definition lists, and libvirt would refuse.
        CpuModel::Named(name) => Element::new("cpu")
            .attribute("mode", "custom")
            .attribute("match", "exact")
            .attribute("check", "none")
            .child(Element::new("model").attribute("fallback", "forbid").text(name)),
    };
    if let Some(topology) = topology {
        element = element.child(
            Element::new("topology")
                .attribute("sockets", topology.sockets)
                .attribute("dies", 1)
                .attribute("cores", topology.cores)
                .attribute("threads", topology.threads),
        );
    }
    element.children(features.iter().map(|feature| {
        let policy = match feature.policy {
            FeaturePolicy::Force => "force",
            FeaturePolicy::Require => "require",
            FeaturePolicy::Optional => "optional",
            FeaturePolicy::Disable => "disable",
            FeaturePolicy::Forbid => "forbid",
        };
        Element::new("feature").attribute("policy", policy).attribute("name", &feature.name)
    }))
}

fn disk(disk: &Disk) -> Element {
    let Disk { name, medium, bus, target, source, format, cache, read_only, boot_order } = disk;
    let device = match medium {
        Medium::Disk => "disk",
        Medium::CdRom => "cdrom",
    };
    let format = match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
    };
    let cache = match cache {
        Cache::None => "none",
        Cache::Writethrough => "writethrough",
        Cache::Writeback => "writeback",
    };
    let bus = match bus {
        Bus::Virtio => "virtio",
        Bus::Sata => "sata",
        Bus::Scsi => "scsi",
        Bus::Usb => "usb",
    };
    let (kind, source) = match source {
        Source::File(path) => ("file", Element::new("source").attribute("file", path)),
        Source::Block(path) => ("block", Element::new("source").attribute("dev", path)),
    };
    let mut element = Element::new("disk")
        .attribute("type", kind)
        .attribute("device", device)
        .child(
            Element::new("driver")
                .attribute("name", "qemu")
                .attribute("type", format)
                .attribute("cache", cache)
                // A full or failing volume stops the guest instead of corrupting it.
                .attribute("error_policy", "stop")
                .attribute("discard", "unmap"),
        )
        .child(source)
        .child(Element::new("target").attribute("dev", target).attribute("bus", bus));
    if *read_only {
        element = element.child(Element::new("readonly"));
    }
    if let Some(order) = boot_order {
        element = element.child(Element::new("boot").attribute("order", order));
    }
    element.child(alias(name))
}

fn interface(interface: &Interface) -> Element {
    let Interface { name, mac, tap, mtu } = interface;
    let mut element = Element::new("interface")
        .attribute("type", "ethernet")
        .child(Element::new("mac").attribute("address", mac))
        .child(Element::new("target").attribute("dev", tap).attribute("managed", "no"))
        .child(Element::new("model").attribute("type", "virtio-non-transitional"));
    if let Some(mtu) = mtu {
        element = element.child(Element::new("mtu").attribute("size", mtu));
    }
    // No option ROM: it would be one more file that has to be the same on both sides of a migration.
    element.child(alias(name)).child(Element::new("rom").attribute("enabled", "no"))
}

fn serial(serial: &Serial) -> Element {
    let Serial { socket, log } = serial;
    let mut element = Element::new("serial")
        .attribute("type", "unix")
        .child(Element::new("source").attribute("mode", "bind").attribute("path", socket));
    if let Some(log) = log {
        element = element.child(Element::new("log").attribute("file", log).attribute("append", "on"));
    }
    element.child(Element::new("target").attribute("port", 0))
}

fn balloon(balloon: Option<&Balloon>) -> Element {
    let Some(Balloon { stats_period, free_page_reporting }) = balloon else {
        return Element::new("memballoon").attribute("model", "none");
    };
    let mut element = Element::new("memballoon").attribute("model", "virtio-non-transitional");
    if *free_page_reporting {
        element = element.attribute("freePageReporting", "on");
    }
    if *stats_period > 0 {
        element = element.child(Element::new("stats").attribute("period", stats_period));
    }
    element
}

fn alias(name: &str) -> Element {
    Element::new("alias").attribute("name", format!("{ALIAS_PREFIX}{name}"))
}
