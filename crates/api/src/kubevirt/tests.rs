use super::*;
use expect_test::expect;
use serde_json::{Value, json};

/// The CR of the upgrade guide, as it is written there.
const OLD_CR: &str = "
apiVersion: kubevirt.io/v1alpha3   # v1 too
kind: KubeVirt
metadata: {name: kubevirt, namespace: kubevirt}
spec:
  imageTag: v0.30
  certificateRotateStrategy: {}
  configuration: {}
  imagePullPolicy: IfNotPresent
";

fn crd() -> Value {
    serde_json::to_value(KubeVirt::crd()).unwrap()
}

#[test]
fn the_crd_has_the_shell_that_clients_know() {
    let crd = crd();
    let spec = &crd["spec"];
    assert_eq!(crd["metadata"]["name"], "kubevirts.kubevirt.io");
    assert_eq!(crd["metadata"]["labels"], json!({"operator.kubevirt.io": ""}));
    assert_eq!(spec["scope"], "Namespaced");
    assert_eq!(
        spec["names"],
        json!({"categories": ["all"], "kind": "KubeVirt", "plural": "kubevirts", "shortNames": ["kv", "kvs"],
               "singular": "kubevirt"})
    );
    let versions = spec["versions"].as_array().unwrap();
    let outline: Vec<_> = versions
        .iter()
        .map(|v| json!([v["name"], v["served"], v["storage"], v["deprecated"], v["subresources"]]))
        .collect();
    assert_eq!(
        outline,
        [json!(["v1", true, true, null, {"status": {}}]), json!(["v1alpha3", true, false, true, {"status": {}}])]
    );
    assert_eq!(versions[0]["schema"], versions[1]["schema"]);
    assert_eq!(versions[0]["schema"]["openAPIV3Schema"]["required"], json!(["spec"]));
    assert!(versions[1]["deprecationWarning"].is_string());
    let columns: Vec<_> =
        versions[0]["additionalPrinterColumns"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(columns, ["Age", "Phase"]);
}

/// What a structural schema may not contain, and what the API server warns about.
fn faults(path: &str, schema: &Value, found: &mut Vec<String>) {
    let Some(map) = schema.as_object() else {
        found.push(format!("{path}: not an object: {schema}"));
        return;
    };
    let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    let int_or_string = map.get("x-kubernetes-int-or-string") == Some(&json!(true));
    if !map.get("type").is_some_and(Value::is_string) && !open && !int_or_string {
        found.push(format!("{path}: no type"));
    }
    for word in ["$ref", "anyOf", "oneOf", "allOf", "const", "definitions", "$defs"] {
        if map.contains_key(word) && !(int_or_string && word == "anyOf") {
            found.push(format!("{path}: {word}"));
        }
    }
    if map.get("additionalProperties").is_some_and(Value::is_boolean) {
        found.push(format!("{path}: additionalProperties is a switch"));
    }
    if map.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
        found.push(format!("{path}: unsigned format"));
    }
    for (name, child) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        faults(&format!("{path}.{name}"), child, found);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = map.get(key) {
            faults(&format!("{path}.{key}"), child, found);
        }
    }
}

#[test]
fn the_schema_is_structural() {
    let crd = crd();
    let mut found = vec![];
    faults("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn unknown_fields_are_kept_nowhere() {
    fn open(path: &str, value: &Value, found: &mut Vec<String>) {
        if let Value::Object(map) = value {
            if map.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true)) {
                found.push(path.into());
            }
            for (key, child) in map {
                open(&format!("{path}/{key}"), child, found);
            }
        }
    }
    let crd = crd();
    let mut found = vec![];
    open("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"], &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// `kubectl apply` keeps what was applied in an annotation, and all annotations of an object may hold this much.
const ANNOTATIONS: usize = 262_144;

#[test]
fn kubectl_can_apply_the_crd_from_its_own_side() {
    let manifest = serde_json::to_string(&crd()).unwrap();
    // The annotation holds the whole manifest; half of the room is left for what later releases add.
    assert!(manifest.len() < ANNOTATIONS / 2, "{} bytes", manifest.len());
}

