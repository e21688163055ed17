//! Fonts and colours for light and dark themes.

use std::fmt::Write;

use super::text::xml;

/// The CSS class of every chart; it keeps the styles of charts and page apart.
const CHART: &str = "hearth-chart";

/// Colours of lines, for light and for dark backgrounds; distinguishable with most kinds of colour blindness.
const LINES: [(&str, &str); 8] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#00795a", "#2fc49b"),
    ("#b0478a", "#e79ac8"),
    ("#8a6d00", "#f0c808"),
    ("#6a4fb3", "#b3a1f0"),
    ("#4d5560", "#aab4c0"),
    ("#a11d33", "#ff7d8f"),
];

/// Dash patterns, so that lines differ not only by colour.
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

/// The CSS class of a line by index.
pub(super) fn line_class(number: usize) -> String {
    format!("l{}", number % LINES.len())
}

/// The dash pattern of a line by index.
pub(super) fn dashes(number: usize) -> &'static str {
    DASHES[number % DASHES.len()]
}

/// The beginning of an SVG document with a title and a background.
///
/// It uses no CSS custom properties, because not every SVG viewer supports them.
pub(super) fn open(title: &str, width: f64, height: f64) -> String {
    let title = xml(title);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"{CHART}\" role=\"img\" aria-label=\"{title}\" \
         viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n<title>{title}</title>\n<style>\n\
         .{CHART} {{ font: 12px system-ui, sans-serif; max-width: 100%; height: auto }}\n\
         .{CHART} .title {{ font-size: 15px; font-weight: 600 }}\n\
         .{CHART} .line {{ fill: none; stroke-width: 2; stroke-linejoin: round }}\n\
         .{CHART} .cells path {{ fill: none; stroke-width: 1 }}\n"
    );
    let theme = |out: &mut String, [paper, ink, soft, grid, empty]: [&str; 5], dark: bool| {
        let _ = write!(
            out,
            ".{CHART} .paper {{ fill: {paper} }}\n.{CHART} text {{ fill: {ink} }}\n.{CHART} .soft {{ fill: {soft} }}\n\
             .{CHART} .grid {{ stroke: {grid} }}\n.{CHART} .empty {{ fill: {empty} }}\n"
        );
        for (number, colors) in LINES.iter().enumerate() {
            let color = if dark { colors.1 } else { colors.0 };
            let _ = writeln!(
                out,
                ".{CHART} .l{number} {{ stroke: {color} }} .{CHART} .dot.l{number} {{ fill: {color} }}"
            );
        }
    };
    theme(&mut out, ["#ffffff", "#1b1f24", "#57606a", "#d8dee4", "#e6e9ed"], false);
    out.push_str("@media (prefers-color-scheme: dark) {\n");
    theme(&mut out, ["#15191f", "#e6e9ed", "#9aa4af", "#333b45", "#2a3038"], true);
    let _ = write!(
        out,
        "}}\n</style>\n<rect class=\"paper\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"16\" y=\"26\">{title}</text>\n"
    );
    out
}

/// The style of a page around charts.
pub(super) const PAGE: &str = "\
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; background: #f6f8fa; color: #1b1f24 }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d8dee4; text-align: left; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
figure { margin: 1.5rem 0 }
@media (prefers-color-scheme: dark) {
  body { background: #0d1014; color: #e6e9ed }
  th, td { border-color: #333b45 }
}
";
