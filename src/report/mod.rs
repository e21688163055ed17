//! Plain data to pictures and pages: SVG charts, tables, Markdown, and one HTML file that needs no network.
//!
//! Everything here is a pure function. The charts bring their colours for light and dark along, and draw their own
//! background, so that they are readable wherever they are shown.

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