#[test]
fn every_field_of_the_contract_is_there() {
    let crd = crd();
    let properties = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let names = |v: &Value| v["properties"].as_object().unwrap().keys().map(|k| format!("  {k}\n")).collect::<String>();
    expect![[r#"
        spec
          certificateRotateStrategy
          configuration
          customizeComponents
          imagePullPolicy
          imagePullSecrets
          imageRegistry
          imageTag
          infra
          monitorAccount
          monitorNamespace
          productComponent
          productName
          productVersion
          serviceMonitorNamespace
          synchronizationPort
          uninstallStrategy
          workloadUpdateStrategy
          workloads
        status
          conditions
          defaultArchitecture
          generations
          observedDeploymentConfig
          observedDeploymentID
          observedGeneration
          observedKubeVirtRegistry
          observedKubeVirtVersion
          operatorVersion
          outdatedVirtualMachineInstanceWorkloads
          phase
          synchronizationAddresses
          targetDeploymentConfig
          targetDeploymentID
          targetKubeVirtRegistry
          targetKubeVirtVersion
        selfSigned
          ca
          caOverlapInterval
          caRotateInterval
          certRotateInterval
          server
    "#]]
    .assert_eq(&format!(
        "spec\n{}status\n{}selfSigned\n{}",
        names(&properties["spec"]),
        names(&properties["status"]),
        names(&properties["spec"]["properties"]["certificateRotateStrategy"]["properties"]["selfSigned"])
    ));
}

#[test]
fn the_old_cr_is_read_and_written_back() {
    let cr: KubeVirt = serde_saphyr::from_str(OLD_CR).unwrap();
    assert_eq!(cr.spec.image_tag.as_deref(), Some("v0.30"));
    assert_eq!(cr.spec.image_pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(
        serde_json::to_value(&cr.spec).unwrap(),
        json!({"imageTag": "v0.30", "certificateRotateStrategy": {}, "configuration": {},
               "imagePullPolicy": "IfNotPresent"})
    );
}

/// A field of tomorrow in every object.
fn with_unknown_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(with_unknown_fields);
            fields.insert("ofTomorrow".into(), json!({"a": [1]}));
        }
        Value::Array(items) => items.iter_mut().for_each(with_unknown_fields),
        _ => {}
    }
}

#[test]
fn what_is_not_typed_survives() {
    let spec = json!({
        "configuration": {
            "developerConfiguration": {"featureGates": ["Sidecar"], "logVerbosity": {"virtAPI": 4}},
            "permittedHostDevices": {"pciHostDevices": [{"pciVendorSelector": "10DE:1EB8", "resourceName": "x/y"}]},
            "hypervisors": [{"name": "kvm"}],
            "apiConfiguration": {"restClient": {"rateLimiter": {"tokenBucketRateLimiter": {"qps": 2.5, "burst": 3}}}},
            "cpuRequest": 1, "network": {"binding": {"plug": {"migration": {"method": "link-refresh"},
                "computeResourceOverhead": {"limits": {"memory": "1Mi"}}}}},
            "supportContainerResources": [{"type": "virtiofs", "resources": {"requests": {"cpu": "1"}}}],
            "ksmConfiguration": {"nodeLabelSelector": {"matchLabels": {"a": "b"}}},
            "migrations": {"disableTLS": true, "bandwidthPerMigration": "64Mi", "completionTimeoutPerGiB": 3},
        },
        "infra": {"replicas": 3, "nodePlacement": {"tolerations": [{"operator": "Bogus"}],
            "affinity": {"nodeAffinity": {}}}},
        "imagePullSecrets": [{"name": "a"}],
        "customizeComponents": {"patches": [{"resourceName": "*", "resourceType": "*", "patch": "{}", "type": "merge"}]},
        "workloadUpdateStrategy": {"batchEvictionInterval": "1m0s", "workloadUpdateMethods": ["LiveMigrate"]},
    });
    let mut spec = spec;
    with_unknown_fields(&mut spec);
    let read: KubeVirtSpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(read.configuration.as_ref().unwrap().other.keys().collect::<Vec<_>>(), ["ofTomorrow"]);
    let mut written = serde_json::to_value(&read).unwrap();
    // A Go duration has many spellings of one value.
    assert!(written["workloadUpdateStrategy"]["batchEvictionInterval"].is_string());
    written["workloadUpdateStrategy"]["batchEvictionInterval"] = "1m0s".into();
    assert_eq!(written, spec);
}

