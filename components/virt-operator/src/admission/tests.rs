use kubevirt_api::kubevirt::KubeVirtSpec;
use kubevirt_runtime::admission::{Operation, Review, Verdict};
use serde_json::{Value, json};

use super::rules::{faults, warnings};
use super::{Facts, Judgement, Needs, admit, needs};

fn cr(spec: Value) -> Value {
    json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"}, "spec": spec})
}

fn review(operation: Operation, object: Value, old_object: Value) -> Review {
    Review {
        uid: "u".into(),
        operation,
        group: "kubevirt.io".into(),
        version: "v1".into(),
        resource: "kubevirts".into(),
        subresource: String::new(),
        namespace: "kubevirt".into(),
        name: "kubevirt".into(),
        user: "admin".into(),
        groups: Vec::new(),
        object,
        old_object,
        dry_run: false,
    }
}

fn update(old: Value, new: Value) -> Review {
    review(Operation::Update, cr(new), cr(old))
}

/// `allowed`, or the code and message of the refusal.
fn said(judgement: &Judgement) -> String {
    match &judgement.verdict {
        Verdict::Allow { patch } if patch.is_empty() => "allowed".into(),
        Verdict::Allow { .. } => "changed".into(),
        Verdict::Deny { code, message, .. } => format!("{code} {message}"),
    }
}

fn spec(value: Value) -> KubeVirtSpec {
    serde_json::from_value(value).expect("a spec")
}

fn found(value: Value) -> Vec<String> {
    faults(&spec(value), None).iter().map(ToString::to_string).collect()
}

#[test]
fn there_is_one_kubevirt() {
    let first = review(Operation::Create, cr(json!({})), Value::Null);
    assert_eq!(needs(&first), Needs { custom_resources: true, ..Needs::default() });
    assert_eq!(said(&admit(&first, &Facts::default())), "allowed");
    let mut elsewhere = cr(json!({}));
    elsewhere["metadata"]["namespace"] = json!("other");
    let facts = Facts { custom_resources: vec![elsewhere], ..Facts::default() };
    assert_eq!(said(&admit(&first, &facts)), "403 Kubevirt is already created: kubevirt in namespace other");
}

#[test]
fn a_removal_that_waits_for_workloads_names_them() {
    let deployed = |strategy: &str, phase: &str| {
        let mut cr = cr(json!({"uninstallStrategy": strategy}));
        cr["status"] = json!({"phase": phase});
        review(Operation::Delete, Value::Null, cr)
    };
    let left = |name| Facts { workloads: vec![name], ..Facts::default() };
    let blocking = deployed("BlockUninstallIfWorkloadsExist", "Deployed");
    assert!(needs(&blocking).workloads);
    assert_eq!(said(&admit(&blocking, &Facts::default())), "allowed");
    for name in ["Virtual Machine Instances", "Virtual Machines", "Virtual Machine Instance Replica Sets"] {
        let said = said(&admit(&blocking, &left(name)));
        assert!(said.starts_with("403 ") && said.contains(&format!("there are still {name} present")), "{said}");
    }
    for (strategy, phase) in
        [("", "Deployed"), ("RemoveWorkloads", "Deployed"), ("BlockUninstallIfWorkloadsExist", "Deploying")]
    {
        let review = deployed(strategy, phase);
        assert_eq!(needs(&review), Needs::default());
        assert_eq!(said(&admit(&review, &left("Virtual Machines"))), "allowed");
    }
}

#[test]
fn a_collection_is_judged_by_the_namespaces_own_kubevirt() {
    let mut collection = review(Operation::Delete, Value::Null, Value::Null);
    collection.name.clear();
    assert_eq!(needs(&collection), Needs { custom_resources: true, workloads: true, ..Needs::default() });
    let mut own = cr(json!({"uninstallStrategy": "BlockUninstallIfWorkloadsExist"}));
    own["status"] = json!({"phase": "Deployed"});
    let mut facts = Facts { custom_resources: vec![own], workloads: vec!["Virtual Machines"], ..Facts::default() };
    assert!(said(&admit(&collection, &facts)).starts_with("403 "));
    facts.custom_resources[0]["metadata"]["namespace"] = json!("other");
    assert_eq!(said(&admit(&collection, &facts)), "allowed");
}

