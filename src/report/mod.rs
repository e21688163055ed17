//! Renders plain data as SVG charts, tables, Markdown pages and self-contained HTML pages.
//!
//! Everything here is a pure function. Charts contain their colours for light and dark themes and their own background, so
//! that they are readable wherever they are embedded.

mod axis;
mod heat_map;
mod line_chart;
mod page;
mod style;
mod table;
mod text;

pub use axis::{Axis, Scale};
pub use heat_map::{ColorScale, HeatMap, HeatRow};
pub use line_chart::{LineChart, Point, Series};
pub use page::{Figure, Page, Section};
pub use table::Table;
