//! The statsd protocol with the tags of DogStatsD.
//!
//! Workers already aggregate, so a counter is sent as its increase since the last push. A histogram is one
//! line for each bucket that is not empty, with a sample rate that encodes the count: ten requests of
//! about 3 ms are `…:0.00375|d|@0.1`.

use std::fmt::Write;
use std::io;

use super::family::{Family, Labels, Samples};
use super::histogram::{BOUNDS_US, Distribution};

/// The prefix of all metric names. getsentry/sentry-mirror has the same.
pub(crate) const PREFIX: &str = "sentrymirror";

/// The maximum size of a datagram, so that it fits into one packet on usual networks.
const DATAGRAM_BYTES_MAX: usize = 1400;

/// Encodes metrics as datagrams.
pub(crate) struct Statsd {
    /// `,name:value` for each tag of all metrics.
    common_tags: String,
}

impl Statsd {
    /// `tags` are added to all metrics.
    pub(crate) fn new<'t>(tags: impl Iterator<Item = (&'t str, &'t str)>) -> Statsd {
        let mut common_tags = String::new();
        for (name, value) in tags {
            push_tag(&mut common_tags, name, value);
        }
        Statsd { common_tags }
    }

    /// Sends `families`, whose counters and histograms hold the increase since the last push.
    ///
    /// # Errors
    /// The first error of `send`, after which nothing more is sent.
    pub(crate) fn send<'n>(
        &self,
        families: impl IntoIterator<Item = Family<'n>>,
        send: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut datagrams = Datagrams {
            current: Vec::new(),
            send,
        };
        for family in families {
            let name = family.name;
            match family.samples {
                Samples::Counter(samples) => {
                    for (labels, value) in samples {
                        self.push_counter(&mut datagrams, name, &labels, value)?;
                    }
                }
                Samples::Gauge(samples) => {
                    for (labels, value) in samples {
                        let tags = self.tags(&labels);
                        datagrams.push(&format!("{PREFIX}.{name}:{value}|g{tags}"))?;
                    }
                }
                Samples::Histogram(samples) => {
                    for (labels, distribution) in samples {
                        self.push_histogram(&mut datagrams, name, &labels, &distribution)?;
                    }
                }
            }
        }
        datagrams.flush()
    }

    fn push_counter(
        &self,
        datagrams: &mut Datagrams<'_>,
        name: &str,
        labels: &Labels,
        increase: u64,
    ) -> io::Result<()> {
        if increase == 0 {
            return Ok(());
        }
        let tags = self.tags(labels);
        datagrams.push(&format!("{PREFIX}.{name}:{increase}|c{tags}"))
    }

    fn push_histogram(
        &self,
        datagrams: &mut Datagrams<'_>,
        name: &str,
        labels: &Labels,
        increase: &Distribution,
    ) -> io::Result<()> {
        if increase.count() == 0 {
            return Ok(());
        }
        // The docs give the unit; the suffix is a convention of Prometheus.
        let name = name.strip_suffix("_seconds").unwrap_or(name);
        let tags = self.tags(labels);
        let mut lower = 0;
        for (index, count) in increase.buckets.iter().enumerate() {
            let upper = BOUNDS_US.get(index).copied().unwrap_or(lower);
            if *count > 0 {
                let middle = (lower + upper) as f64 / 2e6;
                let rate = 1.0 / *count as f64;
                datagrams.push(&format!("{PREFIX}.{name}:{middle}|d|@{rate}{tags}"))?;
            }
            lower = upper;
        }
        Ok(())
    }

    /// The tags of a line: the common ones and the labels of the sample.
    fn tags(&self, labels: &Labels) -> String {
        let mut tags = self.common_tags.clone();
        for (name, value) in labels {
            push_tag(&mut tags, name, value);
        }
        if tags.is_empty() {
            return tags;
        }
        tags.replace_range(..1, "|#");
        tags
    }
}

/// Appends `,name:value`, with the characters replaced that have a meaning in a line.
fn push_tag(tags: &mut String, name: &str, value: &str) {
    let clean = |text: &str| -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@".contains(c);
        let replaced = text.chars().filter(|c| *c != '…');
        replaced
            .map(|c| if is_plain(c) { c } else { '_' })
            .collect()
    };
    // Writing to a String cannot fail.
    let _ = write!(tags, ",{}:{}", clean(name).replace(':', "_"), clean(value));
}

/// Packs lines into datagrams, and sends each datagram when it is full.
struct Datagrams<'s> {
    current: Vec<u8>,
    send: &'s mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl Datagrams<'_> {
    fn push(&mut self, line: &str) -> io::Result<()> {
        if !self.current.is_empty() {
            if self.current.len() + 1 + line.len() > DATAGRAM_BYTES_MAX {
                self.flush()?;
            } else {
                self.current.push(b'\n');
            }
        }
        self.current.extend_from_slice(line.as_bytes());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.current.is_empty() {
            (self.send)(&self.current)?;
            self.current.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::histogram::Histogram;
    use super::*;

    fn datagrams<'n>(
        statsd: &Statsd,
        families: impl IntoIterator<Item = Family<'n>>,
    ) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let mut send = |datagram: &[u8]| {
            sent.push(datagram.to_vec());
            Ok(())
        };
        statsd.send(families, &mut send).unwrap();
        sent
    }

    fn lines(datagrams: &[Vec<u8>]) -> Vec<String> {
        let text = |datagram: &Vec<u8>| String::from_utf8(datagram.clone()).unwrap();
        let all: Vec<String> = datagrams.iter().map(text).collect();
        all.join("\n").lines().map(str::to_owned).collect()
    }

    #[test]
    fn only_counters_that_increased_are_sent() {
        let statsd = Statsd::new([("region", "eu west")].into_iter());
        let family = |value| {
            let labels = vec![("route", "http://0123…@m/1".to_owned())];
            [Family::counter("requests", "All.", [(labels, value)])]
        };
        assert_eq!(
            lines(&datagrams(&statsd, family(3))),
            ["sentrymirror.requests:3|c|#region:eu_west,route:http://0123@m/1"]
        );
        assert!(datagrams(&statsd, family(0)).is_empty());
    }

    #[test]
    fn a_histogram_is_sent_with_the_count_of_each_bucket() {
        let histogram = Histogram::default();
        for millis in [3, 3, 4, 4, 60_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let total = Distribution::from_histograms([&histogram].into_iter());
        let family = [Family::histogram(
            "time_seconds",
            "Long.",
            [(vec![], total)],
        )];
        assert_eq!(
            lines(&datagrams(&Statsd::new([].into_iter()), family)),
            [
                "sentrymirror.time:0.00375|d|@0.25",
                "sentrymirror.time:30|d|@1"
            ]
        );
    }

    #[test]
    fn datagrams_fit_into_a_packet() {
        let label = |number: u64| vec![("outbound", format!("https://{number:064}@o/1"))];
        let samples = (0..100).map(|number| (label(number), 1.0));
        let gauges = [Family::gauge("open", "Now.", samples)];
        let datagrams = datagrams(&Statsd::new([].into_iter()), gauges);
        assert!(datagrams.len() > 5);
        assert!(
            datagrams
                .iter()
                .all(|datagram| datagram.len() <= DATAGRAM_BYTES_MAX)
        );
        assert_eq!(lines(&datagrams).len(), 100);
    }
}
