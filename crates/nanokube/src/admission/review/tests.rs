use super::*;

fn read(response: Value) -> Result<Answer, String> {
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    answer("h.example.io", "admission.k8s.io/v1", "u1", review.to_string().as_bytes())
}

#[test]
fn the_first_known_version_is_spoken() {
    assert_eq!(version(&json!(["v2", "v1beta1", "v1"])).as_deref(), Some("admission.k8s.io/v1beta1"));
    assert_eq!(version(&json!(["v2"])), None);
}

#[test]
fn a_refusal_keeps_the_webhooks_status() {
    let refusal =
        |status: Value| read(json!({"uid": "u1", "allowed": false, "status": status})).unwrap().refusal.unwrap();
    let own = refusal(json!({"code": 422, "reason": "Invalid", "message": "no", "details": {"name": "x"}}));
    assert_eq!((own.code, own.reason), (422, "Invalid"));
    let value = own.to_value();
    assert_eq!(value["message"], "admission webhook \"h.example.io\" denied the request: no");
    assert_eq!(value["details"], json!({"name": "x"}));
    let silent = refusal(Value::Null);
    assert_eq!(
        (silent.code, silent.message.as_str()),
        (400, "admission webhook \"h.example.io\" denied the request without explanation")
    );
}

#[test]
fn what_is_no_answer_is_told() {
    assert_eq!(read(json!({"uid": "u2", "allowed": true})), Err("expected response.uid=\"u1\", got \"u2\"".to_owned()));
    assert!(read(json!({"uid": "u1", "allowed": true, "patch": "W10="})).unwrap_err().contains("patchType"));
    assert!(read(json!({"uid": "u1", "allowed": true, "patch": "!", "patchType": "JSONPatch"})).is_err());
    assert!(read(Value::Null).is_err());
    assert!(answer("h", "admission.k8s.io/v1", "u1", b"{").is_err());
    assert!(
        answer(
            "h",
            "admission.k8s.io/v1",
            "u1",
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}"#
        )
        .is_err()
    );
}

#[test]
fn warnings_and_annotations_come_with_any_verdict() {
    let answer = read(json!({
        "uid": "u1", "allowed": true, "warnings": ["old"], "auditAnnotations": {"k": "v"},
        "patchType": "JSONPatch", "patch": STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#),
    }))
    .unwrap();
    assert_eq!(answer.warnings, ["old"]);
    assert_eq!(answer.annotations, BTreeMap::from([("h.example.io/k".to_owned(), "v".to_owned())]));
    assert_eq!(patched(&json!({}), &answer.patch), Ok(json!({"a": 1})));
}
