//! An UpgradePlan as people read it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubevirt_api::upgrade::{StepProgress, StepStatus, UpgradePlan};
use kubevirt_upgrade::estimate::Estimate;
use serde_json::Value;

use super::{Picture, picture};
use crate::table::table;

pub(super) fn print(plan: &UpgradePlan, expected: Option<Estimate>, output: Picture) -> anyhow::Result<()> {
    match output {
        Picture::Text => crate::print(&text(plan, expected)),
        Picture::Json => crate::print(&format!("{:#}\n", document(plan, expected)?)),
        Picture::Svg => crate::print(&picture::timeline(plan)),
    }
}

/// The plan as it is, and beside it what is expected.
pub(super) fn document(plan: &UpgradePlan, expected: Option<Estimate>) -> anyhow::Result<Value> {
    let mut document = serde_json::to_value(plan)?;
    if let Some(expected) = expected {
        document["estimate"] = serde_json::to_value(expected)?;
    }
    Ok(document)
}

/// What the change is, in one line.
pub(super) fn headline(plan: &UpgradePlan) -> String {
    let status = plan.status.clone().unwrap_or_default();
    let mut line = format!(
        "{}: {} to {}, {}",
        plan.metadata.name.as_deref().unwrap_or_default(),
        plan.spec.from.version,
        plan.spec.to.version,
        status.state.as_str(),
    );
    if let Some(step) = &status.step {
        line.push_str(&format!(", step {step}"));
    }
    if let Some(reason) = &status.reason {
        line.push_str(&format!(" ({reason})"));
    }
    line
}

/// Everything about it.
pub(super) fn text(plan: &UpgradePlan, expected: Option<Estimate>) -> String {
    let status = plan.status.clone().unwrap_or_default();
    let mut lines = format!("{}\n", headline(plan));
    let time = |label: &str, time: &Option<Time>| match time {
        Some(Time(at)) => format!("{label} {at:.0}\n"),
        None => String::new(),
    };
    lines.push_str(&time("began", &status.started));
    lines.push_str(&time("ended", &status.finished));
    if let Some(expected) = expected {
        lines.push_str(&format!("{expected}, at the pace so far\n"));
    }
    if let Some(message) = &status.message {
        lines.push_str(&format!("{message}\n"));
    }
    if let Some(rollback) = &status.rollback {
        lines.push_str(&format!(
            "gone back from {:.0} on, {}: {}\n",
            rollback.started.0, rollback.reason, rollback.message
        ));
    }
    match &status.point_of_no_return {
        Some(point) => lines.push_str(&format!("no way back after {}: {}\n", point.step, point.why)),
        None => lines.push_str("there is a way back from every step\n"),
    }
    if let Some(request) = plan.spec.request {
        lines.push_str(&format!("asked for: {request:?}\n"));
    }
    let rows: Vec<[String; 7]> = status.steps.iter().map(row).collect();
    lines.push('\n');
    lines.push_str(&table(["STEP", "NAME", "STATE", "TOOK", "OBJECTS", "PODS", "HELD BY"], &rows));
    for finding in &status.findings {
        let weight = if finding.blocks { "BLOCKS" } else { "note" };
        lines.push_str(&format!("{weight} {}: {}\n", finding.code, finding.message));
    }
    for node in &status.skipped_nodes {
        lines.push_str(&format!("node {} is not waited for: {}\n", node.name, node.why));
    }
    lines
}

fn row(step: &StepStatus) -> [String; 7] {
    let StepStatus { number, name, state, started, finished, blocked_by, objects, pods, touches: _ } = step;
    let state = match state {
        StepProgress::Pending => "pending",
        StepProgress::InProgress => "under way",
        StepProgress::Held => "held",
        StepProgress::Done => "done",
    };
    let count = |number: u32| if number == 0 { "-".to_owned() } else { number.to_string() };
    [
        number.to_string(),
        name.clone(),
        state.to_owned(),
        span(started.as_ref(), finished.as_ref())
            .map_or_else(|| "-".to_owned(), |span| format!("{} s", span.as_secs())),
        count(*objects),
        count(*pods),
        if blocked_by.is_empty() { "-".to_owned() } else { blocked_by.join(", ") },
    ]
}

fn span(started: Option<&Time>, finished: Option<&Time>) -> Option<SignedDuration> {
    let (began, ended): (Timestamp, Timestamp) = (started?.0, finished?.0);
    Some(ended.duration_since(began))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::picture::tests::undone;

    #[test]
    fn a_change_is_told_with_its_steps_and_its_end() {
        expect_test::expect![[r#"
            upgrade-3: v0.1.0 to v0.2.0, RolledBack (CrashLoop)
            began 2026-01-01T00:00:00Z
            ended 2026-01-01T00:01:00Z
            pod virt-handler-x ends again and again: <exit 1>
            gone back from 2026-01-01T00:00:40Z on, CrashLoop: pod virt-handler-x ends again and again: <exit 1>
            there is a way back from every step

            STEP   NAME              STATE       TOOK   OBJECTS   PODS   HELD BY
            1      crds              done        2 s    18        -      -
            2      virt-handler      under way   -      1         3      -
            3      virt-controller   pending     -      1         2      -
        "#]]
        .assert_eq(&text(&undone(), None));
    }

    #[test]
    fn what_is_expected_is_told_beside_the_plan() {
        let expected = Estimate { seconds_left: 95, ends: "2026-01-01T00:02:00.7Z".parse().expect("a time") };
        let text = text(&undone(), Some(expected));
        assert!(text.contains("\nabout 95 s left, until 2026-01-01T00:02:00Z, at the pace so far\n"), "{text}");
        let document = document(&undone(), Some(expected)).expect("data");
        assert_eq!(document["estimate"], serde_json::json!({"secondsLeft": 95, "ends": "2026-01-01T00:02:00Z"}));
        assert_eq!(document["spec"]["from"]["version"], "v0.1.0", "the rest is the plan");
    }
}
