//! A pod's volumes as files. Secrets, ConfigMaps, fields of the pod and the token are written again when they change, all
//! files of a volume at one moment: they lie in a directory that one symbolic link names, and the link is replaced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, KeyToPath, Volume};
use tokio::time::Instant;
use tracing::warn;

use super::{Shared, create_private};
use crate::environment::Sources as _;
use crate::pod::{Context, token};
use crate::volumes::{NamespaceSources, PodFiles};

/// The link that names the directory with the present files.
const DATA: &str = "..data";
/// A token lives an hour (and the odd seconds by which API servers know a mounted one) and is renewed after four fifths.
pub(crate) const TOKEN_SECONDS: i64 = 3607;
const RENEW_AFTER: Duration = Duration::from_secs(3607 / 5 * 4);
/// Pause after a failed renewal: the token has twelve more minutes.
const RETRY: Duration = Duration::from_secs(15);
/// Several changes at once are written once.
const SETTLE: Duration = Duration::from_millis(100);

/// Where a container's absolute paths are.
pub(crate) fn container_root(shared: &Shared, uid: &str, container: &str) -> PathBuf {
    shared.pod_dir(uid).join("roots").join(container)
}

fn uid_of(context: &Context) -> String {
    context.pod().metadata.uid.clone().unwrap_or_default()
}

/// Writes all volumes of a pod and lays out the containers' roots.
///
/// # Errors
/// The file system refuses; the text says where.
pub(crate) fn mount(context: &Context, shared: &Shared, token: &str) -> Result<(), String> {
    let pod = context.pod();
    let dir = shared.pod_dir(&uid_of(context));
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let spec = pod.spec.clone().unwrap_or_default();
    for volume in spec.volumes.iter().flatten() {
        let path = dir.join("volumes").join(&volume.name);
        match &volume.host_path {
            Some(host) => {
                let node = shared.options.dir.join("hosts").join(&context.machine.name);
                let source = node.join(host.path.trim_start_matches('/'));
                create_private(&source).map_err(|error| failed(&source, error))?;
                let parent = path.parent().unwrap_or(&path);
                create_private(parent).map_err(|error| failed(parent, error))?;
                link(&source, &path).map_err(|error| failed(&path, error))?;
            }
            None => create_private(&path).map_err(|error| failed(&path, error))?,
        }
    }
    write(context, shared, token)?;
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let root = container_root(shared, &uid_of(context), &container.name);
        lay_out(&root, &dir.join("volumes"), container).map_err(|error| failed(&root, error))?;
    }
    Ok(())
}

/// The container's mounts as links; outer ones first, so that inner ones come to lie in them.
fn lay_out(root: &Path, volumes: &Path, container: &Container) -> io::Result<()> {
    create_private(root)?;
    let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
    mounts.sort_by_key(|mount| mount.mount_path.len());
    for mount in mounts {
        let at = root.join(mount.mount_path.trim_matches('/'));
        let source = match mount.sub_path.as_deref().filter(|sub| !sub.is_empty()) {
            Some(sub) => volumes.join(&mount.name).join(sub),
            None => volumes.join(&mount.name),
        };
        if let Some(parent) = at.parent() {
            create_private(parent)?;
        }
        link(&source, &at)?;
    }
    Ok(())
}

/// A symbolic link, replaced at one moment if it is there.
fn link(source: &Path, at: &Path) -> io::Result<()> {
    let mut name = at.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = at.with_file_name(name);
    // Err: nothing is left of an earlier attempt.
    let _ = std::fs::remove_file(&new);
    std::os::unix::fs::symlink(source, &new)?;
    std::fs::rename(&new, at)
}

