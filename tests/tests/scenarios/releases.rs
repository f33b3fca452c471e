//! The contract's tests in which the version changes, as far as they need no virtual machine: 3145, 3148, 3149, 3150, 3151.
//! docs/operator-tests.md says what is left out.

use kube::api::ListParams;
use kubevirt_release::Kind;
use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_tests::{NAMESPACE, World, condition_of, simulate, until};
use serde_json::{Value, json};

use super::support::{install, operator, settled};

/// Every pod of the suite has the version's image.
async fn runs(world: &World, version: &str) {
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
    for component in ["virt-api", "virt-controller", "virt-handler"] {
        let ours = ListParams::default().labels(&format!("kubevirt.io={component}"));
        let found = pods.list(&ours).await.expect("pods").items;
        assert!(!found.is_empty(), "no {component}");
        for pod in found {
            assert_eq!(
                pod.data["spec"]["containers"][0]["image"],
                format!("localhost/kubevirt/{component}:{version}").as_str()
            );
        }
    }
}

/// The conditions by which clients know that the version is being changed.
fn is_updating(kubevirt: &Value) -> bool {
    ["Available", "Progressing", "Degraded"].iter().all(|kind| condition_of(kubevirt, kind)["status"] == "True")
}

/// Installs the old release by its tag, with the operator of the new one.
async fn install_by_tag(world: &World) {
    world.apply(&operator("v0.2.0")).await;
    let mut cr = cr_manifest(NAMESPACE);
    cr.value_mut()["spec"]["imageTag"] = json!("v0.1.0");
    cr.value_mut()["spec"]["imageRegistry"] = json!("localhost/kubevirt");
    world.apply(&[cr]).await;
    let kubevirt = settled(world, "v0.1.0").await;
    assert_eq!(kubevirt["status"]["operatorVersion"], "v0.2.0");
    runs(world, "v0.1.0").await;
}

/// The operator that leads is of this version.
async fn is_led_by(world: &World, version: &str) {
    let lease = world.api_of("coordination.k8s.io", "v1", "Lease", "leases", Some(NAMESPACE));
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
    let image = format!("localhost/kubevirt/virt-operator:{version}");
    let of_version: Vec<String> = pods
        .list(&ListParams::default().labels("kubevirt.io=virt-operator"))
        .await
        .expect("pods")
        .items
        .into_iter()
        .filter(|pod| pod.data["spec"]["containers"][0]["image"] == image.as_str())
        .filter_map(|pod| pod.metadata.name)
        .collect();
    until(&lease, "virt-operator", "held by the new operator", |lease| {
        let holder = lease.data["spec"]["holderIdentity"].as_str().unwrap_or_default();
        of_version.iter().any(|pod| pod == holder)
    })
    .await;
}

/// The images of the operator's pods and of the suite's, those that are started and those that pods are started from.
async fn images(world: &World) -> Vec<String> {
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
    let mut images = Vec::new();
    for pod in pods.list(&ListParams::default()).await.expect("pods").items {
        let spec = &pod.data["spec"];
        for container in
            [&spec["containers"], &spec["initContainers"]].into_iter().filter_map(Value::as_array).flatten()
        {
            images.push(container["image"].as_str().expect("an image").to_owned());
            let arguments = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
            images.extend(arguments.filter(|argument| argument.starts_with("localhost/")).map(str::to_owned));
        }
    }
    images.sort();
    images.dedup();
    images
}

fn all_of(prefix: &str) -> Vec<String> {
    let components = ["virt-api", "virt-controller", "virt-handler", "virt-launcher", "virt-operator"];
    components.iter().map(|component| format!("localhost/kubevirt/{prefix}{component}:v0.1.0")).collect()
}

#[test]
fn t3149_the_images_of_the_suite_are_named_as_the_operators_image_is() {
    simulate(async {
        let world = World::start_with(3, 65, |images| images.with_prefixed("site-"));
        install(&world, "v0.1.0").await;
        assert_eq!(images(&world).await, all_of(""));
        for prefix in ["site-", ""] {
            let options =
                ManifestOptions { prefix: prefix.to_owned(), ..ManifestOptions::new("localhost/kubevirt", "v0.1.0") };
            world.apply(&operator_manifest(&options)).await;
            world.kubevirt_until("updating", is_updating).await;
            settled(&world, "v0.1.0").await;
            until(&world.api(Kind::Deployment, Some(NAMESPACE)), "virt-operator", "alone", |deployment| {
                deployment.data["status"]["replicas"] == 2
            })
            .await;
            assert_eq!(images(&world).await, all_of(prefix));
        }
    });
}

#[test]
fn t3148_a_tag_and_a_registry_of_another_build_are_installed() {
    simulate(async {
        let world = World::start(3, 61);
        install_by_tag(&world).await;
    });
}

#[test]
fn t3145_t3150_what_was_installed_by_tag_is_upgraded_by_a_tag() {
    simulate(async {
        let world = World::start(3, 62);
        install_by_tag(&world).await;
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        world.kubevirt_until("updating", is_updating).await;
        settled(&world, "v0.2.0").await;
        runs(&world, "v0.2.0").await;
    });
}

#[test]
fn t3145_what_was_installed_by_tag_follows_the_operator_when_the_tag_goes() {
    simulate(async {
        let world = World::start(3, 63);
        install_by_tag(&world).await;
        world.patch_kubevirt(json!({"imageTag": null, "imageRegistry": null})).await;
        world.kubevirt_until("updating", is_updating).await;
        settled(&world, "v0.2.0").await;
        runs(&world, "v0.2.0").await;
    });
}

#[test]
fn t3151_the_suite_follows_the_operators_tag_there_and_back() {
    simulate(async {
        let world = World::start(3, 64);
        install(&world, "v0.1.0").await;
        for version in ["v0.2.0", "v0.1.0"] {
            world.apply(&operator(version)).await;
            let kubevirt = settled(&world, version).await;
            assert_eq!(kubevirt["status"]["operatorVersion"], version);
            runs(&world, version).await;
            is_led_by(&world, version).await;
            let deployment =
                world.api(Kind::Deployment, Some(NAMESPACE)).get("virt-operator").await.expect("it is there");
            assert_eq!(deployment.data["status"]["replicas"], 2, "the old operator is gone");
        }
    });
}
