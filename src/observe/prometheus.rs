//! The text that Prometheus reads, in its own format or as OpenMetrics.
//!
//! The two differ in little: how a counter's family is called, and how the text ends. Written by hand,
//! because the libraries for it keep the numbers themselves, in counters that all threads share.

use std::fmt::{self, Write};

use super::family::{Family, Labels, PREFIX, Samples};
use super::histogram::{BORDERS_US, Distribution};

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4.
    Plain,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The one that a client asks for with `Accept`.
    pub fn accepted(accept: &str) -> Format {
        // Whoever reads OpenMetrics says so, and puts it first.
        if accept.contains("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Plain
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All of `families` as text.
pub fn text(families: &[Family], format: Format) -> String {
    let mut out = String::new();
    for family in families {
        // Writing to a String cannot fail.
        let _ = write_family(&mut out, family, format);
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_family(out: &mut String, family: &Family, format: Format) -> fmt::Result {
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
    writeln!(out, "# HELP {PREFIX}_{name}{title_suffix} {help}")?;
    writeln!(out, "# TYPE {PREFIX}_{name}{title_suffix} {kind}")?;
    match &family.samples {
        Samples::Counter(samples) => {
            for (labels, value) in samples {
                write_sample(out, name, suffix, labels, None, value)?;
            }
        }
        Samples::Gauge(samples) => {
            for (labels, value) in samples {
                write_sample(out, name, suffix, labels, None, value)?;
            }
        }
        Samples::Histogram(samples) => {
            for (labels, distribution) in samples {
                write_histogram(out, name, labels, distribution)?;
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
        let border = match BORDERS_US.get(index) {
            // With a fraction in any case: OpenMetrics wants `1.0`.
            Some(micros) => format!("{:?}", *micros as f64 / 1e6),
            None => "+Inf".to_owned(),
        };
        write_sample(out, name, "_bucket", labels, Some(&border), below)?;
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
    border: Option<&str>,
    value: impl fmt::Display,
) -> fmt::Result {
    write!(out, "{PREFIX}_{name}{suffix}")?;
    let labels = labels.iter().map(|(name, value)| (*name, value.as_str()));
    let mut separator = '{';
    for (label, text) in labels.chain(border.map(|border| ("le", border))) {
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

    #[test]
    fn both_formats_as_their_specifications_say() {
        let label = |value: &str| vec![("route", value.to_owned())];
        let mut distribution = Distribution::default();
        distribution.buckets[1] = 2;
        distribution.buckets[16] = 1;
        distribution.sum_us = 1_500_000;
        let families = [
            Family::counter("requests", "All of them.", [(label("a\"\\\n"), 3)]),
            Family::gauge("open", "Now.", [(vec![], 1.5)]),
            Family::histogram("time_seconds", "Long.", [(label("b"), distribution)]),
        ];
        let plain = text(&families, Format::Plain);
        assert!(plain.starts_with(
            "# HELP sentry_mirror_requests_total All of them.\n\
             # TYPE sentry_mirror_requests_total counter\n\
             sentry_mirror_requests_total{route=\"a\\\"\\\\\\n\"} 3\n\
             # HELP sentry_mirror_open Now.\n# TYPE sentry_mirror_open gauge\n\
             sentry_mirror_open 1.5\n"
        ));
        assert!(plain.contains("_bucket{route=\"b\",le=\"0.0005\"} 0\n"));
        assert!(plain.contains("_bucket{route=\"b\",le=\"30.0\"} 2\n"));
        assert!(plain.contains("_bucket{route=\"b\",le=\"+Inf\"} 3\n"));
        assert!(plain.ends_with(
            "time_seconds_sum{route=\"b\"} 1.5\nsentry_mirror_time_seconds_count{route=\"b\"} 3\n"
        ));
        let open = text(&families, Format::OpenMetrics);
        assert!(open.contains("# TYPE sentry_mirror_requests counter\n"));
        assert!(open.contains("\nsentry_mirror_requests_total{"));
        assert!(open.ends_with("\n# EOF\n"));
    }

    #[test]
    fn openmetrics_goes_to_those_who_ask() {
        assert_eq!(Format::accepted(""), Format::Plain);
        assert_eq!(Format::accepted("text/html, */*"), Format::Plain);
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        assert_eq!(Format::accepted(accept), Format::OpenMetrics);
    }
}
