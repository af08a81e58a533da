//! The samples of `/metrics`, by name and labels.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Process};

/// All samples of one scrape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Parses the text format of Prometheus.
    pub(crate) fn parse(text: &str) -> Metrics {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Metrics(samples.collect())
    }

    /// The value of a sample; panics without one.
    pub(crate) fn value(&self, sample: &str) -> f64 {
        *self
            .0
            .get(sample)
            .unwrap_or_else(|| panic!("no {sample} in {:#?}", self.0.keys()))
    }

    /// The samples of a family whose labels include all of `labels`.
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

    /// The samples of a family that have changed since `earlier`, with the differences.
    pub(crate) fn moved(&self, earlier: &Metrics, name: &str) -> Vec<(&str, f64)> {
        let all = self.all(name, &[]).into_iter();
        let differences = all.map(|(sample, value)| (sample, value - earlier.value(sample)));
        differences.filter(|(_, by)| *by != 0.0).collect()
    }
}

impl Process {
    /// Scrapes `/metrics`.
    pub(crate) fn metrics(&self) -> Metrics {
        let page = self.page("/metrics");
        assert_eq!(page.status, 200);
        Metrics::parse(page.text())
    }

    /// Scrapes until `is_right`.
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
