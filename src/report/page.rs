//! A whole report, as one HTML file or as Markdown with separate SVG files.

use std::fmt::Write;

use super::style;
use super::table::Table;
use super::text::{markdown, xml};

/// A report: facts about the measurement, and sections with results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub title: String,
    /// Name and value, such as the machine and the date.
    pub facts: Vec<(String, String)>,
    pub sections: Vec<Section>,
}

/// A part of a [`Page`] under a heading of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    pub heading: String,
    /// A paragraph.
    pub text: Option<String>,
    pub table: Option<Table>,
    pub figures: Vec<Figure>,
}

/// A chart in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Name of its file, without `.svg`.
    pub name: String,
    /// Alternative text.
    pub title: String,
    /// An SVG document, as the charts of this module write it.
    pub svg: String,
}

impl Page {
    /// One file that holds everything, charts included. It is also well-formed XML.
    #[must_use]
    pub fn html(&self) -> String {
        let title = xml(&self.title);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{title}</title>\n\
             <style>\n{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<table class=\"facts\">\n<tbody>\n",
            style::PAGE
        );
        for (name, value) in &self.facts {
            let _ = writeln!(out, "<tr><th>{}</th><td>{}</td></tr>", xml(name), xml(value));
        }
        out.push_str("</tbody>\n</table>\n");
        for section in &self.sections {
            let _ = writeln!(out, "<h2>{}</h2>", xml(&section.heading));
            if let Some(text) = &section.text {
                let _ = writeln!(out, "<p>{}</p>", xml(text));
            }
            if let Some(table) = &section.table {
                out.push_str(&table.html());
            }
            for figure in &section.figures {
                let _ = write!(out, "<figure>\n{}</figure>\n", figure.svg);
            }
        }
        out.push_str("</body>\n</html>\n");
        out
    }

    /// The page in Markdown. It links to each figure as `NAME.svg` in the same folder.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!("# {}\n\n", markdown(&self.title));
        for (name, value) in &self.facts {
            let _ = writeln!(out, "* **{}:** {}", markdown(name), markdown(value));
        }
        for section in &self.sections {
            let _ = write!(out, "\n## {}\n", markdown(&section.heading));
            if let Some(text) = &section.text {
                let _ = write!(out, "\n{}\n", markdown(text));
            }
            if let Some(table) = &section.table {
                let _ = write!(out, "\n{}", table.markdown());
            }
            for figure in &section.figures {
                let _ = write!(out, "\n![{}]({}.svg)\n", markdown(&figure.title), figure.name);
            }
        }
        out
    }

    /// All figures, in order.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.sections.iter().flat_map(|section| &section.figures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, LineChart};
    use super::*;

    fn page() -> Page {
        let chart = LineChart {
            title: "a chart".into(),
            x: Axis::linear("x"),
            y: Axis::linear("y"),
            series: Vec::new(),
        };
        Page {
            title: "hearth & <friends>".into(),
            facts: vec![("machine".into(), "4 cores | 16 GiB".into())],
            sections: vec![Section {
                heading: "Results".into(),
                text: Some("a < b".into()),
                table: Some(Table {
                    header: vec!["a".into()],
                    rows: vec![vec!["1".into()]],
                }),
                figures: vec![Figure {
                    name: "decode".into(),
                    title: "a chart".into(),
                    svg: chart.svg(),
                }],
            }],
        }
    }

    #[test]
    fn the_page_is_whole() {
        let html = page().html();
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..roxmltree::ParsingOptions::default()
        };
        let document = roxmltree::Document::parse_with_options(&html, options).unwrap();
        let text = |tag: &str| {
            let node = document.descendants().find(|node| node.tag_name().name() == tag);
            node.and_then(|node| node.text()).map(str::to_owned)
        };
        assert_eq!(text("h1").as_deref(), Some("hearth & <friends>"));
        assert_eq!(text("p").as_deref(), Some("a < b"));
        assert!(document.descendants().any(|node| node.tag_name().name() == "svg"));
        // The page loads nothing: its only URL is SVG's namespace.
        assert_eq!(
            html.matches("http").count(),
            html.matches("http://www.w3.org/2000/svg").count()
        );
        assert!(!html.contains("src=") && !html.contains("href="));
    }

    #[test]
    fn markdown_links_its_pictures() {
        let text = page().markdown();
        assert!(
            text.starts_with("# hearth & \\<friends\\>\n\n* **machine:** 4 cores \\| 16 GiB\n"),
            "{text}"
        );
        assert!(
            text.contains("\n| a |\n|---:|\n| 1 |\n\n![a chart](decode.svg)\n"),
            "{text}"
        );
        assert_eq!(page().figures().count(), 1);
    }
}
