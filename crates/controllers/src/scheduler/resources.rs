//! Quantities, what pods request and what nodes have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts by resource name, in thousandths.
pub(super) type Amounts = BTreeMap<String, i128>;

/// A quantity in thousandths, rounded up; what cannot be read counts as 0.
pub fn milli(quantity: &Quantity) -> i128 {
    parse(&quantity.0).unwrap_or(0)
}

fn parse(text: &str) -> Option<i128> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (numerator, denominator): (i128, i128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        "Pi" => (1_000 << 50, 1),
        "Ei" => (1_000 << 60, 1),
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (1_000_i128.checked_mul(10_i128.checked_pow(exponent)?)?, 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let negative = whole.starts_with('-');
    let digits = format!("{}{fraction}", whole.trim_start_matches(['+', '-']));
    let value = digits.parse::<i128>().ok()?.checked_mul(numerator)?;
    let divisor = scale.checked_mul(denominator)?;
    let rounded = (value + divisor - 1) / divisor;
    Some(if negative { -rounded } else { rounded })
}

fn requests(container: &Container) -> Amounts {
    let resources = container.resources.clone().unwrap_or_default();
    // A limit without a request requests as much.
    let mut amounts: Amounts =
        resources.limits.iter().flatten().map(|(name, quantity)| (name.clone(), milli(quantity))).collect();
    amounts.extend(resources.requests.iter().flatten().map(|(name, quantity)| (name.clone(), milli(quantity))));
    amounts
}

fn add(to: &mut Amounts, from: &Amounts) {
    for (name, amount) in from {
        *to.entry(name.clone()).or_default() += amount;
    }
}

fn raise(to: &mut Amounts, from: &Amounts) {
    for (name, amount) in from {
        let known = to.entry(name.clone()).or_default();
        *known = (*known).max(*amount);
    }
}

/// What a pod needs at its peak: its containers together, or its greediest init container beside the sidecars so far.
pub(super) fn pod_requests(pod: &Pod) -> Amounts {
    let mut total = Amounts::new();
    let Some(spec) = &pod.spec else { return total };
    for container in &spec.containers {
        add(&mut total, &requests(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut with = sidecars.clone();
            add(&mut with, &own);
            raise(&mut peak, &with);
        }
    }
    add(&mut total, &sidecars);
    raise(&mut total, &peak);
    add(&mut total, &spec.overhead.iter().flatten().map(|(name, quantity)| (name.clone(), milli(quantity))).collect());
    total
}

/// What a node can give to pods.
pub(super) fn allocatable(node: &Node) -> Amounts {
    let status = node.status.as_ref();
    let amounts = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
    amounts.into_iter().flatten().map(|(name, quantity)| (name.clone(), milli(quantity))).collect()
}

/// Adds what one pod takes to what is taken.
pub(super) fn take(used: &mut Amounts, wanted: &Amounts) {
    add(used, wanted);
}

/// Which requested resources do not fit beside what is used.
pub(super) fn lacking(wanted: &Amounts, used: &Amounts, available: &Amounts) -> Vec<String> {
    wanted
        .iter()
        .filter(|(name, amount)| {
            let free = available.get(*name).copied().unwrap_or(0) - used.get(*name).copied().unwrap_or(0);
            **amount > 0 && **amount > free
        })
        .map(|(name, _)| name.clone())
        .collect()
}
