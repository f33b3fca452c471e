//! The real `kubectl` walks through what people do all day. Skipped, with a word, where there is none; `cargo xtask test`
//! installs it first.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

struct World {
    dir: PathBuf,
    nanokube: Child,
}

struct Said {
    well: bool,
    out: String,
    err: String,
}

impl World {
    /// A cluster with one simulated node; nothing where there is no `kubectl`.
    fn start(name: &str) -> Option<Self> {
        if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
            eprintln!("SKIPPED: kubectl is not installed; `cargo xtask test` installs it");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("nanokube-kubectl-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut nanokube = Command::new(env!("CARGO_BIN_EXE_nanokube"))
            .args(["up", "--nodes", "1", "--idle-image", "img:1", "--idle-image", "img:2", "--kubeconfig"])
            .arg(dir.join("kubeconfig"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("nanokube starts");
        let mut line = String::new();
        BufReader::new(nanokube.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready "), "{line}");
        Some(Self { dir, nanokube })
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new("kubectl");
        let cache = self.dir.join("cache");
        command.env("KUBECONFIG", self.dir.join("kubeconfig")).env("HOME", &self.dir).env("KUBECACHEDIR", cache);
        command.args(args.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn say_with(&self, args: &str, input: &str) -> Said {
        let mut child = self.command(args).spawn().expect("kubectl starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Said { well: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What a command that succeeds prints.
    fn ok(&self, args: &str) -> String {
        self.ok_with(args, "")
    }

    fn ok_with(&self, args: &str, input: &str) -> String {
        let said = self.say_with(args, input);
        assert!(said.well, "kubectl {args}\n{}{}", said.out, said.err);
        said.out
    }

    /// A command whose output holds all of these.
    fn shows(&self, args: &str, words: &[&str]) {
        let out = self.ok(args);
        for word in words {
            assert!(out.contains(word), "kubectl {args}: no {word:?} in\n{out}");
        }
    }

    /// Why a command fails.
    fn fails(&self, args: &str, why: &str) {
        self.fails_with(args, "", why);
    }

    fn fails_with(&self, args: &str, input: &str, why: &str) {
        let said = self.say_with(args, input);
        assert!(!said.well && said.err.contains(why), "kubectl {args}: no {why:?} in\n{}{}", said.out, said.err);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let pid = i32::try_from(self.nanokube.id()).ok().and_then(Pid::from_raw).expect("a pid");
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        let _ = self.nanokube.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn deployment(image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: main, image: '{image}', env: [{{name: A, value: '1'}}]}}]
"
    )
}

#[test]
fn a_deployment_is_applied_watched_changed_rolled_out_and_undone() {
    let Some(world) = World::start("deployment") else { return };
    let manifest = deployment("img:1", 1);
    assert_eq!(world.ok_with("apply -f -", &manifest), "deployment.apps/web created\n");
    assert_eq!(world.ok_with("apply -f -", &manifest), "deployment.apps/web unchanged\n");
    world.ok("wait deployment/web --for=condition=Available --timeout=60s");
    world.shows("describe deployment web", &["img:1", "ScalingReplicaSet", "1 available"]);
    world.shows("describe pod -l app=web", &["Successfully assigned", "Running"]);

    // A watch shows what another command does.
    let mut watch = world.command("get deployment web --watch --no-headers").spawn().expect("kubectl starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("1/1"), "{first}");
    assert_eq!(world.ok("scale deployment web --replicas 2"), "deployment.apps/web scaled\n");
    assert!(lines.any(|line| line.expect("text").contains("2/2")));
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    world.fails("scale deployment web --current-replicas 7 --replicas 1", "Expected replicas to be 7");

    // Three kinds of patch, each with its own way of lists.
    world.ok(r#"patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"B","value":"2"}]}]}}}}"#);
    let names = "get deployment web -o jsonpath={.spec.template.spec.containers[*].env[*].name}";
    let mut env: Vec<String> = world.ok(names).split(' ').map(str::to_owned).collect();
    env.sort();
    assert_eq!(env, ["A", "B"], "a strategic patch merges by name");
    world.ok(r#"patch deployment web --type merge -p {"metadata":{"labels":{"tier":"front"}}}"#);
    world.ok(r#"patch deployment web --type json -p [{"op":"remove","path":"/metadata/labels/tier"}]"#);
    assert_eq!(world.ok("get deployment web -o jsonpath={.metadata.labels}"), r#"{"app":"web"}"#);
    world.fails(r#"patch deployment web --type json -p [{"op":"remove","path":"/metadata/labels/tier"}]"#, "");

    world.ok("rollout status deployment/web --timeout=60s");
    world.ok("rollout restart deployment/web");
    world.shows("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    world.ok("set image deployment/web main=img:2");
    world.ok("rollout status deployment/web --timeout=60s");
    let revisions =
        world.ok("rollout history deployment/web").lines().filter(|line| line.starts_with(char::is_numeric)).count();
    assert!(revisions >= 3, "{}", world.ok("rollout history deployment/web"));
    world.ok("rollout undo deployment/web");
    world.ok("rollout status deployment/web --timeout=60s");
    assert_eq!(world.ok("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}"), "img:1");

    let diff = world.say_with("diff -f -", &deployment("img:2", 1));
    assert!(!diff.well && diff.out.contains("+") && diff.out.contains("img:2"), "{}{}", diff.out, diff.err);

    world.ok("delete deployment web --cascade=foreground --timeout=60s");
    world.ok("wait pod -l app=web --for=delete --timeout=60s");
    assert_eq!(world.ok("get replicasets,pods -l app=web --no-headers"), "");
}

#[test]
fn appliers_on_the_server_collide_and_force() {
    let Some(world) = World::start("apply") else { return };
    let map = |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: '{value}'\n");
    world.ok_with("apply --server-side --field-manager one -f -", &map("1"));
    world.fails_with("apply --server-side --field-manager two -f -", &map("2"), "conflict with \"one\"");
    world.ok_with("apply --server-side --field-manager two --force-conflicts -f -", &map("2"));
    assert_eq!(world.ok("get configmap c -o jsonpath={.data.a}"), "2");
    world.shows("get configmap c -o yaml --show-managed-fields", &["manager: two", "operation: Apply"]);
    world.fails_with(
        "apply -f - --validate=strict",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: d\ndat: {}\n",
        "dat",
    );
    assert_eq!(world.ok_with("apply --dry-run=server -f -", &map("9")), "configmap/c configured (server dry run)\n");
    assert_eq!(world.ok("get configmap c -o jsonpath={.data.a}"), "2");

    let editor = world.dir.join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/a: \"2\"/a: edited/' \"$1\"\n").expect("a script");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let edited = world.command("edit configmap c").env("KUBE_EDITOR", &editor).output().expect("kubectl starts");
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    assert_eq!(world.ok("get configmap c -o jsonpath={.data.a}"), "edited");

    world.ok("label configmap c x=y");
    world.fails("label configmap c x=z", "--overwrite is false");
    world.ok("label configmap c x=z --overwrite");
    world.ok("annotate configmap c note=text");
    assert_eq!(world.ok("get configmaps -l x=z -o name"), "configmap/c\n");
    world.ok("annotate configmap c note-");
    world.ok("delete configmap c");
    world.fails("get configmap c", "NotFound");
}

#[test]
fn typed_commands_make_objects_of_many_kinds() {
    let Some(world) = World::start("create") else { return };
    // These speak protobuf, each with a message of its own.
    for command in [
        "create namespace n",
        "create deployment d --image=img:1 --replicas=2 --port=80",
        "create job j --image=img:1 -- true",
        "create cronjob cj --image=img:1 --schedule=*/5_*_*_*_*",
        "create ingress i --rule=a.example/x=svc:80",
        "create service nodeport s --tcp=80:http",
        "create quota q --hard=pods=3",
        "create poddisruptionbudget b --selector=app=d --min-available=50%",
        "create priorityclass p --value=5",
        "create role r --verb=get --resource=pods",
        "create rolebinding rb --role=r --serviceaccount=default:sa",
        "create clusterrole cr --verb=get --non-resource-url=/x",
        "create serviceaccount sa",
        "create secret generic sec --from-literal=a=b",
        "create configmap c --from-literal=a=b",
        "autoscale deployment d --max 3 --cpu-percent 50",
        "expose deployment d --port 80",
        "run single --image=img:1",
    ] {
        let mut made = world.command("");
        made.args(command.split_whitespace().map(|word| word.replace('_', " ")));
        let made = made.output().expect("kubectl starts");
        assert!(made.status.success(), "{command}: {}", String::from_utf8_lossy(&made.stderr));
    }
    assert_eq!(world.ok("get ingress i -o jsonpath={.spec.rules[0].http.paths[0].backend.service.port.number}"), "80");
    assert_eq!(world.ok("get service s -o jsonpath={.spec.ports[0].targetPort}"), "http");
    assert_eq!(world.ok("get pdb b -o jsonpath={.spec.minAvailable}"), "50%");
    world.shows("get hpa d", &["Deployment/d", "cpu: <unknown>/50%"]);
    world.ok("wait deployment/d --for=condition=Available --timeout=60s");

    // Whose deletion takes whom along.
    world.ok("delete deployment d --cascade=orphan");
    world.shows("get replicasets -l app=d --no-headers", &["d-"]);
    world.ok("delete replicasets -l app=d --cascade=background");
    world.ok("wait pod -l app=d --for=delete --timeout=60s");
    world.ok("delete namespace n --timeout=60s");
    world.fails("get namespace n", "NotFound");
}

#[test]
fn questions_get_answers_and_what_is_missing_says_so() {
    let Some(world) = World::start("ask") else { return };
    world.shows("version", &["Server Version: v1.36"]);
    world.shows("explain deployment.spec.replicas", &["KIND:       Deployment", "FIELD: replicas <integer>"]);
    world.shows("explain pod.spec.containers --recursive", &["readinessProbe", "httpGet"]);
    world.shows(
        "api-resources --verbs=list --namespaced -o name",
        &["pods", "deployments.apps", "networkpolicies.networking.k8s.io"],
    );
    world.shows("api-versions", &["apps/v1", "autoscaling/v2", "v1\n"]);
    world.shows("get apiservices", &["v1.apps", "Local"]);
    assert_eq!(world.ok("auth can-i create pods"), "yes\n");
    let no = world.say_with("auth can-i create pods --as system:serviceaccount:default:x", "");
    assert_eq!((no.well, no.out.as_str()), (false, "no\n"));
    world.shows("auth can-i --list", &["*.*", "[*]"]);
    world.shows(
        "auth can-i --list --as system:serviceaccount:default:x",
        &["selfsubjectaccessreviews.authorization.k8s.io", "[create]"],
    );
    world.shows("auth whoami", &["kubernetes-admin", "system:masters"]);
    assert_eq!(world.ok("create token default").trim().split('.').count(), 3, "a JSON Web Token");
    world.shows("get --raw /readyz", &["ok"]);
    world.shows("cordon node01", &["cordoned"]);
    world.shows("get nodes", &["SchedulingDisabled"]);
    world.ok("uncordon node01");
    world.ok("run single --image=img:1");
    world.ok("wait pod/single --for=condition=Ready --timeout=60s");
    world.fails("logs single", "Error from server");
    world.fails("exec single -- true", "does not implement");
    world.fails("top nodes", "Metrics API not available");
    world.fails("get gadgets", "doesn't have a resource type");
    world.ok("drain node01 --force --ignore-daemonsets --timeout=60s");
    world.shows("events", &["Scheduled"]);
}
