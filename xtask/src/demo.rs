//! The main job from start to end: install a release, install a newer operator while the custom resource pins the old
//! version, reference the new version, watch the suite change; then a release that does not work, and one that does. All
//! the while somebody asks the suite. Real `kubectl` against nanokube; simulated nodes.

mod back;
mod budget;
mod keep;
mod kubectl;
mod probe;
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{audit, paths, release, setup, term};
use budget::{Budget, Spent};
use kubectl::Kubectl;
use probe::{Answers, Probe};
use server::Server;
pub(crate) use server::programs;

const OLD: &str = "v0.1.0";
const NEW: &str = "v0.2.0";
/// The release that mends the one that does not work.
const NEXT: &str = "v0.3.0";
/// A simulated pod takes about 2 s from creation to Ready, a step a handful of them: a minute means that something hangs.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// The suite's workloads in the order in which an upgrade must change them (the words: handler, controller, api).
const ORDER: [&str; 3] = ["virt-handler", "virt-controller", "virt-api"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Simulated nodes
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// Seed of everything the simulation draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The nodes are a program of their own that reaches the server over HTTPS
    #[arg(long)]
    remote_nodes: bool,
    /// Pods are real processes: v0.1.0 of this checkout's debug build, what comes after it of the build that images hold
    #[arg(long)]
    process: bool,
    /// Fail where the upgrade takes longer than it may beyond what its pods need, instead of only saying so
    #[arg(long, requires = "process")]
    hold_to_goal: bool,
}

/// What the demo measured; its JSON is the last line of the output.
struct Figures {
    install: Duration,
    upgrade: Duration,
    /// Where the time of the upgrade went.
    spent: Vec<Spent>,
    rollback: Duration,
    next_upgrade: Duration,
    answers: Answers,
    operator_requests: usize,
    upgrade_requests: usize,
    order: Vec<String>,
    repair: Duration,
    idle_writes: usize,
    uninstall: Duration,
}

/// Runs the demo.
///
/// # Errors
/// A prerequisite is missing, or the product did not do what the demo says.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run()?;
    term::heading("Build");
    term::command("cargo build --package nanokube-cli --package virtctl");
    let status = paths::cargo().args(["build", "--package", "nanokube-cli", "--package", "virtctl"]).status()?;
    ensure!(status.success(), "the build failed");

    let scratch = paths::target()?.join("demo");
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).with_context(|| format!("empty {}", scratch.display()))?;
    }
    let dist = scratch.join("dist");
    std::fs::create_dir_all(&dist).with_context(|| format!("create {}", dist.display()))?;

    let kind = if options.process { "process" } else { "simulated" };
    term::heading(&format!("A Kubernetes API with {} {kind} nodes", options.nodes));
    let server = Server::start(&scratch, options)?;
    let kubectl = Kubectl::new(&server.kubeconfig);
    kubectl.show(&["get", "nodes"])?;

    term::note(if options.process {
        "v0.1.0 runs programs of the debug build, what comes after it those of the build that images hold"
    } else {
        "simulated nodes run the code of this build for every release: what differs is what the release renders"
    });
    publish(&dist, OLD)?;
    let install = install(&kubectl, &server, &dist)?;
    let operator_requests = audit::read(&server.audit_log)?.iter().filter(|entry| entry.by_operator()).count();
    pin_and_replace_operator(&kubectl, &dist)?;
    let probe = Probe::start(&server.kubeconfig);
    let budget = Budget::start(&server.kubeconfig)?;
    let asked = Instant::now();
    let Upgraded { took: upgrade, order, requests: upgrade_requests } = upgrade(&kubectl, &server, NEW)?;
    let spent = budget.spent(NEW, asked);
    drop(budget);
    shown(&spent, options.hold_to_goal)?;
    let rollback = back::undone(&kubectl, &dist)?;
    let next_upgrade = next(&kubectl, &server, &dist)?;
    let answers = answered(probe)?;
    let repair = keep::repair(&kubectl)?;
    let idle_writes = keep::idle(&server)?;
    let uninstall = keep::uninstall(&kubectl)?;

    report(
        options,
        &Figures {
            install,
            upgrade,
            spent,
            rollback,
            next_upgrade,
            answers,
            operator_requests,
            upgrade_requests,
            order,
            repair,
            idle_writes,
            uninstall,
        },
    )
}

fn publish(dist: &Path, version: &str) -> Result<()> {
    term::heading(&format!("Release {version} is published"));
    term::command(&format!("cargo xtask release --version {version} --out {} --manifests-only", dist.display()));
    let written = release::write(&release::Options::manifests_only(version, dist))?;
    term::output(&written.join("\n"));
    Ok(())
}

