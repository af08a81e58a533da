//! Metrics as those see them who collect them: families of samples with labels.
//!
//! This is made anew for every look at the numbers, away from the workers. Both forms in which metrics
//! leave the process are made from it, so that they cannot disagree.

use super::histogram::Distribution;

/// What begins the name of every metric.
pub const PREFIX: &str = "sentry_mirror";

/// Metrics of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The name without [`PREFIX`] and, for a counter, without `_total`.
    pub name: &'static str,
    /// What it means, in one sentence.
    pub help: &'static str,
    /// The values, of one kind.
    pub samples: Samples,
}

/// The labels of a sample: names from the code, values from the configuration or closed sets.
pub type Labels = Vec<(&'static str, String)>;

/// The values of a family, by their labels.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Numbers that only grow.
    Counter(Vec<(Labels, u64)>),
    /// Numbers that go up and down.
    Gauge(Vec<(Labels, f64)>),
    /// How long things took.
    Histogram(Vec<(Labels, Distribution)>),
}

impl Family {
    /// A counter.
    pub fn counter(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> Family {
        let samples = Samples::Counter(samples.into_iter().collect());
        Family {
            name,
            help,
            samples,
        }
    }

    /// A gauge.
    pub fn gauge(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> Family {
        let samples = Samples::Gauge(samples.into_iter().collect());
        Family {
            name,
            help,
            samples,
        }
    }

    /// A histogram of durations.
    pub fn histogram(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, Distribution)>,
    ) -> Family {
        let samples = Samples::Histogram(samples.into_iter().collect());
        Family {
            name,
            help,
            samples,
        }
    }
}
