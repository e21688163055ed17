//! Line charts.

use std::fmt::Write;

use super::axis::{Axis, Range};
use super::style;
use super::text::{coordinate, number, width, xml};

/// A chart of several lines. Points that an axis cannot show are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

/// One line, with its entry in the legend.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    /// In the order in which they are joined.
    pub points: Vec<Point>,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Least and most, drawn as a whisker.
    pub spread: Option<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const PLOT_HEIGHT: f64 = 280.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
/// Distance from the plot's lower edge to the legend.
const BELOW: f64 = 62.0;
const LEGEND_ROW: f64 = 20.0;

impl LineChart {
    /// The chart as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let frame = Frame {
            x: Range::of(self.x.scale, points().map(|point| point.x)),
            y: Range::of(
                self.y.scale,
                points().flat_map(|point| {
                    let (low, high) = point.spread.unwrap_or((point.y, point.y));
                    [point.y, low, high]
                }),
            ),
        };
        let places = legend_places(&self.series);
        let rows = places.last().map_or(0.0, |(_, row)| row + 1.0);
        let mut out = style::open(&self.title, WIDTH, TOP + PLOT_HEIGHT + BELOW + rows * LEGEND_ROW);
        self.axes(&mut out, &frame);
        for (index, series) in self.series.iter().enumerate() {
            series.draw(&mut out, &frame, index);
        }
        for ((index, series), (x, row)) in self.series.iter().enumerate().zip(places) {
            let y = TOP + PLOT_HEIGHT + BELOW + row * LEGEND_ROW;
            let _ = writeln!(
                out,
                "<line class=\"line {}\" x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke-dasharray=\"{}\"/>\
                 <text class=\"legend\" x=\"{}\" y=\"{}\">{}</text>",
                style::line_class(index),
                x + 24.0,
                style::dashes(index),
                x + 30.0,
                y + 4.0,
                xml(&series.name)
            );
        }
        out.push_str("</svg>\n");
        out
    }

    fn axes(&self, out: &mut String, frame: &Frame) {
        let (right, bottom) = (WIDTH - RIGHT, TOP + PLOT_HEIGHT);
        for tick in &frame.y.ticks {
            if let Some(y) = frame.y(*tick) {
                let _ = writeln!(
                    out,
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/>\
                     <text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                    LEFT - 8.0,
                    coordinate(y + 4.0),
                    Range::tick_text(*tick),
                    y = coordinate(y),
                );
            }
        }
        for tick in &frame.x.ticks {
            if let Some(x) = frame.x(*tick) {
                let _ = writeln!(
                    out,
                    "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"{bottom}\" y2=\"{}\"/>\
                     <text class=\"soft\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    bottom + 5.0,
                    bottom + 20.0,
                    Range::tick_text(*tick),
                    x = coordinate(x),
                );
            }
        }
        let middle = TOP + PLOT_HEIGHT / 2.0;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(20 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            LEFT.midpoint(right),
            bottom + 40.0,
            xml(&self.x.label),
            xml(&self.y.label),
        );
    }
}

impl Series {
    fn draw(&self, out: &mut String, frame: &Frame, index: usize) {
        let class = style::line_class(index);
        let shown = || {
            self.points
                .iter()
                .filter_map(|point| Some((point, frame.x(point.x)?, frame.y(point.y)?)))
        };
        let line: Vec<String> = shown()
            .map(|(_, x, y)| format!("{},{}", coordinate(x), coordinate(y)))
            .collect();
        let _ = writeln!(
            out,
            "<polyline class=\"line {class}\" stroke-dasharray=\"{}\" points=\"{}\"/>",
            style::dashes(index),
            line.join(" ")
        );
        for (point, x, y) in shown() {
            let (x, y) = (coordinate(x), coordinate(y));
            let whisker = point
                .spread
                .and_then(|(low, high)| Some((frame.y(low)?, frame.y(high)?)));
            if let Some((low, high)) = whisker {
                let (low, high) = (coordinate(low), coordinate(high));
                let _ = writeln!(
                    out,
                    "<line class=\"whisker {class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{low}\" y2=\"{high}\"/>"
                );
            }
            let _ = writeln!(
                out,
                "<circle class=\"dot {class}\" cx=\"{x}\" cy=\"{y}\" r=\"3.5\"><title>{}: {} at {}</title></circle>",
                xml(&self.name),
                number(point.y),
                number(point.x)
            );
        }
    }
}