/// Reads `latest`, applies the operator and the custom resource, and waits until the suite is there.
fn install(kubectl: &Kubectl, server: &Server, dist: &Path) -> Result<Duration> {
    term::heading("Install, step one: the operator");
    let latest = dist.join("latest");
    term::command(&format!("RELEASE=$(cat {})", latest.display()));
    let release = std::fs::read_to_string(&latest).with_context(|| format!("read {}", latest.display()))?;
    let release = release.trim();
    term::output(release);
    kubectl.apply(&dist.join(release).join("kubevirt-operator.yaml"))?;
    kubectl.wait(&["deployment/virt-operator", "--for=condition=Available"], "virt-operator becomes available")?;
    kubectl.show_pods()?;

    let writes: Vec<_> =
        audit::read(&server.audit_log)?.into_iter().filter(|entry| entry.by_operator() && entry.is_write()).collect();
    let others = writes.iter().filter(|entry| entry.object_ref.resource != "leases").count();
    check(
        others == 0,
        &format!(
            "without a KubeVirt custom resource the operator wrote nothing but its lease (writes of the lease: {})",
            writes.len()
        ),
    )?;

    term::heading("Install, step two: the custom resource");
    let started = Instant::now();
    kubectl.apply(&dist.join(release).join("kubevirt-cr.yaml"))?;
    kubectl.wait(&["kubevirt/kubevirt", "--for=condition=Available"], "the suite is installed")?;
    let took = started.elapsed();
    kubectl.show_pods()?;
    kubectl.show(&["get", "kubevirt", "-n", "kubevirt"])?;
    check(true, &format!("installed {release} in {:.1} s", took.as_secs_f64()))?;
    Ok(took)
}

/// A newer operator must not move anything while the custom resource names the old version.
fn pin_and_replace_operator(kubectl: &Kubectl, dist: &Path) -> Result<()> {
    term::heading("The custom resource pins the version that runs");
    kubectl.patch_tag(OLD)?;
    kubectl.wait_for_version("observedKubeVirtVersion", OLD, "the pin is observed")?;
    let before = suite(kubectl)?;

    publish(dist, NEW)?;
    term::heading("The newer operator is installed");
    kubectl.apply(&dist.join(NEW).join("kubevirt-operator.yaml"))?;
    kubectl.rollout("deployment/virt-operator")?;
    kubectl.wait_for_version("operatorVersion", NEW, "the new operator takes over")?;
    kubectl.show_pods()?;
    let after = suite(kubectl)?;
    check(
        before == after,
        &format!("the new operator reconciles, the suite stays at {OLD}: {} pods, none moved", after.len()),
    )
}

/// After a release that did not work comes one that does.
fn next(kubectl: &Kubectl, server: &Server, dist: &Path) -> Result<Duration> {
    publish(dist, NEXT)?;
    term::heading(&format!("The operator of {NEXT} is installed"));
    kubectl.apply(&dist.join(NEXT).join("kubevirt-operator.yaml"))?;
    kubectl.rollout("deployment/virt-operator")?;
    kubectl.wait_for_version("operatorVersion", NEXT, "the operator of the next release takes over")?;
    let Upgraded { took, .. } = upgrade(kubectl, server, NEXT)?;
    kubectl.show(&["get", "upgradeplans"])?;
    Ok(took)
}

/// Whoever asked the suite meanwhile was always answered.
fn answered(probe: Probe) -> Result<Answers> {
    let answers = probe.stop()?;
    for why in &answers.failed {
        term::note(why);
    }
    let Answers { asked, failed, longest_gap } = &answers;
    check(
        *asked > 0 && failed.is_empty(),
        &format!(
            "somebody asked virt-api's aggregated API and its webhooks {asked} times since the first change began: {} \
             questions failed, the longest time without an answer was {} ms",
            failed.len(),
            longest_gap.as_millis()
        ),
    )?;
    Ok(answers)
}

/// How a change of version went.
struct Upgraded {
    took: Duration,
    /// The workloads in the order in which the operator first wrote them.
    order: Vec<String>,
    /// Of the operator, from the patch on.
    requests: usize,
}

/// References a version and waits for the end, showing each step of the way.
fn upgrade(kubectl: &Kubectl, server: &Server, to: &str) -> Result<Upgraded> {
    term::heading(&format!("Upgrade: the custom resource references {to}"));
    let entries_before = audit::read(&server.audit_log)?.len();
    let started = Instant::now();
    kubectl.patch_tag(to)?;
    kubectl.wait_until_upgraded(to, STEP_TIMEOUT)?;
    let took = started.elapsed();
    kubectl.show_pods()?;

    let entries = audit::read(&server.audit_log)?;
    let order = audit::workload_order(&entries[entries_before..]);
    let requests = entries[entries_before..].iter().filter(|entry| entry.by_operator()).count();
    check(order == ORDER, &format!("the audit log shows the order {}", order.join(", ")))?;
    let versions = kubectl.suite_versions()?;
    let all_new = !versions.is_empty() && versions.values().all(|version| version == to);
    check(all_new, &format!("{} pods of the suite, all at {to}, after {:.1} s", versions.len(), took.as_secs_f64()))?;
    Ok(Upgraded { took, order, requests })
}

