use expect_test::expect;

use super::*;

#[test]
fn a_seed_is_a_plan_and_a_number_is_a_fault() {
    let scope = |faults| Scope { users: Vec::new(), faults, horizon: 40 };
    let plan = FaultPlan::draw(7, scope(6));
    expect![[r#""#]].assert_eq(&plan.to_string());
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
    expect![[r#""#]].assert_eq(&names.join("\n"));
    for fault in &plan.faults {
        assert!((1..=40).contains(&fault.first) && fault.times >= 1, "{fault}");
    }
}
