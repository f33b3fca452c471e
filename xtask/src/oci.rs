//! Container images and install strategies as OCI image layouts in one tar file, without a daemon and reproducibly: sorted
//! entries, fixed times and owners. The format is the OCI Image Layout 1.0; `ctr images import`, `skopeo` and `podman load`
//! read it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use kubevirt_release::strategy::{ARTIFACT_LAYERS, ARTIFACT_TYPE};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The configuration of what is no image, as OCI Image 1.1 has it: `{}`.
const NO_CONFIG: &str = "application/vnd.oci.empty.v1+json";

/// The user that components run as: any number but 0 satisfies `runAsNonRoot`; this one is in `/etc/passwd` of the image.
const UID: u32 = 1001;

/// One image with one program in it.
pub(crate) struct Image<'a> {
    /// `registry/name:tag`
    pub reference: &'a str,
    /// The program's name, also the entry point.
    pub program: &'a str,
    /// The statically linked program.
    pub binary: &'a Path,
    pub version: &'a str,
}

/// `sha256:<hex>` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// Lower-case hex of the SHA-256 of some bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the image to `out` and returns the manifest's digest.
///
/// # Errors
/// The program cannot be read or `out` cannot be written.
pub(crate) fn write(image: &Image<'_>, out: &Path) -> Result<String> {
    let Image { reference, program, binary, version } = *image;
    let layer = layer(program, binary)?;
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/usr/bin/{program}")],
            "Env": ["PATH=/usr/bin"],
            "User": UID.to_string(),
            "Labels": {"org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0"},
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    }))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
    });
    // Both names are read in the wild: the first by skopeo and podman, the second by containerd.
    let names = json!({"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference});
    archive(&manifest, names, vec![layer, config], out)
}

/// Writes an install strategy, as the text of its file, to `out` and returns the manifest's digest. The operator reads such a
/// layout from its strategy directory.
///
/// # Errors
/// `out` cannot be written.
pub(crate) fn write_strategy(version: &str, file: &str, text: &str, out: &Path) -> Result<String> {
    let (layer, config) = (text.as_bytes().to_vec(), b"{}".to_vec());
    let [yaml, _] = ARTIFACT_LAYERS;
    let mut described = descriptor(yaml, &layer);
    // What the file is called where it is pulled.
    described["annotations"] = json!({"org.opencontainers.image.title": file});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": descriptor(NO_CONFIG, &config),
        "layers": [described],
    });
    archive(&manifest, json!({"org.opencontainers.image.ref.name": version}), vec![layer, config], out)
}

/// Writes a layout with one manifest, of that name, and returns the manifest's digest.
fn archive(manifest: &Value, names: Value, mut blobs: Vec<Vec<u8>>, out: &Path) -> Result<String> {
    let manifest = serde_json::to_vec(manifest)?;
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = names;
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;

    let file = File::create(out).with_context(|| format!("create {}", out.display()))?;
    let mut tar = tar::Builder::new(file);
    let digest = digest(&manifest);
    blobs.push(manifest);
    blobs.sort_by_key(|blob| hex(blob));
    for blob in &blobs {
        append(&mut tar, &format!("blobs/sha256/{}", hex(blob)), 0o644, blob)?;
    }
    append(&mut tar, "index.json", 0o644, &index)?;
    append(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.into_inner()?.flush()?;
    Ok(digest)
}

fn layer(program: &str, binary: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    let mut tar = tar::Builder::new(Vec::new());
    let passwd = format!("root:x:0:0:root:/:/sbin/nologin\nkubevirt:x:{UID}:{UID}:kubevirt:/:/sbin/nologin\n");
    append(&mut tar, "etc/passwd", 0o644, passwd.as_bytes())?;
    append(&mut tar, &format!("usr/bin/{program}"), 0o755, &bytes)?;
    Ok(tar.into_inner()?)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("add {path} to the archive"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kubevirt_release::yaml::to_yaml;
    use kubevirt_release::{DeploymentConfig, Strategy, render};
    use kubevirt_runtime::host::Files;
    use kubevirt_runtime::process::OsFiles;
    use virt_operator::shelf::Shelf;

    use super::*;

    fn entries(path: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let entry = |entry: std::io::Result<tar::Entry<'_, File>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
        };
        archive.entries().unwrap().map(entry).collect()
    }

    #[test]
    fn an_image_is_a_layout_whose_digests_are_true_and_is_the_same_each_time() {
        let dir = std::env::temp_dir().join(format!("kubevirt-rs-oci-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let binary = dir.join("program");
        std::fs::write(&binary, b"#!/bin/true").unwrap();
        let image = Image { reference: "localhost/x/program:v1", program: "program", binary: &binary, version: "v1" };
        let (first, second) = (dir.join("1.tar"), dir.join("2.tar"));
        let digest = write(&image, &first).unwrap();
        assert_eq!(digest, write(&image, &second).unwrap());
        assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());

        let files = entries(&first);
        let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
        let blob = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        let entry = json("index.json")["manifests"][0].clone();
        assert_eq!(entry["digest"], digest.as_str());
        let manifest = json(&blob(&entry["digest"]));
        let config = json(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
            assert_eq!(*name, format!("blobs/sha256/{}", hex(bytes)));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_operator_finds_a_strategy_in_its_archive() {
        let dir = std::env::temp_dir().join(format!("kubevirt-rs-strategy-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let config = DeploymentConfig {
            namespace: "kubevirt".into(),
            registry: "localhost/kubevirt".into(),
            kubevirt_version: "v0.2.0".into(),
            ..DeploymentConfig::default()
        };
        let strategy = render(&config);
        let file = dir.join("strategy.oci.tar");
        write_strategy("v0.2.0", "strategy.yaml", &to_yaml(&[strategy.encode("kubevirt")]), &file).unwrap();
        let layout = dir.join("layout");
        tar::Archive::new(File::open(&file).unwrap()).unpack(&layout).unwrap();
        let files: Arc<dyn Files> = Arc::new(OsFiles);
        let shelf = Shelf::new(&files, Some(layout.to_str().unwrap().to_owned()));
        assert_eq!(shelf.versions(), ["v0.2.0".to_owned()].into());
        let found = shelf.strategy(&config).unwrap().expect("it is there");
        assert_eq!(Strategy::decode(&found.read::<ConfigMap>().unwrap()).unwrap(), strategy);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
