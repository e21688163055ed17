//! Chart axes: ranges, ticks, and where a value lies.

use super::text::number;

/// The x or y axis of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What is measured, with its unit.
    pub label: String,
    pub scale: Scale,
}

/// How values map to positions on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Linear, from 0 or the least value below it.
    Linear,
    /// Logarithmic to base 2. Values that are not positive are left out.
    Doublings,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            scale: Scale::Linear,
        }
    }

    /// A logarithmic axis whose ticks are powers of two.
    pub fn doublings(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            scale: Scale::Doublings,
        }
    }
}

/// The part of an axis that is shown, and its ticks.
#[derive(Debug, PartialEq)]
pub(super) struct Range {
    scale: Scale,
    low: f64,
    high: f64,
    pub(super) ticks: Vec<f64>,
}

impl Range {
    /// A range that contains all values and ends at round numbers.
    pub(super) fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let shown: Vec<f64> = values.filter(|value| Self::can_show(scale, *value)).collect();
        let least = shown.iter().copied().fold(f64::INFINITY, f64::min);
        let most = shown.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match scale {
            Scale::Linear => Self::linear(least.min(0.0), most.max(0.0)),
            Scale::Doublings if shown.is_empty() => Self::doublings(1.0, 2.0),
            Scale::Doublings => Self::doublings(least, most),
        }
    }

    fn can_show(scale: Scale, value: f64) -> bool {
        value.is_finite() && (scale == Scale::Linear || value > 0.0)
    }

    fn linear(least: f64, most: f64) -> Self {
        let span = if most - least > 0.0 { most - least } else { 1.0 };
        let magnitude = 10.0_f64.powf((span / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * magnitude)
            .into_iter()
            .find(|step| span / step <= 6.0)
            .unwrap_or(magnitude * 10.0);
        let first = (least / step).floor();
        let last = (most / step).ceil().max(first + 1.0);
        let ticks = std::iter::successors(Some(first), |at| Some(at + 1.0))
            .take_while(|at| *at <= last)
            .map(|at| at * step);
        Self {
            scale: Scale::Linear,
            low: first * step,
            high: last * step,
            ticks: ticks.collect(),
        }
    }

    fn doublings(least: f64, most: f64) -> Self {
        let first = least.log2().floor();
        let last = most.log2().ceil().max(first + 1.0);
        // At most a dozen ticks.
        let stride = ((last - first) / 12.0).ceil();
        let ticks = std::iter::successors(Some(first), |at| Some(at + stride))
            .take_while(|at| *at <= last)
            .map(f64::exp2);
        Self {
            scale: Scale::Doublings,
            low: first.exp2(),
            high: last.exp2(),
            ticks: ticks.collect(),
        }
    }

    /// Where a value lies, from 0 to 1; `None` if the axis cannot show it.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        if !Self::can_show(self.scale, value) {
            return None;
        }
        Some(match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Doublings => (value / self.low).log2() / (self.high / self.low).log2(),
        })
    }

    /// The label of a tick.
    pub(super) fn tick_text(tick: f64) -> String {
        number(tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let range = Range::of(Scale::Linear, [3.0, 97.0].into_iter());
        assert_eq!(range.ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(range.place(50.0), Some(0.5));
        assert_eq!(range.place(f64::NAN), None);
        let range = Range::of(Scale::Linear, [-1.0, 1.0].into_iter());
        assert_eq!((range.low, range.high), (-1.0, 1.0));
        let tiny = Range::of(Scale::Linear, [0.000_3].into_iter());
        assert_eq!(tiny.place(tiny.high), Some(1.0));
    }

    #[test]
    fn doublings_are_equally_spaced() {
        let range = Range::of(Scale::Doublings, [1.0, 2.0, 16.0, 0.0].into_iter());
        assert_eq!(range.ticks, [1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(range.place(4.0), Some(0.5));
        assert_eq!(range.place(0.0), None);
        let wide = Range::of(Scale::Doublings, [1.0, 1e9].into_iter());
        assert!(wide.ticks.len() <= 13);
    }

    #[test]
    fn empty_axes_have_ticks() {
        for scale in [Scale::Linear, Scale::Doublings] {
            let range = Range::of(scale, std::iter::empty());
            assert!(range.ticks.len() >= 2);
            assert!(range.place(1.0).is_some_and(f64::is_finite));
        }
    }
}
