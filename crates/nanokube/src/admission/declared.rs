//! Whether the expressions of policies and webhooks can be compiled at all, asked when they are written. Pure.

use apimachinery::FieldError;
use apimachinery::field;
use serde_json::Value;

use crate::cel::{self, Expressions};

/// Names every expression may use.
const REQUEST: [&str; 4] = ["authorizer", "object", "oldObject", "request"];
/// What policies have besides.
const POLICY: [&str; 6] = ["authorizer", "namespaceObject", "object", "oldObject", "params", "request"];
const POLICY_WITH_VARIABLES: [&str; 7] =
    ["authorizer", "namespaceObject", "object", "oldObject", "params", "request", "variables"];

/// What is wrong with the expressions of an object of `admissionregistration.k8s.io`.
pub(crate) fn problems(plural: &str, object: &Value) -> Vec<FieldError> {
    let mut check = Check { expressions: Expressions::default(), errors: Vec::new() };
    match plural {
        "validatingwebhookconfigurations" | "mutatingwebhookconfigurations" => {
            for (index, hook) in object["webhooks"].as_array().into_iter().flatten().enumerate() {
                let path = field::index("webhooks", index);
                check.list(&path, &hook["matchConditions"], "matchConditions", &["expression"], &REQUEST);
            }
        }
        "validatingadmissionpolicies" => {
            let spec = &object["spec"];
            check.list("spec", &spec["matchConditions"], "matchConditions", &["expression"], &POLICY);
            check.list("spec", &spec["variables"], "variables", &["expression"], &POLICY_WITH_VARIABLES);
            let fields = ["expression", "messageExpression"];
            check.list("spec", &spec["validations"], "validations", &fields, &POLICY_WITH_VARIABLES);
            let fields = ["valueExpression"];
            check.list("spec", &spec["auditAnnotations"], "auditAnnotations", &fields, &POLICY_WITH_VARIABLES);
        }
        _ => {}
    }
    check.errors
}

struct Check {
    expressions: Expressions,
    errors: Vec<FieldError>,
}

impl Check {
    fn list(&mut self, path: &str, list: &Value, name: &str, fields: &[&str], known: &[&str]) {
        for (index, entry) in list.as_array().into_iter().flatten().enumerate() {
            let at = field::index(&field::child(path, name), index);
            for field in fields {
                // What is required and missing is the schema's business.
                let Some(source) = entry[*field].as_str().filter(|text| !text.trim().is_empty()) else { continue };
                if let Err(why) = self.compiled(source, known) {
                    let at = field::child(&at, field);
                    self.errors.push(FieldError::invalid(at, &entry[*field], &format!("compilation failed: {why}")));
                }
            }
        }
    }

    fn compiled(&self, source: &str, known: &[&str]) -> Result<(), String> {
        let expression = self.expressions.get(source).map_err(|error| error.to_string())?;
        match cel::unknown_names(&expression, known).first() {
            Some(name) => Err(format!("undeclared reference to '{name}' (in container '')")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(plural: &str, object: Value) -> Vec<String> {
        problems(plural, &object).into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn every_expression_is_compiled() {
        let policy = |validation: Value| {
            json!({"spec": {
                "matchConditions": [{"expression": "request.operation == 'CREATE'"}],
                "variables": [{"name": "x", "expression": "object.spec.x"}, {"name": "y", "expression": "variables.x + 1"}],
                "validations": [validation],
            }})
        };
        let good =
            json!({"expression": "variables.y > params.least", "messageExpression": "'is ' + string(variables.y)"});
        assert_eq!(fields("validatingadmissionpolicies", policy(good)), Vec::<String>::new());
        let bad = json!({"expression": "object.x ==", "messageExpression": "self.x"});
        assert_eq!(
            fields("validatingadmissionpolicies", policy(bad)),
            ["spec.validations[0].expression", "spec.validations[0].messageExpression"]
        );
        let hook =
            json!({"webhooks": [{"matchConditions": [{"expression": "params.x"}, {"expression": "object.x == 1"}]}]});
        assert_eq!(fields("mutatingwebhookconfigurations", hook), ["webhooks[0].matchConditions[0].expression"]);
    }
}
