//! The certificates of the suite, as a table. The operator issues them; this module only says which there are, what
//! stands in them, and where they are mounted. Releases of the existing suite have parts that this one has not; theirs are
//! in the table too and are issued where a strategy names them.

use kubevirt_api::names::{annotation, label};
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::object::Object;

/// The Secret type of every entry.
pub const SECRET_TYPE: &str = "kubernetes.io/tls";
/// Keys of the Secrets.
pub const CERTIFICATE_KEY: &str = "tls.crt";
pub const PRIVATE_KEY_KEY: &str = "tls.key";
/// The key of a [`Bundle`]'s ConfigMap.
pub const BUNDLE_KEY: &str = "ca-bundle";

pub const CA: &str = "kubevirt-ca";
pub const BACKUP_CA: &str = "kubevirt-backup-ca";
pub const OPERATOR: &str = "kubevirt-operator-certs";
pub const VIRT_API: &str = "kubevirt-virt-api-certs";
pub const VIRT_CONTROLLER: &str = "kubevirt-controller-certs";
pub const HANDLER_SERVER: &str = "kubevirt-virt-handler-server-certs";
pub const HANDLER_CLIENT: &str = "kubevirt-virt-handler-certs";
pub const HANDLER_MIGRATION_CLIENT: &str = "kubevirt-virt-handler-migration-client-certs";
pub const HANDLER_VSOCK_CLIENT: &str = "kubevirt-virt-handler-vsock-client-certs";
pub const EXPORT_CA: &str = "kubevirt-export-ca";

/// One certificate and the Secret it is kept in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSpec {
    pub secret: &'static str,
    /// The common name; that of an authority is followed by `@` and the second it was issued at.
    pub common_name: String,
    pub dns_names: Vec<String>,
    pub usage: Usage,
    pub mounts: Vec<Mount>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Signs others; `bundle` is the ConfigMap that publishes it.
    Authority { bundle: &'static str },
    /// Shown by a listener. Signed by the given authority's Secret.
    Server { issuer: &'static str },
    /// Shown by who connects. Signed by the given authority's Secret.
    Client { issuer: &'static str },
}

/// Where a Secret appears in a component's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The Deployment's or DaemonSet's name.
    pub component: &'static str,
    pub path: &'static str,
    /// Whether the pod starts without the Secret.
    pub optional: bool,
}

const fn mount(component: &'static str, path: &'static str) -> Mount {
    Mount { component, path, optional: false }
}

/// The Secrets of certificates, with the metadata every one of them has and without content: what can be said about
/// them before any is issued.
pub fn blanks(specs: Vec<CertificateSpec>, namespace: &str) -> Vec<Object> {
    let labels: Map<String, Value> =
        LABELS.iter().map(|(name, value)| (name.to_string(), Value::from(*value))).collect();
    let annotations = json!({annotation::CERTIFICATE_DURATION: ""});
    let blank = |spec: CertificateSpec| {
        Object::from_value(json!({"apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE, "metadata": {
            "name": spec.secret, "namespace": namespace, "labels": labels, "annotations": annotations}}))
    };
    specs.into_iter().map(|spec| blank(spec).expect("a Secret with a name")).collect()
}

/// Every certificate of this suite in a namespace; authorities come before what they sign.
pub fn all(namespace: &str) -> Vec<CertificateSpec> {
    vec![
        authority(CA, "kubevirt.io", vec![]),
        authority(BACKUP_CA, "backup.kubevirt.io", vec![mount("virt-controller", "/etc/virt-controller/backupca")]),
        server(
            namespace,
            OPERATOR,
            "kubevirt-operator-webhook",
            vec![Mount { optional: true, ..mount("virt-operator", "/etc/virt-operator/certificates") }],
        ),
        server(namespace, VIRT_API, "virt-api", vec![mount("virt-api", "/etc/virt-api/certificates")]),
        server(
            namespace,
            VIRT_CONTROLLER,
            "virt-controller",
            vec![mount("virt-controller", "/etc/virt-controller/certificates")],
        ),
        CertificateSpec {
            common_name: "kubevirt.io:system:node:virt-handler".into(),
            ..server(
                namespace,
                HANDLER_SERVER,
                "virt-handler",
                vec![mount("virt-handler", "/etc/virt-handler/servercertificates")],
            )
        },
        client(HANDLER_CLIENT, "virt-handler", vec![mount("virt-api", "/etc/virt-handler/clientcertificates")]),
        client(
            HANDLER_MIGRATION_CLIENT,
            "migration",
            vec![mount("virt-handler", "/etc/virt-handler/migrationservercertificates")],
        ),
        client(HANDLER_VSOCK_CLIENT, "vsock", vec![mount("virt-handler", "/etc/virt-handler/vsockclientcertificates")]),
    ]
}

