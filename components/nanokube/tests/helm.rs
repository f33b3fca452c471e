//! The real Helm installs, upgrades, rolls back and removes a chart. `cargo xtask test` fetches it and runs this.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A chart with what charts have: values, labels of the release, a hook, a Service, something that rolls out.
const CHART: &[(&str, &str)] = &[
    ("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.2.3\nappVersion: \"7\"\n"),
    ("values.yaml", "replicas: 1\nimage: img:1\nport: 80\ngreeting: hello\n"),
    (
        "templates/all.yaml",
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-settings", labels: {release: "{{ .Release.Name }}"}}
data: {greeting: "{{ .Values.greeting }}", revision: "{{ .Release.Revision }}"}
---
apiVersion: v1
kind: Service
metadata: {name: "{{ .Release.Name }}"}
spec: {selector: {app: "{{ .Release.Name }}"}, ports: [{port: {{ .Values.port }}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: "{{ .Release.Name }}"}}
  template:
    metadata: {labels: {app: "{{ .Release.Name }}"}}
    spec: {containers: [{name: main, image: "{{ .Values.image }}"}]}
"#,
    ),
    (
        "templates/before.yaml",
        r#"
apiVersion: v1
kind: ConfigMap
metadata:
  name: "{{ .Release.Name }}-before"
  annotations: {"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/hook-delete-policy": before-hook-creation}
data: {revision: "{{ .Release.Revision }}"}
"#,
    ),
];

/// Where `cargo xtask test` puts Helm, unless the machine has one.
fn helm() -> PathBuf {
    let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools").join("helm");
    if fetched.is_file() { fetched } else { PathBuf::from("helm") }
}

struct World {
    dir: PathBuf,
    nanokube: Child,
}

impl World {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("nanokube-helm-{}", std::process::id()));
        for (file, text) in CHART {
            let path = dir.join("shop").join(file);
            std::fs::create_dir_all(path.parent().expect("in a directory")).expect("a directory");
            std::fs::write(path, text).expect("written");
        }
        let mut nanokube = Command::new(env!("CARGO_BIN_EXE_nanokube"))
            .args(["up", "--nodes", "1", "--idle-image", "img:1", "--idle-image", "img:2", "--kubeconfig"])
            .arg(dir.join("kubeconfig"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("nanokube starts");
        let mut line = String::new();
        BufReader::new(nanokube.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready "), "{line}");
        Self { dir, nanokube }
    }

    fn run(&self, program: &Path, args: &str) -> Result<String, String> {
        let out = Command::new(program)
            .env("KUBECONFIG", self.dir.join("kubeconfig"))
            .env("HOME", &self.dir)
            .current_dir(&self.dir)
            .args(args.split_whitespace())
            .output()
            .expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    fn helm(&self, args: &str) -> Result<String, String> {
        self.run(&helm(), args)
    }

    fn ok(&self, args: &str) -> String {
        self.helm(args).unwrap_or_else(|why| panic!("helm {args}: {why}"))
    }

    /// An object's field, by kubectl's path; empty when the object is not there.
    fn field(&self, object: &str, path: &str) -> String {
        self.run(Path::new("kubectl"), &format!("get {object} -o jsonpath={{{path}}}")).unwrap_or_default()
    }

    /// The states of a release's revisions, oldest first.
    fn history(&self, release: &str) -> Vec<String> {
        let told = self.ok(&format!("history {release} -o json"));
        let entries: Vec<Value> = serde_json::from_str(&told).expect("a list");
        entries.iter().map(|entry| entry["status"].as_str().expect("text").to_owned()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.nanokube.kill();
        let _ = self.nanokube.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
#[ignore = "needs the real Helm, which `cargo xtask test` fetches"]
fn a_chart_lives_from_installation_to_removal() {
    let world = World::start();
    world.ok("lint shop");
    let dry = world.ok("install one shop --dry-run=server");
    assert!(dry.contains("one-settings"), "{dry}");
    assert_eq!(world.field("deployment/one", ".metadata.name"), "", "a dry run makes nothing");

    world.ok("install one shop --wait --timeout 60s");
    assert_eq!(world.field("deployment/one", ".status.readyReplicas"), "1");
    assert_eq!(world.field("configmap/one-before", ".data.revision"), "1", "the hook ran");
    assert_eq!(world.field("deployment/one", ".metadata.labels.app\\.kubernetes\\.io/managed-by"), "Helm");
    let taken = world.helm("install one shop").expect_err("the name is in use");
    assert!(taken.contains("cannot re-use a name"), "{taken}");

    // What somebody else set is merged with what the chart changes.
    world.run(Path::new("kubectl"), "annotate deployment/one who=me").expect("annotated");
    world.ok("upgrade one shop --set replicas=3 --set image=img:2 --wait --timeout 60s");
    assert_eq!(world.field("deployment/one", ".status.updatedReplicas"), "3");
    assert_eq!(world.field("deployment/one", ".metadata.annotations.who"), "me");
    assert_eq!(world.field("configmap/one-before", ".data.revision"), "2", "a hook's object is replaced");
    assert!(world.ok("get manifest one").contains("img:2"));

    let refused = world.helm("upgrade one shop --set port=99999").expect_err("no such port");
    assert!(refused.contains("spec.ports[0].port"), "{refused}");
    assert_eq!(world.history("one"), ["superseded", "deployed", "failed"]);

    world.ok("rollback one 1 --wait --timeout 60s");
    assert_eq!(world.field("deployment/one", ".spec.template.spec.containers[0].image"), "img:1");
    assert_eq!(world.field("deployment/one", ".spec.replicas"), "1");
    assert_eq!(world.history("one"), ["superseded", "superseded", "failed", "deployed"]);

    world.ok("uninstall one --wait --timeout 60s");
    // Pods end by themselves, after their owners.
    world.run(Path::new("kubectl"), "wait --for=delete pod -l app=one --timeout=60s").expect("gone");
    assert_eq!(world.field("deployment,service,replicaset,pod -l app=one", ".items[*].metadata.name"), "");
    assert_eq!(
        world.field("deployments,configmaps,secrets -A", ".items[?(@.metadata.namespace=='default')].metadata.name"),
        "kube-root-ca.crt one-before"
    );
    assert_eq!(world.ok("list -q --all"), "");
}