#[test]
fn certificate_lifetimes_have_defaults_and_older_names_win() {
    let hours = |h: u64| h * 3600;
    let defaults = KubeVirtSpec::default().certificate_lifetimes();
    assert_eq!(
        defaults,
        CertificateLifetimes {
            ca_duration: hours(168),
            ca_renew_before: hours(168) / 5,
            server_duration: hours(24),
            server_renew_before: hours(24) / 5
        }
    );
    let spec: KubeVirtSpec = serde_json::from_value(json!({"certificateRotateStrategy": {"selfSigned": {
        "ca": {"duration": "48h", "renewBefore": "1h"}, "caRotateInterval": "100h", "server": {"duration": "10h"}}}}))
    .unwrap();
    let lifetimes = spec.certificate_lifetimes();
    assert_eq!((lifetimes.ca_duration, lifetimes.ca_renew_before), (hours(100), hours(1)));
    assert_eq!((lifetimes.server_duration, lifetimes.server_renew_before), (hours(10), hours(2)));
}

fn shown(conditions: &[Condition]) -> String {
    conditions
        .iter()
        .map(|c| {
            let time = |t: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                t.as_ref().map_or("-".to_string(), |t| t.0.as_second().to_string())
            };
            format!(
                "{}={} {} {} {}\n",
                c.condition_type,
                c.status,
                c.reason.as_deref().unwrap_or("-"),
                time(&c.last_probe_time),
                time(&c.last_transition_time)
            )
        })
        .collect()
}

#[test]
fn an_installation_and_an_upgrade_in_conditions() {
    let at = |second| jiff::Timestamp::from_second(second).unwrap();
    let mut conditions = vec![];
    assert!(enter(&Situation::Installing, &mut conditions, at(1)));
    assert!(!enter(&Situation::Installing, &mut conditions, at(2)), "unchanged: nothing to write");
    expect![[r#"
        Available=False DeploymentInProgress 1 -
        Progressing=True DeploymentInProgress 1 -
        Degraded=False DeploymentInProgress 1 -
    "#]]
    .assert_eq(&shown(&conditions));

    assert!(enter(&Situation::ResourcesCreated, &mut conditions, at(3)));
    assert!(enter(&Situation::Ready, &mut conditions, at(4)));
    expect![[r#"
        Available=True AllComponentsReady 4 4
        Progressing=False AllComponentsReady 4 4
        Degraded=False AllComponentsReady 4 4
        Created=True AllResourcesCreated 3 -
    "#]]
    .assert_eq(&shown(&conditions));

    assert!(enter(&Situation::Updating, &mut conditions, at(5)));
    expect![[r#"
        Available=True UpdateInProgress 5 5
        Progressing=True UpdateInProgress 5 5
        Degraded=True UpdateInProgress 5 5
    "#]]
    .assert_eq(&shown(&conditions));

    let refused = Situation::Refused { reason: Reason::TargetUnavailable, message: "no image".into() };
    assert!(enter(&refused, &mut conditions, at(6)));
    assert!(!enter(&refused, &mut conditions, at(7)));
    assert!(enter(&Situation::Ready, &mut conditions, at(8)));
    assert!(find_condition(&conditions, ConditionType::Synchronized).is_none());
    assert!(enter(&Situation::Deleting, &mut conditions, at(9)));
    expect![[r#"
        Available=False DeletionInProgress 9 9
        Progressing=False DeletionInProgress 9 9
        Degraded=True DeletionInProgress 9 9
    "#]]
    .assert_eq(&shown(&conditions));
}

#[test]
fn times_are_written_as_null_when_absent() {
    let mut conditions = vec![];
    enter(&Situation::ResourcesCreated, &mut conditions, jiff::Timestamp::from_second(0).unwrap());
    assert_eq!(
        serde_json::to_value(&conditions).unwrap(),
        json!([{"type": "Created", "status": "True", "reason": "AllResourcesCreated",
                "message": "Every object is in place", "lastProbeTime": "1970-01-01T00:00:00Z",
                "lastTransitionTime": null}])
    );
}

/// As the API server would: the schema is accepted, the CR fits it, and nothing of it is dropped.
#[test]
fn the_old_cr_is_valid_in_both_versions_and_keeps_every_field() {
    for version in crd()["spec"]["versions"].as_array().unwrap() {
        let schema = apimachinery::schema::Schema::from_crd(&version["schema"]["openAPIV3Schema"]).unwrap();
        let cr: Value = serde_saphyr::from_str(OLD_CR).unwrap();
        assert_eq!(schema.validate(&cr), []);
        assert_eq!(schema.unknown_fields(&cr), Vec::<String>::new());
        let full = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "x"}, "spec": {
            "configuration": {"migrations": {"bandwidthPerMigration": 5}},
            "certificateRotateStrategy": {"selfSigned": {"ca": {"duration": "48h"}}},
            "infra": {"nodePlacement": {"tolerations": [{"key": "a", "operator": "Bogus"}]}},
            "workloadUpdateStrategy": {"workloadUpdateMethods": ["LiveMigrate"]}}});
        assert_eq!(schema.validate(&full), []);
        assert_eq!(schema.unknown_fields(&full), Vec::<String>::new());
        let wrong = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "x"},
            "spec": {"imageTag": 30, "infra": {"replicas": "2"}}});
        let fields: Vec<_> = schema.validate(&wrong).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["spec.imageTag", "spec.infra.replicas"]);
        let unheard = json!({"spec": {"configuration": {"unheardOf": {"a": 1}}, "imagetag": "v1"}, "status": {"b": 1}});
        assert_eq!(
            schema.unknown_fields(&unheard),
            ["spec.configuration.unheardOf", "spec.imagetag", "status.b"],
            "each is refused under Strict field validation"
        );
    }
}

#[test]
fn the_status_of_another_operator_survives() {
    let mut status = json!({
        "phase": "Deployed",
        "conditions": [{"type": "Available", "status": "True", "lastProbeTime": null, "lastTransitionTime": null}],
        "generations": [{"group": "apps", "resource": "deployments", "name": "virt-api", "lastGeneration": 2}],
    });
    with_unknown_fields(&mut status);
    let read: KubeVirtStatus = serde_json::from_value(status.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), status);
}

