//! Changes of version that do not simply go on: paused, aborted, undone, past nodes that are not there.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use jiff::SignedDuration;
use kubevirt_api::upgrade::{PlanState, PointOfNoReturn, Request, UpgradePlanStatus};
use kubevirt_release::{Kind, ObjectKey};

use super::world::{World, identity, key};
use crate::record::{self, Facts};
use crate::{
    Absence, Asked, Course, Failure, Mode, NoWayBack, Policy, Reason, Refused, Trouble, check, decide, images, plan,
};

const OLD: &str = "v0.1.0";
const NEW: &str = "v0.2.0";

/// An operator that carries out what is decided, with the objects that people write and the record it keeps.
pub(super) struct Operator {
    pub(super) world: World,
    pub(super) policy: Policy,
    pub(super) request: Option<Request>,
    pub(super) record: Option<UpgradePlanStatus>,
    no_way_back: Option<NoWayBack>,
    writes: usize,
}

impl Operator {
    pub(super) fn new() -> Self {
        let world = World::installed(OLD);
        Self { world, policy: Policy::default(), request: None, record: None, no_way_back: None, writes: 0 }
    }

    fn returning(&self) -> bool {
        let state = self.record.as_ref().map(|record| record.state);
        matches!(state, Some(PlanState::RollingBack | PlanState::RolledBack))
    }

    /// One pass; returns a line for the story.
    pub(super) fn pass(&mut self) -> String {
        let returning = self.returning();
        let target = if returning { OLD } else { NEW };
        self.world.pulls_images = images::asked_for(&self.policy, self.request, returning);
        self.world.images_overdue = images::overdue(&self.policy, self.record.as_ref(), self.world.now);
        let input = self.world.input(target);
        let (plan, _report) = plan(&input);
        let asked = Asked {
            policy: &self.policy,
            request: self.request,
            record: self.record.as_ref(),
            no_way_back: self.no_way_back.clone(),
            blocked: None,
            refused: None,
            returning,
            now: self.world.now,
        };
        let course = decide(&plan, &input.snapshot, &asked).course;
        let plan = plan.on(&course, &input.snapshot);
        check::check(&plan, &input.desired).expect("the plan is in order");
        let new = match (&self.record, returning) {
            (Some(old), true) => record::returned(old, &plan, None, self.world.now),
            (old, _) => {
                record::advance(old.as_ref(), &plan, &input.snapshot, &course, &Facts::default(), self.world.now)
            }
        };
        let is_news = self.record.as_ref().is_none_or(|old| record::is_news(old, &new));
        self.writes += usize::from(is_news);
        let line =
            format!("{:?} {} {}", new.state, new.step.as_deref().unwrap_or("-"), new.reason.as_deref().unwrap_or(""));
        if is_news {
            self.record = Some(new);
        }
        if !matches!(course, Course::Back(_)) {
            self.world.carry_out(&plan, target, usize::MAX);
        }
        if plan.is_done() {
            self.world.observed = Some(target.to_owned());
        }
        line.trim_end().to_owned()
    }

    /// Lets an operator work for a while, some seconds between two passes.
    pub(super) fn work(&mut self, rounds: usize) -> String {
        let mut story = String::new();
        let mut last = String::new();
        for round in 0..rounds {
            if self.record.as_ref().is_some_and(|record| record.state == PlanState::Succeeded) {
                // Nothing is under way any more; the suite is kept.
                self.world.pass(NEW);
                self.world.roll(round);
                continue;
            }
            let line = self.pass();
            if line != last {
                writeln!(story, "{line}").expect("a string takes text");
                last = line;
            }
            self.world.roll(round);
            self.world.later(5);
        }
        story
    }

    pub(super) fn new_handlers(&self) -> usize {
        self.world.pods(Kind::DaemonSet, "virt-handler").iter().filter(|(version, _)| *version == NEW).count()
    }

    pub(super) fn tell(&mut self, rounds: usize, expected: &Expect) {
        let story = self.work(rounds);
        expected.assert_eq(&story);
    }
}

