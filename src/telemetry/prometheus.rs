//! The text formats of Prometheus and OpenMetrics.
//!
//! They differ only in the family name of a counter and in the end of the text.

use std::fmt::{self, Write};
use std::io;

use super::family::{Family, Labels, PREFIX, Samples};
use super::histogram::{BOUNDS_US, Distribution};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The Prometheus text format 0.0.4.
    Plain,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format for a client with this `Accept` header.
    pub(crate) fn from_accept(accept: &str) -> Format {
        // Clients that list OpenMetrics prefer it.
        if accept.contains("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Plain
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The size of a write to the output, give or take a sample.
const PIECE_BYTES: usize = 16 * 1024;

/// Writes `families` to `out`, in pieces.
pub(crate) fn write<'n>(
    families: impl IntoIterator<Item = Family<'n>>,
    format: Format,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut pieces = Pieces {
        text: String::new(),
        out,
    };
    for family in families {
        write_family(&mut pieces, family, format)?;
    }
    if format == Format::OpenMetrics {
        pieces.text.push_str("# EOF\n");
    }
    pieces.flush()
}

/// Buffers text into pieces of [`PIECE_BYTES`].
struct Pieces<'o> {
    text: String,
    out: &'o mut dyn io::Write,
}

impl Pieces<'_> {
    fn add(&mut self, write: impl FnOnce(&mut String) -> fmt::Result) -> io::Result<()> {
        // Writing to a String cannot fail.
        let _ = write(&mut self.text);
        match self.text.len() < PIECE_BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }
}

fn write_family(pieces: &mut Pieces<'_>, family: Family<'_>, format: Format) -> io::Result<()> {
    let (name, help) = (family.name, family.help);
    let (kind, suffix) = match &family.samples {
        Samples::Counter(_) => ("counter", "_total"),
        Samples::Gauge(_) => ("gauge", ""),
        Samples::Histogram(_) => ("histogram", ""),
    };
    let title_suffix = match format {
        Format::Plain => suffix,
        Format::OpenMetrics => "",
    };
    pieces.add(|out| {
        writeln!(out, "# HELP {PREFIX}_{name}{title_suffix} {help}")?;
        writeln!(out, "# TYPE {PREFIX}_{name}{title_suffix} {kind}")
    })?;
    match family.samples {
        Samples::Counter(samples) => {
            for (labels, value) in samples {
                pieces.add(|out| write_sample(out, name, suffix, &labels, None, value))?;
            }
        }
        Samples::Gauge(samples) => {
            for (labels, value) in samples {
                pieces.add(|out| write_sample(out, name, suffix, &labels, None, value))?;
            }
        }
        Samples::Histogram(samples) => {
            // An empty histogram would be twenty lines of zeros.
            for (labels, distribution) in samples.filter(|(_, times)| times.count() > 0) {
                pieces.add(|out| write_histogram(out, name, &labels, &distribution))?;
            }
        }
    }
    Ok(())
}

fn write_histogram(
    out: &mut String,
    name: &str,
    labels: &Labels,
    distribution: &Distribution,
) -> fmt::Result {
    let mut below = 0;
    for (index, count) in distribution.buckets.iter().enumerate() {
        below += count;
        let bound = match BOUNDS_US.get(index) {
            // Always with a fraction: OpenMetrics requires `1.0`.
            Some(micros) => format!("{:?}", *micros as f64 / 1e6),
            None => "+Inf".to_owned(),
        };
        write_sample(out, name, "_bucket", labels, Some(&bound), below)?;
    }
    let sum = distribution.sum_us as f64 / 1e6;
    write_sample(out, name, "_sum", labels, None, sum)?;
    write_sample(out, name, "_count", labels, None, below)
}

fn write_sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &Labels,
    bound: Option<&str>,
    value: impl fmt::Display,
) -> fmt::Result {
    write!(out, "{PREFIX}_{name}{suffix}")?;
    let labels = labels.iter().map(|(name, value)| (*name, value.as_str()));
    let mut separator = '{';
    for (label, text) in labels.chain(bound.map(|bound| ("le", bound))) {
        write!(out, "{separator}{label}=\"")?;
        write_escaped(out, text);
        out.push('"');
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    writeln!(out, " {value}")
}

fn write_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'n>(families: impl IntoIterator<Item = Family<'n>>, format: Format) -> String {
        let mut out = Vec::new();
        write(families, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Records the length of the longest write and of all writes.
    struct Longest(usize, usize);

    impl io::Write for Longest {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0 = self.0.max(piece.len());
            self.1 += piece.len();
            Ok(piece.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_long_text_is_written_in_pieces_without_empty_histograms() {
        let label = |number: u64| vec![("outbound", format!("https://{number:064}@o/1"))];
        let counts = (0..10_000).map(|number| (label(number), number));
        let times = (0..10_000).map(|number| (label(number), Distribution::default()));
        let mut longest = Longest(0, 0);
        let families = [
            Family::counter("requests", "All.", counts),
            Family::histogram("time_seconds", "Long.", times),
        ];
        write(families, Format::Plain, &mut longest).unwrap();
        assert!(longest.0 < 2 * PIECE_BYTES, "{}", longest.0);
        assert!((1_000_000..2_000_000).contains(&longest.1), "{}", longest.1);
    }

    #[test]
    fn both_formats_follow_their_specifications() {
        let label = |value: &str| vec![("route", value.to_owned())];
        let mut distribution = Distribution::default();
        distribution.buckets[1] = 2;
        distribution.buckets[BOUNDS_US.len()] = 1;
        distribution.sum_us = 1_500_000;
        let families = || {
            [
                Family::counter("requests", "All of them.", [(label("a\"\\\n"), 3)]),
                Family::gauge("open", "Now.", [(vec![], 1.5)]),
                Family::histogram(
                    "time_seconds",
                    "Long.",
                    [
                        (label("a"), Distribution::default()),
                        (label("b"), distribution.clone()),
                    ],
                ),
            ]
        };
        let plain = text(families(), Format::Plain);
        assert!(plain.starts_with(
            "# HELP sentry_mirror_requests_total All of them.\n\
             # TYPE sentry_mirror_requests_total counter\n\
             sentry_mirror_requests_total{route=\"a\\\"\\\\\\n\"} 3\n\
             # HELP sentry_mirror_open Now.\n# TYPE sentry_mirror_open gauge\n\
             sentry_mirror_open 1.5\n"
        ));
        assert!(!plain.contains("route=\"a\","), "it is empty");
        assert!(plain.contains("_bucket{route=\"b\",le=\"0.0005\"} 0\n"));
        assert!(plain.contains("_bucket{route=\"b\",le=\"30.0\"} 2\n"));
        assert!(plain.contains("_bucket{route=\"b\",le=\"+Inf\"} 3\n"));
        assert!(plain.ends_with(
            "time_seconds_sum{route=\"b\"} 1.5\nsentry_mirror_time_seconds_count{route=\"b\"} 3\n"
        ));
        let open = text(families(), Format::OpenMetrics);
        assert!(open.contains("# TYPE sentry_mirror_requests counter\n"));
        assert!(open.contains("\nsentry_mirror_requests_total{"));
        assert!(open.ends_with("\n# EOF\n"));
    }

    #[test]
    fn openmetrics_is_used_if_accepted() {
        assert_eq!(Format::from_accept(""), Format::Plain);
        assert_eq!(Format::from_accept("text/html, */*"), Format::Plain);
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        assert_eq!(Format::from_accept(accept), Format::OpenMetrics);
    }
}
