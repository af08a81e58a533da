//! Numbers from numbers: percentiles of latencies, the middle and the spread of rounds.

use serde_json::{Value, json};

/// Latencies of a stretch, in microseconds.
#[derive(Clone, Copy)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Latency {
    pub fn of(mut nanoseconds: Vec<u64>) -> Latency {
        nanoseconds.sort_unstable();
        let at = |share: f64| {
            let last = nanoseconds.len().saturating_sub(1);
            let place = (last as f64 * share).round() as usize;
            nanoseconds.get(place).copied().unwrap_or(0) as f64 / 1000.0
        };
        Latency {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

/// The middle of some numbers, and how far they lie apart.
#[derive(Clone, Copy, Default)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// `None` without numbers.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        Some(Spread {
            median: (values[low] + values[high]) / 2.0,
            least,
            most,
        })
    }

    pub fn json(spread: Option<Spread>) -> Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        spread.map_or(Value::Null, |spread| {
            json!({
                "median": round(spread.median),
                "min": round(spread.least),
                "max": round(spread.most),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_rounds_is_their_median() {
        let spread = Spread::of([9.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.0, 1.0, 9.0));
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert!(Spread::of([]).is_none());
    }

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let latency = Latency::of((0..=1000).rev().map(|number| number * 1000).collect());
        assert_eq!(
            (latency.p50, latency.p99, latency.p999),
            (500.0, 990.0, 999.0)
        );
    }
}
