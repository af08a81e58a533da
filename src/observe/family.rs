//! Metrics as those see them who collect them: families of samples with labels.
//!
//! This is made anew for every look at the numbers, away from the workers. Both forms in which metrics
//! leave the process are made from it, so that they cannot disagree. Samples are made one at a time when
//! they are written: a configuration with thousands of outbounds has hundreds of thousands of them.

use super::histogram::Distribution;

/// What begins the name of every metric.
pub(crate) const PREFIX: &str = "sentry_mirror";

/// Metrics of one name.
pub(crate) struct Family<'n> {
    /// The name without [`PREFIX`] and, for a counter, without `_total`.
    pub name: &'static str,
    /// What it means, in one sentence.
    pub help: &'static str,
    /// The values, of one kind.
    pub samples: Samples<'n>,
}

/// The labels of a sample: names from the code, values from the configuration or closed sets.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// Values of one kind with their labels, made when they are asked for.
pub(crate) type Values<'n, T> = Box<dyn Iterator<Item = (Labels, T)> + 'n>;

/// The values of a family, by their labels.
pub(crate) enum Samples<'n> {
    /// Numbers that only grow.
    Counter(Values<'n, u64>),
    /// Numbers that go up and down.
    Gauge(Values<'n, f64>),
    /// How long things took.
    Histogram(Values<'n, Distribution>),
}

impl<'n> Family<'n> {
    /// A counter.
    pub(crate) fn counter(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64), IntoIter: 'n>,
    ) -> Family<'n> {
        Family {
            name,
            help,
            samples: Samples::Counter(Box::new(samples.into_iter())),
        }
    }

    /// A gauge.
    pub(crate) fn gauge(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64), IntoIter: 'n>,
    ) -> Family<'n> {
        Family {
            name,
            help,
            samples: Samples::Gauge(Box::new(samples.into_iter())),
        }
    }

    /// A histogram of durations.
    pub(crate) fn histogram(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, Distribution), IntoIter: 'n>,
    ) -> Family<'n> {
        Family {
            name,
            help,
            samples: Samples::Histogram(Box::new(samples.into_iter())),
        }
    }
}
