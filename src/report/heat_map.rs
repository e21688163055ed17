//! Heat maps as small SVG files: neighbouring cells of the same colour are one stroke, and all strokes of a colour are one
//! path. 48 layers of 512 experts take at most about 200 KB.

use std::fmt::Write;

use super::style;
use super::text::{coordinate, number, xml};

/// A matrix of non-negative values, such as layers x experts.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    pub title: String,
    /// What a row is.
    pub row_label: String,
    /// What a column is.
    pub column_label: String,
    /// What is measured.
    pub value_label: String,
    pub scale: ColorScale,
    pub rows: Vec<HeatRow>,
}

/// One row of a [`HeatMap`].
#[derive(Debug, Clone, PartialEq)]
pub struct HeatRow {
    pub name: String,
    /// By column. A short row ends early. 0 and NaN are shown as empty.
    pub values: Vec<f64>,
}

/// How values between 0 and the largest one map to colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorScale {
    Linear,
    /// By square root, so that small values differ visibly: for counts, which vary by orders of magnitude.
    SquareRoot,
}

/// Number of colours, without that of empty cells.
const LEVELS: u8 = 31;
/// Dark to bright, evenly spaced.
const ANCHORS: [[f64; 3]; 5] = [
    [68.0, 1.0, 84.0],
    [59.0, 82.0, 139.0],
    [33.0, 145.0, 140.0],
    [94.0, 201.0, 98.0],
    [253.0, 231.0, 37.0],
];
const WIDTH: f64 = 920.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
/// Space below the cells for ticks, label and colour scale.
const BELOW: f64 = 104.0;

impl HeatMap {
    /// The map as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let columns = self.rows.iter().map(|row| row.values.len()).max().unwrap_or(0);
        let row_height = (560.0 / float(self.rows.len().max(1))).clamp(4.0, 18.0).floor();
        let height = row_height * float(self.rows.len());
        let cell_width = (WIDTH - LEFT - RIGHT) / float(columns.max(1));
        let most = self.most();
        let mut out = style::open(&self.title, WIDTH, TOP + height + BELOW);
        let _ = writeln!(
            out,
            "<g class=\"cells\" shape-rendering=\"crispEdges\" transform=\"translate({LEFT} {TOP}) scale({cell_width} {row_height})\">\n\
             <rect class=\"empty\" width=\"{columns}\" height=\"{}\"/>",
            self.rows.len()
        );
        let levels = self.levels(most);
        for level in 1..=LEVELS {
            let strokes = strokes(&levels, level);
            if !strokes.is_empty() {
                let _ = writeln!(out, "<path stroke=\"{}\" d=\"{strokes}\"/>", color(level));
            }
        }
        out.push_str("</g>\n");
        self.axes(&mut out, columns, cell_width, row_height, height);
        self.color_scale(&mut out, most, TOP + height + 62.0);
        out.push_str("</svg>\n");
        out
    }

    /// The largest value; 0 if all cells are empty.
    fn most(&self) -> f64 {
        let values = self.rows.iter().flat_map(|row| &row.values);
        values.copied().filter(|value| value.is_finite()).fold(0.0, f64::max)
    }

    fn levels(&self, most: f64) -> Vec<Vec<u8>> {
        let level = |value: &f64| self.scale.level(*value, most);
        self.rows
            .iter()
            .map(|row| row.values.iter().map(level).collect())
            .collect()
    }

    fn axes(&self, out: &mut String, columns: usize, cell_width: f64, row_height: f64, height: f64) {
        // Labels must not overlap.
        let every = (1..).find(|every| float(*every) * row_height >= 14.0).unwrap_or(1);
        for (index, row) in self.rows.iter().enumerate().step_by(every) {
            let y = TOP + (float(index) + 0.5) * row_height + 4.0;
            let _ = writeln!(
                out,
                "<text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                coordinate(y),
                xml(&row.name)
            );
        }
        let every = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
            .into_iter()
            .find(|every| columns / every <= 16)
            .unwrap_or(1024);
        for column in (0..columns).step_by(every) {
            let _ = writeln!(
                out,
                "<text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{column}</text>",
                coordinate(LEFT + (float(column) + 0.5) * cell_width),
                TOP + height + 16.0,
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(20 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            LEFT.midpoint(WIDTH - RIGHT),
            TOP + height + 36.0,
            xml(&self.column_label),
            TOP + height / 2.0,
            xml(&self.row_label),
        );
    }

    /// The legend: all colours side by side, with values below.
    fn color_scale(&self, out: &mut String, most: f64, top: f64) {
        let step = 10.0;
        let left = LEFT + 40.0;
        let swatch = |out: &mut String, x: f64, paint: &str| {
            let _ = writeln!(
                out,
                "<rect {paint} x=\"{x}\" y=\"{top}\" width=\"{step}\" height=\"12\"/>"
            );
        };
        swatch(out, LEFT, "class=\"empty\"");
        let mark = |out: &mut String, x: f64, text: &str| {
            let _ = writeln!(
                out,
                "<text class=\"soft\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                top + 28.0
            );
        };
        mark(out, LEFT + step / 2.0, "0");
        for level in 1..=LEVELS {
            let x = left + f64::from(level - 1) * step;
            swatch(out, x, &format!("class=\"swatch\" fill=\"{}\"", color(level)));
        }
        for part in [0.25, 0.5, 0.75, 1.0] {
            let value = self.scale.value(part) * most;
            mark(out, left + part * f64::from(LEVELS) * step, &number(value));
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\">{}</text>",
            left + f64::from(LEVELS) * step + 28.0,
            top + 10.0,
            xml(&self.value_label)
        );
    }
}

impl ColorScale {
    /// The colour level of a value. Only values that are not positive get level 0, which is empty.
    fn level(self, value: f64, most: f64) -> u8 {
        if !value.is_finite() || value <= 0.0 || most <= 0.0 {
            return 0;
        }
        let part = match self {
            Self::Linear => value / most,
            Self::SquareRoot => (value / most).sqrt(),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 1 to LEVELS"
        )]
        let level = (part * f64::from(LEVELS)).ceil().clamp(1.0, f64::from(LEVELS)) as u8;
        level
    }

    /// Inverse of the scale: the value, as a fraction of the largest one, at a fraction of the colour scale.
    fn value(self, part: f64) -> f64 {
        match self {
            Self::Linear => part,
            Self::SquareRoot => part * part,
        }
    }
}

