//! libvirt's XML to [`Domain`].

use std::str::FromStr;

use super::element::Element;
use super::write::AGENT_CHANNEL;
use super::{
    ALIAS_PREFIX, Accelerator, Balloon, Bus, Cache, Cpu, CpuFeature, CpuModel, Disk, Domain, FeaturePolicy, Format,
    Interface, Medium, Metadata, OnCrash, Serial, Smbios, Source, Topology, WatchdogAction,
};

/// Why a document is no domain of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("not XML: {0}")]
    Xml(String),
    #[error("the domain XML has no {0}")]
    Missing(&'static str),
    #[error("the domain XML says {value:?} for {what}, which this release does not know")]
    Unknown { what: &'static str, value: String },
}

/// The domain a hypervisor describes.
///
/// # Errors
/// When the document is not XML, or a value that a [`Domain`] must hold is missing or unknown.
pub fn read(xml: &str) -> Result<Domain, ReadError> {
    let root = Element::parse(xml)?;
    if root.name != "domain" {
        return Err(ReadError::Missing("domain element"));
    }
    let devices = root.first("devices").ok_or(ReadError::Missing("devices"))?;
    let os = root.at(&["os", "type"]).ok_or(ReadError::Missing("os type"))?;
    let accelerator = match root.get("type") {
        Some("kvm") => Accelerator::Kvm,
        Some("qemu") => Accelerator::Emulation,
        other => return Err(unknown("domain type", other)),
    };
    let memory = root.first("memory").ok_or(ReadError::Missing("memory"))?;
    if memory.get("unit").unwrap_or("KiB") != "KiB" {
        return Err(unknown("memory unit", memory.get("unit")));
    }
    let smbios = match root.at(&["sysinfo", "system"]) {
        Some(system) if root.at(&["os", "smbios"]).is_some() => Some(smbios(system)),
        _ => None,
    };
    let watchdog = devices
        .first("watchdog")
        .filter(|watchdog| watchdog.get("model") == Some("i6300esb"))
        .map(|watchdog| match watchdog.get("action") {
            Some("reset") => Ok(WatchdogAction::Reset),
            Some("poweroff") => Ok(WatchdogAction::Poweroff),
            Some("shutdown") => Ok(WatchdogAction::Shutdown),
            other => Err(unknown("watchdog action", other)),
        })
        .transpose()?;
    Ok(Domain {
        name: text(&root, "name", "name")?,
        uuid: number(&text(&root, "uuid", "uuid")?, "uuid")?,
        accelerator,
        memory_kib: number(memory.text.trim(), "memory")?,
        vcpus: number(text(&root, "vcpu", "vcpu")?.trim(), "vcpu")?,
        machine: os.get("machine").ok_or(ReadError::Missing("machine type"))?.to_owned(),
        smbios,
        cpu: cpu(root.first("cpu").ok_or(ReadError::Missing("cpu"))?)?,
        on_crash: match root.first("on_crash").map(|element| element.text.as_str()) {
            Some("restart") => OnCrash::Restart,
            Some("destroy") | None => OnCrash::Destroy,
            other => return Err(unknown("on_crash", other)),
        },
        disks: devices.all("disk").map(disk).collect::<Result<_, _>>()?,
        interfaces: devices.all("interface").map(interface).collect::<Result<_, _>>()?,
        serial: devices.first("serial").map(serial).transpose()?,
        vnc: devices
            .all("graphics")
            .find(|graphics| graphics.get("type") == Some("vnc"))
            .and_then(|vnc| vnc.get("socket").or_else(|| vnc.first("listen").and_then(|listen| listen.get("socket"))))
            .map(str::to_owned),
        agent: devices
            .all("channel")
            .find(|channel| channel.first("target").and_then(|target| target.get("name")) == Some(AGENT_CHANNEL))
            .and_then(|channel| channel.first("source").and_then(|source| source.get("path")))
            .map(str::to_owned),
        rng: devices.first("rng").is_some(),
        balloon: balloon(devices.first("memballoon"))?,
        watchdog,
        tablet: devices.all("input").any(|input| input.get("type") == Some("tablet")),
        metadata: metadata(root.first("metadata"))?,
    })
}

fn unknown(what: &'static str, value: Option<&str>) -> ReadError {
    ReadError::Unknown { what, value: value.unwrap_or("nothing").to_owned() }
}

fn text(element: &Element, name: &str, what: &'static str) -> Result<String, ReadError> {
    Ok(element.first(name).ok_or(ReadError::Missing(what))?.text.clone())
}

fn number<T: FromStr>(value: &str, what: &'static str) -> Result<T, ReadError> {
    value.parse().map_err(|_| unknown(what, Some(value)))
}

fn attribute<T: FromStr>(element: &Element, name: &str, what: &'static str) -> Result<T, ReadError> {
    number(element.get(name).ok_or(ReadError::Missing(what))?, what)
}

fn required(element: &Element, name: &str, what: &'static str) -> Result<String, ReadError> {
    element.get(name).map(str::to_owned).ok_or(ReadError::Missing(what))
}

fn smbios(system: &Element) -> Smbios {
    let entry =
        |name: &str| system.all("entry").find(|entry| entry.get("name") == Some(name)).map(|entry| entry.text.clone());
    Smbios {
        manufacturer: entry("manufacturer"),
        product: entry("product"),
        version: entry("version"),
        serial: entry("serial"),
        sku: entry("sku"),
        family: entry("family"),
    }
}

fn cpu(element: &Element) -> Result<Cpu, ReadError> {
    let model = match element.get("mode") {
        Some("host-model") => CpuModel::HostModel,
        Some("host-passthrough") => CpuModel::HostPassthrough,
        Some("custom") => CpuModel::Named(text(element, "model", "cpu model")?),
        other => return Err(unknown("cpu mode", other)),
    };
    let topology = element
        .first("topology")
        .map(|topology| {
            Ok(Topology {
                sockets: attribute(topology, "sockets", "sockets")?,
                cores: attribute(topology, "cores", "cores")?,
                threads: attribute(topology, "threads", "threads")?,
            })
        })
        .transpose()?;
    let features = element
        .all("feature")
        .map(|feature| {
            let policy = match feature.get("policy") {
                Some("force") => FeaturePolicy::Force,
                Some("require") => FeaturePolicy::Require,
                Some("optional") => FeaturePolicy::Optional,
                Some("disable") => FeaturePolicy::Disable,
                Some("forbid") => FeaturePolicy::Forbid,
                other => return Err(unknown("cpu feature policy", other)),
            };
            Ok(CpuFeature { name: required(feature, "name", "cpu feature name")?, policy })
        })
        .collect::<Result<_, _>>()?;
    Ok(Cpu { model, topology, features })
}

/// The name behind an alias; a device that somebody else attached keeps the alias libvirt gave it.
fn alias(element: &Element) -> String {
    let alias = element.first("alias").and_then(|alias| alias.get("name")).unwrap_or_default();
    alias.strip_prefix(ALIAS_PREFIX).unwrap_or(alias).to_owned()
}

fn disk(element: &Element) -> Result<Disk, ReadError> {
    let driver = element.first("driver").ok_or(ReadError::Missing("disk driver"))?;
    let target = element.first("target").ok_or(ReadError::Missing("disk target"))?;
    let source = element.first("source").ok_or(ReadError::Missing("disk source"))?;
    Ok(Disk {
        name: alias(element),
        medium: match element.get("device") {
            Some("disk") | None => Medium::Disk,
            Some("cdrom") => Medium::CdRom,
            other => return Err(unknown("disk device", other)),
        },
        bus: match target.get("bus") {
            Some("virtio") => Bus::Virtio,
            Some("sata") => Bus::Sata,
            Some("scsi") => Bus::Scsi,
            Some("usb") => Bus::Usb,
            other => return Err(unknown("disk bus", other)),
        },
        target: required(target, "dev", "disk target name")?,
        source: match element.get("type") {
            Some("file") => Source::File(required(source, "file", "disk file")?),
            Some("block") => Source::Block(required(source, "dev", "disk device")?),
            other => return Err(unknown("disk type", other)),
        },
        format: match driver.get("type") {
            Some("raw") => Format::Raw,
            Some("qcow2") => Format::Qcow2,
            other => return Err(unknown("disk format", other)),
        },
        cache: match driver.get("cache") {
            Some("none") => Cache::None,
            Some("writethrough") => Cache::Writethrough,
            Some("writeback") | None => Cache::Writeback,
            other => return Err(unknown("disk cache", other)),
        },
        read_only: element.first("readonly").is_some(),
        boot_order: element.first("boot").map(|boot| attribute(boot, "order", "boot order")).transpose()?,
    })
}

fn interface(element: &Element) -> Result<Interface, ReadError> {
    if element.get("type") != Some("ethernet") {
        return Err(unknown("interface type", element.get("type")));
    }
    let mac = element.first("mac").ok_or(ReadError::Missing("interface address"))?;
    let target = element.first("target").ok_or(ReadError::Missing("interface target"))?;
    Ok(Interface {
        name: alias(element),
        mac: required(mac, "address", "interface address")?,
        tap: required(target, "dev", "interface target name")?,
        mtu: element.first("mtu").map(|mtu| attribute(mtu, "size", "mtu")).transpose()?,
    })
}

fn serial(element: &Element) -> Result<Serial, ReadError> {
    let source = element.first("source").ok_or(ReadError::Missing("serial source"))?;
    Ok(Serial {
        socket: required(source, "path", "serial socket")?,
        log: element.first("log").and_then(|log| log.get("file")).map(str::to_owned),
    })
}

fn balloon(element: Option<&Element>) -> Result<Option<Balloon>, ReadError> {
    let Some(element) = element.filter(|element| element.get("model") != Some("none")) else { return Ok(None) };
    let stats_period =
        element.first("stats").map(|stats| attribute(stats, "period", "balloon period")).transpose()?.unwrap_or(0);
    Ok(Some(Balloon { stats_period, free_page_reporting: element.get("freePageReporting") == Some("on") }))
}

fn metadata(element: Option<&Element>) -> Result<Option<Metadata>, ReadError> {
    let Some(block) = element.and_then(|metadata| metadata.first("kubevirt:kubevirt")) else { return Ok(None) };
    let grace_period_seconds = block
        .at(&["kubevirt:gracePeriod", "kubevirt:deletionGracePeriodSeconds"])
        .map(|seconds| number(&seconds.text, "grace period"))
        .transpose()?;
    Ok(Some(Metadata { uid: text(block, "kubevirt:uid", "uid in the metadata")?, grace_period_seconds }))
}
