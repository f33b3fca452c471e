use expect_test::expect;

use super::*;

#[test]
fn a_seed_is_a_plan_and_a_number_is_a_fault() {
    let scope = |faults| Scope { users: Vec::new(), faults, horizon: 40 };
    let plan = FaultPlan::draw(7, scope(6));
    expect![[r#"
        plan of seed 7: 6 faults
          #1   F4   withheld-events(24s)         from watch event 38   2 times
          #2   F2   duplicated-retry             from write 21   once
          #3   F2   lost-reply                   from committed write 9    once
          #4   F8   clock-skew(-275s)            from request 21   13 times
          #5   F3   stale-replica(2 revisions)   from read 34   once
          #6   F8   clock-skew(-165s)            from request 12   10 times"#]]
    .assert_eq(&plan.to_string());
    assert_eq!(plan.faults, FaultPlan::draw(7, scope(6)).faults);
    assert_eq!(plan.faults, FaultPlan::draw(7, scope(9)).faults[..6], "a longer plan begins alike");
    assert_ne!(plan.faults, FaultPlan::draw(8, scope(6)).faults);
    let fourth = FaultPlan::draw(7, scope(6)).only(4);
    assert_eq!(fourth.faults, plan.faults[3..4]);
}

#[test]
fn every_class_is_drawn() {
    let plan = FaultPlan::draw(1, Scope { users: Vec::new(), faults: 400, horizon: 40 });
    let mut names: Vec<String> = plan
        .faults
        .iter()
        .map(|fault| {
            let text = fault.what.to_string();
            format!("{} {}", fault.what.class(), text.split('(').next().unwrap_or_default())
        })
        .collect();
    names.sort();
    names.dedup();
    expect![[r#"
        F15 backend-down
        F2 duplicated-retry
        F2 lost-reply
        F3 stale-replica
        F4 withheld-events
        F5 bookmarks-only
        F5 closed-watch
        F5 gone-watch
        F5 other-order
        F6 conflicts
        F6 late-reply
        F6 latency
        F6 partial-pages
        F6 refusals
        F8 clock-skew
        F8 slow-timers"#]]
    .assert_eq(&names.join("\n"));
    for fault in &plan.faults {
        assert!((1..=40).contains(&fault.first) && fault.times >= 1, "{fault}");
    }
}