#[test]
fn what_leaves_the_spec_alone_or_ends_the_object_is_allowed() {
    let bad = json!({"infra": {"replicas": 0}});
    assert_eq!(said(&admit(&update(bad.clone(), bad.clone()), &Facts::default())), "allowed");
    let mut going = update(json!({}), bad.clone());
    going.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(said(&admit(&going, &Facts::default())), "allowed");
    assert_eq!(said(&admit(&update(json!({}), bad), &Facts::default())), "422 infra replica count can't be 0");
}

#[test]
fn an_old_object_that_cannot_be_read_does_not_stop_its_repair() {
    let repair = update(json!({"imageTag": 5}), json!({"imageTag": "v1"}));
    assert_eq!(said(&admit(&repair, &Facts::default())), "allowed");
    let broken = update(json!({"imageTag": "v1"}), json!({"imageTag": 5}));
    assert!(said(&admit(&broken, &Facts::default())).starts_with("422 the object cannot be read"));
}

#[test]
fn only_a_changed_placement_is_tried_and_judged() {
    let placed = |operator: &str| json!({"nodePlacement": {"tolerations": [{"key": "a", "operator": operator}]}});
    let both = |operator: &str| json!({"infra": placed(operator), "workloads": placed(operator)});
    let new = update(json!({}), both("Exists"));
    let tried = json!({"tolerations": [{"key": "a", "operator": "Exists"}]});
    assert_eq!(needs(&new), Needs { infra: Some(tried.clone()), nodes: Some(tried), ..Needs::default() });
    let facts = Facts { placements: vec![("workloads", "no such thing".into())], ..Facts::default() };
    assert_eq!(said(&admit(&new, &facts)), "422 spec.workloads.nodePlacement: no such thing");

    let bogus = said(&admit(&update(json!({}), both("bogus")), &Facts::default()));
    for part in ["infra", "workloads"] {
        let text = format!("spec.{part}.nodePlacement.tolerations.operator in body should be one of [Equal Exists]");
        assert!(bogus.contains(&text), "{bogus}");
    }
    let mut other = both("bogus");
    other["imageTag"] = json!("v1");
    let unrelated = update(both("bogus"), other);
    assert_eq!(needs(&unrelated), Needs::default());
    assert_eq!(said(&admit(&unrelated, &Facts::default())), "allowed", "an old mistake stays where it was");
}

#[test]
fn certificates_contradict_themselves_in_these_ways() {
    let of = |self_signed: Value| found(json!({"certificateRotateStrategy": {"selfSigned": self_signed}}));
    assert_eq!(of(json!({"ca": {"duration": "48h", "renewBefore": "16h"}, "server": {"duration": "24h"}})), [""; 0]);
    assert_eq!(
        of(json!({"caRotateInterval": "48h", "caOverlapInterval": "24h", "certRotateInterval": "24h"})),
        [""; 0]
    );
    assert_eq!(
        of(json!({"ca": {"duration": "48h"}, "caRotateInterval": "48h"})),
        [
            "spec.certificateRotateStrategy.selfSigned.caRotateInterval is the older spelling and cannot be combined with ca or server"
        ]
    );
    assert_eq!(
        of(json!({"ca": {"duration": "48h", "renewBefore": "49h"}})),
        ["the duration of the CA is 172800 s, which is less than the CA's renewBefore of 176400 s"]
    );
    assert_eq!(
        of(json!({"server": {"duration": "1h", "renewBefore": "2h"}})),
        ["the duration of server certificates is 3600 s, which is less than the servers' renewBefore of 7200 s"]
    );
    assert_eq!(
        of(json!({"ca": {"duration": "12h"}})),
        ["the duration of the CA is 43200 s, which is less than the duration of server certificates of 86400 s"]
    );
}

