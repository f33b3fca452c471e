//! Numbers for Prometheus: counters and gauges in its text format. Nothing is collected in the background.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one process. Clones share everything.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<&'static str, Family>>>);

struct Family {
    help: &'static str,
    kind: &'static str,
    /// By rendered labels. Values are the bits of an `f64`.
    series: BTreeMap<String, Arc<AtomicU64>>,
}

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn add(&self, more: u64) {
        #[allow(clippy::cast_precision_loss, reason = "Prometheus counts in f64 as well")]
        let more = more as f64;
        let add = |bits: u64| Some((f64::from_bits(bits) + more).to_bits());
        // The closure never declines.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of this name and these labels; asked for again, the same one.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Counter {
        Counter(self.series(name, help, "counter", labels))
    }

    /// The gauge of this name and these labels; asked for again, the same one.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        Gauge(self.series(name, help, "gauge", labels))
    }

    /// Shows a counter of which nothing has been counted yet: whoever looks for it finds that it exists.
    pub fn announce_counter(&self, name: &'static str, help: &'static str) {
        self.announce(name, help, "counter");
    }

    /// Shows a gauge that has no value yet.
    pub fn announce_gauge(&self, name: &'static str, help: &'static str) {
        self.announce(name, help, "gauge");
    }

    fn announce(&self, name: &'static str, help: &'static str, kind: &'static str) {
        self.lock().entry(name).or_insert_with(|| Family { help, kind, series: BTreeMap::new() });
    }

    /// Takes back every value of a metric: what is not known any more must not be shown as it last was.
    pub fn forget(&self, name: &'static str) {
        if let Some(family) = self.lock().get_mut(name) {
            family.series.clear();
        }
    }

    /// Everything in the text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in self.lock().iter() {
            // Writing to a String does not fail.
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
            for (labels, value) in &family.series {
                let _ = writeln!(out, "{name}{labels} {}", f64::from_bits(value.load(Ordering::Relaxed)));
            }
        }
        out
    }

    fn series(
        &self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        labels: &[(&str, &str)],
    ) -> Arc<AtomicU64> {
        let mut families = self.lock();
        let family = families.entry(name).or_insert_with(|| Family { help, kind, series: BTreeMap::new() });
        debug_assert_eq!(family.kind, kind, "{name} is used as two kinds of metric");
        Arc::clone(family.series.entry(render_labels(labels)).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn render_labels(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_not_shown_until_it_is_known_again() {
        let metrics = Metrics::new();
        let lines = || metrics.render().lines().filter(|line| line.starts_with("end")).count();
        metrics.gauge("end", "When.", &[]).set(1.0);
        assert_eq!(lines(), 1);
        metrics.forget("end");
        metrics.forget("other");
        assert_eq!(lines(), 0);
        metrics.gauge("end", "When.", &[]).set(2.0);
        assert_eq!(lines(), 1);
    }

    #[test]
    fn the_text_format() {
        let metrics = Metrics::new();
        metrics.gauge("up", "Whether it is up.", &[]).set(1.0);
        for code in ["200", "503"] {
            metrics.counter("requests_total", "Requests.", &[("code", code), ("path", "/a\"b")]).add(2);
        }
        metrics.counter("requests_total", "Requests.", &[("code", "200"), ("path", "/a\"b")]).add(1);
        expect_test::expect![[r#"
            # HELP requests_total Requests.
            # TYPE requests_total counter
            requests_total{code="200",path="/a\"b"} 3
            requests_total{code="503",path="/a\"b"} 2
            # HELP up Whether it is up.
            # TYPE up gauge
            up 1
        "#]]
        .assert_eq(&metrics.render());
    }
}
