//! The certificates of the suite, as a table. The operator issues them; this module only says which there are, what
//! stands in them, and where they are mounted.

use kubevirt_api::names::{annotation, label};
use serde_json::{Map, Value, json};

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

/// The Secrets of all certificates, with the metadata every one of them has and without content: what can be said about
/// them before any is issued.
pub fn blanks(namespace: &str) -> Vec<Object> {
    let labels: Map<String, Value> =
        LABELS.iter().map(|(name, value)| (name.to_string(), Value::from(*value))).collect();
    let annotations = json!({annotation::CERTIFICATE_DURATION: ""});
    let blank = |spec: CertificateSpec| {
        Object::from_value(json!({"apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE, "metadata": {
            "name": spec.secret, "namespace": namespace, "labels": labels, "annotations": annotations}}))
    };
    all(namespace).into_iter().map(|spec| blank(spec).expect("a Secret with a name")).collect()
}

/// Every certificate of the suite in a namespace; authorities come before what they sign.
pub fn all(namespace: &str) -> Vec<CertificateSpec> {
    let issuer = CA;
    let authority = |secret, name: &str| CertificateSpec {
        secret,
        common_name: name.into(),
        dns_names: vec![],
        usage: Usage::Authority { bundle: secret },
        mounts: match secret {
            BACKUP_CA => vec![mount("virt-controller", "/etc/virt-controller/backupca")],
            _ => vec![],
        },
    };
    let server = |secret, service: &str, mounts| CertificateSpec {
        secret,
        common_name: format!("{service}.{namespace}.pod.cluster.local"),
        dns_names: service_names(service, namespace),
        usage: Usage::Server { issuer },
        mounts,
    };
    let client = |secret, name: &str, mounts| CertificateSpec {
        secret,
        common_name: format!("kubevirt.io:system:client:{name}"),
        dns_names: vec![],
        usage: Usage::Client { issuer },
        mounts,
    };
    vec![
        authority(CA, "kubevirt.io"),
        authority(BACKUP_CA, "backup.kubevirt.io"),
        server(
            OPERATOR,
            "kubevirt-operator-webhook",
            vec![Mount { optional: true, ..mount("virt-operator", "/etc/virt-operator/certificates") }],
        ),
        server(VIRT_API, "virt-api", vec![mount("virt-api", "/etc/virt-api/certificates")]),
        server(VIRT_CONTROLLER, "virt-controller", vec![mount("virt-controller", "/etc/virt-controller/certificates")]),
        CertificateSpec {
            common_name: "kubevirt.io:system:node:virt-handler".into(),
            ..server(
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

/// A ConfigMap with certificates of authorities, under [`BUNDLE_KEY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub config_map: &'static str,
    /// The authority's Secret; none for the drop box that takes in authorities from outside.
    pub authority: Option<&'static str>,
}

/// Every bundle of the suite.
pub const BUNDLES: &[Bundle] = &[
    Bundle { config_map: CA, authority: Some(CA) },
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
        let all = all("kubevirt");
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