/// Certificates of parts that only releases of the existing suite have.
pub fn of_other_releases(namespace: &str) -> Vec<CertificateSpec> {
    let synchronization = "virt-synchronization-controller";
    vec![
        authority(EXPORT_CA, "export.kubevirt.io", vec![]),
        server(namespace, "kubevirt-exportproxy-certs", "virt-exportproxy", vec![]),
        client("kubevirt-virt-handler-monitoring-client-certs", "monitoring", vec![]),
        client("kubevirt-synchronization-controller-certs", synchronization, vec![]),
        CertificateSpec {
            common_name: format!("kubevirt.io:system:node:{synchronization}"),
            ..server(namespace, "kubevirt-synchronization-controller-server-certs", synchronization, vec![])
        },
        server(namespace, "kubevirt-virt-template-api-certs", "virt-template-api-service", vec![]),
        server(namespace, "kubevirt-virt-template-webhook-certs", "virt-template-webhook-service", vec![]),
        server(
            namespace,
            "kubevirt-virt-template-controller-metrics-certs",
            "virt-template-controller-manager-metrics-service",
            vec![],
        ),
    ]
}

/// Every certificate the operator can issue.
pub fn known(namespace: &str) -> Vec<CertificateSpec> {
    all(namespace).into_iter().chain(of_other_releases(namespace)).collect()
}

/// The certificates of a version: this suite's, and those of other releases whose Secrets its objects name.
pub fn of(objects: &[Object], namespace: &str) -> Vec<CertificateSpec> {
    let others = of_other_releases(namespace)
        .into_iter()
        .filter(|spec| objects.iter().any(|object| object.kind() == Kind::Secret && object.name() == spec.secret));
    all(namespace).into_iter().chain(others).collect()
}

/// Objects of a version that hold certificates or bundles of which the table knows nothing: nobody would fill them.
pub fn not_known<'a>(objects: &'a [Object], namespace: &str) -> Vec<&'a Object> {
    let known = known(namespace);
    let is_known = |object: &Object| match object.kind() {
        Kind::Secret => known.iter().any(|spec| spec.secret == object.name()),
        Kind::ConfigMap => BUNDLES.iter().any(|bundle| bundle.config_map == object.name()),
        _ => true,
    };
    objects.iter().filter(|object| !is_known(object)).collect()
}

fn authority(secret: &'static str, name: &str, mounts: Vec<Mount>) -> CertificateSpec {
    CertificateSpec {
        secret,
        common_name: name.into(),
        dns_names: vec![],
        usage: Usage::Authority { bundle: secret },
        mounts,
    }
}

fn server(namespace: &str, secret: &'static str, service: &str, mounts: Vec<Mount>) -> CertificateSpec {
    CertificateSpec {
        secret,
        common_name: format!("{service}.{namespace}.pod.cluster.local"),
        dns_names: service_names(service, namespace),
        usage: Usage::Server { issuer: CA },
        mounts,
    }
}

fn client(secret: &'static str, name: &str, mounts: Vec<Mount>) -> CertificateSpec {
    CertificateSpec {
        secret,
        common_name: format!("kubevirt.io:system:client:{name}"),
        dns_names: vec![],
        usage: Usage::Client { issuer: CA },
        mounts,
    }
}

/// A ConfigMap with certificates of authorities, under [`BUNDLE_KEY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub config_map: &'static str,
    /// The authority's Secret; none for the drop box that takes in authorities from outside.
    pub authority: Option<&'static str>,
}

/// Every bundle. One whose authority a version has not is not part of that version.
pub const BUNDLES: &[Bundle] = &[
    Bundle { config_map: CA, authority: Some(CA) },
    Bundle { config_map: EXPORT_CA, authority: Some(EXPORT_CA) },
    Bundle { config_map: BACKUP_CA, authority: Some(BACKUP_CA) },
    Bundle { config_map: "kubevirt-external-ca", authority: None },
];

/// Labels of the Secrets and bundles.
pub const LABELS: &[(&str, &str)] = &[(label::MANAGED_BY, label::MANAGED_BY_OPERATOR)];

/// The names a service answers to inside the cluster, shortest first.
pub fn service_names(service: &str, namespace: &str) -> Vec<String> {
    vec![
        service.into(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_is_signed_by_one_that_comes_before_it() {
        let all = known("kubevirt");
        for (at, certificate) in all.iter().enumerate() {
            if let Usage::Server { issuer } | Usage::Client { issuer } = certificate.usage {
                assert!(all[..at].iter().any(|c| c.secret == issuer), "{}", certificate.secret);
            }
        }
        for certificate in &all {
            if let Usage::Authority { bundle } = certificate.usage {
                assert!(BUNDLES.iter().any(|b| b.config_map == bundle && b.authority == Some(certificate.secret)));
            }
        }
    }
}