/// The colour of a level from 1 to [`LEVELS`].
fn color(level: u8) -> String {
    let last = ANCHORS.len() - 1;
    let at = f64::from(level - 1) / f64::from(LEVELS - 1) * float(last);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small index")]
    let from = (at.floor() as usize).min(last - 1);
    let share = at - float(from);
    let mut out = "#".to_owned();
    for (low, high) in ANCHORS[from].iter().zip(ANCHORS[from + 1]) {
        let _ = write!(out, "{:02x}", channel(low + (high - low) * share));
    }
    out
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 255")]
fn channel(value: f64) -> u8 {
    value.round() as u8
}

/// The path data of all cells with a level, in units of cells: a horizontal line for each run of equal cells.
fn strokes(levels: &[Vec<u8>], wanted: u8) -> String {
    let mut out = String::new();
    // The pen's position is where the last stroke ended, half a cell below the upper edge of its row.
    let (mut pen_column, mut pen_row) = (0_usize, 0_usize);
    for (row, cells) in levels.iter().enumerate() {
        let mut column = 0;
        for run in cells.chunk_by(|a, b| a == b) {
            if run[0] == wanted {
                if out.is_empty() {
                    let _ = write!(out, "M{column} {row}.5");
                } else {
                    let across = signed(column) - signed(pen_column);
                    let _ = write!(out, "m{across} {}", row - pen_row);
                }
                let _ = write!(out, "h{}", run.len());
                (pen_column, pen_row) = (column + run.len(), row);
            }
            column += run.len();
        }
    }
    out
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of rows and columns")]
fn float(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SVG: &str = "http://www.w3.org/2000/svg";

    fn map(rows: Vec<Vec<f64>>) -> HeatMap {
        HeatMap {
            title: "experts <&>".into(),
            row_label: "layer".into(),
            column_label: "expert".into(),
            value_label: "selections".into(),
            scale: ColorScale::SquareRoot,
            rows: (0..)
                .zip(rows)
                .map(|(layer, values)| HeatRow {
                    name: format!("{layer}"),
                    values,
                })
                .collect(),
        }
    }

    /// The level that the paths of a map paint, by cell.
    fn painted(svg: &str, rows: usize, columns: usize) -> Vec<Vec<u8>> {
        let level_of: std::collections::HashMap<String, u8> = (1..=LEVELS).map(|level| (color(level), level)).collect();
        let document = roxmltree::Document::parse(svg).unwrap();
        let mut cells = vec![vec![0; columns]; rows];
        for path in document.descendants().filter(|node| node.has_tag_name((SVG, "path"))) {
            let level = level_of[path.attribute("stroke").unwrap()];
            let (mut x, mut y) = (0_i64, 0_i64);
            for step in path.attribute("d").unwrap().split(['M', 'm']).skip(1) {
                let (to, length) = step.split_once('h').unwrap();
                let (across, down) = to.split_once(' ').unwrap();
                x += across.parse::<i64>().unwrap();
                y += down.trim_end_matches(".5").parse::<i64>().unwrap();
                for _ in 0..length.parse::<i64>().unwrap() {
                    let cell = &mut cells[usize::try_from(y).unwrap()][usize::try_from(x).unwrap()];
                    assert_eq!(*cell, 0, "painted twice");
                    *cell = level;
                    x += 1;
                }
            }
        }
        cells
    }

    #[test]
    fn every_cell_has_its_colour() {
        let mut random = fastrand::Rng::with_seed(3);
        let rows: Vec<Vec<f64>> = (0..7)
            .map(|_| (0..40).map(|_| f64::from(random.u32(0..4)) * 10.0).collect())
            .collect();
        let map = map(rows);
        let most = map.most();
        assert_eq!(painted(&map.svg(), 7, 40), map.levels(most));
    }

    #[test]
    fn the_largest_value_is_brightest_and_nothing_is_empty() {
        for scale in [ColorScale::Linear, ColorScale::SquareRoot] {
            assert_eq!(scale.level(8.0, 8.0), LEVELS);
            assert_eq!(scale.level(0.000_1, 8.0), 1);
            assert_eq!(scale.level(0.0, 8.0), 0);
            assert_eq!(scale.level(f64::NAN, 8.0), 0);
        }
        assert_eq!(ColorScale::Linear.level(4.0, 8.0), 16);
        assert_eq!(color(1), "#440154");
        assert_eq!(color(LEVELS), "#fde725");
    }

    #[test]
    fn a_full_size_map_stays_small() {
        let mut random = fastrand::Rng::with_seed(3);
        let rows = (0..48).map(|_| (0..512).map(|_| random.f64()).collect()).collect();
        let svg = map(rows).svg();
        assert!(svg.len() < 250_000, "{} bytes", svg.len());
    }

    #[test]
    fn ragged_and_empty_maps_are_drawn() {
        for rows in [vec![], vec![vec![], vec![]], vec![vec![1.0], vec![1.0, 0.0, 2.0]]] {
            let svg = map(rows).svg();
            roxmltree::Document::parse(&svg).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }
}
