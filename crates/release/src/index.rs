//! What a release says about itself to those who publish and fetch it: `release.json`, `latest`, and the table of
//! releases this program knows.

use serde::{Deserialize, Serialize};

use crate::config::Component;
use crate::image::reference;
use crate::version::semantic;

/// What differs from release to release, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    pub version: &'static str,
    pub virtualization: Virtualization,
}

/// The pair that runs guests, and the distribution it is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Virtualization {
    pub base: &'static str,
    pub libvirt: &'static str,
    pub qemu: &'static str,
}

/// Every release, oldest first.
pub const RELEASES: &[Release] = &[
    Release { version: "v0.1.0", virtualization: Virtualization { base: "bookworm", libvirt: "9.0", qemu: "7.2" } },
    Release { version: "v0.2.0", virtualization: Virtualization { base: "trixie", libvirt: "11.3", qemu: "10.0" } },
];

/// The release a version is made from: itself, or for a version between or after those of the table the newest one
/// before it. A version older than all of them, or one without an order, is made from the newest.
pub fn release_for(version: &str) -> &'static Release {
    let newest = &RELEASES[RELEASES.len() - 1];
    let Some(wanted) = semantic(version) else { return newest };
    RELEASES.iter().rev().find(|r| semantic(r.version).is_some_and(|v| v <= wanted)).unwrap_or(newest)
}

/// `release.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseIndex {
    pub version: String,
    pub components: Vec<ComponentImage>,
    pub virtualization: VirtualizationPair,
    /// Versions in the order they were released, this one last.
    pub order: Vec<String>,
}

/// A component and its image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentImage {
    pub name: String,
    pub image: String,
    /// `sha256:...`, once the image is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// The pair that runs guests, as it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualizationPair {
    pub base: String,
    pub libvirt: String,
    pub qemu: String,
}

impl ReleaseIndex {
    /// The index of a version without digests. `earlier` are the versions released before it, oldest first; what the
    /// table knows of the past is added where it is missing.
    pub fn new(version: &str, registry: &str, prefix: &str, earlier: &[String]) -> Self {
        let Virtualization { base, libvirt, qemu } = release_for(version).virtualization;
        let known = RELEASES.iter().map(|r| r.version.to_string());
        let older = |v: &String| semantic(v).zip(semantic(version)).is_some_and(|(v, this)| v < this);
        let mut order: Vec<String> = known.filter(older).filter(|v| !earlier.contains(v)).collect();
        order.extend(earlier.iter().filter(|v| *v != version).cloned());
        order.push(version.into());
        Self {
            version: version.into(),
            components: Component::ALL
                .iter()
                .map(|c| ComponentImage {
                    name: c.image_name().into(),
                    image: reference(registry, &format!("{prefix}{}", c.image_name()), version),
                    digest: None,
                })
                .collect(),
            virtualization: VirtualizationPair { base: base.into(), libvirt: libvirt.into(), qemu: qemu.into() },
            order,
        }
    }

    /// The text of `release.json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("an index is plain data") + "\n"
    }
}

/// The content of the file `latest`.
pub fn latest_file(version: &str) -> String {
    format!("{version}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_made_from_the_newest_release_before_it() {
        let made_from = |v| release_for(v).version;
        assert_eq!(made_from("v0.1.0"), "v0.1.0");
        assert_eq!(made_from("v0.1.7"), "v0.1.0");
        assert_eq!(made_from("v0.2.0"), "v0.2.0");
        assert_eq!(made_from("v3.0.0"), "v0.2.0");
        assert_eq!(made_from("devel"), "v0.2.0");
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let index = ReleaseIndex::new("v0.2.0", "localhost/kubevirt", "", &[]);
        assert_eq!(index.order, ["v0.1.0", "v0.2.0"]);
        assert_eq!(index.components[0].image, "localhost/kubevirt/virt-operator:v0.2.0");
        assert_eq!(index.virtualization.qemu, "10.0");
        assert_eq!(serde_json::from_str::<ReleaseIndex>(&index.to_json()).unwrap(), index);
    }
}
