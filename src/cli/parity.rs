//! The arguments of `sentry-mirror parity`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::parse_duration;

/// How long the mirror remembers what it counted.
const SINCE_MAX: Duration = Duration::from_secs(8 * 24 * 3600);

#[derive(Debug, Args)]
pub struct ParityArguments {
    /// Configuration file of the running mirror, whose outbounds have `sentry_api`
    #[arg(short, long, value_name = "FILE", default_value = "config.yml")]
    pub config: PathBuf,

    /// Compare the whole hours of the last 24h, or of another duration up to 8d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = since)]
    pub since: Duration,

    /// Exit with 1 if more than this share of a category is not explained
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = tolerance)]
    pub tolerance: f64,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// Admin port of a mirror, once for each of several that share the traffic
    /// [default: that of the configuration]
    #[arg(long, value_name = "ADDR")]
    pub mirror: Vec<SocketAddr>,
}

fn since(text: &str) -> Result<Duration, String> {
    let since = parse_duration(text)?;
    match since > SINCE_MAX {
        true => Err("the mirror remembers 8d".to_owned()),
        false => Ok(since),
    }
}

/// A share, written as a percentage.
fn tolerance(text: &str) -> Result<f64, String> {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok());
    let number = number.filter(|percent| (0.0..=100.0).contains(percent));
    let percent: f64 = number.ok_or("expected a percentage such as 1% or 0.5%")?;
    Ok(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_is_a_percentage() {
        assert_eq!(tolerance("1%"), Ok(0.01));
        assert_eq!(tolerance("0%"), Ok(0.0));
        for text in ["1", "0.01", "%", "101%", "-1%", "NaN%", "a%"] {
            assert!(tolerance(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_period_is_at_most_what_the_mirror_remembers() {
        assert_eq!(since("8d"), Ok(SINCE_MAX));
        assert!(since("9d").is_err());
        assert!(since("24").is_err());
    }
}
