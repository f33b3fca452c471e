//! Writes a release: manifests, images, `virtctl`, `release.json`, checksums, and `latest`. A release appears whole or
//! not at all: it is made beside its place and moved there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use kubevirt_release::index::{ReleaseIndex, latest_file};
use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_release::version::{Direction, direction};
use kubevirt_release::yaml::to_yaml;
use kubevirt_release::{DeploymentConfig, render};

use crate::{oci, paths, setup, term};

/// The one platform that images are built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The profile of Cargo.toml for them.
const PROFILE: &str = "image";
/// An image holds nothing but the program, so that holds the C library, too. Tables for unwinding are of no use where a
/// panic ends the process. At a fixed address nothing is relocated, so tables of functions stay pages of the file instead of
/// becoming copies of it, and functions that came out the same are kept once.
const FLAGS: &[&str] = &[
    "-C target-feature=+crt-static",
    "-C force-unwind-tables=no",
    "-C relocation-model=static",
    "-C link-arg=-Wl,--icf=all",
];
/// What the allocator of a program in an image is told: one arena without caches of threads keeps 0.7 MB less of what a leader
/// has freed, and whoever is at rest does not notice that each piece takes a lock.
const ALLOCATOR: (&str, &str) =
    ("JEMALLOC_SYS_WITH_MALLOC_CONF", "narenas:1,tcache:false,dirty_decay_ms:1000,muzzy_decay_ms:0");
/// The install strategy as the operator reads it from a directory, and as tools for registries copy it.
const STRATEGY: &str = "install-strategy.yaml";
/// See [`STRATEGY`].
const STRATEGY_ARCHIVE: &str = "install-strategy.oci.tar";
/// Components whose images hold a program of this repository.
pub(crate) const PROGRAMS: &[&str] = &["virt-operator", "virt-api", "virt-controller", "virt-handler"];

#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// The version, `vX.Y.Z`
    #[arg(long)]
    version: String,
    /// Where to write: `OUT/VERSION/` and `OUT/latest`
    #[arg(long)]
    out: PathBuf,
    /// Leave out what has to be compiled: images and virtctl
    #[arg(long)]
    manifests_only: bool,
    /// The registry that the manifests name
    #[arg(long, default_value = "localhost/kubevirt")]
    registry: String,
    /// Copy the images to the registry, with skopeo
    #[arg(long, conflicts_with = "manifests_only")]
    push: bool,
}

impl Options {
    /// The release the demo publishes: nothing to compile, images that simulated nodes know.
    pub(crate) fn manifests_only(version: &str, out: &Path) -> Self {
        Self {
            version: version.to_owned(),
            out: out.to_path_buf(),
            manifests_only: true,
            registry: "localhost/kubevirt".to_owned(),
            push: false,
        }
    }
}

/// Writes the release and lists what was written.
///
/// # Errors
/// The version is malformed, something does not build, or cannot be written.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.push {
        setup::need("skopeo", "skopeo", "to copy images to a registry")?;
    }
    term::heading(&format!("Release {}", options.version));
    let written = write(options)?;
    term::output(&written.join("\n"));
    if options.push { push(options) } else { Ok(()) }
}

