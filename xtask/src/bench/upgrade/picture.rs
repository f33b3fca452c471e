//! The picture of a change of version, from figures by their names: those of this run, or what earlier runs printed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::process;
use crate::bench::chart::{Line, Panel, Scale, svg};

pub(super) const TOOK: &str = "time of virt-handler's roll-out";
pub(super) const IDEAL: &str = "ideal time of virt-handler's roll-out";
pub(super) const REQUESTS: &str = "operator's requests for it";
pub(super) const PLAN: &str = "planner, 99 of 100";
pub(super) const JOINED: &str = "operator's most memory while nodes join (VmHWM)";
pub(super) const MEMORY: &str = "operator's most memory while it changes version (VmHWM)";

/// Between the number of nodes and what was measured on them.
const OF: &str = " nodes: ";

/// The name of a figure of a cluster.
pub(super) fn name(nodes: u32, what: &str) -> String {
    format!("{nodes}{OF}{what}")
}

/// Figures by their names.
pub(super) struct Told(BTreeMap<String, f64>);

impl FromIterator<(String, f64)> for Told {
    fn from_iter<T: IntoIterator<Item = (String, f64)>>(figures: T) -> Self {
        Self(figures.into_iter().collect())
    }
}

impl Told {
    /// What runs printed, of each the last line that is an object with figures. A later run's stand for an earlier one's.
    ///
    /// # Errors
    /// A file cannot be read, or has no such line.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut told = BTreeMap::new();
        for file in files {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            let read = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("figures")?.as_array().cloned();
            let figures = text.lines().rev().find_map(read);
            let figures = figures.with_context(|| format!("{} has no line of JSON with figures", file.display()))?;
            let figure = |figure: &Value| Some((figure["name"].as_str()?.to_owned(), figure["value"].as_f64()?));
            told.extend(figures.iter().filter_map(figure));
        }
        Ok(Self(told))
    }

    fn points(&self, what: &str) -> Result<Vec<(f64, f64)>> {
        let point = |(name, value): (&String, &f64)| {
            let (nodes, of) = name.split_once(OF)?;
            Some((nodes.parse::<f64>().ok().filter(|_| of == what)?, *value))
        };
        let mut points: Vec<(f64, f64)> = self.0.iter().filter_map(point).collect();
        points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        ensure!(!points.is_empty(), "nobody measured: {what}");
        Ok(points)
    }

    /// Draws them.
    ///
    /// # Errors
    /// A figure is missing at every size.
    pub(super) fn draw(&self, caption: &str) -> Result<String> {
        let label = "simulated nodes and time";
        let line = |name, what| Ok::<_, anyhow::Error>(Line { name, points: self.points(what)? });
        let panel =
            |title, label, axis, lines, bounds| Panel { title, label, axis, scale: Scale::Linear, lines, bounds };
        let panels = [
            panel(
                "Time of virt-handler's roll-out",
                label,
                "seconds",
                vec![line("taken", TOOK)?, line("ideal", IDEAL)?],
                Vec::new(),
            ),
            panel(
                "The operator's requests for a change of version",
                label,
                "requests",
                vec![line("", REQUESTS)?],
                Vec::new(),
            ),
            panel(
                "The planner, 99 of 100 plans",
                "time of this machine, at 13 moments of a roll-out",
                "milliseconds",
                vec![line("", PLAN)?],
                vec![(super::PLANNER, "goal")],
            ),
            panel(
                "The operator's memory, most ever (VmHWM)",
                "as a process, over HTTPS; the nodes are simulated",
                "megabytes",
                vec![line("while it changes version", MEMORY)?, line("while nodes join", JOINED)?],
                vec![(process::MOST, "goal on 5,000 nodes")],
            ),
        ];
        Ok(svg("virt-operator: what a change of version costs", &panels, caption))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_the_size_of_the_cluster() {
        let figures =
            [("1000", 2.0), ("3", 1.0), ("100", 1.5)].map(|(nodes, value)| (format!("{nodes}{OF}{PLAN}"), value));
        let told: Told = figures.into_iter().chain([(name(3, TOOK), 9.0)]).collect();
        assert_eq!(told.points(PLAN).expect("points"), [(3.0, 1.0), (100.0, 1.5), (1000.0, 2.0)]);
        assert_eq!(told.points(MEMORY).expect_err("none").to_string(), format!("nobody measured: {MEMORY}"));
        assert!(told.draw("").is_err(), "a picture without one of its lines");
    }

    #[test]
    fn what_runs_printed_is_read_and_later_runs_win() {
        let directory = std::env::temp_dir().join(format!("xtask-told-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let write = |file: &str, text: &str| {
            let path = directory.join(file);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let line = |value: f64| format!(r#"{{"figures":[{{"name":"3 nodes: {PLAN}","value":{value}}}]}}"#);
        let first = write("first", &format!("$ a command\n{}\nerror: something\n", line(1.0)));
        let second = write("second", &line(2.0));
        let told = Told::read(&[first.clone(), second]).expect("figures");
        assert_eq!(told.points(PLAN).expect("points"), [(3.0, 2.0)]);
        let nothing = write("nothing", "{}\n");
        let refused = Told::read(&[first, nothing]).err().expect("refused").to_string();
        std::fs::remove_dir_all(&directory).expect("removed");
        assert!(refused.contains("no line of JSON with figures"), "{refused}");
    }
}
