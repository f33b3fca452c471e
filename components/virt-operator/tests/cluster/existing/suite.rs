//! Two versions of a suite that this operator did not make, and images that stand in for its components.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kubevirt_release::{Kind, Object, ObjectKey, Strategy};
use kubevirt_runtime::admission::{Review, Verdict};
use kubevirt_runtime::host::{Host, Program};
use kubevirt_runtime::serve;
use kubevirt_runtime::tls::{Certificate, CertificateFiles};
use nanokube_nodes::Image;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Cluster, NAMESPACE};

/// A suite in two versions.
pub(crate) struct Suite {
    pub(crate) registry: &'static str,
    /// The older version and the newer one.
    pub(crate) versions: [&'static str; 2],
    /// Their strategies, as ConfigMaps.
    pub(crate) maps: [Value; 2],
    /// How many different objects the older one has.
    pub(crate) objects: usize,
    /// Objects of the older one that a cluster without OpenShift's APIs and with default gates does not get.
    pub(crate) left_out: usize,
}

pub(crate) const SMALL_REGISTRY: &str = "registry.example/existing";
const REAL_REGISTRY: &str = "quay.io/kubevirt";

/// A version whose operator fails.
pub(crate) const BROKEN: &str = "v1.2.0";

/// The small one.
pub(crate) fn small() -> Suite {
    let map = |version: &str, other: &str| {
        let text = include_str!("suite.yaml").lines().filter(|line| !line.ends_with(other));
        let text = text.map(|line| line.replace("VERSION", version)).collect::<Vec<_>>().join("\n");
        config_map(&format!("kubevirt-install-strategy-{}", &version[3..4]), SMALL_REGISTRY, version, &text)
    };
    Suite {
        registry: SMALL_REGISTRY,
        versions: ["v1.0.0", "v1.1.0"],
        maps: [map("v1.0.0", "# new"), map("v1.1.0", "# old")],
        objects: 47,
        left_out: 3,
    }
}

fn config_map(name: &str, registry: &str, version: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"manifests": text},
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/managed-by": "virt-operator", "kubevirt.io/install-strategy": ""},
            "annotations": {
                "kubevirt.io/install-strategy-version": version,
                "kubevirt.io/install-strategy-registry": registry,
                "kubevirt.io/install-strategy-identifier": format!("id-of-{version}"),
            },
        },
    })
}

/// The real one, if it is there: it is not part of this repository.
pub(crate) fn real() -> Option<Suite> {
    let versions = ["v1.9.0", "v1.9.1"];
    let place = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("shared/reference/strategies"))
        .find(|dir| dir.is_dir());
    let Some(place) = place else {
        // Written past the test harness, which would keep it to itself.
        let skipped =
            "SKIPPED: the real strategies (../shared/reference/strategies beside the repository) are not here\n";
        std::io::stderr().write_all(skipped.as_bytes()).expect("stderr takes a line");
        return None;
    };
    let map = |version: &str| -> Value {
        let file: PathBuf = place.join(format!("kubevirt-install-strategy-{version}.json"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        serde_json::from_str(&text).expect("a ConfigMap")
    };
    let maps = versions.map(map);
    // 214 documents, of which four ConfigMaps appear twice.
    Some(Suite { registry: REAL_REGISTRY, versions, maps, objects: 210, left_out: 4 })
}

impl Suite {
    /// The objects of one of the two versions.
    pub(crate) fn strategy(&self, at: usize) -> Strategy {
        Strategy::decode(&ConfigMap::deserialize(&self.maps[at]).expect("a ConfigMap")).expect("a strategy")
    }

    /// The ID under which a version is deployed.
    pub(crate) fn id(&self, at: usize) -> String {
        let annotations = &self.maps[at]["metadata"]["annotations"];
        annotations["kubevirt.io/install-strategy-identifier"].as_str().expect("an ID").to_owned()
    }

    /// The keys of the objects that a cluster without OpenShift's APIs gets of a version.
    pub(crate) fn keys(&self, at: usize) -> BTreeSet<ObjectKey> {
        let has = |object: &&Object| {
            !matches!(object.kind(), Kind::SecurityContextConstraints | Kind::Route)
                && object.name() != "virt-launcher-pod-mutator"
        };
        self.strategy(at).objects.iter().filter(has).map(Object::key).collect()
    }

    /// What of the spec names a version.
    pub(crate) fn spec(&self, at: usize) -> Value {
        json!({"spec": {"imageRegistry": self.registry, "imageTag": self.versions[at]}})
    }
}

/// A component of the existing suite: HTTPS with the certificate of its Secret, ready at once, every review allowed.
fn stand_in(certificates: &'static str) -> impl Program {
    move |host: Host| -> futures::future::BoxFuture<'static, anyhow::Result<()>> {
        Box::pin(async move {
            let certificate = Certificate::new(&host, CertificateFiles::in_dir(certificates, Vec::new()));
            let listener = host.net.listen((std::net::Ipv4Addr::UNSPECIFIED, 8443).into()).await?;
            let answer = serve::handler(|request: serve::Request| async move {
                if request.method() != Method::POST {
                    return serve::text(StatusCode::OK, "ok");
                }
                let body = serve::read_body(request.into_body()).await.unwrap_or_default();
                match Review::parse(&body) {
                    Ok(review) => serve::json(StatusCode::OK, &review.answer(&Verdict::allow(), &[])),
                    Err(error) => serve::text(StatusCode::BAD_REQUEST, error.to_string()),
                }
            });
            serve::serve(listener, certificate.server_config()?, answer, host.stop.clone()).await;
            Ok(())
        })
    }
}

