use kubevirt_runtime::admission::{Review, Verdict};
use serde_json::{Value, json};

use super::*;

const USER: &str = "someone";
const HANDLER: &str = "system:serviceaccount:kubevirt:kubevirt-handler";

fn cluster(configuration: Value) -> Cluster {
    Cluster::read(&json!({"spec": {"configuration": configuration}, "status": {"defaultArchitecture": "amd64"}}))
}

fn review(operation: &str, user: &str, object: &Value, old: &Value) -> Review {
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "0b7c3c4e-8a5e-4e0e-9a39-6f9a3b0d4a11", "operation": operation, "userInfo": {"username": user},
        "resource": {"group": "kubevirt.io", "version": "v1", "resource": "x"}, "object": object, "oldObject": old}});
    Review::parse(body.to_string().as_bytes()).expect("a review")
}

/// The object as it is stored, by the patch that the API server gets.
fn stored(path: &str, review: &Review, cluster: &Cluster) -> Value {
    let Some(Verdict::Allow { patch }) = mutate(path, "kubevirt", review, cluster) else {
        panic!("{path} is answered")
    };
    let mut stored = review.object.clone();
    for change in patch {
        let (operation, part) =
            (change["op"].as_str().expect("an operation"), change["path"].as_str().expect("a path"));
        let fields = stored.as_object_mut().expect("an object");
        let before = match operation {
            "remove" => fields.remove(&part[1..]),
            _ => fields.insert(part[1..].to_owned(), change["value"].clone()),
        };
        assert_eq!(before.is_some(), operation != "add", "{change}");
    }
    stored
}

fn created(path: &str, object: &Value, configuration: Value) -> Value {
    let cluster = cluster(configuration);
    let once = stored(path, &review("CREATE", USER, object, &Value::Null), &cluster);
    let twice = stored(path, &review("CREATE", USER, &once, &Value::Null), &cluster);
    assert_eq!(twice, once, "filled in once is filled in");
    once
}

fn instance(spec: Value, configuration: Value) -> Value {
    let object = json!({"metadata": {"name": "guest"}, "spec": spec});
    created("/virtualmachineinstances-mutate", &object, configuration)
}

fn machine(spec: Value, configuration: Value) -> Value {
    created("/virtualmachines-mutate", &json!({"metadata": {"name": "guest"}, "spec": spec}), configuration)
}

#[test]
fn an_instance_of_which_only_a_disk_is_said() {
    let guest = instance(
        json!({"domain": {"devices": {}, "memory": {"guest": "1Gi"}},
            "volumes": [{"name": "root", "containerDisk": {"image": "registry:5000/alpine"}}]}),
        json!({}),
    );
    let (uuid, serial) = (unique_of("uuid"), unique_of("serial"));
    assert_ne!(uuid, serial);
    assert_eq!(
        guest,
        json!({
            "metadata": {"name": "guest", "annotations": {"kubevirt.io/pci-topology-version": "v3"}},
            "spec": {
                "architecture": "amd64",
                "domain": {
                    "cpu": {"sockets": 1, "cores": 1, "threads": 1, "model": "host-model", "maxSockets": 4},
                    "devices": {
                        "disks": [{"name": "root", "disk": {"bus": "sata"}}],
                        "interfaces": [{"name": "default", "bridge": {}}],
                    },
                    "features": {"acpi": {"enabled": true}},
                    "firmware": {"uuid": uuid, "serial": serial},
                    "machine": {"type": "q35"},
                    "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
                },
                "networks": [{"name": "default", "pod": {}}],
                "volumes": [
                    {"name": "root", "containerDisk": {"image": "registry:5000/alpine", "imagePullPolicy": "Always"}},
                ],
            },
            "status": {
                "phase": "Pending", "runtimeUser": 107,
                "currentCPUTopology": {"sockets": 1, "cores": 1, "threads": 1},
                "memory": {"guestAtBoot": "1Gi", "guestCurrent": "1Gi", "guestRequested": "1Gi"},
            },
        })
    );
}

fn unique_of(purpose: &str) -> String {
    unique(&review("CREATE", USER, &json!({}), &Value::Null), purpose)
}

#[test]
fn what_a_user_says_stays() {
    let spec = json!({
        "architecture": "arm64", "evictionStrategy": "External",
        "domain": {
            "cpu": {"sockets": 2, "cores": 3, "threads": 1, "model": "Penryn", "maxSockets": 2},
            "devices": {
                "disks": [{"name": "root", "disk": {"bus": "scsi"}}, {"name": "iso", "cdrom": {"bus": "usb"}}],
                "filesystems": [{"name": "shared", "virtiofs": {}}],
                "interfaces": [{"name": "net", "masquerade": {}}],
            },
            "features": {"acpi": {"enabled": false}},
            "firmware": {"uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223", "serial": "s"},
            "machine": {"type": "virt-9.2"},
            "memory": {"guest": "64Mi"},
        },
        "networks": [{"name": "net", "pod": {}}],
        "volumes": [
            {"name": "root", "containerDisk": {"image": "alpine", "imagePullPolicy": "Never"}},
            {"name": "iso", "cloudInitNoCloud": {}}, {"name": "shared", "configMap": {"name": "c"}},
        ],
    });
    assert_eq!(instance(spec.clone(), json!({"evictionStrategy": "LiveMigrate"}))["spec"], spec);
}

