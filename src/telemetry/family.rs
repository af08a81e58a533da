//! Metrics as exporters see them: families of samples with labels.
//!
//! A family is built for each export, outside of the workers. All export formats are written from it, so
//! they cannot disagree. Samples are generated one at a time while they are written: a configuration with
//! thousands of outbounds has hundreds of thousands of samples.

use super::histogram::Distribution;

/// The prefix of all metric names.
pub(crate) const PREFIX: &str = "sentry_mirror";

/// All samples of one metric.
pub(crate) struct Family<'n> {
    /// The name without [`PREFIX`] and, for a counter, without `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub samples: Samples<'n>,
}

/// The labels of a sample. Names come from the code, values from the configuration or from closed sets.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// Values with their labels, generated on demand.
pub(crate) type Values<'n, T> = Box<dyn Iterator<Item = (Labels, T)> + 'n>;

pub(crate) enum Samples<'n> {
    Counter(Values<'n, u64>),
    Gauge(Values<'n, f64>),
    Histogram(Values<'n, Distribution>),
}

impl<'n> Family<'n> {
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

    #[cfg(test)]
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
