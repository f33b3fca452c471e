use serde_json::json;

use super::*;

#[test]
fn only_ready_endpoints_of_the_named_port_count() {
    let slice = |service: &str, port: &str, ready: serde_json::Value, ip: &str| {
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": "other", "port": 1}, {"name": port, "port": 8443}],
            "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}}],
        })
    };
    let slices = [
        slice("a", "", json!(true), "10.0.0.2"),
        slice("a", "", json!(null), "10.0.0.1"),
        slice("a", "", json!(false), "10.0.0.3"),
        slice("b", "", json!(true), "10.0.0.4"),
        slice("a", "x", json!(true), "10.0.0.5"),
    ];
    let found: Vec<String> = ready_addresses(slices.iter(), "a", "").iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.0.0.1:8443", "10.0.0.2:8443"]);
}

#[test]
fn places_have_names_for_certificates_and_messages() {
    let service = Place::service(&json!({"namespace": "ns", "name": "hook"}));
    assert_eq!((service.server_name(), service.authority()), ("hook.ns.svc".to_owned(), "hook.ns.svc:443".to_owned()));
    let url = Place::url(&"https://127.0.0.1:9443/x".parse().unwrap()).unwrap();
    assert_eq!((url.server_name(), url.authority()), ("127.0.0.1".to_owned(), "127.0.0.1:9443".to_owned()));
    assert!(Place::url(&"/x".parse().unwrap()).is_err());
}
