use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kubevirt_runtime::clock::Clock;
use nanokube::{Nanokube, Options, Pki};
use tokio_util::sync::CancellationToken;

use crate::code;

#[tokio::test]
async fn the_same_server_answers_over_tls() {
    let clock = Clock::System;
    let pki = Pki::generate(&clock, &[]).unwrap();
    let server = Nanokube::new(Options::new(clock, 1));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let (own, serving) = (stop.clone(), pki.clone());
    let served = tokio::spawn(async move { server.serve_https(listener, &serving, own).await });

    let mut kubeconfig = Kubeconfig::from_yaml(&pki.kubeconfig(&url)).unwrap();
    let connect = |kubeconfig: Kubeconfig| async move {
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    };
    let client = connect(kubeconfig.clone()).await;
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(version.minor, "36");
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
    assert_eq!(namespaces.list(&ListParams::default()).await.unwrap().items.len(), 4);

    kubeconfig.auth_infos[0].auth_info = Some(kube::config::AuthInfo::default());
    let nobody = connect(kubeconfig).await;
    assert_eq!(nobody.apiserver_version().await.unwrap().major, "1", "the version is public");
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(nobody);
    assert_eq!(code(namespaces.list(&ListParams::default()).await.unwrap_err()), 403);

    stop.cancel();
    served.await.unwrap().unwrap();
}

#[test]
fn certificates_come_back_from_their_directory() {
    let dir = std::env::temp_dir().join(format!("nanokube-pki-{}", std::process::id()));
    let pki = Pki::generate(&Clock::System, &["example.test".to_owned()]).unwrap();
    pki.store(&dir).unwrap();
    let again = Pki::load(&dir, &Clock::System).unwrap();
    assert_eq!(again.ca_pem(), pki.ca_pem());
    assert_eq!(again.kubeconfig("https://x"), pki.kubeconfig("https://x"));
    assert!(again.client("joe", Some("dev")).unwrap().certificate.contains("BEGIN CERTIFICATE"));
    std::fs::remove_dir_all(&dir).unwrap();
}
