//! What holds for every world, every order of events and every moment of a crash.

use kubevirt_release::Kind;
use proptest::prelude::*;

use super::world::{World, gate, key, release};
use crate::{Mode, check, plan};

const VERSIONS: [&str; 3] = ["v0.1.0", "v0.2.0", "v0.3.0"];

/// What must hold at every instant of an update, said about the world and not about plans.
fn assert_order(world: &World, from: &str, to: &str) {
    let new = |kind, name| world.pods(kind, name).iter().any(|(version, _)| *version == to);
    let all_new = |kind, name| {
        let pods = world.pods(kind, name);
        !pods.is_empty() && pods.iter().all(|(version, _)| *version == to)
    };
    if new(Kind::Deployment, "virt-controller") {
        assert!(
            all_new(Kind::DaemonSet, "virt-handler"),
            "a new virt-controller beside an old virt-handler: {world:?}"
        );
    }
    if new(Kind::Deployment, "virt-api") {
        assert!(
            all_new(Kind::Deployment, "virt-controller"),
            "a new virt-api beside an old virt-controller: {world:?}"
        );
    }
    let brought = key(Kind::CustomResourceDefinition, &format!("{to}.kubevirt.io"));
    let is_served = all_new(Kind::Deployment, "virt-api");
    assert!(
        is_served || !world.objects.contains_key(&brought) || world.objects.contains_key(&gate()),
        "{brought} is open before a new virt-api serves it: {world:?}"
    );
    let role = &world.objects[&key(Kind::ClusterRole, "kubevirt-handler")];
    for version in world.running() {
        assert!(role.serves.contains(&version), "a pod of {version} runs without its role: {role:?}");
    }
    if world.running().contains(from) {
        let only_old = key(Kind::ConfigMap, &format!("only-{from}"));
        assert!(world.objects.contains_key(&only_old), "{only_old} was deleted under a pod that needs it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn an_update_keeps_its_order_whatever_happens_in_between(
        picks in proptest::collection::vec((0usize..16, 0usize..6, 0usize..4), 0..80)
    ) {
        let (from, to) = ("v0.1.0", "v0.2.0");
        let mut world = World::installed(from);
        world.closes = true;
        for (pick, writes, kind) in picks {
            match kind {
                // The executor is killed in the middle of a pass; the next one starts from what is there.
                0 => {
                    let input = world.input(to);
                    let (plan, _report) = plan(&input);
                    prop_assert_eq!(check::check(&plan, &input.desired), Ok(()));
                    world.carry_out(&plan, to, writes);
                }
                1 => { world.pass(to); }
                _ => world.roll(pick),
            }
            assert_order(&world, from, to);
        }
        world.run_to_end(to);
        assert_order(&world, from, to);
        prop_assert!(!world.objects.contains_key(&gate()), "what is served stays closed");
    }

    #[test]
    fn every_world_converges_and_then_nothing_is_left_to_do(
        first in 0usize..3, retargets in proptest::collection::vec((0usize..3, 0usize..25), 0..4), last in 0usize..3
    ) {
        let mut world = World::installed(VERSIONS[first]);
        world.closes = true;
        for (target, rounds) in retargets {
            for round in 0..rounds {
                world.pass(VERSIONS[target]);
                world.roll(round);
            }
        }
        world.run_to_end(VERSIONS[last]);
        let input = world.input(VERSIONS[last]);
        let (plan, report) = plan(&input);
        prop_assert!(plan.is_done());
        prop_assert_eq!(plan.mode(), Mode::Keep);
        prop_assert_eq!(plan.now().count(), 0);
        prop_assert_eq!(report.blockers().count(), 0);
        let left: Vec<_> = world.objects.keys().filter(|key| !release(VERSIONS[last]).contains(*key)).collect();
        prop_assert!(left.iter().all(|key| key.kind == Kind::CustomResourceDefinition), "left over: {:?}", left);
    }

    #[test]
    fn the_same_input_gives_the_same_plan(rounds in 0usize..30) {
        let mut world = World::installed("v0.1.0");
        for round in 0..rounds {
            world.pass("v0.2.0");
            world.roll(round);
        }
        prop_assert_eq!(plan(&world.input("v0.2.0")).0, plan(&world.input("v0.2.0")).0);
    }
}