#[test]
fn a_configuration_contradicts_itself_in_these_ways() {
    let of = |configuration: Value| found(json!({"configuration": configuration}));
    for ratio in ["0.9", "-1", "a lot", "NaN", ""] {
        assert_eq!(of(json!({"additionalGuestMemoryOverheadRatio": ratio})).len(), 1, "{ratio}");
    }
    assert_eq!(of(json!({"additionalGuestMemoryOverheadRatio": "1.0"})), [""; 0]);
    assert_eq!(
        of(json!({"developerConfiguration": {"featureGates": ["A", "B"], "disabledFeatureGates": ["B"]}})),
        ["feature gate B is listed as enabled and as disabled"]
    );
    let gated = |configuration: Value, off: &str| {
        let mut configuration = configuration;
        configuration["developerConfiguration"] = json!({"disabledFeatureGates": [off]});
        of(configuration)
    };
    let templates = json!({"virtTemplateDeployment": {"enabled": true}});
    assert_eq!(of(templates.clone()), [""; 0], "the gate is on by default");
    assert_eq!(
        gated(templates, "Template"),
        ["spec.configuration.virtTemplateDeployment.enabled needs the feature gate Template"]
    );
    assert_eq!(
        gated(json!({"roleAggregationStrategy": "Manual"}), "OptOutRoleAggregation"),
        ["spec.configuration.roleAggregationStrategy Manual needs the feature gate OptOutRoleAggregation"]
    );
    let tls =
        |least: &str, cipher: &str| of(json!({"tlsConfiguration": {"minTLSVersion": least, "ciphers": [cipher]}}));
    assert_eq!(tls("VersionTLS12", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), [""; 0]);
    assert_eq!(tls("VersionTLS13", "TLS_AES_128_GCM_SHA256").len(), 1);
    assert_eq!(
        tls("VersionTLS12", "TLS_NONE"),
        ["spec.configuration.tlsConfiguration.ciphers: TLS_NONE is not a cipher suite"]
    );
    assert_eq!(of(json!({"tlsConfiguration": {"ciphers": ["TLS_AES_128_GCM_SHA256"]}})).len(), 1);
    let seccomp =
        |profile: Value| of(json!({"seccompConfiguration": {"virtualMachineInstanceProfile": profile}})).len();
    assert_eq!(seccomp(json!({"customProfile": {"localhostProfile": "a"}})), 0);
    assert_eq!(seccomp(json!({"customProfile": {"runtimeDefaultProfile": true}})), 0);
    assert_eq!(seccomp(json!({"customProfile": {"localhostProfile": "a", "runtimeDefaultProfile": true}})), 1);
    assert_eq!(seccomp(json!({"customProfile": {}})), 1);
    assert_eq!(seccomp(json!({})), 1);
}

