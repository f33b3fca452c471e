//! What the API server calls once the suite is installed: the operator's and virt-api's webhooks, the aggregated API; and
//! that nothing of it is in the way when everything is removed.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kubevirt_release::Kind;
use kubevirt_tests::{NAMESPACE, World, condition, simulate, until, until_gone};
use serde_json::{Value, json};

use super::support::install;

#[test]
fn virt_api_is_called_for_guests_and_for_its_own_api() {
    simulate(async {
        let world = World::start(3, 11);
        install(&world, "v0.2.0").await;
        let aggregated = world.api(Kind::APIService, None);
        for version in ["v1", "v1alpha3"] {
            let name = format!("{version}.subresources.kubevirt.io");
            until(&aggregated, &name, "available", |it| condition(it, "Available")["status"] == "True").await;
            // Any request of kube's will do: its address is replaced.
            let mut request = Request::new("/").get("any", &Default::default()).expect("a request");
            *request.uri_mut() = format!("/apis/subresources.kubevirt.io/{version}").parse().expect("a path");
            let found: Value = world.client.request(request).await.expect("virt-api answers through the API server");
            let names = found["resources"].as_array().cloned().unwrap_or_default();
            assert!(names.iter().any(|resource| resource["name"] == "virtualmachines/start"), "{found}");
        }

        let guests =
            world.api_of("kubevirt.io", "v1", "VirtualMachineInstance", "virtualmachineinstances", Some(NAMESPACE));
        let guest = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "guest"},
            "spec": {"domain": {"devices": {}}}});
        let stored = guests
            .create(&PostParams::default(), &serde_json::from_value(guest).expect("an object"))
            .await
            .expect("stored")
            .data;
        let machine = &stored["spec"]["domain"]["machine"]["type"];
        assert_eq!((machine, &stored["status"]["phase"]), (&json!("q35"), &json!("Pending")), "filled in by virt-api");
        let pretended = Patch::Merge(json!({"status": {"phase": "Running"}}));
        let kept = guests.patch("guest", &PatchParams::default(), &pretended).await.expect("it is not refused").data;
        assert_eq!(kept["status"]["phase"], "Pending", "its status is the suite's");
        let merge = async |patch: Value| guests.patch("guest", &PatchParams::default(), &Patch::Merge(patch)).await;
        merge(json!({"metadata": {"labels": {"team": "blue"}}})).await.expect("labels are the user's");
        let refused = merge(json!({"spec": {"hostname": "other"}})).await.expect_err("the spec is not").to_string();
        assert!(refused.contains("update of VMI object is restricted"), "{refused}");
        let refused =
            merge(json!({"metadata": {"labels": {"kubevirt.io/nodeName": "n"}}})).await.expect_err("reserved");
        assert!(refused.to_string().contains("kubevirt.io/nodeName"), "{refused}");
    });
}

#[test]
fn an_installation_with_guests_is_removed_with_all_that_was_registered() {
    simulate(async {
        let world = World::start(1, 12);
        install(&world, "v0.2.0").await;
        let guests = world.api_of("kubevirt.io", "v1", "VirtualMachine", "virtualmachines", Some(NAMESPACE));
        let guest = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "guest"}, "spec": {}});
        guests
            .create(&PostParams::default(), &serde_json::from_value(guest).expect("an object"))
            .await
            .expect("stored");
        let kubevirts = world.kubevirts("v1");
        kubevirts.delete("kubevirt", &DeleteParams::default()).await.expect("the default removes workloads");
        until_gone(&kubevirts, "kubevirt").await;
        for kind in [Kind::ValidatingWebhookConfiguration, Kind::MutatingWebhookConfiguration, Kind::APIService] {
            let ours = ListParams::default().labels("app.kubernetes.io/managed-by=virt-operator");
            let left = world.api(kind, None).list(&ours).await.expect("a list").items;
            let left = left.into_iter().filter_map(|object| object.metadata.name);
            assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "{kind}");
        }
    });
}
