//! `admission.k8s.io/v1` on the wire: reading an AdmissionReview and answering it. Pure; what to answer is decided
//! elsewhere.

use std::fmt;

use base64::Engine;
use serde_json::{Map, Value, json};

/// The only version spoken.
pub const API_VERSION: &str = "admission.k8s.io/v1";

/// What the API server wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        })
    }
}

/// A request to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    pub uid: String,
    pub operation: Operation,
    /// `group/version/resource` of the request, the group empty for the core group.
    pub group: String,
    pub version: String,
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// Empty when the server is to choose it, and for objects without a namespace.
    pub namespace: String,
    pub name: String,
    /// Who asks.
    pub user: String,
    pub groups: Vec<String>,
    /// `Null` on DELETE.
    pub object: Value,
    /// `Null` on CREATE.
    pub old_object: Value,
    pub dry_run: bool,
}

/// Why a body is not a review.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the body is {found}, not an AdmissionReview of {API_VERSION}")]
    OtherKind { found: String },
    #[error("request.{field} of the AdmissionReview is missing or not valid")]
    Field { field: &'static str },
}

/// The judgement.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Let it pass; `patch` is an RFC 6902 list of changes, empty for none.
    Allow { patch: Vec<Value> },
    /// Refuse it with a status the client sees: an HTTP code, Kubernetes' word for it (may be empty) and a sentence.
    Deny { code: u16, reason: &'static str, message: String },
}

impl Verdict {
    /// Lets it pass unchanged.
    pub fn allow() -> Self {
        Self::Allow { patch: Vec::new() }
    }
}

impl Review {
    /// Reads a body.
    ///
    /// # Errors
    /// It is not an AdmissionReview with a request.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let review: Value = serde_json::from_slice(body).map_err(|error| Malformed::NotJson(error.to_string()))?;
        let (kind, version) = (review["kind"].as_str(), review["apiVersion"].as_str());
        if kind != Some("AdmissionReview") || version != Some(API_VERSION) {
            let found = format!("{} of {}", kind.unwrap_or("something"), version.unwrap_or("no version"));
            return Err(Malformed::OtherKind { found });
        }
        let request = &review["request"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let uid = text(&request["uid"]);
        if uid.is_empty() {
            return Err(Malformed::Field { field: "uid" });
        }
        let operation = match request["operation"].as_str() {
            Some("CREATE") => Operation::Create,
            Some("UPDATE") => Operation::Update,
            Some("DELETE") => Operation::Delete,
            Some("CONNECT") => Operation::Connect,
            _ => return Err(Malformed::Field { field: "operation" }),
        };
        let resource = &request["resource"];
        if resource["resource"].as_str().is_none_or(str::is_empty) {
            return Err(Malformed::Field { field: "resource" });
        }
        let groups = request["userInfo"]["groups"].as_array();
        Ok(Self {
            uid,
            operation,
            group: text(&resource["group"]),
            version: text(&resource["version"]),
            resource: text(&resource["resource"]),
            subresource: text(&request["subResource"]),
            namespace: text(&request["namespace"]),
            name: text(&request["name"]),
            user: text(&request["userInfo"]["username"]),
            groups: groups.into_iter().flatten().map(text).collect(),
            object: request["object"].clone(),
            old_object: request["oldObject"].clone(),
            dry_run: request["dryRun"].as_bool().unwrap_or(false),
        })
    }

    /// What is asked about, as people write it: `deployments.apps/v1/scale`.
    pub fn target(&self) -> String {
        let mut target = self.resource.clone();
        if !self.group.is_empty() {
            target = format!("{target}.{}", self.group);
        }
        target = format!("{target}/{}", self.version);
        if !self.subresource.is_empty() {
            target = format!("{target}/{}", self.subresource);
        }
        target
    }

    /// The AdmissionReview that answers this one. Warnings are shown to the client whatever the verdict.
    pub fn answer(&self, verdict: &Verdict, warnings: &[String]) -> Value {
        let mut response = Map::new();
        response.insert("uid".into(), json!(self.uid));
        match verdict {
            Verdict::Allow { patch } => {
                response.insert("allowed".into(), json!(true));
                if !patch.is_empty() {
                    let patch = Value::Array(patch.clone()).to_string();
                    response.insert("patchType".into(), json!("JSONPatch"));
                    response.insert("patch".into(), json!(base64::engine::general_purpose::STANDARD.encode(patch)));
                }
            }
            Verdict::Deny { code, reason, message } => {
                response.insert("allowed".into(), json!(false));
                let mut status = json!({"status": "Failure", "code": code, "message": message});
                if !reason.is_empty() {
                    status["reason"] = json!(reason);
                }
                response.insert("status".into(), status);
            }
        }
        if !warnings.is_empty() {
            response.insert("warnings".into(), json!(warnings));
        }
        json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review() -> Value {
        json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": {
            "uid": "u1", "operation": "UPDATE", "namespace": "ns", "name": "vm", "dryRun": true,
            "resource": {"group": "kubevirt.io", "version": "v1", "resource": "virtualmachines"},
            "subResource": "status", "userInfo": {"username": "me", "groups": ["a", "b"]},
            "object": {"spec": 1}, "oldObject": {"spec": 2}}})
    }

    #[test]
    fn reads_every_field() {
        let parsed = Review::parse(review().to_string().as_bytes()).unwrap();
        assert_eq!(parsed.target(), "virtualmachines.kubevirt.io/v1/status");
        assert_eq!((parsed.operation, parsed.dry_run), (Operation::Update, true));
        assert_eq!(
            (parsed.user.as_str(), parsed.groups.as_slice()),
            ("me", ["a".to_owned(), "b".to_owned()].as_slice())
        );
        assert_eq!((parsed.object, parsed.old_object), (json!({"spec": 1}), json!({"spec": 2})));
        assert_eq!((parsed.namespace.as_str(), parsed.name.as_str()), ("ns", "vm"));
    }

    #[test]
    fn refuses_what_is_no_review() {
        assert!(matches!(Review::parse(b"{"), Err(Malformed::NotJson(_))));
        let mut old = review();
        old["apiVersion"] = json!("admission.k8s.io/v1beta1");
        assert_eq!(
            Review::parse(old.to_string().as_bytes()).unwrap_err().to_string(),
            "the body is AdmissionReview of admission.k8s.io/v1beta1, not an AdmissionReview of admission.k8s.io/v1"
        );
        for field in ["uid", "operation", "resource"] {
            let mut without = review();
            without["request"].as_object_mut().unwrap().remove(field);
            assert_eq!(Review::parse(without.to_string().as_bytes()), Err(Malformed::Field { field }));
        }
    }

    #[test]
    fn answers_with_the_same_uid() {
        let review = Review::parse(review().to_string().as_bytes()).unwrap();
        let denied = Verdict::Deny { code: 422, reason: "Invalid", message: "no".into() };
        assert_eq!(
            review.answer(&denied, &["old".to_owned()])["response"],
            json!({"uid": "u1", "allowed": false, "warnings": ["old"],
                   "status": {"status": "Failure", "code": 422, "reason": "Invalid", "message": "no"}})
        );
        let patched = Verdict::Allow { patch: vec![json!({"op": "add", "path": "/a", "value": 1})] };
        let answer = review.answer(&patched, &[]);
        let patch = base64::engine::general_purpose::STANDARD.decode(answer["response"]["patch"].as_str().unwrap());
        assert_eq!(patch.unwrap(), br#"[{"op":"add","path":"/a","value":1}]"#);
        assert_eq!(review.answer(&Verdict::allow(), &[])["response"], json!({"uid": "u1", "allowed": true}));
    }
}