#[test]
fn the_cluster_s_settings_decide_what_a_user_leaves_open() {
    let configuration = json!({
        "architectureConfiguration": {"defaultArchitecture": "arm64", "arm64": {"machineType": "virt-9.2"}},
        "cpuModel": "Skylake", "evictionStrategy": "LiveMigrate",
        "network": {"defaultNetworkInterface": "masquerade"},
    });
    let spec = instance(json!({"domain": {"devices": {"disks": [{"name": "a"}]}}}), configuration)["spec"].clone();
    assert_eq!(spec["architecture"], "arm64");
    assert_eq!(spec["evictionStrategy"], "LiveMigrate");
    let domain = &spec["domain"];
    assert_eq!(domain["machine"]["type"], "virt-9.2");
    assert_eq!(domain["cpu"]["model"], "Skylake");
    assert_eq!(domain["cpu"].get("maxSockets"), None, "nothing is plugged in on this architecture");
    assert_eq!(domain["devices"]["interfaces"], json!([{"name": "default", "masquerade": {}}]));
    assert_eq!(domain["devices"]["disks"], json!([{"name": "a", "disk": {"bus": "virtio"}}]));
    let older = instance(json!({}), json!({"machineType": "pc-q35-9.0"}));
    assert_eq!(older["spec"]["domain"]["machine"]["type"], "pc-q35-9.0");
}

#[test]
fn no_network_is_made_for_whoever_wants_none_or_has_one() {
    for spec in [
        json!({"domain": {"devices": {"autoattachPodInterface": false}}}),
        json!({"networks": [{"name": "n", "multus": {"networkName": "x"}}],
            "domain": {"devices": {"interfaces": [{"name": "n", "bridge": {}}]}}}),
    ] {
        let before = spec.get("networks").cloned();
        assert_eq!(instance(spec, json!({}))["spec"].get("networks").cloned(), before);
    }
}

#[test]
fn processors_and_memory_follow_from_what_is_asked_of_the_node() {
    let domain = |resources: Value, cpu: Value, configuration: Value| {
        let spec = json!({"domain": {"resources": resources, "cpu": cpu}});
        instance(spec, configuration)["spec"]["domain"].clone()
    };
    let asked = domain(json!({"requests": {"cpu": "1500m", "memory": "2Gi"}}), json!({}), json!({}));
    assert_eq!(asked["cpu"]["sockets"], 2);
    assert_eq!(asked["memory"], json!({"guest": "2Gi", "maxGuest": "8Gi"}));
    let limited = domain(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}), json!({}), json!({}));
    assert_eq!(limited["cpu"]["sockets"], 3);
    assert_eq!(limited.get("memory"), None);
    let arranged = domain(json!({"requests": {"cpu": "8"}}), json!({"cores": 2}), json!({}));
    assert_eq!((&arranged["cpu"]["sockets"], &arranged["cpu"]["cores"]), (&json!(1), &json!(2)));
    let many = domain(json!({}), json!({"sockets": 100, "cores": 2}), json!({}));
    assert_eq!(many["cpu"]["maxSockets"], 256, "512 processors in all");
    let live = json!({"liveUpdateConfiguration": {"maxHotplugRatio": 2, "maxCpuSockets": 6, "maxGuest": "3Gi"}});
    let configured = domain(json!({"requests": {"memory": "1Gi"}}), json!({}), live);
    assert_eq!((&configured["cpu"]["maxSockets"], &configured["memory"]["maxGuest"]), (&json!(6), &json!("3Gi")));
}

#[test]
fn memory_that_cannot_be_plugged_in_has_no_maximum() {
    let most = |domain: Value| {
        instance(json!({ "domain": domain }), json!({}))["spec"]["domain"]["memory"]["maxGuest"].clone()
    };
    assert_eq!(most(json!({"memory": {"guest": "1026Mi"}})), "4104Mi");
    for domain in [
        json!({"memory": {"guest": "512Mi"}}),
        json!({"memory": {"guest": "1025Mi"}}),
        json!({"memory": {"guest": "1026Mi", "hugepages": {"pageSize": "1Gi"}}}),
        json!({"memory": {"guest": "2Gi"}, "cpu": {"realtime": {}}}),
        json!({"memory": {"guest": "2Gi"}, "cpu": {"numa": {"guestMappingPassthrough": {}}}}),
        json!({"memory": {"guest": "2Gi"}, "launchSecurity": {"sev": {}}}),
    ] {
        assert_eq!(most(domain.clone()), Value::Null, "{domain}");
    }
}