/// Writes the volumes whose content comes from the API, if it is not what is there.
fn write(context: &Context, shared: &Shared, token: &str) -> Result<(), String> {
    let pod = context.pod();
    let spec = pod.spec.clone().unwrap_or_default();
    let volumes = spec.volumes.unwrap_or_default();
    let known = Arc::new(OnceLock::from(token.to_owned()));
    let files = PodFiles {
        fleet: context.fleet.clone(),
        pod: context.pod.clone(),
        namespace: context.namespace.clone(),
        container: Container::default(),
        token: known,
    };
    for volume in &volumes {
        let from_api = volume.secret.is_some()
            || volume.config_map.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        if !from_api {
            continue;
        }
        let sources = NamespaceSources { fleet: &context.fleet, namespace: &context.namespace };
        let content: BTreeMap<String, Vec<u8>> = paths(volume, &sources)
            .into_iter()
            .filter_map(|path| files.in_volume(volume, &path).map(|content| (path, content)))
            .collect();
        let dir = shared.pod_dir(&uid_of(context)).join("volumes").join(&volume.name);
        publish(&dir, &content).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    Ok(())
}

/// The paths of the files in a volume.
fn paths(volume: &Volume, sources: &NamespaceSources<'_>) -> Vec<String> {
    let of_items = |items: Option<&Vec<KeyToPath>>, keys: Vec<String>| match items {
        Some(items) if !items.is_empty() => items.iter().map(|item| item.path.clone()).collect(),
        _ => keys,
    };
    let secret = |name: &str, items: Option<&Vec<KeyToPath>>| {
        let data = sources.secret(name).and_then(|secret| secret.data).unwrap_or_default();
        of_items(items, data.into_keys().collect())
    };
    let config_map = |name: &str, items: Option<&Vec<KeyToPath>>| {
        let map = sources.config_map(name).unwrap_or_default();
        let (data, binary) = (map.data.unwrap_or_default(), map.binary_data.unwrap_or_default());
        of_items(items, data.into_keys().chain(binary.into_keys()).collect())
    };
    if let Some(source) = &volume.secret {
        return secret(source.secret_name.as_deref().unwrap_or_default(), source.items.as_ref());
    }
    if let Some(source) = &volume.config_map {
        return config_map(&source.name, source.items.as_ref());
    }
    if let Some(source) = &volume.downward_api {
        return source.items.iter().flatten().map(|item| item.path.clone()).collect();
    }
    let mut found = Vec::new();
    for part in volume.projected.iter().flat_map(|source| source.sources.iter().flatten()) {
        if let Some(part) = &part.secret {
            found.extend(secret(&part.name, part.items.as_ref()));
        }
        if let Some(part) = &part.config_map {
            found.extend(config_map(&part.name, part.items.as_ref()));
        }
        if let Some(part) = &part.downward_api {
            found.extend(part.items.iter().flatten().map(|item| item.path.clone()));
        }
        if let Some(part) = &part.service_account_token {
            found.push(part.path.clone());
        }
    }
    found
}

/// Whether a path from a manifest stays inside its volume.
fn stays_inside(path: &str) -> bool {
    use std::path::Component;
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Makes a volume's directory show exactly these files.
fn publish(dir: &Path, content: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let content: BTreeMap<&String, &Vec<u8>> = content.iter().filter(|(path, _)| stays_inside(path)).collect();
    let data = dir.join(DATA);
    let old = std::fs::read_link(&data).ok();
    let same = |old: &PathBuf| {
        let there = listed(&dir.join(old)).unwrap_or_default();
        there.len() == content.len()
            && content.iter().all(|(path, text)| there.contains(path) && read_is(&data.join(path), text))
    };
    if old.as_ref().is_some_and(same) {
        return Ok(());
    }
    let number = old.as_ref().and_then(|old| old.to_str()?.strip_prefix("..v")?.parse::<u64>().ok()).unwrap_or(0) + 1;
    let version = format!("..v{number}");
    let new = dir.join(&version);
    // Err: no earlier attempt was broken off here.
    let _ = std::fs::remove_dir_all(&new);
    create_private(&new)?;
    for (path, text) in &content {
        let file = new.join(path);
        create_private(file.parent().unwrap_or(&new))?;
        std::fs::write(file, text)?;
    }
    link(Path::new(&version), &data)?;
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: std::collections::BTreeSet<String> = content.keys().map(|path| first(path)).collect();
    for name in &wanted {
        let at = dir.join(name);
        if std::fs::symlink_metadata(&at).is_err() {
            link(&Path::new(DATA).join(name), &at)?;
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            std::fs::remove_file(dir.join(name))?;
        }
    }
    if let Some(old) = old {
        std::fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

fn read_is(file: &Path, text: &[u8]) -> bool {
    std::fs::read(file).is_ok_and(|found| found == text)
}

/// The paths of all files below a directory.
fn listed(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            found.extend(listed(&entry.path())?.into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name);
        }
    }
    Ok(found)
}

/// Writes changes of Secrets, ConfigMaps and the pod, and renews the token, for as long as the pod lives.
pub(crate) async fn keep(context: Arc<Context>, shared: Arc<Shared>, mut current: String) {
    let mut sources = context.fleet.sources.subscribe();
    let mut pod = context.pod.clone();
    let mut renewal = Instant::now() + RENEW_AFTER;
    loop {
        tokio::select! {
            changed = sources.changed() => if changed.is_err() { return },
            changed = pod.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(renewal) => match token(&context, TOKEN_SECONDS).await {
                Ok(new) => {
                    current = new;
                    renewal = Instant::now() + RENEW_AFTER;
                }
                Err(error) => {
                    warn!(pod = context.full_name, %error, "token not renewed, trying again");
                    renewal = Instant::now() + RETRY;
                }
            },
        }
        tokio::time::sleep(SETTLE).await;
        sources.borrow_and_update();
        pod.borrow_and_update();
        if let Err(error) = write(&context, &shared, &current) {
            warn!(pod = context.full_name, error, "volumes not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_change_at_one_moment_and_leave() {
        let dir = std::env::temp_dir().join(format!("volume-{}", std::process::id()));
        create_private(&dir).expect("a directory");
        let of = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect::<BTreeMap<_, _>>()
        };
        publish(&dir, &of(&[("tls.crt", "a"), ("tls.key", "b"), ("deep/er", "c"), ("../out", "d")])).expect("written");
        assert_eq!(std::fs::read(dir.join("deep/er")).expect("a file"), b"c");
        assert!(!dir.with_file_name("out").exists(), "nothing is written outside");
        let before = std::fs::read_link(dir.join(DATA)).expect("a link");
        publish(&dir, &of(&[("tls.crt", "a"), ("tls.key", "b"), ("deep/er", "c")])).expect("nothing to do");
        assert_eq!(std::fs::read_link(dir.join(DATA)).expect("a link"), before);
        publish(&dir, &of(&[("tls.crt", "A")])).expect("written");
        assert_eq!(std::fs::read(dir.join("tls.crt")).expect("a file"), b"A");
        let mut names: Vec<_> =
            std::fs::read_dir(&dir).expect("entries").map(|entry| entry.expect("one").file_name()).collect();
        names.sort();
        assert_eq!(names, ["..data", "..v2", "tls.crt"]);
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
