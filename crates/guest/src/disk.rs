//! The tiny guest: Debian's cloud kernel and a busybox user land on a bootable disk. Built without root.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::{Compression, GzBuilder};

use crate::{Doing, Error, Result, create_dir, run, write};

/// Grows when anything below or in `assets/` changes what is on the disk.
const RECIPE: u32 = 3;

/// The whole disk: kernel, initial file system, boot loader.
const DISK_KIB: u32 = 24 * 1024;

/// What the guest's devices need; what these need in turn is looked up in the modules themselves.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio-rng",
    "virtio_balloon",
    "isofs",
    "evdev",
    "button",
];

const INIT: &str = include_str!("../assets/init");
const UDHCPC: &str = include_str!("../assets/udhcpc.sh");
const SYSLINUX: &str = include_str!("../assets/syslinux.cfg");

/// Where the disk is or will be.
pub fn path(cache: &Path) -> PathBuf {
    cache.join(format!("guest-{RECIPE}.img"))
}

/// Builds the disk unless it is there.
///
/// # Errors
/// When the kernel cannot be fetched or a tool fails.
pub fn ensure(cache: &Path) -> Result<PathBuf> {
    let done = path(cache);
    if done.is_file() {
        return Ok(done);
    }
    let work = cache.join("guest.building");
    if work.exists() {
        std::fs::remove_dir_all(&work).doing(|| format!("cannot remove {}", work.display()))?;
    }
    create_dir(&work)?;
    let kernel = fetch_kernel(&work)?;
    let image = work.join("guest.img");
    let initrd = work.join("initrd");
    write(&initrd, &initial_file_system(&kernel)?)?;
    let config = work.join("syslinux.cfg");
    write(&config, SYSLINUX.as_bytes())?;
    // No partition table: the boot sector of the file system is the disk's.
    run(Command::new("mkfs.fat")
        .args(["-C", "-F", "16", "-n", "GUEST", "-i", "6b760001", "--invariant"])
        .arg(&image)
        .arg(DISK_KIB.to_string()))?;
    for (file, name) in [(&kernel.image, "vmlinuz"), (&initrd, "initrd"), (&config, "syslinux.cfg")] {
        run(Command::new("mcopy").arg("-i").arg(&image).arg(file).arg(format!("::{name}")))?;
    }
    run(Command::new("syslinux").arg("--install").arg(&image))?;
    std::fs::rename(&image, &done).doing(|| format!("cannot rename to {}", done.display()))?;
    std::fs::remove_dir_all(&work).doing(|| format!("cannot remove {}", work.display()))?;
    Ok(done)
}

struct Kernel {
    image: PathBuf,
    /// Name without suffix, and where it is.
    modules: BTreeMap<String, PathBuf>,
}

/// Debian's current cloud kernel of this machine's release, unpacked and not installed.
fn fetch_kernel(work: &Path) -> Result<Kernel> {
    let depends = run(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(|rest| format!("linux-image-{rest}"))
        .ok_or_else(|| Error::Other("apt knows no linux-image-cloud-amd64; run: apt-get update".to_owned()))?;
    run(Command::new("apt-get").args(["download", &package]).current_dir(work))?;
    let archive = files(work)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| Error::Other(format!("apt-get download {package} left no file")))?;
    let root = work.join("kernel");
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root))?;
    let image = files(&root.join("boot"))?
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .ok_or_else(|| Error::Other(format!("{package} has no kernel")))?;
    let mut modules = BTreeMap::new();
    let mut open = vec![root.join("lib/modules")];
    while let Some(directory) = open.pop() {
        for path in files(&directory)? {
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
                modules.insert(canonical(name), path);
            }
        }
    }
    Ok(Kernel { image, modules })
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("cannot list {}", directory.display());
    let entries = std::fs::read_dir(directory).doing(doing)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().doing(doing)?;
    paths.sort();
    Ok(paths)
}

/// The kernel takes both spellings for one name.
fn canonical(module: &str) -> String {
    module.replace('-', "_")
}

/// What a module's own description says it needs.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(canonical).collect()
}

/// Modules in an order in which they load.
fn load_order(available: &BTreeMap<String, PathBuf>) -> Result<Vec<(String, Vec<u8>)>> {
    fn add(name: &str, available: &BTreeMap<String, PathBuf>, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        if order.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let path = available
            .get(name)
            .ok_or_else(|| Error::Other(format!("the kernel has no module {name}, which the guest needs")))?;
        let content = std::fs::read(path).doing(|| format!("cannot read {}", path.display()))?;
        for needed in needs(&content) {
            add(&needed, available, order)?;
        }
        order.push((name.to_owned(), content));
        Ok(())
    }
    let mut order = Vec::new();
    for name in MODULES {
        add(&canonical(name), available, &mut order)?;
    }
    Ok(order)
}

fn initial_file_system(kernel: &Kernel) -> Result<Vec<u8>> {
    let busybox = std::fs::read("/bin/busybox").doing(|| "cannot read /bin/busybox".to_owned())?;
    let mut archive = Cpio::default();
    for directory in ["bin", "etc", "etc/acpi", "etc/acpi/PWRF", "modules", "root", "dev", "proc", "sys", "run", "tmp"]
    {
        archive.add(directory, 0o040_755, &[]);
    }
    archive.add("init", 0o100_755, INIT.as_bytes());
    archive.add("bin/busybox", 0o100_755, &busybox);
    archive.add("etc/udhcpc.sh", 0o100_755, UDHCPC.as_bytes());
    archive.add("etc/passwd", 0o100_644, b"root::0:0:root:/root:/bin/sh\n");
    archive.add("etc/group", 0o100_644, b"root:x:0:\n");
    archive.add("etc/issue", 0o100_644, b"kubevirt-rs test guest\n");
    archive.add("etc/acpi/PWRF/00000080", 0o100_755, b"#!/bin/sh\nexec poweroff -f\n");
    let mut order = String::new();
    for (name, content) in load_order(&kernel.modules)? {
        archive.add(&format!("modules/{name}.ko"), 0o100_644, &content);
        order.push_str(&format!("{name}.ko\n"));
    }
    archive.add("modules/order", 0o100_644, order.as_bytes());
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(&archive.finish()).doing(|| "cannot compress".to_owned())?;
    gzip.finish().doing(|| "cannot compress".to_owned())
}

/// The archive format the kernel unpacks its first files from.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    number: u32,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.number += 1;
        let links = 1;
        let fields = [self.number, mode, 0, 0, links, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.number = 0;
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(needs(b"xx\0depends=virtio,virtio-ring\0name=x\0"), ["virtio", "virtio_ring"]);
        assert!(needs(b"xx\0depends=\0name=x\0").is_empty());
        assert!(needs(b"nothing").is_empty());
    }

    #[test]
    fn the_archive_is_aligned_and_ends_with_the_trailer() {
        let mut archive = Cpio::default();
        archive.add("a", 0o040_755, &[]);
        archive.add("a/b", 0o100_644, b"content");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"070701"));
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("a/b\0") && text.contains("content") && text.contains("TRAILER!!!"));
    }
}
