use std::collections::BTreeSet;

use expect_test::expect;
use serde_json::{Value, json};

use super::*;
use crate::certificates;
use crate::kinds::Kind;
use crate::object::Object;
use crate::operator_manifest::{ManifestOptions, operator_manifest};
use crate::rbac;
use crate::yaml;

fn config() -> DeploymentConfig {
    DeploymentConfig {
        namespace: "kubevirt".into(),
        registry: "localhost/kubevirt".into(),
        kubevirt_version: "v0.2.0".into(),
        ..Default::default()
    }
}

fn find<'a>(objects: &'a [Object], kind: Kind, name: &str) -> &'a Object {
    objects.iter().find(|o| o.kind() == kind && o.name() == name).expect("the object is rendered")
}

fn workloads(objects: &[Object]) -> impl Iterator<Item = &Object> {
    objects.iter().filter(|o| o.kind().has_pod_template())
}

#[test]
fn the_suite_in_outline() {
    let strategy = render(&config());
    let lines: Vec<String> = strategy
        .objects
        .iter()
        .filter(|o| o.kind() != Kind::CustomResourceDefinition)
        .map(|o| o.key().to_string() + "\n")
        .collect();
    expect![[r#"
        ServiceAccount kubevirt/kubevirt-apiserver
        ServiceAccount kubevirt/kubevirt-controller
        ServiceAccount kubevirt/kubevirt-handler
        ClusterRole instancetype.kubevirt.io:view
        ClusterRole kubevirt-apiserver
        ClusterRole kubevirt-controller
        ClusterRole kubevirt-handler
        ClusterRole kubevirt.io:admin
        ClusterRole kubevirt.io:default
        ClusterRole kubevirt.io:edit
        ClusterRole kubevirt.io:migrate
        ClusterRole kubevirt.io:view
        ClusterRoleBinding instancetype.kubevirt.io:view
        ClusterRoleBinding kubevirt-apiserver
        ClusterRoleBinding kubevirt-controller
        ClusterRoleBinding kubevirt-handler
        ClusterRoleBinding kubevirt.io:default
        Role kubevirt/kubevirt-apiserver
        Role kubevirt/kubevirt-controller
        Role kubevirt/kubevirt-handler
        RoleBinding kubevirt/kubevirt-apiserver
        RoleBinding kubevirt/kubevirt-controller
        RoleBinding kubevirt/kubevirt-handler
        SecurityContextConstraints kubevirt-controller
        SecurityContextConstraints kubevirt-handler
        Service kubevirt/kubevirt-operator-webhook
        Service kubevirt/kubevirt-prometheus-metrics
        Service kubevirt/virt-api
        DaemonSet kubevirt/virt-handler
        Deployment kubevirt/virt-api
        Deployment kubevirt/virt-controller
        ValidatingWebhookConfiguration virt-api-validator
        ValidatingWebhookConfiguration virt-operator-validator
        MutatingWebhookConfiguration virt-api-mutator
        MutatingWebhookConfiguration virt-launcher-pod-mutator
        APIService v1.subresources.kubevirt.io
        APIService v1alpha3.subresources.kubevirt.io
    "#]]
    .assert_eq(&lines.concat());
    assert_eq!(strategy.objects.len() - lines.len(), crds::ROWS.len());
}

#[test]
fn what_the_api_server_calls() {
    let objects = render(&config()).objects;
    let calls = |object: &Object| {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let webhooks = object.value()["webhooks"].as_array().cloned().unwrap_or_default();
        let lines = webhooks.iter().map(|webhook| {
            let (client, rule) = (&webhook["clientConfig"]["service"], &webhook["rules"][0]);
            // A launcher's pod that nobody changed is of more use than none.
            let policy = if object.name() == POD_MUTATOR { "Ignore" } else { "Fail" };
            assert_eq!((&webhook["failurePolicy"], &webhook["sideEffects"]), (&policy.into(), &"None".into()));
            assert_eq!(
                (&webhook["timeoutSeconds"], &webhook["admissionReviewVersions"]),
                (&10.into(), &vec!["v1"].into())
            );
            format!(
                "  {}: {} {} -> {} {}\n",
                text(&webhook["name"]),
                rule["operations"],
                rule["resources"],
                text(&client["name"]),
                text(&client["path"])
            )
        });
        let own = lines.collect::<String>();
        let service = text(&object.value()["spec"]["service"]["name"]);
        let aggregated = if service.is_empty() { String::new() } else { format!("  -> {service}\n") };
        let secret = object.annotation("certificates.kubevirt.io/secret").unwrap_or_default();
        let label = object.label("kubevirt.io").unwrap_or_default();
        format!("{} {} ({label}, {secret})\n{own}{aggregated}", object.kind(), object.name())
    };
    let registrations = objects.iter().filter(|object| object.kind().phase() == crate::Phase::Admission);
    expect![[r#"
        ValidatingWebhookConfiguration virt-api-validator (virt-api-validator, kubevirt-virt-api-certs)
          virtualmachineinstances-update-validator.kubevirt.io: ["UPDATE"] ["virtualmachineinstances"] -> virt-api /virtualmachineinstances-validate-update
          migration-update-validator.kubevirt.io: ["UPDATE"] ["virtualmachineinstancemigrations"] -> virt-api /migration-validate-update
        ValidatingWebhookConfiguration virt-operator-validator (virt-operator-validator, kubevirt-operator-certs)
          kubevirt-validator.kubevirt.io: ["DELETE"] ["kubevirts"] -> kubevirt-operator-webhook /kubevirt-validate-delete
          kubevirt-update-validator.kubevirt.io: ["UPDATE"] ["kubevirts"] -> kubevirt-operator-webhook /kubevirt-validate-update
          kubevirt-create-validator.kubevirt.io: ["CREATE"] ["kubevirts"] -> kubevirt-operator-webhook /kubevirt-validate-create
        MutatingWebhookConfiguration virt-api-mutator (virt-api-mutator, kubevirt-virt-api-certs)
          virtualmachines-mutator.kubevirt.io: ["CREATE","UPDATE"] ["virtualmachines"] -> virt-api /virtualmachines-mutate
          virtualmachineinstances-mutator.kubevirt.io: ["CREATE","UPDATE"] ["virtualmachineinstances"] -> virt-api /virtualmachineinstances-mutate
          migrations-mutator.kubevirt.io: ["CREATE"] ["virtualmachineinstancemigrations"] -> virt-api /migration-mutate-create
          virtualmachineclones-mutator.kubevirt.io: ["CREATE"] ["virtualmachineclones"] -> virt-api /vm-clone-mutate-create
        MutatingWebhookConfiguration virt-launcher-pod-mutator (virt-launcher-pod-mutator, kubevirt-virt-api-certs)
          virt-launcher-pod-mutator.kubevirt.io: ["CREATE"] ["pods"] -> virt-api /virt-launcher-pod-mutate
        APIService v1.subresources.kubevirt.io (virt-api-aggregator, kubevirt-virt-api-certs)
          -> virt-api
        APIService v1alpha3.subresources.kubevirt.io (virt-api-aggregator, kubevirt-virt-api-certs)
          -> virt-api
    "#]].assert_eq(&registrations.map(calls).collect::<String>());
}

#[test]
fn virt_controller_in_full() {
    let objects = render(&config()).objects;
    expect![[r#"
        apiVersion: apps/v1
        kind: Deployment
        metadata:
          labels:
            app.kubernetes.io/name: virt-controller
            app.kubernetes.io/version: v0.2.0
            kubevirt.io: virt-controller
          name: virt-controller
          namespace: kubevirt
        spec:
          replicas: 2
          selector:
            matchLabels:
              kubevirt.io: virt-controller
          strategy:
            type: RollingUpdate
          template:
            metadata:
              annotations:
                openshift.io/required-scc: restricted-v2
              labels:
                app.kubernetes.io/version: v0.2.0
                kubevirt.io: virt-controller
                np.kubevirt.io/allow-access-cluster-services: "true"
                prometheus.kubevirt.io: "true"
              name: virt-controller
            spec:
              affinity:
                podAntiAffinity:
                  preferredDuringSchedulingIgnoredDuringExecution:
                  - podAffinityTerm:
                      labelSelector:
                        matchExpressions:
                        - key: kubevirt.io
                          operator: In
                          values:
                          - virt-controller
                      topologyKey: kubernetes.io/hostname
                    weight: 1
              containers:
              - args:
                - --launcher-image
                - localhost/kubevirt/virt-launcher:v0.2.0
                - --port
                - "8443"
                - -v
                - "2"
                command:
                - virt-controller
                image: localhost/kubevirt/virt-controller:v0.2.0
                imagePullPolicy: IfNotPresent
                livenessProbe:
                  failureThreshold: 8
                  httpGet:
                    path: /healthz
                    port: 8443
                    scheme: HTTPS
                  timeoutSeconds: 10
                name: virt-controller
                ports:
                - containerPort: 8443
                  name: metrics
                  protocol: TCP
                readinessProbe:
                  httpGet:
                    path: /leader
                    port: 8443
                    scheme: HTTPS
                  timeoutSeconds: 10
                resources:
                  requests:
                    cpu: 10m
                    memory: 32Mi
                securityContext:
                  allowPrivilegeEscalation: false
                  capabilities:
                    drop:
                    - ALL
                  seccompProfile:
                    type: RuntimeDefault
                startupProbe:
                  failureThreshold: 300
                  httpGet:
                    path: /leader
                    port: 8443
                    scheme: HTTPS
                  periodSeconds: 1
                  timeoutSeconds: 10
                terminationMessagePolicy: FallbackToLogsOnError
                volumeMounts:
                - mountPath: /etc/virt-controller/backupca
                  name: kubevirt-backup-ca
                  readOnly: true
                - mountPath: /etc/virt-controller/certificates
                  name: kubevirt-controller-certs
                  readOnly: true
                - mountPath: /profile-data
                  name: profile-data
              priorityClassName: kubevirt-cluster-critical
              securityContext:
                runAsNonRoot: true
                seccompProfile:
                  type: RuntimeDefault
              serviceAccountName: kubevirt-controller
              tolerations:
              - key: CriticalAddonsOnly
                operator: Exists
              volumes:
              - name: kubevirt-backup-ca
                secret:
                  optional: false
                  secretName: kubevirt-backup-ca
              - name: kubevirt-controller-certs
                secret:
                  optional: false
                  secretName: kubevirt-controller-certs
              - emptyDir: {}
                name: profile-data
    "#]]
    .assert_eq(&yaml::document(find(&objects, Kind::Deployment, "virt-controller")));
}

#[test]
fn the_rights_of_virt_controller() {
    let objects = render(&config()).objects;
    expect![[r#"
        apiVersion: rbac.authorization.k8s.io/v1
        kind: Role
        metadata:
          labels:
            kubevirt.io: ""
          name: kubevirt-controller
          namespace: kubevirt
        rules:
        - apiGroups:
          - ""
          resources:
          - pods
          verbs:
          - get
        - apiGroups:
          - ""
          resources:
          - events
          verbs:
          - create
        - apiGroups:
          - coordination.k8s.io
          resources:
          - leases
          verbs:
          - create
        - apiGroups:
          - coordination.k8s.io
          resourceNames:
          - virt-controller
          resources:
          - leases
          verbs:
          - get
          - list
          - watch
          - update
          - patch
    "#]]
    .assert_eq(&yaml::document(find(&objects, Kind::Role, "kubevirt-controller")));
}

#[test]
fn rendering_is_a_function() {
    assert_eq!(render(&config()), render(&config()));
    assert_eq!(yaml::to_yaml(&render(&config()).objects), yaml::to_yaml(&render(&config()).objects));
}

#[test]
fn selectors_select_their_own_pods_and_no_others() {
    let objects = render(&config()).objects;
    for workload in workloads(&objects) {
        for other in workloads(&objects) {
            let selector = workload.at("/spec/selector/matchLabels").and_then(Value::as_object).expect("a selector");
            let labels = &other.pod_template().expect("a workload")["metadata"]["labels"];
            let selected = selector.iter().all(|(key, value)| labels[key] == *value);
            assert_eq!(selected, workload.key() == other.key(), "{} and {}", workload.key(), other.key());
        }
    }
}

#[test]
fn services_select_pods_that_have_their_port() {
    let mut objects = render(&config()).objects;
    objects.extend(operator_manifest(&ManifestOptions::new("localhost/kubevirt", "v0.2.0")));
    for service in objects.iter().filter(|o| o.kind() == Kind::Service) {
        let selector = service.at("/spec/selector").and_then(Value::as_object).expect("a selector");
        let target = service.at("/spec/ports/0/targetPort").expect("a port");
        let answering = workloads(&objects)
            .map(|w| w.pod_template().expect("a workload"))
            .filter(|template| selector.iter().all(|(key, value)| template["metadata"]["labels"][key] == *value))
            .collect::<Vec<_>>();
        assert!(!answering.is_empty(), "{} selects nothing", service.key());
        for template in answering {
            let ports = template["spec"]["containers"][0]["ports"].as_array().expect("ports");
            assert!(
                ports.iter().any(|p| p["name"] == *target || p["containerPort"] == *target),
                "{} finds no port {target}",
                service.key()
            );
        }
    }
}

#[test]
fn every_mounted_secret_is_in_the_certificate_table_and_every_certificate_is_mounted_where_it_says() {
    let known = certificates::all("kubevirt");
    let mut objects = render(&config()).objects;
    objects.extend(operator_manifest(&ManifestOptions::new("localhost/kubevirt", "v0.2.0")));
    let mut mounted = BTreeSet::new();
    for workload in workloads(&objects) {
        let spec = &workload.pod_template().expect("a workload")["spec"];
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            let Some(secret) = volume["secret"]["secretName"].as_str() else { continue };
            assert!(known.iter().any(|c| c.secret == secret), "{secret} of {}", workload.key());
            for mount in spec["containers"][0]["volumeMounts"].as_array().expect("mounts") {
                if mount["name"] == volume["name"] {
                    mounted.insert((
                        secret.to_string(),
                        workload.name().to_string(),
                        mount["mountPath"].clone().to_string(),
                    ));
                }
            }
        }
    }
    let listed: BTreeSet<_> = known
        .iter()
        .flat_map(|c| {
            c.mounts.iter().map(|m| (c.secret.to_string(), m.component.to_string(), json!(m.path).to_string()))
        })
        .collect();
    assert_eq!(mounted, listed);
}

#[test]
fn every_volume_that_is_mounted_exists() {
    for workload in workloads(&render(&config()).objects) {
        let spec = &workload.pod_template().expect("a workload")["spec"];
        let volumes: BTreeSet<_> =
            spec["volumes"].as_array().expect("volumes").iter().map(|v| v["name"].to_string()).collect();
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                    assert!(volumes.contains(&mount["name"].to_string()), "{mount} of {}", workload.key());
                }
            }
        }
    }
}

#[test]
fn every_service_account_and_role_that_is_named_exists() {
    let mut objects = render(&config()).objects;
    objects.extend(operator_manifest(&ManifestOptions::new("localhost/kubevirt", "v0.2.0")));
    let accounts: Vec<Value> =
        objects.iter().filter(|o| o.kind() == Kind::ServiceAccount).map(|o| json!(o.name())).collect();
    for workload in workloads(&objects) {
        let account = &workload.pod_template().expect("a workload")["spec"]["serviceAccountName"];
        assert!(accounts.contains(account), "{account} of {}", workload.key());
    }
    for binding in objects.iter().filter(|o| matches!(o.kind(), Kind::RoleBinding | Kind::ClusterRoleBinding)) {
        let role = binding.at("/roleRef").expect("a role");
        assert!(
            objects.iter().any(|o| o.kind().name() == role["kind"] && o.name() == role["name"]),
            "{role} of {}",
            binding.key()
        );
        for subject in binding.at("/subjects").and_then(Value::as_array).expect("subjects") {
            assert!(subject["kind"] == "Group" || accounts.contains(&subject["name"]), "{subject}");
        }
    }
}

#[test]
fn components_may_report_events_and_nothing_is_granted_by_wildcard() {
    let event = rbac::rule("", &["events"], &["create"]);
    for access in accesses() {
        assert!(rbac::covers(&access.namespace_rules, &event), "{}", access.account);
        for rule in access.cluster_rules.iter().chain(&access.namespace_rules) {
            let words = [&rule.api_groups, &rule.resources].into_iter().flatten().flatten().chain(&rule.verbs);
            assert!(words.into_iter().all(|word| word != "*"), "{}: {rule:?}", access.account);
        }
    }
}

#[test]
fn pull_secrets_bring_a_container_that_keeps_the_launcher_image() {
    let mut config = config();
    config.additional_properties.insert("ImagePullSecrets".into(), r#"[{"name":"registry"}]"#.into());
    let objects = render(&config).objects;
    let spec = &find(&objects, Kind::DaemonSet, "virt-handler").pod_template().expect("a workload")["spec"];
    let names: Vec<_> = spec["containers"].as_array().expect("a list").iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["virt-handler", "virt-launcher-image-holder"]);
    for workload in workloads(&objects) {
        assert_eq!(workload.at("/spec/template/spec/imagePullSecrets"), Some(&json!([{"name": "registry"}])));
    }
}

#[test]
fn pass_through_variables_reach_every_component_but_do_not_replace_its_own() {
    let mut config = config();
    config.passthrough_env_vars.insert("HTTP_PROXY".into(), "http://proxy=1:3128".into());
    config.passthrough_env_vars.insert("NODE_NAME".into(), "elsewhere".into());
    for workload in workloads(&render(&config).objects) {
        let env = workload.at("/spec/template/spec/containers/0/env").and_then(Value::as_array).expect("a list");
        let proxy = json!({"name": "HTTP_PROXY", "value": "http://proxy=1:3128"});
        assert!(env.contains(&proxy), "{}", workload.key());
        let own = env.iter().filter(|v| v["name"] == "NODE_NAME").collect::<Vec<_>>();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0]["value"].is_null(), workload.name() == "virt-handler");
    }
}

#[test]
fn images_are_of_the_release() {
    let objects = render(&config()).objects;
    for workload in workloads(&objects) {
        let spec = &workload.pod_template().expect("a workload")["spec"];
        for container in ["containers", "initContainers"].iter().flat_map(|l| spec[*l].as_array()).flatten() {
            let image = container["image"].as_str().expect("an image");
            assert!(image.starts_with("localhost/kubevirt/virt-") && image.ends_with(":v0.2.0"), "{image}");
            assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        }
    }
}