/// Name and uid of every pod of the suite (the operator's own aside).
fn suite(kubectl: &Kubectl) -> Result<BTreeMap<String, String>> {
    let pods = kubectl.json(&["get", "pods", "-n", "kubevirt"])?;
    let mut found = BTreeMap::new();
    for pod in pods["items"].as_array().context("kubectl printed no list of pods")? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if !name.starts_with("virt-operator-") {
            found.insert(name.to_owned(), pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(found)
}

fn check(good: bool, what: &str) -> Result<()> {
    term::verdict(good, what);
    if good { Ok(()) } else { bail!("not as promised: {what}") }
}

fn overhead(spent: &[Spent]) -> f64 {
    spent.iter().map(Spent::overhead).sum()
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

/// The wait budget: what each step of the upgrade took, and how much of it its pods needed.
fn shown(spent: &[Spent], hold_to_goal: bool) -> Result<()> {
    check(spent.len() >= ORDER.len(), &format!("the upgrade told of {} steps", spent.len()))?;
    let row = |step: &str, wall: f64, critical: f64| {
        vec![step.to_owned(), format!("{wall:.2} s"), format!("{critical:.2} s"), format!("{:.2} s", wall - critical)]
    };
    let mut rows: Vec<Vec<String>> = spent.iter().map(|it| row(&it.step, it.wall, it.critical)).collect();
    let sum = |of: fn(&Spent) -> f64| spent.iter().map(of).sum::<f64>();
    rows.push(row("together", sum(|it| it.wall), sum(|it| it.critical)));
    term::table(&["STEP", "TIME", "PODS END AND COME UP", "BEYOND THAT"], &rows);
    let total = overhead(spent);
    let verdict = if total <= budget::GOAL { "met" } else { "missed" };
    term::note(&format!(
        "beyond what the pods need the upgrade took {total:.2} s; the goal, {} s on process nodes of a machine that has nothing else \
         to do, is {verdict}",
        budget::GOAL
    ));
    ensure!(
        !hold_to_goal || total <= budget::GOAL,
        "beyond what its pods need the upgrade took {total:.2} s, {} s are the goal",
        budget::GOAL
    );
    Ok(())
}

fn report(options: &Options, figures: &Figures) -> Result<()> {
    let Figures {
        install,
        upgrade,
        spent,
        rollback,
        next_upgrade,
        answers,
        operator_requests,
        upgrade_requests,
        order,
        repair,
        idle_writes,
        uninstall,
    } = figures;
    let Answers { asked, failed, longest_gap } = answers;
    term::heading(if options.process {
        "Measured (process nodes: the pods are real processes on this machine)"
    } else {
        "Measured (simulated nodes: a pod takes a seeded 2 s from creation to Ready)"
    });
    let seconds = |time: &Duration| (time.as_secs_f64() * 100.0).round() / 100.0;
    term::table(
        &["FIGURE", "VALUE"],
        &[
            vec!["custom resource applied to Available".into(), format!("{:.2} s", seconds(install))],
            vec!["imageTag patched to upgraded".into(), format!("{:.2} s", seconds(upgrade))],
            vec![
                format!("the same beyond what its pods need, {} s are the goal", budget::GOAL),
                format!("{:.2} s", overhead(spent)),
            ],
            vec!["bad release asked for to undone".into(), format!("{:.2} s", seconds(rollback))],
            vec!["the next release asked for to upgraded".into(), format!("{:.2} s", seconds(next_upgrade))],
            vec!["questions to the suite meanwhile, failed".into(), format!("{asked}, {}", failed.len())],
            vec!["longest time without an answer".into(), format!("{} ms", longest_gap.as_millis())],
            vec!["requests of the operator until installed".into(), operator_requests.to_string()],
            vec!["requests of the operator for the upgrade".into(), upgrade_requests.to_string()],
            vec!["order of the upgrade".into(), order.join(", ")],
            vec!["slowest of three repairs".into(), format!("{:.2} s", seconds(repair))],
            vec!["writes of the idle operator, lease aside".into(), idle_writes.to_string()],
            vec!["custom resource deleted to gone".into(), format!("{:.2} s", seconds(uninstall))],
        ],
    );
    let line: Value = json!({
        "install_seconds": seconds(install),
        "upgrade_seconds": seconds(upgrade),
        "upgrade_overhead_seconds": rounded(overhead(spent)),
        "upgrade_steps": spent.iter().map(|step| json!({
            "step": step.step, "seconds": rounded(step.wall), "critical_seconds": rounded(step.critical),
            "overhead_seconds": rounded(step.overhead()),
        })).collect::<Vec<_>>(),
        "rollback_seconds": seconds(rollback),
        "next_upgrade_seconds": seconds(next_upgrade),
        "probe_requests": asked,
        "failed_probe_requests": failed.len(),
        "longest_probe_gap_ms": u64::try_from(longest_gap.as_millis()).unwrap_or(u64::MAX),
        "operator_requests": operator_requests,
        "upgrade_requests": upgrade_requests,
        "order": order,
        "repair_seconds": seconds(repair),
        "idle_writes": idle_writes,
        "uninstall_seconds": seconds(uninstall),
        "nodes": options.nodes,
        "seed": options.seed,
        "label": if options.process { "process" } else { "simulated" },
    });
    println!("\n{line}");
    Ok(())
}
