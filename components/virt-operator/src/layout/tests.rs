//! Layouts as tools write them into a real directory, whole and damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kubevirt_release::{DeploymentConfig, Strategy, render, yaml};
use serde_json::{Value, json};

use super::*;
use crate::shelf::Shelf;

/// The files of this machine.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// A layout in a directory of its own, which goes with it.
struct Made {
    dir: PathBuf,
    index: Vec<Value>,
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Made {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("kubevirt-rs-layout-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a directory");
        let made = Self { dir, index: Vec::new() };
        made.put("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}));
        made
    }

    fn dir(&self) -> &str {
        self.dir.to_str().expect("a plain path")
    }

    fn put(&self, name: &str, value: &Value) {
        fs::write(self.dir.join(name), value.to_string()).expect("written");
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = format!("sha256:{}", hex(bytes));
        fs::write(self.path(&digest), bytes).expect("written");
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// Adds an artifact with layers, and says so in the index; gives the digests of its manifest and of the layers.
    fn artifact(&mut self, layers: &[(&str, &str)], describe: impl FnOnce(&mut Value, &mut Value)) -> Vec<String> {
        let layers: Vec<Value> = layers.iter().map(|(kind, text)| self.blob(kind, text.as_bytes())).collect();
        let config = self.blob("application/vnd.oci.empty.v1+json", b"{}");
        let mut manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": ARTIFACT_TYPE, "config": config, "layers": layers});
        let mut around = json!({"artifactType": ARTIFACT_TYPE});
        describe(&mut manifest, &mut around);
        let mut entry = self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        entry.as_object_mut().expect("an object").extend(around.as_object().expect("an object").clone());
        let digest = |value: &Value| value["digest"].as_str().expect("a digest").to_owned();
        let digests = [digest(&entry)].into_iter().chain(layers.iter().map(digest)).collect();
        self.index.push(entry);
        self.put("index.json", &json!({"schemaVersion": 2, "manifests": self.index}));
        digests
    }

    /// As `oras push --oci-layout DIR:VERSION` names it.
    fn strategy(&mut self, version: &str, text: &str) -> Vec<String> {
        let named = json!({REFERENCE: version});
        self.artifact(&[(ARTIFACT_LAYERS[0], text)], |_, entry| entry["annotations"] = named)
    }

    fn shelf(&self) -> Shelf {
        let files: Arc<dyn Files> = Arc::new(Disk);
        Shelf::new(&files, Some(format!("{}/", self.dir())))
    }
}

fn config(version: &str) -> DeploymentConfig {
    DeploymentConfig {
        namespace: "kubevirt".into(),
        registry: "r".into(),
        kubevirt_version: version.into(),
        ..DeploymentConfig::default()
    }
}

fn text(version: &str) -> String {
    yaml::to_yaml(&[serde_json::to_value(render(&config(version)).encode("elsewhere")).expect("data")])
}

#[test]
fn a_strategy_is_taken_out_by_its_version() {
    let mut made = Made::new("whole");
    made.strategy("v9", &text("v9"));
    made.strategy("registry.example/strategies:v8", &text("v8"));
    // An older tool, which says what it is in the manifest alone, and gives the version as such.
    let named = json!({VERSION: "v7", REFERENCE: "latest"});
    made.artifact(&[(ARTIFACT_LAYERS[1], &text("v7"))], |_, entry| *entry = json!({"annotations": named}));
    // Images are no strategies, whatever their tag.
    let image = json!({REFERENCE: "registry.example/virt-api:v6"});
    made.artifact(&[("application/vnd.oci.image.layer.v1.tar", "x")], |manifest, entry| {
        manifest.as_object_mut().expect("an object").remove("artifactType");
        *entry = json!({"annotations": image});
    });
    let shelf = made.shelf();
    assert_eq!(shelf.versions(), ["v7", "v8", "v9"].map(str::to_owned).into());
    for version in ["v7", "v8", "v9"] {
        let found = shelf.strategy(&config(version)).expect("whole").expect("it is there");
        assert_eq!(found.key().to_string(), format!("ConfigMap kubevirt/kubevirt-install-strategy-{version}"));
        let strategy = Strategy::decode(&found.read::<ConfigMap>().expect("a ConfigMap")).expect("read");
        assert_eq!(strategy, render(&config(version)));
    }
    for version in ["v6", "latest", "v10"] {
        assert_eq!(shelf.strategy(&config(version)).expect("whole"), None, "{version}");
    }
}

fn refused(made: &Made, version: &str) -> LayoutError {
    let layout = Layout::find(&Disk, made.dir()).expect("readable").expect("a layout");
    layout.strategy(version).expect_err("it is refused")
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_damaged_blob_is_refused_whole_and_named() {
    let mut made = Made::new("damaged");
    let digests = made.strategy("v9", &text("v9"));
    made.strategy("v8", &text("v8"));
    for digest in digests.iter().rev() {
        flip(&made.path(digest));
        let error = refused(&made, "v9");
        assert!(matches!(&error, LayoutError::Damaged { digest: named, .. } if named == digest), "{error}");
        let told = made.shelf().strategy(&config("v9")).expect_err("not even in part").to_string();
        assert!(told.contains(digest.as_str()), "{told}");
        assert!(made.shelf().versions().contains("v9"), "that it should be there is known");
        assert!(made.shelf().strategy(&config("v8")).expect("whole").is_some(), "the other one is of use");
        flip(&made.path(digest));
    }
    assert!(made.shelf().strategy(&config("v9")).expect("whole again").is_some());
    // Of an older tool's entry nobody can tell what it is; who wants it is told.
    let named = json!({VERSION: "v7"});
    let older = made.artifact(&[(ARTIFACT_LAYERS[0], &text("v7"))], |_, entry| *entry = json!({"annotations": named}));
    flip(&made.path(&older[0]));
    assert!(matches!(refused(&made, "v7"), LayoutError::Damaged { digest, .. } if digest == older[0]));
    assert!(!made.shelf().versions().contains("v7"));
    // The same bytes with some more behind them.
    let longer = made.path(&digests[1]);
    let mut bytes = fs::read(&longer).expect("a blob");
    bytes.push(b'\n');
    fs::write(&longer, bytes).expect("written");
    assert!(matches!(refused(&made, "v9"), LayoutError::Damaged { .. }));
    fs::remove_file(&longer).expect("removed");
    let error = refused(&made, "v9").to_string();
    assert!(error.contains(digests[1].trim_start_matches("sha256:")), "{error}");
}

#[test]
fn what_is_no_layout_of_a_strategy_is_told() {
    let mut made = Made::new("odd");
    made.artifact(&[(ARTIFACT_LAYERS[0], "a"), (ARTIFACT_LAYERS[1], "b")], |_, entry| {
        entry["annotations"] = json!({VERSION: "two"});
    });
    assert!(matches!(refused(&made, "two"), LayoutError::Layers { found: 2, .. }));
    made.artifact(&[], |_, entry| entry["annotations"] = json!({VERSION: "none"}));
    assert!(matches!(refused(&made, "none"), LayoutError::Layers { found: 0, .. }));
    made.strategy("twice", "a: 1");
    made.strategy("twice", "a: 2");
    assert!(matches!(refused(&made, "twice"), LayoutError::Ambiguous { digests, .. } if digests.len() == 2));

    let entry = |digest: &str, size: u64| {
        json!({"mediaType": "m", "artifactType": ARTIFACT_TYPE, "digest": digest, "size": size,
            "annotations": {VERSION: "v1"}})
    };
    let other = |entry: Value| {
        made.put("index.json", &json!({"manifests": [entry]}));
        refused(&made, "v1")
    };
    let elsewhere = format!("sha256:../../{}", "a".repeat(58));
    for digest in [elsewhere.as_str(), "sha512:abc", "sha256:abc", "abc"] {
        assert!(matches!(other(entry(digest, 1)), LayoutError::Digest { .. }), "{digest}");
    }
    let whole = format!("sha256:{}", "a".repeat(64));
    assert!(matches!(other(entry(&whole, LARGEST + 1)), LayoutError::TooLarge { .. }));
    assert!(matches!(other(json!({"digest": 1})), LayoutError::Malformed { .. }));

    made.put("oci-layout", &json!({"imageLayoutVersion": "2.0.0"}));
    assert!(matches!(Layout::find(&Disk, made.dir()), Err(LayoutError::Format { found }) if found == "2.0.0"));
    fs::remove_file(made.dir.join("oci-layout")).expect("removed");
    assert!(Layout::find(&Disk, made.dir()).expect("nothing speaks against it").is_none());
}