/// The operator of a version of the small suite: it writes its strategy under the ID it is asked for, or fails.
fn dumper(version: String) -> impl Program {
    move |host: Host| -> futures::future::BoxFuture<'static, anyhow::Result<()>> {
        let version = version.clone();
        Box::pin(async move {
            anyhow::ensure!(
                host.args.iter().any(|arg| arg == "--dump-install-strategy"),
                "it is asked for nothing else"
            );
            let suite = small();
            let at = suite.versions.iter().position(|known| *known == version);
            let Some(at) = at else { anyhow::bail!("this one has no strategy") };
            let asked: Value = serde_json::from_str(&host.env["TARGET_DEPLOYMENT_CONFIG"])?;
            let mut map: ConfigMap = serde_json::from_value(suite.maps[at].clone())?;
            map.metadata.name = None;
            map.metadata.generate_name = Some("kubevirt-install-strategy-".into());
            let id = asked["id"].as_str().unwrap_or_default().to_owned();
            let annotations = map.metadata.annotations.get_or_insert_default();
            annotations.insert("kubevirt.io/install-strategy-identifier".into(), id);
            let maps: kube::Api<ConfigMap> = kube::Api::namespaced(host.client.clone(), NAMESPACE);
            maps.create(&kube::api::PostParams::default(), &map).await?;
            Ok(())
        })
    }
}

/// The images of this operator's suite and of the existing ones.
pub(crate) fn images(image: &str) -> Option<Image> {
    let Some(name) = [SMALL_REGISTRY, REAL_REGISTRY].iter().find_map(|registry| image.strip_prefix(registry)) else {
        return crate::support::find(image);
    };
    let (name, version) = name.strip_prefix('/')?.split_once(':')?;
    let certificates = match name {
        "virt-api" => "/etc/virt-api/certificates",
        "virt-controller" => "/etc/virt-controller/certificates",
        "virt-handler" => "/etc/virt-handler/servercertificates",
        "virt-exportproxy" => "/etc/virt-exportproxy/certificates",
        "virt-synchronization-controller" => "/etc/virt-sync-controller/servercertificates",
        "virt-launcher" => return Some(Image::Idle),
        "virt-operator" => return Some(Image::Program(Arc::new(dumper(version.to_owned())))),
        _ => return None,
    };
    Some(Image::Program(Arc::new(stand_in(certificates))))
}

/// A cluster with this operator and both strategies, and no custom resource yet.
pub(crate) async fn cluster(suite: &Suite) -> Cluster {
    let cluster = Cluster::start_with(3, Arc::new(images));
    cluster.operator("v0.1.0").await;
    provide(&cluster, suite).await;
    cluster
}

/// Puts both strategies into a cluster.
pub(crate) async fn provide(cluster: &Cluster, suite: &Suite) {
    for map in &suite.maps {
        let mut map = map.clone();
        map["apiVersion"] = "v1".into();
        map["kind"] = "ConfigMap".into();
        cluster.apply(&[Object::from_value(map).expect("a ConfigMap")]).await;
    }
}

/// How many objects there are of each kind.
pub(crate) fn by_kind<'a>(keys: impl IntoIterator<Item = &'a ObjectKey>) -> BTreeMap<Kind, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key.kind).or_default() += 1;
    }
    counts
}
