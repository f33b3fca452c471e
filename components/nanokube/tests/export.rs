//! What a cluster holds goes out as YAML and comes back: the same objects with the same uids and owners.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

struct Server {
    child: Child,
    kubeconfig: PathBuf,
}

impl Server {
    fn start(dir: &Path, name: &str, more: &[&str]) -> Self {
        let kubeconfig = dir.join(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_nanokube"))
            .args(["up", "--nodes", "0", "--kubeconfig"])
            .arg(&kubeconfig)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("nanokube starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready "), "{line}");
        Self { child, kubeconfig }
    }

    async fn client(&self) -> Client {
        // Err: another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a config");
        Client::try_from(config).expect("a client")
    }

    fn export(&self, more: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_nanokube"))
            .args(["export", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .args(more)
            .output()
            .expect("nanokube starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        let _ = self.child.wait();
    }
}

fn api(client: &Client, group: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
    if plural == "customresourcedefinitions" {
        Api::all_with(client.clone(), &kind)
    } else {
        Api::default_namespaced_with(client.clone(), &kind)
    }
}

async fn create(api: &Api<DynamicObject>, object: Value) -> DynamicObject {
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("created")
}

/// Documents by kind, namespace and name, without what each server writes anew.
fn documents(text: &str) -> BTreeMap<String, String> {
    let cut = |document: &str| {
        let kept = document.lines().filter(|line| !line.trim_start().starts_with("resourceVersion:"));
        kept.collect::<Vec<_>>().join("\n")
    };
    let name = |document: &str| {
        let of = |start: &str| document.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        [of("kind:"), of("  name:"), of("  namespace:")].concat()
    };
    // Each server has an authority and an address of its own.
    let text = format!("\n{text}");
    let documents = text.split("\n---\n").filter(|document| !document.trim().is_empty());
    let is_own_address = |document: &str| {
        ["kind: Endpoints\n", "kind: EndpointSlice\n"].iter().any(|kind| document.contains(kind))
            && document.contains("\n  name: kubernetes\n")
    };
    let ours = documents.filter(|document| !document.contains("-----BEGIN CERTIFICATE") && !is_own_address(document));
    ours.map(|document| (name(document), cut(document))).collect()
}

#[tokio::test]
async fn objects_survive_a_round_trip_through_a_file() {
    let dir = std::env::temp_dir().join(format!("nanokube-export-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let first = Server::start(&dir, "first", &[]);
    let client = first.client().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gadgets.acme.io"},
        "spec": {"group": "acme.io", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
             "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]},
    });
    create(&api(&client, "apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions"), definition)
        .await;
    let gadgets = api(&client, "acme.io", "Gadget", "gadgets");
    let texts =
        json!({"switch": "on", "octal": "0o17", "number": "1e3", "empty": "", "lines": "a\nb: c\n", "version": "1.10"});
    let gadget = json!({"apiVersion": "acme.io/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": texts});
    let made = create(&gadgets, gadget).await;
    let owner = json!([{"apiVersion": "acme.io/v1", "kind": "Gadget", "name": "g", "uid": made.metadata.uid}]);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": owner}, "data": {"a": "1"}});
    create(&api(&client, "", "ConfigMap", "configmaps"), map).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    create(&api(&client, "", "Secret", "secrets"), secret).await;

    assert!(!first.export(&[]).contains("kind: Secret\n"), "Secrets are left out unless asked for");
    let file = dir.join("objects.yaml");
    first.export(&["--secrets", "--out", file.to_str().expect("text")]);
    let before = std::fs::read_to_string(&file).expect("a file");
    assert!(before.contains("kind: Secret\n") && before.contains("octal: "), "{before}");
    drop(first);

    let second = Server::start(&dir, "second", &["--import", file.to_str().expect("text")]);
    let again = api(&second.client().await, "acme.io", "Gadget", "gadgets").get("g").await.expect("it is back");
    assert_eq!((again.metadata.uid, &again.data["spec"]), (made.metadata.uid, &texts));
    let (before, after) = (documents(&before), documents(&second.export(&["--secrets"])));
    let missing: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (name, document) in &before {
        assert_eq!(&after[name], document, "{name}");
    }

    std::fs::write(&file, "apiVersion: acme.io/v9\nkind: Nothing\nmetadata: {name: x}\n").expect("written");
    let refused = Command::new(env!("CARGO_BIN_EXE_nanokube"))
        .args(["up", "--nodes", "0", "--kubeconfig"])
        .arg(dir.join("third"))
        .args(["--import", file.to_str().expect("text")])
        .output()
        .expect("nanokube starts");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("Nothing x: acme.io/v9 has no such kind"), "{why}");
    let _ = std::fs::remove_dir_all(&dir);
}