#[test]
fn images_that_may_change_under_their_name_are_pulled_always() {
    for (image, policy) in [
        ("alpine", "Always"),
        ("alpine:latest", "Always"),
        ("registry:5000/alpine", "Always"),
        ("registry:5000/alpine:3", "IfNotPresent"),
        ("alpine@sha256:0a", "IfNotPresent"),
    ] {
        let spec = json!({"volumes": [{"name": "v", "containerDisk": {"image": image}}]});
        let found = instance(spec, json!({}))["spec"]["volumes"][0]["containerDisk"]["imagePullPolicy"].clone();
        assert_eq!(found, policy, "{image}");
    }
}

#[test]
fn volumes_that_are_no_disks_get_none() {
    let spec = json!({"volumes": [{"name": "d", "memoryDump": {"claimName": "c"}}, {"name": "p", "containerPath": {"path": "/x"}}]});
    assert_eq!(instance(spec, json!({}))["spec"]["domain"]["devices"].get("disks"), None);
}

#[test]
fn the_status_of_an_instance_is_written_by_the_suite_alone() {
    let path = "/virtualmachineinstances-mutate";
    let object = |phase: &str| json!({"metadata": {"name": "guest"}, "spec": {}, "status": {"phase": phase}});
    let none = json!({"metadata": {"name": "guest"}, "spec": {}});
    let update =
        |user: &str, new: &Value, old: &Value| stored(path, &review("UPDATE", user, new, old), &cluster(json!({})));
    assert_eq!(update(USER, &object("Running"), &object("Pending")), object("Pending"));
    assert_eq!(update(USER, &object("Running"), &none), none);
    assert_eq!(update(USER, &none, &object("Pending")), object("Pending"));
    assert_eq!(update(HANDLER, &object("Running"), &object("Pending")), object("Running"));
    let sent = stored(path, &review("CREATE", USER, &object("Running"), &Value::Null), &cluster(json!({})));
    assert_eq!(sent["status"]["phase"], "Pending");
}

#[test]
fn a_machine_keeps_its_identity_and_its_kind_of_machine() {
    let spec = machine(json!({"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}}), json!({}));
    assert_eq!(
        spec["spec"],
        json!({"runStrategy": "Always", "template": {"spec": {"architecture": "amd64", "domain": {
            "devices": {}, "machine": {"type": "q35"}, "firmware": {"uuid": unique_of("uuid")}}}}})
    );
    let preferred = machine(json!({"preference": {"name": "p"}, "template": {"spec": {"domain": {}}}}), json!({}));
    assert_eq!(preferred["spec"]["template"]["spec"]["domain"].get("machine"), None, "the preference may name one");
    assert_eq!(machine(json!({}), json!({}))["spec"], json!({}), "without a template there is nothing to fill in");

    let path = "/virtualmachines-mutate";
    let old = json!({"metadata": {"name": "guest"}, "spec": {"template": {"spec": {"domain": {}}}}});
    let changed = stored(path, &review("UPDATE", USER, &old, &old), &cluster(json!({})));
    assert_eq!(
        changed["spec"]["template"]["spec"]["domain"],
        json!({"machine": {"type": "q35"}}),
        "an old one's identity is its name's"
    );
    let mut going = old.clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(stored(path, &review("UPDATE", USER, &going, &old), &cluster(json!({}))), going);
}

#[test]
fn a_migration_is_labelled_with_its_instance_whatever_was_written_there() {
    for labels in [json!({}), json!({"kubevirt.io/vmi-name": "other"})] {
        let object = json!({"metadata": {"generateName": "m-", "labels": labels}, "spec": {"vmiName": "guest"}});
        let stored = created("/migration-mutate-create", &object, json!({}));
        assert_eq!(stored["metadata"]["labels"], json!({"kubevirt.io/vmi-name": "guest"}));
    }
}

#[test]
fn a_clone_without_a_target_gets_one() {
    let source = json!({"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "guest"});
    let stored = created("/vm-clone-mutate-create", &json!({"spec": {"source": source}}), json!({}));
    let target = &stored["spec"]["target"];
    assert_eq!((&target["apiGroup"], &target["kind"]), (&json!("kubevirt.io"), &json!("VirtualMachine")));
    let name = target["name"].as_str().expect("a name");
    assert!(name.starts_with("clone-guest-") && name.len() == "clone-guest-".len() + 5, "{name}");
    let named = json!({"spec": {"source": source, "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "mine"}}});
    assert_eq!(created("/vm-clone-mutate-create", &named, json!({})), named);
}

#[test]
fn a_launcher_s_pod_passes_as_it_is_and_other_paths_are_none_of_ours() {
    let pod = json!({"metadata": {"labels": {"kubevirt.io": "virt-launcher"}}, "spec": {"containers": []}});
    assert_eq!(created("/virt-launcher-pod-mutate", &pod, json!({})), pod);
    let asked = review("CREATE", USER, &pod, &Value::Null);
    assert_eq!(mutate("/virtualmachines-validate", "kubevirt", &asked, &cluster(json!({}))), None);
}
