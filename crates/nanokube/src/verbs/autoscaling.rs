//! `autoscaling/v1`: autoscalers are stored as `autoscaling/v2` and the older version has one field for the use of CPU.

use serde_json::{Value, json};

/// Where the older version keeps metrics it has no field for.
const OTHERS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const PERCENT: &str = "targetCPUUtilizationPercentage";

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"]["target"]["type"] == "Utilization"
}

/// The autoscaler as `autoscaling/v1` shows it.
pub(super) fn from_metrics(stored: &Value) -> Value {
    let mut value = stored.clone();
    value["apiVersion"] = json!("autoscaling/v1");
    let metrics = value.pointer_mut("/spec").and_then(Value::as_object_mut).and_then(|spec| spec.remove("metrics"));
    let (cpu, others): (Vec<Value>, Vec<Value>) =
        metrics.as_ref().and_then(Value::as_array).cloned().unwrap_or_default().into_iter().partition(is_cpu);
    if let Some(cpu) = cpu.first() {
        value["spec"][PERCENT] = cpu["resource"]["target"]["averageUtilization"].clone();
    }
    if !others.is_empty() {
        value["metadata"]["annotations"][OTHERS] = json!(Value::from(others).to_string());
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        for field in ["currentMetrics", "conditions"] {
            status.remove(field);
        }
        status.entry("currentReplicas").or_insert(json!(0));
        status.entry("desiredReplicas").or_insert(json!(0));
    }
    value
}

/// The autoscaler as it is stored.
pub(super) fn to_metrics(mut value: Value) -> Value {
    value["apiVersion"] = json!("autoscaling/v2");
    let mut metrics = Vec::new();
    let percent = value.pointer_mut("/spec").and_then(Value::as_object_mut).and_then(|spec| spec.remove(PERCENT));
    if let Some(percent) = percent.filter(|percent| !percent.is_null()) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if let Some(annotations) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        // Text that is no list of metrics was never one of ours.
        let others =
            annotations.remove(OTHERS).and_then(|text| serde_json::from_str::<Vec<Value>>(text.as_str()?).ok());
        metrics.extend(others.unwrap_or_default());
        if annotations.is_empty() {
            value["metadata"].as_object_mut().map(|metadata| metadata.remove("annotations"));
        }
    }
    if !metrics.is_empty() {
        value["spec"]["metrics"] = Value::from(metrics);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_the_same() {
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "Utilization", "averageUtilization": 70}}});
        let mut old = json!({"apiVersion": "autoscaling/v1", "metadata": {}, "spec": {PERCENT: 50, "maxReplicas": 3}});
        let mut new = to_metrics(old.clone());
        assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        assert_eq!(from_metrics(&new), old);
        new["spec"]["metrics"].as_array_mut().unwrap().push(memory);
        old = from_metrics(&new);
        assert_eq!(old["spec"][PERCENT], 50);
        assert_eq!(to_metrics(old), new);
    }
}
