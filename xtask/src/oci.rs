//! Container images as OCI image layouts in one tar file, without a daemon and reproducibly: sorted entries, fixed times
//! and owners. The format is the OCI Image Layout 1.0; `ctr images import`, `skopeo` and `podman load` read it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

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
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
    }))?;
    let mut entry = descriptor(MANIFEST, &manifest);
    // Both names are read in the wild: the first by skopeo and podman, the second by containerd.
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": reference,
        "io.containerd.image.name": reference,
    });
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;

    let file = File::create(out).with_context(|| format!("create {}", out.display()))?;
    let mut tar = tar::Builder::new(file);
    let mut blobs = [layer, config, manifest.clone()];
    blobs.sort_by_key(|blob| hex(blob));
    for blob in &blobs {
        append(&mut tar, &format!("blobs/sha256/{}", hex(blob)), 0o644, blob)?;
    }
    append(&mut tar, "index.json", 0o644, &index)?;
    append(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.into_inner()?.flush()?;
    Ok(digest(&manifest))
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
