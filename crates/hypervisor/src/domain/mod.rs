//! A virtual machine as a typed value. [`write`] turns it into libvirt's domain XML, [`read`] takes back what a
//! hypervisor reports. Reading what was written gives the same value; what a hypervisor adds on its own (bus addresses,
//! PCI controllers) is passed over.

mod element;
mod read;
#[cfg(test)]
mod tests;
mod write;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use read::{ReadError, read};
pub use write::write;

/// The namespace of our own block in a domain's metadata.
pub const METADATA_NAMESPACE: &str = "http://kubevirt.io";

/// Everything a launcher decides about a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// `<namespace>_<instance>`.
    pub name: String,
    /// The firmware's UUID; the guest sees it.
    pub uuid: Uuid,
    pub accelerator: Accelerator,
    pub memory_kib: u64,
    pub vcpus: u32,
    /// A versioned machine type, such as `pc-q35-7.2`: a bare `q35` would change its meaning with the release.
    pub machine: String,
    pub smbios: Option<Smbios>,
    pub cpu: Cpu,
    pub on_crash: OnCrash,
    pub disks: Vec<Disk>,
    pub interfaces: Vec<Interface>,
    pub serial: Option<Serial>,
    /// Path of the VNC socket; a display adapter comes with it.
    pub vnc: Option<String>,
    /// Path of the guest agent's socket.
    pub agent: Option<String>,
    pub rng: bool,
    pub balloon: Option<Balloon>,
    pub watchdog: Option<WatchdogAction>,
    /// An absolute pointing device, so that a VNC client's pointer is where the user's is.
    pub tablet: bool,
    pub metadata: Option<Metadata>,
}

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accelerator {
    Kvm,
    /// QEMU's own translator.
    Emulation,
}

/// What the guest's firmware tells about the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smbios {
    pub manufacturer: Option<String>,
    pub product: Option<String>,
    pub version: Option<String>,
    pub serial: Option<String>,
    pub sku: Option<String>,
    pub family: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    pub model: CpuModel,
    pub topology: Option<Topology>,
    /// Features asked for on top of the model.
    pub features: Vec<CpuFeature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuModel {
    /// The nearest named model of this host, resolved when the guest starts.
    HostModel,
    /// This host's processor as it is; the guest moves only to identical hosts.
    HostPassthrough,
    /// A named model, exactly.
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuFeature {
    pub name: String,
    pub policy: FeaturePolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeaturePolicy {
    Force,
    Require,
    Optional,
    Disable,
    Forbid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnCrash {
    Destroy,
    Restart,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The volume's name; it becomes the device's alias and survives a migration.
    pub name: String,
    pub medium: Medium,
    pub bus: Bus,
    /// `vda`, `sda`, ...
    pub target: String,
    pub source: Source,
    pub format: Format,
    pub cache: Cache,
    pub read_only: bool,
    /// 1 is tried first.
    pub boot_order: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Medium {
    Disk,
    CdRom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bus {
    Virtio,
    Sata,
    Scsi,
    Usb,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    File(String),
    Block(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    Raw,
    Qcow2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cache {
    /// Where the file system supports direct IO.
    None,
    Writethrough,
    Writeback,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The network's name; it becomes the device's alias.
    pub name: String,
    pub mac: String,
    /// A tap device that exists already and that the launcher's user may open.
    pub tap: String,
    pub mtu: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serial {
    pub socket: String,
    /// Everything the guest wrote, kept.
    pub log: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balloon {
    /// Seconds between two statistics of the guest's memory; 0 asks for none.
    pub stats_period: u32,
    pub free_page_reporting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchdogAction {
    Reset,
    Poweroff,
    Shutdown,
}

/// What the suite writes into a domain for its own use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The instance's UID in the cluster.
    pub uid: String,
    pub grace_period_seconds: Option<u64>,
}

/// Prefix libvirt demands of aliases that a user chose.
pub(crate) const ALIAS_PREFIX: &str = "ua-";

impl Domain {
    /// A UUID made from a number, for guests whose firmware nobody else knows.
    pub fn uuid_from(number: u128) -> Uuid {
        // The version and variant bits make it a valid one; a zero UUID is none.
        Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0000 | number)
    }

    /// Where the guest can be talked to.
    pub fn endpoints(&self) -> crate::hypervisor::Endpoints {
        crate::hypervisor::Endpoints {
            console: self.serial.as_ref().map(|serial| serial.socket.clone()),
            vnc: self.vnc.clone(),
            agent: self.agent.clone(),
        }
    }
}
