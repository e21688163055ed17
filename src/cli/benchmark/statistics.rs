//! Summaries of measurements.

use serde::Serialize;

/// The median of a few measurements, with the least and the largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// Values that so many percent of the measurements do not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) samples: usize,
}

impl Spread {
    /// `None` without measurements.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        Some(Self {
            median: median(sorted.clone()),
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }
}

impl Percentiles {
    /// `None` without measurements.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        Some(Self {
            p50: percentile(&sorted, 50)?,
            p95: percentile(&sorted, 95)?,
            p99: percentile(&sorted, 99)?,
            samples: sorted.len(),
        })
    }
}

/// The middle value; of an even number of values, the mean of the two in the middle. NaN without values.
pub(super) fn median(values: Vec<f64>) -> f64 {
    let sorted = sorted(&values);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ if sorted.is_empty() => f64::NAN,
        _ => sorted[middle - 1].midpoint(sorted[middle]),
    }
}

/// The mean; `None` without values.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a few values")]
    let count = values.len() as f64;
    (count > 0.0).then(|| values.iter().sum::<f64>() / count)
}

/// The largest value; `None` without values.
pub(super) fn worst(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

/// The least value that at least `percent` of all do not exceed (nearest rank): always one that was measured.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert!(median(vec![]).is_nan());
        assert_eq!(
            Spread::of(&[5.0, 9.0, 1.0]),
            Some(Spread {
                median: 5.0,
                min: 1.0,
                max: 9.0
            })
        );
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn mean_and_worst() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(worst(&[1.0, 6.0, 2.0]), Some(6.0));
        assert_eq!((mean(&[]), worst(&[])), (None, None));
    }

    #[test]
    fn percentiles_are_measured_values() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let of_hundred = Percentiles::of(&hundred).unwrap();
        assert_eq!((of_hundred.p50, of_hundred.p95, of_hundred.p99), (50.0, 95.0, 99.0));
        let of_four = Percentiles::of(&[10.0, 40.0, 20.0, 30.0]).unwrap();
        assert_eq!((of_four.p50, of_four.p95, of_four.p99), (20.0, 40.0, 40.0));
        assert_eq!(of_four.samples, 4);
        let of_one = Percentiles::of(&[7.0]).unwrap();
        assert_eq!((of_one.p50, of_one.p99), (7.0, 7.0));
        assert_eq!(Percentiles::of(&[]), None);
    }
}
