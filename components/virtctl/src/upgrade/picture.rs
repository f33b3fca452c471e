//! Pictures of changes of version, as SVG: the flow of a plan, and the timeline of one that was carried out.

use std::fmt::Write as _;

use jiff::Timestamp;
use kubevirt_api::upgrade::{PlanState, StepProgress, StepStatus, UpgradePlan};
use kubevirt_upgrade::{Form, Plan, Step, StepState};

/// Width of both pictures: what a page of a document takes.
const WIDTH: i64 = 860;
/// Space around everything.
const MARGIN: i64 = 24;
/// Height of a step's box, and of the arrow to the next.
const BOX: i64 = 58;
const ARROW: i64 = 22;
/// Height of a step's row in a timeline.
const ROW: i64 = 30;
/// Where the bars of a timeline begin and end.
const BARS: (i64, i64) = (190, 760);
/// Pods that are drawn one by one; what is more is counted.
const DRAWN_PODS: usize = 24;

fn head(height: i64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"DejaVu Sans, Arial, sans-serif\" font-size=\"13\">\n\
         <title>{0}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"34\" font-size=\"18\" font-weight=\"bold\" fill=\"#1f2933\">{0}</text>\n",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn text(out: &mut String, x: i64, y: i64, colour: &str, anchor: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// The steps of a plan from top to bottom, each with what it writes and the pods it replaces.
pub(super) fn flow(plan: &Plan) -> String {
    let steps: Vec<&Step> = plan.steps().iter().collect();
    let count = i64::try_from(steps.len()).unwrap_or_default();
    let from = plan.observed().map_or("nothing", |observed| observed.version.as_str());
    let height = 60 + count * (BOX + ARROW) + MARGIN;
    let mut out = head(height, &format!("{}: {from} to {}", plan.mode().code(), plan.target().version));
    let mut y = 54;
    for (index, step) in steps.iter().enumerate() {
        let work = step.apply.len() + step.delete.len();
        let (fill, line) = match (&step.state, work + step.pods) {
            (StepState::Done, _) | (_, 0) => ("#f1f3f5", "#adb5bd"),
            (StepState::Now, _) => ("#d3f9d8", "#2f9e44"),
            (StepState::Waiting(_), _) => ("#e7f0fd", "#4a7fc1"),
        };
        let right = WIDTH - 2 * MARGIN;
        let _ = writeln!(
            out,
            "<rect x=\"{MARGIN}\" y=\"{y}\" width=\"{right}\" height=\"{BOX}\" rx=\"8\" fill=\"{fill}\" stroke=\"{line}\"/>"
        );
        text(&mut out, MARGIN + 14, y + 24, "#1f2933", "start", &format!("{}. {}", step.number, step.slot.title()));
        text(&mut out, MARGIN + 14, y + 44, "#52606d", "start", &work_of(step));
        pods(&mut out, y, step.pods);
        if index + 1 < steps.len() {
            let (x, top, tip) = (WIDTH / 2, y + BOX, y + BOX + ARROW);
            let _ = writeln!(
                out,
                "<path d=\"M{x} {top} V{0} M{1} {2} L{x} {0} L{3} {2}\" fill=\"none\" stroke=\"#7b8794\" stroke-width=\"1.5\"/>",
                tip - 2,
                x - 5,
                tip - 8,
                x + 5
            );
        }
        y += BOX + ARROW;
    }
    out.push_str("</svg>\n");
    out
}

fn work_of(step: &Step) -> String {
    let mut parts = Vec::new();
    if !step.apply.is_empty() {
        let wider = if step.form == Form::Transitional { " in their wider form" } else { "" };
        parts.push(format!("writes {} of {} objects{wider}", step.apply.len(), step.objects.len()));
    }
    if !step.delete.is_empty() {
        parts.push(format!("deletes {} objects", step.delete.len()));
    }
    if parts.is_empty() { "nothing to write".to_owned() } else { parts.join(", ") }
}

/// The pods that a step replaces, from the right edge of its box.
fn pods(out: &mut String, y: i64, count: usize) {
    if count == 0 {
        return;
    }
    let right = WIDTH - MARGIN - 14;
    let noun = if count == 1 { "pod is replaced" } else { "pods are replaced" };
    text(out, right, y + 44, "#52606d", "end", &format!("{count} {noun}"));
    let more = count > DRAWN_PODS;
    let mut x = right - if more { 22 } else { 0 };
    if more {
        text(out, right, y + 23, "#52606d", "end", "…");
    }
    for _ in 0..count.min(DRAWN_PODS) {
        x -= 14;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\" rx=\"2\" fill=\"#f59f00\" stroke=\"#b06f00\"/>",
            y + 13
        );
        x -= 2;
    }
}

/// When each step of a change began and ended.
pub(super) fn timeline(plan: &UpgradePlan) -> String {
    let status = plan.status.clone().unwrap_or_default();
    let at = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.as_ref().map(|time| time.0);
    let steps: Vec<&StepStatus> = status.steps.iter().collect();
    let began = at(&status.started).or_else(|| steps.iter().find_map(|step| at(&step.started)));
    let ends = steps.iter().filter_map(|step| at(&step.finished)).chain(at(&status.finished));
    let ended = ends.chain(status.rollback.as_ref().map(|rollback| rollback.started.0)).max().or(began);
    let (Some(began), Some(ended)) = (began, ended) else {
        return head(80, "not begun") + "</svg>\n";
    };
    let total = milliseconds(began, ended).max(1);
    let (left, right) = BARS;
    let place = |time: Timestamp| left + milliseconds(began, time).clamp(0, total) * (right - left) / total;
    let rows = i64::try_from(steps.len()).unwrap_or_default() + i64::from(status.rollback.is_some());
    let height = 92 + rows * ROW + MARGIN;
    let title = format!("{} to {}: {}", plan.spec.from.version, plan.spec.to.version, status.state.as_str());
    let mut out = head(height, &title);
    // The axis: five marks are enough to read a length off.
    for mark in 0..=4 {
        let x = left + (right - left) * mark / 4;
        let seconds = total as f64 * mark as f64 / 4000.0;
        let _ = writeln!(out, "<path d=\"M{x} 66 V{}\" stroke=\"#e4e7eb\" stroke-width=\"1\"/>", height - MARGIN);
        text(&mut out, x, 60, "#7b8794", "middle", &format!("{seconds:.1} s"));
    }
    let mut y = 78;
    for step in steps {
        text(&mut out, MARGIN, y + 15, "#1f2933", "start", &format!("{}. {}", step.number, step.name));
        if let Some(start) = at(&step.started) {
            let end =
                at(&step.finished).unwrap_or_else(|| status.rollback.as_ref().map_or(ended, |back| back.started.0));
            let colour = match step.state {
                StepProgress::Done => "#2f9e44",
                StepProgress::Held => "#f59f00",
                StepProgress::InProgress if status.state != PlanState::InProgress => "#e03131",
                StepProgress::InProgress | StepProgress::Pending => "#4a7fc1",
            };
            let label = if step.pods > 0 { format!(", {} pods", step.pods) } else { String::new() };
            bar(&mut out, place(start), place(end), y, colour, &format!("{}{label}", length(start, end)));
        }
        y += ROW;
    }
    if let Some(rollback) = &status.rollback {
        text(&mut out, MARGIN, y + 15, "#e03131", "start", "back");
        let end = at(&rollback.finished).unwrap_or(ended);
        let label = format!("{}: {}", length(rollback.started.0, end), rollback.reason);
        bar(&mut out, place(rollback.started.0), place(end), y, "#e03131", &label);
    }
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, start: i64, end: i64, y: i64, colour: &str, label: &str) {
    // What took no time is still there.
    let width = (end - start).max(3);
    let _ = writeln!(out, "<rect x=\"{start}\" y=\"{y}\" width=\"{width}\" height=\"20\" rx=\"3\" fill=\"{colour}\"/>");
    // Beside the bar where there is room, else before it.
    let (_, right) = BARS;
    if start + width < right - 120 {
        text(out, start + width + 6, y + 15, "#52606d", "start", label);
    } else {
        text(out, start - 6, y + 15, "#52606d", "end", label);
    }
}

fn milliseconds(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from(to.duration_since(from).as_millis()).unwrap_or_default()
}

fn length(from: Timestamp, to: Timestamp) -> String {
    format!("{:.1} s", milliseconds(from, to) as f64 / 1000.0)
}

#[cfg(test)]
pub(super) mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kubevirt_api::upgrade::{Release, Rollback, UpgradePlanSpec, UpgradePlanStatus};

    use super::*;

    /// A change that was undone at its second step.
    pub(in crate::upgrade) fn undone() -> UpgradePlan {
        let at = |second: i64| Some(Time(Timestamp::from_second(1_767_225_600 + second).expect("a time")));
        let release = |version: &str| Release { version: version.to_owned(), deployment_id: version.to_owned() };
        let step = |number, name: &str, state, started, finished, objects, pods| StepStatus {
            number,
            name: name.to_owned(),
            state,
            started,
            finished,
            objects,
            pods,
            ..StepStatus::default()
        };
        let why = "pod virt-handler-x ends again and again: <exit 1>".to_owned();
        let status = UpgradePlanStatus {
            state: PlanState::RolledBack,
            mode: "update".to_owned(),
            reason: Some("CrashLoop".to_owned()),
            message: Some(why.clone()),
            started: at(0),
            finished: at(60),
            steps: vec![
                step(1, "crds", StepProgress::Done, at(0), at(2), 18, 0),
                step(2, "virt-handler", StepProgress::InProgress, at(2), None, 1, 3),
                step(3, "virt-controller", StepProgress::Pending, None, None, 1, 2),
            ],
            rollback: Some(Rollback {
                reason: "CrashLoop".to_owned(),
                message: why,
                started: at(40).expect("a time"),
                finished: at(60),
            }),
            ..UpgradePlanStatus::default()
        };
        let spec = UpgradePlanSpec { from: release("v0.1.0"), to: release("v0.2.0"), request: None };
        UpgradePlan { status: Some(status), ..UpgradePlan::new("upgrade-3", spec) }
    }

    #[test]
    fn a_timeline_has_a_bar_for_each_step_that_began_and_one_for_the_way_back() {
        let picture = timeline(&undone());
        assert_eq!(picture.matches("height=\"20\"").count(), 3, "{picture}");
        assert!(picture.contains("v0.1.0 to v0.2.0: RolledBack") && picture.contains("20.0 s: CrashLoop"), "{picture}");
        assert_eq!(picture.matches('<').count(), picture.matches('>').count());
    }
}