/// Writes the release and returns the paths of its files.
///
/// # Errors
/// As [`run`].
pub(crate) fn write(options: &Options) -> Result<Vec<String>> {
    let Options { version, out, manifests_only, registry, push: _ } = options;
    check_version(version)?;
    let (place, partial) = (out.join(version), out.join(format!(".{version}.partial")));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;

    let manifest = ManifestOptions::new(registry, version);
    put(&partial, "kubevirt-operator.yaml", &to_yaml(&operator_manifest(&manifest)))?;
    put(&partial, "kubevirt-cr.yaml", &to_yaml(&[cr_manifest(&manifest.namespace)]))?;
    // For clusters that cannot pull another version's operator.
    let config = DeploymentConfig {
        namespace: manifest.namespace.clone(),
        registry: registry.clone(),
        kubevirt_version: version.clone(),
        ..DeploymentConfig::default()
    };
    let strategy = to_yaml(&[render(&config).encode(&manifest.namespace)]);
    put(&partial, STRATEGY, &strategy)?;
    oci::write_strategy(version, STRATEGY, &strategy, &partial.join(STRATEGY_ARCHIVE))?;
    let mut index = ReleaseIndex::new(version, registry, "", &published(out)?);
    // The index lists what the release contains; a component without a program of its own has no image yet.
    index.components.retain(|component| PROGRAMS.contains(&component.name.as_str()));
    if !manifests_only {
        let programs = programs()?;
        fs::create_dir_all(partial.join("images"))?;
        for component in &mut index.components {
            let image = oci::Image {
                reference: &component.image,
                program: &component.name,
                binary: &programs.join(&component.name),
                version,
            };
            let file = partial.join("images").join(format!("{}.oci.tar", component.name));
            component.digest = Some(oci::write(&image, &file)?);
        }
        fs::copy(programs.join("virtctl"), partial.join("virtctl")).context("copy virtctl")?;
        fs::set_permissions(partial.join("virtctl"), fs::Permissions::from_mode(0o755))?;
    }
    put(&partial, "release.json", &index.to_json())?;
    let sums = checksums(&partial)?;
    let lines: String = sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect();
    put(&partial, "SHA256SUMS", &lines)?;

    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("replace {}", place.display()))?;
    }
    fs::rename(&partial, &place).with_context(|| format!("move the release to {}", place.display()))?;
    update_latest(out, version)?;
    let files = sums.keys().map(String::as_str).chain(["SHA256SUMS"]);
    let mut written: Vec<String> = files.map(|file| place.join(file).display().to_string()).collect();
    written.push(out.join("latest").display().to_string());
    Ok(written)
}

fn check_version(version: &str) -> Result<()> {
    let numbers: Vec<&str> = version.strip_prefix('v').unwrap_or_default().split('.').collect();
    let plain = |number: &&str| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    ensure!(numbers.len() == 3 && numbers.iter().all(plain), "--version {version}: a version looks like v1.2.3");
    Ok(())
}

/// Builds every program of a release, and gives where they lie.
///
/// # Errors
/// The build fails.
pub(crate) fn programs() -> Result<PathBuf> {
    build(PROGRAMS.iter().copied().chain(["virtctl"]))
}

/// Compiles programs as a release holds them, and returns the folder they are in.
///
/// # Errors
/// Something does not compile.
pub(crate) fn build<'a>(packages: impl IntoIterator<Item = &'a str>) -> Result<PathBuf> {
    let mut command = paths::cargo();
    command.args(["build", "--profile", PROFILE, "--locked", "--target", TARGET]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", FLAGS.join(" "));
    command.env(ALLOCATOR.0, ALLOCATOR.1);
    term::command(&format!("cargo build --profile {PROFILE} --target {TARGET} (static)"));
    ensure!(command.status().context("run cargo build")?.success(), "the release does not build");
    Ok(paths::target()?.join(TARGET).join(PROFILE))
}

/// Versions that were published to this place before.
fn published(out: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(out) else { return Ok(Vec::new()) };
    let mut versions = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if check_version(&name).is_ok() {
            versions.push(name);
        }
    }
    versions.sort_by_key(|version| kubevirt_release::version::semantic(version));
    Ok(versions)
}

/// A patch of an old line does not become the newest release by being published last.
fn update_latest(out: &Path, version: &str) -> Result<()> {
    let path = out.join("latest");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let none: &[&str] = &[];
    if before.is_empty() || direction(before.trim(), version, none) != Direction::Downgrade {
        let partial = out.join(".latest.partial");
        fs::write(&partial, latest_file(version))?;
        fs::rename(&partial, &path).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn put(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// SHA-256 of every file below a folder by its path from there.
fn checksums(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).expect("walked from there").to_string_lossy().into_owned();
            sums.insert(name, oci::hex(&fs::read(&path)?));
        }
    }
    Ok(sums)
}

fn push(options: &Options) -> Result<()> {
    let place = options.out.join(&options.version);
    let images = PROGRAMS.iter().map(|program| (*program, place.join("images").join(format!("{program}.oci.tar"))));
    for (name, file) in images.chain([("install-strategy", place.join(STRATEGY_ARCHIVE))]) {
        let source = format!("oci-archive:{}", file.display());
        let target = format!("docker://{}/{name}:{}", options.registry, options.version);
        term::command(&format!("skopeo copy {source} {target}"));
        let status =
            Command::new("skopeo").args(["copy", "--quiet", &source, &target]).status().context("run skopeo")?;
        if !status.success() {
            bail!("{target}: skopeo copy: {status}");
        }
    }
    Ok(())
}
