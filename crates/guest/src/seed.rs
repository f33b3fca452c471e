//! NoCloud and ConfigDrive images: ISO 9660 with Joliet and Rock Ridge, the same bytes for the same content.

use std::path::Path;

use hadris_fs::{Content, NoClock, Node, Tree};
use hadris_iso::{IsoId, IsoOptions};
use serde::Serialize;

use crate::{Doing, Error, Result};

/// What a guest is told at its first boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seed {
    /// Changes when the guest shall take itself for a new one.
    pub instance_id: String,
    pub hostname: String,
    /// A script (`#!`) or cloud-config.
    pub user_data: String,
    pub network_data: Option<String>,
    pub public_keys: Vec<String>,
}

/// Which of the two conventions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    NoCloud,
    ConfigDrive,
}

impl Convention {
    /// The volume label by which a guest finds the image.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCloud => "cidata",
            Self::ConfigDrive => "config-2",
        }
    }
}

#[derive(Serialize)]
struct NoCloudMetadata<'a> {
    #[serde(rename = "instance-id")]
    instance_id: &'a str,
    #[serde(rename = "local-hostname")]
    hostname: &'a str,
    #[serde(rename = "public-keys", skip_serializing_if = "<[String]>::is_empty")]
    public_keys: &'a [String],
}

#[derive(Serialize)]
struct ConfigDriveMetadata<'a> {
    uuid: &'a str,
    instance_id: &'a str,
    hostname: &'a str,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    public_keys: std::collections::BTreeMap<String, &'a str>,
}

impl Seed {
    /// The files of the image.
    pub fn files(&self, convention: Convention) -> Vec<(&'static str, String)> {
        let Self { instance_id, hostname, user_data, network_data, public_keys } = self;
        let json = |value: serde_json::Result<String>| value.expect("strings are always JSON");
        match convention {
            Convention::NoCloud => {
                let metadata = NoCloudMetadata { instance_id, hostname, public_keys };
                let mut files =
                    vec![("meta-data", json(serde_json::to_string(&metadata))), ("user-data", user_data.clone())];
                files.extend(network_data.iter().map(|data| ("network-config", data.clone())));
                files
            }
            Convention::ConfigDrive => {
                let public_keys =
                    public_keys.iter().enumerate().map(|(index, key)| (index.to_string(), key.as_str())).collect();
                let metadata = ConfigDriveMetadata { uuid: instance_id, instance_id, hostname, public_keys };
                let mut files = vec![
                    ("openstack/latest/meta_data.json", json(serde_json::to_string(&metadata))),
                    ("openstack/latest/user_data", user_data.clone()),
                ];
                files.extend(network_data.iter().map(|data| ("openstack/latest/network_data.json", data.clone())));
                files
            }
        }
    }

    /// Writes the image; `path` never holds half of one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, convention: Convention, path: &Path) -> Result<()> {
        let fault = |error: &dyn std::fmt::Display| Error::Other(format!("cannot build {}: {error}", path.display()));
        let mut tree = Tree::new();
        if convention == Convention::ConfigDrive {
            for directory in ["openstack", "openstack/latest"] {
                tree.insert(directory, Node::dir()).map_err(|error| fault(&error))?;
            }
        }
        for (name, content) in self.files(convention) {
            tree.insert(name, Node::file(Content::bytes(content.into_bytes()))).map_err(|error| fault(&error))?;
        }
        let options = IsoOptions::default()
            .with_id(IsoId::Volume, convention.label())
            .with_joliet()
            .with_rock_ridge()
            .with_time(NoClock::TIME);
        let staging = path.with_extension("staging");
        let doing = || format!("cannot write {}", path.display());
        let file =
            std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&staging).doing(doing)?;
        let device = hadris_storage::host::FileDevice::new(file).doing(doing)?;
        hadris_iso::sync::write(device, &tree, &options).map_err(|error| fault(&error))?;
        std::fs::rename(&staging, path).doing(doing)
    }
}

#[cfg(test)]
mod tests {
    use hadris_fs::sync::Volume;
    use hadris_fs::{MountOptions, OpenOptions};
    use std::io::Read;

    use super::*;

    fn read_back(path: &Path, name: &str) -> String {
        let device = hadris_storage::host::FileDevice::open(path).unwrap();
        let volume = Volume::new(hadris_iso::sync::IsoFs::mount(device, MountOptions::new()).unwrap());
        let mut text = String::new();
        volume.open(format!("/{name}"), OpenOptions::new().read()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn both_conventions_hold_what_was_put_in_and_are_reproducible() {
        let seed = Seed {
            instance_id: "6d1b1b5e".to_owned(),
            hostname: "t1".to_owned(),
            user_data: "#!/bin/sh\necho ok\n".to_owned(),
            network_data: Some("{}".to_owned()),
            public_keys: vec!["ssh-ed25519 AAAA".to_owned()],
        };
        let base = std::env::temp_dir().join(format!("kubevirt-seed-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        for convention in [Convention::NoCloud, Convention::ConfigDrive] {
            let (first, second) = (base.join("first.iso"), base.join("second.iso"));
            seed.write(convention, &first).unwrap();
            seed.write(convention, &second).unwrap();
            assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
            for (name, content) in seed.files(convention) {
                assert_eq!(read_back(&first, name), content, "{name}");
            }
            // The label stands at a fixed place of the volume descriptor.
            let bytes = std::fs::read(&first).unwrap();
            let label = String::from_utf8_lossy(&bytes[32808..32840]).trim_end().to_owned();
            assert_eq!(label, convention.label());
        }
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn metadata_is_what_cloud_init_reads() {
        let seed = Seed { instance_id: "i".to_owned(), hostname: "h".to_owned(), ..Seed::default() };
        let files = seed.files(Convention::NoCloud);
        assert_eq!(files[0], ("meta-data", r#"{"instance-id":"i","local-hostname":"h"}"#.to_owned()));
        let files = seed.files(Convention::ConfigDrive);
        let text = r#"{"uuid":"i","instance_id":"i","hostname":"h"}"#;
        assert_eq!(files[0], ("openstack/latest/meta_data.json", text.to_owned()));
    }
}
