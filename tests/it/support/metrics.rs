//! What `/metrics` says, as numbers by the name and labels they stand behind.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Process};

/// All samples of one look.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text that Prometheus would get.
    pub(crate) fn parse(text: &str) -> Metrics {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Metrics(samples.collect())
    }

    /// The value of a sample, which has to be there.
    pub(crate) fn of(&self, sample: &str) -> f64 {
        *self
            .0
            .get(sample)
            .unwrap_or_else(|| panic!("no {sample} in {:#?}", self.0.keys()))
    }

    /// The samples whose name begins so and whose labels hold all of `labels`.
    pub(crate) fn all(&self, name: &str, labels: &[&str]) -> Vec<(&str, f64)> {
        let samples = self.0.iter();
        let meant = samples.filter(|(sample, _)| {
            let (family, rest) = sample.split_once('{').unwrap_or((sample, ""));
            family == name && labels.iter().all(|label| rest.contains(label))
        });
        meant
            .map(|(sample, value)| (sample.as_str(), *value))
            .collect()
    }

    /// Their sum.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let all = self.all(name, labels);
        assert!(!all.is_empty(), "no {name} with {labels:?}");
        all.iter().map(|(_, value)| value).sum()
    }

    /// The samples of a family that have moved since `earlier`, and by how much.
    pub(crate) fn moved(&self, earlier: &Metrics, name: &str) -> Vec<(&str, f64)> {
        let all = self.all(name, &[]).into_iter();
        let differences = all.map(|(sample, value)| (sample, value - earlier.of(sample)));
        differences.filter(|(_, by)| *by != 0.0).collect()
    }
}

impl Process {
    /// What `/metrics` says now.
    pub(crate) fn metrics(&self) -> Metrics {
        let page = self.page("/metrics");
        assert_eq!(page.status, 200);
        Metrics::parse(page.text())
    }

    /// Looks until what it sees is as `is_right` wants it.
    pub(crate) fn wait_for_metrics(&self, is_right: impl Fn(&Metrics) -> bool) -> Metrics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics();
            if is_right(&metrics) {
                return metrics;
            }
            assert!(Instant::now() < deadline, "not in time: {metrics:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