#[test]
fn values_outside_the_contract_are_refused() {
    let crd = crd();
    let schema =
        apimachinery::schema::Schema::from_crd(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]).unwrap();
    let refused = |configuration: Value| {
        let cr = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "x"},
            "spec": {"configuration": configuration}});
        schema.validate(&cr).into_iter().map(|error| error.field.replace("spec.configuration.", "")).collect::<Vec<_>>()
    };
    assert_eq!(
        refused(json!({"developerConfiguration": {"memoryOvercommit": 9}})),
        ["developerConfiguration.memoryOvercommit"]
    );
    for downtime in [0, 2_000_001] {
        assert_eq!(refused(json!({"migrations": {"maxDowntimeMs": downtime}})), ["migrations.maxDowntimeMs"]);
    }
    assert_eq!(refused(json!({"vmRolloutStrategy": "Never"})), ["vmRolloutStrategy"]);
    assert_eq!(refused(json!({"roleAggregationStrategy": ""})), ["roleAggregationStrategy"]);
    assert_eq!(refused(json!({"instancetype": {"referencePolicy": "copy"}})), ["instancetype.referencePolicy"]);
    assert_eq!(refused(json!({"tlsConfiguration": {"minTLSVersion": "SSL3"}})), ["tlsConfiguration.minTLSVersion"]);
    assert_eq!(refused(json!({"hypervisors": [{"name": "xen"}]})), ["hypervisors[0].name"]);
    assert_eq!(refused(json!({"hypervisors": [{"name": "kvm"}, {"name": "kvm"}]})), ["hypervisors"]);
    assert_eq!(refused(json!({"imagePullPolicy": "Sometimes"})), ["imagePullPolicy"]);
    assert_eq!(
        refused(json!({"permittedHostDevices": {"usb": [{"selectors": [{"vendor": "a"}]}]}})),
        ["permittedHostDevices.usb[0].selectors[0].product", "permittedHostDevices.usb[0].resourceName"]
    );
    assert_eq!(refused(json!({"vmRolloutStrategy": null, "hypervisors": [{"name": "kvm"}]})), Vec::<String>::new());
}
