//! Readiness by certificate: looked at when somebody asks, told when it changes.

use kubevirt_runtime::health::{Health, Probe, Reason};
use kubevirt_runtime::metrics::Metrics;
use kubevirt_runtime::tls::{Certificate, Invalid};
use tokio::sync::watch;

/// Makes readiness depend on the certificate. What is wrong with it shows in the channel whenever a probe finds a change;
/// it is looked at once now, so that nobody has to probe first.
pub(crate) fn register(
    certificate: Certificate,
    health: &Health,
    metrics: &Metrics,
) -> watch::Receiver<Option<Invalid>> {
    let valid_until = metrics.gauge(
        "kubevirt_component_certificate_valid_until_seconds",
        "Until when the serving certificate may be served, as a Unix time; 0 when it may not.",
        &[],
    );
    let (sender, receiver) = watch::channel(None);
    let look = move || {
        let state = certificate.state();
        #[allow(clippy::cast_precision_loss, reason = "seconds are exact in f64 for 285 million years")]
        valid_until.set(state.as_ref().map_or(0.0, |validity| validity.until.as_second() as f64));
        let problem = state.err();
        sender.send_if_modified(|known| {
            let changed = !same(known.as_ref(), problem.as_ref());
            if changed {
                known.clone_from(&problem);
            }
            changed
        });
        problem.map_or(Ok(()), |problem| Err(Reason::new(problem.code(), problem.to_string())))
    };
    // The result is in the channel.
    let _ = look();
    health.check(Probe::Ready, "certificate", look);
    receiver
}

/// Whether two findings are the same trouble, whenever they were made.
pub(crate) fn same(a: Option<&Invalid>, b: Option<&Invalid>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.is_same_trouble(b),
        (None, Some(_)) | (Some(_), None) => false,
    }
}