#[test]
fn a_change_that_works_is_recorded_step_by_step_and_costs_a_write_per_step() {
    let mut operator = Operator::new();
    operator.tell(
        60,
        &expect![[r#"
            InProgress 1/10 crds
            InProgress 4/10 virt-handler
            InProgress 5/10 virt-controller
            InProgress 7/10 virt-api
            InProgress 8/10 admission
            InProgress 9/10 prune
            InProgress 10/10 rbac-shrink
            Succeeded -
        "#]],
    );
    let record = operator.record.expect("a record");
    assert!(record.steps.iter().all(|step| step.started.is_some() && step.finished.is_some()), "{record:#?}");
    let handler = record.steps.iter().find(|step| step.name == "virt-handler").expect("a step");
    assert_eq!(
        (handler.pods, handler.touches.as_slice()),
        (3, ["DaemonSet kubevirt/virt-handler".to_owned()].as_slice())
    );
    assert!(operator.writes <= 12, "{}", operator.writes);
}

#[test]
fn a_release_that_crash_loops_stops_at_the_canary_and_goes_back() {
    let mut operator = Operator::new();
    operator.world.bad.insert(NEW.to_owned(), Some(Trouble::CrashLoops { restarts: 2 }));
    operator.tell(
        60,
        &expect![[r#"
            InProgress 1/10 crds
            InProgress 4/10 virt-handler
            RollingBack 4/10 virt-handler CrashLoop
            RollingBack back 1/10 crds CrashLoop
            RollingBack back 8/10 virt-handler CrashLoop
            RollingBack back 2/9 rbac-shrink CrashLoop
            RollingBack back 9/9 prune CrashLoop
            RolledBack - CrashLoop
        "#]],
    );
    assert_eq!(operator.new_handlers(), 0);
    assert_eq!(operator.world.observed.as_deref(), Some(OLD));
}

#[test]
fn no_second_node_gets_what_failed_on_the_first() {
    for trouble in [Some(Trouble::CrashLoops { restarts: 2 }), Some(Trouble::NoImage), None] {
        let mut operator = Operator::new();
        operator.world.bad.insert(NEW.to_owned(), trouble);
        for round in 0..400 {
            operator.pass();
            assert!(operator.new_handlers() <= 1, "{trouble:?}");
            operator.world.roll(round);
            operator.world.later(5);
        }
        let record = operator.record.as_ref().expect("a record");
        let expected = match trouble {
            Some(Trouble::CrashLoops { .. }) => "CrashLoop",
            Some(Trouble::NoImage) => "ImageUnavailable",
            None => "NotReadyInTime",
        };
        assert_eq!((record.state, record.reason.as_deref()), (PlanState::RolledBack, Some(expected)));
    }
}

#[test]
fn whoever_forbids_going_back_finds_the_change_held() {
    let mut operator = Operator::new();
    operator.policy.goes_back = false;
    operator.world.bad.insert(NEW.to_owned(), Some(Trouble::CrashLoops { restarts: 2 }));
    operator.work(30);
    let record = operator.record.as_ref().expect("a record");
    assert_eq!((record.state, record.reason.as_deref()), (PlanState::Blocked, Some("Failed")));
    operator.request = Some(Request::Rollback);
    operator.work(60);
    assert_eq!(operator.record.as_ref().map(|record| record.state), Some(PlanState::RolledBack));
}

#[test]
fn a_change_can_be_paused_gone_on_with_undone_and_ended_at_every_step() {
    // As many passes as a whole change takes: at each of them something else is under way.
    const PASSES: usize = 40;
    for passes in 0..PASSES {
        for request in [Request::Pause, Request::Rollback, Request::Abort] {
            let mut operator = Operator::new();
            operator.work(passes);
            if operator.record.as_ref().is_some_and(|record| record.state.is_over()) {
                continue;
            }
            operator.request = Some(request);
            operator.pass();
            match request {
                Request::Rollback => {
                    operator.work(80);
                    let record = operator.record.as_ref().expect("a record");
                    // What was finished at that moment cannot be undone by a request.
                    let left = if record.state == PlanState::Succeeded { NEW } else { OLD };
                    assert!(record.state.is_over(), "after {passes} passes: {record:#?}");
                    assert_eq!(operator.world.running(), [left.to_owned()].into(), "after {passes} passes");
                }
                Request::Pause | Request::Abort => {
                    // Pods of what was written before may still become ready; nothing new is written.
                    let objects = operator.world.objects.keys().cloned().collect::<Vec<_>>();
                    let written = |operator: &Operator| {
                        let workload = |kind, name: &str| operator.world.objects[&key(kind, name)].serves.clone();
                        [
                            workload(Kind::DaemonSet, "virt-handler"),
                            workload(Kind::Deployment, "virt-controller"),
                            workload(Kind::Deployment, "virt-api"),
                        ]
                    };
                    let before = written(&operator);
                    operator.work(20);
                    let records = operator.writes;
                    operator.work(20);
                    assert_eq!(operator.writes, records, "{request:?} after {passes} passes is told again and again");
                    assert_eq!(written(&operator), before, "{request:?} after {passes} passes");
                    assert_eq!(operator.world.objects.keys().cloned().collect::<Vec<_>>(), objects);
                    if request == Request::Pause {
                        let state = operator.record.as_ref().map(|record| record.state);
                        // What was finished at that moment cannot be paused.
                        let is_over = state == Some(PlanState::Succeeded);
                        assert!(is_over || state == Some(PlanState::Paused), "after {passes} passes: {state:?}");
                        operator.request = None;
                        operator.work(80);
                        let state = operator.record.as_ref().map(|record| record.state);
                        assert_eq!(state, Some(PlanState::Succeeded), "after {passes} passes");
                    }
                }
            }
        }
    }
}

#[test]
fn a_pause_in_the_policy_stops_the_way_back_too() {
    let mut operator = Operator::new();
    operator.work(10);
    operator.request = Some(Request::Rollback);
    operator.pass();
    operator.policy.paused = true;
    let before = operator.world.objects.len();
    operator.work(20);
    assert_eq!(operator.world.objects.len(), before);
    assert_eq!(operator.record.as_ref().map(|record| record.state), Some(PlanState::RollingBack));
    operator.policy.paused = false;
    operator.work(80);
    assert_eq!(operator.record.as_ref().map(|record| record.state), Some(PlanState::RolledBack));
}

#[test]
fn a_policy_that_cannot_be_read_holds_everything_and_says_why() {
    let mut operator = Operator::new();
    operator.policy.unread = true;
    let before = operator.world.objects.clone();
    operator.work(20);
    // What is looked after whatever is held is not in question.
    let new = operator.world.objects.keys().filter(|key| !before.contains_key(*key) && key.kind != Kind::ConfigMap);
    assert_eq!(new.count(), 0);
    let record = operator.record.as_ref().expect("a record");
    assert_eq!((record.state, record.reason.as_deref()), (PlanState::Paused, Some("Paused")));
    assert!(
        record.message.as_deref().is_some_and(|message| message.contains("cannot be read")),
        "{:?}",
        record.message
    );
    assert_eq!(operator.new_handlers(), 0);
    operator.policy.unread = false;
    operator.work(80);
    assert_eq!(operator.record.as_ref().map(|record| record.state), Some(PlanState::Succeeded));
}

#[test]
fn behind_the_point_of_no_return_nothing_goes_back_and_the_record_says_why() {
    let mut operator = Operator::new();
    let point = PointOfNoReturn { step: "crds".to_owned(), why: "objects are stored in v2".to_owned() };
    operator.no_way_back = Some(NoWayBack::PointOfNoReturn(point));
    operator.world.bad.insert(NEW.to_owned(), Some(Trouble::CrashLoops { restarts: 2 }));
    operator.work(30);
    let record = operator.record.as_ref().expect("a record");
    assert_eq!((record.state, record.reason.as_deref()), (PlanState::Blocked, Some("PastPointOfNoReturn")));
    assert!(record.message.as_deref().is_some_and(|message| message.contains("stored in v2")), "{record:?}");
}

#[test]
fn a_node_that_is_not_there_is_gone_past_and_named() {
    let mut operator = Operator::new();
    operator.world.absent_nodes.insert("node-2".to_owned(), Absence::NotReady);
    operator.world.stuck_nodes.insert("node-2".to_owned());
    operator.work(80);
    let record = operator.record.clone().expect("a record");
    assert_eq!(record.state, PlanState::Succeeded, "{record:#?}");
    assert_eq!(operator.new_handlers(), 2);
    let (after, _report) = plan(&operator.world.input(NEW));
    assert!(after.is_done(), "the node that is not there is not waited for afterwards: {after:?}");
    // It comes back.
    operator.world.absent_nodes.clear();
    operator.world.stuck_nodes.clear();
    operator.work(20);
    assert_eq!(operator.new_handlers(), 3);
}

#[test]
fn an_installation_and_a_repair_are_no_changes_of_version() {
    let mut world = World::new();
    let input = world.input(OLD);
    let policy = Policy { paused: true, ..Policy::default() };
    let asked = Asked {
        policy: &policy,
        request: None,
        record: None,
        no_way_back: None,
        blocked: None,
        refused: None,
        returning: false,
        now: world.now,
    };
    let (install, _report) = plan(&input);
    assert_eq!(decide(&install, &input.snapshot, &asked).course, Course::Forward);
    world.run_to_end(OLD);
    world.forget(&key(Kind::Deployment, "virt-api"));
    let input = world.input(OLD);
    let (keep, _report) = plan(&input);
    assert_eq!(decide(&keep, &input.snapshot, &asked).course, Course::Forward);
    let input = world.input(NEW);
    let (update, _report) = plan(&input);
    assert!(matches!(decide(&update, &input.snapshot, &asked).course, Course::Held(Reason::Paused { .. })));
    assert_eq!(update.observed(), Some(&identity(OLD)));
    let asked = Asked { request: Some(Request::Rollback), ..asked };
    assert_eq!(decide(&update, &input.snapshot, &asked).course, Course::Back(Failure::RollbackRequested));
}

/// What must be over before what, as the oracle states it: at every moment of a change, on what is recorded of it.
fn assert_prefix(record: &UpgradePlanStatus) {
    use kubevirt_api::upgrade::StepProgress;
    let mode = if record.mode == "update" { Mode::Update } else { Mode::Rollback };
    let step = |name: &str| record.steps.iter().find(|step| step.name == name).expect("a step of the oracle");
    for (after, before) in check::edges(mode).expect("the oracle can be read") {
        let (after, before) = (step(&after), step(&before));
        // A step that has nothing to do is over without having waited.
        if after.state == StepProgress::InProgress {
            assert_eq!(before.state, StepProgress::Done, "{} began before {} was over", after.name, before.name);
        }
    }
}

#[test]
fn at_every_moment_the_record_is_a_beginning_of_the_order_the_oracle_states() {
    for (from, to) in [(OLD, NEW), (NEW, OLD)] {
        let mut world = World::installed(from);
        let mut record: Option<UpgradePlanStatus> = None;
        let mut seen = 0;
        for round in 0..80 {
            let input = world.input(to);
            let (plan, _report) = plan(&input);
            if plan.mode() == Mode::Keep {
                break;
            }
            let new = record::advance(
                record.as_ref(),
                &plan,
                &input.snapshot,
                &Course::Forward,
                &Facts::default(),
                world.now,
            );
            assert_prefix(&new);
            seen += 1;
            record = Some(new);
            world.pass(to);
            world.roll(round);
            world.later(1);
        }
        assert!(seen > 10, "{from} to {to}: only {seen} moments");
    }
}

#[test]
fn what_the_server_refuses_is_tried_again_for_as_long_as_the_policy_says() {
    let mut world = World::new();
    world.run_to_end(OLD);
    let input = world.input(NEW);
    let (update, _report) = plan(&input);
    let policy = Policy { deadline: SignedDuration::from_secs(300), ..Policy::default() };
    let service = |name: &str| key(Kind::Service, name);
    let at = |seconds: i64, object: &ObjectKey| {
        let now = world.now + SignedDuration::from_secs(seconds);
        Refused { object: object.clone(), why: "no".to_owned(), since: now, last: now }
    };
    let course = |refused: &Refused, policy: &Policy, no_way_back: Option<NoWayBack>, returning: bool| {
        let asked = Asked {
            policy,
            request: None,
            record: None,
            no_way_back,
            blocked: None,
            refused: Some(refused),
            returning,
            now: refused.last,
        };
        decide(&update, &input.snapshot, &asked).course
    };
    // Refused every hundred seconds.
    let until = |last: i64| {
        (1..=last / 100).fold(at(0, &service("a")), |known, n| at(n * 100, &service("a")).again(Some(&known)))
    };
    assert_eq!(course(&until(200), &policy, None, false), Course::Forward);
    let failure = Failure::WriteRefused { object: service("a"), seconds: 300, why: "no".to_owned() };
    assert_eq!(course(&until(300), &policy, None, false), Course::Back(failure));
    assert_eq!(course(&until(300), &policy, None, true), Course::Forward, "nothing leads back from the way back");
    // What is held is not tried, and would never be found mended.
    let forbids = Policy { goes_back: false, ..policy.clone() };
    assert_eq!(course(&until(300), &forbids, None, false), Course::Forward);
    assert_eq!(course(&until(300), &policy, Some(NoWayBack::Unknown), false), Course::Forward);
    let another = at(300, &service("b")).again(Some(&until(200)));
    assert_eq!(course(&another, &policy, None, false), Course::Forward, "the other one was mended");
    let later = at(900, &service("a")).again(Some(&until(200)));
    assert_eq!(course(&later, &policy, None, false), Course::Forward, "meanwhile nothing was refused");
}

#[test]
fn another_object_that_is_refused_is_news_and_other_words_are_not() {
    let told = |name: &str, why: &str| {
        let object = key(Kind::Service, name);
        let why = format!("{object} was refused by the server: {why}");
        let now = World::new().now;
        record::refused(UpgradePlanStatus::default(), &Refused { object, why, since: now, last: now })
    };
    assert!(record::is_news(&told("a", "x: y"), &told("b", "x: y")));
    assert!(!record::is_news(&told("a", "x: y"), &told("a", "z: y")));
    assert_eq!(told("a", "x").message.as_deref(), Some("Service kubevirt/a was refused by the server: x"));
}
