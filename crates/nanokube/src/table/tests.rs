use expect_test::expect;
use serde_json::json;

use super::*;
use crate::registry::Registry;

const NOW: &str = "2026-01-02T00:00:00Z";

fn show(group: &str, plural: &str, objects: &[Value]) -> String {
    let resource = Registry::new().table().get(group, "v1", plural).unwrap();
    let objects: Vec<&Value> = objects.iter().collect();
    let table = table(&resource, NOW.parse().unwrap(), &Query::default(), "7", None, &objects);
    let line = |cells: Vec<String>| cells.join(" | ");
    let head =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap().to_owned());
    let mut out = line(head.collect());
    for row in table["rows"].as_array().unwrap() {
        let cells = row["cells"].as_array().unwrap().iter();
        out.push('\n');
        out.push_str(&line(cells.map(|cell| cell.as_str().map_or(cell.to_string(), str::to_owned)).collect()));
    }
    out.push('\n');
    out
}

#[test]
fn pods_say_why_they_do_not_run() {
    let pod = |name: &str, status: Value, deleted: bool| {
        let mut pod = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T23:59:00Z"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}, "status": status,
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!(NOW);
        }
        pod
    };
    let container =
        |ready: bool, state: Value| json!([{"name": "c", "ready": ready, "restartCount": 2, "state": state}]);
    let pods = [
        pod("pending", json!({"phase": "Pending"}), false),
        pod(
            "pulling",
            json!({"phase": "Pending", "containerStatuses": container(false, json!({"waiting": {"reason": "ErrImagePull"}}))}),
            false,
        ),
        pod(
            "running",
            json!({"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": container(true, json!({"running": {}}))}),
            false,
        ),
        pod("ending", json!({"phase": "Running", "containerStatuses": container(true, json!({"running": {}}))}), true),
        pod(
            "failed",
            json!({"phase": "Failed", "containerStatuses": container(false, json!({"terminated": {"exitCode": 3}}))}),
            false,
        ),
        pod(
            "init",
            json!({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}),
            false,
        ),
    ];
    expect![[r#"
        Name | Ready | Status | Restarts | Age | IP | Node | Nominated Node | Readiness Gates
        pending | 0/1 | Pending | 0 | 60s | <none> | n1 | <none> | <none>
        pulling | 0/1 | ErrImagePull | 2 | 60s | <none> | n1 | <none> | <none>
        running | 1/1 | Running | 2 | 60s | 10.0.0.1 | n1 | <none> | <none>
        ending | 1/1 | Terminating | 2 | 60s | <none> | n1 | <none> | <none>
        failed | 0/1 | ExitCode:3 | 2 | 60s | <none> | n1 | <none> | <none>
        init | 0/1 | Init:0/0 | 0 | 60s | <none> | n1 | <none> | <none>
    "#]]
    .assert_eq(&show("", "pods", &pods));
}

#[test]
fn workloads_services_and_nodes_have_their_columns() {
    let deployment = json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:2"}]}},
        },
        "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
    });
    let service = json!({
        "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]},
    });
    let node = json!({
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    });
    let text =
        [show("apps", "deployments", &[deployment]), show("", "services", &[service]), show("", "nodes", &[node])];
    expect![[r#"
        Name | Ready | Up-to-date | Available | Age | Containers | Images | Selector
        web | 1/3 | 2 | 1 | 24h | c,d | i:1,i:2 | a=b
        Name | Type | Cluster-IP | External-IP | Port(s) | Age | Selector
        s | NodePort | 10.96.0.7 | <none> | 80:30080/TCP,53/UDP | <unknown> | <none>
        Name | Status | Roles | Age | Version | Internal-IP | External-IP | OS-Image | Kernel-Version | Container-Runtime
        n1 | Ready,SchedulingDisabled | control-plane | <unknown> | v1.36.0 | 10.0.0.1 | <none> | <unknown> | <unknown> | <unknown>
    "#]]
    .assert_eq(&text.concat());
}

#[test]
fn ages_are_short() {
    let shown: Vec<String> = [0, 119, 120, 605, 3 * 3600, 3 * 3600 + 120, 47 * 3600, 50 * 3600, 9 * 86400, 800 * 86400]
        .map(cells::duration)
        .to_vec();
    assert_eq!(shown, ["0s", "119s", "2m", "10m", "3h", "3h2m", "47h", "2d2h", "9d", "2y70d"]);
}
