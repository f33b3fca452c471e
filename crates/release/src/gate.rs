//! The webhook that keeps new kinds closed while a version that brings them is rolled out: their definitions serve long before
//! virt-api of that version judges what is stored under them. It is made from the operator's own registration, of whatever
//! release that is: same service, same trust.

use kubevirt_api::names::label;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::object::Object;

/// Its name. The Go operator takes away what begins so once its virt-api is rolled out.
pub const NAME: &str = "virt-operator-tmp-webhook";

/// Where the operator answers it.
pub const PATH: &str = "/kubevirt-closed-until-served";

/// What the name of each entry ends with; before it stands the definition's.
const SUFFIX: &str = "-tmp-validator";

/// How long the API server waits for the answer, which needs no look-up.
const TIMEOUT_SECONDS: u32 = 5;

/// The registration that closes definitions, made from the operator's own. `None` when nothing is to be closed, or when
/// `validator` calls no service.
pub fn gate(validator: &Object, definitions: &[&Object]) -> Option<Object> {
    let service = validator.at("/webhooks/0/clientConfig/service")?;
    let bundle = validator.at("/webhooks/0/clientConfig/caBundle").cloned();
    let webhooks: Vec<Value> =
        definitions.iter().filter_map(|definition| entry(definition, service, bundle.as_ref())).collect();
    if webhooks.is_empty() {
        return None;
    }
    let mut metadata = json!({
        "name": NAME,
        "labels": validator.at("/metadata/labels").cloned().unwrap_or_else(|| json!({})),
        "annotations": validator.at("/metadata/annotations").cloned().unwrap_or_else(|| json!({})),
    });
    metadata["labels"][label::KUBEVIRT] = NAME.into();
    let kind = Kind::ValidatingWebhookConfiguration;
    let value =
        json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "webhooks": webhooks});
    Object::from_value(value).ok()
}

fn entry(definition: &Object, service: &Value, bundle: Option<&Value>) -> Option<Value> {
    let (group, plural) = (definition.at("/spec/group")?, definition.at("/spec/names/plural")?);
    let mut client = json!({"service": service});
    client["service"]["path"] = PATH.into();
    if let Some(bundle) = bundle {
        client["caBundle"] = bundle.clone();
    }
    Some(json!({
        "name": format!("{}{SUFFIX}", definition.name()),
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        // Closed also when nobody answers.
        "failurePolicy": "Fail",
        "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [plural]}],
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS,
    }))
}

/// The definitions that a live registration of this kind closes.
pub fn closed(live: &Value) -> impl Iterator<Item = &str> {
    let webhooks = live.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    webhooks.filter_map(|webhook| webhook.get("name")?.as_str()?.strip_suffix(SUFFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::VALIDATOR;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn definition(plural: &str) -> Object {
        object(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {"plural": plural}}}))
    }

    fn validator(client: Value) -> Object {
        object(json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": VALIDATOR, "labels": {"kubevirt.io": VALIDATOR, "managed": "yes"}, "annotations": {"of": "v2"}},
            "webhooks": [{"name": "a.b.c", "clientConfig": client, "matchConditions": [{"name": "never"}]}]}))
    }

    #[test]
    fn every_version_of_each_kind_is_closed_by_the_service_that_is_called_already() {
        let client = json!({"service": {"name": "s", "namespace": "n", "path": "/a"}, "caBundle": "UEVN"});
        let (validator, things, others) = (validator(client), definition("things"), definition("others"));
        let gate = gate(&validator, &[&things, &others]).expect("two kinds to close");
        assert_eq!(gate.key().to_string(), "ValidatingWebhookConfiguration virt-operator-tmp-webhook");
        assert_eq!(gate.at("/metadata/labels"), Some(&json!({"kubevirt.io": NAME, "managed": "yes"})));
        assert_eq!(gate.at("/metadata/annotations"), Some(&json!({"of": "v2"})));
        let first = gate.at("/webhooks/0").expect("an entry");
        assert_eq!(first["clientConfig"]["service"], json!({"name": "s", "namespace": "n", "path": PATH}));
        assert_eq!(first["clientConfig"]["caBundle"], "UEVN");
        assert_eq!(first["rules"][0]["resources"], json!(["things"]));
        assert_eq!(first["rules"][0]["apiVersions"], json!(["*"]));
        assert_eq!((first["failurePolicy"].as_str(), first.get("matchConditions")), (Some("Fail"), None));
        assert_eq!(closed(gate.value()).collect::<Vec<_>>(), ["things.example.com", "others.example.com"]);
    }

    #[test]
    fn nothing_is_closed_where_nothing_is_new_or_nobody_could_say_why() {
        let client = json!({"service": {"name": "s", "namespace": "n"}});
        assert_eq!(gate(&validator(client), &[]), None);
        assert_eq!(gate(&validator(json!({"url": "https://x"})), &[&definition("things")]), None);
        assert_eq!(closed(&json!({})).count(), 0);
    }
}
