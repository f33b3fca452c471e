//! Asking the server what whoever asks may do. It is a request to create something, and nothing is stored, so no fence is
//! asked.

use k8s_openapi::api::authorization::v1::{
    SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::api::Api;

use crate::rehearse::rehearsed;

/// The rules in force for whoever asks, in a namespace and in the whole cluster alike. `None` where the server says that it
/// does not know them all.
///
/// # Errors
/// The request was refused or not answered.
pub async fn own_rights(client: &Client, namespace: &str) -> kube::Result<Option<Vec<PolicyRule>>> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let answer = reviews.create(&rehearsed(), &review).await?;
    Ok(answer.status.and_then(complete))
}

/// The rules of an answer that has all of them.
fn complete(status: SubjectRulesReviewStatus) -> Option<Vec<PolicyRule>> {
    let SubjectRulesReviewStatus { evaluation_error, incomplete, non_resource_rules, resource_rules } = status;
    if incomplete || evaluation_error.is_some_and(|error| !error.is_empty()) {
        return None;
    }
    let resources = resource_rules.into_iter().map(|rule| PolicyRule {
        api_groups: rule.api_groups,
        resources: rule.resources,
        resource_names: rule.resource_names,
        verbs: rule.verbs,
        non_resource_urls: None,
    });
    let paths = non_resource_rules.into_iter().map(|rule| PolicyRule {
        non_resource_urls: rule.non_resource_urls,
        verbs: rule.verbs,
        ..PolicyRule::default()
    });
    Some(resources.chain(paths).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_that_does_not_have_all_is_none() {
        let status = |incomplete: bool, error: &str| {
            let status = json!({"incomplete": incomplete, "evaluationError": error,
                "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]});
            complete(serde_json::from_value(status).expect("a status"))
        };
        assert_eq!((status(true, ""), status(false, "one role is missing")), (None, None));
        let known = serde_json::to_value(status(false, "").expect("all of them")).expect("data");
        let expected = json!([
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
        ]);
        assert_eq!(known, expected);
    }
}
