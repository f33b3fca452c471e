use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::testing::{Fault, TinyApi};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kubevirt/leases/virt-operator";

fn clock(start: &str) -> Clock {
    Clock::anchored(start.parse::<Timestamp>().unwrap())
}

fn stand(api: &TinyApi, who: &str, clock: Clock) -> Election {
    let config = LeaseConfig { namespace: "kubevirt".into(), name: "virt-operator".into(), identity: who.into() };
    Election::start(config, api.client(who, "kubevirt"), clock, 7)
}

fn contend(api: &TinyApi, who: &str) -> Election {
    stand(api, who, clock("2026-01-01T00:00:00Z"))
}

async fn until(election: &Election, wanted: impl Fn(&Claim) -> bool) -> Claim {
    election.claim().wait_for(|claim| wanted(claim)).await.unwrap().clone()
}

fn writes(api: &TinyApi, who: &str) -> usize {
    api.seen().iter().filter(|request| request.who == who && request.is_write()).count()
}

fn requests(api: &TinyApi, who: &str) -> usize {
    api.seen().iter().filter(|request| request.who == who).count()
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_at_once_and_the_second_only_watches() {
    let api = TinyApi::new();
    let begin = tokio::time::Instant::now();
    let a = contend(&api, "a");
    assert_eq!(until(&a, Claim::leads).await, Claim::Leader { generation: 1 });
    assert_eq!(begin.elapsed(), Duration::ZERO, "nobody waits for a lease that does not exist");
    let b = contend(&api, "b");
    assert_eq!(
        until(&b, |claim| *claim != Claim::Standby { holder: None }).await,
        Claim::Standby { holder: Some("a".into()) }
    );
    assert_eq!(a.fence().check(), Ok(1));
    assert_eq!(b.fence().check(), Err(NotLeader::Standby));
    api.until(|api| api.seen().iter().any(|request| request.who == "b" && request.watch)).await;

    let (before_a, before_b) = (writes(&api, "a"), requests(&api, "b"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let per_minute = writes(&api, "a") - before_a;
    assert!((11..=12).contains(&per_minute), "the leader wrote {per_minute} times in a minute");
    assert_eq!(requests(&api, "b") - before_b, 0, "a standby with an open watch asks nothing");
    assert_eq!(writes(&api, "b"), 0);
    assert_eq!(a.fence().check(), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_crashed_leader_is_followed_after_its_lease_and_never_before() {
    let api = TinyApi::new();
    let a = contend(&api, "a");
    until(&a, Claim::leads).await;
    let b = contend(&api, "b");
    until(&b, |claim| matches!(claim, Claim::Standby { holder: Some(_) })).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let fence = a.fence();
    let last_write = tokio::time::Instant::now() - Duration::from_secs(2);
    drop(a);
    assert_eq!(until(&b, Claim::leads).await, Claim::Leader { generation: 2 });
    let after = last_write.elapsed();
    assert!(after >= LEASE_DURATION && after < LEASE_DURATION + Duration::from_secs(1), "taken over after {after:?}");
    assert!(
        matches!(fence.check(), Err(NotLeader::Overdue { late }) if late >= SAFETY_MARGIN - Duration::from_secs(1))
    );
}

#[tokio::test(start_paused = true)]
async fn release_hands_over_at_once() {
    let api = TinyApi::new();
    let a = contend(&api, "a");
    until(&a, Claim::leads).await;
    let b = contend(&api, "b");
    until(&b, |claim| matches!(claim, Claim::Standby { holder: Some(_) })).await;
    let (fence, begin) = (a.fence(), tokio::time::Instant::now());
    a.release().await;
    assert_eq!(fence.check(), Err(NotLeader::Standby));
    assert_eq!(until(&b, Claim::leads).await, Claim::Leader { generation: 2 });
    assert!(begin.elapsed() < Duration::from_millis(10));
    b.release().await;
    let lease = api.object(PATH).unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
    assert!(lease["spec"].get("holderIdentity").is_none(), "{lease}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_stopped_finds_its_fence_closed_without_its_task_running() {
    let api = TinyApi::new();
    let a = contend(&api, "a");
    until(&a, Claim::leads).await;
    // A stopped process runs no task; the test stops only the elector, which is what renews.
    let Election { fence, task, .. } = a;
    drop(task);
    tokio::time::sleep(LEASE_DURATION - SAFETY_MARGIN - Duration::from_millis(1)).await;
    assert_eq!(fence.check(), Ok(1));
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(matches!(fence.check(), Err(NotLeader::Overdue { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_from_the_api_knows_it_by_the_deadline() {
    for fault in [Fault::Hang, Fault::Status(503), Fault::LoseReply] {
        let api = TinyApi::new();
        let a = contend(&api, "a");
        until(&a, Claim::leads).await;
        let begin = tokio::time::Instant::now();
        api.set_fault(move |who, _, _| if who == "a" { fault } else { Fault::None });
        until(&a, |claim| !claim.leads()).await;
        assert!(begin.elapsed() <= LEASE_DURATION - SAFETY_MARGIN, "{fault:?}: {:?}", begin.elapsed());
        assert!(a.fence().check().is_err());
        api.set_fault(|_, _, _| Fault::None);
        assert_eq!(until(&a, Claim::leads).await, Claim::Leader { generation: 2 }, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_failed_or_lost_renewal_loses_nothing() {
    for fault in [Fault::Hang, Fault::Status(500), Fault::LoseReply] {
        let api = TinyApi::new();
        let a = contend(&api, "a");
        until(&a, Claim::leads).await;
        let count = std::sync::atomic::AtomicUsize::new(0);
        api.set_fault(move |_, method, _| {
            let first = *method == http::Method::PUT && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            if first { fault } else { Fault::None }
        });
        let mut claims = a.claim();
        claims.mark_unchanged();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!claims.has_changed().unwrap(), "{fault:?}");
        assert_eq!(a.fence().check(), Ok(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_claim_still_ends_in_one_term() {
    // Recognising its own claim takes a moment where a version was replaced, and a lease where nothing was there before.
    for (exists, limit) in [(true, LEASE_DURATION / 3), (false, LEASE_DURATION + Duration::from_secs(5))] {
        let api = TinyApi::new();
        if exists {
            let free = json!({"metadata": {"name": "virt-operator"}, "spec": {"leaseTransitions": 5}});
            api.put(PATH, free);
        }
        let count = std::sync::atomic::AtomicUsize::new(0);
        api.set_fault(move |_, method, _| {
            let first = *method != http::Method::GET && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            if first { Fault::LoseReply } else { Fault::None }
        });
        let begin = tokio::time::Instant::now();
        let a = contend(&api, "a");
        assert_eq!(until(&a, Claim::leads).await, Claim::Leader { generation: if exists { 6 } else { 1 } });
        assert!(begin.elapsed() < limit, "exists {exists}: {:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_wall_clocks_do_no_harm() {
    let api = TinyApi::new();
    let a = stand(&api, "a", clock("2001-01-01T00:00:00Z"));
    until(&a, Claim::leads).await;
    let b = stand(&api, "b", clock("2099-01-01T00:00:00Z"));
    until(&b, |claim| matches!(claim, Claim::Standby { holder: Some(_) })).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(a.claim().borrow().leads() && !b.claim().borrow().leads());
    assert_eq!(writes(&api, "b"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_deleted_under_its_holder_makes_no_second_leader() {
    let api = TinyApi::new();
    let a = contend(&api, "a");
    until(&a, Claim::leads).await;
    let b = contend(&api, "b");
    until(&b, |claim| matches!(claim, Claim::Standby { holder: Some(_) })).await;
    api.delete(PATH);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!(a.fence().check().is_ok() && b.fence().check().is_ok()));
    }
    assert_eq!(a.fence().check(), Ok(1), "the holder wrote its lease again");
    assert_eq!(api.object(PATH).unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_by_force_is_noticed_at_the_next_renewal() {
    let api = TinyApi::new();
    let a = contend(&api, "a");
    until(&a, Claim::leads).await;
    let mut lease = api.object(PATH).unwrap();
    lease["spec"]["holderIdentity"] = json!("admin");
    lease["spec"]["leaseTransitions"] = json!(9);
    let begin = tokio::time::Instant::now();
    api.put(PATH, lease);
    until(&a, |claim| !claim.leads()).await;
    assert!(begin.elapsed() <= RENEW_EVERY);
    assert!(a.fence().check().is_err());
    assert_eq!(until(&a, Claim::leads).await, Claim::Leader { generation: 10 }, "the number only grows");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_see_the_same_free_lease_one_wins() {
    for seed in 0..20 {
        let api = TinyApi::new();
        let config = |who: &str| LeaseConfig {
            namespace: "kubevirt".into(),
            name: "virt-operator".into(),
            identity: who.to_owned(),
        };
        let clock = clock("2026-01-01T00:00:00Z");
        let a = Election::start(config("a"), api.client("a", "kubevirt"), clock.clone(), seed);
        let b = Election::start(config("b"), api.client("b", "kubevirt"), clock, seed + 1);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(u8::from(a.claim().borrow().leads()) + u8::from(b.claim().borrow().leads()), 1);
        assert!(a.fence().check().is_ok() != b.fence().check().is_ok());
    }
}

/// Three candidates under random faults that change every two seconds, some of them crashing: whatever happens, never do
/// two fences let through at once, the number never falls, and when the faults end somebody leads.
#[tokio::test(start_paused = true)]
async fn under_any_faults_one_fence_at_most_is_open() {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let (mut terms, mut idle) = (0, 0);
    for seed in 0..100 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let api = TinyApi::new();
        let names = ["a", "b", "c"];
        let mut elections: Vec<Election> = names.iter().map(|who| contend(&api, who)).collect();
        let mut last = 0;
        for step in 0..1200 {
            if step % 20 == 0 {
                let faults: Vec<Fault> = names
                    .iter()
                    .map(|_| match rng.next_u32() % 10 {
                        0 | 1 => Fault::Hang,
                        2 => Fault::Status(500),
                        3 => Fault::LoseReply,
                        4 => Fault::Late(Duration::from_millis(u64::from(rng.next_u32() % 20_000))),
                        _ => Fault::None,
                    })
                    .collect();
                let writes_only = rng.next_u32() % 2 == 0;
                api.set_fault(move |who, method, _| {
                    let at = names.iter().position(|name| *name == who).unwrap();
                    if writes_only && *method == http::Method::GET { Fault::None } else { faults[at] }
                });
                // Not both in one run: a candidate that starts just after the Lease was deleted cannot know of its holder.
                if seed % 2 == 0 && rng.next_u32() % 10 == 0 {
                    let victim = (rng.next_u32() % 3) as usize;
                    elections[victim] = contend(&api, names[victim]);
                }
                if seed % 2 == 1 && rng.next_u32() % 20 == 0 {
                    api.delete(PATH);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let open: Vec<u64> = elections.iter().filter_map(|election| election.fence().check().ok()).collect();
            assert!(open.len() <= 1, "seed {seed}, step {step}: {open:?}");
            match open.first() {
                Some(generation) => {
                    assert!(*generation >= last, "seed {seed}, step {step}: {generation} after {last}");
                    terms += u64::from(*generation > last);
                    last = *generation;
                }
                None => idle += 1,
            }
        }
        api.set_fault(|_, _, _| Fault::None);
        tokio::time::sleep(Duration::from_secs(45)).await;
        assert_eq!(elections.iter().filter(|election| election.fence().check().is_ok()).count(), 1, "seed {seed}");
    }
    assert!(terms > 300 && idle > 1000, "the faults were felt: {terms} terms, {idle} moments without a leader");
}

#[test]
fn a_fence_tells_an_old_generation_from_the_present() {
    let fence = Fence::open(4);
    assert_eq!(fence.check_generation(4), Ok(()));
    assert_eq!(fence.check_generation(3), Err(NotLeader::Superseded { wanted: 3, held: 4 }));
}
