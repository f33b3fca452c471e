use expect_test::expect;
use k8s_openapi::api::rbac::v1::PolicyRule;

use super::*;
use crate::config::DeploymentConfig;
use crate::image::OwnImage;
use crate::kinds::Kind;
use crate::rbac::{covers, named};
use crate::yaml;

fn options() -> ManifestOptions {
    ManifestOptions::new("localhost/kubevirt", "v0.2.0")
}

fn rules_of(object: &Object) -> Vec<PolicyRule> {
    serde_json::from_value(object.at("/rules").cloned().expect("rules")).expect("rules are typed")
}

#[test]
fn the_manifest_in_outline() {
    let lines: Vec<String> = operator_manifest(&options()).iter().map(|o| o.key().to_string() + "\n").collect();
    expect![[r#"
        Namespace kubevirt
        CustomResourceDefinition kubevirts.kubevirt.io
        CustomResourceDefinition upgradeplans.upgrade.kubevirt.io
        CustomResourceDefinition upgradepolicies.upgrade.kubevirt.io
        PriorityClass kubevirt-cluster-critical
        ClusterRole kubevirt.io:operator
        ServiceAccount kubevirt/kubevirt-operator
        Role kubevirt/kubevirt-operator
        RoleBinding kubevirt/kubevirt-operator-rolebinding
        ClusterRole kubevirt-operator
        ClusterRoleBinding kubevirt-operator
        Deployment kubevirt/virt-operator
    "#]]
    .assert_eq(&lines.concat());
}

#[test]
fn the_operators_pod() {
    let objects = operator_manifest(&options());
    let deployment = objects.last().expect("the operator");
    expect![[r#"
        affinity:
          nodeAffinity:
            preferredDuringSchedulingIgnoredDuringExecution:
            - preference:
                matchExpressions:
                - key: node-role.kubernetes.io/worker
                  operator: DoesNotExist
              weight: 100
            - preference:
                matchExpressions:
                - key: node-role.kubernetes.io/control-plane
                  operator: Exists
              weight: 100
            - preference:
                matchExpressions:
                - key: node-role.kubernetes.io/master
                  operator: Exists
              weight: 100
          podAntiAffinity:
            preferredDuringSchedulingIgnoredDuringExecution:
            - podAffinityTerm:
                labelSelector:
                  matchExpressions:
                  - key: kubevirt.io
                    operator: In
                    values:
                    - virt-operator
                topologyKey: kubernetes.io/hostname
              weight: 1
        containers:
        - args:
          - --port
          - "8443"
          - -v
          - "2"
          command:
          - virt-operator
          env:
          - name: VIRT_OPERATOR_IMAGE
            value: localhost/kubevirt/virt-operator:v0.2.0
          image: localhost/kubevirt/virt-operator:v0.2.0
          imagePullPolicy: IfNotPresent
          livenessProbe:
            failureThreshold: 3
            httpGet:
              path: /metrics
              port: 8443
              scheme: HTTPS
            timeoutSeconds: 10
          name: virt-operator
          ports:
          - containerPort: 8443
            name: metrics
            protocol: TCP
          - containerPort: 8444
            name: webhooks
            protocol: TCP
          readinessProbe:
            httpGet:
              path: /metrics
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
              path: /metrics
              port: 8443
              scheme: HTTPS
            periodSeconds: 1
            timeoutSeconds: 10
          terminationMessagePolicy: FallbackToLogsOnError
          volumeMounts:
          - mountPath: /etc/virt-operator/certificates
            name: kubevirt-operator-certs
            readOnly: true
          - mountPath: /profile-data
            name: profile-data
        nodeSelector:
          kubernetes.io/os: linux
        priorityClassName: kubevirt-cluster-critical
        securityContext:
          runAsNonRoot: true
          seccompProfile:
            type: RuntimeDefault
        serviceAccountName: kubevirt-operator
        tolerations:
        - key: CriticalAddonsOnly
          operator: Exists
        - effect: NoSchedule
          key: node-role.kubernetes.io/control-plane
          operator: Exists
        - effect: NoSchedule
          key: node-role.kubernetes.io/master
          operator: Exists
        volumes:
        - name: kubevirt-operator-certs
          secret:
            optional: true
            secretName: kubevirt-operator-certs
        - emptyDir: {}
          name: profile-data
    "#]]
    .assert_eq(&yaml::document(deployment.at("/spec/template/spec").expect("a pod")));
}

/// The operator's rules: those of the cluster, and those of its namespace.
fn held() -> (Vec<PolicyRule>, Vec<PolicyRule>) {
    let manifest = operator_manifest(&options());
    let of = |kind| {
        let role = manifest.iter().find(|o| o.kind() == kind && o.name() == ACCOUNT).expect("the operator's role");
        rules_of(role)
    };
    (of(Kind::ClusterRole), of(Kind::Role))
}

fn suite() -> Vec<Object> {
    render::render(&DeploymentConfig { namespace: "kubevirt".into(), registry: "r".into(), ..Default::default() })
        .objects
}

#[test]
fn the_suites_roles_may_be_filled_and_given_and_no_other() {
    let (cluster, namespace) = held();
    let may = |verb: &str, plural: &str, name: &str| {
        let held = if plural == "roles" { &namespace } else { &cluster };
        covers(held, &named("rbac.authorization.k8s.io", &[plural], &[name], &[verb]))
    };
    let mut checked = 0;
    for object in suite() {
        let plural = object.kind().plural();
        match object.kind() {
            Kind::ClusterRole | Kind::Role => assert!(may("escalate", plural, object.name()), "{}", object.key()),
            Kind::ClusterRoleBinding | Kind::RoleBinding => {
                let text = |pointer: &str| object.at(pointer).and_then(serde_json::Value::as_str).expect("a text");
                let plural = format!("{}s", text("/roleRef/kind").to_lowercase());
                assert!(may("bind", &plural, text("/roleRef/name")), "{}", object.key());
            }
            _ => continue,
        }
        checked += 1;
    }
    assert!(checked >= 20, "{checked}");
    for plural in ["roles", "clusterroles"] {
        for other in [ACCOUNT, "kubevirt.io:operator", "cluster-admin"] {
            assert!(!may("escalate", plural, other) && !may("bind", plural, other), "{other}");
        }
    }
    // Kubernetes' own admin, edit and view take these in; nobody is given them by this operator.
    for own in ["kubevirt.io:admin", "kubevirt.io:edit", "kubevirt.io:view"] {
        assert!(!may("bind", "clusterroles", own), "{own}");
    }
    assert!(!may("escalate", "clusterroles", "system:auth-delegator"));
}

#[test]
fn the_operator_may_write_every_kind_of_the_suite_where_it_keeps_it() {
    let (cluster, namespace) = held();
    for object in suite() {
        let kind = object.kind();
        let (here, elsewhere) = if kind.namespaced() { (&namespace, &cluster) } else { (&cluster, &namespace) };
        for verb in ["create", "patch", "delete"] {
            let needed = rule(kind.group(), &[kind.plural()], &[verb]);
            assert!(covers(here, &needed), "{verb} {kind}");
            assert!(!covers(elsewhere, &needed), "{verb} {kind}");
        }
        let needed = rule(kind.group(), &[kind.plural()], &["list", "watch"]);
        assert!(covers(here, &needed) || covers(&cluster, &needed), "{kind}");
    }
}

#[test]
fn rules_name_what_they_allow() {
    let (cluster, namespace) = held();
    for rule in cluster.iter().chain(&namespace) {
        let lists = [&rule.api_groups, &rule.resources, &rule.resource_names, &rule.non_resource_urls];
        let all = lists.into_iter().flatten().flatten().chain(&rule.verbs);
        assert!(all.into_iter().all(|word| !word.contains('*')), "{rule:?}");
    }
}

#[test]
fn the_manifest_is_read_as_it_was_written() {
    let manifest = operator_manifest(&options());
    let text = yaml::to_yaml(&manifest);
    assert_eq!(yaml::from_yaml(&text).expect("our own text"), manifest);
    assert!(text.starts_with("---\napiVersion: v1\nkind: Namespace\n"));
}

#[test]
fn the_operator_reads_its_own_release_from_its_manifest() {
    let image = |options: &ManifestOptions| {
        let objects = operator_manifest(options);
        let env = objects.last().expect("the operator").at("/spec/template/spec/containers/0/env").cloned();
        let variables: Vec<EnvVar> = serde_json::from_value(env.expect("an environment")).expect("variables");
        let env = variables.into_iter().map(|v| (v.name, v.value.unwrap_or_default())).collect();
        OwnImage::from_env(&env).expect("the image is named")
    };
    let own = image(&options());
    assert_eq!((own.registry.as_str(), own.version.as_str()), ("localhost/kubevirt", "v0.2.0"));
    let by_digest = ManifestOptions { digest: Some("sha256:0a".into()), prefix: "x-".into(), ..options() };
    let own = image(&by_digest);
    assert_eq!(own.image, "localhost/kubevirt/x-virt-operator@sha256:0a");
    assert_eq!((own.prefix.as_str(), own.version.as_str()), ("x-", "v0.2.0"));
}

#[test]
fn the_cr_never_pins_a_version() {
    let cr: KubeVirt = cr_manifest("kubevirt").read().expect("the CR has the CR's type");
    assert_eq!((cr.spec.image_tag, cr.spec.image_registry), (None, None));
    expect![[r#"
        apiVersion: kubevirt.io/v1
        kind: KubeVirt
        metadata:
          name: kubevirt
          namespace: kubevirt
        spec:
          certificateRotateStrategy: {}
          configuration:
            developerConfiguration:
              featureGates: []
          customizeComponents: {}
          imagePullPolicy: IfNotPresent
          workloadUpdateStrategy: {}
    "#]]
    .assert_eq(&yaml::document(&cr_manifest("kubevirt")));
}

/// `kubectl apply` keeps a copy of every object in an annotation, and annotations hold a quarter of a megabyte.
#[test]
fn every_object_can_be_applied_by_kubectl() {
    for object in operator_manifest(&options()) {
        let size = object.value().to_string().len();
        assert!(size < 200_000, "{}: {size} bytes", object.key());
    }
}
