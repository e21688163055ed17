//! Charts of measured cases: along the number that varies, with a line for each combination of the others.

use super::case::Case;
use super::statistics::Spread;
use crate::report::{Axis, Figure, LineChart, Point, Series};

/// A measured value, and its least and largest where it has a spread.
pub(super) type Value = (f64, Option<(f64, f64)>);

pub(super) fn spread_value(spread: Spread) -> Value {
    (spread.median, Some((spread.min, spread.max)))
}

/// One of the three numbers of a case.
type Dimension = fn(&Case) -> u32;

/// The number that the charts go along; the others name the lines.
pub(super) struct Across {
    cases: Vec<Case>,
    label: &'static str,
    along: Dimension,
    /// Name and value of those that vary besides.
    others: Vec<(&'static str, Dimension)>,
}

impl Across {
    /// Along the streams if their number varies, else along the prompts, else along the generated tokens.
    pub(super) fn of(cases: Vec<Case>) -> Self {
        const DIMENSIONS: [(&str, &str, Dimension); 3] = [
            ("streams at once", "streams", |case| case.concurrency),
            ("tokens of the prompt", "prompt", |case| case.prompt_tokens),
            ("generated tokens", "generate", |case| case.generate),
        ];
        let varies = |value: Dimension| cases.windows(2).any(|pair| value(&pair[0]) != value(&pair[1]));
        let chosen = DIMENSIONS.iter().position(|(_, _, value)| varies(*value)).unwrap_or(0);
        let (label, _, along) = DIMENSIONS[chosen];
        let others = DIMENSIONS
            .iter()
            .enumerate()
            .filter(|(index, (_, _, value))| *index != chosen && varies(*value))
            .map(|(_, (_, name, value))| (*name, *value))
            .collect();
        Self {
            cases,
            label,
            along,
            others,
        }
    }

    /// A line for each combination of the other numbers, from the value of each case by its index; none for cases without
    /// a value. `what` begins the names of the lines.
    pub(super) fn lines(&self, what: &str, value: impl Fn(usize) -> Option<Value>) -> Vec<Series> {
        let mut series: Vec<Series> = Vec::new();
        for (index, case) in self.cases.iter().enumerate() {
            let Some((y, spread)) = value(index) else { continue };
            let point = Point {
                x: f64::from((self.along)(case)),
                y,
                spread,
            };
            let name = self.name(what, case);
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point),
                None => series.push(Series {
                    name,
                    points: vec![point],
                }),
            }
        }
        for line in &mut series {
            line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
        series
    }

    /// A chart of these lines; `None` without any.
    pub(super) fn figure(&self, name: &str, title: String, unit: &str, series: Vec<Series>) -> Option<Figure> {
        if series.is_empty() {
            return None;
        }
        let chart = LineChart {
            title: title.clone(),
            x: Axis::doublings(self.label),
            y: Axis::linear(unit),
            series,
        };
        Some(Figure {
            name: name.to_owned(),
            title,
            svg: chart.svg(),
        })
    }

    fn name(&self, what: &str, case: &Case) -> String {
        let others = self
            .others
            .iter()
            .map(|(name, value)| format!("{name} {}", value(case)));
        let what = (!what.is_empty()).then(|| what.to_owned());
        what.into_iter().chain(others).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_names_the_lines() {
        let cases = crate::cli::benchmark::case::combine(&[16, 32], &[8], &[4, 1]);
        let across = Across::of(cases);
        let lines = across.lines("one", |index| (index != 1).then_some((1.0, None)));
        let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["one, prompt 16", "one, prompt 32"]);
        let xs = |line: &Series| line.points.iter().map(|point| point.x).collect::<Vec<_>>();
        assert_eq!((xs(&lines[0]), xs(&lines[1])), (vec![4.0], vec![1.0, 4.0]));
        assert!(across.figure("x", String::new(), "s", Vec::new()).is_none());
    }
}