/// Maps values to pixels.
struct Frame {
    x: Range,
    y: Range,
}

impl Frame {
    fn x(&self, value: f64) -> Option<f64> {
        Some(LEFT + self.x.place(value)? * (WIDTH - LEFT - RIGHT))
    }

    fn y(&self, value: f64) -> Option<f64> {
        Some(TOP + PLOT_HEIGHT - self.y.place(value)? * PLOT_HEIGHT)
    }
}

/// The x position and row of each legend entry. Entries wrap at the chart's width.
fn legend_places(series: &[Series]) -> Vec<(f64, f64)> {
    let (mut x, mut row) = (LEFT, 0.0);
    let mut places = Vec::new();
    for entry in series {
        let needed = 30.0 + width(&entry.name) + 20.0;
        if x > LEFT && x + needed > WIDTH - RIGHT {
            (x, row) = (LEFT, row + 1.0);
        }
        places.push((x, row));
        x += needed;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        Point { x, y, spread: None }
    }

    fn chart() -> LineChart {
        LineChart {
            title: "hit rate <of \"policies\"> & more".into(),
            x: Axis::linear("capacity, %"),
            y: Axis::linear("hit rate, %"),
            series: vec![
                Series {
                    name: "lru & friends".into(),
                    points: vec![
                        point(0.0, 0.0),
                        point(50.0, 60.0),
                        point(100.0, 100.0),
                        point(f64::NAN, 3.0),
                    ],
                },
                Series {
                    name: "lfu-decay".into(),
                    points: vec![Point {
                        x: 50.0,
                        y: 80.0,
                        spread: Some((70.0, 90.0)),
                    }],
                },
            ],
        }
    }

    #[test]
    fn points_are_where_their_values_are() {
        let svg = chart().svg();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let lines: Vec<&str> = document
            .descendants()
            .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "polyline")))
            .map(|node| node.attribute("points").unwrap())
            .collect();
        // 0 and 100 % are the edges of the plot: 76 to 696, and 324 up to 44.
        assert_eq!(lines, ["76,324 386,156 696,44", "386,100"]);
        let whisker = document
            .descendants()
            .find(|node| {
                node.attribute("class")
                    .is_some_and(|class| class.starts_with("whisker"))
            })
            .unwrap();
        assert_eq!(
            (whisker.attribute("y1"), whisker.attribute("y2")),
            (Some("128"), Some("72"))
        );
    }

    #[test]
    fn labels_survive_as_they_are() {
        let svg = chart().svg();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
        for label in [
            "hit rate <of \"policies\"> & more",
            "lru & friends",
            "lfu-decay",
            "capacity, %",
            "hit rate, %",
        ] {
            assert!(texts.contains(&label), "{label}");
        }
    }

    #[test]
    fn a_long_legend_takes_several_rows() {
        let series = |count| {
            (0..count).map(|number| Series {
                name: format!("a policy with a long name {number}"),
                points: Vec::new(),
            })
        };
        let places = legend_places(&series(7).collect::<Vec<_>>());
        assert!(places.iter().all(|(x, _)| *x < WIDTH - RIGHT));
        assert!(places[6].1 > places[0].1);
        let empty = LineChart {
            series: series(0).collect(),
            ..chart()
        };
        roxmltree::Document::parse(&empty.svg()).unwrap();
    }
}
