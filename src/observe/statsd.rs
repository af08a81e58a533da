//! The lines that a statsd server takes, with the tags of DogStatsD.
//!
//! What the workers count is already added up, so counters go out as what came since the last push, which
//! is what they have to hold here, and a histogram as one line per bucket that something fell into, with
//! a sample rate that says how much: ten requests of about 3 ms are `…:0.00375|d|@0.1`. Written by hand,
//! because the libraries for it want to be told of every single event.

use std::fmt::Write;
use std::io;

use super::family::{Family, Labels, Samples};
use super::histogram::{BOUNDS_US, Distribution};

/// What begins the name of every metric; the prior art's prefix.
pub(crate) const PREFIX: &str = "sentrymirror";

/// The bytes of a datagram, so that it fits one packet on any usual network.
const DATAGRAM_BYTES_MAX: usize = 1400;

/// Makes datagrams of metrics.
pub(crate) struct Statsd {
    /// `,key:value` for each tag that goes with every metric.
    common_tags: String,
}

impl Statsd {
    /// `tags` go with every metric.
    pub(crate) fn new<'t>(tags: impl Iterator<Item = (&'t str, &'t str)>) -> Statsd {
        let mut common_tags = String::new();
        for (name, value) in tags {
            push_tag(&mut common_tags, name, value);
        }
        Statsd { common_tags }
    }

    /// Sends the datagrams that tell of `families`, whose counters and histograms hold what is new.
    ///
    /// # Errors
    /// The first of `send`; what is left is not sent then.
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
        fresh: u64,
    ) -> io::Result<()> {
        if fresh == 0 {
            return Ok(());
        }
        let tags = self.tags(labels);
        datagrams.push(&format!("{PREFIX}.{name}:{fresh}|c{tags}"))
    }

    fn push_histogram(
        &self,
        datagrams: &mut Datagrams<'_>,
        name: &str,
        labels: &Labels,
        fresh: &Distribution,
    ) -> io::Result<()> {
        if fresh.count() == 0 {
            return Ok(());
        }
        // statsd has no units: what `_seconds` says in one place is said by the table in the other.
        let name = name.strip_suffix("_seconds").unwrap_or(name);
        let tags = self.tags(labels);
        let mut lower = 0;
        for (index, count) in fresh.buckets.iter().enumerate() {
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

    /// The tags of a line: the common ones and those of a sample.
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

/// Appends `,name:value`, without the characters that have a meaning in a line.
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

/// Lines, as many to a datagram as fit; each datagram is sent as soon as it is full.
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
    fn counters_go_out_where_something_came() {
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
    fn histograms_go_out_with_the_number_in_each_bucket() {
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
    fn datagrams_fit_a_packet() {
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
