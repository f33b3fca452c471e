//! Root file systems of the two releases, from Debian packages. One is built once and kept in the build directory; what it
//! was made from is part of its name, so that a changed recipe is a new build.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Doing, Result, create_dir, run, write};

/// The user every launcher runs as.
pub const LAUNCHER_UID: u32 = 107;

/// Times of files in an image: none of them says anything, so all are the same.
const IMAGE_TIME: u64 = 1_700_000_000;

/// A release's pair of libvirt and QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The Debian release it comes from.
    pub suite: &'static str,
    packages: &'static [&'static str],
}

/// The pair of v0.1.0: libvirt 9.0 and QEMU 7.2.
pub const OLD: Pair =
    Pair { suite: "bookworm", packages: &["libvirt-daemon", "libvirt-daemon-driver-qemu", "qemu-system-x86"] };

/// The pair of v0.2.0: libvirt 11.3 and QEMU 10.0.
pub const NEW: Pair = Pair {
    suite: "trixie",
    packages: &["libvirt-daemon", "libvirt-daemon-log", "libvirt-daemon-driver-qemu", "qemu-system-x86"],
};

/// Grows when the recipe below changes.
const RECIPE: u32 = 1;

/// Where packages come from.
pub(crate) const MIRROR: &str = "http://deb.debian.org/debian";

/// Where a pair's file system is or will be.
pub fn path(cache: &Path, pair: Pair) -> PathBuf {
    cache.join(format!("{}-{RECIPE}", pair.suite))
}

/// Builds the file system unless it is there. Needs root, because its files belong to their owners.
///
/// # Errors
/// When the packages cannot be had.
pub fn ensure(cache: &Path, pair: Pair) -> Result<PathBuf> {
    let done = path(cache, pair);
    if done.is_dir() {
        return Ok(done);
    }
    create_dir(cache)?;
    let building = cache.join(format!("{}.building", pair.suite));
    if building.exists() {
        std::fs::remove_dir_all(&building).doing(|| format!("cannot remove {}", building.display()))?;
    }
    run(Command::new("mmdebstrap")
        .env("SOURCE_DATE_EPOCH", IMAGE_TIME.to_string())
        .args(["--variant=essential", "--aptopt=APT::Install-Recommends \"false\""])
        .arg(format!("--include={}", pair.packages.join(",")))
        // Documentation goes, copyright files stay: the licences ask for them.
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
        .arg(pair.suite)
        .arg(&building)
        .arg(MIRROR))?;
    // libvirtd refuses to run as a user it cannot find.
    let user = format!("qemu:x:{LAUNCHER_UID}:{LAUNCHER_UID}:launcher:/run/private:/usr/sbin/nologin\n");
    append_unless(&building.join("etc/passwd"), &user)?;
    append_unless(&building.join("etc/group"), &format!("qemu:x:{LAUNCHER_UID}:\n"))?;
    std::fs::rename(&building, &done).doing(|| format!("cannot rename to {}", done.display()))?;
    Ok(done)
}

fn append_unless(path: &Path, line: &str) -> Result<()> {
    let mut text = std::fs::read_to_string(path).doing(|| format!("cannot read {}", path.display()))?;
    if !text.contains(line) {
        text.push_str(line);
        write(path, text.as_bytes())?;
    }
    Ok(())
}

/// A layer as an image's manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// SHA-256 of the compressed file, without prefix.
    pub digest: String,
    /// SHA-256 of the tar inside.
    pub diff_id: String,
    pub size: u64,
}

/// What a package manager needs and a launcher does not, or what differs from build to build.
const LEFT_OUT: &[&str] = &[
    "var/cache",
    "var/log",
    "var/lib/apt/lists",
    "var/lib/dpkg/info",
    "var/cache/ldconfig",
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
];

/// Packs a file system as a gzipped OCI layer: the same packages give the same bytes.
///
/// # Errors
/// When a file cannot be read or the layer not be written.
pub fn pack(root: &Path, layer: &Path) -> Result<Layer> {
    let doing = || format!("cannot pack {}", root.display());
    let file = File::create(layer).doing(doing)?;
    let compressed = Hashing::new(io::BufWriter::new(file));
    let gzip = GzEncoder::new(compressed, Compression::fast());
    let mut archive = tar::Builder::new(Hashing::new(gzip));
    archive.follow_symlinks(false);
    append(&mut archive, root, Path::new("")).doing(doing)?;
    let (gzip, diff_id, _) = archive.into_inner().doing(doing)?.finish();
    let (mut file, digest, size) = gzip.finish().doing(doing)?.finish();
    file.flush().doing(doing)?;
    Ok(Layer { digest, diff_id, size })
}

fn append<W: Write>(archive: &mut tar::Builder<W>, root: &Path, below: &Path) -> io::Result<()> {
    let mut names: Vec<_> = std::fs::read_dir(root.join(below))?.collect::<io::Result<Vec<_>>>()?;
    names.sort_by_key(std::fs::DirEntry::file_name);
    for entry in names {
        let name = below.join(entry.file_name());
        let metadata = std::fs::symlink_metadata(entry.path())?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(metadata.permissions().mode() & 0o7777);
        header.set_uid(u64::from(metadata.uid()));
        header.set_gid(u64::from(metadata.gid()));
        header.set_mtime(IMAGE_TIME);
        header.set_size(0);
        let left_out = LEFT_OUT.iter().any(|path| name == Path::new(path));
        if metadata.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            archive.append_data(&mut header, &name, io::empty())?;
            if !left_out {
                append(archive, root, &name)?;
            }
        } else if metadata.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut header, &name, std::fs::read_link(entry.path())?)?;
        } else if metadata.is_file() {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(metadata.len());
            archive.append_data(&mut header, &name, File::open(entry.path())?.take(metadata.len()))?;
        }
        // Devices and sockets belong to the container runtime.
    }
    Ok(())
}

/// Counts and hashes what passes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        let digest = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, digest, self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_layer_whenever_they_were_written() {
        let base = std::env::temp_dir().join(format!("kubevirt-layer-{}", std::process::id()));
        let mut digests = Vec::new();
        for build in ["a", "b"] {
            let root = base.join(build);
            std::fs::create_dir_all(root.join("usr/bin")).unwrap();
            std::fs::create_dir_all(root.join("var/log")).unwrap();
            std::fs::write(root.join("var/log/built"), build).unwrap();
            for name in if build == "a" { ["x", "y"] } else { ["y", "x"] } {
                std::fs::write(root.join("usr/bin").join(name), name).unwrap();
            }
            std::os::unix::fs::symlink("x", root.join("usr/bin/link")).unwrap();
            digests.push(pack(&root, &base.join("layer.tar.gz")).unwrap());
        }
        assert_eq!(digests[0], digests[1]);
        let listed = run(Command::new("tar").arg("-tzf").arg(base.join("layer.tar.gz"))).unwrap();
        assert_eq!(
            listed.lines().collect::<Vec<_>>().join(" "),
            "usr usr/bin usr/bin/link usr/bin/x usr/bin/y var var/log"
        );
        std::fs::remove_dir_all(base).unwrap();
    }
}