#[test]
fn patches_must_be_well_formed() {
    let patch = |way: &str, patch: &str| {
        let one = json!({"resourceName": "virt-api", "resourceType": "Deployment", "patch": patch, "type": way});
        found(json!({"customizeComponents": {"patches": [one]}}))
    };
    assert_eq!(patch("strategic", r#"{"metadata": {"labels": {"a": "b"}}}"#), [""; 0]);
    assert_eq!(patch("json", r#"[{"op": "remove", "path": "/spec"}]"#), [""; 0]);
    let head = "spec.customizeComponents.patches[0] (Deployment virt-api) cannot be applied: ";
    for broken in ["{\"a\":", "a: b", ""] {
        let found = patch("merge", broken);
        assert!(found[0].starts_with(&format!("{head}its text is not JSON: ")), "{found:?}");
    }
    assert_eq!(patch("pony", "{}"), [format!("{head}its type \"pony\" is none of json, merge, strategic")]);
}

#[test]
fn what_a_change_makes_of_the_objects_is_known_before_it_is_stored() {
    let env = [("VIRT_OPERATOR_IMAGE".to_owned(), "localhost/kubevirt/virt-operator:v0.1.0".to_owned())];
    let settings = crate::settings::Settings::new("kubevirt".to_owned(), env.into()).expect("settings");
    let with = |name: &str, patch: Value| {
        json!({"customizeComponents": {"patches": [
            {"resourceName": name, "resourceType": "Deployment", "type": "json", "patch": patch.to_string()}]}})
    };
    let ask = |old: Value, new: Value| crate::admission::customized::customized(&update(old, new), &settings);
    let replicas = with("virt-api", json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]));
    let made = ask(json!({}), replicas.clone()).expect("it can be done").expect("objects");
    assert_eq!(made.warnings, [""; 0]);
    let names: Vec<_> = made.objects.iter().map(|object| object.key().to_string()).collect();
    assert_eq!(names, ["Deployment kubevirt/virt-api"]);
    assert_eq!(made.objects[0].at("/spec/replicas"), Some(&json!(5)));
    assert_eq!(ask(replicas.clone(), replicas.clone()), Ok(None), "nothing new");
    assert_eq!(ask(replicas, json!({})), Ok(None), "taken away");
    let broken = with("virt-api", json!([{"op": "remove", "path": "/spec/nothing"}]));
    let refused = ask(json!({}), broken.clone()).expect_err("there is no such field");
    assert!(refused[0].to_string().contains("/spec/nothing does not exist"), "{refused:?}");
    let mut elsewhere = broken;
    elsewhere["imageTag"] = json!("v0.2.0");
    assert_eq!(ask(json!({}), elsewhere), Ok(None), "the objects of that version are not known here");
    let nobody = ask(json!({}), with("nobody", json!([]))).expect("it can be done").expect("objects");
    assert_eq!(nobody.objects, []);
    assert!(nobody.warnings[0].contains("has no effect"), "{:?}", nobody.warnings);
}

#[test]
fn the_downtime_changes_with_a_gate_alone() {
    let with = |downtime: u32, gate: &str| json!({"configuration": {"migrations": {"maxDowntimeMs": downtime}, "developerConfiguration": {"featureGates": [gate]}}});
    let change = |gate: &str| said(&admit(&update(with(900, gate), with(300, gate)), &Facts::default()));
    assert_eq!(change("MigrationStallDetection"), "allowed");
    assert_eq!(change("MigrationDowntimeTuning"), "allowed");
    assert_eq!(
        change("Sidecar"),
        "422 a change of spec.configuration.migrations.maxDowntimeMs needs the feature gate MigrationStallDetection or \
         MigrationDowntimeTuning"
    );
    assert_eq!(said(&admit(&update(with(900, "A"), with(900, "B")), &Facts::default())), "allowed");
}

#[test]
fn what_goes_away_is_warned_of() {
    let old = json!({"configuration": {
        "developerConfiguration": {"featureGates": ["LiveMigration", "DockerSELinuxMCSWorkaround", "Sidecar", "Nobody"],
            "disabledFeatureGates": ["Macvtap"]},
        "mediatedDevicesConfiguration": {"mediatedDevicesTypes": ["a"],
            "nodeMediatedDeviceTypes": [{"nodeSelector": {}, "mediatedDevicesTypes": ["b"]}]},
        "architectureConfiguration": {"ppc64le": {}},
    }});
    let expected = [
        "feature gate LiveMigration is always on: listing it has no effect",
        "feature gate DockerSELinuxMCSWorkaround is deprecated and goes away",
        "feature gate Macvtap is gone: listing it has no effect",
        "spec.configuration.mediatedDevicesConfiguration.mediatedDevicesTypes is deprecated: use mediatedDeviceTypes",
        "spec.configuration.mediatedDevicesConfiguration.nodeMediatedDeviceTypes[0].mediatedDevicesTypes is deprecated: use \
         mediatedDeviceTypes",
        "spec.configuration.architectureConfiguration.ppc64le is deprecated: no release runs on it",
    ];
    assert_eq!(warnings(&spec(old.clone())), expected);
    assert_eq!(admit(&update(json!({}), old), &Facts::default()).warnings, expected);
    assert_eq!(warnings(&KubeVirtSpec::default()), [""; 0]);
}
